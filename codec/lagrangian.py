"""What effort minimises: bits by the model's own tables, plus the error of the decoded picture in units of bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..quantization.model import IntegerModel
from .codec import Codec, Symbols
from .format import Header

SQUARED_ERROR_WEIGHT = 1.25
"""Factor on squared error here, relative to training: so that effort trades bits for error as qualities do.

Measured on 12 photographs of the training set, from 3 qualities below to 3 above: the bits spent are 1.53 (quality 5)
to 0.99 (95), on average 1.24 times those that training's weight would spend. Perceptual error weighs as in training:
more of it did not help.
"""

REACH = 1024
"""The largest magnitude of a symbol that the encoder makes: grids hold 8 bits, those of the wide channels 10."""


def rate_weight(quality_hundredths: int) -> float:
    """Training's Lagrange multiplier: weight of 8-bit RGB mean squared error against bpp."""
    # `models.network.rate_weight`, without torch.
    return float(0.0002 * 1000.0 ** (quality_hundredths / 10000))


def table_bits(
    model: IntegerModel, symbols: NDArray[np.integer[Any]], indices: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Bits of each symbol by the table of its index; arrays of equal shape. Symbols of skipped tables cost 0."""
    table, value = indices.astype(np.int64), symbols.astype(np.int64)
    radius = model.table_radius.astype(np.int64)
    start = np.cumsum(2 * radius + 2) - (2 * radius + 2)
    escaped = np.abs(value) > radius[table]
    index = np.where(escaped, 2 * radius[table] + 1, value + radius[table])
    bits = 16 - np.log2(model.table_freq[start[table] + index].astype(np.float64))
    # An escape names the length of the excess in 4 bits, then the excess: SPEC.md, section 4.
    excess = np.where(escaped, 2 * (np.abs(value) - radius[table] - 1) + (value < 0) + 1, 1)
    bits += np.where(escaped, 4 + np.floor(np.log2(excess)), 0)
    return np.where(table < model.skip, 0, bits)


class Lagrangian:
    """Cost of symbols for one picture at one quality: bits, plus distortion in units of bits.

    rgb: uint8 [H, W, 3].
    """

    def __init__(self, codec: Codec, rgb: NDArray[np.uint8], quality_hundredths: int) -> None:
        self.codec, self.rgb, self.quality_hundredths = codec, rgb, quality_hundredths
        self.header = Header(rgb.shape[1], rgb.shape[0], False, quality_hundredths, codec.model_id)
        self.visual = codec.model.notes.get("tune") == "visual"
        # Bits per unit of squared error of one sample.
        self.error_bits = SQUARED_ERROR_WEIGHT * rate_weight(quality_hundredths) / 3
        values, indices = np.meshgrid(np.arange(-REACH, REACH + 1), np.arange(len(codec.model.table_radius)))
        self._bits = table_bits(codec.model, values, indices.astype(np.uint8)).astype(np.float32)

    def bits(self, symbols: NDArray[np.integer[Any]], indices: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Bits of symbols, of magnitude `REACH` at most, by their table indices; arrays of equal shape."""
        return np.asarray(self._bits[indices, symbols + REACH])

    def __call__(self, symbols: Symbols) -> float:
        """Bits plus the error of the decoded picture, in bits."""
        parts = self.codec.coded(symbols, self.quality_hundredths)
        rate = sum(float(self.bits(values, indices).sum(dtype=np.float64)) for values, indices in parts)
        decoded = self.codec.synthesise(symbols, self.header)
        if self.visual:
            from .visual import visual_error  # which needs torch

            return rate + visual_error(self.rgb, decoded, self.quality_hundredths)
        error = decoded.astype(np.int32) - self.rgb
        return rate + self.error_bits * float(np.square(error).sum(dtype=np.float64))
