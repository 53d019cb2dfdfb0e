"""The compiled arithmetic equals the reference's, stage by stage, and refuses wrong shapes."""

import numpy as np
import pytest

import pocketlic
from pocketlic.codec import format as plic
from pocketlic.codec.codec import Codec, Symbols
from pocketlic.codec.fast import FastCodec


def both(model):
    """With the core's own networks as the executor: quick, and tested elsewhere."""
    fast = FastCodec(
        model, lambda network, inputs: fast.native.run(network.name, [np.ascontiguousarray(x) for x in inputs])
    )
    return Codec(model, fast.run), fast


def assert_equal(a, b):
    for name in ("z", "y", "details"):
        mine, theirs = getattr(a, name), getattr(b, name)
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(mine, theirs, err_msg=name)


@pytest.mark.parametrize("size", [(1, 1), (67, 131), (1100, 40)])
def test_symbols_and_pixels(make, profile, picture, size):
    """Shipped and random weights, noise and pictures, at the ends of the qualities."""
    for model in (pocketlic.shipped_model(profile), make.small_model(profile, 1)):
        codec, fast = both(model)
        noise = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
        for pixels in (picture(*size), noise):
            for quality in (0, 4321, 10000):
                header = plic.Header(size[1], size[0], False, quality, codec.model_id)
                symbols = codec.analyse(pixels, quality)
                assert_equal(fast.analyse(pixels, quality), symbols)
                data = codec.write_symbols(symbols, header, b"icc", b"exif")
                assert fast.write_symbols(symbols, header, b"icc", b"exif") == data
                read, same = fast.read(data)
                assert same == header
                assert_equal(read, symbols)
                np.testing.assert_array_equal(fast.synthesise(symbols, header), codec.synthesise(symbols, header))


def test_symbols_of_any_size(make, profile):
    """Symbols that no encoder makes: sums and steps are clamped."""
    rng = np.random.default_rng(3)
    for model in (pocketlic.shipped_model(profile), make.small_model(profile, 2)):
        codec, fast = both(model)
        for quality in (0, 10000):
            header = plic.Header(70, 130, True, quality, codec.model_id)
            scale = rng.choice([1, 30, 32767], (12, 8, 1))
            y, details = (
                (rng.uniform(-1, 1, (12, 8, n)) * scale).round().astype(np.int32)
                for n in (codec.latents, model.row_knots.shape[1] - codec.latents)
            )
            z = rng.integers(-128, 128, (3, 2, model.row_weight.shape[1])).astype(np.int8)
            symbols = Symbols(z, y, details)
            np.testing.assert_array_equal(fast.synthesise(symbols, header), codec.synthesise(symbols, header))


def test_what_does_not_fit_is_refused(make):
    model = make.small_model("cpu")
    _, fast = both(model)
    header = plic.Header(64, 64, False, 5000, fast.model_id)
    symbols = fast.analyse(np.zeros((64, 64, 3), np.uint8), 5000)
    y, details, means = symbols.y, symbols.details, np.zeros(symbols.y.shape, np.int8)
    for other in (y[:, :2], y[:3], y[:, :, :5], np.full_like(y, 40000)):
        with pytest.raises(ValueError, match=r"latents|shape|magnitude"):
            fast.synthesise(Symbols(symbols.z, np.ascontiguousarray(other), details), header)
    with pytest.raises(ValueError, match="magnitude"):
        fast.synthesise(Symbols(symbols.z, y, np.full_like(details, -40000)), header)
    with pytest.raises(ValueError, match="shape"):
        fast.native.project(5000, np.zeros((4, 4, 3), np.int8), np.zeros((8, 8, 3), np.int8))
    with pytest.raises(ValueError, match="quality"):
        fast.native.anchor_values(10001, means, means, y)
    with pytest.raises(ValueError, match="shape"):
        fast.native.quantize_others(0, symbols.z[:0], means, means, y, details)
    with pytest.raises(TypeError):
        fast.native.anchor_values(0, means, means, y[:, :, ::2])
