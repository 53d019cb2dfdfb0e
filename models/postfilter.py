"""The post-filter: the decoded picture smoothed along its edges and sharpened across them.

The networks are all but linear (`README.md`, "What the hidden layers do"), and a linear filter cannot follow edges. So
every cell of 2x2 pixels gets one of 384 filters of its luma, by how the picture changes around it (`filter_classes`).
The filters are learned, the classes are not; all of it is integer arithmetic.

Filters of 5x5 that are symmetric about their centre, as in Tsai et al., "Adaptive loop filtering for video coding",
IEEE Journal of Selected Topics in Signal Processing, 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .filter_classes import CLASSES, KNOTS, LUMA, MARGIN, OFFSETS, classes
from .layers import clamp_ste, round_ste

RATE = 4  # how much faster than other parameters filters are learned: they start at 0 and end at up to 1/2


def post_filter(pixels: Tensor, filters: Tensor) -> Tensor:
    """Whole pixels [B, 3, H, W] in 0..255, filtered; filters: whole numbers [B, 384, 12] in 2**-8.

    Gradients pass through every rounding; none comes from the choice of classes.
    """
    height, width = pixels.shape[2:]
    if height % 2 or width % 2:
        pixels = F.pad(pixels, (0, width % 2, 0, height % 2), mode="replicate")
    weights = torch.tensor(LUMA, dtype=pixels.dtype, device=pixels.device)
    luma = round_ste(torch.einsum("c,bchw->bhw", weights, pixels) / 64)
    batch, rows, columns = len(luma), luma.shape[1] // 2, luma.shape[2] // 2
    index = classes(_around(luma.detach(), MARGIN).int(), torch)
    index = index + CLASSES * torch.arange(batch, device=index.device)[:, None, None]
    chosen = F.embedding(index, filters.flatten(0, 1))
    # Of each cell, for its 2x2 pixels.
    sums = _pair_sums(luma).view(batch, len(OFFSETS), rows, 2, columns, 2)
    change = (sums * chosen.permute(0, 3, 1, 2)[:, :, :, None, :, None]).sum(1).view_as(luma)
    return clamp_ste(pixels + round_ste(change / 1024)[:, None], 0, 255)[:, :, :height, :width]


def _around(x: Tensor, margin: int) -> Tensor:
    """[B, H, W] with its first and last rows and columns repeated."""
    return F.pad(x[:, None], (margin, margin, margin, margin), mode="replicate")[:, 0]


def _pair_sums(luma: Tensor) -> Tensor:
    """[B, 12, H, W]: for each of `OFFSETS` the two lumas at that offset either way, less twice the pixel's own."""
    height, width = luma.shape[1:]
    around = _around(luma, 2)

    def at(down: int, right: int) -> Tensor:
        return around[:, 2 + down : 2 + down + height, 2 + right : 2 + right + width]

    return torch.stack([at(down, right) + at(-down, -right) - 2 * luma for down, right in OFFSETS], 1)


class PostFilter(nn.Module):
    """`post_filter` of RGB [B, 3, H, W] in 0..1 that stands for whole pixels, with filters that are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.zeros(KNOTS, CLASSES, len(OFFSETS)))

    def integers(self) -> Tensor:
        """The filters at each knot, whole, [3, 384, 12] in 2**-8."""
        return round_ste(clamp_ste(self.filters * (256 * RATE), -127, 127))

    @torch.no_grad()
    def assign(self, filters: Tensor) -> None:
        """The inverse of `integers`."""
        self.filters.copy_(filters / (256 * RATE))

    def forward(self, rgb: Tensor, quality: Tensor) -> Tensor:
        """quality [B]: 0 to 100, between whose knots filters are linear."""
        position = (quality * ((KNOTS - 1) / 100)).clamp(0, KNOTS - 1)
        index = position.floor().clamp(max=KNOTS - 2).long()
        knots = self.integers()
        filters = round_ste(torch.lerp(knots[index], knots[index + 1], (position - index)[:, None, None]))
        return post_filter(round_ste(rgb * 255), filters) / 255
