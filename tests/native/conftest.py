"""Models and files for the native core."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import pocketlic
from pocketlic.codec import format as plic
from pocketlic.codec._native import NativeDecoder
from pocketlic.codec.codec import Codec, Symbols
from pocketlic.quantization.model import IntegerModel
from pocketlic.quantization.network import IntegerNetwork


@pytest.fixture(scope="session")
def open_model() -> Callable[[IntegerModel], SimpleNamespace]:
    """Codec and native decoder of one model."""

    def both(model: IntegerModel) -> SimpleNamespace:
        return SimpleNamespace(model=model, codec=Codec(model), native=NativeDecoder(model.to_bytes()))

    return both


@pytest.fixture(scope="session")
def shipped(open_model: Callable[[IntegerModel], SimpleNamespace]) -> Callable[[str], SimpleNamespace]:
    """Codec and native decoder of a shipped profile."""
    return cache(lambda profile, quality=60.0: open_model(pocketlic.shipped_model(profile, quality=quality)))


@pytest.fixture(scope="session")
def random_symbols() -> Callable[..., Symbols]:
    """Symbols for a picture of this size: mostly small, some of the largest magnitude."""

    def make(codec: Codec, header: plic.Header, seed: int) -> Symbols:
        rng = np.random.default_rng(seed)
        model = codec.model
        h, w = -(-header.height // 64), -(-header.width // 64)

        def latents(channels: int) -> np.ndarray:
            shape = (4 * h, 4 * w, channels)
            values = np.round(rng.laplace(0, 1.5, shape)).astype(np.int32)
            extremes = rng.integers(-32767, 32768, shape).astype(np.int32)
            return np.where(rng.random(shape) < 0.02, extremes, values)

        z = rng.integers(-128, 128, (h, w, model.row_weight.shape[1])).astype(np.int8)
        if seed % 2:
            z //= 16
        predicted = codec.predicted_indices(z, header.quality_hundredths)
        y = np.where(codec.latent_indices(predicted) < model.skip, 0, latents(codec.latents)).astype(np.int32)
        details = latents(predicted.shape[2] - codec.latents)
        details = np.where(codec.detail_indices(predicted, y) < model.skip, 0, details).astype(np.int32)
        return Symbols(z, y, details)

    return make


@pytest.fixture(scope="session")
def odd_network(make: ModuleType) -> Callable[[str, int], IntegerNetwork]:
    """A context network that nobody would train: channels that do not fill a vector, large and tiny kernels."""

    def build(profile: str, seed: int) -> IntegerNetwork:
        b = make.Builder("context", profile, seed, features=16, anchors=16)
        x = b.depthwise(b.pointwise("features", 17), 7)
        low = b.pointwise(b.depthwise(b.space_to_depth(b.pointwise("anchors", 5, relu=True), 2), 3), 33, relu=True)
        x = b.add(x, b.depth_to_space(b.pointwise(low, 4 * 17), 2), relu=True)
        x = b.add(x, b.upsample(b.pointwise(low, 17, relu=True), 2))
        wide = b.pointwise(b.depth_to_space(b.pointwise(x, 9 * 3), 3), 7)
        x = b.pointwise(b.space_to_depth(wide, 3), 70)
        return b.build(b.pointwise(b.depthwise(x, 1), 16))

    return build
