"""The command-line tool, built with sanitizers, on good files and on damaged ones."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pocketlic
from pocketlic.codec import format as plic
from pocketlic.codec._native import NativeDecoder
from pocketlic.codec.codec import Codec
from pocketlic.codec.image import read_picture
from pocketlic.codec.native import INCLUDES, TOOL

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c++17", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="session")
def tool(tmp_path_factory):
    """The tool under AddressSanitizer and UndefinedBehaviorSanitizer; its output, or its complaint."""
    compiler = next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("tool")
    path = folder / "plic"

    def compile_one(source: str) -> subprocess.CompletedProcess[str]:
        command = [compiler, *FLAGS, *INCLUDES, "-c", source, "-o", str(folder / f"{Path(source).stem}.o")]
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(compile_one, TOOL):
            assert done.returncode == 0, done.stderr
    objects = sorted(map(str, folder.glob("*.o")))
    built = subprocess.run([compiler, *FLAGS, *objects, "-o", str(path)], capture_output=True, text=True)
    if built.returncode != 0 and "san" in built.stderr and "cannot find" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr

    def run(*arguments):
        done = subprocess.run([str(path), *map(str, arguments)], capture_output=True, text=True, errors="replace")
        assert done.returncode in (0, 2), done.stderr
        assert "Sanitizer" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory, make, picture):
    """A folder with a small model and files of it."""
    folder = tmp_path_factory.mktemp("files")
    model = make.small_model("cpu")
    (folder / "model").write_bytes(model.to_bytes())
    codec = Codec(model)
    for i, (height, width, grey) in enumerate([(1, 1, True), (50, 70, False), (130, 65, True)]):
        (folder / f"{i}.plic").write_bytes(codec.encode(picture(height, width, grey=grey), 40, exif=b"exif"))
    return folder


def hashes(output):
    return {line.split()[-1]: line.split()[:2] for line in output.splitlines()}


def test_good_files(tool, files, tmp_path):
    native = NativeDecoder((files / "model").read_bytes())
    paths = sorted(files.glob("*.plic"))
    done = tool("hash", files / "model", *paths)
    assert (done.returncode, done.stderr) == (0, "")
    for path in paths:
        data = path.read_bytes()
        symbols, pixels, _ = native.hash(data)
        assert hashes(done.stdout)[str(path)] == [symbols.hex(), pixels.hex()]
        out = tmp_path / "picture.ppm"
        assert tool("decode", files / "model", path, out).returncode == 0
        np.testing.assert_array_equal(read_picture(out).pixels, native.decode(data))
        info = dict(line.split(maxsplit=1) for line in tool("info", path).stdout.splitlines())
        assert info["width"] == str(plic.read(data).header.width)
        assert tool("recode", files / "model", path, out).returncode == 0
        bare = plic.read(data)
        assert out.read_bytes() == plic.write(plic.PlicFile(bare.header, bare.bands))


def test_shipped_model(tool, tmp_path, picture):
    (tmp_path / "model").write_bytes(pocketlic.shipped_model().to_bytes())
    data = pocketlic.encode(picture(70, 90))
    (tmp_path / "a.plic").write_bytes(data)
    for kernels in tool("kernels").stdout.split():
        done = tool("--kernels", kernels, "hash", tmp_path / "model", tmp_path / "a.plic")
        digest = hashlib.sha256(pocketlic.decode(data).tobytes()).hexdigest()
        assert hashes(done.stdout)[str(tmp_path / "a.plic")][1] == digest


def test_damaged_files(tool, files, tmp_path):
    """Flipped bits behind repaired checksums, so that they reach the entropy decoder, and plain ones."""
    rng = np.random.default_rng(0)
    file = plic.read((files / "1.plic").read_bytes())
    for i in range(300):
        stream = bytearray(file.bands[0])
        for _ in range(1 + i % 3):
            stream[int(rng.integers(len(stream)))] ^= 1 << int(rng.integers(8))
        if i % 4 == 0:
            del stream[int(rng.integers(len(stream))) :]
        data = bytearray(plic.write(plic.PlicFile(file.header, (bytes(stream),))))
        if i % 5 == 0:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        (tmp_path / f"{i}").write_bytes(data)
    done = tool("hash", files / "model", *sorted(tmp_path.iterdir()))
    lines = done.stdout.splitlines()
    assert len(lines) == 300
    assert sum(line.startswith("error 3: ") for line in lines) > 250
    for path in list(tmp_path.iterdir())[:5]:
        assert tool("decode", files / "model", path, tmp_path / "out.ppm").returncode in (0, 2)


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        *((text, "not a number") for text in ("", "best", "60%")),
        *((text, "quality are out of range") for text in ("-1", "100.5", "nan", "1e99")),
    ],
)
def test_qualities_that_are_none(tool, files, tmp_path, quality, message):
    (tmp_path / "picture.ppm").write_bytes(b"P6\n2 1\n255\n" + bytes(6))
    for command, last in (("encode", tmp_path / "out"), ("bench-encode", 1)):
        done = tool(command, files / "model", tmp_path / "picture.ppm", quality, last)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_damaged_models(tool, files, tmp_path):
    rng = np.random.default_rng(0)
    model = (files / "model").read_bytes()
    header = int.from_bytes(model[:8], "little")
    for i in range(40):
        damaged = bytearray(model[: int(rng.integers(len(model)))] if i % 4 == 0 else model)
        for _ in range(1 + i % 3):
            damaged[int(rng.integers(min(header, len(damaged))))] = int(rng.integers(256))
        (tmp_path / "model").write_bytes(damaged)
        done = tool("hash", tmp_path / "model", files / "1.plic")
        assert done.returncode == 2
        assert done.stdout.startswith("error 4") or done.stderr.startswith("plic: ")


def test_a_layer_of_many_unknown_inputs(tool, files, make, tmp_path):
    """What follows the first unknown one was once written beyond the layer."""
    model = make.small_model("cpu")
    layers = list(model.networks["context"].layers)
    layers[0] = replace(layers[0], inputs=("nothing", "features", "features", "features"))
    network = replace(model.networks["context"], layers=tuple(layers))
    (tmp_path / "model").write_bytes(replace(model, networks={**model.networks, "context": network}).to_bytes())
    done = tool("hash", tmp_path / "model", files / "1.plic")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no sound inputs" in done.stderr


def test_mistakes_end_in_one_line(tool, files, tmp_path):
    path = files / "1.plic"
    for arguments in (
        ["info", tmp_path / "missing"],
        ["hash", tmp_path / "missing", path],
        ["hash", path, path],
        ["decode", files / "model", path, tmp_path / "no" / "folder"],
        ["--kernels", "abacus", "hash", files / "model", path],
        ["--max-pixels", "10", "decode", files / "model", path, tmp_path / "out"],
        ["--max-memory", "1000", "decode", files / "model", path, tmp_path / "out"],
        ["--colour", "blue", "info", path],
    ):
        done = tool(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), arguments
    assert not (tmp_path / "out").exists()
    assert tool().stderr.startswith("usage:")
