"""An integer post-filter restores edges these small networks blur: it smooths along them and sharpens across them.

The networks are nearly linear (docs/experiments/2026-11-23-hidden-layers.md), and a linear filter cannot follow edges.
So every cell of 2x2 pixels gets one of 384 luma filters, by how the picture changes around it (`filter_classes`). The
filters are learned, the classes are not.

Filters are 5x5 and symmetric about their centre, as in Tsai et al., "Adaptive loop filtering for video coding", IEEE
Journal of Selected Topics in Signal Processing, 2013.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .filter_classes import CLASSES, KNOTS, LUMA, MARGIN, OFFSETS, classes
from .layers import apply_function, at_quality, clamp_ste, round_ste

RATE = 4  # learning rate relative to other parameters: filters start at 0 and end at up to 1/2


def post_filter(pixels: Tensor, filters: Tensor) -> Tensor:
    """Filter whole pixels, float32 [B, 3, H, W] in 0..255. filters: whole numbers [B, 384, 12] in 2**-8.

    Gradients pass through every rounding, but not through the choice of classes.
    """
    height, width = pixels.shape[2:]
    if height % 2 or width % 2:
        pixels = F.pad(pixels, (0, width % 2, 0, height % 2), mode="replicate")
    weights = torch.tensor(LUMA, dtype=pixels.dtype, device=pixels.device)
    luma = round_ste(torch.einsum("c,bchw->bhw", weights, pixels) / 64)
    index = classes(_around(luma.detach(), MARGIN).int(), torch)
    index = index + CLASSES * torch.arange(len(luma), device=index.device)[:, None, None]
    chosen = F.embedding(index, filters.flatten(0, 1)).permute(3, 0, 1, 2).contiguous()
    change = apply_function(_Filter, _phases(_around(luma, 2)), chosen)
    change = round_ste(change.permute(2, 3, 0, 4, 1).reshape(luma.shape) / 1024)
    return clamp_ste(pixels + change[:, None], 0, 255)[:, :, :height, :width]


def _around(x: Tensor, margin: int) -> Tensor:
    """[B, H, W] with `margin` repeated pixels on all sides."""
    return F.pad(x[:, None], (margin, margin, margin, margin), mode="replicate")[:, 0]


def _phases(x: Tensor) -> Tensor:
    """[B, H, W] as [2, 2, B, H/2, W/2]: even and odd rows, even and odd columns."""
    batch, height, width = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2).permute(2, 4, 0, 1, 3).contiguous()


class _Filter(torch.autograd.Function):
    """(`_phases` of luma with 2 pixels around, weights [12, B, h, w] of cells) -> phases [2, 2, B, h, w] of the sums.

    The cells of a phase are contiguous, as their weights are: several times faster on a CPU than cells of 2x2 pixels.
    """

    @staticmethod
    def forward(ctx: Any, luma: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(luma, weights)
        sums = torch.empty_like(luma[:, :, :, 1:-1, 1:-1], memory_format=torch.contiguous_format)
        total = weights.sum(0)
        for row, column in product(range(2), repeat=2):
            here = torch.mul(total, _at(luma, row, column), out=sums[row, column]).mul_(-2)
            for weight, (down, right) in zip(weights, OFFSETS, strict=True):
                here.addcmul_(weight, _at(luma, row + down, column + right) + _at(luma, row - down, column - right))
        return sums

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        luma, weights = ctx.saved_tensors
        of_luma = torch.zeros_like(luma)
        of_weights = torch.zeros_like(weights) if ctx.needs_input_grad[1] else None
        total = weights.sum(0)
        for row, column in product(range(2), repeat=2):
            here = grad[row, column]
            _at(of_luma, row, column).addcmul_(total, here, value=-2)
            for i, (down, right) in enumerate(OFFSETS):
                places = (row + down, column + right), (row - down, column - right)
                part = weights[i] * here
                for place in places:
                    _at(of_luma, *place).add_(part)
                if of_weights is not None:
                    pair = sum(_at(luma, *place) for place in places) - 2 * _at(luma, row, column)
                    of_weights[i].addcmul_(pair, here)
        return of_luma, of_weights


def _at(phases: Tensor, row: int, column: int) -> Tensor:
    """The pixel at (row, column) of each cell, [B, h, w], from `_phases` with 2 pixels around."""
    height, width = phases.shape[3] - 2, phases.shape[4] - 2
    top, left = 1 + row // 2, 1 + column // 2
    return phases[row % 2, column % 2, :, top : top + height, left : left + width]


class PostFilter(nn.Module):
    """`post_filter` with learned filters, of RGB [B, 3, H, W] in 0..1 that is rounded to whole pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.zeros(KNOTS, CLASSES, len(OFFSETS)))

    def integers(self) -> Tensor:
        """The filters at each knot: whole numbers, float32 [3, 384, 12] in 2**-8."""
        return round_ste(clamp_ste(self.filters * (256 * RATE), -127, 127))

    @torch.no_grad()
    def assign(self, filters: Tensor) -> None:
        """The inverse of `integers`."""
        self.filters.copy_(filters / (256 * RATE))

    def forward(self, rgb: Tensor, quality: Tensor) -> Tensor:
        """quality [B], 0 to 100: filters are interpolated between the knots."""
        filters = round_ste(at_quality(self.integers(), quality))
        return post_filter(round_ste(rgb * 255), filters) / 255
