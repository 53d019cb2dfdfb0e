"""The reference codec: pixels to `.plic` bytes and back, in integers from end to end.

    encode   analysis -> y -> hyper-analysis -> z -> rows; hyper-synthesis, context -> means -> symbols -> rANS
    decode   rANS -> z -> rows; rANS -> symbols; hyper-synthesis, context -> means -> y_hat -> synthesis

The networks run in any executor that equals `IntegerNetwork.run`; all else is here. What the entropy decoder needs
(z and the rows) involves no network at all, so the symbols of a file are the same whatever runs the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..quantization.integer import Int8, Int64, IntegerModel, IntegerNetwork, depth_to_space, rounding_shift
from . import format as plic
from ._native import SymbolCoder
from .errors import FormatError, PlicError

Executor = Callable[[IntegerNetwork, Sequence[Int8]], dict[str, Int8]]
"""Runs a network on int8 [H, W, C] inputs and returns its outputs by name."""

STRIDE = 64  # pixels per cell of z; pictures are padded to a multiple
LATENT = 16  # pixels per cell of y
_ROW_BITS = 16


def reference(network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
    """The executor that defines the others."""
    return network.run(inputs)


@dataclass(frozen=True)
class Symbols:
    """What a file says about a picture: z int8 [h/64, w/64, 64] and the latent symbols int32 [h/16, w/16, 128]."""

    z: Int8
    y: NDArray[np.int32]


def interpolate(knots: NDArray[np.int32], quality: int) -> Int64:
    """Values [C] of a knot table [K, C] at a quality in hundredths, 0..10000, in integers, rounding down."""
    spacing = 10000 // (len(knots) - 1)
    index = min(quality // spacing, len(knots) - 2)
    part = quality - index * spacing
    return (knots[index].astype(np.int64) * (spacing - part) + knots[index + 1].astype(np.int64) * part) // spacing


class Codec:
    """Encoder and decoder of one model. Thread-safe when the executor is."""

    def __init__(self, model: IntegerModel, run: Executor = reference) -> None:
        self.model, self.run = model, run
        self.model_id = bytes.fromhex(model.model_id)[: plic.MODEL_ID_BYTES]
        self.coder = SymbolCoder(model.table_radius, model.table_freq, model.skip)
        self.fine_bits = np.zeros(model.latent_weight.shape[0], np.int64)
        self.fine_bits[model.wide] = 2

    def encode(
        self, pixels: NDArray[np.uint8], quality: float, icc: bytes = b"", exif: bytes = b""
    ) -> bytes:
        """`.plic` bytes of uint8 [H, W, 3] RGB or [H, W] grey at quality 0..100. PlicError on other input."""
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
            raise PlicError(f"a picture is uint8 [H, W, 3] or [H, W], not {pixels.dtype} {list(pixels.shape)}")
        if not 0 <= quality <= 100:
            raise PlicError(f"quality {quality:g} is outside 0 to 100")
        grey = pixels.ndim == 2
        height, width = pixels.shape[:2]
        header = plic.Header(width, height, grey, round(quality * 100), self.model_id)
        rgb = np.repeat(pixels[:, :, None], 3, 2) if grey else pixels
        symbols = self.analyse(rgb, header.quality_hundredths)
        rows = self.rows(symbols.z, header.quality_hundredths)
        z = self.coder.encode(symbols.z.astype(np.int32).ravel(), self._z_rows(symbols.z.shape, header))
        bands = self._bands(symbols.y.shape[0])
        y = tuple(self.coder.encode(symbols.y[band].ravel(), rows[band].ravel()) for band in bands)
        return plic.write(plic.PlicFile(header, z, y, icc, exif))

    def decode(self, data: bytes, max_pixels: int = plic.DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] or [H, W] of `.plic` bytes. FormatError when they are damaged or of another model."""
        file = plic.read(data, max_pixels)
        return self.synthesise(self.read_symbols(file), file.header)

    def read_symbols(self, file: plic.PlicFile) -> Symbols:
        """Entropy-decode a file: exact anywhere, no network runs. FormatError when the payload is damaged."""
        header = file.header
        if header.model_id != self.model_id:
            raise FormatError(
                f"the file was made by model {header.model_id.hex()}, this decoder has {self.model_id.hex()}"
            )
        h, w = -(-header.height // STRIDE), -(-header.width // STRIDE)
        shape = (h, w, self.model.row_weight.shape[1])
        try:
            z = self.coder.decode(file.z, self._z_rows(shape, header)).reshape(shape)
            if z.size and (z.min() < -128 or z.max() > 127):
                raise ValueError("z outside int8")
            z8 = z.astype(np.int8)
            rows = self.rows(z8, header.quality_hundredths)
            y = np.empty(rows.shape, np.int32)
            for band, payload in zip(self._bands(len(rows)), file.y, strict=True):
                y[band] = self.coder.decode(payload, rows[band].ravel()).reshape(rows[band].shape)
        except ValueError as error:
            raise FormatError(f"damaged payload: {error}") from None
        return Symbols(z8, y)

    def analyse(self, rgb: NDArray[np.uint8], quality: int) -> Symbols:
        """The symbols that encode uint8 [H, W, 3] at a quality in hundredths."""
        model, networks = self.model, self.model.networks
        height, width = rgb.shape[:2]
        padded = np.pad(rgb, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
        (features,) = self.run(networks["analysis"], [_to_int8(padded)]).values()
        y = self._latents(features)
        coarse = np.clip(rounding_shift(y, np.int64(8)), -128, 127).astype(np.int8)
        (hyper,) = self.run(networks["hyper_analysis"], [coarse]).values()
        z = self._hyper_gain(hyper, quality)

        context, mean, step = self._hyper_synthesis(z, quality)
        rows = self.rows(z, quality)
        anchor = anchor_mask(*y.shape)
        symbols = np.where(anchor, self._quantize(y, mean, step, rows), 0)
        mean = np.where(anchor, mean, self._context(context, (mean + symbols * step) * anchor))
        return Symbols(z, np.where(anchor, symbols, self._quantize(y, mean, step, rows)).astype(np.int32))

    def synthesise(self, symbols: Symbols, header: plic.Header) -> NDArray[np.uint8]:
        """Pixels of decoded symbols."""
        context, mean, step = self._hyper_synthesis(symbols.z, header.quality_hundredths)
        anchor = anchor_mask(*symbols.y.shape)
        y_hat = mean + symbols.y * step
        mean = np.where(anchor, mean, self._context(context, y_hat * anchor))
        planes = self._planes(mean + symbols.y * step)
        (pixels,) = self.run(self.model.networks["synthesis"], [planes]).values()
        rgb = _to_uint8(pixels)[: header.height, : header.width]
        if not header.grey:
            return np.ascontiguousarray(rgb)
        wide = rgb.astype(np.uint16)
        return ((wide[:, :, 0] + 2 * wide[:, :, 1] + wide[:, :, 2] + 2) >> 2).astype(np.uint8)

    def rows(self, z: Int8, quality: int) -> NDArray[np.uint8]:
        """Table row of every latent, uint8 [4h, 4w, 128], from z int8 [h, w, 64]: the exact entropy model."""
        model = self.model
        # float64 sums of products of int8 are exact, and fast.
        acc = (z.reshape(-1, z.shape[2]).astype(np.float64) @ model.row_weight.T.astype(np.float64)).astype(np.int64)
        fixed = depth_to_space((acc * model.row_scale + model.row_bias).reshape(*z.shape[:2], -1), 4)
        fixed = fixed + interpolate(model.row_knots, quality)
        row = (fixed + (1 << (_ROW_BITS - 1))) >> _ROW_BITS
        return np.clip(row, 0, len(model.table_radius) - 1).astype(np.uint8)

    def _z_rows(self, shape: tuple[int, ...], header: plic.Header) -> NDArray[np.uint8]:
        fixed = interpolate(self.model.hyper_row_knots, header.quality_hundredths)
        # z is never skipped, whatever its row.
        row = np.clip((fixed + (1 << (_ROW_BITS - 1))) >> _ROW_BITS, self.model.skip, len(self.model.table_radius) - 1)
        return np.broadcast_to(row.astype(np.uint8), shape).ravel()

    @staticmethod
    def _bands(latent_rows: int) -> list[slice]:
        size = plic.BAND_LATENT_ROWS
        return [slice(top, min(top + size, latent_rows)) for top in range(0, latent_rows, size)]

    def _latents(self, features: Int8) -> Int64:
        """y int64 [h, w, 128] in 2**-8 of the grid."""
        model = self.model
        (name,) = model.networks["analysis"].outputs
        x = features.astype(np.float64) - model.networks["analysis"].specs[name].zero_point
        acc = (x.reshape(-1, x.shape[2]) @ model.latent_weight.T.astype(np.float64)).astype(np.int64)
        acc = acc.reshape(*x.shape[:2], -1) + model.latent_bias
        shift = model.latent_shift.astype(np.int64)
        return np.where(shift < 0, rounding_shift(acc, np.maximum(-shift, 1)), acc << np.maximum(shift, 0))

    def _hyper_gain(self, hyper: Int8, quality: int) -> Int8:
        exponent = interpolate(self.model.hyper_gain_knots, quality)
        mantissa, shift = self.model.exp2[exponent & 255].astype(np.int64), 16 - (exponent >> 8)
        product = hyper.astype(np.int64) * mantissa
        return np.clip(rounding_shift(product, np.clip(shift, 1, 40)), -128, 127).astype(np.int8)

    def _hyper_synthesis(self, z: Int8, quality: int) -> tuple[Int8, Int64, Int64]:
        """(context features, mean0, step), the last two in units of each channel's grid."""
        network = self.model.networks["hyper_synthesis"]
        tensors = self.run(network, [z])
        context, mean, log2_step = (tensors[name] for name in network.outputs)
        exponent = interpolate(self.model.step_knots, quality) + 8 * np.clip(log2_step.astype(np.int64), -64, 64)
        exponent = np.clip(exponent, 0, 14 * 256)
        mantissa = self.model.exp2[exponent & 255].astype(np.int64)
        step = ((mantissa << (exponent >> 8)) + (1 << 15)) >> 16
        return context, mean.astype(np.int64) << self.fine_bits, step

    def _context(self, context: Int8, anchors: Int64) -> Int64:
        coarse = np.clip((anchors + (np.int64(1) << self.fine_bits >> 1)) >> self.fine_bits, -128, 127).astype(np.int8)
        (mean,) = self.run(self.model.networks["context"], [context, coarse]).values()
        return mean.astype(np.int64) << self.fine_bits

    def _planes(self, y_hat: Int64) -> Int8:
        coarse = np.clip((y_hat + (np.int64(1) << self.fine_bits >> 1)) >> self.fine_bits, -128, 127)
        fine = np.clip(y_hat[:, :, self.model.wide] - 4 * coarse[:, :, self.model.wide], -128, 127)
        return np.concatenate([coarse, fine], 2).astype(np.int8)

    def _quantize(self, y: Int64, mean: Int64, step: Int64, rows: NDArray[np.uint8]) -> Int64:
        """round((y - mean) / step), half up, within what the grid holds; 0 in rows that are not coded."""
        bound = np.int64(128) << (8 + self.fine_bits)
        # y is in 2**-8 of the coarse grid: bring it to the channel's own.
        distance = np.clip(y << self.fine_bits, -bound, bound - 1) - (mean << 8)
        symbols = (2 * distance + (step << 8)) // (step << 9)
        return np.where(rows < self.model.skip, 0, symbols)


def anchor_mask(height: int, width: int, channels: int) -> NDArray[np.bool_]:
    """Checkerboard [h, w, C] of the latents whose means come first; the second half of the channels has the other colour."""
    parity = np.arange(height)[:, None, None] + np.arange(width)[:, None] + (np.arange(channels) >= channels // 2)
    return np.asarray(parity % 2 == 0)


def _to_int8(pixels: NDArray[np.uint8]) -> Int8:
    return (pixels ^ np.uint8(128)).view(np.int8)


def _to_uint8(values: Int8) -> NDArray[np.uint8]:
    return values.view(np.uint8) ^ np.uint8(128)
