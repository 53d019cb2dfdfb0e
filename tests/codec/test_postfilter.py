"""The post-filter: SPEC.md, section 6.4, word by word."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import pocketlic
from pocketlic.codec._native import NativeDecoder, kernels
from pocketlic.codec.codec import Codec
from pocketlic.codec.postfilter import post_filter
from pocketlic.quantization.errors import ModelError
from pocketlic.quantization.model import IntegerModel

PAIRS = [(0, 1), (0, 2), (1, -2), (1, -1), (1, 0), (1, 1), (1, 2), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2)]


def literally(rgb: NDArray[np.uint8], filters: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Pixel by pixel, in Python's integers."""
    height, width = rgb.shape[:2]

    def luma(y: int, x: int) -> int:
        r, g, b = (int(v) for v in rgb[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])
        return (54 * r + 183 * g + 19 * b + 32) >> 6

    def class_of(i: int, j: int) -> int:
        a2 = b2 = c2 = 0
        for m in range(-2, 3):
            for n in range(-2, 3):
                for y in (2 * (i + m), 2 * (i + m) + 1):
                    for x in (2 * (j + n), 2 * (j + n) + 1):
                        across, down = luma(y, x + 1) - luma(y, x - 1), luma(y + 1, x) - luma(y - 1, x)
                        weight = (3 - abs(m)) * (3 - abs(n))
                        a2, b2, c2 = a2 + weight * across**2, b2 + weight * across * down, c2 + weight * down**2
        energy, u, v = (a2 + c2) >> 8, a2 - c2, 2 * b2
        a, b = abs(u) >> 8, abs(v) >> 8
        length = max(a, b, ((a + b) * 181) >> 8)
        strength = sum(limit <= energy for limit in (182, 729, 2916, 11664, 46656))
        straight = sum(limit * energy <= 256 * length for limit in (120, 205, 246))
        direction = 1 if 256 * min(a, b) > 106 * max(a, b) else 0
        direction = 3 - direction if a < b else direction
        direction = 7 - direction if u < 0 else direction
        direction = 15 - direction if v < 0 else direction
        return (strength * 4 + straight) * 16 + direction

    made = np.empty_like(rgb)
    for y, x in np.ndindex(height, width):
        weights = filters[class_of(y // 2, x // 2)].tolist()
        total = sum(
            w * (luma(y + dy, x + dx) + luma(y - dy, x - dx) - 2 * luma(y, x))
            for w, (dy, dx) in zip(weights, PAIRS, strict=True)
        )
        made[y, x] = [min(max(int(v) + ((total + 512) >> 10), 0), 255) for v in rgb[y, x]]
    return made


@pytest.mark.parametrize("kind", ["noise", "black and white", "edge", "soft"])
def test_is_what_the_specification_says(kind: str) -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:9, :14]
    rgb = {
        "noise": rng.integers(0, 256, (9, 14, 3)),
        "black and white": rng.integers(0, 2, (9, 14, 3)) * 255,
        "edge": np.repeat(((x - 2 * y > 0) * 90 + 60 + rng.integers(0, 9, y.shape))[:, :, None], 3, 2),
        "soft": np.repeat((3 * y + x)[:, :, None] + 80 + rng.integers(0, 2, (*y.shape, 1)), 3, 2),
    }[kind].astype(np.uint8)
    filters = rng.integers(-128, 128, (384, 12)).astype(np.int32)
    assert np.array_equal(post_filter(rgb, filters), literally(rgb, filters))


@pytest.fixture(scope="module")
def filtering() -> IntegerModel:
    filters = np.random.default_rng(4).integers(-60, 61, (3, 384, 12)).astype(np.int8)
    return replace(pocketlic.shipped_model(), post_filter=filters)


@pytest.mark.parametrize("size", [(1, 1), (33, 129), (300, 70), (40, 530)])
def test_native_core_filters_alike_wherever_it_cuts(filtering: IntegerModel, size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(5).integers(0, 256, (*size, 3)).astype(np.uint8)
    codec = Codec(filtering)
    data = codec.encode(rgb, 61.5)
    expected = codec.decode(data)
    for kernel in kernels():
        assert np.array_equal(NativeDecoder(filtering.to_bytes(), kernel).decode(data), expected)


def test_quality_chooses_between_knots(filtering: IntegerModel) -> None:
    codec = Codec(filtering)
    knots = filtering.post_filter
    assert knots is not None
    for quality, filters in ((0, knots[0]), (5000, knots[1]), (10000, knots[2])):
        assert np.array_equal(codec.filters(quality), filters)
    # Halves are rounded up.
    assert np.array_equal(codec.filters(2500), (knots[0].astype(int) + knots[1] + 1) // 2)


def test_model_file_keeps_filters(filtering: IntegerModel) -> None:
    read = IntegerModel.from_bytes(filtering.to_bytes())
    assert np.array_equal(read.post_filter, filtering.post_filter)


@pytest.mark.parametrize("shape", [(1, 384, 12), (4, 384, 12), (3, 383, 12), (3, 384, 11), (384, 12)])
def test_filters_of_other_shapes_are_refused(filtering: IntegerModel, shape: tuple[int, ...]) -> None:
    data = replace(filtering, post_filter=np.zeros(shape, np.int8)).to_bytes()
    for read in (IntegerModel.from_bytes, NativeDecoder):
        with pytest.raises(ModelError):
            read(data)


def test_filters_of_another_type_are_refused(filtering: IntegerModel) -> None:
    data = replace(filtering, post_filter=np.zeros((3, 384, 12), np.int32)).to_bytes()
    for read in (IntegerModel.from_bytes, NativeDecoder):
        with pytest.raises(ModelError):
            read(data)
