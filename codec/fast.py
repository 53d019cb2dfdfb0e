"""The codec with its arithmetic in the native core: the same files and pixels as the reference, faster.

The networks run in any executor. The steps between them and the entropy coder are compiled. `Codec` defines what is
computed, and does the rest: rounding with effort, and the bits of symbols.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..quantization.model import IntegerModel
from ..quantization.network import Int8
from . import format as plic
from ._native import NativeDecoder
from .codec import Codec, Executor, Symbols

_ANY_SIZE = 2**64 - 1


class FastCodec(Codec):
    """Encoder and decoder of one model, equal to `Codec`. Thread-safe when the executor is."""

    def __init__(self, model: IntegerModel, run: Executor) -> None:
        super().__init__(model, run)
        self.native = NativeDecoder(model.to_bytes())

    def read(self, data: bytes, max_pixels: int = plic.DEFAULT_MAX_PIXELS) -> tuple[Symbols, plic.Header]:
        header = plic.read(data, max_pixels).header  # which checks the container
        return Symbols(*self.native.symbols(data, max_pixels, _ANY_SIZE)), header

    def write_symbols(self, symbols: Symbols, header: plic.Header, icc: bytes = b"", exif: bytes = b"") -> bytes:
        data = self.native.encode_symbols(
            np.ascontiguousarray(symbols.z), np.ascontiguousarray(symbols.y), np.ascontiguousarray(symbols.details),
            header.width, header.height, header.grey, header.quality_hundredths,
        )  # fmt: skip
        return plic.with_metadata(data, icc, exif)

    def analyse(self, rgb: NDArray[np.uint8], quality_hundredths: int) -> Symbols:
        analysis = self.model.networks["analysis"]
        tensors = self.run(analysis, [self.pad(rgb)])
        y, details, *grids = self.native.project(quality_hundredths, *(tensors[name] for name in analysis.outputs))
        (hyper,) = self.run(self.model.networks["hyper_analysis"], grids).values()
        z = self._hyper_gain(hyper, quality_hundredths)
        features, means, log2_steps = self._hyper_synthesis(z)
        anchors = self.native.quantize_anchors(quality_hundredths, z, means, log2_steps, y)
        context = self._context_means(features, anchors)
        self.native.quantize_others(quality_hundredths, z, context, log2_steps, y, details)
        return Symbols(z, y, details)

    def synthesise(self, symbols: Symbols, header: plic.Header) -> NDArray[np.uint8]:
        quality_hundredths, y = header.quality_hundredths, symbols.y
        features, means, log2_steps = self._hyper_synthesis(symbols.z)
        context = self._context_means(features, self.native.anchor_values(quality_hundredths, means, log2_steps, y))
        inputs = self.native.synthesis_inputs(quality_hundredths, means, log2_steps, context, y, symbols.details)
        (pixels,) = self.run(self.model.networks["synthesis"], inputs).values()
        return self.crop(pixels, header)

    def _show(self, values: Int8, quality_hundredths: int) -> NDArray[np.uint8]:
        return self.native.show(quality_hundredths, np.ascontiguousarray(values))

    def _hyper_synthesis(self, z: Int8) -> tuple[Int8, Int8, Int8]:
        network = self.model.networks["hyper_synthesis"]
        tensors = self.run(network, [z])
        features, means, log2_steps = (np.ascontiguousarray(tensors[name]) for name in network.outputs)
        return features, means, log2_steps

    def _context_means(self, features: Int8, anchors: Int8) -> Int8:
        (means,) = self.run(self.model.networks["context"], [features, anchors]).values()
        return np.ascontiguousarray(means)
