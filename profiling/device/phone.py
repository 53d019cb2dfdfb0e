"""Measures on a phone: the native core as a static program, LiteRT's benchmark_model, the demo app.

What runs is chosen by what is there. The native core is built from this clone with a cross compiler, or given
as a file; `benchmark_model` is given as a file; the app is used when the phone has it.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ...codec.errors import PlicError
from ...codec.fast import FastCodec
from ...codec.files import parse_json
from ...codec.image import Picture, read_picture, write_picture
from ...codec.native import COMPILE, TOOL
from ...export.bundle import MODEL, Bundle
from ...export.litert import LiteRTExecutor
from .benchmark_model import read_benchmark_model
from .devices import Device, DeviceError, Output, quoted
from .energy import find_meter, measure
from .latency import WARMUPS, statistics
from .protocol import Protocol, Subject
from .results import (
    BenchmarkModel,
    Determinism,
    Energy,
    Extras,
    Instructions,
    Latency,
    NetworkTimes,
    Run,
    Unavailable,
    VectorResult,
    Vectors,
    describe,
    difference,
    first_difference,
    sha256,
    stage,
    unavailable,
)  # fmt: skip

APP = "org.pocketlic.demo"
APP_RESULT = f"/sdcard/Android/data/{APP}/files/benchmark.json"
APP_WAIT_S = 600.0
COUNTER = ("simpleperf", "stat", "-e", "instructions:u")
CROSS_COMPILERS = {"arm64-v8a": "aarch64-linux-gnu-g++", "armeabi-v7a": "arm-linux-gnueabihf-g++", "x86_64": "g++"}


def build_plic(abi: str, folder: Path) -> Path:
    """Build the static program `plic` for an Android ABI in `folder`, and return its path.

    Raises DeviceError when there is no cross compiler or it fails, with what to do.
    """
    remedy = "name a program with --plic"
    compiler = CROSS_COMPILERS.get(abi)
    if compiler is None:
        raise DeviceError(f"no compiler is known for {abi}: {remedy}")
    folder.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-O2", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-static", *COMPILE, *TOOL,
               "-o", str(folder / "plic")]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DeviceError(f"building the native core for {abi} needs {compiler}: install it, or {remedy}") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if "rror" in line]
        raise DeviceError(f"cannot build the native core for {abi}: {(lines or ['it failed'])[0]}; {remedy}")
    return folder / "plic"


def profile(
    device: Device, bundle: Bundle, pictures: Sequence[Subject], protocol: Protocol, console: Console
) -> tuple[list[Run], Extras]:
    """Runs of each picture on a phone, and what else was measured there. DeviceError when the phone is lost."""
    tools = protocol.tools
    with tempfile.TemporaryDirectory() as work:
        abi = device.properties().get("abi", "arm64-v8a")
        program = tools.plic or build_plic(abi, Path(work))
        native = _Native(device, program, bundle.folder / MODEL, protocol.threads)
        runs = [_measure(device, native, bundle, subject, protocol, Path(work), console) for subject in pictures]
        extras: Extras = {"networks": {"benchmark_model": _networks(device, bundle, protocol, tools.benchmark_model)}}
        if tools.vectors is not None:
            extras["vectors"] = _vectors(device, native, bundle, tools.vectors)
        app = _app(device, protocol, Path(work))
        if app is not None:
            extras["app"] = app
    device.run(f"rm -rf {device.folder}")
    return runs, extras


class NotCounted(Exception):
    """Why a phone does not count instructions."""


class _Native:
    """The program `plic` and a model, on a phone. threads: how many it runs on."""

    def __init__(self, device: Device, program: Path, model: Path, threads: int) -> None:
        self.device, self.threads = device, threads
        for local, name in ((program, "plic"), (model, "model")):
            device.push(local, f"{device.folder}/{name}")
        self._run(f"chmod 755 {device.folder}/plic")

    def _run(self, line: str) -> Output:
        done = self.device.run(line)
        if done.code:
            reason = (done.err.strip() or done.out.strip() or f"exit code {done.code}").splitlines()[-1]
            raise DeviceError(f"{self.device.name}: {line.split()[0].rpartition('/')[2]} failed: {reason}")
        return done

    def instructions(self, command: str, *arguments: str) -> int:
        """Instructions of one run of the program. NotCounted where the phone does not count them."""
        done = self.device.run(quoted(*COUNTER, *self._command(command, *arguments)))
        text = done.out + done.err
        found = re.search(r"^\s*([\d,]+)\s+instructions:u", text, re.MULTILINE)
        if done.code or found is None:
            last = (text.strip() or f"exit code {done.code}").splitlines()[-1]
            raise NotCounted(f"simpleperf does not count here: {last}")
        return int(found[1].replace(",", ""))

    def __call__(self, command: str, *arguments: str) -> str:
        return self._run(quoted(*self._command(command, *arguments))).out

    def _command(self, command: str, *arguments: str) -> list[str]:
        folder = self.device.folder
        return [f"{folder}/plic", "--threads", str(self.threads), command, f"{folder}/model", *arguments]


def _measure(
    device: Device,
    native: _Native,
    bundle: Bundle,
    subject: Subject,
    protocol: Protocol,
    work: Path,
    console: Console,
) -> Run:
    """The native core on one picture: encoded and decoded on the phone, and compared with the same on this machine."""
    console.print(f"{device.name}: {subject.name}")
    pixels = read_picture(subject.path).pixels
    codec = FastCodec(bundle.model, LiteRTExecutor.from_model(bundle.model))
    data = codec.encode(pixels, protocol.quality)
    decoded = codec.decode(data)
    picture, file, made = (f"{device.folder}/{name}" for name in ("picture.ppm", "picture.plic", "made.plic"))
    (work / "file").write_bytes(data)
    write_picture(work / "picture.ppm", Picture(pixels))
    device.push(work / "file", file)
    device.push(work / "picture.ppm", picture)

    count, quality = 1 + WARMUPS + protocol.runs, f"{protocol.quality:g}"
    megapixels = pixels.shape[0] * pixels.shape[1]
    encoding, encode_energy = _timed(
        device, lambda: native("bench-encode", picture, quality, str(count)), 1, count, megapixels
    )
    decoding, decode_energy = _timed(device, lambda: native("bench", file, str(count)), 2, count, megapixels)
    native("encode", picture, quality, made)
    device.pull(made, work / "made")
    symbols, hashed, memory = native("hash", file).split()[:3]
    stages = [
        stage("file", sha256((work / "made").read_bytes()), sha256(data)),
        stage("symbols", symbols, codec.read(data)[0].sha256()),
        stage("pixels", hashed, sha256(decoded)),
    ]
    got = decoded if stages[2]["equal"] else _decoded(device, native, file, work)
    latency = {
        "encode": _latency([total for (total,) in encoding], {"everything": [total for (total,) in encoding]}),
        "decode": _latency(
            [total for _, total in decoding],
            {
                "entropy_decoding": [symbols for symbols, _ in decoding],
                "networks": [max(total - symbols, 0.0) for symbols, total in decoding],
            },
        ),
    }
    determinism: Determinism = {
        "available": True,
        "equal": all(s["equal"] for s in stages),
        "stages": stages,
        **difference(got, decoded, first_difference("decode", "pixels", got, decoded)),
    }
    energy = {"encode": encode_energy, "decode": decode_energy}
    run = describe(subject.name, pixels, data, decoded, "native core", latency, energy, determinism)
    run["instructions"] = _instructions(native, picture, quality, file)
    run["memory_metrics"] = {"decoder_mem_mb": round(int(memory) / 1e6, 3)}
    return run


def _timed(
    device: Device, bench: Callable[[], str], columns: int, count: int, pixels: int
) -> tuple[list[tuple[float, ...]], Energy | Unavailable]:
    """Milliseconds that `bench` prints, one line of so many columns for each of `count` runs; and its energy."""
    meter, reason = find_meter(device)
    if meter is None:
        text = bench()
        energy: Energy | Unavailable = unavailable(reason)
    else:
        try:
            text, energy = measure(meter, bench, count, pixels)
        finally:
            meter.close()
    line = " ".join([r"[\d.]+"] * columns)
    samples = [tuple(map(float, found.split())) for found in text.splitlines() if re.fullmatch(line, found)]
    if len(samples) != count:
        raise DeviceError(f"{device.name}: plic bench printed {len(samples)} of {count} runs")
    return samples, energy


def _latency(totals: list[float], stages: dict[str, list[float]]) -> Latency:
    warm = 1 + WARMUPS
    return {
        "first_inference_ms": totals[0],
        "average_warm_up_ms": round(float(np.mean(totals[1:warm])), 4),
        "total": statistics(totals[warm:]),
        "stages": {name: statistics(samples[warm:]) for name, samples in stages.items()},
    }


def _instructions(native: _Native, picture: str, quality: str, file: str) -> Instructions | Unavailable:
    """Instructions that encoding and decoding execute, without loading the model, by Android's simpleperf."""
    try:
        # One run more leaves all but a run out: loading the model and reading the file.
        once, twice = (native.instructions("bench", file, runs) for runs in ("1", "2"))
        decode = twice - once
        once, twice = (native.instructions("bench-encode", picture, quality, runs) for runs in ("1", "2"))
        encode = twice - once
    except NotCounted as error:
        return unavailable(str(error))
    return {"available": True, "source": "simpleperf stat -e instructions:u", "encode": encode, "decode": decode}


def _decoded(device: Device, native: _Native, remote: str, work: Path) -> NDArray[np.uint8]:
    """The pixels that the phone decodes, fetched."""
    native("decode", remote, f"{device.folder}/picture.ppm")
    device.pull(f"{device.folder}/picture.ppm", work / "picture.ppm")
    return read_picture(work / "picture.ppm").pixels


def _networks(device: Device, bundle: Bundle, protocol: Protocol, program: Path | None) -> BenchmarkModel | Unavailable:
    """LiteRT's own figures of each network, if the user has its benchmark_model for the phone."""
    if program is None:
        return unavailable("give LiteRT's benchmark_model for this phone with --benchmark-model")
    if not any(name.endswith(".tflite") for name in bundle.manifest["files"]):
        return unavailable("the bundle has no .tflite files")
    tool = f"{device.folder}/benchmark_model"
    device.push(program, tool)
    device.run(f"chmod 755 {tool}")
    results: dict[str, NetworkTimes] = {}
    for name in bundle.files:
        device.push(bundle.folder / f"{name}.tflite", f"{device.folder}/{name}.tflite")
        done = device.run(
            quoted(tool, f"--graph={device.folder}/{name}.tflite", f"--num_threads={protocol.threads}",
                   f"--num_runs={protocol.runs}", f"--warmup_runs={WARMUPS}", "--enable_op_profiling=true")
        )  # fmt: skip
        try:
            results[name] = read_benchmark_model(done.out + done.err)
        except ValueError as error:
            raise DeviceError(f"{device.name}: benchmark_model failed on {name}: {error}") from None
    return {"available": True, "networks": results}


def _vectors(device: Device, native: _Native, bundle: Bundle, folder: Path) -> Vectors | Unavailable:
    """Hashes of every conformance vector of the bundle's model, made on the phone, against the recorded ones."""
    try:
        listed = parse_json((folder / "vectors.json").read_bytes())["models"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PlicError(f"{folder} has no conformance vectors: {error}") from None
    entry = listed.get(bundle.model.rule, {})
    if entry.get("id") != bundle.model.model_id:
        return unavailable("the vectors were made with another model than the bundle's")
    rows: list[VectorResult] = []
    for vector in entry["vectors"]:
        remote = f"{device.folder}/vector.plic"
        device.push(folder / bundle.model.rule / f"{vector['name']}.plic", remote)
        symbols, pixels = native("hash", remote).split()[:2]
        rows.append({"name": vector["name"], "symbols_equal": symbols == vector["symbols"],
                     "pixels_equal": pixels == vector["pixels"]})  # fmt: skip
    return {
        "available": True,
        "equal": all(r["symbols_equal"] and r["pixels_equal"] for r in rows),
        "vectors": rows,
    }


def _app(device: Device, protocol: Protocol, work: Path, wait: Callable[[float], None] = time.sleep) -> object:
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
        return parse_json((work / "app.json").read_bytes())
    except ValueError:
        raise DeviceError(f"{device.name}: the app's benchmark left no JSON") from None
