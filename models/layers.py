"""The operations that the codec's networks are made of.

Each is one leaf module. Tracing a network (torch.fx) then yields a flat list of operations, which the quantizer, the
integer network and the exporters translate one by one. Tensors are [batch, channels, height, width]. Depth and space
change places in TFLite's channel order (dy, dx, c), not in torch's (c, dy, dx).

CONTRIBUTING.md lists what a new operation has to be added to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Convolution(nn.Module):
    """Buffers that quantization adds to a convolution: see `quantization.fake`."""

    weight_exponent: Tensor
    weight_gain: Tensor
    bias_gain: Tensor


class Pointwise(_Convolution):
    """1x1 convolution, optionally followed by ReLU. The weight is 2-D [out, in], the shape Muon wants."""

    def __init__(self, inputs: int, outputs: int, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.uniform_(self.weight, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight[:, :, None, None], self.bias)
        return relu(y) if self.relu else y


class Depthwise(_Convolution):
    """k x k convolution of each channel by itself, zero padding, stride 1; weight [channels, 1, k, k]."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.uniform_(self.weight, -1 / kernel, 1 / kernel)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[2] // 2, groups=x.shape[1])


class Add(nn.Module):
    """Sum of two tensors, optionally followed by ReLU."""

    def __init__(self, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return relu(a + b) if self.relu else a + b


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by an integer factor."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=float(self.factor), mode="nearest")


class SpaceToDepth(nn.Module):
    """[B, C, H, W] -> [B, r*r*C, H/r, W/r], channel order (dy, dx, c)."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.factor = block

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        r = self.factor
        # Through NHWC views: with channels_last memory this is a single copy.
        y = x.permute(0, 2, 3, 1).reshape(b, h // r, r, w // r, r, c).transpose(2, 3)
        return y.reshape(b, h // r, w // r, r * r * c).permute(0, 3, 1, 2)


class DepthToSpace(nn.Module):
    """[B, r*r*C, H, W] -> [B, C, r*H, r*W], channel order (dy, dx, c)."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.factor = block

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        r = self.factor
        y = x.permute(0, 2, 3, 1).reshape(b, h, w, r, r, c // (r * r)).transpose(2, 3)
        return y.reshape(b, h * r, w * r, c // (r * r)).permute(0, 3, 1, 2)


def apply_function(function: type[torch.autograd.Function], *inputs: object) -> Tensor:
    """`function.apply`, which torch does not type, of a function that returns one tensor."""
    y: Tensor = function.apply(*inputs)
    return y


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_min(0)
        ctx.save_for_backward(y)
        ctx.leak = _leak.get()
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        # Not torch.where: on a CPU that is forty times slower than arithmetic.
        on: Tensor = torch.ops.aten.threshold_backward(grad, y, 0)
        return on if ctx.leak is None else on + (grad - on).clamp_max(0) * ctx.leak


_leak: ContextVar[Tensor | None] = ContextVar("leak", default=None)


@contextmanager
def leaky_gradient(leak: Tensor) -> Iterator[None]:
    """While entered, an inactive ReLU passes `leak` times any gradient that would reactivate it.

    leak: a scalar tensor, read at each backward pass.

    With the plain gradient every hidden unit of the analysis went dead within a few thousand steps: while steps are
    large, a unit is noise to the layers behind it, and switching it off is the quickest remedy. But the leak is not the
    gradient of what is computed. Once steps are small, the loss is 1.5 % lower without it.
    """
    token = _leak.set(leak)
    try:
        yield
    finally:
        _leak.reset(token)


def relu(x: Tensor) -> Tensor:
    """max(x, 0)"""
    return apply_function(_Relu, x)


class _RoundSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _ClampSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        blocked = ((x < ctx.low) & (grad > 0)) | ((x > ctx.high) & (grad < 0))
        return grad.masked_fill(blocked, 0), None, None


def round_ste(x: Tensor) -> Tensor:
    """Round half up, as the integer networks do; the gradient passes straight through."""
    return apply_function(_RoundSTE, x)


def clamp_ste(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp that stops only gradients whose descent step would move further out of bounds."""
    return apply_function(_ClampSTE, x, low, high)


def at_quality(knots: Tensor, quality: Tensor) -> Tensor:
    """Values [B, ...] at qualities [B], 0 to 100, interpolated linearly between K equally spaced knots [K, ...]."""
    last = len(knots) - 1
    position = (quality * (last / 100)).clamp(0, last)
    index = position.floor().clamp(max=last - 1).long()
    return torch.lerp(knots[index], knots[index + 1], (position - index).reshape(-1, *[1] * (knots.ndim - 1)))
