"""The executor against its definition, written out sample by sample; and the networks that `check` refuses."""

from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlic.quantization.errors import ModelError
from pocketlic.quantization.network import RULES, IntegerNetwork, Layer, Spec

EITHER = st.sampled_from(["cpu", "strict"])


def by_definition(network, inputs):
    """Every tensor as a dict (row, column, channel) -> int; scalar Python integers and fractions only."""
    specs = network.specs
    tensors = {}
    for name, x in zip(network.inputs, inputs, strict=True):
        tensors[name] = {at: int(v) for at, v in np.ndenumerate(x)}
    for layer in network.layers:
        sources = [{at: v - specs[i].zero_point for at, v in tensors[i].items()} for i in layer.inputs]
        x, f, zero = sources[0], layer.factor, layer.spec.zero_point
        height, width, depth = (max(at[axis] for at in x) + 1 for axis in range(3))

        def requantized(c, acc, layer=layer):
            return floor(Fraction(acc, 2 ** int(layer.shift[c])) + Fraction(1, 2))

        y = {}
        if layer.kind == "pointwise":
            for i, j, o in product(range(height), range(width), range(len(layer.bias))):
                products = (int(layer.weight[o, c]) * x[i, j, c] for c in range(depth))
                y[i, j, o] = requantized(o, int(layer.bias[o]) + sum(products))
        elif layer.kind == "depthwise":
            k = layer.weight.shape[0]
            for i, j, c in x:
                acc = int(layer.bias[c])
                for dy, dx in product(range(k), range(k)):
                    acc += int(layer.weight[dy, dx, c]) * x.get((i + dy - k // 2, j + dx - k // 2, c), 0)
                y[i, j, c] = requantized(c, acc)
        elif layer.kind == "add":
            y = {at: v + sources[1][at] for at, v in x.items()}
        elif layer.kind == "upsample":
            y = {(i * f + a, j * f + b, c): v for (i, j, c), v in x.items() for a in range(f) for b in range(f)}
        elif layer.kind == "space_to_depth":
            y = {(i // f, j // f, (i % f * f + j % f) * depth + c): v for (i, j, c), v in x.items()}
        else:
            out = depth // (f * f)
            for (i, j, c), v in x.items():
                y[i * f + c // out // f, j * f + c // out % f, c % out] = v
        low = 0 if layer.relu else -128 - zero
        tensors[layer.name] = {at: min(max(v, low), 127 - zero) + zero for at, v in y.items()}
    return tensors


def random_network(make, rule, seed, choices):
    """A chain of the chosen layers over 4 channels, with a sum whenever a tensor of equal shape exists."""
    b = make.Builder("random", rule, seed, a=4, b=4)
    current, shapes = "a", {"a": (1, 4), "b": (1, 4)}  # cells per input cell, channels
    for choice in choices:
        cells, channels = shapes[current]
        if choice in ("pointwise", "relu"):
            name, shape = b.pointwise(current, 4, choice == "relu"), (cells, 4)
        elif choice in ("depthwise3", "depthwise5"):
            name, shape = b.depthwise(current, int(choice[-1])), (cells, channels)
        elif choice in ("add", "add_relu"):
            other = next(k for k, v in shapes.items() if v == (cells, channels))
            name, shape = b.add(current, other, choice == "add_relu"), (cells, channels)
        elif choice == "upsample" and cells < 2:
            name, shape = b.upsample(current, 2), (cells * 2, channels)
        elif choice == "depth_to_space" and cells < 2 and channels % 4 == 0:
            name, shape = b.depth_to_space(current, 2), (cells * 2, channels // 4)
        elif choice == "space_to_depth" and cells > 0.25 and channels < 16:
            name, shape = b.space_to_depth(current, 2), (cells / 2, channels * 4)
        else:
            continue
        current, shapes[name] = name, shape
    return b.build(*dict.fromkeys([current, "a"]))


KINDS = (
    "pointwise", "relu", "depthwise3", "depthwise5", "add", "add_relu", "upsample", "depth_to_space",
    "space_to_depth",
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(EITHER, st.integers(0, 1000), st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), st.booleans())
def test_run_equals_the_definition(make, rule, seed, choices, extreme):
    network = random_network(make, rule, seed, choices)
    inputs = make.random_inputs(network, 4, 4, seed)
    if extreme:
        inputs = [np.where(x < 0, np.int8(-128), np.int8(127)) for x in inputs]
    expected = by_definition(network, inputs)
    got = network.run(inputs, keep=True)
    assert got.keys() == expected.keys()
    for name, y in got.items():
        assert y.dtype == np.int8
        assert {at: int(v) for at, v in np.ndenumerate(y)} == expected[name]
    assert network.run(inputs).keys() == set(network.outputs)


def test_relu_with_a_zero_point_of_0(make, rule):
    b = make.Builder("half", rule, 0, x=4)
    b.add(b.pointwise("x", 4, relu=True), b.pointwise("x", 4), relu=True)
    layers = tuple(replace(layer, spec=replace(layer.spec, zero_point=0)) for layer in b.layers)
    network = replace(b.build(layers[-1].name), layers=layers)
    network.check(rule)
    inputs = make.random_inputs(network, 4, 4)
    for name, y in network.run(inputs, keep=True).items():
        assert {at: int(v) for at, v in np.ndenumerate(y)} == by_definition(network, inputs)[name]
        assert name == "x" or name == layers[1].name or y.min() == 0


def test_the_codecs_blocks_equal_the_definition(make, rule):
    for network in (make.everything(rule, 3), make.renderer(rule, 3, channels=6)):
        inputs = make.random_inputs(network, 2, 4)
        expected = by_definition(network, inputs)
        for name, y in network.run(inputs).items():
            assert {at: int(v) for at, v in np.ndenumerate(y)} == expected[name]


@settings(max_examples=20, deadline=None)
@given(EITHER, st.integers(0, 1000), st.sampled_from([(0, 0), (1, 0), (0, 3)]))
def test_convolutions_know_no_position_but_the_border(make, rule, seed, move):
    """Away from borders, moving the input moves the output."""
    b = make.Builder("chain", rule, seed, x=3)
    network = b.build(b.depthwise(b.pointwise(b.depthwise("x", 3), 3, True), 3))
    (x,) = make.random_inputs(network, 9, 9, seed)
    (y,) = network.run([x]).values()
    (moved,) = network.run([np.roll(x, move, (0, 1))]).values()
    inner = (slice(2 + move[0], -2), slice(2 + move[1], -2))
    np.testing.assert_array_equal(moved[inner], np.roll(y, move, (0, 1))[inner])


def test_strides_and_macs(make):
    network = make.everything("cpu")
    output = network.outputs[1]
    assert network.strides[output] == (4, 1)
    (x, side) = make.random_inputs(network, 4, 6)
    assert network.run([x, side])[output].shape == (16, 24, 3)
    first = network.layers[0]
    assert network.macs()[first.name] == 5 * 24
    halved = next(la for la in network.layers if la.kind == "depthwise" and la.weight.shape[0] == 3)
    assert network.macs()[halved.name] == 9 * 32 / 4


def test_inputs_that_do_not_fit(make):
    network = make.renderer("cpu")
    (x,) = make.random_inputs(network, 2, 2)
    for bad in (x.astype(np.int16), x[..., :3], x[0]):
        with pytest.raises(ModelError, match="must be int8"):
            network.run([bad])


def altered(network, kind, changes):
    """The network with the first layer of a kind changed; a change may be a function of the old value."""
    layers = list(network.layers)
    at = next(i for i, layer in enumerate(layers) if layer.kind == kind)
    old = layers[at]
    new = {key: value(getattr(old, key)) if callable(value) else value for key, value in changes.items()}
    layers[at] = replace(old, **new)
    return replace(network, layers=tuple(layers))


def poke(value):
    """A function that changes the last element of an array."""

    def change(array):
        array = array.copy()
        array[(-1,) * array.ndim] = value
        return array

    return change


def spec(**changes):
    return lambda old: replace(old, **changes)


ALTERATIONS = {
    "odd weight": ("pointwise", {"weight": poke(3)}, "tie-free"),
    "weight of -128": ("pointwise", {"weight": poke(-128)}, "tie-free"),
    "even bias": ("depthwise", {"bias": poke(1 << 20)}, "tie-free"),
    "shift of 0": ("pointwise", {"shift": poke(0)}, "shifts 0.."),
    "negative shift": ("pointwise", {"shift": poke(-3)}, "shifts -3.."),
    "shift of 18": ("depthwise", {"shift": poke(18)}, "18 outside"),
    "shift of one": ("pointwise", {"shift": poke(1)}, "shifts 1.."),
    "overflow": ("pointwise", {"bias": poke(2**31 - 1)}, "32 bits|tie-free"),
    "no weight": ("pointwise", {"weight": None}, "needs int8"),
    "float weight": ("pointwise", {"weight": lambda w: w.astype(np.float32)}, "needs int8"),
    "wide bias": ("pointwise", {"bias": lambda b: b.astype(np.int64)}, "needs int8"),
    "wide shift": ("pointwise", {"shift": lambda s: s.astype(np.int32)}, "needs int8"),
    "weight cut": ("pointwise", {"weight": lambda w: w[:, 1:]}, "do not fit"),
    "weight flat": ("pointwise", {"weight": lambda w: w.ravel()}, "do not fit"),
    "weight scalar": ("depthwise", {"weight": lambda w: w[0, 0, 0]}, "do not fit"),
    "bias cut": ("pointwise", {"bias": lambda b: b[1:]}, "do not fit"),
    "shift cut": ("pointwise", {"shift": lambda s: s[:1]}, "do not fit"),
    "even kernel": ("depthwise", {"weight": lambda w: w[1:, 1:]}, "do not fit"),
    "oblong kernel": ("depthwise", {"weight": lambda w: w[1:]}, "do not fit"),
    "empty kernel": ("depthwise", {"weight": lambda w: w[:0, :0]}, "do not fit"),
    "channels lied about": ("pointwise", {"spec": spec(channels=7)}, "do not fit"),
    "no channels": ("pointwise", {"spec": spec(channels=0)}, "impossible"),
    "huge channels": ("pointwise", {"spec": spec(channels=10**9)}, "impossible"),
    "channels no integer": ("pointwise", {"spec": spec(channels=24.0)}, "impossible"),
    "scale out of range": ("pointwise", {"spec": spec(exponent=1000)}, "impossible"),
    "odd zero point": ("pointwise", {"spec": spec(zero_point=-7)}, "zero point"),
    "text zero point": ("pointwise", {"spec": spec(zero_point="0")}, "zero point"),
    "unknown source": ("add", {"inputs": ("nothing", "image")}, "out of order"),
    "own source": ("add", {"inputs": lambda i: (i[0], "add5")}, "out of order"),
    "one summand": ("add", {"inputs": lambda i: i[:1]}, "1 inputs"),
    "three sources": ("pointwise", {"inputs": lambda i: i * 3}, "3 inputs"),
    "no source": ("space_to_depth", {"inputs": ()}, "0 inputs"),
    "summands of other channels": ("add", {"inputs": lambda i: (i[0], "image")}, "equal shape"),
    "sum of other channels": ("add", {"spec": spec(channels=25)}, "equal shape"),
    "sum of other scale": ("add", {"spec": spec(exponent=-5)}, "equal scales"),
    "taken name": ("add", {"name": "image"}, "out of order"),
    "huge factor": ("upsample", {"factor": 10**9}, "factor"),
    "factor of 0": ("depth_to_space", {"factor": 0}, "factor"),
    "negative factor": ("space_to_depth", {"factor": -2}, "factor"),
    "no factor": ("space_to_depth", {"factor": None}, "factor"),
    "factor that does not divide": ("depth_to_space", {"factor": 5}, "divide"),
    "moved to another scale": ("upsample", {"spec": spec(exponent=-3)}, "keep scale"),
    "moved to other channels": ("space_to_depth", {"spec": spec(channels=24)}, "keep scale"),
    "unknown kind": ("upsample", {"kind": "softmax"}, "unknown kind"),
}  # fmt: skip


@pytest.mark.parametrize("what", ALTERATIONS)
def test_check_refuses(make, rule, what):
    kind, changes, message = ALTERATIONS[what]
    network = make.everything(rule)
    network.check(rule)
    with pytest.raises(ModelError, match=message) as caught:
        altered(network, kind, changes).check(rule)
    assert "\n" not in str(caught.value)


def test_check_refuses_sums_of_different_sizes(make):
    b = make.Builder("sizes", "cpu", 0, x=4)
    network = b.build(b.add(b.pointwise("x", 4), b.pointwise("x", 4)))
    moved = Layer("upsample", "larger", ("x",), Spec(4, -4), factor=2)
    total = replace(network.layers[-1], inputs=("larger", network.layers[0].name))
    with pytest.raises(ModelError, match="equal shape"):
        replace(network, layers=(*network.layers[:-1], moved, total)).check("cpu")


def test_check_refuses_outputs_and_inputs_that_are_not_there(make):
    network = make.renderer("cpu")
    for changes in ({"outputs": ("nothing",)}, {"outputs": ()}):
        with pytest.raises(ModelError, match="unknown input or output"):
            replace(network, **changes).check("cpu")
    with pytest.raises(ModelError):
        replace(network, inputs={}).check("cpu")
    with pytest.raises(ModelError, match="zero point"):
        replace(network, inputs={"y_hat": Spec(16, -4, 5)}).check("cpu")


@pytest.mark.parametrize("zero_point", [0, -128])
def test_the_largest_sound_accumulator(rule, zero_point):
    """One more and int32 could overflow: behind a ReLU an input is up to 255 over its zero point."""
    _, remainder, _, most = RULES[rule]
    weight = np.full((1, 1), -100, np.int8)
    bias = 2**31 - 1 - (1 << (most - 1)) - 100 * (128 - zero_point)
    bias -= (bias - remainder) % (2 * remainder)

    def network(b):
        layer = Layer(
            "pointwise", "y", ("x",), Spec(1, 0), weight=weight, bias=np.array([b], np.int32),
            shift=np.array([most], np.int8),
        )  # fmt: skip
        return IntegerNetwork("n", {"x": Spec(1, 0, zero_point)}, (layer,), ("y",))

    network(bias).check(rule)
    with pytest.raises(ModelError, match="32 bits"):
        network(bias + 2 * remainder).check(rule)
