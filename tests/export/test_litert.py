"""The exported networks compute the reference's bits, on all of LiteRT's kernels; and the test can tell."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from pocketlic.export.errors import ExportError
from pocketlic.export.litert import LiteRTExecutor, require_delegate
from pocketlic.export.tflite import to_tflite
from pocketlic.quantization.errors import ModelError
from pocketlic.quantization.network import RULES, IntegerNetwork, Layer, Spec

VARIANTS = (("xnnpack", 1), ("xnnpack", 2), ("builtin", 1), ("builtin", 2), ("reference", 1))


def executor(network, size, rule, kernels="xnnpack", threads=1):
    return LiteRTExecutor({network.name: to_tflite(network, size, rule)}, kernels, threads)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name in expected:
        assert got[name].dtype == np.int8
        np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("kind", "size"), [("everything", (6, 18)), ("everything", (2, 2)), ("renderer", (7, 13))])
def test_all_kernels_equal_the_reference(make, rule, kind, size, seed):
    network = getattr(make, kind)(rule, seed)
    inputs = make.random_inputs(network, *size, seed)
    expected = network.run(inputs)
    assert all(np.unique(y).size > 50 for y in expected.values() if y.size > 1000)
    for kernels, threads in VARIANTS:
        assert_same(executor(network, size, rule, kernels, threads)(network, inputs), expected)


def test_codec_shaped_networks(make, rule):
    model = make.small_model(rule)
    runs = [LiteRTExecutor.from_model(model, kernels, threads) for kernels, threads in VARIANTS]
    for name, network in model.networks.items():
        side = {"analysis": 128, "hyper_synthesis": 3}.get(name, 12)
        inputs = make.random_inputs(network, side, side)
        for run in runs:
            assert_same(run(network, inputs), network.run(inputs))


def test_one_flatbuffer_runs_at_any_size(make, rule):
    network = make.everything(rule)
    for kernels, threads in VARIANTS:
        run = executor(network, (4, 4), rule, kernels, threads)
        for size in ((4, 4), (10, 6), (2, 2), (10, 6)):
            inputs = make.random_inputs(network, *size)
            assert_same(run(network, inputs), network.run(inputs))


def beside_ties(rule, kind, relu, shifts):
    """A network whose accumulators are the neighbours of every tie of every shift, on both sides.

    Requantization is monotonic, so kernels that agree on these agree on all.
    """
    remainder = RULES[rule][1]
    biases, exponents = [], []
    for shift in shifts:
        ties = (2 * np.arange(-300, 300) + 1) << (shift - 1)
        below = (ties - remainder) // (2 * remainder) * (2 * remainder) + remainder
        assert ((below < ties) & (below + 2 * remainder > ties)).all()
        biases += [below, below + 2 * remainder]
        exponents.append(np.full(2 * ties.size, shift, np.int8))
    out = 2 * 600 * len(shifts)
    weight = np.zeros((out, 1) if kind == "pointwise" else (3, 3, out), np.int8)
    layer = Layer(
        kind, "y", ("x",), Spec(out, -3, -128 if relu else 0), relu,
        weight=weight, bias=np.concatenate(biases).astype(np.int32), shift=np.concatenate(exponents),
    )  # fmt: skip
    return IntegerNetwork("ties", {"x": Spec(weight.shape[-1], -5)}, (layer,), ("y",))


@pytest.mark.parametrize("kind", ["pointwise", "depthwise"])
@pytest.mark.parametrize("relu", [False, True])
def test_accumulators_next_to_every_tie(rule, kind, relu):
    network = beside_ties(rule, kind, relu, range(RULES[rule][2], RULES[rule][3] + 1))
    inputs = [np.zeros((2, 3, network.inputs["x"].channels), np.int8)]
    expected = network.run(inputs)
    for kernels, threads in VARIANTS:
        assert_same(executor(network, (2, 3), rule, kernels, threads)(network, inputs), expected)


def test_the_largest_shift_is_the_largest(rule, monkeypatch):
    *others, most = RULES[rule]
    shift = most + 1
    network = beside_ties(rule, "pointwise", True, [shift])
    with pytest.raises(ModelError, match=f"shifts {shift}..{shift} outside"):
        to_tflite(network, (2, 3), rule)
    monkeypatch.setitem(RULES, rule, (*others, shift))
    inputs = [np.zeros((2, 3, 1), np.int8)]
    assert (executor(network, (2, 3), rule)(network, inputs)["y"] != network.run(inputs)["y"]).any()


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
@pytest.mark.parametrize("relu", [False, True])
def test_sums_of_all_pairs(rule, kernels, relu):
    layer = Layer("add", "y", ("a", "b"), Spec(1, -4, -128 if relu else 0), relu)
    network = IntegerNetwork("sum", {"a": Spec(1, -4), "b": Spec(1, -4)}, (layer,), ("y",))
    a, b = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    inputs = [a.astype(np.int8)[..., None], b.astype(np.int8)[..., None]]
    run = executor(network, (256, 256), rule, kernels)
    assert_same(run(network, inputs), network.run(inputs))
    operators = {o["op_name"] for o in run._interpreters["sum"]._get_ops_details()}
    assert ("DELEGATE" in operators) == (kernels == "xnnpack")


def broken(network):
    """The same network with even biases: accumulators can be ties."""
    layers = [
        replace(layer, bias=layer.bias & ~np.int32(1)) if layer.bias is not None else layer for layer in network.layers
    ]
    return replace(network, layers=tuple(layers))


def test_a_network_that_breaks_the_rule_is_refused(make, rule):
    network = broken(make.everything("cpu"))
    with pytest.raises(ModelError, match="tie-free"):
        to_tflite(network, (4, 4), rule)


def test_without_the_rule_kernels_do_differ(monkeypatch):
    """The comparisons above must be able to fail: here they do."""
    monkeypatch.setattr(IntegerNetwork, "check", lambda *_: None)
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (64, 32)).astype(np.int8)
    layer = Layer(
        "pointwise",
        "y",
        ("x",),
        Spec(64, -4),
        weight=weight,
        bias=np.zeros(64, np.int32),
        shift=np.full(64, 3, np.int8),
    )
    network = IntegerNetwork("ties", {"x": Spec(32, -4)}, (layer,), ("y",))
    inputs = [rng.integers(-4, 5, (16, 16, 32)).astype(np.int8)]
    expected = network.run(inputs)["y"]
    different = {
        kernels: int((executor(network, (16, 16), "strict", kernels)(network, inputs)["y"] != expected).sum())
        for kernels in ("xnnpack", "builtin", "reference")
    }
    assert max(different.values()) > 0, different


def test_a_size_that_does_not_divide_is_refused(make):
    with pytest.raises(ExportError, match="does not divide"):
        to_tflite(make.everything("cpu"), (5, 4), "cpu")
    run = executor(make.everything("cpu"), (4, 4), "cpu")
    with pytest.raises(ExportError, match="LiteRT refused"):
        run(make.everything("cpu"), make.random_inputs(make.everything("cpu"), 5, 4))


def test_a_missing_delegate_is_an_error(make):
    data = to_tflite(make.renderer("cpu"), (4, 4), "cpu")
    plain = Interpreter(
        model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    plain.allocate_tensors()
    with pytest.raises(ExportError, match="XNNPACK took 0 of"):
        require_delegate(plain, "synthesis")


def test_inputs_that_do_not_fit(make):
    network = make.renderer("cpu")
    run = executor(network, (4, 4), "cpu")
    (x,) = make.random_inputs(network, 4, 4)
    for bad in ([x, x], [x[..., :5]], [x.astype(np.int16)], [x[0]], []):
        with pytest.raises(ExportError, match="fit"):
            run(network, bad)
    with pytest.raises(ExportError, match="no exported network everything"):
        run(make.everything("cpu"), [x])
    with pytest.raises(ExportError, match="LiteRT refused"):
        LiteRTExecutor({"synthesis": b"TFL3, not"})(network, [x])


def test_threads_take_turns(make, monkeypatch):
    """An interpreter is resized, filled, run and read: no other thread may use it in between."""
    network = make.renderer("cpu")
    run = executor(network, (4, 4), "cpu")
    inside, most, real = 0, 0, LiteRTExecutor._run

    def slow(self, *arguments):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        result = real(self, *arguments)
        inside -= 1
        return result

    monkeypatch.setattr(LiteRTExecutor, "_run", slow)
    inputs = [make.random_inputs(network, size, size, size) for size in (2, 5, 3, 4)]
    with ThreadPoolExecutor(4) as pool:
        for x, y in zip(inputs, pool.map(lambda x: run(network, x), inputs), strict=True):
            assert_same(y, network.run(x))
    assert most == 1
