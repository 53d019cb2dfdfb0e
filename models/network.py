"""The float codec.

    RGB -> analysis -> features at 1/16 and 1/8
    features at 1/16 -> latent projection -> y                        (1/16, 96 channels)
    features at 1/8  -> detail projection -> d                        (1/8, 48 channels; kept as 192 at 1/16)
    y, d -> hyper-analysis -> z, rounded                              (1/64, 64 channels)
    z -> row projection -> table index of every symbol: the entropy model
         (those of d also depend on the magnitudes of y's symbols)
    z -> hyper-synthesis -> context features, mean0, log2 step of y
    anchors (a checkerboard):  y_hat = mean0 + step * round((y - mean0) / step)
    y_hat of the anchors -> context -> mean1, the means of the rest
    d_hat = step * round(d / step)
    y_hat, d_hat -> synthesis (body at 1/16, renderer at 1/4) -> RGB (-> post-filter, once quantized)

Channels are those of the default `Widths`. 96 values per 16x16 block cannot carry a sharp picture: the best linear
basis of 128 reaches 33 dB on Kodak. Detail latents add 192 values per block, coded without mean or context.

One model serves every quality from 0 to 100. Means, context and synthesis work on y, which does not depend on quality.
Quality only sets the quantization step of each channel (a gain vector: Cui et al., "Asymmetric gained deep image
compression", CVPR 2021), shifts the table indices accordingly, and scales z in the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .entropy import index_from_log2_scale, symbol_bits
from .layers import Add, DepthToSpace, Depthwise, Pointwise, SpaceToDepth, Upsample, at_quality, clamp_ste, round_ste
from .postfilter import PostFilter

LATENTS = 96
HYPER = 64
KNOTS = 11  # qualities 0, 10, ..., 100 at which the gain vectors are learned; linear between
STRIDE = 64  # pictures are padded to a multiple of this
RATE_WEIGHT_MIN, RATE_WEIGHT_RATIO = 0.0002, 1000.0  # Kodak: below 0.1 to above 1.5 bits per pixel
LOG2_STEP_LIMIT = 2.0  # the element-wise step is the channel's times 2**[-limit, limit]


@dataclass(frozen=True)
class Widths:
    """Channels of the layers whose width may differ between models. High qualities need more details."""

    details: int = 48  # at 1/8; four times as many on the grid of y
    fine: int = 88  # of the analysis at 1/8, and between its block's two matrices
    fine_hidden: int = 176
    coarse: int = 152  # the same at 1/16
    coarse_hidden: int = 304
    body: int = 160  # of the synthesis at 1/16
    body_hidden: int = 320

    @staticmethod
    def of(shapes: Mapping[str, Sequence[int]]) -> Widths:
        """The widths of a codec from its weights' shapes [out, in] by layer name; KeyError when one is missing."""
        details, fine = shapes["detail"]
        body_hidden, body = shapes["body_expand"]
        hidden = shapes["fine_expand"][0], shapes["coarse_expand"][0]
        return Widths(details, fine, hidden[0], shapes["latent"][1], hidden[1], body, body_hidden)


def rate_weight(quality: Tensor) -> Tensor:
    """Training's Lagrange multiplier: weight of the 8-bit RGB mean squared error against bpp, at qualities 0 to 100."""
    return RATE_WEIGHT_MIN * RATE_WEIGHT_RATIO ** (quality / 100.0)


class Block(nn.Module):
    """x + project(relu(expand(depthwise(x))))"""

    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = Depthwise(channels, kernel)
        self.expand = Pointwise(channels, hidden, relu=True)
        self.project = Pointwise(hidden, channels)
        # Begin as the identity: early noise through it kills the ReLUs for good.
        nn.init.zeros_(self.project.weight)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.add(x, self.project(self.expand(self.depthwise(x))))
        return out


class Analysis(nn.Module):
    """RGB - 0.5 [B, 3, H, W] -> features [B, 152, H/16, W/16] and [B, 88, H/8, W/8].

    Their projections to y and d are `FloatCodec`'s, in full precision.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.split = SpaceToDepth(8)
        self.enter = Pointwise(192, widths.fine)
        self.fine = Block(widths.fine, widths.fine_hidden, 5)
        self.down = SpaceToDepth(2)
        self.mix = Pointwise(4 * widths.fine, widths.coarse)
        self.coarse = Block(widths.coarse, widths.coarse_hidden, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(self.enter(self.split(x)))
        return self.coarse(self.mix(self.down(fine))), fine


class HyperAnalysis(nn.Module):
    """(y [B, 96, h, w], folded d [B, 192, h, w]) -> z before gain and rounding [B, 64, h/4, w/4]"""

    def __init__(self, details: int) -> None:
        super().__init__()
        self.enter = Pointwise(LATENTS, HYPER)
        self.enter_details = Pointwise(4 * details, HYPER)
        self.join = Add(relu=True)
        self.down1 = SpaceToDepth(2)
        self.mix = Pointwise(4 * HYPER, HYPER, relu=True)
        self.down2 = SpaceToDepth(2)
        self.out = Pointwise(4 * HYPER, HYPER)

    def forward(self, y: Tensor, details: Tensor) -> Tensor:
        x = self.join(self.enter(y), self.enter_details(details))
        out: Tensor = self.out(self.down2(self.mix(self.down1(x))))
        return out


class HyperSynthesis(nn.Module):
    """z [B, 64, h/4, w/4] -> (context features, mean0, log2 step), each [B, 96, h, w]"""

    def __init__(self) -> None:
        super().__init__()
        self.enter = Pointwise(HYPER, 4 * HYPER)
        self.up1 = DepthToSpace(2)
        self.block = Block(HYPER, 2 * HYPER, 3)
        self.mix = Pointwise(HYPER, 4 * HYPER, relu=True)
        self.up2 = DepthToSpace(2)
        self.out = Pointwise(HYPER, LATENTS, relu=True)
        self.mean = Pointwise(LATENTS, LATENTS)
        self.log2_step = Pointwise(LATENTS, LATENTS)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.out(self.up2(self.mix(self.block(self.up1(self.enter(z))))))
        return features, self.mean(features), self.log2_step(features)


class Context(nn.Module):
    """(context features, y_hat of the anchors and zero elsewhere) -> mean1, each [B, 96, h, w]

    He et al., "Checkerboard context model for efficient learned image compression", CVPR 2021.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hyper = Pointwise(LATENTS, LATENTS)
        self.depthwise = Depthwise(LATENTS, 5)
        self.neighbours = Pointwise(LATENTS, LATENTS)
        self.add = Add(relu=True)
        self.out = Pointwise(LATENTS, LATENTS)

    def forward(self, features: Tensor, anchors: Tensor) -> Tensor:
        out: Tensor = self.out(self.add(self.hyper(features), self.neighbours(self.depthwise(anchors))))
        return out


class Render(nn.Module):
    """Residual block at 1/4 whose hidden layer gets the body's features added.

    Its depthwise convolution mixes pixels across the borders of the 16x16 and 8x8 blocks of latents and details:
    7 % of the rate at equal quality.
    """

    def __init__(self, channels: int, body: int) -> None:
        super().__init__()
        self.condition = Pointwise(body, 2 * channels)
        self.up = Upsample(4)
        self.depthwise = Depthwise(channels, 5)
        with torch.no_grad():  # begins near the identity
            self.depthwise.weight.mul_(0.1)[:, 0, 2, 2] = 1
        self.expand = Pointwise(channels, 2 * channels)
        self.join = Add(relu=True)
        self.project = Pointwise(2 * channels, channels)
        self.add = Add()

    def forward(self, x: Tensor, body: Tensor) -> Tensor:
        hidden = self.join(self.expand(self.depthwise(x)), self.up(self.condition(body)))
        out: Tensor = self.add(x, self.project(hidden))
        return out


class Synthesis(nn.Module):
    """(y_hat [B, 96, h, w], folded d_hat [B, 192, h, w]) -> RGB - 0.5 [B, 3, 16h, 16w]

    A body at 1/16 conditions a renderer at 1/4, as in PULSE (arXiv 2609.18602). Conditioning is an addition, which
    integers do exactly, not a product.
    """

    def __init__(self, widths: Widths, channels: int = 32) -> None:
        super().__init__()
        body = widths.body
        self.enter = Pointwise(LATENTS, body)
        self.body = Block(body, widths.body_hidden, 5)
        self.canvas = Pointwise(LATENTS, 16 * channels)
        self.unfold = DepthToSpace(4)
        self.unfold_details = DepthToSpace(2)
        self.canvas_details = Pointwise(widths.details, 4 * channels)
        self.unfold_canvas = DepthToSpace(2)
        self.merge = Add()
        self.render1 = Render(channels, body)
        self.render2 = Render(channels, body)
        self.out = Pointwise(channels, 48)
        self.join = DepthToSpace(4)

    def forward(self, y_hat: Tensor, details: Tensor) -> Tensor:
        body = self.body(self.enter(y_hat))
        details = self.unfold_canvas(self.canvas_details(self.unfold_details(details)))
        x = self.merge(self.unfold(self.canvas(y_hat)), details)
        out: Tensor = self.join(self.out(self.render2(self.render1(x, body), body)))
        return out


class Gains(nn.Module):
    """What quality changes, by channel: of y, then of d. Learned at `KNOTS` qualities; logarithms are interpolated."""

    def __init__(self, details: int) -> None:
        super().__init__()
        octaves = 0.5 * math.log2(RATE_WEIGHT_RATIO)  # the optimal step goes with the square root of the rate weight
        ramp = torch.linspace(octaves / 2, -octaves / 2, KNOTS)
        self.log2_step = nn.Parameter(ramp[:, None].repeat(1, LATENTS + 4 * details))
        # In addition to what the step implies.
        self.log2_scale = nn.Parameter(torch.zeros(KNOTS, LATENTS + 4 * details))
        self.log2_hyper_gain = nn.Parameter(torch.zeros(KNOTS, HYPER))
        self.log2_hyper_scale = nn.Parameter(torch.zeros(KNOTS, HYPER))

    @staticmethod
    def at(knots: Tensor, quality: Tensor) -> Tensor:
        """Values [B, C, 1, 1] of a knot table [KNOTS, C] at qualities [B]."""
        return at_quality(knots, quality)[:, :, None, None]


class Coded(NamedTuple):
    """What the float codec returns: RGB in 0..1, not clamped, [B, 3, H, W]; bits per picture, each [B]."""

    reconstruction: Tensor
    latent_bits: Tensor
    hyper_bits: Tensor


def anchor_mask(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Checkerboard [1, 96, h, w], 1 at the anchors and 0 elsewhere; inverted in the second half of the channels."""
    parity = torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)
    half = (torch.arange(LATENTS, device=device) >= LATENTS // 2).long()
    return ((parity[None] + half[:, None, None]) % 2 == 0).float()[None]


class FloatCodec(nn.Module):
    """All networks, and coding in float: the rate with uniform noise, the distortion with rounding."""

    def __init__(self, widths: Widths = Widths()) -> None:
        super().__init__()
        self.analysis = Analysis(widths)
        self.latent = Pointwise(widths.coarse, LATENTS)
        self.detail = Pointwise(widths.fine, widths.details)
        self.detail_fold = SpaceToDepth(2)
        self.hyper_analysis = HyperAnalysis(widths.details)
        self.rows = Pointwise(HYPER, 16 * (LATENTS + 4 * widths.details))
        self.rows_unfold = DepthToSpace(4)
        self.detail_rows = Pointwise(LATENTS, 4 * widths.details)  # from log2(1 + |symbols of y|)
        nn.init.zeros_(self.detail_rows.weight)
        self.hyper_synthesis = HyperSynthesis()
        self.context = Context()
        self.synthesis = Synthesis(widths)
        self.gains = Gains(widths.details)
        self.step_grid: nn.Module = nn.Identity()  # quantization rounds the steps to the integers' grid
        self.detail_step_grid: nn.Module = nn.Identity()
        self.post_filter: PostFilter | None = None  # added by quantization: it filters whole pixels

    def forward(self, image: Tensor, quality: Tensor) -> Coded:
        """image: float32 [B, 3, H, W] in 0..1, H and W multiples of 64. quality: float32 [B], 0 to 100."""
        gains = self.gains
        features, fine = self.analysis(image - 0.5)
        with torch.autocast(image.device.type, enabled=False):  # bfloat16 has too few digits for y
            y = self.latent(features.float())
            details = self.detail_fold(self.detail(fine.float()))
        z = self.hyper_analysis(y, details).float() * torch.exp2(gains.at(gains.log2_hyper_gain, quality))
        z_hat = round_ste(z)
        z_index = index_from_log2_scale(gains.at(gains.log2_hyper_scale, quality))
        hyper_bits = self._bits(z, z_hat, z_index)

        channel_step, detail_step = _split(gains.at(gains.log2_step, quality))
        scale_gain, detail_gain = _split(gains.at(gains.log2_scale, quality))
        log2_scale, detail_scale = _split(self.rows_unfold(self.rows(z_hat)).float())
        context, mean0, log2_step = (t.float() for t in self.hyper_synthesis(z_hat))
        step = torch.exp2(channel_step + clamp_ste(log2_step, -LOG2_STEP_LIMIT, LOG2_STEP_LIMIT))
        step = self.step_grid(step)
        anchor = anchor_mask(y.shape[2], y.shape[3], y.device)
        anchors = (mean0 + step * round_ste((y - mean0) / step)) * anchor
        mean1 = self.context(context, anchors).float()
        mean = mean0 * anchor + mean1 * (1 - anchor)
        symbol = (y - mean) / step
        rounded = round_ste(symbol)
        index = index_from_log2_scale(log2_scale + scale_gain - channel_step)
        latent_bits = self._bits(symbol, rounded, index)

        magnitude = torch.log2(1 + rounded.detach().abs())
        detail_scale = detail_scale + self.detail_rows(magnitude).float() + detail_gain - detail_step
        detail_step = self.detail_step_grid(torch.exp2(detail_step))
        symbol = details / detail_step
        detail_rounded = round_ste(symbol)
        detail_bits = self._bits(symbol, detail_rounded, index_from_log2_scale(detail_scale))
        reconstruction = self.synthesis(mean + step * rounded, detail_step * detail_rounded).float() + 0.5
        if self.post_filter is not None:
            reconstruction = self.post_filter(reconstruction, quality)
        return Coded(reconstruction, latent_bits + detail_bits, hyper_bits)

    def _bits(self, symbol: Tensor, rounded: Tensor, index: Tensor) -> Tensor:
        """Bits per picture [B]: of rounded symbols, or in training of symbols with uniform noise."""
        return symbol_bits(_perturb(symbol) if self.training else rounded, index).sum((1, 2, 3))


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split channels into those of y and of d."""
    return x[:, :LATENTS], x[:, LATENTS:]


def _perturb(x: Tensor) -> Tensor:
    return x + torch.rand_like(x) - 0.5


def pad_to_stride(image: Tensor) -> Tensor:
    """Repeat the last row and column of [B, C, H, W] until both sides are multiples of 64."""
    h, w = image.shape[2:]
    return F.pad(image, (0, -w % STRIDE, 0, -h % STRIDE), mode="replicate")
