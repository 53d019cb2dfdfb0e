"""Pictures through the whole codec with the shipped weights. No figure depends on which weights these are."""

import math
import tracemalloc
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pocketlic
from pocketlic.codec import format as plic
from pocketlic.codec._native import SymbolCoder
from pocketlic.codec.codec import Codec, interpolate, reference
from pocketlic.codec.complexity import count
from pocketlic.codec.errors import FormatError, PlicError
from pocketlic.codec.fast import FastCodec
from pocketlic.export.litert import LiteRTExecutor

SAMPLES = Path(__file__).parents[2] / "samples"
SIZES = [(1, 1), (1, 200), (65, 64), (33, 70), (64, 128)]  # height, width


@cache
def codec_of(profile, runtime):
    model = pocketlic.shipped_model(profile)
    return Codec(model) if runtime == "reference" else FastCodec(model, LiteRTExecutor.from_model(model))


@pytest.fixture(params=["litert", "reference"])
def runtime(request):
    return request.param


def psnr(a, b):
    return 10 * math.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def refuse(network, inputs):
    raise AssertionError(f"{network.name} ran")


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_litert_and_reference_give_the_same_bytes_and_pixels(profile, size, grey, picture):
    pixels = picture(*size, grey=grey)
    for quality in (8, 92.5):
        data = codec_of(profile, "litert").encode(pixels, quality)
        assert data == codec_of(profile, "reference").encode(pixels, quality)
        decoded = codec_of(profile, "litert").decode(data)
        assert (decoded.shape, decoded.dtype) == (pixels.shape, np.uint8)
        assert decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, codec_of(profile, "reference").decode(data))


def test_several_bands(picture):
    """Above 1024 pixels of height there are several bands; their borders do not show."""
    pixels = picture(1088, 64)
    codec = codec_of("cpu", "litert")
    data = codec.encode(pixels, 50)
    assert len(plic.read(data).bands) == 2
    decoded = codec.decode(data)
    assert decoded.shape == pixels.shape
    shallow = codec.decode(codec.encode(pixels[:512], 50))
    np.testing.assert_array_equal(decoded[:256], shallow[:256])


def test_quality_buys_fidelity_with_bytes(profile, picture):
    pixels = picture(128, 192)
    codec = codec_of(profile, "litert")
    files = [codec.encode(pixels, quality) for quality in (0, 25, 50, 75, 100)]
    assert [len(f) for f in files] == sorted(len(f) for f in files)
    fidelity = [psnr(codec.decode(f), pixels) for f in files]
    assert fidelity == sorted(fidelity)
    assert fidelity[-1] > 25


def test_quality_counts_in_hundredths(picture):
    codec, pixels = codec_of("cpu", "litert"), picture(64, 64)
    assert codec.encode(pixels, 50.004) == codec.encode(pixels, 50)
    assert codec.encode(pixels, 50.01) != codec.encode(pixels, 50)
    assert plic.read_header(codec.encode(pixels, 33.33)).quality_hundredths == 3333


def test_the_same_picture_gives_the_same_file_and_the_same_pixels_again(runtime, picture):
    pixels = picture(65, 64)
    data = codec_of("cpu", runtime).encode(pixels, 40)
    first = codec_of("cpu", runtime).decode(data)
    codec_of("cpu", runtime).decode(codec_of("cpu", runtime).encode(picture(40, 30), 99))  # other work in between
    assert codec_of("cpu", runtime).encode(pixels, 40) == data
    np.testing.assert_array_equal(codec_of("cpu", runtime).decode(data), first)
    model = pocketlic.shipped_model("cpu")
    fresh = Codec(model) if runtime == "reference" else FastCodec(model, LiteRTExecutor.from_model(model))
    np.testing.assert_array_equal(fresh.decode(data), first)


def test_grey_is_rgb_with_equal_components(picture):
    """A grey file holds the symbols of the RGB picture, and decodes to (R + 2 G + B) / 4 of its pixels."""
    grey = picture(50, 60, grey=True)
    codec = codec_of("cpu", "litert")
    a, b = codec.encode(grey, 60), codec.encode(np.repeat(grey[..., None], 3, 2), 60)
    assert replace(plic.read(a), header=plic.read_header(b)) == plic.read(b)
    red, green, blue = np.moveaxis(codec.decode(b).astype(int), 2, 0)
    np.testing.assert_array_equal(codec.decode(a), (red + 2 * green + blue + 2) // 4)


def test_pictures_in_any_memory_order(picture):
    codec, pixels = codec_of("cpu", "litert"), picture(70, 90)
    data = codec.encode(pixels, 30)
    assert codec.encode(np.asfortranarray(pixels), 30) == data
    assert codec.encode(np.repeat(pixels, 2, 1)[:, ::2], 30) == data
    mirrored = codec.encode(pixels[:, ::-1], 30)
    assert mirrored == codec.encode(pixels[:, ::-1].copy(), 30)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.broadcast_to(np.uint8(0), (1, 65536)),
    ],
)
def test_other_arrays_are_refused(pixels):
    with pytest.raises(PlicError) as caught:
        codec_of("cpu", "litert").encode(pixels, 50)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("quality", [-0.01, 100.01, math.inf, -math.inf, math.nan])
def test_qualities_out_of_range_are_refused(quality, picture):
    with pytest.raises(PlicError, match="quality"):
        codec_of("cpu", "litert").encode(picture(8, 8), quality)


def test_symbols_decode_without_any_network(profile, picture):
    model = pocketlic.shipped_model(profile)
    runs = []

    def watch(network, inputs):
        runs.append(network.name)
        return reference(network, inputs)

    data = Codec(model, watch).encode(picture(65, 64), 70)
    assert runs
    blind = Codec(model, refuse)
    symbols = blind.read_symbols(plic.read(data))
    same = codec_of(profile, "litert").read_symbols(plic.read(data))
    for part in ("z", "y", "details"):
        np.testing.assert_array_equal(getattr(symbols, part), getattr(same, part))
        assert getattr(symbols, part).any()
    with pytest.raises(AssertionError, match="ran"):
        blind.decode(data)


class Estimator:
    """Encodes with the codec's coder, and sums the ideal cost of every symbol by the tables."""

    def __init__(self, model):
        self.model, self.coder = model, SymbolCoder(model.table_radius, model.table_freq, model.skip)
        self.bits = 0.0
        entries = 2 * model.table_radius.astype(int) + 2
        self.starts = np.cumsum(entries) - entries

    def encode(self, symbols, indices):
        model = self.model
        assert not symbols[indices < model.skip].any()
        coded = indices >= model.skip
        v, table = symbols[coded].astype(int), indices[coded]
        radius = model.table_radius[table].astype(int)
        escaped = np.abs(v) > radius
        frequency = model.table_freq[self.starts[table] + np.where(escaped, 2 * radius + 1, v + radius)]
        self.bits += (16 - np.log2(frequency.astype(float))).sum()
        # An escape: four bits for a length, then that many bits.
        for over, negative in zip(np.abs(v[escaped]) - radius[escaped], v[escaped] < 0, strict=True):
            self.bits += 4 + int(2 * (over - 1) + negative + 1).bit_length() - 1
        return self.coder.encode(symbols, indices)


def bits_and_estimate(profile, pixels, quality):
    model = pocketlic.shipped_model(profile)
    estimator = Estimator(model)
    codec = Codec(model, codec_of(profile, "litert").run, lambda *_: estimator)
    return 8 * len(codec.encode(pixels, quality)), estimator.bits


@pytest.mark.parametrize("quality", [0, 10, 40, 70, 95, 100])
def test_files_are_as_long_as_their_symbols_estimate(profile, quality, picture):
    """27 bytes of container, and a stream of one state.

    Of the state's 64 bits, log2(x) - 32 carry information: 4 to 8 bytes do not, and one byte is the number of states.
    """
    for pixels in (picture(128, 128), picture(64, 192, 3), np.zeros((64, 64), np.uint8)):
        bits, estimate = bits_and_estimate(profile, pixels, quality)
        assert estimate <= bits <= 1.0001 * estimate + 8 * (27 + 9)


@pytest.mark.parametrize("quality", [10, 40, 70, 95])
def test_photographs_take_at_most_64_bytes_more_than_estimated(quality):
    sample = SAMPLES / "spices.jpg"
    if not sample.exists():
        pytest.skip("the sample photographs are not here")
    with Image.open(sample) as photograph:
        pixels = np.array(photograph.convert("RGB"))[:512, :768]
    bits, estimate = bits_and_estimate("cpu", pixels, quality)
    assert estimate <= bits <= 1.0001 * estimate + 8 * 60


def test_damage_behind_right_checksums_is_found(picture):
    codec = codec_of("cpu", "litert")
    file = plic.read(codec.encode(picture(64, 128), 60))
    rng = np.random.default_rng(0)
    (payload,) = file.bands
    for _ in range(75):
        damaged = bytearray(payload)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        for bad in (bytes(damaged), payload[: rng.integers(len(payload))], payload + bytes(4), b""):
            with pytest.raises(FormatError, match="damaged payload") as caught:
                codec.decode(plic.write(replace(file, bands=(bad,))))
            assert "\n" not in str(caught.value)


def test_z_beyond_int8_is_refused(picture):
    codec = codec_of("cpu", "litert")
    file = plic.read(codec.encode(picture(64, 64), 60))
    s = codec.read_symbols(file)
    fixed = interpolate(codec.model.hyper_row_knots, 6000)
    z_indices = np.clip((fixed + (1 << 15)) >> 16, codec.model.skip, 63).astype(np.uint8)
    predicted = codec.predicted_indices(s.z, 6000)
    latents, details = codec.latent_indices(predicted), codec.detail_indices(predicted, s.y)
    indices = np.concatenate([z_indices, latents.ravel(), details.ravel()])
    symbols = np.concatenate([codec.differences(s.z).ravel(), s.y.ravel(), s.details.ravel()])
    assert codec.coder.encode(symbols, indices) == file.bands[0]
    for value in (128, -129, 3000):
        symbols[0] = value
        with pytest.raises(FormatError, match="z outside int8"):
            codec.decode(plic.write(replace(file, bands=(codec.coder.encode(symbols, indices),))))


def test_files_of_other_sizes_qualities_and_models(picture):
    codec = codec_of("cpu", "litert")
    file = plic.read(codec.encode(picture(64, 64), 60))

    def with_header(**changes):
        return plic.write(replace(file, header=replace(file.header, **changes)))

    with pytest.raises(FormatError, match="made by model 0102030405060708, this decoder has"):
        codec.decode(with_header(model_id=bytes(range(1, 9))))
    with pytest.raises(FormatError, match="made by model"):
        codec_of("strict", "litert").decode(codec.encode(picture(8, 8), 60))
    with pytest.raises(FormatError, match="damaged payload"):
        codec.decode(with_header(width=65))
    assert codec.decode(with_header(width=63)).shape == (64, 63, 3)  # fewer pixels in the same number of cells


def test_absurd_sizes_cost_neither_time_nor_memory(picture):
    codec = codec_of("cpu", "litert")
    file = plic.read(codec.encode(picture(64, 64), 60))
    tracemalloc.start()
    for side, message in ((65535, "more than the limit"), (8000, "damaged payload")):
        header = replace(file.header, width=side, height=side)
        data = plic.write(replace(file, header=header, bands=file.bands * plic.band_count(side)))
        with pytest.raises(FormatError, match=message):
            codec.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    with pytest.raises(FormatError, match="4096 pixels, more than the limit of 4095"):
        codec.decode(plic.write(file), max_pixels=4095)


def test_complexity_is_counted_in_whole_encodes_and_decodes(profile):
    model = pocketlic.shipped_model(profile)
    result = count(model, 128)
    assert 0 < result.decode_kmac_per_pixel <= 2.0
    assert 0 < result.encode_kmac_per_pixel <= 2.0
    assert result.decode_ratio_to_vmuc == pytest.approx(69 / result.decode_kmac_per_pixel)
    parts = result.components
    assert set(model.networks) <= set(parts)
    for side, total in (("encodes", result.encode_kmac_per_pixel), ("decodes", result.decode_kmac_per_pixel)):
        assert sum(p["kmac_per_pixel"] for p in parts.values() if p[side]) == pytest.approx(total)
    assert not parts["synthesis"]["encodes"]
    assert not parts["analysis"]["decodes"]
    weights = sum(la.weight.size + la.bias.size for la in model.networks["context"].layers if la.weight is not None)
    assert parts["context"]["parameters"] == weights
    assert count(model, 64).decode_kmac_per_pixel == pytest.approx(result.decode_kmac_per_pixel)


def test_a_codec_of_random_weights_works_too(make, profile, picture):
    """Cases that trained weights may avoid: clamps, skips, negative zero points."""
    for seed in range(3):
        model = make.small_model(profile, seed)
        codec, fast = Codec(model), FastCodec(model, LiteRTExecutor.from_model(model))
        for quality in (0, 37, 100):
            data = codec.encode(picture(65, 130, seed), quality)
            assert fast.encode(picture(65, 130, seed), quality) == data
            np.testing.assert_array_equal(codec.decode(data), fast.decode(data))
