"""The worked examples of SPEC.md, read from its text, equal the implementations' results."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketlic.codec import format as plic
from pocketlic.codec import rans
from pocketlic.codec._native import SymbolCoder
from pocketlic.codec.codec import Codec, interpolate
from pocketlic.quantization.network import RULES, IntegerNetwork, Layer, Spec

SPEC = Path(__file__).parents[2] / "codec" / "SPEC.md"


def block(name):
    text = SPEC.read_text()
    (found,) = re.findall(rf"^```{name}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return found


def fields(name):
    """Lines of a name and integers."""
    lines = (line.split() for line in block(name).splitlines())
    return {line[0]: np.array([int(v) for v in line[1:]]) for line in lines if line[0] != "bytes"}


def stream_bytes():
    (line,) = (line for line in block("stream").splitlines() if line.startswith("bytes"))
    return bytes.fromhex(line.removeprefix("bytes"))


@pytest.mark.parametrize("coder", [SymbolCoder, rans.SymbolCoder])
def test_stream(coder):
    f = fields("stream")
    radius, freq = f["radius"].astype(np.uint16), f["freq"].astype(np.uint16)
    one = coder(radius, freq, int(f["skip"][0]))
    indices = f["indices"].astype(np.uint8)
    np.testing.assert_array_equal(one.decode(stream_bytes(), indices), f["symbols"])
    assert one.encode(f["symbols"].astype(np.int32), indices) == stream_bytes()


def test_container():
    data = bytes.fromhex(block("container"))
    file = plic.read(data)
    assert file.header == plic.Header(1, 200, True, 6000, bytes(range(1, 9)))
    assert file.bands == (stream_bytes(),)
    assert plic.write(file) == data


def test_knots():
    f = fields("knots")
    values = [int(interpolate(f["knots"].astype(np.int32)[:, None], int(q))[0]) for q in f["quality"]]
    assert values == f["value"].tolist()


def test_prediction(make):
    f = fields("prediction")
    model = make.small_model("cpu")
    channels = len(model.hyper_prediction)
    codec = Codec(replace(model, hyper_prediction=np.tile(f["weights"].astype(np.int8), (channels, 1))))
    symbols, z = (np.repeat(f[name].reshape(2, 3, 1), channels, 2) for name in ("symbols", "z"))
    np.testing.assert_array_equal(codec._undo_prediction(symbols.astype(np.int32)), z)
    np.testing.assert_array_equal(codec.differences(z.astype(np.int8)), symbols)


def test_steps(make):
    codec = Codec(make.small_model("cpu"))
    f = fields("step")
    assert codec._step(f["exponent"]).tolist() == f["step"].tolist()


def test_pointwise():
    f = fields("pointwise")
    weight = f["weight"].astype(np.int8)[None]
    spec = Spec(1, 0, int(f["zero_out"][0]))
    layer = Layer(
        "pointwise", "y", ("x",), spec, bool(f["relu"][0]), 1, weight,
        f["bias"].astype(np.int32), f["shift"].astype(np.int8),
    )  # fmt: skip
    network = IntegerNetwork("example", {"x": Spec(2, 0, int(f["zero_in"][0]))}, (layer,), ("y",))
    network.check("cpu")
    (y,) = network.run([f["input"].astype(np.int8).reshape(1, -1, 2)]).values()
    assert y.ravel().tolist() == f["output"].tolist()


def test_planes(make):
    codec = Codec(make.small_model("cpu"))
    f = fields("planes")
    latents, wide = codec.latents, codec.model.wide
    y_hat = np.repeat(f["y_hat"].astype(np.int64)[:, None, None], latents, 2)
    planes = codec._planes(y_hat)
    assert planes[:, 0, wide[0]].tolist() == f["coarse"].tolist()
    assert planes[:, 0, latents].tolist() == f["fine"].tolist()


def test_the_rules_of_the_profiles():
    text = SPEC.read_text()
    for rule in RULES.values():
        assert ", ".join(map(str, rule)) in text
    assert f"2^{plic.DEFAULT_MAX_PIXELS.bit_length() - 1} by default" in text
    assert f"A *band* is {plic.BAND_LATENT_ROWS} rows" in text
