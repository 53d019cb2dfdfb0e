"""The loss for the eye: JPEG AI's metrics on luma and squared errors of chroma, in bits per pixel.

Of the seven metrics five are here; MS-SSIM also stands in for IW-SSIM and FSIM, whose values move with it.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from .luma_metrics import constant, luma_metrics
from .network import rate_weight

YCBCR = ((0.2126, 0.7152, 0.0722), (-0.1146, -0.3854, 0.5), (0.5, -0.4542, -0.0458))  # BT.709

# How far each metric moves between 0.14 and 1.5 bits per pixel on Kodak, where our curves and VVC's overlap. A BD-rate
# averages over the metric's axis, so a gain counts in proportion to the metric's range.
RANGES = {"ms_ssim": 0.054, "vif_p": 0.38, "nlpd": 0.16, "vmaf": 26.6, "psnr_hvs_m": 16.0}
# How many of the seven metrics each stands for, scaled by our rate relative to VVC.
SHARES = {"ms_ssim": 0.398, "vif_p": 0.1925, "nlpd": 0.168, "vmaf": 0.102, "psnr_hvs_m": 0.1395}
BEST = {"ms_ssim": 1.0, "vif_p": 1.0, "nlpd": 1.0, "vmaf": 100.0, "psnr_hvs_m": 50.0}

SMALLEST = 192  # pixels; shorter sides are padded with their last pixels
LARGEST = 512  # pixels; larger pictures are measured in parts, about as large as the crops of training

# Bits per pixel that a unit of luma's distortion is worth at qualities 0 and 100: the slopes of weights tuned for
# MS-SSIM on Kodak.
LUMA_WEIGHTS = (0.0485, 10.2)
# No metric looks at colour. Squared errors of Cb and Cr weigh this much of `rate_weight`: of each pixel, and of the
# means of blocks, whose errors look like shifts of colour.
CHROMA_WEIGHT, CHROMA_BLOCK_WEIGHT, CHROMA_BLOCK = 0.24, 1.0, 8


def visual_bits(original: Tensor, decoded: Tensor, quality: Tensor) -> Tensor:
    """The distortion of decoded RGB [B, 3, H, W], 0..255, in bits per pixel [B].

    quality [B], 0 to 100, sets how many bits a unit of distortion is worth. All float32.
    """
    matrix = constant(YCBCR, original.device)
    a, b = (torch.einsum("oc,bchw->bohw", matrix, x) for x in (original, decoded))
    low, high = LUMA_WEIGHTS
    luma = low * (high / low) ** (quality / 100) * luma_distortion(a[:, 0], b[:, 0])
    chroma = a[:, 1:] - b[:, 1:]
    blocks = F.avg_pool2d(chroma, CHROMA_BLOCK, ceil_mode=True)
    squared, of_blocks = (x.square().sum(1).mean((1, 2)) for x in (chroma, blocks))
    return luma + rate_weight(quality) * (CHROMA_WEIGHT * squared + CHROMA_BLOCK_WEIGHT * of_blocks)


def picture_bits(original: Tensor, decoded: Tensor, quality: Tensor) -> Tensor:
    """`visual_bits` times pixels, bits [B], of pictures of any size."""
    bits = torch.zeros(len(original), device=original.device)
    rows, columns = (_parts(side) for side in original.shape[2:])
    for row in rows:
        for column in columns:
            a, b = (x[:, :, row, column] for x in (original, decoded))
            bits = bits + visual_bits(a, b, quality) * (a.shape[2] * a.shape[3])
    return bits


def _parts(side: int) -> list[slice]:
    """A side in parts of about equal length, at most `LARGEST`, that begin at multiples of 8."""
    count = math.ceil(side / LARGEST)
    bounds = [side * i // count // 8 * 8 for i in range(count)] + [side]
    return [slice(start, end) for start, end in pairwise(bounds)]


def luma_distortion(a: Tensor, b: Tensor) -> Tensor:
    """Shortfall of the metrics from their best values, [B], in units of their ranges on Kodak.

    a, b: lumas [B, H, W] in 0..255, of the original and of the decoded picture.
    """
    a, b = (_enlarged(x) for x in (a, b))
    values = luma_metrics(a, b)
    # PSNR-HVS-M of flat pictures exceeds its best value; that must not lower the cost.
    short = {name: (BEST[name] - values[name]).clamp(min=0) for name in SHARES}
    return sum((SHARES[name] / RANGES[name] * short[name] for name in SHARES), torch.zeros(()))


def _enlarged(x: Tensor) -> Tensor:
    """[B, H, W] padded to `SMALLEST`."""
    h, w = x.shape[1:]
    return F.pad(x[:, None], (0, max(0, SMALLEST - w), 0, max(0, SMALLEST - h)), mode="replicate")[:, 0]
