"""Parts of a profile that phones and this machine make alike."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def unavailable(reason: str) -> dict[str, Any]:
    """What a report says where nothing was measured."""
    return {"available": False, "reason": reason}


def describe(name: str, pixels: NDArray[np.uint8], data: bytes, decoded: NDArray[np.uint8]) -> dict[str, Any]:
    """Name, size and rate of a run, and PSNR in dB of its decoded picture; None when that is lossless."""
    height, width = pixels.shape[:2]
    error = float(np.mean((decoded.astype(np.float64) - pixels) ** 2))
    return {
        "image": name,
        "width": width,
        "height": height,
        "bytes": len(data),
        "bpp": round(8 * len(data) / (height * width), 5),
        "psnr_db": round(10 * float(np.log10(255**2 / error)), 4) if error else None,
    }


def stage(name: str, got: bytes, expected: bytes) -> dict[str, Any]:
    """One line of the determinism table."""
    hashes = [hashlib.sha256(content).hexdigest() for content in (got, expected)]
    return {"stage": name, "sha256": hashes[0], "reference": hashes[1], "equal": hashes[0] == hashes[1]}
