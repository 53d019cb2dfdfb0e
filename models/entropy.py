"""The entropy model: 64 zero-mean Gaussian scales, log-spaced, of which a row index picks one.

Rows, not scales, are what encoder and decoder agree on: the row of every latent follows from z by integer
arithmetic, and the tables of the rows ship with the model, so no floating point is ever near the entropy
coder.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .layers import clamp_ste

ROWS = 64
SCALE_MIN, SCALE_MAX = 0.11, 256.0
ROWS_PER_OCTAVE = (ROWS - 1) / math.log2(SCALE_MAX / SCALE_MIN)
PRECISION = 16


def row_from_log2_scale(log2_scale: Tensor) -> Tensor:
    """Real-valued row index in [0, 63] for a base-2 log standard deviation, in symbol units."""
    return clamp_ste((log2_scale - math.log2(SCALE_MIN)) * ROWS_PER_OCTAVE, 0.0, ROWS - 1.0)


def gaussian_bits(distance: Tensor, row: Tensor) -> Tensor:
    """Bits of coding integer (or noisy) `distance` from the mean with the Gaussian of real-valued `row`.

    Float32 in and out, elementwise. Balle et al., "Variational image compression with a scale hyperprior",
    ICLR 2018, equation 8; the tail form keeps precision far from the mean.
    """
    scale = torch.exp2(row / ROWS_PER_OCTAVE + math.log2(SCALE_MIN)) * math.sqrt(2)
    d = distance.abs()
    mass = 0.5 * (torch.erfc((d - 0.5) / scale) - torch.erfc((d + 0.5) / scale))
    return -torch.log2(clamp_ste(mass, 1e-9, 1.0))


def gaussian_tables() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The table set of the rows: `radius` uint16[64] and the concatenated `freq` uint16[sum(2*radius+2)].

    Row i codes symbols -radius..radius and an escape; its frequencies sum to 2**16, none is zero. Built once,
    when a model is made, and shipped: rebuilding it elsewhere could round differently.
    """
    radii, freqs = [], []
    for row in range(ROWS):
        scale = SCALE_MIN * 2.0 ** (row / ROWS_PER_OCTAVE)
        radius = max(1, math.ceil(4.2 * scale))
        edges = np.arange(-radius, radius + 2) - 0.5
        cdf = np.array([0.5 * math.erfc(-e / (scale * math.sqrt(2))) for e in edges])
        entries = 2 * radius + 2
        spare = 2**PRECISION - entries  # beyond the 1 that every entry gets
        # Rounding sums, not terms, keeps wide rows smooth: lost fractions would pile up at 0.
        side = 1 + np.diff(np.round(np.diff(cdf)[:radius].cumsum() * spare), prepend=0)
        freq = np.concatenate([side, [0], side[::-1], [1 + round(2 * cdf[0] * spare)]])
        freq[radius] = 2**PRECISION - freq.sum()
        radii.append(radius)
        freqs.append(freq.astype(np.uint16))
    return np.array(radii, np.uint16), np.concatenate(freqs)
