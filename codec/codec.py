"""The reference codec: pixels to `.plic` bytes and back, in integers from end to end.

    encode   analysis -> y, d -> hyper-analysis -> z -> its differences from a prediction, and table indices
             hyper-synthesis, context -> means -> symbols of y; symbols of d; all, by their table indices -> rANS
    decode   rANS -> differences -> z -> table indices of y -> rANS -> symbols of y
             symbols of y, z -> table indices of d -> rANS -> symbols of d
             hyper-synthesis, context -> means -> y_hat, d_hat -> synthesis -> post-filter

A *table index* picks the frequency table that codes a symbol. The networks run in any executor that equals
`IntegerNetwork.run`; all else is here. Entropy decoding (z, table indices, symbols) involves no network, so a file's
symbols are the same whatever runs the networks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..quantization.model import IntegerModel
from ..quantization.network import Int8, Int64, IntegerNetwork, depth_to_space, rounding_shift, space_to_depth
from . import format as plic
from . import rans
from ._native import SymbolCoder, SymbolReader
from .errors import FormatError, PlicError
from .postfilter import post_filter

Executor = Callable[[IntegerNetwork, Sequence[Int8]], dict[str, Int8]]
"""Runs a network on int8 [H, W, C] inputs and returns its outputs by name."""

Analyse = Callable[[NDArray[np.uint8], int], "Symbols"]
"""(uint8 [H, W, 3], quality_hundredths) -> symbols"""

MakeCoder = Callable[[NDArray[np.uint16], NDArray[np.uint16], int], SymbolCoder | rans.SymbolCoder]

STRIDE = 64  # pixels per cell of z; pictures are padded to a multiple
LATENT = 16  # pixels per cell of y
_INDEX_BITS = 16


def reference(network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
    """The NumPy executor, which all others have to equal."""
    return network.run(inputs)


@dataclass(frozen=True)
class Symbols:
    """All symbols of a file, for a picture whose padded size is h x w.

    z: int8 [h/64, w/64, 64]; y, details: symbols int32 [h/16, w/16, 96] and, folded 2x2, [h/16, w/16, 192].
    """

    z: Int8
    y: NDArray[np.int32]
    details: NDArray[np.int32]

    def sha256(self) -> str:
        """The symbols' hash (SPEC.md, section 7.2), hexadecimal."""
        digest = hashlib.sha256(self.z.tobytes())
        for top in range(0, len(self.y), plic.BAND_LATENT_ROWS):
            for part in (self.y, self.details):
                digest.update(part[top : top + plic.BAND_LATENT_ROWS].astype("<i2").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Latents:
    """Latents before quantization; shapes as in `Symbols`.

    z: int8. y, details: int64 in 2**-8 of the unit of each channel's grid, within the grid.
    """

    z: Int8
    y: Int64
    details: Int64


Rounding = Callable[[slice, Int64, Int64, NDArray[np.uint8]], Int64]
"""(channels, distance, step, indices) -> symbols int64 [h, w, C].

channels: those of y, or those of d, which are numbered after them. distance [h, w, C]: the latent less its mean, in
2**-8 of the step's unit. step: [h, w, C] or [C]. indices: table indices, uint8 [h, w, C].
"""


def nearest(channels: slice, distance: Int64, step: Int64, indices: NDArray[np.uint8]) -> Int64:
    """The `Rounding` with the least error: distance / step, rounded half up."""
    return np.asarray((2 * distance + (step << 8)) // (step << 9))


def interpolate(knots: NDArray[np.integer[Any]], quality_hundredths: int, nearest: bool = False) -> Int64:
    """Values of a knot table [K, ...] at a quality of 0 to 10000 hundredths, in integers.

    Rounded down, or with `nearest` to the nearest integer, halves up.
    """
    spacing = 10000 // (len(knots) - 1)
    index = min(quality_hundredths // spacing, len(knots) - 2)
    part = quality_hundredths - index * spacing
    low, high = knots[index : index + 2].astype(np.int64)
    return np.asarray((low * (spacing - part) + high * part + (spacing // 2 if nearest else 0)) // spacing)


class Codec:
    """Encoder and decoder of one model. Thread-safe when the executor is.

    coder: makes the entropy coder of (radius, frequencies, skip): the native one, or `rans.SymbolCoder`, which is
    slow and pure NumPy.
    """

    def __init__(self, model: IntegerModel, run: Executor = reference, coder: MakeCoder = SymbolCoder) -> None:
        self.model, self.run = model, run
        self.model_id = bytes.fromhex(model.model_id)[: plic.MODEL_ID_BYTES]
        self.coder = coder(model.table_radius, model.table_freq, model.skip)
        self.latents = model.latent_weight.shape[0]
        self.fine_bits = np.zeros(self.latents, np.int64)
        self.fine_bits[model.wide] = 2

    def encode(
        self,
        pixels: NDArray[np.uint8],
        quality: float,
        icc: bytes = b"",
        exif: bytes = b"",
        analyse: Analyse | None = None,
    ) -> bytes:
        """`.plic` bytes of uint8 [H, W, 3] RGB or [H, W] grey at quality 0..100. PlicError on other input.

        analyse: chooses the symbols in place of `Codec.analyse`, see `effort`.
        """
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
            raise PlicError(f"a picture is uint8 [H, W, 3] or [H, W], not {pixels.dtype} {list(pixels.shape)}")
        if not 0 <= quality <= 100:
            raise PlicError(f"quality {quality:g} is outside 0 to 100")
        grey = pixels.ndim == 2
        height, width = pixels.shape[:2]
        header = plic.Header(width, height, grey, round(quality * 100), self.model_id)
        rgb = np.repeat(pixels[:, :, None], 3, 2) if grey else pixels
        symbols = (analyse or self.analyse)(rgb, header.quality_hundredths)
        return self.write_symbols(symbols, header, icc, exif)

    def write_symbols(self, symbols: Symbols, header: plic.Header, icc: bytes = b"", exif: bytes = b"") -> bytes:
        """`.plic` bytes of symbols whose shapes fit the header. ValueError if a skipped symbol is not 0."""
        z, y, details = self.coded(symbols, header.quality_hundredths)
        streams: list[bytes] = []
        for b in self._bands(symbols.y.shape[0]):
            parts = [(values[b], indices[b]) for values, indices in (y, details)]
            if not streams:
                parts.insert(0, z)
            values, indices = (np.concatenate([part[i].ravel() for part in parts]) for i in (0, 1))
            streams.append(self.coder.encode(values, indices))
        return plic.write(plic.PlicFile(header, tuple(streams), icc, exif))

    def coded(self, symbols: Symbols, quality_hundredths: int) -> list[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
        """(coded values, table indices) of z, y and d, in the shapes of `Symbols`."""
        predicted = self.predicted_indices(symbols.z, quality_hundredths)
        return [
            self.coded_hyper(symbols.z, quality_hundredths),
            (symbols.y, self.latent_indices(predicted)),
            (symbols.details, self.detail_indices(predicted, symbols.y)),
        ]

    def coded_hyper(self, z: Int8, quality_hundredths: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """(coded differences, table indices) of z."""
        return self.differences(z), self._z_indices(z.shape, quality_hundredths)

    def decode(self, data: bytes, max_pixels: int = plic.DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
        """Pixels uint8 [H, W, 3] or [H, W] of `.plic` bytes. FormatError if damaged or of another model."""
        return self.synthesise(*self.read(data, max_pixels))

    def read(self, data: bytes, max_pixels: int = plic.DEFAULT_MAX_PIXELS) -> tuple[Symbols, plic.Header]:
        """Symbols and header of `.plic` bytes; errors as `decode`."""
        file = plic.read(data, max_pixels)
        return self.read_symbols(file), file.header

    def read_symbols(self, file: plic.PlicFile) -> Symbols:
        """Entropy-decode a file. Exact anywhere: no network runs. FormatError when the payload is damaged."""
        header = file.header
        if header.model_id != self.model_id:
            raise FormatError(
                f"the file was made by model {header.model_id.hex()}, this decoder has {self.model_id.hex()}"
            )
        h, w = -(-header.height // STRIDE), -(-header.width // STRIDE)
        shape = (h, w, self.model.row_weight.shape[1])
        try:
            streams = [self.coder.reader(band) for band in file.bands]
            z = self._undo_prediction(_read(streams[0], self._z_indices(shape, header.quality_hundredths)))
            predicted = self.predicted_indices(z, header.quality_hundredths)
            y, details = [], []
            for b, stream in zip(self._bands(len(predicted)), streams, strict=True):
                y.append(_read(stream, self.latent_indices(predicted[b])))
                details.append(_read(stream, self.detail_indices(predicted[b], y[-1])))
                stream.finish()
        except ValueError as error:
            raise FormatError(f"damaged payload: {error}") from None
        return Symbols(z, np.concatenate(y), np.concatenate(details))

    def analyse(self, rgb: NDArray[np.uint8], quality_hundredths: int) -> Symbols:
        """Transform uint8 [H, W, 3] and round to the nearest symbols."""
        return self.quantize(self.transform(rgb, quality_hundredths), quality_hundredths, nearest)

    def transform(self, rgb: NDArray[np.uint8], quality_hundredths: int) -> Latents:
        """Latents of uint8 [H, W, 3], before quantization."""
        networks = self.model.networks
        tensors = self.run(networks["analysis"], [self.pad(rgb)])
        features, fine = (tensors[name] for name in networks["analysis"].outputs)
        y, details = self._latents(features), self._details(fine)
        grids = [np.clip(rounding_shift(t, 8), -128, 127).astype(np.int8) for t in (y, details)]
        (hyper,) = self.run(networks["hyper_analysis"], grids).values()
        # y is in 2**-8 of the coarse grid: bring it to the channel's own.
        return self.bounded(self._hyper_gain(hyper, quality_hundredths), y << self.fine_bits, details)

    def bounded(self, z: Int8, y: Int64, details: Int64) -> Latents:
        """Latents clamped to their grids: 8 bits, of the wide channels 10."""
        bound = np.int64(128) << (8 + self.fine_bits)
        return Latents(z, np.clip(y, -bound, bound - 1), np.clip(details, -128 << 8, (128 << 8) - 1))

    def quantize(self, latents: Latents, quality_hundredths: int, rounding: Rounding) -> Symbols:
        """Quantize latents; symbols of skipped tables are 0."""
        z, skip = latents.z, self.model.skip
        context, mean, step = self.hyper_synthesis(z, quality_hundredths)
        predicted = self.predicted_indices(z, quality_hundredths)
        indices = self.latent_indices(predicted)
        anchor = anchor_mask(*latents.y.shape)
        channels = slice(0, self.latents)
        symbols = np.where(indices < skip, 0, rounding(channels, latents.y - (mean << 8), step, indices))
        mean = np.where(anchor, mean, self._context(context, np.where(anchor, mean + symbols * step, 0)))
        others = np.where(indices < skip, 0, rounding(channels, latents.y - (mean << 8), step, indices))
        symbols = np.where(anchor, symbols, others).astype(np.int32)

        indices = self.detail_indices(predicted, symbols)
        details = rounding(slice(self.latents, None), latents.details, self.detail_step(quality_hundredths), indices)
        return Symbols(z, symbols, np.where(indices < skip, 0, details).astype(np.int32))

    def synthesise(self, symbols: Symbols, header: plic.Header) -> NDArray[np.uint8]:
        """Pixels of decoded symbols."""
        context, mean, step = self.hyper_synthesis(symbols.z, header.quality_hundredths)
        anchor = anchor_mask(*symbols.y.shape)
        anchors = np.where(anchor, mean + symbols.y * step, 0)
        mean = np.where(anchor, mean, self._context(context, anchors))
        planes = self._planes(mean + symbols.y * step)
        details = np.clip(symbols.details * self.detail_step(header.quality_hundredths), -128, 127)
        inputs = [planes, details.astype(np.int8)]
        (pixels,) = self.run(self.model.networks["synthesis"], inputs).values()
        return self.crop(pixels, header)

    def pad(self, rgb: NDArray[np.uint8]) -> Int8:
        """Pixels [H, W, 3] less 128, int8; the last row and column are repeated up to multiples of 64."""
        height, width = rgb.shape[:2]
        padded = np.pad(rgb, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
        return np.bitwise_xor(padded, np.uint8(128), out=padded).view(np.int8)

    def crop(self, values: Int8, header: plic.Header) -> NDArray[np.uint8]:
        """Output of the synthesis to pixels: add 128, remove the padding, post-filter, and convert to grey if it is."""
        rgb = self._show(values[: header.height, : header.width], header.quality_hundredths)
        if not header.grey:
            return rgb
        wide = rgb.astype(np.uint16)
        return ((wide[:, :, 0] + 2 * wide[:, :, 1] + wide[:, :, 2] + 2) >> 2).astype(np.uint8)

    def filters(self, quality_hundredths: int) -> NDArray[np.int32] | None:
        """The post-filter's weights [384, 12] in 2**-8; None when the model has none."""
        knots = self.model.post_filter
        return None if knots is None else interpolate(knots, quality_hundredths, nearest=True).astype(np.int32)

    def _show(self, values: Int8, quality_hundredths: int) -> NDArray[np.uint8]:
        rgb = values.view(np.uint8) ^ np.uint8(128)
        filters = self.filters(quality_hundredths)
        return rgb if filters is None else post_filter(rgb, filters)

    def predicted_indices(self, z: Int8, quality_hundredths: int) -> Int64:
        """Table indices of y and d that z predicts, int64 [4h, 4w, 288] in 2**-16, from z int8 [h, w, 64]."""
        model = self.model
        acc = _multiply(z, model.row_weight) * model.row_scale + model.row_bias
        return depth_to_space(acc, 4) + interpolate(model.row_knots, quality_hundredths)

    def latent_indices(self, predicted: Int64) -> NDArray[np.uint8]:
        """Table index of every symbol of y, uint8 [h, w, 96], from `predicted_indices`."""
        return self._table_index(predicted[:, :, : self.latents], 0)

    def detail_indices(self, predicted: Int64, y: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Table index of every symbol of d, uint8 [h, w, 192], from `predicted_indices` and the symbols of y."""
        magnitude = self.model.magnitude[np.minimum(np.abs(y), 127)]
        more = _multiply(magnitude, self.model.detail_row_weight) * self.model.detail_row_scale
        return self._table_index(predicted[:, :, self.latents :] + more, 0)

    def differences(self, z: Int8) -> NDArray[np.int32]:
        """z int8 [h, w, 64] less its prediction from the cells to the left, above and above left, int32."""
        cells = np.ndindex(z.shape[:2])
        return np.array([z[cell] - self._prediction(z, *cell) for cell in cells], np.int32).reshape(z.shape)

    def _undo_prediction(self, differences: NDArray[np.int32]) -> Int8:
        """z from its `differences`. ValueError when it does not fit int8."""
        z = np.zeros(differences.shape, np.int8)
        for y, x in np.ndindex(z.shape[:2]):
            cell = differences[y, x] + self._prediction(z, y, x)
            if cell.min() < -128 or cell.max() > 127:
                raise ValueError("z outside int8")
            z[y, x] = cell
        return z

    def _prediction(self, z: Int8, y: int, x: int) -> NDArray[np.int32]:
        """Prediction of z[y, x], int32 [64]."""
        weights = self.model.hyper_prediction.astype(np.int32)
        return np.asarray(((weights * hyper_neighbours(z, y, x)).sum(1) + 32) >> 6)

    def _z_indices(self, shape: tuple[int, ...], quality_hundredths: int) -> NDArray[np.uint8]:
        fixed = interpolate(self.model.hyper_row_knots, quality_hundredths)
        # z is never skipped, whatever its table index.
        return np.broadcast_to(self._table_index(fixed, self.model.skip), shape)

    def _table_index(self, fixed: Int64, least: int) -> NDArray[np.uint8]:
        index = rounding_shift(fixed, _INDEX_BITS)
        return np.asarray(np.clip(index, least, len(self.model.table_radius) - 1).astype(np.uint8))

    @staticmethod
    def _bands(latent_rows: int) -> list[slice]:
        size = plic.BAND_LATENT_ROWS
        return [slice(top, min(top + size, latent_rows)) for top in range(0, latent_rows, size)]

    def _latents(self, features: Int8) -> Int64:
        """y int64 [h, w, 96] in 2**-8 of the grid."""
        model = self.model
        return self._project(0, features, model.latent_weight, model.latent_bias, model.latent_shift)

    def _details(self, fine: Int8) -> Int64:
        """d, folded, int64 [h, w, 192] in 2**-8 of the grid."""
        model = self.model
        d = self._project(1, fine, model.detail_weight, model.detail_bias, model.detail_shift)
        return space_to_depth(d, 2)

    def _project(self, output: int, x: Int8, weight: Int8, bias: NDArray[np.int32], shift: Int8) -> Int64:
        analysis = self.model.networks["analysis"]
        zero = analysis.specs[analysis.outputs[output]].zero_point
        acc = _multiply(x.astype(np.int64) - zero, weight) + bias
        s = shift.astype(np.int64)
        return np.where(s < 0, rounding_shift(acc, np.maximum(-s, 1)), acc << np.maximum(s, 0))

    def _hyper_gain(self, hyper: Int8, quality_hundredths: int) -> Int8:
        exponent = interpolate(self.model.hyper_gain_knots, quality_hundredths)
        mantissa, shift = self.model.exp2[exponent & 255].astype(np.int64), 16 - (exponent >> 8)
        product = hyper.astype(np.int64) * mantissa
        return np.clip(rounding_shift(product, np.clip(shift, 1, 40)), -128, 127).astype(np.int8)

    def hyper_synthesis(self, z: Int8, quality_hundredths: int) -> tuple[Int8, Int64, Int64]:
        """(context features, mean0, step), each [4h, 4w, 96], of z [h, w, 64]; the last two in units of each grid."""
        network = self.model.networks["hyper_synthesis"]
        tensors = self.run(network, [z])
        context, mean, log2_step = (tensors[name] for name in network.outputs)
        finer = np.clip(log2_step.astype(np.int64), -64, 64)  # 2**-5 octaves
        step = self._step(interpolate(self.model.step_knots, quality_hundredths)[: self.latents] + 8 * finer)
        return context, mean.astype(np.int64) << self.fine_bits, step

    def detail_step(self, quality_hundredths: int) -> Int64:
        """Steps of d, int64 [192], in units of the grid."""
        return self._step(interpolate(self.model.step_knots, quality_hundredths)[self.latents :])

    def _step(self, log2_step: Int64) -> Int64:
        """2**(log2_step / 256), rounded, from 1 to 2**14."""
        exponent = np.clip(log2_step, 0, 14 * 256)
        mantissa = self.model.exp2[exponent & 255].astype(np.int64)
        return np.asarray(((mantissa << (exponent >> 8)) + (1 << 15)) >> 16)

    def _context(self, context: Int8, anchors: Int64) -> Int64:
        (mean,) = self.run(self.model.networks["context"], [context, self._coarse(anchors)]).values()
        return mean.astype(np.int64) << self.fine_bits

    def _coarse(self, y_hat: Int64) -> Int8:
        half = np.int64(1) << self.fine_bits >> 1
        return np.asarray(np.clip((y_hat + half) >> self.fine_bits, -128, 127).astype(np.int8))

    def _planes(self, y_hat: Int64) -> Int8:
        coarse, wide = self._coarse(y_hat), self.model.wide
        fine = np.clip(y_hat[:, :, wide] - 4 * coarse[:, :, wide].astype(np.int64), -128, 127)
        return np.concatenate([coarse, fine.astype(np.int8)], 2)


def _read(stream: SymbolReader | rans.SymbolReader, indices: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The next symbols of a stream, in the shape of their table indices."""
    return stream.read(indices.ravel()).reshape(indices.shape)


def hyper_neighbours(z: Int8, y: int, x: int) -> Int8:
    """The cells of z [h, w, 64] to the left of (y, x), above it, and above left, int8 [64, 3].

    In the first row all three are the one to the left, in the first column the one above, in the first cell 0.
    """
    if x == 0:
        cells = [z[y - 1, 0] if y > 0 else np.zeros_like(z[0, 0])] * 3
    elif y == 0:
        cells = [z[0, x - 1]] * 3
    else:
        cells = [z[y, x - 1], z[y - 1, x], z[y - 1, x - 1]]
    return np.stack(cells, 1)


def anchor_mask(height: int, width: int, channels: int) -> NDArray[np.bool_]:
    """Checkerboard [h, w, C] of the anchors: the latents whose means come first.

    The second half of the channels has the other colour.
    """
    colour = np.arange(channels) >= channels // 2
    return np.asarray((np.arange(height)[:, None, None] + np.arange(width)[:, None] + colour) % 2 == 0)


def _multiply(x: NDArray[Any], weight: Int8) -> Int64:
    """Sums int64 [h, w, out] of products of integers [h, w, in] and weights [out, in]."""
    # Integers far below 2**53: float64 is exact, and fast.
    product = x.reshape(-1, x.shape[2]).astype(np.float64) @ weight.T.astype(np.float64)
    return np.asarray(product.astype(np.int64).reshape(*x.shape[:2], -1))
