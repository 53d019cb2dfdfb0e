"""The entropy model: 64 zero-mean distributions with log-spaced scales; a table index picks one for each symbol.

Symbols have heavier tails than a Gaussian: each distribution is a mixture of Gaussians of several widths. Training
assumes the same mixture for all; the frequency tables that ship are fitted to the symbols of the finished model.

Encoder and decoder agree on table indices, not on scales. The index of every symbol follows from z by integer
arithmetic, and the tables ship with the model. So entropy coding needs no floating point.
"""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .layers import clamp_ste

TABLES = 64
SCALE_MIN, SCALE_MAX = 0.11, 256.0
TABLES_PER_OCTAVE = (TABLES - 1) / math.log2(SCALE_MAX / SCALE_MIN)
PRECISION = 16
PRIOR = 2000.0
SPREADS = (0.35, 0.6, 1.0, 1.6, 2.6, 4.2)
"""Standard deviations of a mixture's Gaussians, relative to the table's scale."""
SHARES = (0.09, 0.29, 0.5, 0.12, 0.0, 0.0)
"""Weights of the mixture in training: the maximum likelihood on the symbols of a trained codec."""


def index_from_log2_scale(log2_scale: Tensor) -> Tensor:
    """Real-valued table index, 0 to 63, of a base-2 logarithm of a standard deviation in symbol units."""
    return clamp_ste((log2_scale - math.log2(SCALE_MIN)) * TABLES_PER_OCTAVE, 0.0, TABLES - 1.0)


def symbol_bits(distance: Tensor, index: Tensor) -> Tensor:
    """Bits of a symbol at integer (or noisy) `distance` from the mean, coded with real-valued table `index`.

    Float32 in and out, elementwise. Ballé et al., "Variational image compression with a scale hyperprior",
    ICLR 2018, equation 8, of a mixture; the tail form keeps precision far from the mean.
    """
    width = torch.exp2(index / TABLES_PER_OCTAVE + math.log2(SCALE_MIN)) * math.sqrt(2)
    low, high = ((distance.abs() + edge) / width for edge in (-0.5, 0.5))
    mass = sum(
        0.5 * share * (torch.erfc(low / spread) - torch.erfc(high / spread))
        for share, spread in zip(SHARES, SPREADS, strict=True)
        if share
    )
    return -torch.log2(clamp_ste(mass, 1e-9, 1.0))  # type: ignore[arg-type]


TAIL = 2.0**-15  # rarer symbols are escaped


def table_scales() -> NDArray[np.float64]:
    """Standard deviation of each table [64], float64, in symbol units."""
    return SCALE_MIN * 2.0 ** (np.arange(TABLES) / TABLES_PER_OCTAVE)


def mixture_tables(shares: NDArray[np.float64] | None = None) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The frequency tables: `radius` uint16 [64] and the concatenated `freq` uint16 [sum(2*radius+2)].

    shares [64, 6]: weights of the `SPREADS` in each mixture; by default those that training assumes. Table i codes
    symbols -radius[i]..radius[i] and an escape. Its frequencies sum to 2**16; none is zero. Tables are made once and
    ship with the model: made elsewhere they could be rounded differently.
    """
    radii, freqs = [], []
    for scale, parts in zip(table_scales(), [SHARES] * TABLES if shares is None else shares, strict=True):
        mixture = [(share, scale * spread * math.sqrt(2)) for share, spread in zip(parts, SPREADS, strict=True)]

        def below(x: float, mixture: list[tuple[float, float]] = mixture) -> float:
            return 0.5 * sum(share * math.erfc(-x / width) for share, width in mixture)

        radius = next(r for r in count(1) if 2 * below(-r - 0.5) <= TAIL)
        edges = np.arange(-radius, radius + 2) - 0.5
        cdf = np.array([below(e) for e in edges])
        entries = 2 * radius + 2
        spare = 2**PRECISION - entries  # beyond the 1 that every entry gets
        # Rounding sums, not terms, keeps wide tables smooth: lost fractions would add up at 0.
        side = 1 + np.diff(np.round(np.diff(cdf)[:radius].cumsum() * spare), prepend=0)
        freq = np.concatenate([side, [0], side[::-1], [1 + round(2 * cdf[0] * spare)]])
        freq[radius] = 2**PRECISION - freq.sum()
        radii.append(radius)
        freqs.append(freq.astype(np.uint16))
    return np.array(radii, np.uint16), np.concatenate(freqs)


def fit_mixture(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights [64, 6] of the `SPREADS` in each mixture, of maximum likelihood for observed symbols, float64.

    counts int64 [64, n]: how often each table coded a symbol of magnitude 0, 1, ..., n-1 or more. By expectation
    maximization. A common mixture counts as `PRIOR` symbols in each table, so that rare tables follow the others.
    """
    magnitudes = np.arange(counts.shape[1])
    spread = table_scales()[:, None, None] * np.array(SPREADS)[:, None] * math.sqrt(2)
    erfc = np.vectorize(math.erfc)
    likelihood = np.maximum(erfc((magnitudes - 0.5) / spread) - erfc((magnitudes + 0.5) / spread), 1e-300)
    common = np.full(len(SPREADS), 1 / len(SPREADS))
    shares = np.tile(common, (TABLES, 1))
    for _ in range(300):
        joint = shares[:, :, None] * likelihood
        expected = (joint / joint.sum(1, keepdims=True) * counts[:, None]).sum(2)
        total = counts.sum(1, keepdims=True)
        # Tables weigh alike in the common mixture: by counts, those that code only zeros would decide it.
        common = (expected / np.maximum(total, 1) * np.minimum(total, PRIOR)).sum(0)
        common /= common.sum()
        shares = (expected + PRIOR * common) / (total + PRIOR)
    return np.asarray(shares)
