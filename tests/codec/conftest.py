"""Small table sets like those that a model ships."""

from dataclasses import dataclass
from math import erf, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tables:
    radius: NDArray[np.uint16]
    freq: NDArray[np.uint16]
    sigma: NDArray[np.float64]


def gaussian_tables(rows: int, max_radius: int = 300) -> Tables:
    """Zero-mean Gaussians, sigma 0.11 to 256 log-spaced; the escape gets the mass of the tails, at least 1/65536."""
    sigma = np.exp(np.linspace(np.log(0.11), np.log(256), rows))
    radius, freq = [], []
    for s in sigma:
        t = min(int(np.ceil(4 * s)), max_radius)
        edges = np.array([0.5 * (1 + erf(x / s / sqrt(2))) for x in np.arange(-t - 0.5, t + 1)])
        p = np.diff(edges)
        f = np.append(np.maximum(1, np.floor(p * 65000)), 1).astype(np.int64)
        f[-1] += (65536 - f.sum()) // 2
        f[t] += 65536 - f.sum()
        radius.append(t)
        freq.append(f)
    return Tables(np.array(radius, np.uint16), np.concatenate(freq).astype(np.uint16), sigma)


@pytest.fixture(scope="session")
def tables() -> Tables:
    return gaussian_tables(64)
