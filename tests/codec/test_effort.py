"""Efforts change the encoder alone: valid files, the same on every runtime, that never cost more than plain ones."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pocketlic
from pocketlic.codec._native import SymbolCoder
from pocketlic.codec.codec import Codec, nearest
from pocketlic.codec.effort import encode, error_energies, rate_aware, search
from pocketlic.codec.errors import PlicError
from pocketlic.codec.fast import FastCodec
from pocketlic.codec.lagrangian import REACH, SQUARED_ERROR_WEIGHT, Lagrangian, rate_weight, table_bits
from pocketlic.export.litert import LiteRTExecutor

SAMPLE = Path(__file__).parents[2] / "samples" / "spices.jpg"


@cache
def codec_of(profile, tune="psnr", quality=60):
    model = pocketlic.shipped_model(profile, tune, quality)
    return FastCodec(model, LiteRTExecutor.from_model(model))


@pytest.fixture(scope="module")
def photograph():
    if not SAMPLE.exists():
        pytest.skip("the sample photographs are not here")
    with Image.open(SAMPLE) as image:
        return np.array(image.convert("RGB"))[300:428, 300:492]


def test_bits_are_the_stream_s(make):
    """For symbols drawn from the tables, entropy and real bytes agree up to the coder's state."""
    model = make.small_model("cpu")
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 64, 20000).astype(np.uint8)
    symbols = rng.integers(-40, 41, 20000).astype(np.int32)
    symbols[::100] = rng.integers(-3000, 3000, 200)  # escapes
    symbols[indices < model.skip] = 0
    data = SymbolCoder(model.table_radius, model.table_freq, model.skip).encode(symbols, indices)
    assert 8 * len(data) == pytest.approx(table_bits(model, symbols, indices).sum(), rel=0.001)


def test_the_lagrangian_is_rate_and_distortion(photograph):
    codec = codec_of("cpu")
    for quality in (500, 5000, 9500):
        symbols = codec.analyse(photograph, quality)
        lagrangian = Lagrangian(codec, photograph, quality)
        data = codec.encode(photograph, quality / 100)
        squared = np.square(codec.decode(data).astype(float) - photograph)
        distortion = SQUARED_ERROR_WEIGHT * rate_weight(quality) * squared.mean() * squared.size / 3
        assert 0 <= 8 * len(data) - (lagrangian(symbols) - distortion) <= 8 * 40


def test_bits_hold_for_the_greatest_symbols(make):
    lagrangian = Lagrangian(Codec(make.small_model("cpu")), np.zeros((64, 64, 3), np.uint8), 100)
    values = np.array([-REACH, -41, -40, 0, 40, 41, REACH])
    indices = np.full(len(values), 9, np.uint8)
    np.testing.assert_allclose(
        lagrangian.bits(values, indices), table_bits(lagrangian.codec.model, values, indices), rtol=1e-6
    )


@pytest.mark.parametrize("profile", ["cpu", "strict"])
def test_rate_aware_rounding_goes_toward_zero_and_pays(profile, photograph):
    for quality in (1000, 4000):
        codec = codec_of(profile, quality=quality / 100)
        lagrangian = Lagrangian(codec, photograph, quality)
        latents = codec.transform(photograph, quality)
        plain = codec.quantize(latents, quality, nearest)
        lazy = codec.quantize(latents, quality, rate_aware(lagrangian, 8.0))
        assert np.abs(lazy.details).sum() < np.abs(plain.details).sum()
        if codec.model.post_filter is None:  # with one, the nearest symbols are as cheap
            assert lagrangian(lazy) < lagrangian(plain)
        assert lagrangian(lazy) < 1.01 * lagrangian(plain)
        # With such a weight on errors, only ties can change, and through the context what depends on them.
        strict = codec.quantize(latents, quality, rate_aware(lagrangian, 1e12))
        assert np.mean(strict.y != plain.y) < 0.001
        assert np.mean(strict.details != plain.details) < 0.001


@pytest.mark.parametrize(("quality", "low", "high"), [(3000, 0.5, 2), (6000, 0.6, 1.6)])
def test_energies_are_those_of_errors_in_a_picture(photograph, quality, low, high):
    """An error in every fourth cell of a channel of d changes a photograph by about the predicted energy.

    It changes less at low qualities, where large steps on top of a picture's values saturate.
    """
    codec = codec_of("cpu")
    symbols = codec.analyse(photograph, quality)
    step = codec.detail_step(quality)
    header = Lagrangian(codec, photograph, quality).header
    before = codec.synthesise(symbols, header).astype(int)
    energies = error_energies(codec)[codec.latents :]
    ratios = []
    for channel in np.argsort(energies)[4::20]:
        details = symbols.details.copy()
        details[1::4, 1::4, channel] += 1
        moved = codec.synthesise(replace(symbols, details=details), header).astype(int)
        energy = np.square(moved - before).sum() / details[1::4, 1::4, channel].size
        ratios.append(energy / (energies[channel] * float(step[channel]) ** 2))
    assert low < np.exp(np.mean(np.log(ratios))) < high
    assert energies.max() > 10 * energies.min()  # so that the ratios are a real test
    assert max(ratios) < 3 * min(ratios)


@pytest.mark.parametrize("effort", [1, 2, 3])
def test_a_file_is_the_same_on_all_runtimes_and_any_decoder_reads_it(effort, profile, picture):
    pytest.importorskip("torch")
    pixels = picture(70, 65)
    kind = {"profile": profile, "tune": "psnr"}
    files = {
        runtime: pocketlic.encode(pixels, 50, runtime=runtime, effort=effort, **kind)
        for runtime in ("litert", "native", "reference")
    }
    assert len(set(files.values())) == 1
    assert files["litert"] != pocketlic.encode(pixels, 50, **kind)
    decoded = [pocketlic.decode(files["litert"], runtime=runtime) for runtime in ("litert", "native", "reference")]
    np.testing.assert_array_equal(decoded[0], decoded[1])
    np.testing.assert_array_equal(decoded[0], decoded[2])


@pytest.mark.parametrize("quality", [0, 3000, 10000])
def test_no_level_costs_more_than_plain_rounding(quality, profile, photograph, picture):
    pytest.importorskip("torch")
    codec = codec_of(profile)
    for pixels in (photograph, picture(33, 70), np.full((5, 5, 3), 200, np.uint8)):
        lagrangian = Lagrangian(codec, pixels, quality)
        plain = lagrangian(codec.analyse(pixels, quality))
        for effort in (1, 2, 3, 4):
            assert lagrangian(search(codec, pixels, quality, effort)) <= plain


def test_higher_levels_gain_more(photograph):
    pytest.importorskip("torch")
    codec = codec_of("cpu")
    costs = []
    for effort in (1, 4, 6, 8):
        lagrangians = [Lagrangian(codec, photograph, quality) for quality in (2500, 8000)]
        costs.append(sum(la(search(codec, photograph, la.quality_hundredths, effort)) for la in lagrangians))
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.96 * sum(la(codec.analyse(photograph, la.quality_hundredths)) for la in lagrangians)


@pytest.mark.parametrize("tune", ["psnr", "visual"])
def test_few_iterations_pay_already(photograph, tune):
    """The gain of few iterations. With the noise of many iterations, five gained less than this for squared error.

    Rounding by rate and error alone gains far less.
    """
    pytest.importorskip("torch")
    for quality in (2500, 8000):
        codec = codec_of("cpu", tune, quality / 100)
        lagrangian = Lagrangian(codec, photograph, quality)
        plain = lagrangian(codec.analyse(photograph, quality))
        assert lagrangian(search(codec, photograph, quality, 3)) < 0.97 * plain
        assert lagrangian(search(codec, photograph, quality, 1)) < 0.99 * plain


def test_a_codec_of_random_weights_works_too(make, profile, picture):
    pytest.importorskip("torch")
    model = make.small_model(profile)
    codec, fast = Codec(model), FastCodec(model, LiteRTExecutor.from_model(model))
    pixels = picture(65, 130)
    for effort, quality in ((1, 0), (2, 100), (3, 37)):
        data = encode(codec, pixels, quality, effort=effort)
        assert encode(fast, pixels, quality, effort=effort) == data
        np.testing.assert_array_equal(codec.decode(data), fast.decode(data))


def test_progress_is_told(picture):
    pytest.importorskip("torch")
    told = []
    pocketlic.encode(picture(64, 64), 40, effort=4, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1


def test_weights_for_the_eye_are_refined_for_the_eye(photograph):
    """A lower Lagrangian: no more bytes at a slightly higher quality, and better values of the metrics in the loss."""
    pytest.importorskip("torch", reason="torch is not installed")
    from pocketlic.codec.visual import visual_error

    codec = codec_of("cpu", "visual")
    lagrangian = Lagrangian(codec, photograph, 5000)
    little, more = (lagrangian(search(codec, photograph, 5000, effort)) for effort in (1, 4))
    plain = lagrangian(codec.analyse(photograph, 5000))
    assert more < 0.98 * plain
    assert more < little < plain
    plain, refined = codec.encode(photograph, 50), encode(codec, photograph, 51, effort=5)
    assert len(refined) <= len(plain)
    error = [
        visual_error(lagrangian.rgb, codec.decode(data), lagrangian.quality_hundredths) for data in (plain, refined)
    ]
    assert 8 * len(refined) + error[1] < 0.97 * (8 * len(plain) + error[0])


@pytest.mark.parametrize("effort", [-1, 10, 2.5])
def test_efforts_out_of_range_are_refused(effort, picture):
    with pytest.raises(PlicError, match="effort"):
        encode(codec_of("cpu"), picture(8, 8), 50, effort=effort)


def test_the_weight_of_the_rate_is_that_of_training():
    network = pytest.importorskip("pocketlic.models.network", exc_type=ImportError)
    torch = pytest.importorskip("torch")
    for quality in (0, 1234, 5000, 10000):
        assert rate_weight(quality) == pytest.approx(float(network.rate_weight(torch.tensor(quality / 100))), rel=1e-5)
