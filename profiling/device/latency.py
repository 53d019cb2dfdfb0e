"""Where the time of an encode and a decode goes, stage by stage, on this machine.

    encode   load; pre_processing -> analysis -> quantization, which needs hyper_analysis, hyper_synthesis and context
             -> entropy_encoding
    decode   entropy_decoding -> dequantization, which needs hyper_synthesis and context -> synthesis
             -> post_processing

A stage's time excludes the stages inside it, so the stages of a run add up to its total; `other` is the rest. `load` is
timed by itself and is not part of the total: reading and decoding the picture's file. Pre-processing pads and
post-processing crops and filters; entropy coding includes the container and the prediction of rows; `quantization` and
`dequantization` are the arithmetic between the networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...codec import format as plic
from ...codec.codec import Executor, Symbols
from ...codec.fast import FastCodec
from ...quantization.model import IntegerModel
from ...quantization.network import Int8, IntegerNetwork
from .results import Latency, Statistics

T = TypeVar("T")
WARMUPS = 3


def statistics(samples_ms: Sequence[float]) -> Statistics:
    """avg_ms, median_ms, p90_ms, p99_ms, stddev_ms (of the sample), min_ms, max_ms and samples_ms."""
    values = np.asarray(samples_ms, np.float64)
    rounded = [round(float(v), 4) for v in values]
    return {
        "avg_ms": round(float(values.mean()), 4),
        "median_ms": round(float(np.median(values)), 4),
        "p90_ms": round(float(np.percentile(values, 90)), 4),
        "p99_ms": round(float(np.percentile(values, 99)), 4),
        "stddev_ms": round(float(values.std(ddof=1)), 4) if len(values) > 1 else 0.0,
        "min_ms": min(rounded),
        "max_ms": max(rounded),
        "samples_ms": rounded,
    }


class Stopwatch:
    """Adds up the wall time of named stages, each without the stages that it contains."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._inner: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as a stage."""
        self._inner.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = 1e3 * (time.perf_counter() - start)
            self.ms[name] = self.ms.get(name, 0.0) + elapsed - self._inner.pop()
            if self._inner:
                self._inner[-1] += elapsed

    def take(self) -> dict[str, float]:
        """The stages since the last call, in milliseconds, and forget them."""
        ms, self.ms = self.ms, {}
        return ms


class TimedCodec(FastCodec):
    """The codec with a stopwatch on its parts and on each network."""

    def __init__(self, model: IntegerModel, run: Executor, watch: Stopwatch) -> None:
        def timed(network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
            with watch.stage(network.name):
                return run(network, inputs)

        super().__init__(model, timed)
        self.watch = watch

    def pad(self, rgb: NDArray[np.uint8]) -> Int8:
        with self.watch.stage("pre_processing"):
            return super().pad(rgb)

    def analyse(self, rgb: NDArray[np.uint8], quality_hundredths: int) -> Symbols:
        with self.watch.stage("quantization"):
            return super().analyse(rgb, quality_hundredths)

    def write_symbols(self, symbols: Symbols, header: plic.Header, icc: bytes = b"", exif: bytes = b"") -> bytes:
        with self.watch.stage("entropy_encoding"):
            return super().write_symbols(symbols, header, icc, exif)

    def read(self, data: bytes, max_pixels: int = plic.DEFAULT_MAX_PIXELS) -> tuple[Symbols, plic.Header]:
        with self.watch.stage("entropy_decoding"):
            return super().read(data, max_pixels)

    def synthesise(self, symbols: Symbols, header: plic.Header) -> NDArray[np.uint8]:
        with self.watch.stage("dequantization"):
            return super().synthesise(symbols, header)

    def crop(self, values: Int8, header: plic.Header) -> NDArray[np.uint8]:
        with self.watch.stage("post_processing"):
            return super().crop(values, header)


def repeat(action: Callable[[], T], watch: Stopwatch, runs: int) -> tuple[T, Latency]:
    """Run `action` once cold, then warm up, then `runs` times; returns its last result and the latency.

    The latency has `first_inference_ms`, `average_warm_up_ms`, `total`, `stages` and `processor`, see `statistics`.
    The last is processor time of all threads, the others are the wall's.
    """
    processor: list[float] = []
    stages: list[dict[str, float]] = []
    watch.take()
    for _ in range(1 + WARMUPS + runs):
        used = time.process_time()
        with watch.stage("other"):
            result = action()
        processor.append(1e3 * (time.process_time() - used))
        stages.append(watch.take())
    totals = [sum(stage.values()) for stage in stages]
    names = dict.fromkeys(name for stage in stages for name in stage)
    warm = stages[1 + WARMUPS :]
    return result, {
        "first_inference_ms": round(totals[0], 4),
        "average_warm_up_ms": round(sum(totals[1 : 1 + WARMUPS]) / WARMUPS, 4),
        "total": statistics(totals[1 + WARMUPS :]),
        "processor": statistics(processor[1 + WARMUPS :]),
        "stages": {name: statistics([stage.get(name, 0.0) for stage in warm]) for name in names},
    }
