"""Gradient descent on the latents of one picture, through the decoder, for `effort`.

The decoder is the integer model itself. Its networks run on float tensors that hold the same integers, with the same
rounding and clamping; gradients pass straight through the rounding. Quantization has no gradient, so a soft rounding of
the latent plus noise stands in for it. Rounding hardens and noise falls as the descent goes on. The noise makes latents
pay for precision that integers cannot hold.

Campos et al., "Content adaptive optimization for neural image compression", CVPR Workshops 2019; Agustsson and Theis,
"Universally quantized neural compression", NeurIPS 2020 (soft rounding); Yang, Bamler and Mandt, "Improving inference
for neural image compression", NeurIPS 2020 (annealing).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..models.layers import DepthToSpace, SpaceToDepth, Upsample, clamp_ste, round_ste
from ..models.perceptual import picture_bits
from ..models.postfilter import post_filter
from ..quantization.fake import fake_quantize
from ..quantization.network import Int8, IntegerNetwork, Layer
from .codec import Latents, anchor_mask
from .lagrangian import REACH, Lagrangian
from .visual import one_thread, to_tensor

# Learning rates in symbols, at qualities 0 and 100: at high qualities symbols are large, and moving them costs little.
# The sum of squares is shared among the iterations; a third is the most.
RATES = (0.064, 0.224)
MOMENTUM, SECOND_MOMENTUM = 0.9, 0.95
# Fewer iterations than this cannot average noise as wide as a symbol: they get less noise and smaller steps.
PATIENCE = 60

Quantize = Callable[[Tensor, Tensor], Tensor]
"""(latents less their means, noise from -1/2 to 1/2), of equal shape -> symbols, not always integers"""


class FloatNetwork:
    """An integer network on float tensors [1, C, H, W] that hold its integers, less their zero points.

    Equals `IntegerNetwork.run` while accumulators stay below 2**24.
    """

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network
        self.weights = {la.name: self._scaled(la) for la in network.layers if la.weight is not None}

    @staticmethod
    def _scaled(layer: Layer) -> tuple[Tensor, Tensor]:
        """Weight and bias scaled by 2**-shift: exact in float32."""
        assert layer.weight is not None
        assert layer.bias is not None
        assert layer.shift is not None
        scale = np.exp2(-layer.shift.astype(np.float32))
        bias = torch.from_numpy(layer.bias * scale).float()
        if layer.kind == "pointwise":
            return torch.from_numpy(layer.weight * scale[:, None]), bias
        return torch.from_numpy((layer.weight * scale).transpose(2, 0, 1)[:, None].copy()), bias

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """The outputs, in the network's order."""
        tensors = dict(zip(self.network.inputs, inputs, strict=True))
        for layer in self.network.layers:
            x = tensors[layer.inputs[0]]
            if layer.kind == "pointwise":
                # A matrix product is faster in float32 than a convolution.
                y = F.linear(x.permute(0, 2, 3, 1), *self.weights[layer.name]).permute(0, 3, 1, 2)
            elif layer.kind == "depthwise":
                weight, bias = self.weights[layer.name]
                y = F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=len(weight))
            elif layer.kind == "add":
                y = x + tensors[layer.inputs[1]]
            elif layer.kind == "upsample":
                y = Upsample(layer.factor)(x)
            else:
                move = DepthToSpace if layer.kind == "depth_to_space" else SpaceToDepth
                y = move(layer.factor)(x)
            if layer.kind in ("pointwise", "depthwise", "add"):
                zero = layer.spec.zero_point
                y = fake_quantize(y, 1.0, 0 if layer.relu else -128 - zero, 127 - zero)
            tensors[layer.name] = y
        return [tensors[name] for name in self.network.outputs]


def _array(tensor: Tensor) -> NDArray[np.float32]:
    """[H, W, C] of [1, C, H, W]."""
    return np.asarray(tensor.detach()[0].permute(1, 2, 0).numpy())


class Decoder:
    """The Lagrangian of one picture as a differentiable function of its latents.

    z is fixed, and so are the steps, the means of the anchors and the table indices of y. Latents are float32
    [1, C, h, w], in units of their steps.
    """

    def __init__(self, lagrangian: Lagrangian, latents: Latents) -> None:
        codec, quality_hundredths = lagrangian.codec, lagrangian.quality_hundredths
        networks = codec.model.networks
        self.lagrangian, self.codec = lagrangian, codec
        self.context, self.synthesis = FloatNetwork(networks["context"]), FloatNetwork(networks["synthesis"])
        features, mean, step = codec.hyper_synthesis(latents.z, quality_hundredths)
        zero_point = next(iter(networks["context"].inputs.values())).zero_point
        self.features, self.mean, self.step = to_tensor(features) - zero_point, to_tensor(mean), to_tensor(step)
        self.predicted = codec.predicted_indices(latents.z, quality_hundredths)
        self.indices = codec.latent_indices(self.predicted)
        self.anchor = torch.from_numpy(anchor_mask(*latents.y.shape)).permute(2, 0, 1)[None]
        self.unit = to_tensor(np.exp2(codec.fine_bits)[None, None])
        self.wide = torch.from_numpy(codec.model.wide.astype(np.int64))
        self.detail_step = to_tensor(codec.detail_step(quality_hundredths)[None, None])
        self.target = to_tensor(lagrangian.rgb)
        filters = codec.filters(quality_hundredths)
        self.filters = None if filters is None else torch.from_numpy(filters[None].astype(np.float32))
        self.quality = torch.tensor([quality_hundredths / 100])

    def loss(self, parts: Sequence[Tensor], noise: Sequence[Tensor], quantize: Quantize) -> Tensor:
        """Bits of (y, d) plus the error in bits; noise has their shapes. Exact where `quantize` gives integers."""
        y, details = parts
        coded = self._coded(self.indices)
        anchors = self.mean + self.step * coded * quantize(y - self.mean / self.step, noise[0])
        coarse = round_ste(clamp_ste(anchors / self.unit, -128, 127))
        (mean,) = self.context(self.features, coarse * self.anchor)
        mean = torch.where(self.anchor, self.mean, mean * self.unit)
        symbols = coded * quantize(y - mean / self.step, noise[0])
        whole = symbols.detach().round().int()[0].permute(1, 2, 0).numpy()
        detail_indices = self.codec.detail_indices(self.predicted, whole)
        detail_symbols = self._coded(detail_indices) * quantize(details, noise[1])

        y_hat = mean + self.step * symbols
        planes = clamp_ste(y_hat / self.unit, -128, 127)
        coarse = round_ste(planes[:, self.wide])
        planes = planes.index_copy(1, self.wide, coarse)
        # The fine planes carry the rounding error of the coarse ones; gradients pass through the coarse ones.
        fine = (y_hat[:, self.wide] - 4 * coarse).detach().clamp(-128, 127)
        d_hat = clamp_ste(self.detail_step * detail_symbols, -128, 127)
        (pixels,) = self.synthesis(torch.cat([planes, fine], 1), d_hat)
        height, width = self.target.shape[2:]
        pixels = pixels[:, :, :height, :width] + 128
        if self.filters is not None:
            pixels = post_filter(pixels, self.filters)
        if self.lagrangian.visual:
            error = picture_bits(self.target, pixels, self.quality).sum()
        else:
            error = (pixels - self.target).square().sum() * self.lagrangian.error_bits
        return error + self._rate(symbols, self.indices) + self._rate(detail_symbols, detail_indices)

    def _coded(self, indices: NDArray[np.uint8]) -> Tensor:
        return to_tensor(indices >= self.codec.model.skip)

    def _rate(self, symbols: Tensor, indices: NDArray[np.uint8]) -> Tensor:
        """Bits, interpolated linearly between integer symbols."""
        below = np.clip(np.floor(_array(symbols)), -REACH, REACH - 1).astype(np.int32)
        bits = self.lagrangian.bits(below, indices)
        slope = self.lagrangian.bits(below + 1, indices) - bits
        return (to_tensor(bits) + to_tensor(slope) * (symbols - to_tensor(below))).sum()

    def latents(self, z: Int8, y: Tensor, details: Tensor) -> Latents:
        """The latents in the units of the codec."""
        with torch.no_grad():
            parts = [np.rint(256 * _array(x)).astype(np.int64) for x in (y * self.step, details * self.detail_step)]
        return self.codec.bounded(z, *parts)


@one_thread()
def refine(
    lagrangian: Lagrangian, latents: Latents, iterations: int, progress: Callable[[float], None] | None
) -> Latents:
    """Latents whose nearest symbols cost less, after so many iterations of gradient descent.

    z is kept: optimising it too (and with it steps, means and table indices) gained another 0.05 % and took a third
    more time.

    The optimiser is Adam with one second moment per channel, so latents with small gradients move little.
    """
    decoder = Decoder(lagrangian, latents)
    y = to_tensor(latents.y) / 256 / decoder.step
    details = to_tensor(latents.details) / 256 / decoder.detail_step
    parameters = [x.contiguous(memory_format=torch.channels_last).requires_grad_() for x in (y, details)]
    first = [torch.zeros_like(x) for x in parameters]
    second = [torch.zeros(1, x.shape[1], 1, 1) for x in parameters]
    generator = torch.Generator().manual_seed(0)
    low, high = RATES
    patience = min(1.0, math.sqrt(iterations / PATIENCE))
    growth = (high / low) ** (lagrangian.quality_hundredths / 10000)
    first_rate = patience * low * growth / max(3, math.sqrt(iterations))
    for i in range(iterations):
        part = i / iterations
        noise = [torch.rand(x.shape, generator=generator) - 0.5 for x in parameters]
        loss = decoder.loss(parameters, noise, softly(patience * 10**-part, min(4 * 10**part, 20.0)))
        gradients = torch.autograd.grad(loss, parameters)
        rate = first_rate * min(1, 2.1 - 2 * part)
        with torch.no_grad():
            for x, g, m, v in zip(parameters, gradients, first, second, strict=True):
                m.lerp_(g, 1 - MOMENTUM)
                v.lerp_(g.square().mean((2, 3), keepdim=True), 1 - SECOND_MOMENTUM)
                scale = (v / (1 - SECOND_MOMENTUM ** (i + 1))).sqrt().clamp(min=1e-12)
                x.sub_(m / scale, alpha=rate / (1 - MOMENTUM ** (i + 1)))
        if progress is not None:
            progress((i + 1) / iterations)
    return decoder.latents(latents.z, *parameters)


def softly(amplitude: float, sharpness: float) -> Quantize:
    """Soft rounding of the latent plus noise of that amplitude: a staircase smoothed by tanh, with gradients."""

    def quantize(x: Tensor, noise: Tensor) -> Tensor:
        moved = x + amplitude * noise
        below = moved.detach().floor()
        return below + 0.5 + torch.tanh(sharpness * (moved - below - 0.5)) * (0.5 / math.tanh(sharpness / 2))

    return quantize
