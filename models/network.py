"""The float codec.

    RGB -> analysis -> features -> latent projection -> y            (1/16, 128 channels)
    y -> hyper-analysis -> z, rounded                                 (1/64, 64 channels)
    z -> row projection -> row of every latent: the entropy model
    z -> hyper-synthesis -> context features, mean0, log2 step
    anchors (a checkerboard):  y_hat = mean0 + step * round((y - mean0) / step)
    y_hat of the anchors -> context -> mean1, the means of the rest
    y_hat -> synthesis (body at 1/16, renderer at 1/4) -> RGB

One model serves every quality from 0 to 100. Means, context and synthesis live in the domain of y, which does not
depend on quality; quality only sets the quantization step of each channel (a gain vector: Cui et al., "Asymmetric
gained deep image compression", CVPR 2021), shifts the rows accordingly, and scales z in the encoder.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .entropy import gaussian_bits, row_from_log2_scale
from .layers import Add, Depthwise, DepthToSpace, Pointwise, SpaceToDepth, Upsample, clamp_ste, round_ste

LATENTS = 128
HYPER = 64
KNOTS = 11  # qualities 0, 10, ..., 100 at which the gain vectors are learned; linear between
STRIDE = 64  # pictures are padded to a multiple of this
LOG2_STEP_LIMIT = 2.0  # the element-wise step is the channel's times 2**[-limit, limit]


def rate_weight(quality: Tensor) -> Tensor:
    """Lagrangian multiplier on the 8-bit RGB mean squared error for a quality 0..100; bits per pixel weigh 1."""
    return 0.001 * 200.0 ** (quality / 100.0)


class Block(nn.Module):
    """x + project(relu(expand(depthwise(x))))"""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = Depthwise(channels, kernel)
        self.expand = Pointwise(channels, 2 * channels, relu=True)
        self.project = Pointwise(2 * channels, channels)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.project(self.expand(self.depthwise(x))))  # type: ignore[no-any-return]


class Analysis(nn.Module):
    """RGB - 0.5 [B, 3, H, W] -> features [B, 136, H/16, W/16]; the projection to y is kept apart, see `Codec`."""

    def __init__(self, fine: int = 96, coarse: int = 136) -> None:
        super().__init__()
        self.split = SpaceToDepth(8)
        self.enter = Pointwise(192, fine)
        self.fine = Block(fine, 5)
        self.down = SpaceToDepth(2)
        self.mix = Pointwise(4 * fine, coarse)
        self.coarse = Block(coarse, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.coarse(self.mix(self.down(self.fine(self.enter(self.split(x))))))  # type: ignore[no-any-return]


class HyperAnalysis(nn.Module):
    """y [B, 128, h, w] -> z before gain and rounding [B, 64, h/4, w/4]"""

    def __init__(self) -> None:
        super().__init__()
        self.enter = Pointwise(LATENTS, HYPER, relu=True)
        self.down1 = SpaceToDepth(2)
        self.mix = Pointwise(4 * HYPER, HYPER, relu=True)
        self.down2 = SpaceToDepth(2)
        self.out = Pointwise(4 * HYPER, HYPER)

    def forward(self, y: Tensor) -> Tensor:
        return self.out(self.down2(self.mix(self.down1(self.enter(y)))))  # type: ignore[no-any-return]


class HyperSynthesis(nn.Module):
    """z [B, 64, h/4, w/4] -> (context features, mean0, log2 step), each [B, 128, h, w]"""

    def __init__(self) -> None:
        super().__init__()
        self.enter = Pointwise(HYPER, 4 * HYPER)
        self.up1 = DepthToSpace(2)
        self.block = Block(HYPER, 3)
        self.mix = Pointwise(HYPER, 4 * HYPER, relu=True)
        self.up2 = DepthToSpace(2)
        self.out = Pointwise(HYPER, LATENTS, relu=True)
        self.mean = Pointwise(LATENTS, LATENTS)
        self.log2_step = Pointwise(LATENTS, LATENTS)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.out(self.up2(self.mix(self.block(self.up1(self.enter(z))))))
        return features, self.mean(features), self.log2_step(features)


class Context(nn.Module):
    """(context features, y_hat of the anchors and zero elsewhere) -> mean1, each [B, 128, h, w]

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
        return self.out(self.add(self.hyper(features), self.neighbours(self.depthwise(anchors))))  # type: ignore[no-any-return]


class Render(nn.Module):
    """Residual pointwise block at 1/4 whose hidden layer gets the body's features added."""

    def __init__(self, channels: int, body: int) -> None:
        super().__init__()
        self.condition = Pointwise(body, 2 * channels)
        self.up = Upsample(4)
        self.expand = Pointwise(channels, 2 * channels)
        self.join = Add(relu=True)
        self.project = Pointwise(2 * channels, channels)
        self.add = Add()

    def forward(self, x: Tensor, body: Tensor) -> Tensor:
        return self.add(x, self.project(self.join(self.expand(x), self.up(self.condition(body)))))  # type: ignore[no-any-return]


class Synthesis(nn.Module):
    """y_hat [B, 128, h, w] -> RGB - 0.5 [B, 3, 16h, 16w]

    A body at 1/16 conditions a renderer at 1/4: PULSE's shape (arXiv 2609.18602) with addition for modulation,
    which integer arithmetic does exactly.
    """

    def __init__(self, body: int = 176, channels: int = 32) -> None:
        super().__init__()
        self.enter = Pointwise(LATENTS, body)
        self.body = Block(body, 5)
        self.canvas = Pointwise(LATENTS, 16 * channels)
        self.unfold = DepthToSpace(4)
        self.render1 = Render(channels, body)
        self.render2 = Render(channels, body)
        self.out = Pointwise(channels, 48)
        self.join = DepthToSpace(4)

    def forward(self, y_hat: Tensor) -> Tensor:
        body = self.body(self.enter(y_hat))
        x = self.unfold(self.canvas(y_hat))
        return self.join(self.out(self.render2(self.render1(x, body), body)))  # type: ignore[no-any-return]


class Gains(nn.Module):
    """What quality changes, by channel: learned at `KNOTS` qualities and interpolated linearly in the log domain."""

    def __init__(self) -> None:
        super().__init__()
        octaves = 0.5 * math.log2(200.0)  # the optimal step goes with the square root of the rate weight
        ramp = torch.linspace(octaves / 2, -octaves / 2, KNOTS)
        self.log2_step = nn.Parameter(ramp[:, None].repeat(1, LATENTS))
        self.log2_scale = nn.Parameter(torch.zeros(KNOTS, LATENTS))  # of y, beside what the step implies
        self.log2_hyper_gain = nn.Parameter(torch.zeros(KNOTS, HYPER))
        self.log2_hyper_scale = nn.Parameter(torch.zeros(KNOTS, HYPER))

    @staticmethod
    def at(knots: Tensor, quality: Tensor) -> Tensor:
        """Values [B, C, 1, 1] of a knot table [KNOTS, C] at qualities [B]."""
        position = (quality * ((KNOTS - 1) / 100.0)).clamp(0, KNOTS - 1)
        index = position.floor().clamp(max=KNOTS - 2).long()
        return torch.lerp(knots[index], knots[index + 1], (position - index)[:, None])[:, :, None, None]


class Coded(NamedTuple):
    """Outcome of a pass through the float codec: RGB in 0..1 (not clamped) and bits per picture, each [B]."""

    reconstruction: Tensor
    latent_bits: Tensor
    hyper_bits: Tensor


def anchor_mask(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Checkerboard [1, 128, h, w] of the anchors, 1 or 0; the second half of the channels has the other colour."""
    parity = torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)
    half = (torch.arange(LATENTS, device=device) >= LATENTS // 2).long()
    return ((parity[None] + half[:, None, None]) % 2 == 0).float()[None]


class Codec(nn.Module):
    """All networks, and the float model of coding: rate with uniform noise, distortion with rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.analysis = Analysis()
        self.latent = Pointwise(136, LATENTS)
        self.hyper_analysis = HyperAnalysis()
        self.rows = Pointwise(HYPER, 16 * LATENTS)
        self.rows_unfold = DepthToSpace(4)
        self.hyper_synthesis = HyperSynthesis()
        self.context = Context()
        self.synthesis = Synthesis()
        self.gains = Gains()
        self.step_grid: nn.Module = nn.Identity()  # quantization puts the steps on the integers' grid

    def forward(self, image: Tensor, quality: Tensor) -> Coded:
        """image [B, 3, H, W] in 0..1, H and W multiples of 64; quality [B] in 0..100."""
        gains, noisy = self.gains, self.training
        features = self.analysis(image - 0.5)
        with torch.autocast(image.device.type, enabled=False):  # bfloat16 has too few digits for y
            y = self.latent(features.float())
        z = self.hyper_analysis(y).float() * torch.exp2(gains.at(gains.log2_hyper_gain, quality))
        z_hat = round_ste(z)
        z_row = row_from_log2_scale(gains.at(gains.log2_hyper_scale, quality))
        hyper_bits = gaussian_bits(_perturb(z) if noisy else z_hat, z_row).sum((1, 2, 3))

        channel_step = gains.at(gains.log2_step, quality)
        log2_scale = self.rows_unfold(self.rows(z_hat)).float() + gains.at(gains.log2_scale, quality) - channel_step
        row = row_from_log2_scale(log2_scale)
        context, mean0, log2_step = (t.float() for t in self.hyper_synthesis(z_hat))
        step = torch.exp2(channel_step + clamp_ste(log2_step, -LOG2_STEP_LIMIT, LOG2_STEP_LIMIT))
        step = self.step_grid(step)
        anchor = anchor_mask(y.shape[2], y.shape[3], y.device)
        anchors = (mean0 + step * round_ste((y - mean0) / step)) * anchor
        mean1 = self.context(context, anchors).float()
        mean = mean0 * anchor + mean1 * (1 - anchor)
        symbol = (y - mean) / step
        rounded = round_ste(symbol)
        latent_bits = gaussian_bits(_perturb(symbol) if noisy else rounded, row).sum((1, 2, 3))
        reconstruction = self.synthesis(mean + step * rounded).float() + 0.5
        return Coded(reconstruction, latent_bits, hyper_bits)


def _perturb(x: Tensor) -> Tensor:
    return x + torch.rand_like(x) - 0.5


def pad_to_stride(image: Tensor) -> Tensor:
    """Replicate the last row and column of [B, C, H, W] until both sides are multiples of 64."""
    h, w = image.shape[2:]
    return F.pad(image, (0, -w % STRIDE, 0, -h % STRIDE), mode="replicate")
