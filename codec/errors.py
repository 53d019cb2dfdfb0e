"""The errors a user of the codec can meet. Each message is one line, fit to be printed as it is."""

from __future__ import annotations

from ..models.errors import PlicError, PlicWarning

__all__ = ["FormatError", "PlicError", "PlicWarning"]


class FormatError(PlicError):
    """The bytes are not a `.plic` file that this decoder can decode."""
