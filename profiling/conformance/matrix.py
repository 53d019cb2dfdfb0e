"""The determinism matrix: the same vectors through every decoder that this machine can run.

    cell      a compiler, its flags and an instruction set; or a runtime, its kernels and threads
    vectors   those of `vectors`, of the shipped models and of the extreme ones, or of one bundle's model
    result    SHA-256 of symbols and of pixels, compared with what the NumPy reference decodes

A cell that cannot run here says why and counts as nothing. Tools are looked for when a cell runs: compilers, qemu, and
a folder with Debian for arm64 (see `make_arm64`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from ...codec import _native, rans
from ...codec import format as plic
from ...codec.codec import STRIDE, Codec, Executor, reference
from ...codec.errors import PlicError
from ...codec.fast import FastCodec
from ...codec.native import COMPILE, TOOL
from ...export.bundle import Bundle
from ...export.errors import ExportError
from ...export.litert import LiteRTExecutor
from ...export.targets import TARGETS, Kernels, require
from ...export.tflite import model_to_tflite
from ...export.tiles import TiledExecutor, least_tile
from ...quantization.model import IntegerModel
from ...quantization.network import Int8, IntegerNetwork
from .vectors import Vector, vectors

EMULATED = Path(__file__).resolve().with_name("emulated.py")
LITERT_KERNELS: tuple[Kernels, ...] = ("xnnpack", "builtin", "reference")
ARM_CPUS = {"cortex-a53": ("0xd03", ""), "cortex-a76": ("0xd0b", " asimdhp fphp atomics asimdrdm lrcpc dcpop asimddp")}
SECONDS = 1800  # that one process may take
_LOWERING = Lock()  # torch lowers one network at a time

Hashes = dict[str, tuple[str, str]]
"""Name of a vector -> SHA-256 of its symbols and of its pixels, hexadecimal; empty where there are none."""


class Unavailable(Exception):
    """A cell cannot run here; the message says why."""


class Unsuited(Exception):
    """A cell cannot take one of the models; the message says why."""


class Failed(Exception):
    """A cell could run but did not: what it decodes is unknown."""


@dataclass(frozen=True)
class Subject:
    """A model with its vectors, also as files in `folder`: `model` and NAME.plic. expected: by the reference."""

    name: str
    model: IntegerModel
    vectors: tuple[Vector, ...]
    folder: Path
    expected: Hashes
    calls: tuple[tuple[IntegerNetwork, list[Int8]], ...]  # what the reference ran


Run = Callable[[Subject], Hashes]


@dataclass(frozen=True)
class Cell:
    """One way to decode. run: the hashes of a subject's vectors; it may leave out some."""

    name: str
    run: Run


@dataclass
class Result:
    """What a cell did. outcome: equal, differs, failed, or not run; note: why."""

    name: str
    outcome: str = "equal"
    vectors: int = 0
    symbol_mismatches: int = 0
    pixel_mismatches: int = 0
    seconds: float = 0.0
    note: str = ""
    hashes: dict[str, Hashes] = field(default_factory=dict)


@dataclass(frozen=True)
class Matrix:
    """All results. models: name -> id. expected: name -> what the reference decodes."""

    models: dict[str, str]
    expected: dict[str, Hashes]
    results: tuple[Result, ...]

    @property
    def ran(self) -> int:
        """Cells that decoded anything."""
        return sum(r.outcome != "not run" for r in self.results)

    @property
    def bad(self) -> int:
        """Cells that differ or failed."""
        return sum(r.outcome in ("differs", "failed") for r in self.results)

    def to_json(self) -> dict[str, object]:
        """What `verify --json` writes."""
        machine = {"system": platform.platform(), "processor": platform.machine(), "python": platform.python_version()}
        return {"machine": machine, **asdict(self), "cells_run": self.ran, "cells_bad": self.bad}


# ------------------------------------------------------------------------------------------------------------ subjects


def subject(name: str, model: IntegerModel, folder: Path) -> Subject:
    """Make the vectors of a model, decode them with the reference, and put all into `folder`, which is made."""
    folder.mkdir(parents=True)
    (folder / "model").write_bytes(model.to_bytes())
    made = tuple(vectors(model))
    for vector in made:
        (folder / f"{vector.name}.plic").write_bytes(vector.data)
    calls: list[tuple[IntegerNetwork, list[Int8]]] = []

    def record(network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        calls.append((network, list(inputs)))
        return network.run(inputs)

    # Not even the entropy decoder is shared with the native core.
    codec = Codec(model, record, rans.SymbolCoder)
    return Subject(name, model, made, folder, {v.name: _hash(codec, v.data) for v in made}, tuple(calls))


def _hash(codec: Codec, data: bytes) -> tuple[str, str]:
    symbols, header = codec.read(data)
    try:
        pixels = codec.synthesise(symbols, header)
    except Diverged:
        return symbols.sha256(), ""
    return symbols.sha256(), hashlib.sha256(pixels.tobytes()).hexdigest()


def _by_executor(
    make: Callable[[IntegerModel], Executor],
    least: Callable[[IntegerModel], int] = lambda _: 1,
    codec_type: type[Codec] = Codec,
) -> Run:
    """What decodes with a codec on an executor; `least`: pictures of fewer pixels a side are left out."""

    def run(subject: Subject) -> Hashes:
        codec, side = codec_type(subject.model, make(subject.model)), least(subject.model)
        headers = {v.name: plic.read_header(v.data) for v in subject.vectors}
        return {
            v.name: _hash(codec, v.data)
            for v in subject.vectors
            if -(-min(headers[v.name].height, headers[v.name].width) // STRIDE) * STRIDE >= side
        }

    return run


# --------------------------------------------------------------------------------------------------- the native core


class Builder:
    """Compiles the command-line tool, each set of flags once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locks: dict[tuple[str, ...], Lock] = {}
        self._tools: dict[tuple[str, ...], Path] = {}
        self._lock = Lock()

    def tool(self, *command: str) -> Path:
        """The tool built with a compiler and flags. Unavailable if those build nothing, Failed if not this."""
        with self._lock:
            lock = self._locks.setdefault(command, Lock())
        with lock:
            if command not in self._tools:
                self._tools[command] = self._build(command)
            return self._tools[command]

    def _build(self, command: tuple[str, ...]) -> Path:
        if shutil.which(command[0]) is None:
            raise Unavailable(f"there is no {command[0]}")
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        probe = folder / "probe.cpp"
        probe.write_text('#include <algorithm>\n#include <cstdio>\nint main() { return std::puts("") < 0; }\n')
        if _process(*command, str(probe), "-o", str(folder / "probe")).returncode != 0:
            raise Unavailable(f"{' '.join(command)} builds nothing here: libraries are missing")
        out = folder / "plic"
        done = _process(*command, "-std=c++17", "-fno-exceptions", "-fno-rtti", *COMPILE, *TOOL, "-o", str(out))
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
        return out


def _process(*command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **(environment or {})}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS, env=environment
        )  # fmt: skip
    except OSError as error:
        raise Unavailable(f"cannot run {command[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{Path(command[0]).name} did not end in {SECONDS} seconds") from None


def _by_tool(builder: Builder, command: Sequence[str], emulator: Sequence[str] = (), kernels: str = "portable") -> Run:
    def run(subject: Subject) -> Hashes:
        if emulator and shutil.which(emulator[0]) is None:
            raise Unavailable(f"there is no {emulator[0]}")
        tool = [*emulator, str(builder.tool(*command))]
        if kernels not in _process(*tool, "kernels").stdout.split():
            raise Unavailable(f"this machine has no kernels {kernels}")
        paths = {str(subject.folder / f"{v.name}.plic"): v.name for v in subject.vectors}
        done = _process(*tool, "--kernels", kernels, "hash", str(subject.folder / "model"), *paths)
        hashes: Hashes = {}
        for line in done.stdout.splitlines():
            words = line.split()
            hashes[paths.get(words[-1], "")] = ("", "") if words[0] == "error" else (words[0], words[1])
        if done.returncode not in (0, 2) or set(hashes) != set(paths.values()):
            raise Failed(f"exit code {done.returncode}: {done.stderr.strip()[-200:] or 'no answer for some vectors'}")
        return hashes

    return run


def _by_module(kernels: str) -> Run:
    def run(subject: Subject) -> Hashes:
        native = _native.NativeDecoder(subject.model.to_bytes(), kernels)
        answers = {v.name: native.hash(v.data) for v in subject.vectors}
        return {name: (symbols.hex(), pixels.hex()) for name, (symbols, pixels, _) in answers.items()}

    return run


def _by_native_networks(tile: int) -> Run:
    """The native core's networks one by one, computed in tiles of so many cells."""

    def make(model: IntegerModel) -> Executor:
        native = _native.NativeDecoder(model.to_bytes())

        def run(network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
            return native.run(network.name, [np.ascontiguousarray(x) for x in inputs], tile)

        return run

    return _by_executor(make)


# ----------------------------------------------------------------------------------------------------- other runtimes


def _by_litert(kernels: Kernels, threads: int) -> Run:
    # As `pocketlic decode` does it.
    return _by_executor(lambda model: LiteRTExecutor.from_model(model, kernels, threads), codec_type=FastCodec)


def _by_litert_tiles(pixels: int) -> Run:
    """Tiles of so many pixels, or the smallest that the model allows."""

    def make(model: IntegerModel) -> Executor:
        return TiledExecutor(LiteRTExecutor.from_model(model), max(pixels, least_tile(model)))

    return _by_executor(make, lambda model: max(pixels, least_tile(model)))


def _by_target(name: str) -> Run:
    """Another export target, in the smallest tiles that the model allows."""

    def make(model: IntegerModel) -> Executor:
        target = TARGETS[name]
        try:
            require(name, (*target.to_build, *target.to_run))
        except ExportError as error:
            raise Unavailable(str(error)) from None
        tile = least_tile(model)
        try:
            with _LOWERING:
                made = target.build(model, tile)
        except ExportError as error:
            raise Unsuited(str(error)) from None
        files = {network: made[f"{network}{target.suffix}"] for network in model.networks}
        return TiledExecutor(target.open(model, files, "xnnpack", 1), tile)

    return _by_executor(make, least_tile)


def _bundle_cells(bundle: Bundle) -> Iterator[Cell]:
    """The bundle's own files under its runtime."""
    litert = bundle.target in ("tflite-int8", "android-assets")
    side = bundle.tile or 1
    for kernels in LITERT_KERNELS if litert else LITERT_KERNELS[:1]:
        for threads in (1, 2) if litert else (1,):
            name = f"bundle, {bundle.target}" + (
                f", {kernels}, {threads} thread{'s' * (threads > 1)}" if litert else ""
            )
            yield Cell(name, _by_executor(_opener(bundle, kernels, threads), lambda _: side))


def _opener(bundle: Bundle, kernels: Kernels, threads: int) -> Callable[[IntegerModel], Executor]:
    def make(_: IntegerModel) -> Executor:
        target = TARGETS[bundle.target]
        try:
            require(bundle.target, target.to_run)
        except ExportError as error:
            raise Unavailable(str(error)) from None
        return bundle.executor(kernels, threads)

    return make


# ------------------------------------------------------------------------------------------------------ other machines


class Diverged(Exception):
    """A network was asked for something that the other machine was not asked for: results differ before it."""


def _call_key(network: IntegerNetwork, inputs: Sequence[Int8]) -> tuple[str, ...]:
    return network.name, *(f"{x.shape}{hashlib.sha256(x.tobytes()).hexdigest()}" for x in inputs)


def make_arm64(folder: Path) -> None:
    """Unpack Debian's Python for arm64 into a new folder, with NumPy and LiteRT; about 170 MB, from the network.

    Needs mmdebstrap. Raises Unavailable when that or the network is missing.
    """
    if folder.exists():
        return
    if shutil.which("mmdebstrap") is None:
        raise Unavailable(f"there is no {folder}, and no mmdebstrap to make it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as parent:
        root = Path(parent) / "root"
        packages = "python3.11-minimal,libpython3.11-stdlib,libstdc++6,libgomp1"
        steps = [
            ["mmdebstrap", "--arch=arm64", "--variant=extract", f"--include={packages}", "bookworm", str(root)],
            [
                *(
                    sys.executable,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-deps",
                    "--no-compile",
                    "--only-binary=:all:",
                ),
                *("--target", str(root / "packages"), "--python-version", "3.11"),
                *("--platform", "manylinux_2_27_aarch64", "--platform", "manylinux2014_aarch64"),
                *("numpy==1.26.4", "ai-edge-litert==2.3.0"),
            ],
        ]
        for step in steps:
            done = _process(*step)
            if done.returncode != 0:
                last = (done.stderr.strip() or "no message").splitlines()[-1]
                raise Unavailable(f"{Path(step[0]).name} could not make {folder}: {last}")
        # What LiteRT reads in place of the host's /proc/cpuinfo: without it, it crashes.
        for cpu, (part, features) in ARM_CPUS.items():
            text = f"Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid{features}\nCPU implementer\t: 0x41\n"
            text += f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 4\n"
            path = root / "cpus" / cpu / "cpuinfo"
            path.parent.mkdir(parents=True)
            path.write_text("\n".join(f"processor\t: {i}\nBogoMIPS\t: 50.00\n{text}" for i in range(2)) + "\n")
        root.rename(folder)


def _by_emulation(arm64: Path | None, cpu: str, kernels: Kernels, threads: int, work: Path) -> Run:
    def run(subject: Subject) -> Hashes:
        if shutil.which("qemu-aarch64-static") is None:
            raise Unavailable("there is no qemu-aarch64-static")
        if arm64 is None:
            raise Unavailable("--arm64 names no folder")
        with _arm64_lock:
            make_arm64(arm64)
        folder = Path(tempfile.mkdtemp(dir=work))
        for name, content in model_to_tflite(subject.model).items():
            (folder / f"{name}.tflite").write_bytes(content)
        keys = {_call_key(*call): call for call in subject.calls}
        arrays = {
            f"{i}/{network.name}/{j}": x
            for i, (network, inputs) in enumerate(keys.values())
            for j, x in enumerate(inputs)
        }
        np.savez(folder / "calls.npz", **arrays)  # type: ignore[arg-type, unused-ignore]
        root = folder / "root"
        root.mkdir()
        for entry in arm64.iterdir():
            (root / entry.name).symlink_to(entry.resolve())
        (root / "proc").unlink(missing_ok=True)
        (root / "proc").symlink_to((arm64 / "cpus" / cpu).resolve())
        command = ["qemu-aarch64-static", "-cpu", cpu, "-L", str(root)]
        command += [
            "-E",
            f"PYTHONHOME={root}/usr",
            "-E",
            f"PYTHONPATH={root}/packages",
            str(root / "usr/bin/python3.11"),
        ]
        done = _process(*command, str(EMULATED), str(folder), kernels, str(threads))
        if done.returncode != 0:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise Failed(f"exit code {done.returncode}: {last[-200:]}")
        with np.load(folder / "results.npz") as results:
            answers: dict[tuple[str, ...], dict[str, Int8]] = {
                key: {name: results[f"{i}/{name}"] for name in network.outputs}
                for i, (key, (network, _)) in enumerate(keys.items())
            }
        shutil.rmtree(folder)

        def replay(network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
            try:
                return answers[_call_key(network, inputs)]
            except KeyError:
                raise Diverged from None

        codec = Codec(subject.model, replay)
        return {v.name: _hash(codec, v.data) for v in subject.vectors}

    return run


_arm64_lock = Lock()

# --------------------------------------------------------------------------------------------------------------- cells


def cells(work: Path, bundle: Bundle | None = None, arm64: Path | None = None) -> Iterator[Cell]:
    """All cells, those that cannot run here too. work: a folder for what they build."""
    builder = Builder(work)
    yield Cell("NumPy, native entropy decoder", _by_executor(lambda model: reference))
    for kernels in _native.kernels():
        yield Cell(f"installed module, {kernels}", _by_module(kernels))
    machine = platform.machine()
    for compiler, name in (("g++", "gcc"), ("clang++", "clang")):
        for flags in (("-O0",), ("-O2",), ("-O3", "-march=native")):
            yield Cell(f"{name} {' '.join(flags)}, portable", _by_tool(builder, (compiler, *flags)))
        for kernels in ("avx2", "avx-vnni", "avx512-vnni") if machine == "x86_64" else ():
            yield Cell(f"{name} -O2, {kernels}", _by_tool(builder, (compiler, "-O2"), kernels=kernels))
    i686, arm = "i686-linux-gnu-g++", "arm-linux-gnueabihf-g++"
    aarch64, clang64 = "aarch64-linux-gnu-g++", ("clang++", "--target=aarch64-linux-gnu")
    a53, a76 = (("qemu-aarch64-static", "-cpu", cpu) for cpu in ARM_CPUS)
    cross: list[tuple[str, tuple[str, ...], tuple[str, ...], str]] = [
        ("i686, gcc -O2", (i686, "-O2"), ("qemu-i386-static",), "portable"),
        ("i686, gcc -O3 -mfpmath=387", (i686, "-O3", "-mfpmath=387"), ("qemu-i386-static",), "portable"),
        ("i686, clang -O2", ("clang++", "--target=i686-linux-gnu", "-O2"), ("qemu-i386-static",), "portable"),
        ("aarch64 cortex-a53, gcc -O3", (aarch64, "-O3"), a53, "portable"),
        ("aarch64 cortex-a53, gcc -O3, neon", (aarch64, "-O3"), a53, "neon"),
        ("aarch64 cortex-a76, gcc -O3", (aarch64, "-O3"), a76, "portable"),
        ("aarch64 cortex-a76, gcc -O3, neon-dot", (aarch64, "-O3"), a76, "neon-dot"),
        ("aarch64 newest, gcc -O3, neon-i8mm", (aarch64, "-O3"), ("qemu-aarch64-static", "-cpu", "max"), "neon-i8mm"),
        ("aarch64, clang -O2", (*clang64, "-O2"), a53[:1], "portable"),
        ("aarch64, clang -O2, neon", (*clang64, "-O2"), a53[:1], "neon"),
        ("armhf, gcc -O2", (arm, "-O2"), ("qemu-arm-static",), "portable"),
        ("armhf, gcc -O3 -mfpu=neon", (arm, "-O3", "-mfpu=neon"), ("qemu-arm-static",), "portable"),
        ("armhf, gcc -O3 -mfpu=neon, neon", (arm, "-O3", "-mfpu=neon"), ("qemu-arm-static",), "neon"),
        ("riscv64, gcc -O2", ("riscv64-linux-gnu-g++", "-O2"), ("qemu-riscv64-static",), "portable"),
        ("s390x, gcc -O2, big-endian", ("s390x-linux-gnu-g++", "-O2"), ("qemu-s390x-static",), "portable"),
    ]
    for name, command, emulator, kernels in cross:
        yield Cell(name, _by_tool(builder, (*command, "-static"), emulator, kernels))
    for tile in (4, 16):
        yield Cell(f"native networks, tiles of {tile} cells", _by_native_networks(tile))
    for kernels in LITERT_KERNELS:
        for threads in (1, 2):
            yield Cell(f"LiteRT {kernels}, {threads} thread{'s' * (threads > 1)}", _by_litert(kernels, threads))
    for pixels in (0, 512):
        yield Cell(f"LiteRT xnnpack, {'big' if pixels else 'small'} tiles", _by_litert_tiles(pixels))
    for cpu in ARM_CPUS:
        for kernels in LITERT_KERNELS:
            for threads in (1, 2) if kernels == "xnnpack" else (1,):
                name = f"arm64 {cpu}, LiteRT {kernels}, {threads} thread{'s' * (threads > 1)}"
                yield Cell(name, _by_emulation(arm64, cpu, kernels, threads, work))
    for target in ("executorch-xnnpack", "executorch-portable"):
        if target in TARGETS:
            yield Cell(TARGETS[target].runtime, _by_target(target))
    if bundle is not None:
        yield from _bundle_cells(bundle)


def verify(
    models: dict[str, IntegerModel],
    bundle: Bundle | None = None,
    arm64: Path | None = None,
    only: Sequence[str] = (),
    jobs: int = 1,
    progress: Callable[[Result], None] = lambda _: None,
) -> Matrix:
    """Run the matrix on models by name, and on the files of a bundle, whose model is the only one then.

    arm64: a folder for `make_arm64`. only: parts of names; other cells are left out. jobs: cells at a time.
    progress: gets each result, in the order of `cells`. Raises PlicError if no cell has such a name.
    """
    with tempfile.TemporaryDirectory(prefix="pocketlic-") as folder:
        work = Path(folder)
        chosen = [c for c in cells(work, bundle, arm64) if not only or any(part in c.name for part in only)]
        if not chosen:
            raise PlicError(f"no cell has {' or '.join(only)} in its name")
        subjects = [subject(name, model, work / name) for name, model in models.items()]
        results = []
        with ThreadPoolExecutor(jobs) as pool:
            for result in pool.map(lambda cell: _result(cell, subjects), chosen):
                progress(result)
                results.append(result)
    ids = {one.name: one.model.model_id for one in subjects}
    return Matrix(ids, {one.name: one.expected for one in subjects}, tuple(results))


def _result(cell: Cell, subjects: Sequence[Subject]) -> Result:
    result, start = Result(cell.name), time.perf_counter()
    try:
        for one in subjects:
            try:
                hashes = cell.run(one)
            except Unsuited as error:
                result.note = f"without {one.name}: {error}"
                continue
            result.hashes[one.name] = hashes
            result.vectors += len(hashes)
            for name, (symbols, pixels) in hashes.items():
                result.symbol_mismatches += symbols != one.expected[name][0]
                result.pixel_mismatches += pixels != one.expected[name][1]
        if result.symbol_mismatches or result.pixel_mismatches:
            result.outcome = "differs"
        elif not result.vectors:
            result.outcome, result.note = "not run", result.note or "no vector is large enough"
    except Unavailable as error:
        result.outcome, result.note = "not run", str(error)
    except Exception as error:  # runtimes fail in ways of their own; the other cells count all the same
        result.outcome, result.note = "failed", (str(error) or type(error).__name__).splitlines()[0]
    result.seconds = round(time.perf_counter() - start, 2)
    return result
