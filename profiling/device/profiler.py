"""Profiles a bundle on devices: latency by stage, memory, energy and determinism, as one report.

The report is JSON of `profile.schema.json`; `results` names its parts.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ...codec import format as plic
from ...codec.codec import STRIDE, Codec, Executor
from ...codec.errors import PlicError
from ...codec.image import read_picture
from ...export.bundle import Bundle
from ...export.targets import TARGETS, missing
from ...quantization.network import Int8, IntegerNetwork
from . import phone
from .conditions import read_conditions
from .devices import Device, HostDevice
from .energy import find_meter, measure
from .latency import WARMUPS, Stopwatch, TimedCodec, repeat
from .protocol import Protocol, Subject
from .results import (
    Determinism,
    DeviceResult,
    Energy,
    Extras,
    Latency,
    MedianTime,
    Memory,
    Operators,
    Place,
    Report,
    Run,
    Stage,
    Unavailable,
    describe,
    difference,
    first_difference,
    sha256,
    stage,
    unavailable,
)  # fmt: skip

T = TypeVar("T")

SCHEMA = "pocketlic-profile"
VERSION = 1
MOST_COMPARED = 2_100_000
"""Pixels up to which pictures go through the NumPy reference too; it takes seconds per megapixel."""


def profile(
    devices: Sequence[Device],
    bundle: Bundle,
    pictures: Sequence[Subject],
    protocol: Protocol,
    console: Console,
) -> Report:
    """The report of all devices. Raises PlicError when a device is hot, throttled or lost: no half report."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tools": {name: version(name) for name in ("pocketlic", "numpy", "ai-edge-litert")},
        "bundle": {
            "target": bundle.target,
            "profile": bundle.model.rule,
            "model_id": bundle.model.model_id,
            "tile": bundle.tile,
            "model_size_mb": round(sum(e["bytes"] for e in bundle.manifest["files"].values()) / 1e6, 4),
        },
        "protocol": {
            "num_runs": protocol.runs,
            "num_warmup_runs": WARMUPS,
            "threads": protocol.threads,
            "quality": protocol.quality,
        },
        "devices": [_device(d, bundle, pictures, protocol, console) for d in devices],
    }


def _device(
    device: Device,
    bundle: Bundle,
    pictures: Sequence[Subject],
    protocol: Protocol,
    console: Console,
) -> DeviceResult:
    before = read_conditions(device)
    if before["flags"] and not protocol.allow_hot:
        raise PlicError(f"{device.name}: {'; '.join(before['flags'])}: let it cool, or say --allow-hot")
    started = time.perf_counter()
    if isinstance(device, HostDevice):
        runs = [_on_host(device, bundle, subject, protocol, console) for subject in pictures]
        extras: Extras = {"layer_counts": _layer_counts(bundle), "networks": {"operators": _operator_times(bundle)}}
        affinity = sorted(os.sched_getaffinity(0))
    else:
        runs, extras = phone.profile(device, bundle, pictures, protocol, console)
        affinity = []
    after = read_conditions(device)
    flags = [f"before: {flag}" for flag in before["flags"]] + [f"after: {flag}" for flag in after["flags"]]
    load, processors = before.get("load_1min"), os.cpu_count() or 1
    if isinstance(device, HostDevice) and load is not None and load > processors:
        flags.append(f"busy: a load of {load:g} on {processors} processors before; trust processor times only")
    if device.emulated:
        flags.append("emulated: times are the emulator's and say nothing of a phone; instructions are counted instead")
    return {
        "name": device.name,
        "kind": device.kind,
        "emulated": device.emulated,
        "properties": device.properties(),
        "primary_compute_unit": "CPU",
        "affinity": affinity,
        "conditions": {"before": before, "after": after},
        "flags": flags,
        "seconds": round(time.perf_counter() - started, 2),
        "runs": runs,
        **extras,
    }


def _on_host(device: Device, bundle: Bundle, subject: Subject, protocol: Protocol, console: Console) -> Run:
    console.print(f"{device.name}: {subject.name}")
    watch = Stopwatch()
    reset = _reset_peak()
    start = time.perf_counter()
    codec = TimedCodec(bundle.model, bundle.executor(threads=protocol.threads), watch)
    init_ms = 1e3 * (time.perf_counter() - start)
    pixels = read_picture(subject.path).pixels
    require_size(pixels, bundle)

    def load() -> NDArray[np.uint8]:
        with watch.stage("load"):
            return read_picture(subject.path).pixels

    _, loading = repeat(load, watch, protocol.runs)
    meter, reason = find_meter(device)
    images, size = 1 + WARMUPS + protocol.runs, pixels.shape[0] * pixels.shape[1]
    energy: dict[str, Energy | Unavailable] = {}

    def metered(side: str, work: Callable[[], T]) -> tuple[T, Latency]:
        def repeated() -> tuple[T, Latency]:
            return repeat(work, watch, protocol.runs)

        if meter is None:
            energy[side] = unavailable(reason)
            return repeated()
        result, energy[side] = measure(meter, repeated, images, size)
        return result

    try:
        data, encoding = metered("encode", lambda: codec.encode(pixels, protocol.quality))
        decoded, decoding = metered("decode", lambda: codec.decode(data))
    finally:
        if meter is not None:
            meter.close()
    memory: Memory = {"peak_mem_mb": _peak_mb()} if reset else {"not_available": "/proc/self/clear_refs is closed"}
    encoding["stages"] = {"load": loading["stages"]["load"], **encoding["stages"]}
    symbols = codec.read(data)[0].sha256()
    determinism = compare_with_reference(bundle, pixels, protocol.quality, data, symbols, decoded)
    latency = {"encode": encoding, "decode": decoding}
    runtime = TARGETS[bundle.target].runtime
    run = describe(subject.name, pixels, data, decoded, runtime, latency, energy, determinism)
    run["init_ms"] = round(init_ms, 4)
    run["memory_metrics"] = memory
    return run


def require_size(pixels: NDArray[np.uint8], bundle: Bundle) -> None:
    """Raise PlicError when a picture is smaller than a tile: no exported network would run on it."""
    height, width = (-(-side // STRIDE) * STRIDE for side in pixels.shape[:2])
    if bundle.tile is not None and min(height, width) < bundle.tile:
        raise PlicError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} does not fill a tile of {bundle.tile}")


def compare_with_reference(
    bundle: Bundle, pixels: NDArray[np.uint8], quality: float, data: bytes, symbols: str, decoded: NDArray[np.uint8]
) -> Determinism | Unavailable:
    """Every network's output tensors against the NumPy reference on the same inputs, then file, symbols and pixels.

    symbols: the hash of those that were decoded from `data`, and `decoded` their pixels.

    Names the first tensor that differs, with index and both values, and how far the pictures are apart.
    """
    if pixels.shape[0] * pixels.shape[1] > MOST_COMPARED:
        return unavailable("not compared: the reference is too slow for a picture of this size")
    stages: list[Stage] = []
    first: list[Place] = []
    checked = Codec(bundle.model, _checking(bundle.executor(), stages, first))
    file = checked.encode(pixels, quality)
    checked.decode(file)
    reference = Codec(bundle.model)
    expected_file = reference.encode(pixels, quality)
    expected_symbols = reference.read_symbols(plic.read(data)).sha256()
    expected = reference.decode(data)
    stages += [
        stage("file", sha256(data), sha256(expected_file)),
        stage("symbols", symbols, expected_symbols),
        stage("pixels", sha256(decoded), sha256(expected)),
    ]
    return {
        "available": True,
        "equal": all(s["equal"] for s in stages),
        "stages": stages,
        **difference(decoded, expected, first[0] if first else None),
    }


def _checking(run: Executor, stages: list[Stage], first: list[Place]) -> Executor:
    """Run each network twice, under `run` and as the reference, and go on with the reference's tensors."""

    def both(network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        got, expected = run(network, inputs), network.run(inputs)
        for name, y in expected.items():
            stages.append(stage(f"{network.name}/{name}", sha256(got[name]), sha256(y)))
            place = first_difference(network.name, name, got[name], y)
            if place is not None and not first:
                first.append(place)
        return expected

    return both


def _layer_counts(bundle: Bundle) -> dict[str, int]:
    from ...export.operators import operators

    try:
        rows = [row for rows in operators(bundle).values() for row in rows]
    except PlicError:  # a format without a table
        return {}
    return {"npu": 0, "gpu": 0, "cpu": len(rows), "total": len(rows)}


def _operator_times(bundle: Bundle) -> Operators | Unavailable:
    """Per-operator times of each network, where the runtime gives them."""
    if bundle.target not in ("executorch-xnnpack", "executorch-portable") or missing(TARGETS[bundle.target].to_run):
        return unavailable("this runtime has no profiler in Python; see benchmark_model for LiteRT")
    from ...export.executorch import ExecuTorchExecutor
    from ...export.tiles import PIXELS_PER_CELL

    run = ExecuTorchExecutor(bundle.files, "xnnpack" if bundle.target == "executorch-xnnpack" else "portable")
    assert bundle.tile is not None
    times: dict[str, list[MedianTime]] = {}
    for name, network in bundle.model.networks.items():
        side = bundle.tile // PIXELS_PER_CELL[name]
        inputs = [np.zeros((side, side, spec.channels), np.int8) for spec in network.inputs.values()]
        times[name] = [{"operator": op, "median_ms": round(ms, 4)} for op, ms in run.operator_times(network, inputs, 5)]
    return {"available": True, "source": "ETDump", "tile": bundle.tile, "times": times}


def _reset_peak() -> bool:
    """Set the kernel's record of this process's peak memory back to what is used now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_mb() -> float:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return round(int(match[1]) / 1e3, 3) if match else 0.0
