"""The post-filter of training equals the codec's, and has gradients."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlic.codec.postfilter import post_filter as reference
from pocketlic.models.filter_classes import CLASSES, KNOTS, OFFSETS
from pocketlic.models.postfilter import PostFilter, _Filter, post_filter


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([1, 16, 128]))
def test_equals_the_codecs(height: int, width: int, seed: int, contrast: int) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(128 - contrast, 128 + contrast, (2, height, width, 3)).astype(np.uint8)
    filters = rng.integers(-128, 128, (2, CLASSES, len(OFFSETS))).astype(np.int32)
    made = post_filter(torch.from_numpy(rgb).permute(0, 3, 1, 2).float(), torch.from_numpy(filters).float())
    for i in range(2):
        assert np.array_equal(made[i].permute(1, 2, 0).numpy(), reference(rgb[i], filters[i]))


def test_begins_as_the_identity_and_learns() -> None:
    layer = PostFilter()
    rng = np.random.default_rng(1)
    pixels = torch.from_numpy(rng.integers(100, 150, (2, 3, 16, 16))).float()
    assert torch.equal(layer(pixels / 255, torch.tensor([10.0, 60.0])) * 255, pixels)
    rgb = (pixels / 255).requires_grad_()
    layer(rgb, torch.tensor([10.0, 60.0])).square().sum().backward()
    assert rgb.grad is not None
    assert torch.allclose(rgb.grad, 2 * rgb.detach(), atol=1e-5)
    assert layer.filters.grad is not None
    # The first picture lies between the first two knots, the other one between the last two.
    assert all(layer.filters.grad[knot].abs().sum() > 0 for knot in range(KNOTS))


def test_filters_are_linear_between_knots() -> None:
    layer = PostFilter()
    layer.assign(torch.arange(KNOTS).float()[:, None, None].expand(KNOTS, CLASSES, len(OFFSETS)) * 20)
    assert torch.equal(layer.integers()[2], torch.full((CLASSES, len(OFFSETS)), 40.0))
    pixels = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (1, 3, 12, 12))).float()
    made = layer(pixels / 255, torch.tensor([75.0])) * 255
    assert torch.equal(made.round(), post_filter(pixels, torch.full((1, CLASSES, len(OFFSETS)), 30.0)))


def test_gradients_of_the_sums() -> None:
    generator = torch.Generator().manual_seed(3)
    luma, weights = (torch.randn(shape, generator=generator).double() for shape in ((2, 2, 2, 5, 6), (12, 2, 3, 4)))
    assert torch.autograd.gradcheck(_Filter.apply, (luma.requires_grad_(), weights.requires_grad_()))
