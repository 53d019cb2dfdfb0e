"""The conformance vectors: decoders give the recorded hashes, and the encoder writes the recorded files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pocketlic.codec import _native, rans
from pocketlic.codec import format as plic
from pocketlic.codec.codec import Codec
from pocketlic.codec.errors import FormatError
from pocketlic.codec.fast import FastCodec
from pocketlic.export.litert import LiteRTExecutor
from pocketlic.profiling.conformance.vectors import noise, vectors

FOLDER = Path(__file__).parent
CONTENT = json.loads((FOLDER / "vectors.json").read_text())
REMEDY = "if the weights have changed, run tests/vectors/make.py; if not, this breaks the format"
NAMES = sorted(CONTENT["models"])


@cache
def models():
    spec = importlib.util.spec_from_file_location("make", FOLDER / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    return make.models()


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def files(name):
    for entry in CONTENT["models"][name]["vectors"]:
        yield entry, (FOLDER / name / f"{entry['name']}.plic").read_bytes()


def test_models(name):
    assert models()[name].model_id == CONTENT["models"][name]["id"], REMEDY
    path = FOLDER / f"{name}.safetensors"
    assert not path.exists() or path.read_bytes() == models()[name].to_bytes()


def test_the_encoder_writes_the_same_files(name):
    made = {vector.name: vector.data for vector in vectors(models()[name])}
    kept = {entry["name"]: data for entry, data in files(name)}
    assert made == kept, REMEDY
    assert {f"{n}.plic" for n in made} == {path.name for path in (FOLDER / name).iterdir()}


@pytest.mark.parametrize("kernels", _native.kernels())
def test_native_decoder(name, kernels):
    native = _native.NativeDecoder(models()[name].to_bytes(), kernels)
    for entry, data in files(name):
        symbols, pixels, _ = native.hash(data)
        assert (symbols.hex(), pixels.hex()) == (entry["symbols"], entry["pixels"]), (entry["name"], REMEDY)


@pytest.mark.parametrize("runtime", ["reference", "litert"])
def test_decoders_in_python(name, runtime):
    model = models()[name]
    if runtime == "litert":
        codec = FastCodec(model, LiteRTExecutor.from_model(model))
    else:
        codec = Codec(model, coder=rans.SymbolCoder)
    for entry, data in files(name):
        assert hashlib.sha256(data).hexdigest() == entry["file"]
        symbols, header = codec.read(data)
        pixels = codec.synthesise(symbols, header)
        assert symbols.sha256() == entry["symbols"], (entry["name"], REMEDY)
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == entry["pixels"], (entry["name"], REMEDY)
        assert pixels.shape[:2] == (entry["height"], entry["width"])


def test_what_the_vectors_reach():
    """All tables, every entry of the small ones, both kinds of stream, several bands, all qualities."""
    sizes = set()
    states, qualities = set(), set()
    for name in NAMES:
        model = models()[name]
        codec = Codec(model)
        seen = np.zeros(len(model.table_radius), bool)
        for entry, data in files(name):
            file = plic.read(data)
            symbols = codec.read_symbols(file)
            predicted = codec.predicted_indices(symbols.z, file.header.quality_hundredths)
            seen[codec.latent_indices(predicted)] = True
            seen[codec.detail_indices(predicted, symbols.y)] = True
            sizes.add((entry["height"], entry["width"], len(file.bands)))
            states.update(band[0] for band in file.bands)
            qualities.add(entry["quality"])
        assert seen.all(), name
    assert states == {1, 4}
    assert {0, 100} <= qualities
    assert {bands for _, _, bands in sizes} >= {1, 2}
    assert {(1, 1, 1), (67, 131, 1), (1100, 40, 2), (40, 1100, 1)} <= sizes
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 3 << 20


def test_damage_of_one_vector_is_always_found():
    """Every single bit and every length of one file, in both decoders."""
    model = models()["cpu"]
    data = (FOLDER / "cpu" / "one-pixel-grey.plic").read_bytes()
    native = _native.NativeDecoder(model.to_bytes())
    damaged = [data[:n] for n in range(len(data))]
    for i in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << i % 8
        damaged.append(bytes(flipped))
    for bad in damaged:
        for decode in (native.decode, Codec(model).decode):
            with pytest.raises(FormatError):
                decode(bad)


def test_noise_is_the_same_everywhere():
    assert noise("seed", (2, 2), -5, 100).tolist() == [[7, 42], [65, 62]]
