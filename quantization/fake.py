"""Fake quantization: a float network that computes what its integer network will compute, with gradients.

A network is traced into its leaf operations. Every tensor gets a power-of-two scale. The inputs and the output of a
sum, or of a layer that moves pixels, share one. Weights get power-of-two scales per output channel and obey the
tie-free rule (see `network`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ..models.layers import (
    Add,
    DepthToSpace,
    Depthwise,
    Pointwise,
    SpaceToDepth,
    Upsample,
    apply_function,
    relu,
    round_ste,
)
from .errors import ModelError, Rule
from .network import OPERATIONS, RULES, IntegerNetwork, Kind, Layer, Spec

TrainingRule = Literal["free", "cpu", "strict"]
"""A tie-free rule, or `free`: 8-bit weights with any scale, to measure what the rules cost."""


CONVOLUTIONS = (Pointwise, Depthwise)
KINDS: dict[type[nn.Module], Kind] = {
    Pointwise: "pointwise", Depthwise: "depthwise", Add: "add", Upsample: "upsample", SpaceToDepth: "space_to_depth",
    DepthToSpace: "depth_to_space",
}  # fmt: skip


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in KINDS


@dataclass(frozen=True)
class Node:
    """One operation of a traced network: its output tensor's name, the module, its input tensors' names."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]


def trace(network: nn.Module) -> tuple[list[str], list[Node], list[str]]:
    """(input names, operations in order, output names); TypeError unless a network is made of `models.layers` only."""
    inputs: list[str] = []
    nodes: list[Node] = []
    outputs: list[str] = []
    names: dict[fx.Node, str] = {}
    for node in _Tracer().trace(network).nodes:
        if node.op == "placeholder":
            names[node] = node.name
            inputs.append(node.name)
        elif node.op == "call_module":
            names[node] = str(node.target).replace(".", "_")
            sources = tuple(names[a] for a in node.args if isinstance(a, fx.Node))
            nodes.append(Node(names[node], network.get_submodule(str(node.target)), sources))
        elif node.op == "output":
            result = node.args[0]
            outputs = [names[a] for a in (result if isinstance(result, tuple) else (result,)) if isinstance(a, fx.Node)]
        else:
            raise TypeError(f"{node.op} {node.target}: networks are made of models.layers only")
    return inputs, nodes, outputs


def weight_exponents(weight: Tensor, multiple: int) -> Tensor:
    """Exponents of the weight scales, float32 [out], of least squared error for each output channel (axis 0).

    Integers are multiples of `multiple` within -127..127. Candidates are the least exponent that clips nothing and the
    next smaller one.
    """
    limit = 127 // multiple * multiple
    flat = weight.detach().flatten(1)
    whole = torch.ceil(torch.log2(flat.abs().amax(1).clamp(min=1e-12) / limit))

    def error(exponent: Tensor) -> Tensor:
        unit = multiple * torch.exp2(exponent)[:, None]
        bound = limit // multiple
        return (torch.round(flat / unit).clamp(-bound, bound) * unit - flat).square().sum(1)

    return torch.where(error(whole - 1) < error(whole), whole - 1, whole)


class _FakeQuantize(torch.autograd.Function):
    """clamp(floor(x / scale + 1/2)) * scale; no gradient where it clamps.

    Like torch.fake_quantize_per_tensor_affine, but several times faster on a CPU, usable in CUDA graphs, and with the
    integers' rounding. The scale is a number or a tensor.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float | Tensor, low: int, high: int) -> Tensor:
        y = (x * (1 / scale)).add_(0.5).floor_()
        ctx.save_for_backward(y)
        ctx.bounds = low - 0.5, high + 0.5
        return y.clamp(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (y,) = ctx.saved_tensors
        # One pass over floats; a product with a boolean mask takes five times as long.
        return torch.ops.aten.hardtanh_backward(grad, y, *ctx.bounds), None, None, None


def fake_quantize(x: Tensor, scale: float | Tensor, low: int, high: int) -> Tensor:
    """The nearest multiple of `scale`, halves up, clamped to `low`..`high` times it; no gradient where it clamps."""
    return apply_function(_FakeQuantize, x, scale, low, high)


class _FakeQuantizeWeight(torch.autograd.Function):
    """As `_FakeQuantize`, but the gradient passes everywhere, so that a weight at its bound can come back.

    `settle` keeps weights within their bounds.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, bound: int) -> Tensor:
        return (weight / scale).add_(0.5).floor_().clamp_(-bound, bound).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


FULL = 0.02  # part of a row's weights at the bound beyond which its scale is doubled


@torch.no_grad()
def _settle(
    module: Pointwise | Depthwise, exponent: Tensor, bound: int, least: float, most: float, adapt: bool
) -> None:
    """Clip a convolution's weights to +-`bound` times their scales 2**exponent [out]; see `settle`."""
    weight = rescaled(module)[0]
    limit = bound * _per_row(torch.exp2(exponent), weight)
    clipped = torch.maximum(torch.minimum(weight, limit), -limit)
    # In the units of the parameters, which `rescaled` has multiplied.
    unscaled = module.weight * (clipped / weight)
    module.weight.copy_(torch.where(clipped == weight, module.weight, unscaled))
    if adapt:
        part = (clipped / limit).flatten(1).abs()
        change = ((part >= 0.999).float().mean(1) > FULL).float() - (part.amax(1) < 0.49).float()
        exponent.copy_((exponent + change).clamp(least, most))


def settle(codec: nn.Module, adapt: bool) -> None:
    """Clip all weights to the range of their scales. adapt: also fit the scales to the weights.

    Training moves weights far from those that the scales were chosen for. Without this, after 30,000 steps up to a
    fifth of a layer's weights stood at their bounds, without a gradient, and other rows used less than half of their
    range.
    """
    for module in codec.modules():
        if isinstance(module, (FakeQuantNetwork, FakeQuantProjection)):
            module.settle(adapt)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1x1 convolution as a matrix product, which is faster in float32."""
    return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def _per_row(values: Tensor, weight: Tensor) -> Tensor:
    """Values by output channel, shaped to go with a weight."""
    return values.view(-1, *[1] * (weight.ndim - 1))


@torch.no_grad()
def train_unscaled(module: Pointwise | Depthwise, weight: Tensor, bias: Tensor) -> None:
    """Give a convolution the parameters it had before its channels were rescaled, and keep the ratios in buffers.

    It computes the same. But the steps of Muon and Adam do not depend on the weights' sizes: rescaled weights, some of
    them a thousand times smaller, would not survive them.
    """
    module.register_buffer("weight_gain", torch.where(weight == 0, 1.0, module.weight / weight))
    module.register_buffer("bias_gain", torch.where(bias == 0, 1.0, module.bias / bias))
    module.weight = nn.Parameter(weight)
    module.bias = nn.Parameter(bias)


@torch.no_grad()
def train_balanced(module: Pointwise | Depthwise) -> None:
    """`train_unscaled` for a convolution whose earlier parameters are not known.

    Its outputs and inputs are scaled until all rows and columns are as large as those of a new one (Sinkhorn and Knopp,
    "Concerning nonnegative matrices and doubly stochastic matrices", 1967).
    """
    weight = module.weight.flatten(1).double()
    usual = 1 / math.sqrt(3 * weight.shape[1])
    rows, columns = torch.ones(len(weight), 1).double(), torch.ones(1, weight.shape[1]).double()
    # The columns of a depthwise convolution are the taps, which are one input.
    for axis, scale in [(1, rows), (0, columns)] * 10 if isinstance(module, Pointwise) else [(1, rows)]:
        size = (weight / (rows * columns)).square().mean(axis, keepdim=True).sqrt() / usual
        scale.mul_(torch.where(size == 0, 1.0, size))
    weight_gain, bias_gain = (rows * columns).float().view_as(module.weight), rows[:, 0].float()
    module.register_buffer("weight_gain", weight_gain)
    module.register_buffer("bias_gain", bias_gain)
    module.weight.div_(weight_gain)
    module.bias.div_(bias_gain)


def rescaled(module: Pointwise | Depthwise) -> tuple[Tensor, Tensor]:
    """The weight and bias that a convolution computes with; see `train_unscaled`."""
    weight: Tensor = module.weight
    bias: Tensor = module.bias
    if "weight_gain" not in module._buffers:
        return weight, bias
    return weight * module.weight_gain, bias * module.bias_gain


def _assign(module: Pointwise | Depthwise, weight: Tensor, bias: Tensor) -> None:
    """Set a convolution's parameters; ModelError when they are of another shape."""
    if module.weight.shape != weight.shape:
        raise ModelError(f"weights are {list(weight.shape)}, not {list(module.weight.shape)}")
    module.weight.copy_(weight)
    module.bias.copy_(bias)


class FakeQuantNetwork(nn.Module):
    """A traced network with quantized inputs, weights, biases and activations.

    fixed: name -> exponent, of tensors whose scale is given; `calibrate` chooses the others.
    zero_points: name -> -128, of inputs that come from behind a ReLU.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        rule: TrainingRule,
        fixed: dict[str, int],
        zero_points: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.rule = name, rule
        self.network = network
        self.inputs, self.nodes, self.outputs = trace(network)
        self.zero_points = dict.fromkeys(self.inputs, 0) | (zero_points or {})
        group = {tensor: tensor for tensor in self.inputs}
        for node in self.nodes:
            convolution = isinstance(node.module, CONVOLUTIONS)
            rectified = bool(getattr(node.module, "relu", False))
            moves = OPERATIONS[KINDS[type(node.module)]].moves
            behind = self.zero_points[node.inputs[0]]
            self.zero_points[node.name] = behind if moves else -128 if rectified else 0
            group[node.name] = node.name
            if not convolution:
                for source in node.inputs:
                    old, new = group[source], group[node.name]
                    group = {k: new if v == old else v for k, v in group.items()}
        self.group = group
        self.channels: dict[str, int] = {}  # of the inputs
        self.exponents: dict[str, int] = {group[tensor]: exponent for tensor, exponent in fixed.items()}
        self.calibrated = False

    def get_extra_state(self) -> dict[str, int]:
        return dict(self.exponents)

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.exponents = dict(state)
        self.calibrated = True

    def exponent(self, tensor: str) -> int:
        """The scale of a tensor is 2**exponent."""
        return self.exponents[self.group[tensor]]

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Tensor, ...]]) -> None:
        """Choose the activations' exponents by least squared error on float inputs, then the weights' exponents."""
        candidates = list(range(-12, 4))
        errors: dict[str, Tensor] = {}

        def collect(tensor: str, x: Tensor) -> Tensor:
            group = self.group[tensor]
            if group not in self.exponents:
                part = [float((self._fake(tensor, x, e) - x).square().sum()) for e in candidates]
                errors[group] = errors.get(group, 0) + torch.tensor(part)
            return x

        for batch in batches:
            self.channels = {name: x.shape[1] for name, x in zip(self.inputs, batch, strict=True)}
            self.execute(batch, collect, lambda node, x: node.module(*x))
        for group, error in errors.items():
            self.exponents[group] = candidates[int(error.argmin())]
        for node in self.nodes:
            if isinstance(node.module, CONVOLUTIONS):
                if self.rule == "free":
                    found = torch.log2(node.module.weight.flatten(1).abs().amax(1).clamp(min=1e-12) / 127)
                else:
                    found = weight_exponents(node.module.weight, RULES[self.rule][0]).clamp(*self._exponents(node))
                node.module.register_buffer("weight_exponent", found)
        self.calibrated = True

    def settle(self, adapt: bool) -> None:
        """See `settle` of the module."""
        for node in self.nodes:
            if isinstance(node.module, CONVOLUTIONS):
                exponent = node.module.weight_exponent
                if self.rule == "free":
                    _settle(node.module, exponent, 127, -math.inf, math.inf, False)
                else:
                    multiple = RULES[self.rule][0]
                    _settle(node.module, exponent, 127 // multiple * multiple, *self._exponents(node), adapt)

    @torch.no_grad()
    def fit_scales(self, octaves: int) -> None:
        """Enlarge the weight scales of rows that would be clipped, by `octaves` at most."""
        for node in self.nodes:
            if isinstance(node.module, CONVOLUTIONS):
                assert self.rule != "free"
                multiple = RULES[self.rule][0]
                reach = rescaled(node.module)[0].flatten(1).abs().amax(1).clamp(min=1e-12)
                needed = torch.ceil(torch.log2(reach / (127 // multiple * multiple)))
                exponent = node.module.weight_exponent
                larger = torch.maximum(exponent, torch.minimum(needed, exponent + octaves))
                exponent.copy_(larger.clamp(*self._exponents(node)))

    def _exponents(self, node: Node) -> tuple[int, int]:
        """The least and the greatest exponent of a convolution's weights, whose shifts the rule allows."""
        assert self.rule != "free"
        _, _, least, most = RULES[self.rule]
        difference = self.exponent(node.name) - self.exponent(node.inputs[0])
        return difference - most, difference - least

    def _fake(self, tensor: str, x: Tensor, exponent: int) -> Tensor:
        zero = self.zero_points[tensor]
        return fake_quantize(x, 2.0**exponent, -128 - zero, 127 - zero)

    def _quantized(self, node: Node) -> tuple[Tensor, Tensor]:
        """Fake-quantized weight and bias of a convolution."""
        module = node.module
        assert isinstance(module, CONVOLUTIONS)
        exponent = module.weight_exponent
        weight, bias = rescaled(module)
        multiple = 1 if self.rule == "free" else RULES[self.rule][0]
        bound = 127 // multiple
        scale = _per_row(multiple * torch.exp2(exponent), weight)
        weight = apply_function(_FakeQuantizeWeight, weight, scale, bound)
        if self.rule != "free":
            unit = torch.exp2(exponent + self.exponent(node.inputs[0]))
            remainder = RULES[self.rule][1]
            period = 2 * remainder
            bias = (round_ste((bias / unit - remainder) / period) * period + remainder) * unit
        return weight, bias

    def _convolve(self, node: Node, sources: list[Tensor]) -> Tensor:
        module = node.module
        if isinstance(module, Pointwise):
            weight, bias = self._quantized(node)
            y = _pointwise(sources[0], weight, bias)
            return relu(y) if module.relu else y
        if isinstance(module, Depthwise):
            weight, bias = self._quantized(node)
            return F.conv2d(sources[0], weight, bias, padding=weight.shape[2] // 2, groups=weight.shape[0])
        out: Tensor = module(*sources)
        return out

    def execute(
        self,
        x: tuple[Tensor, ...],
        visit: Callable[[str, Tensor], Tensor],
        apply: Callable[[Node, list[Tensor]], Tensor],
    ) -> list[Tensor]:
        """The outputs. `apply` runs an operation; every tensor passes through `visit`."""
        tensors = {name: visit(name, value) for name, value in zip(self.inputs, x, strict=True)}
        for node in self.nodes:
            tensors[node.name] = visit(node.name, apply(node, [tensors[i] for i in node.inputs]))
        return [tensors[name] for name in self.outputs]

    def forward(self, *x: Tensor) -> Tensor | tuple[Tensor, ...]:
        def visit(tensor: str, value: Tensor) -> Tensor:
            return self._fake(tensor, value.float(), self.exponent(tensor))

        outputs = self.execute(x, visit, self._convolve)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    @staticmethod
    @torch.no_grad()
    def from_integer(integers: IntegerNetwork, network: nn.Module, rule: Rule) -> FakeQuantNetwork:
        """The inverse of `to_integer`: sets the weights of `network` to those of the integers.

        ModelError when the integers are another network's.
        """
        specs = integers.specs
        exponents = {name: spec.exponent for name, spec in specs.items()}
        zero_points = {name: spec.zero_point for name, spec in integers.inputs.items()}
        fake = FakeQuantNetwork(integers.name, network, rule, {}, zero_points)
        ours = [(node.name, node.inputs) for node in fake.nodes], tuple(fake.outputs), tuple(fake.inputs)
        theirs = [(layer.name, layer.inputs) for layer in integers.layers], integers.outputs, tuple(integers.inputs)
        if ours != theirs:
            raise ModelError(f"{integers.name}: not a network that can be trained here")
        fake.exponents = {group: exponents[name] for name, group in fake.group.items()}
        fake.channels = {name: spec.channels for name, spec in integers.inputs.items()}
        for node, layer in zip(fake.nodes, integers.layers, strict=True):
            if isinstance(node.module, CONVOLUTIONS):
                source = exponents[layer.inputs[0]]
                shift = torch.from_numpy(np.asarray(layer.shift, np.float32))
                exponent = layer.spec.exponent - source - shift
                weight = torch.from_numpy(np.asarray(layer.weight, np.float32))
                if isinstance(node.module, Depthwise):
                    weight = weight.permute(2, 0, 1)[:, None]
                bias = torch.from_numpy(np.asarray(layer.bias, np.float64)) * torch.exp2(exponent + source)
                _assign(node.module, weight * _per_row(torch.exp2(exponent), weight), bias)
                node.module.register_buffer("weight_exponent", exponent)
        fake.calibrated = True
        return fake

    @torch.no_grad()
    def to_integer(self) -> IntegerNetwork:
        """The integer network, checked against the rule. ValueError when the rule is `free`."""
        if self.rule == "free":
            raise ValueError("free scales have no integer twin")
        spec = {}
        layers = []
        for name in self.inputs:
            spec[name] = Spec(self.channels[name], self.exponent(name), self.zero_points[name])
        for node in self.nodes:
            kind = KINDS[type(node.module)]
            source = spec[node.inputs[0]]
            factor = int(getattr(node.module, "factor", 1))
            channels = int(OPERATIONS[kind].channels(source.channels, factor))
            parts: dict[str, np.ndarray] = {}
            if isinstance(node.module, CONVOLUTIONS):
                exponent = node.module.weight_exponent
                weight, bias = self._quantized(node)
                w = torch.round(weight / _per_row(torch.exp2(exponent), weight)).numpy().astype(np.int8)
                if isinstance(node.module, Depthwise):
                    w = np.ascontiguousarray(w[:, 0].transpose(1, 2, 0))
                b = torch.round(bias.double() / torch.exp2(exponent.double() + source.exponent)).numpy()
                shift = self.exponent(node.name) - source.exponent - exponent.numpy()
                parts = {"weight": w, "bias": b.astype(np.int32), "shift": shift.astype(np.int8)}
                channels = len(b)
            spec[node.name] = Spec(channels, self.exponent(node.name), self.zero_points[node.name])
            rectified = bool(getattr(node.module, "relu", False))
            layers.append(Layer(kind, node.name, node.inputs, spec[node.name], rectified, factor, **parts))
        inputs = {name: spec[name] for name in self.inputs}
        network = IntegerNetwork(self.name, inputs, tuple(layers), tuple(self.outputs))
        network.check(self.rule)
        return network


class FakeQuantProjection(nn.Module):
    """A 1x1 convolution with int8 weights, power-of-two scales and int32 sums.

    For the projections that the codec computes itself: latents and table indices. They are not requantized, so no
    tie-free rule applies.
    """

    weight_exponent: Tensor

    def __init__(self, projection: Pointwise) -> None:
        super().__init__()
        self.projection = projection
        self.register_buffer("weight_exponent", weight_exponents(projection.weight, 1))

    def settle(self, adapt: bool) -> None:
        """See `settle` of the module."""
        _settle(self.projection, self.weight_exponent, 127, -math.inf, math.inf, adapt)

    @torch.no_grad()
    def assign(self, weight: Tensor, exponent: Tensor, bias: Tensor) -> None:
        """The inverse of `integers`; ModelError when shapes differ."""
        _assign(self.projection, weight * torch.exp2(exponent)[:, None], bias)
        self.register_buffer("weight_exponent", exponent.float())

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """(weights, whole float32 numbers [out, in]; their exponents [out]; bias [out])"""
        exponent = self.weight_exponent
        weight, bias = rescaled(self.projection)
        scale = torch.exp2(exponent)[:, None]
        quantized = apply_function(_FakeQuantizeWeight, weight, scale, 127)
        return quantized / scale, exponent, bias

    def forward(self, x: Tensor) -> Tensor:
        integers, exponent, bias = self.integers()
        return _pointwise(x, integers * torch.exp2(exponent)[:, None], bias)
