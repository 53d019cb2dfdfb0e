"""Integer network -> ExecuTorch's .pte: the same integers, through torch.export, for XNNPACK or portable kernels.

Every layer becomes `dequantize -> float operation -> quantize`, ExecuTorch's form of int8 networks. No quantizer runs:
weights, biases and scales are the model's, and all scales are powers of two.

    xnnpack    the partitioner folds each such group into one int8 kernel. Tensors keep the layout [1, H, W, C], so
               pointwise convolutions are matrix products over the last axis, and only depthwise ones need transposing.
               The whole network becomes one call of the delegate, or the export fails.
    vulkan     the partitioner takes the layers that it has int8 kernels for; portable kernels run the rest.
    portable   runs the groups as they are, in float32. Every product and partial sum is an integer times one power of
               two; while the integer stays below 2**24, float32 is exact in any order.

Shapes are fixed, because ExecuTorch plans memory ahead: pictures run tile by tile.

Importing this needs the packages torch and executorch.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401, registers the operators below

from ..quantization.errors import Rule
from ..quantization.model import IntegerModel
from ..quantization.network import CONVOLUTIONS, IntegerNetwork, Layer, Spec, largest_accumulators
from .errors import ExportError
from .executorch import Backend
from .tiles import PIXELS_PER_CELL, require_whole

FLOAT_EXACT = 1 << 24
_quantized = torch.ops.quantized_decomposed


def model_to_pte(model: IntegerModel, pixels: int, backend: Backend) -> dict[str, bytes]:
    """Return the program of every network of a model, by name, for pictures of pixels x pixels.

    pixels: a multiple of 64. Raises as `to_pte` does.
    """
    return {
        name: to_pte(network, (pixels // PIXELS_PER_CELL[name],) * 2, model.rule, backend)
        for name, network in model.networks.items()
    }


def to_pte(network: IntegerNetwork, size: tuple[int, int], rule: Rule, backend: Backend) -> bytes:
    """Return the program of a network: method `forward`, inputs and outputs int8 [1, height, width, channels].

    size: (height, width) of all inputs. Raises ModelError when the network breaks the rule,
    ExportError when the size is not a multiple of the network's strides, when float32 could not hold an
    accumulator, or when XNNPACK would not run all of it.
    """
    network.check(rule)
    _require_float_exact(network)
    require_whole(network, size)
    module = (_Delegated if backend == "xnnpack" else _Plain)(network).eval()
    inputs = tuple(torch.zeros((1, *size, spec.channels), dtype=torch.int8) for spec in network.inputs.values())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        lowered = to_edge_transform_and_lower(
            torch.export.export(module, inputs),
            partitioner=_partitioners(backend),
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        if backend == "xnnpack":
            _require_one_call(network.name, lowered.exported_program().graph)
        return bytes(lowered.to_executorch().buffer)


def _partitioners(backend: Backend) -> list[Any]:
    if backend == "xnnpack":
        return [XnnpackPartitioner()]
    if backend == "vulkan":
        from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

        return [VulkanPartitioner({})]
    return []


def _require_one_call(name: str, graph: torch.fx.Graph) -> None:
    calls = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    left = {call for call in calls if "getitem" not in call and "executorch_call_delegate" not in call}
    if left:
        raise ExportError(f"{name}: XNNPACK does not take {', '.join(sorted(left))}")


def _require_float_exact(network: IntegerNetwork) -> None:
    specs = network.specs
    for layer in network.layers:
        if layer.kind in CONVOLUTIONS and (largest_accumulators(layer, specs[layer.inputs[0]]) >= FLOAT_EXACT).any():
            raise ExportError(f"{network.name}/{layer.name}: float32 cannot hold its accumulators exactly")


def _quantize(x: Tensor, spec: Spec) -> Tensor:
    y: Tensor = _quantized.quantize_per_tensor.default(x, 2.0**spec.exponent, spec.zero_point, -128, 127, torch.int8)
    return y


def _dequantize(q: Tensor, spec: Spec) -> Tensor:
    y: Tensor = _quantized.dequantize_per_tensor.default(q, 2.0**spec.exponent, spec.zero_point, -128, 127, torch.int8)
    return y


class _Plain(nn.Module):
    """The network on int8 [1, H, W, C]; layers that only move pixels stay in int8."""

    def __init__(self, network: IntegerNetwork) -> None:
        super().__init__()
        self.network = network
        self.specs = network.specs
        for layer in network.layers:
            if layer.weight is not None:
                self._keep(layer)

    def _keep(self, layer: Layer) -> None:
        weight, bias, shift = layer.convolution()
        source = self.specs[layer.inputs[0]].exponent
        scale = layer.spec.exponent - source - shift.astype(np.int32)
        if layer.kind == "depthwise":
            weight = weight.transpose(2, 0, 1)[:, None]
        arrays: dict[str, Any] = {
            "weight": weight,
            "scale": np.ldexp(np.float32(1), scale),
            "zero": np.zeros(len(scale), np.int64),
            "bias": np.ldexp(bias.astype(np.float32), scale + source),
        }
        for part, array in arrays.items():
            # Strides from NumPy can look like channels-last to the lowering, which then writes wrong programs.
            tensor = torch.from_numpy(array.copy()).clone(memory_format=torch.contiguous_format)
            self.register_buffer(f"{layer.name}_{part}", tensor)

    def _weight_and_bias(self, layer: Layer) -> tuple[Tensor, Tensor]:
        weight, scale, zero, bias = (self.get_buffer(f"{layer.name}_{p}") for p in ("weight", "scale", "zero", "bias"))
        return _quantized.dequantize_per_channel.default(weight, scale, zero, 0, -127, 127, torch.int8), bias

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        tensors = dict(zip(self.network.inputs, inputs, strict=True))
        for layer in self.network.layers:
            sources = [tensors[name] for name in layer.inputs]
            if layer.kind in ("pointwise", "add"):
                x = [_dequantize(q, self.specs[name]) for q, name in zip(sources, layer.inputs, strict=True)]
                y = x[0] + x[1] if layer.kind == "add" else nn.functional.linear(x[0], *self._weight_and_bias(layer))
                tensors[layer.name] = self._activate(y, layer)
            elif layer.kind == "depthwise":
                tensors[layer.name] = self._depthwise(sources[0], layer)
            else:
                tensors[layer.name] = self._move(sources[0], layer)
        return tuple(tensors[name] for name in self.network.outputs)

    @staticmethod
    def _activate(y: Tensor, layer: Layer) -> Tensor:
        # With a zero point of -128, quantizing itself clamps at zero.
        return _quantize(torch.relu(y) if layer.relu and layer.spec.zero_point == 0 else y, layer.spec)

    def _depthwise(self, q: Tensor, layer: Layer) -> Tensor:
        source = self.specs[layer.inputs[0]]
        weight, bias = self._weight_and_bias(layer)
        x = _dequantize(self._permute(q, (0, 3, 1, 2), source), source)
        y = nn.functional.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=weight.shape[0])
        return self._permute(self._activate(y, layer), (0, 2, 3, 1), layer.spec)

    def _move(self, q: Tensor, layer: Layer) -> Tensor:
        n, h, w, c = q.shape
        f, spec = layer.factor, layer.spec
        if layer.kind == "upsample":
            columns = torch.cat([q] * f, 3).reshape(n, h, w * f, c)
            return torch.cat([columns] * f, 2).reshape(n, h * f, w * f, c)
        if layer.kind == "space_to_depth":
            blocks, result = (n, h // f, f, w // f, f, c), (n, h // f, w // f, f * f * c)
        else:
            blocks, result = (n, h, w, f, f, c // (f * f)), (n, h * f, w * f, c // (f * f))
        swapped = self._permute(self._reshape(q, blocks, spec), (0, 1, 3, 2, 4, 5), spec)
        return self._reshape(swapped, result, spec)

    def _permute(self, q: Tensor, order: tuple[int, ...], spec: Spec) -> Tensor:
        return q.permute(order)

    def _reshape(self, q: Tensor, shape: tuple[int, ...], spec: Spec) -> Tensor:
        return q.reshape(shape)


class _Delegated(_Plain):
    """The same with every operation between `dequantize` and `quantize`, as XNNPACK's partitioner expects it."""

    def __init__(self, network: IntegerNetwork) -> None:
        super().__init__(network)
        for layer in network.layers:
            if layer.kind == "upsample":
                nothing = torch.full((1, 1, layer.factor, 1, layer.factor, 1), layer.spec.zero_point, dtype=torch.int8)
                self.register_buffer(f"{layer.name}_nothing", nothing)

    def _permute(self, q: Tensor, order: tuple[int, ...], spec: Spec) -> Tensor:
        return _quantize(_dequantize(q, spec).permute(order), spec)

    def _reshape(self, q: Tensor, shape: tuple[int, ...], spec: Spec) -> Tensor:
        return _quantize(_dequantize(q, spec).reshape(shape), spec)

    def _move(self, q: Tensor, layer: Layer) -> Tensor:
        """Upsample by adding zeros that XNNPACK broadcasts; it cannot concatenate a tensor with itself."""
        if layer.kind != "upsample":
            return super()._move(q, layer)
        n, h, w, c = q.shape
        cells = _dequantize(self._reshape(q, (n, h, 1, w, 1, c), layer.spec), layer.spec)
        nothing = _dequantize(self.get_buffer(f"{layer.name}_nothing"), layer.spec)
        spread = _quantize(cells + nothing, layer.spec)
        return self._reshape(spread, (n, h * layer.factor, w * layer.factor, c), layer.spec)
