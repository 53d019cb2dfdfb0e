"""The model file: round trip, id, and refusal of everything that is not a sound model."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from pocketlic.quantization.errors import ModelError
from pocketlic.quantization.model import IntegerModel, load_model


@pytest.fixture(scope="module")
def model(make):
    return make.small_model("cpu")


def test_round_trip(make, rule):
    model = replace(make.small_model(rule), notes={"steps": "12"})
    data = model.to_bytes()
    again = IntegerModel.from_bytes(data)
    assert again.to_bytes() == data
    assert again.model_id == model.model_id
    assert (again.rule, again.skip, again.notes) == (rule, 3, {"steps": "12"})
    assert again.arrays.keys() == model.arrays.keys()
    for name, array in model.arrays.items():
        np.testing.assert_array_equal(getattr(again, name), array)
    for name, network in model.networks.items():
        assert again.networks[name].specs == network.specs
        inputs = make.random_inputs(network, 16, 16)
        for key, y in network.run(inputs).items():
            np.testing.assert_array_equal(again.networks[name].run(inputs)[key], y)


def test_the_id_is_of_the_content(model):
    assert replace(model, skip=4).model_id != model.model_id
    assert replace(model, notes={"a": "b"}).model_id != model.model_id
    bias = model.row_bias.copy()
    bias[0] += 1
    assert replace(model, row_bias=bias).model_id != model.model_id
    assert replace(model).model_id == model.model_id


def test_truncated_and_lengthened(model):
    data = model.to_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for size in [0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(data) // 2, len(data) - 1]:
        with pytest.raises(ModelError):
            IntegerModel.from_bytes(data[:size])
    with pytest.raises(ModelError):
        IntegerModel.from_bytes(data + b"\0")


def test_no_flipped_bit_goes_unnoticed(model):
    """Either it is refused, or the model has another id and so decodes no file of the first."""
    data = model.to_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, header, 150), *rng.integers(header, len(data), 50)]
    refused = 0
    for at in places:
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.integers(8)
        try:
            changed = IntegerModel.from_bytes(bytes(damaged))
        except ModelError:
            refused += 1
        else:
            assert changed.model_id != model.model_id
    assert refused > 100


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xff" * 64,
        (1 << 62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        save({"x": np.zeros(3, np.float32)}),
        save({"x": np.zeros(3, np.float32)}, metadata={"pocketlic": "{"}),
        save({"x": np.zeros(3, np.float32)}, metadata={"pocketlic": "[1]"}),
        save({"x": np.zeros(3, np.float32)}, metadata={"pocketlic": '{"networks": {}}'}),
        save({"x": np.zeros(3, np.float32)}, metadata={"pocketlic": "[" * 100_000}),
    ],
)
def test_foreign_files(data, tmp_path):
    with pytest.raises(ModelError) as caught:
        IntegerModel.from_bytes(data)
    assert "\n" not in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError):
        load_model(tmp_path / "model.safetensors")


def test_missing_files(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read model .*No such file"):
        load_model(tmp_path / "none")
    with pytest.raises(ModelError, match="cannot read model"):
        load_model(tmp_path)


def poke(at, value):
    def change(array):
        array = array.copy()
        array[at] = value
        return array

    return change


ARRAYS = {
    "row sum": ("table_freq", poke(5, 701), "sum to 65536"),
    "frequency of 0": ("table_freq", poke(slice(0, 2), [0, 1400]), "limits"),
    "table cut": ("table_freq", lambda x: x[:-1], "table_freq is"),
    "table dtype": ("table_freq", lambda x: x.astype(np.int32), "table_freq is"),
    "radius": ("table_radius", poke(0, 41), "table_freq is"),
    "huge radius": ("table_radius", poke(0, 65535), "table_freq is"),
    "no rows": ("table_radius", lambda x: x[:0], "table_freq is|limits"),
    "radius 2-D": ("table_radius", lambda x: x[:, None], "table_radius is"),
    "latent weights flat": ("latent_weight", lambda x: x.ravel(), "latent_weight is|latent_bias is"),
    "latent weights cut": ("latent_weight", lambda x: x[:-1], "latent_bias is"),
    "latent weights without features": ("latent_weight", lambda x: x[:, :0], "latent_weight is"),
    "fewer features": ("latent_weight", lambda x: x[:, 1:], "analysis"),
    "latent weights float": ("latent_weight", lambda x: x.astype(np.float32), "latent_weight is"),
    "latent shift": ("latent_shift", poke(0, 100), "latent_shift"),
    "negative latent shift": ("latent_shift", poke(0, -100), "latent_shift"),
    "detail weights flat": ("detail_weight", lambda x: x.ravel(), "detail_weight is|detail_bias is"),
    "detail weights cut": ("detail_weight", lambda x: x[:-1], "detail_bias is"),
    "fewer fine features": ("detail_weight", lambda x: x[:, 1:], "analysis"),
    "no details": ("detail_weight", lambda x: x[:0], "detail_bias is"),
    "detail shift": ("detail_shift", poke(0, 100), "detail_shift"),
    "detail row weight": ("detail_row_weight", lambda x: x[:, 1:], "detail_row_weight is"),
    "detail row scale": ("detail_row_scale", lambda x: x[:-1], "detail_row_scale is"),
    "magnitude": ("magnitude", lambda x: x[:127], "magnitude is"),
    "latent bias": ("latent_bias", lambda x: x[:1], "latent_bias is"),
    "row weight": ("row_weight", lambda x: x[:-1], "row_weight is"),
    "row weight of other z": ("row_weight", lambda x: x[:, 1:], "hyper"),
    "row scale": ("row_scale", lambda x: x.astype(np.int64), "row_scale is"),
    "row bias": ("row_bias", lambda x: x[None], "row_bias is"),
    "one knot": ("step_knots", lambda x: x[:1], "row_knots is"),
    "knots flat": ("step_knots", lambda x: x.ravel(), "step_knots is"),
    "knot scalar": ("step_knots", lambda x: x[0, 0], "step_knots is"),
    "row knots": ("row_knots", lambda x: x[:, :3], "row_knots is"),
    "hyper gain knots": ("hyper_gain_knots", poke((0, 0), -(2**31)), "15 octaves"),
    "large hyper gain": ("hyper_gain_knots", poke((0, 0), 2**31 - 1), "15 octaves"),
    "hyper row knots": ("hyper_row_knots", lambda x: x[:, 1:], "hyper_row_knots is"),
    "hyper prediction": ("hyper_prediction", lambda x: x[:, :2], "hyper_prediction is"),
    "wide out of range": ("wide", poke(1, 16), "wide"),
    "wide negative": ("wide", poke(0, -1), "wide"),
    "wide twice": ("wide", poke(1, 1), "wide"),
    "wide more": ("wide", lambda x: np.append(x, np.int16(9)), "synthesis"),
    "exp2 cut": ("exp2", lambda x: x[:-1], "exp2 is"),
    "exp2 negative": ("exp2", poke(0, -1), "exp2"),
    "exp2 large": ("exp2", poke(255, 1 << 20), "exp2"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_hostile_arrays(model, what):
    name, change, message = ARRAYS[what]
    data = replace(model, **{name: np.asarray(change(getattr(model, name)))}).to_bytes()
    with pytest.raises(ModelError, match=message) as caught:
        IntegerModel.from_bytes(data)
    assert "\n" not in str(caught.value)


def test_knots_must_divide_the_qualities(model):
    names = ("step_knots", "row_knots", "hyper_gain_knots", "hyper_row_knots")
    with pytest.raises(ModelError, match="knots"):
        replace(model, **{n: np.repeat(getattr(model, n)[:1], 8, 0) for n in names}).check()
    with pytest.raises(ModelError, match="knots"):
        replace(model, **{n: getattr(model, n)[:1] for n in names}).check()


def test_arrays_that_are_missing(model):
    for name in model.arrays:
        tensors, content = parts(model)
        del tensors[name]
        with pytest.raises(ModelError, match=name):
            IntegerModel.from_bytes(save(tensors, metadata={"pocketlic": json.dumps(content)}))


def parts(model):
    data = model.to_bytes()
    length = int.from_bytes(data[:8], "little")
    return load(data), json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["pocketlic"])


def layer(kind, key, value, network="synthesis"):
    def change(content):
        entry = next(la for la in content["networks"][network]["layers"] if la["kind"] == kind)
        entry[key] = value

    return change


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(content):
        for key in path:
            content = content[key]
        content[last] = value

    return change


HOSTILE = {
    "huge factor": layer("upsample", "factor", 1 << 40),
    "fractional factor": layer("upsample", "factor", 4.0),
    "factor true": layer("depth_to_space", "factor", True),
    "other factor": layer("upsample", "factor", 2),
    "unknown kind": layer("upsample", "kind", "resize"),
    "kind of the wrong type": layer("upsample", "kind", ["upsample"]),
    "huge channels": layer("pointwise", "spec", [1 << 50, -4, 0]),
    "spec too short": layer("pointwise", "spec", [8]),
    "spec too long": layer("pointwise", "spec", [8, -4, 0, 0]),
    "spec of text": layer("pointwise", "spec", ["8", "-4", "0"]),
    "spec null": layer("pointwise", "spec", None),
    "name of another type": layer("pointwise", "name", 7),
    "inputs null": layer("add", "inputs", None),
    "inputs nested": layer("add", "inputs", [["y_hat"], ["y_hat"]]),
    "inputs text": layer("add", "inputs", "ab"),
    "no layers": put("networks", "context", "layers", []),
    "layers null": put("networks", "context", "layers", None),
    "layer of text": put("networks", "context", "layers", ["pointwise"]),
    "outputs unknown": put("networks", "context", "outputs", ["nothing"]),
    "outputs null": put("networks", "context", "outputs", None),
    "one output of three": lambda c: c["networks"]["hyper_synthesis"]["outputs"].pop(),
    "inputs as a list of names": put("networks", "context", "inputs", ["features"]),
    "one input of two": lambda c: c["networks"]["context"]["inputs"].pop(),
    "network gone": lambda c: c["networks"].pop("context"),
    "network more": lambda c: c["networks"].update(extra=c["networks"]["context"]),
    "networks swapped": lambda c: c["networks"].update(analysis=c["networks"]["context"]),
    "networks a list": put("networks", []),
    "profile unknown": put("profile", "fast"),
    "profile a list": put("profile", ["cpu"]),
    "other profile": put("profile", "strict"),
    "skip of text": put("skip", "many"),
    "skip negative": put("skip", -1),
    "skip all": put("skip", 64),
    "skip fractional": put("skip", 2.5),
    "skip null": put("skip", None),
    "notes a list": put("notes", [1]),
    "notes of numbers": put("notes", {"a": 1}),
    "notes gone": lambda c: c.pop("notes"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_metadata(model, what):
    tensors, content = parts(model)
    assert IntegerModel.from_bytes(save(tensors, metadata={"pocketlic": json.dumps(content)}))
    content = copy.deepcopy(content)
    HOSTILE[what](content)
    with pytest.raises(ModelError) as caught:
        IntegerModel.from_bytes(save(tensors, metadata={"pocketlic": json.dumps(content)}))
    assert "\n" not in str(caught.value)


def test_networks_on_another_grid(make):
    """All channels fit, but the synthesis would be a quarter as high and wide as the picture."""
    model = make.small_model("cpu")
    b = make.Builder("synthesis", "cpu", 0, y_hat=18)
    network = b.build(b.depth_to_space(b.pointwise("y_hat", 48), 4))
    with pytest.raises(ModelError, match="synthesis"):
        replace(model, networks={**model.networks, "synthesis": network}).check()
