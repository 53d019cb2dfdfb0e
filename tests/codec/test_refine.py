"""The differentiable decoder computes what the codec computes, and has gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import pocketlic  # noqa: E402
from pocketlic.codec.codec import Codec  # noqa: E402
from pocketlic.codec.lagrangian import Lagrangian  # noqa: E402
from pocketlic.codec.refine import Decoder, FloatNetwork, refine, softly  # noqa: E402


def tensor(array):
    return torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]


def hard(x, noise):
    return torch.floor(x + 0.5)


def test_float_networks_equal_integer_ones(make, profile):
    for network in (make.everything(profile), make.renderer(profile, details=16)):
        inputs = make.random_inputs(network, 8, 12)
        outputs = FloatNetwork(network)(*map(tensor, inputs))
        for output, expected in zip(outputs, network.run(inputs).values(), strict=True):
            zero_point = next(s.zero_point for n, s in network.specs.items() if n in network.outputs)
            np.testing.assert_array_equal(output[0].permute(1, 2, 0).numpy() + zero_point, expected)


@pytest.mark.parametrize(("profile", "tune"), [("cpu", "psnr"), ("strict", "psnr"), ("cpu", "visual")])
@pytest.mark.parametrize("quality", [1000, 8500])
def test_the_loss_of_whole_symbols_is_the_lagrangian(quality, profile, tune, picture):
    codec = Codec(pocketlic.shipped_model(profile, tune))
    pixels = picture(70, 100)
    lagrangian = Lagrangian(codec, pixels, quality)
    latents = codec.transform(pixels, quality)
    symbols = codec.analyse(pixels, quality)
    z, indices = codec.coded(symbols, quality)[0]
    decoder = Decoder(lagrangian, latents)
    y, details = tensor(latents.y) / 256 / decoder.step, tensor(latents.details) / 256 / decoder.detail_step
    loss = decoder.loss((y, details), (y, details), hard)
    # A latent half-way between two symbols may round either way in float32.
    assert float(loss) + lagrangian.bits(z, indices).sum() == pytest.approx(lagrangian(symbols), rel=1e-3)


def test_gradients_foretell_what_a_small_change_does(picture):
    """The gradient of the error alone: at a quality where the rate hardly counts, averaged over many latents."""
    codec = Codec(pocketlic.shipped_model("cpu", "psnr"))
    lagrangian = Lagrangian(codec, picture(128, 128), 9000)
    latents = codec.transform(lagrangian.rgb, 9000)
    decoder = Decoder(lagrangian, latents)
    y = tensor(latents.y) / 256 / decoder.step
    details = (tensor(latents.details) / 256 / decoder.detail_step).requires_grad_()

    def loss(x):
        return decoder.loss((y, x), (y, x), lambda latent, noise: latent)

    (gradient,) = torch.autograd.grad(loss(details), details)
    step = gradient / gradient.square().mean().sqrt()
    with torch.no_grad():
        change = loss(details - 0.02 * step) - loss(details + 0.02 * step)
    assert float(change) == pytest.approx(-0.04 * float((gradient * step).sum()), rel=0.3)


def test_soft_rounding_hardens_and_keeps_to_the_latent():
    x = torch.linspace(-2.45, 2.45, 50)
    none = torch.zeros_like(x)
    errors = [
        float((softly(0.0, sharpness)(x, none) - torch.floor(x + 0.5)).abs().max()) for sharpness in (1, 4, 20, 80)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01
    soft = softly(0.5, 4.0)(x, torch.rand_like(x) - 0.5)
    assert float((soft - x).abs().max()) < 1
    assert not torch.equal(soft, softly(0.0, 4.0)(x, none))


def test_the_same_again_and_random_numbers_left_alone(picture):
    codec = Codec(pocketlic.shipped_model("cpu"))
    lagrangian = Lagrangian(codec, picture(64, 64), 5000)
    latents = codec.transform(lagrangian.rgb, 5000)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = (refine(lagrangian, latents, 3, None) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(first.y, second.y)
    np.testing.assert_array_equal(first.details, second.details)
    np.testing.assert_array_equal(first.z, latents.z)
    assert (first.y != latents.y).any()
