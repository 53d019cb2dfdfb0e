"""The two figures that every report has: rate and RGB-PSNR."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def bits_per_pixel(size: int, height: int, width: int) -> float:
    """Bits per pixel of a file of `size` bytes."""
    return 8 * size / (height * width)


def psnr(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """PSNR in dB over all samples of two arrays of one shape, 0 to 255; infinity when they are equal."""
    error = float(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64))))
    return 10 * math.log10(255**2 / error) if error else math.inf
