"""Fake quantization equals the integer network, sample by sample; preparing a codec does not change its results."""

import copy
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from pocketlic.codec.codec import Codec
from pocketlic.models.data import Photographs
from pocketlic.models.layers import Add, Pointwise
from pocketlic.models.network import LATENTS, FloatCodec, Widths
from pocketlic.models.train import TrainOptions
from pocketlic.quantization.convert import from_integer_model, to_integer_model
from pocketlic.quantization.equalize import equalize
from pocketlic.quantization.errors import ModelError
from pocketlic.quantization.fake import FakeQuantNetwork, rescaled, settle, trace, train_balanced, weight_exponents
from pocketlic.quantization.model import NETWORKS, load_model
from pocketlic.quantization.network import RULES
from pocketlic.quantization.prepare import prepare, rescale_latents, rescale_pixels
from pocketlic.quantization.qat import load_float, qat, save_float
from pocketlic.quantization.shipped import MODELS

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def photographs(photo_folder):
    return Photographs(photo_folder, 64, 2)


def random_codec(seed=0):
    """Random weights, also where initialization leaves zeros, and gains."""
    torch.manual_seed(seed)
    codec = FloatCodec()
    with torch.no_grad():
        for name, p in codec.named_parameters():
            if name.endswith("bias") or name.startswith("gains") or not p.any():
                p.add_(torch.randn_like(p) * 0.05)
    return codec


@pytest.fixture(scope="module")
def prepared(photographs):
    """rule -> a random codec, prepared."""
    return {rule: prepare(random_codec(), rule, photographs, batches=2) for rule in RULES}


def network_of(codec, name):
    module = getattr(codec, name)
    return module if isinstance(module, FakeQuantNetwork) else module.network


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_equals_the_integers(prepared, rule, name):
    fake = network_of(prepared[rule], name).eval()
    network = fake.to_integer()
    rng = np.random.default_rng(0)
    for reach, (height, width) in ((128, (16, 16)), (20, (16, 32)), (3, (32, 16))):
        integers = [
            rng.integers(-reach, reach, (height, width, s.channels)).astype(np.int8) for s in network.inputs.values()
        ]
        floats = [
            torch.from_numpy((x.astype(np.float32) - s.zero_point) * 2.0**s.exponent).permute(2, 0, 1)[None]
            for x, s in zip(integers, network.inputs.values(), strict=True)
        ]
        with torch.no_grad():
            results = fake(*floats)
        results = results if isinstance(results, tuple) else (results,)
        expected = network.run(integers)
        for key, result in zip(network.outputs, results, strict=True):
            spec = network.specs[key]
            ours = result[0].permute(1, 2, 0).numpy() / 2.0**spec.exponent + spec.zero_point
            np.testing.assert_array_equal(ours, expected[key])
            assert len(np.unique(expected[key])) > 3


def test_inputs_off_the_grid_are_rounded_and_clamped(prepared):
    fake = network_of(prepared["cpu"], "synthesis")
    exponent, name = fake.exponent("y_hat"), "y_hat"
    x = torch.tensor([-1000.0, -0.5, 0.49, 0.5, 1.5, 1000.0]) * 2.0**exponent
    assert (fake._fake(name, x, exponent) / 2.0**exponent).tolist() == [-128, 0, 0, 1, 2, 127]


def test_gradients_reach_weights_but_not_through_clamps(prepared):
    fake = copy.deepcopy(network_of(prepared["cpu"], "hyper_analysis"))
    near, far = (
        [torch.full((1, channels, 4, 4), value, requires_grad=True) for channels in (LATENTS, 4 * Widths.details)]
        for value in (0.25, 1e6)
    )
    fake(*near).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fake.parameters())
    assert all(x.grad.abs().sum() > 0 for x in near)
    fake(*far).square().sum().backward()
    assert all(x.grad.abs().sum() == 0 for x in far)


@torch.no_grad()
def test_parameters_stay_in_the_float_codecs_space(prepared):
    """Channels are rescaled up to a thousandfold; the parameters that the optimizer moves are not."""
    plain = random_codec()
    for name, module in (("hyper_analysis.enter", None), ("latent", "latent.projection"), ("synthesis.canvas", None)):
        network, _, layer = name.partition(".")
        found = (
            prepared["cpu"].get_submodule(module)
            if module
            else getattr(network_of(prepared["cpu"], network).network, layer)
        )
        original = plain.get_submodule(name)
        assert torch.equal(found.weight[:, : original.weight.shape[1]], original.weight)
        assert torch.equal(found.bias, original.bias)
        weight, _ = rescaled(found)
        assert not torch.equal(weight[:, : original.weight.shape[1]], original.weight)


def test_weights_obey_the_rule_and_err_little(prepared, rule):
    multiple, remainder, least, most = RULES[rule]
    for name in NETWORKS:
        for layer in network_of(prepared[rule], name).to_integer().layers:
            if layer.weight is None:
                continue
            assert not (layer.weight % multiple).any()
            assert (layer.bias % (2 * remainder) == remainder).all()
            assert least <= layer.shift.min() <= layer.shift.max() <= most
            assert np.abs(layer.weight.astype(int)).max() >= 64  # all of the range is used


def test_weight_exponents_err_least():
    torch.manual_seed(0)
    weight = torch.randn(30, 50) * torch.exp2(torch.arange(-15.0, 15.0))[:, None]
    for multiple in (1, 2, 4):
        chosen = weight_exponents(weight, multiple)
        bound = 127 // multiple

        def error(exponent, multiple=multiple, bound=bound):
            unit = multiple * torch.exp2(exponent)[:, None]
            return ((weight / unit).round().clamp(-bound, bound) * unit - weight).square().sum(1)

        for other in (-2, -1, 1, 2):
            assert (error(chosen) <= error(chosen + other) * 1.000001).all()


def test_tracing_refuses_what_has_no_twin():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Pointwise(2, 2)

        def forward(self, x):
            return self.inner(x) * 2

    with pytest.raises(TypeError, match=r"models\.layers only"):
        trace(Scaled())


def test_tensors_that_meet_in_a_sum_share_a_scale():
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.add = Pointwise(2, 3), Pointwise(2, 3), Add(relu=True)

        def forward(self, x):
            return self.add(self.left(x), self.right(x))

    torch.manual_seed(0)
    fake = FakeQuantNetwork("sum", Sum(), "cpu", {"x": -5})
    fake.calibrate([(torch.rand(1, 2, 4, 4),)])
    assert fake.exponent("left") == fake.exponent("right") == fake.exponent("add") != fake.exponent("x")
    assert fake.zero_points == {"x": 0, "left": 0, "right": 0, "add": -128}
    restored = FakeQuantNetwork("sum", Sum(), "cpu", {"x": -5})
    restored.calibrate([(torch.rand(1, 2, 4, 4) * 50,)])
    restored.load_state_dict(fake.state_dict())
    assert restored.exponents == fake.exponents
    np.testing.assert_array_equal(restored.to_integer().layers[0].weight, fake.to_integer().layers[0].weight)


@torch.no_grad()
def test_rescaling_keeps_the_function():
    codec = random_codec().eval()
    other = copy.deepcopy(codec)
    octaves = torch.randint(-3, 4, (LATENTS + Widths.details,)).float()
    rescale_latents(other, octaves[:LATENTS], octaves[LATENTS:])
    image, quality = torch.rand(2, 3, 64, 128), torch.tensor([20.0, 90.0])
    for a, b in zip(codec(image, quality), other(image, quality), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert not torch.equal(codec.latent.weight, other.latent.weight)

    shifted = copy.deepcopy(codec)
    rescale_pixels(shifted)
    for a, b in zip(shifted.analysis((image * 255 - 128) / 256), codec.analysis(image - 0.5), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    latents = torch.randn(1, LATENTS, 4, 4), torch.randn(1, 4 * Widths.details, 4, 4)
    pixels = shifted.synthesis(*latents) * 256 + 128
    torch.testing.assert_close(pixels, (codec.synthesis(*latents) + 0.5) * 255, atol=0.02, rtol=1e-4)


@torch.no_grad()
def test_preparing_changes_no_more_than_rounding_does(prepared, photographs):
    """With free weights, which are rounded least, the networks' outputs stay close to the float ones."""
    plain = random_codec().eval()
    free = prepare(random_codec(), "free", photographs, batches=2).eval()
    image, quality = photographs(5).float() / 255, torch.tensor([70.0, 100.0])
    ours, theirs = free(image, quality), plain(image, quality)
    assert ours.reconstruction.shape == image.shape
    errors = {
        rule: (codec.eval()(image, quality).reconstruction - theirs.reconstruction).square().mean()
        for rule, codec in {**prepared, "free": free}.items()
    }
    assert errors["free"] < 0.02 * theirs.reconstruction.var()
    assert errors["free"] < errors["strict"]
    torch.testing.assert_close(ours.latent_bits, theirs.latent_bits, rtol=0.05, atol=20)
    with pytest.raises(ValueError, match="no integer twin"):
        free.hyper_analysis.to_integer()


def test_integer_model_of_a_random_codec_codes_pictures(prepared, rule, picture):
    model = to_integer_model(prepared[rule], {"note": "random"})
    assert model.rule == rule
    assert model.notes == {"note": "random"}
    assert 0 < model.skip < 10
    codec = Codec(model)
    pixels = picture(40, 70)
    data = codec.encode(pixels, 60)
    decoded = codec.decode(data)
    assert (decoded.shape, decoded.dtype) == (pixels.shape, np.uint8)


@torch.no_grad()
def test_integer_codec_computes_what_the_fake_quantized_one_does(prepared, picture):
    """Same picture, same quality: the reconstructions differ only through a few latents at ties."""
    codec = prepared["cpu"].eval()
    integers = Codec(to_integer_model(codec, {}))
    pixels = picture(128, 128)
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    for quality in (30.0, 80.0):
        coded = codec(image, torch.tensor([quality]))
        expected = (coded.reconstruction[0].permute(1, 2, 0) * 255).clamp(0, 255)
        data = integers.encode(pixels, quality)
        difference = np.abs(integers.decode(data) - expected.numpy())
        assert np.median(difference) <= 1
        assert difference.mean() < 1.5
        bits = float(coded.latent_bits + coded.hyper_bits)
        assert 8 * len(data) == pytest.approx(bits + 8 * 80, rel=0.05)  # 80 bytes of container and states


PARTS = ("weight", "bias", "shift")


def assert_trains_to_the_same(model):
    """A model made trainable and converted back is unchanged, apart from its entropy tables."""
    again = to_integer_model(from_integer_model(model), model.notes)
    assert (again.rule, again.skip) == (model.rule, model.skip)
    for name in set(model.arrays) - {"hyper_prediction", "table_radius", "table_freq"}:
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name), name)
    for name, network in model.networks.items():
        ours = again.networks[name]
        assert (ours.inputs, ours.outputs, len(ours.layers)) == (network.inputs, network.outputs, len(network.layers))
        for a, b in zip(ours.layers, network.layers, strict=True):
            assert all(getattr(a, f.name) == getattr(b, f.name) for f in fields(a) if f.name not in PARTS)
            for part in PARTS:
                np.testing.assert_array_equal(getattr(a, part), getattr(b, part))


@pytest.mark.parametrize("weights", MODELS, ids=lambda weights: weights.name)
def test_shipped_models_can_be_trained_on(weights):
    assert_trains_to_the_same(weights.load())


def test_other_widths_train_and_convert(photographs):
    torch.manual_seed(5)
    codec = FloatCodec(
        Widths(details=20, fine=24, fine_hidden=30, coarse=28, coarse_hidden=16, body=18, body_hidden=10)
    )
    model = to_integer_model(prepare(codec, "cpu", photographs, batches=2), {})
    assert model.detail_weight.shape == (20, 24)
    assert_trains_to_the_same(model)


def test_balanced_weights_compute_the_same_with_rows_and_columns_of_a_size():
    torch.manual_seed(6)
    module = Pointwise(40, 30)
    with torch.no_grad():
        module.weight.mul_(torch.exp2(4 * torch.randn(30, 1))).mul_(torch.exp2(4 * torch.randn(40)))
        module.weight[3] = 0
        module.bias.normal_()
    weight, bias = module.weight.clone(), module.bias.clone()
    train_balanced(module)
    torch.testing.assert_close(rescaled(module), (weight, bias))
    rows, columns = (module.weight.square().mean(axis).sqrt() * (3 * 40) ** 0.5 for axis in (1, 0))
    assert rows[3] == 0
    torch.testing.assert_close(rows[rows > 0], torch.ones(29), atol=0.05, rtol=0)
    torch.testing.assert_close(columns, torch.ones(40), atol=0.05, rtol=0)


def test_a_foreign_model_cannot_be_trained_on(make):
    with pytest.raises(ModelError, match="trained here"):
        from_integer_model(make.small_model("cpu"))


def test_float_weights_round_trip_and_foreign_files(tmp_path):
    codec = random_codec()
    save_float(codec, tmp_path / "w.safetensors", {"steps": "0"})
    again = load_float(tmp_path / "w.safetensors")
    for name, value in codec.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    torch.save({"average": codec.state_dict()}, tmp_path / "last.pt")
    assert torch.equal(load_float(tmp_path / "last.pt").latent.weight, codec.latent.weight)
    torch.save({"other": 1}, tmp_path / "other.pt")
    for name, content in (("x.pt", b""), ("y.pt", b"no"), ("z.safetensors", b"no"), ("other.pt", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="does not hold the weights"):
            load_float(tmp_path / name)
    with pytest.raises(OSError, match="none"):
        load_float(tmp_path / "none.pt")


def test_qat_trains_resumes_and_writes_the_integers(photo_folder, tmp_path):
    save_float(random_codec(), tmp_path / "float.safetensors", {})
    options = TrainOptions(
        photo_folder, tmp_path / "qat", steps=3, batch=2, crop=64, muon_lr=0.002, adam_lr=2e-4, warmup=2,
        threads=1, bf16=False, seed=1,
    )  # fmt: skip
    last = qat(options, tmp_path / "float.safetensors", "strict")
    model = load_model(options.out / "model.safetensors")
    assert (model.rule, model.notes["qat_steps"]) == ("strict", "3")
    before = torch.load(last, weights_only=True)["codec"]
    qat(options, tmp_path / "float.safetensors", "strict")  # nothing left to do: the same
    assert load_model(options.out / "model.safetensors").model_id == model.model_id
    after = torch.load(last, weights_only=True)["codec"]
    assert all(torch.equal(before[k], after[k]) for k in before if isinstance(before[k], torch.Tensor))
    assert sorted(p.name for p in options.out.iterdir() if p.is_file()) == [
        "last.pt", "log.csv", "model.safetensors", "stable.pt",
    ]  # fmt: skip
    # And from these integers.
    options = replace(options, out=tmp_path / "on")
    qat(options, tmp_path / "qat" / "model.safetensors", "strict")
    on = load_model(options.out / "model.safetensors")
    assert (on.rule, on.notes["from"]) == ("strict", "model.safetensors")
    assert on.model_id != model.model_id
    with pytest.raises(ModelError, match="rule strict, not cpu"):
        qat(replace(options, out=tmp_path / "cpu"), tmp_path / "qat" / "model.safetensors", "cpu")


@torch.no_grad()
def test_equalizing_keeps_the_function_and_evens_the_ranges(photographs):
    codec = random_codec().eval()
    codec.analysis.enter.weight.mul_(torch.exp2(torch.linspace(-4, 4, len(codec.analysis.enter.bias)))[:, None])
    codec.analysis.enter.bias.mul_(0.0)
    plain = copy.deepcopy(codec)
    x = photographs(0).float() / 255 - 0.5
    fake = FakeQuantNetwork("analysis", codec.analysis, "cpu", {"x": -8})
    equalize(fake, [(x,)], dict(zip(fake.outputs, ([codec.latent], [codec.detail]), strict=True)))

    def ranges(network):
        high = network.enter(network.split(x)).abs().amax((0, 2, 3))
        return float(high.max() / high.min())

    assert ranges(codec.analysis) < 0.2 * ranges(plain.analysis)
    for ours, theirs, a, b in zip(
        codec.analysis(x), plain.analysis(x), (codec.latent, codec.detail), (plain.latent, plain.detail), strict=True
    ):  # fmt: skip
        torch.testing.assert_close(a(ours), b(theirs), atol=2e-3, rtol=1e-3)
    # An output that is not named stays as it is.
    codec = copy.deepcopy(plain)
    equalize(FakeQuantNetwork("analysis", codec.analysis, "cpu", {"x": -8}), [(x,)], {})
    for ours, theirs in zip(codec.analysis(x), plain.analysis(x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


def test_settling_changes_nothing_but_what_is_out_of_reach(prepared, rule):
    """Weights beyond their bounds are moved to the bounds, which the codec already computed with."""
    codec = copy.deepcopy(prepared[rule])
    network = network_of(codec, "synthesis")
    node = next(n for n in network.nodes if n.name == "out")
    settle(codec, adapt=False)
    with torch.no_grad():
        node.module.weight[3] *= 3  # some of them beyond
        codec.latent.projection.weight[5] *= 5
    before = [network._quantized(node)[0].clone(), codec.latent.integers()[0].clone()]
    free = node.module.weight.clone()
    settle(codec, adapt=False)
    after = [network._quantized(node)[0], codec.latent.integers()[0]]
    for x, y in zip(before, after, strict=True):
        assert torch.equal(x, y)
    moved = node.module.weight != free
    assert moved[3].any()
    assert not moved[[0, 1, 2, *range(4, len(moved))]].any()
    to_integer_model(codec, {})


def test_scales_follow_the_weights(prepared, rule):
    codec = copy.deepcopy(prepared[rule])
    network = network_of(codec, "analysis")
    node = next(n for n in network.nodes if n.name == "mix")
    exponent = node.module.weight_exponent.clone()
    unit = torch.exp2(exponent)[:, None]
    rows = torch.full_like(rescaled(node.module)[0], 20.0)
    rows[:, 0] = 100
    rows[1, 0] = 50  # under half of the range
    rows[2, :10] = 200  # 3 % at the bound
    rows[3, :3] = 200  # 1 %
    with torch.no_grad():
        node.module.weight.copy_(rows * unit / node.module.weight_gain)
    settle(codec, adapt=True)
    least, most = network._exponents(node)
    change = torch.zeros_like(exponent)
    change[1], change[2] = -1, 1
    assert torch.equal(node.module.weight_exponent, (exponent + change).clamp(least, most))
    to_integer_model(codec, {})


def test_a_weight_at_its_bound_gets_a_gradient(prepared):
    codec = copy.deepcopy(prepared["cpu"])
    network = network_of(codec, "analysis")
    node = next(n for n in network.nodes if n.name == "mix")
    with torch.no_grad():
        node.module.weight[0] *= 100
    settle(codec, adapt=False)
    network._quantized(node)[0][0].sum().backward()
    assert node.module.weight.grad[0].all()
