"""What decoding and encoding take of memory is what codec/SPEC.md says of the header."""

from __future__ import annotations

import numpy as np
import pytest

import pocketlic
from pocketlic.codec._native import NativeDecoder
from pocketlic.codec.format import decoding_memory, encoding_memory
from pocketlic.quantization.shipped import MODELS


@pytest.fixture(scope="module")
def native():
    """The shipped model whose networks are widest."""
    return NativeDecoder(next(weights for weights in MODELS if weights.name == "cpu-high").read())


def picture(width, height):
    """Grey, and flat but for a corner: quickly coded, with all that a large picture takes."""
    pixels = np.full((height, width), 90, np.uint8)
    pixels[-64:, -64:] = np.random.default_rng(1).integers(0, 256, pixels[-64:, -64:].shape, dtype=np.uint8)
    return pixels


@pytest.mark.parametrize(
    ("width", "height", "threads"),
    [(1, 1, 2), (65535, 16, 1), (20, 65535, 2), (4000, 3000, 1), (4000, 3000, 8), (8000, 6000, 2), (12000, 9000, 2)],
)
def test_the_formulas_suffice(native, width, height, threads):
    pixels = picture(width, height)
    unlimited = 2**40
    data = native.encode(pixels, 6000, unlimited, encoding_memory(width, height, threads), threads)
    decoded = native.decode(data, unlimited, decoding_memory(width, height, threads), threads)
    assert decoded.shape == pixels.shape
    corner = slice(-200, None), slice(-200, None)
    if width == 12000:  # its last row of tiles, as the picture's end decodes on one thread
        rows = native.decode_rows(data, height - 200, 200, unlimited, decoding_memory(width, 200) + 3 * 1024 * width, 1)
        np.testing.assert_array_equal(rows, decoded[-200:])
    assert np.abs(decoded[corner].astype(int) - pixels[corner]).mean() < 60


def test_much_less_does_not(native):
    data = native.encode(picture(4000, 3000), 6000)
    with pytest.raises(pocketlic.FormatError, match="memory"):
        native.decode(data, max_memory=decoding_memory(4000, 3000) // 2)
    with pytest.raises(pocketlic.FormatError, match="memory"):
        native.encode(picture(4000, 3000), 6000, max_memory=encoding_memory(4000, 3000) // 3)


def test_a_picture_as_wide_as_may_be(native):
    data = native.encode(picture(65535, 2048), 6000, max_memory=1 << 30)
    with pytest.raises(pocketlic.FormatError, match="memory"):
        pocketlic.decode(data, max_memory=100 << 20)
    pixels = native.decode(data, max_memory=decoding_memory(65535, 2048, 2), threads=2)
    assert pixels.shape == (2048, 65535)
    assert np.abs(pixels[:1900:50, ::50].astype(int) - 90).mean() < 4
