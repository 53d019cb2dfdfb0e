"""Measures on a phone: the native core as a static program, LiteRT's benchmark_model, the demo app.

What runs is chosen by what is there. The native core is built from this clone with a cross compiler, or given
as a file; `benchmark_model` is given as a file; the app is used when the phone has it.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from ..codec import format as plic
from ..codec.codec import Codec
from ..codec.errors import PlicError
from ..codec.image import read_picture
from ..export.bundle import MODEL, Bundle
from ..export.litert import LiteRTExecutor
from .devices import Device, DeviceError, Output, quoted
from .energy import find_meter, measure, unavailable
from .foreign import read_benchmark_model
from .latency import WARMUPS, statistics

if TYPE_CHECKING:
    from .profiler import Protocol, Subject

APP = "org.pocketlic.demo"
APP_RESULT = f"/sdcard/Android/data/{APP}/files/benchmark.json"
APP_WAIT_S = 600.0
SOURCES = Path(__file__).resolve().parents[1] / "codec" / "native"
CROSS_COMPILERS = {"arm64-v8a": "aarch64-linux-gnu-g++", "armeabi-v7a": "arm-linux-gnueabihf-g++", "x86_64": "g++"}


@dataclass(frozen=True)
class Tools:
    """Programs for the phone: `plic` and `benchmark_model`, built for it; vectors: folder of conformance vectors."""

    plic: Path | None = None
    benchmark_model: Path | None = None
    vectors: Path | None = None


def build_plic(abi: str, folder: Path) -> Path:
    """Build the static program `plic` for an Android ABI in `folder`, and return its path.

    Raises DeviceError when there is no cross compiler or it fails, with what to do.
    """
    remedy = "name a program with --plic"
    compiler = CROSS_COMPILERS.get(abi)
    if compiler is None:
        raise DeviceError(f"no compiler is known for {abi}: {remedy}")
    folder.mkdir(parents=True, exist_ok=True)
    sources = [str(path) for path in SOURCES.glob("*.cpp") if path.name != "bindings.cpp"]
    command = [compiler, "-O2", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-static", *sources, "-o",
               str(folder / "plic")]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DeviceError(f"building the native core for {abi} needs {compiler}: install it, or {remedy}") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if "rror" in line]
        raise DeviceError(f"cannot build the native core for {abi}: {(lines or ['it failed'])[0]}; {remedy}")
    return folder / "plic"


def profile(
    device: Device, bundle: Bundle, pictures: Sequence[Subject], protocol: Protocol, tools: Tools, console: Console
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Runs of each picture on a phone, and what else was measured there. DeviceError when the phone is lost."""
    with tempfile.TemporaryDirectory() as work:
        abi = device.properties().get("abi", "arm64-v8a")
        program = tools.plic or build_plic(abi, Path(work))
        native = _Native(device, program, bundle.folder / MODEL)
        runs = [_decode(device, native, bundle, subject, protocol, Path(work), console) for subject in pictures]
        extra: dict[str, Any] = {"networks": _networks(device, bundle, protocol, tools.benchmark_model)}
        if tools.vectors is not None:
            extra["vectors"] = _vectors(device, native, bundle, tools.vectors)
        app = _app(device, protocol, Path(work))
        if app is not None:
            extra["app"] = app
    device.run(f"rm -rf {device.folder}")
    return runs, extra


class _Native:
    """The program `plic` and a model, on a phone."""

    def __init__(self, device: Device, program: Path, model: Path) -> None:
        self.device = device
        for local, name in ((program, "plic"), (model, "model")):
            device.push(local, f"{device.folder}/{name}")
        self._run(f"chmod 755 {device.folder}/plic")

    def _run(self, line: str) -> Output:
        done = self.device.run(line)
        if done.code:
            reason = (done.err.strip() or done.out.strip() or f"exit code {done.code}").splitlines()[-1]
            raise DeviceError(f"{self.device.name}: {line.split()[0].rpartition('/')[2]} failed: {reason}")
        return done

    def __call__(self, command: str, *arguments: str) -> str:
        folder = self.device.folder
        line = quoted(f"{folder}/plic", command, f"{folder}/model", *arguments)
        return self._run(line).out


def _decode(
    device: Device,
    native: _Native,
    bundle: Bundle,
    subject: Subject,
    protocol: Protocol,
    work: Path,
    console: Console,
) -> dict[str, Any]:
    from .profiler import describe

    console.print(f"{device.name}: {subject.name}")
    pixels = read_picture(subject.path).pixels
    codec = Codec(bundle.model, LiteRTExecutor.from_model(bundle.model))
    data = codec.encode(pixels, protocol.quality)
    decoded = codec.decode(data)
    local, remote = work / "picture.plic", f"{device.folder}/picture.plic"
    local.write_bytes(data)
    device.push(local, remote)

    count = 1 + WARMUPS + protocol.runs

    def bench() -> str:
        return native("bench", remote, str(count))

    meter, reason = find_meter(device)
    if meter is None:
        text, energy = bench(), unavailable(reason)
    else:
        try:
            text, energy = measure(meter, bench, count, pixels.shape[0] * pixels.shape[1])
        finally:
            meter.close()
    samples = [tuple(map(float, line.split())) for line in text.splitlines() if re.fullmatch(r"[\d.]+ [\d.]+", line)]
    if len(samples) != count:
        raise DeviceError(f"{device.name}: plic bench printed {len(samples)} of {count} runs")
    totals = [total for _, total in samples]
    warm = samples[1 + WARMUPS :]
    answer = native("hash", remote).split()
    reference = [codec.read_symbols(plic.read(data)).sha256(), hashlib.sha256(decoded.tobytes()).hexdigest()]
    stages = [
        {"stage": name, "sha256": got, "reference": expected, "equal": got == expected}
        for name, got, expected in zip(("symbols", "pixels"), answer, reference, strict=False)
    ]
    result = {
        **describe(subject.name, pixels, data, decoded),
        "runtime": "native core",
        "latency_metrics": {
            "decode": {
                "first_inference_ms": totals[0],
                "average_warm_up_ms": round(float(np.mean(totals[1 : 1 + WARMUPS])), 4),
                "total": statistics([total for _, total in warm]),
                "stages": {
                    "entropy_decoding": statistics([symbols for symbols, _ in warm]),
                    "networks": statistics([max(total - symbols, 0.0) for symbols, total in warm]),
                },
            }
        },
        "memory_metrics": {"decoder_mem_mb": round(int(answer[2]) / 1e6, 3)},
        "energy": {"decode": energy},
        "determinism": {
            "available": True,
            "equal": all(s["equal"] for s in stages),
            "stages": stages,
            "first_difference": None,
            "max_difference": 0,
            "psnr_to_reference_db": None,
        },
    }
    if not stages[1]["equal"]:
        result["determinism"] |= _difference(device, native, remote, decoded, work)
    return result


def _difference(
    device: Device, native: _Native, remote: str, expected: np.ndarray[Any, Any], work: Path
) -> dict[str, Any]:
    """Decode on the phone to a file, fetch it, and say where and how far the pixels are off."""
    native("decode", remote, f"{device.folder}/picture.ppm")
    device.pull(f"{device.folder}/picture.ppm", work / "picture.ppm")
    got = read_picture(work / "picture.ppm").pixels
    distance = np.abs(got.astype(np.int16) - expected)
    index = tuple(int(i) for i in np.argwhere(distance)[0]) if distance.any() else None
    error = float(np.mean(np.square(distance, dtype=np.float64)))
    place = None
    if index is not None:
        place = {"stage": "decode", "tensor": "pixels", "index": list(index), "value": int(got[index]),
                 "reference": int(expected[index])}  # fmt: skip
    return {
        "first_difference": place,
        "max_difference": int(distance.max()),
        "psnr_to_reference_db": round(10 * float(np.log10(255**2 / error)), 4) if error else None,
    }


def _networks(device: Device, bundle: Bundle, protocol: Protocol, program: Path | None) -> dict[str, Any]:
    """LiteRT's own figures of each network, if the user has its benchmark_model for the phone."""
    if program is None:
        return {"benchmark_model": unavailable("give LiteRT's benchmark_model for this phone with --benchmark-model")}
    if not any(name.endswith(".tflite") for name in bundle.manifest["files"]):
        return {"benchmark_model": unavailable("the bundle has no .tflite files")}
    tool = f"{device.folder}/benchmark_model"
    device.push(program, tool)
    device.run(f"chmod 755 {tool}")
    results: dict[str, Any] = {}
    for name in bundle.files:
        device.push(bundle.folder / f"{name}.tflite", f"{device.folder}/{name}.tflite")
        done = device.run(
            quoted(tool, f"--graph={device.folder}/{name}.tflite", f"--num_threads={protocol.threads}",
                   f"--num_runs={protocol.runs}", f"--warmup_runs={WARMUPS}")
        )  # fmt: skip
        try:
            results[name] = read_benchmark_model(done.out + done.err)
        except ValueError as error:
            raise DeviceError(f"{device.name}: benchmark_model failed on {name}: {error}") from None
    return {"benchmark_model": {"available": True, **results}}


def _vectors(device: Device, native: _Native, bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Hashes of every conformance vector of the bundle's model, made on the phone, against the recorded ones."""
    try:
        listed = json.loads((folder / "vectors.json").read_text())["models"]
    except (OSError, ValueError, KeyError) as error:
        raise PlicError(f"{folder} has no conformance vectors: {error}") from None
    entry = listed.get(bundle.model.profile, {})
    if entry.get("id") != bundle.model.model_id:
        return unavailable("the vectors were made with another model than the bundle's")
    rows = []
    for vector in entry["vectors"]:
        remote = f"{device.folder}/vector.plic"
        device.push(folder / bundle.model.profile / f"{vector['name']}.plic", remote)
        symbols, pixels = native("hash", remote).split()[:2]
        rows.append({"name": vector["name"], "symbols_equal": symbols == vector["symbols"],
                     "pixels_equal": pixels == vector["pixels"]})  # fmt: skip
    return {
        "available": True,
        "equal": all(r["symbols_equal"] and r["pixels_equal"] for r in rows),
        "vectors": rows,
    }


def _app(device: Device, protocol: Protocol, work: Path, wait: Callable[[float], None] = time.sleep) -> Any:
    """The JSON of the demo app's own benchmark, or None when the phone does not have the app."""
    if not device.run(f"pm path {APP} 2>/dev/null; true").out.startswith("package:"):
        return None
    device.run(f"rm -f {APP_RESULT}")
    started = device.run(
        f"am start -W -n {APP}/.BenchmarkActivity --ei runs {protocol.runs} --ei threads {protocol.threads} "
        f"--es out {APP_RESULT}"
    )
    if started.code or "Error" in started.out:
        raise DeviceError(f"{device.name}: the app's benchmark did not start: {started.out.strip().splitlines()[-1]}")
    end = time.monotonic() + APP_WAIT_S
    while device.run(f"ls {APP_RESULT} 2>/dev/null; true").out.strip() != APP_RESULT:
        if time.monotonic() > end:
            raise DeviceError(f"{device.name}: the app's benchmark left no result in {APP_WAIT_S:g} s")
        wait(2.0)
    device.pull(APP_RESULT, work / "app.json")
    try:
        return json.loads((work / "app.json").read_text())
    except ValueError:
        raise DeviceError(f"{device.name}: the app's benchmark left no JSON") from None
