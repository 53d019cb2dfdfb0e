"""Proves a bundle: a photograph is encoded and decoded with its networks, and must equal the reference's result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..codec.codec import STRIDE, Codec, Executor
from ..codec.figures import bits_per_pixel, psnr
from ..codec.files import write_atomic
from ..quantization.network import Int8, IntegerNetwork
from .bundle import PROOF, Bundle
from .errors import ExportError

REPEATS = 5


@dataclass(frozen=True)
class Report:
    """Outcome of `prove`.

    files_equal: whether the bundle's runtime and the NumPy reference encoded the same bytes.
    differing: number of samples in which their decoded pictures differ.
    milliseconds: network -> median time for this picture on one thread, tiles and copies included.
    bpp: bits of the file per pixel. psnr: of the decoded picture, in dB, over all its components.
    """

    files_equal: bool
    differing: int
    milliseconds: dict[str, float]
    bpp: float
    psnr: float

    @property
    def pixels_equal(self) -> bool:
        """Whether both decoders gave the same picture."""
        return self.differing == 0


def require_tile(pixels: NDArray[np.uint8], tile: int | None) -> None:
    """Raise ExportError when a picture is smaller than a tile, as then no exported network would run."""
    height, width = (-(-side // STRIDE) * STRIDE for side in pixels.shape[:2])
    if tile is not None and min(height, width) < tile:
        raise ExportError(f"a photograph of {pixels.shape[1]}x{pixels.shape[0]} does not fill a tile of {tile}x{tile}")


def prove(bundle: Bundle, pixels: NDArray[np.uint8], quality: float) -> Report:
    """Code pixels, uint8 [H, W, 3] or [H, W], with the bundle under its runtime and with the reference.

    LiteRT runs on XNNPACK. The file stays in the bundle as `proof.plic`. Raises ExportError when the runtime is
    missing, when other kernels run any part, or when the picture does not fill a tile; PlicError when the picture
    cannot be coded or the file cannot be written.
    """
    require_tile(pixels, bundle.tile)
    run = bundle.executor("xnnpack", threads=1)
    recorder = _Recorder(run)
    codec = Codec(bundle.model, recorder)
    data = codec.encode(pixels, quality)
    write_atomic(bundle.folder / PROOF, data)
    data = (bundle.folder / PROOF).read_bytes()
    decoded = codec.decode(data)
    reference = Codec(bundle.model)
    expected = reference.decode(data)
    return Report(
        files_equal=data == reference.encode(pixels, quality),
        differing=int((decoded != expected).sum()),
        milliseconds={network.name: _median_ms(run, network, inputs) for network, inputs in recorder.calls.values()},
        bpp=bits_per_pixel(len(data), *pixels.shape[:2]),
        psnr=psnr(decoded, pixels),
    )


class _Recorder:
    """An executor that passes calls on and keeps the last one of each network."""

    def __init__(self, run: Executor) -> None:
        self.run = run
        self.calls: dict[str, tuple[IntegerNetwork, list[Int8]]] = {}

    def __call__(self, network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        self.calls[network.name] = network, list(inputs)
        return self.run(network, inputs)


def _median_ms(run: Executor, network: IntegerNetwork, inputs: list[Int8]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(network, inputs)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
