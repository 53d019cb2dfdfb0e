"""Drawn crops: of every kind, deterministic, in training's batches, and with a sound loss."""

import numpy as np
import pytest
import torch

from pocketlic.models.data import Photographs
from pocketlic.models.drawn import KINDS, draw
from pocketlic.models.perceptual import visual_bits


@pytest.mark.parametrize("kind", sorted(set(KINDS), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [64, 256])
def test_a_kind_fills_the_crop_and_follows_its_seed(kind, size):
    pictures = [kind(np.random.default_rng(seed), size) for seed in (1, 1, 2)]
    assert all(picture.shape == (size, size, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_flat_colours_reach_the_corners_of_the_cube():
    rng = np.random.default_rng(0)
    flat = [
        tuple(picture[0, 0]) for picture in (draw(rng, 8) for _ in range(600)) if np.ptp(picture, (0, 1)).max() == 0
    ]
    assert {(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)} <= set(flat)


def test_a_part_of_the_crops_is_drawn(photo_folder):
    plain, mixed, drawn = (Photographs(photo_folder, 64, 48, seed=3, drawn=part) for part in (0, 0.5, 1))
    assert torch.equal(mixed(4), mixed(4))
    photographs = {crop.numpy().tobytes() for crop in plain(4)}
    assert not any(crop.numpy().tobytes() in photographs for crop in drawn(4))
    flat = [sum(float(crop.float().std((1, 2)).max()) == 0 for crop in source(4)) for source in (plain, mixed, drawn)]
    assert flat[0] < flat[1] < flat[2]


def test_the_loss_for_the_eye_is_never_negative_and_has_a_gradient():
    rng = np.random.default_rng(7)
    for kind in set(KINDS):
        original = torch.from_numpy(kind(rng, 192).copy()).permute(2, 0, 1)[None].float()
        for error in (0.0, 0.01, 3.0):
            decoded = (original + error).requires_grad_()
            bits = visual_bits(original, decoded, torch.tensor([100.0]))
            bits.sum().backward()
            assert bits.item() >= 0
            assert decoded.grad is not None
            assert decoded.grad.isfinite().all()
