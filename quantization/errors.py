"""What is wrong with a model, and the names of the tie-free rules: all that needs no NumPy."""

from __future__ import annotations

from typing import Literal

from ..models.errors import PlicError

Rule = Literal["cpu", "strict"]


class ModelError(PlicError):
    """A model file or integer network that breaks its own rules; the message is one line."""
