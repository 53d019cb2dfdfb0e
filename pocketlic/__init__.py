"""Pocketlic: a learned image codec small enough for a phone, exact to the pixel on every machine.

>>> import numpy as np, pocketlic
>>> picture = np.zeros((48, 64, 3), np.uint8)
>>> pocketlic.decode(pocketlic.encode(picture, quality=50)).shape
(48, 64, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import FormatError, ModelError, PlicError, PlicWarning, Runtime, decode, encode, shipped_model

__all__ = ["FormatError", "ModelError", "PlicError", "PlicWarning", "Runtime", "decode", "encode", "shipped_model"]


def __getattr__(name: str) -> Any:
    # Only when asked for: the command line has to answer Ctrl-C before NumPy and the runtimes are imported.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
