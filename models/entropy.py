"""The entropy model: 64 zero-mean distributions, their scales log-spaced, of which a row index picks one.

Symbols have heavier tails than a Gaussian: each row is a mixture of Gaussians of several widths. Training
assumes the same mixture in all rows; the tables that ship are fitted to the symbols of the finished model.

Rows, not scales, are what encoder and decoder agree on: the row of every latent follows from z by integer
arithmetic, and the tables of the rows ship with the model, so no floating point is ever near the entropy
coder.
"""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .layers import clamp_ste

ROWS = 64
SCALE_MIN, SCALE_MAX = 0.11, 256.0
ROWS_PER_OCTAVE = (ROWS - 1) / math.log2(SCALE_MAX / SCALE_MIN)
PRECISION = 16
PRIOR = 2000.0
SPREADS = (0.35, 0.6, 1.0, 1.6, 2.6, 4.2)
"""Standard deviations of a row's Gaussians, relative to the row's own."""
SHARES = (0.09, 0.29, 0.5, 0.12, 0.0, 0.0)
"""Of each Gaussian in training: those that made the symbols of a trained codec most likely."""


def row_from_log2_scale(log2_scale: Tensor) -> Tensor:
    """Real-valued row index in [0, 63] for a base-2 log standard deviation, in symbol units."""
    return clamp_ste((log2_scale - math.log2(SCALE_MIN)) * ROWS_PER_OCTAVE, 0.0, ROWS - 1.0)


def symbol_bits(distance: Tensor, row: Tensor) -> Tensor:
    """Bits of coding integer (or noisy) `distance` from the mean with the distribution of real-valued `row`.

    Float32 in and out, elementwise. Balle et al., "Variational image compression with a scale hyperprior",
    ICLR 2018, equation 8, of a mixture; the tail form keeps precision far from the mean.
    """
    width = torch.exp2(row / ROWS_PER_OCTAVE + math.log2(SCALE_MIN)) * math.sqrt(2)
    low, high = ((distance.abs() + edge) / width for edge in (-0.5, 0.5))
    mass = sum(
        0.5 * share * (torch.erfc(low / spread) - torch.erfc(high / spread))
        for share, spread in zip(SHARES, SPREADS, strict=True)
        if share
    )
    return -torch.log2(clamp_ste(mass, 1e-9, 1.0))  # type: ignore[arg-type]


TAIL = 2.0**-15  # symbols that are rarer than this escape


def row_scales() -> NDArray[np.float64]:
    """Standard deviation of each row [64], in symbol units."""
    return SCALE_MIN * 2.0 ** (np.arange(ROWS) / ROWS_PER_OCTAVE)


def mixture_tables(shares: NDArray[np.float64] | None = None) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The table set of the rows: `radius` uint16[64] and the concatenated `freq` uint16[sum(2*radius+2)].

    shares [64, 6]: of each of `SPREADS`' Gaussians in each row; without them, those that training assumes. Row i
    codes symbols -radius..radius and an escape; its frequencies sum to 2**16, none is zero. Built once, when a
    model is made, and shipped: rebuilding it elsewhere could round differently.
    """
    radii, freqs = [], []
    for scale, parts in zip(row_scales(), [SHARES] * ROWS if shares is None else shares, strict=True):
        mixture = [(share, scale * spread * math.sqrt(2)) for share, spread in zip(parts, SPREADS, strict=True)]

        def below(x: float, mixture: list[tuple[float, float]] = mixture) -> float:
            return 0.5 * sum(share * math.erfc(-x / width) for share, width in mixture)

        radius = next(r for r in count(1) if 2 * below(-r - 0.5) <= TAIL)
        edges = np.arange(-radius, radius + 2) - 0.5
        cdf = np.array([below(e) for e in edges])
        entries = 2 * radius + 2
        spare = 2**PRECISION - entries  # beyond the 1 that every entry gets
        # Rounding sums, not terms, keeps wide rows smooth: lost fractions would pile up at 0.
        side = 1 + np.diff(np.round(np.diff(cdf)[:radius].cumsum() * spare), prepend=0)
        freq = np.concatenate([side, [0], side[::-1], [1 + round(2 * cdf[0] * spare)]])
        freq[radius] = 2**PRECISION - freq.sum()
        radii.append(radius)
        freqs.append(freq.astype(np.uint16))
    return np.array(radii, np.uint16), np.concatenate(freqs)


def fit_mixture(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares [64, 6] of `SPREADS`' Gaussians in each row that make observed symbols most likely.

    counts [64, n]: how often a symbol of magnitude 0, 1, ..., n-1 or more came in each row. Expectation
    maximization; rows with few symbols follow the others: a common mixture counts as `PRIOR` symbols in each.
    """
    magnitudes = np.arange(counts.shape[1])
    spread = row_scales()[:, None, None] * np.array(SPREADS)[:, None] * math.sqrt(2)
    erfc = np.vectorize(math.erfc)
    likelihood = np.maximum(erfc((magnitudes - 0.5) / spread) - erfc((magnitudes + 0.5) / spread), 1e-300)
    common = np.full(len(SPREADS), 1 / len(SPREADS))
    shares = np.tile(common, (ROWS, 1))
    for _ in range(300):
        joint = shares[:, :, None] * likelihood
        expected = (joint / joint.sum(1, keepdims=True) * counts[:, None]).sum(2)
        total = counts.sum(1, keepdims=True)
        # Rows weigh alike in the common mixture, or the rows of nothing but zeros would decide it.
        common = (expected / np.maximum(total, 1) * np.minimum(total, PRIOR)).sum(0)
        common /= common.sum()
        shares = (expected + PRIOR * common) / (total + PRIOR)
    return np.asarray(shares)
