"""The errors of exporting and of running exported networks."""

from __future__ import annotations

from ..codec.errors import PlicError


class ExportError(PlicError):
    """Networks cannot be written, read or run as asked; the message is one line, fit to be printed."""
