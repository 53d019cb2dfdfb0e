"""The parts of a profile, as they stand in its JSON; `profile.schema.json` says the same to other programs.

Names follow LiteRT's benchmark_result.proto (latency_metrics, avg_ms, peak_mem_mb, num_runs, ...) and AI Hub's
perf.yaml (primary_compute_unit, layer_counts). Times are in ms, energies in mJ, temperatures in degrees Celsius.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from ...codec.figures import bits_per_pixel, psnr


class Unavailable(TypedDict):
    """What was not measured, and why."""

    available: Literal[False]
    reason: str


class Statistics(TypedDict):
    """Of the times of all runs; stddev_ms: of the sample."""

    avg_ms: float
    median_ms: float
    p90_ms: float
    p99_ms: float
    stddev_ms: float
    min_ms: float
    max_ms: float
    samples_ms: list[float]


class Latency(TypedDict):
    """One side of a run. first_inference_ms: cold. processor: time of all threads; the others are the wall's."""

    first_inference_ms: float
    average_warm_up_ms: float
    total: Statistics
    stages: dict[str, Statistics]
    processor: NotRequired[Statistics]


class Energy(TypedDict):
    """Energy of a side, less what idling takes; the uncertainty is one standard deviation."""

    available: Literal[True]
    meter: str
    window_s: float
    total_mj: float
    idle_mw: float
    net_mj: float
    mj_per_image: float
    mj_per_megapixel: float
    uncertainty_mj_per_image: float
    rails_mj: dict[str, float]


class Instructions(TypedDict):
    """Instructions that a side executes, without loading the model."""

    available: Literal[True]
    source: str
    encode: int
    decode: int


class Memory(TypedDict, total=False):
    """Peak of the process, or what the native decoder takes; or why it is not known."""

    peak_mem_mb: float
    decoder_mem_mb: float
    not_available: str


class Stage(TypedDict):
    """SHA-256 of one result on the device and by the reference."""

    stage: str
    sha256: str
    reference: str
    equal: bool


class Place(TypedDict):
    """The first value that differs."""

    stage: str
    tensor: str
    index: list[int]
    value: int
    reference: int


class Difference(TypedDict):
    """How far two decoded pictures are apart; the PSNR is None where they are equal."""

    first_difference: Place | None
    max_difference: int
    psnr_to_reference_db: float | None


class Determinism(Difference):
    """Whether the device gave the reference's results."""

    available: Literal[True]
    equal: bool
    stages: list[Stage]


class Run(TypedDict):
    """One picture on one device. psnr_db: None where it is lossless. latency_metrics and energy: by side."""

    image: str
    width: int
    height: int
    bytes: int
    bpp: float
    psnr_db: float | None
    runtime: str
    init_ms: NotRequired[float]
    latency_metrics: dict[str, Latency]
    instructions: NotRequired[Instructions | Unavailable]
    memory_metrics: NotRequired[Memory]
    energy: dict[str, Energy | Unavailable]
    determinism: Determinism | Unavailable


class Conditions(TypedDict):
    """State of a device; what it does not tell is missing. flags: what spoils figures."""

    cpu_khz: dict[str, int]
    cpu_limit_khz: NotRequired[dict[str, int]]
    cpu_max_khz: NotRequired[dict[str, int]]
    governor: NotRequired[str | None]
    temperature_c: dict[str, float]
    battery: NotRequired[dict[str, str]]
    load_1min: NotRequired[float | None]
    thermal_status: NotRequired[int]
    flags: list[str]


class OperatorTime(TypedDict):
    """Mean time of an operator by `benchmark_model`."""

    operator: str
    avg_ms: float


class NetworkTimes(TypedDict):
    """What `benchmark_model` says of a network, named as in benchmark_result.proto."""

    latency_metrics: dict[str, float]
    memory_metrics: dict[str, int]
    misc_metrics: dict[str, float]
    operators: NotRequired[list[OperatorTime]]


class BenchmarkModel(TypedDict):
    """Networks by name."""

    available: Literal[True]
    networks: dict[str, NetworkTimes]


class MedianTime(TypedDict):
    """Median time of an operator by the runtime's own profiler."""

    operator: str
    median_ms: float


class Operators(TypedDict):
    """Operators of each network; tile: the side in pixels that they were timed on."""

    available: Literal[True]
    source: str
    tile: int
    times: dict[str, list[MedianTime]]


class Networks(TypedDict, total=False):
    """Times by profilers of runtimes."""

    benchmark_model: BenchmarkModel | Unavailable
    operators: Operators | Unavailable


class VectorResult(TypedDict):
    """A conformance vector on a device."""

    name: str
    symbols_equal: bool
    pixels_equal: bool


class Vectors(TypedDict):
    """All vectors of the bundle's model."""

    available: Literal[True]
    equal: bool
    vectors: list[VectorResult]


class Extras(TypedDict, total=False):
    """What is measured of a device beside its runs. app: the demo app's own report."""

    layer_counts: dict[str, int]
    networks: Networks
    vectors: Vectors | Unavailable
    app: object


class DeviceResult(Extras):
    """All of a device. seconds: what measuring took."""

    name: str
    kind: str
    emulated: bool
    properties: dict[str, str]
    primary_compute_unit: str
    affinity: NotRequired[list[int]]
    conditions: dict[str, Conditions]
    flags: list[str]
    seconds: NotRequired[float]
    runs: list[Run]


class BundleFacts(TypedDict):
    """What was measured."""

    target: str
    profile: str
    model_id: str
    tile: int | None
    model_size_mb: float


class ProtocolFacts(TypedDict):
    """How it was measured."""

    num_runs: int
    num_warmup_runs: int
    threads: int
    quality: float


class Report(TypedDict):
    """A profile."""

    schema: str
    version: int
    created: str
    tools: dict[str, str]
    bundle: BundleFacts
    protocol: ProtocolFacts
    devices: list[DeviceResult]


def unavailable(reason: str) -> Unavailable:
    """What a report says where nothing was measured."""
    return {"available": False, "reason": reason}


def describe(
    name: str,
    pixels: NDArray[np.uint8],
    data: bytes,
    decoded: NDArray[np.uint8],
    runtime: str,
    latency: dict[str, Latency],
    energy: dict[str, Energy | Unavailable],
    determinism: Determinism | Unavailable,
) -> Run:
    """A run of the picture `name`, coded to `data` and decoded."""
    height, width = pixels.shape[:2]
    return {
        "image": name,
        "width": width,
        "height": height,
        "bytes": len(data),
        "bpp": round(bits_per_pixel(len(data), height, width), 5),
        "psnr_db": _finite(psnr(decoded, pixels)),
        "runtime": runtime,
        "latency_metrics": latency,
        "energy": energy,
        "determinism": determinism,
    }


def stage(name: str, got: str, expected: str) -> Stage:
    """One line of the determinism table: two SHA-256, hexadecimal."""
    return {"stage": name, "sha256": got, "reference": expected, "equal": got == expected}


def sha256(content: bytes | NDArray[np.generic]) -> str:
    """SHA-256, hexadecimal, of bytes or of an array's values."""
    return hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).hexdigest()


def difference(got: NDArray[np.uint8], expected: NDArray[np.uint8], first: Place | None) -> Difference:
    """How far two decoded pictures are apart, beside the first value that differs."""
    return {
        "first_difference": first,
        "max_difference": int(np.abs(got.astype(np.int16) - expected).max()),
        "psnr_to_reference_db": _finite(psnr(got, expected)),
    }


def first_difference(stage: str, tensor: str, got: NDArray[np.generic], expected: NDArray[np.generic]) -> Place | None:
    """Where two integer tensors of one shape differ first; None where they do not."""
    differing = np.argwhere(got != expected)
    if not len(differing):
        return None
    index = tuple(int(i) for i in differing[0])
    return {
        "stage": stage,
        "tensor": tensor,
        "index": list(index),
        "value": int(got[index]),
        "reference": int(expected[index]),
    }


def _finite(decibels: float) -> float | None:
    return round(decibels, 4) if math.isfinite(decibels) else None
