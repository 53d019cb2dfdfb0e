"""Integer network -> .tflite: the same integers, with scales that make all kernels compute the same bits.

The flatbuffer is written field by field, without a converter that could recalibrate it. Exactness depends on the
weight scale of each output channel: a kernel multiplies the accumulator by in_scale * weight_scale / out_scale, which
has to be 2**-shift.

    strict  exactly that power of two
    cpu     the float32 just below it: an odd accumulator is never a tie, and shrinking by 2**-24 makes the
            kernels that round once and those that round twice agree

Some kernels convert the accumulator to float32, which has 24 bits. An output is at most 255 steps above its zero
point, so an accumulator that does not saturate is below 2**(shift + 8). With cpu, the shrinking must stay below the
distance of 1 to the next tie, so shifts end at 15. With strict the distance is 2 and nothing shrinks: 17. One more
breaks some kernel.

An addition's kernels rescale both inputs; with equal scales that is exact. Only tensor shapes in a file depend on
height and width, so `Interpreter.resize_tensor_input` runs it at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from ..quantization.errors import Rule
from ..quantization.model import IntegerModel
from ..quantization.network import IntegerNetwork, Layer, Spec
from .tiles import DEFAULT_PIXELS, PIXELS_PER_CELL, require_whole

_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "ADD": 2, "CONCATENATION": 2}
"""Lowest operator versions with int8; 1 for operators not listed."""


def model_to_tflite(model: IntegerModel, pixels: int = DEFAULT_PIXELS) -> dict[str, bytes]:
    """Return the flatbuffer of every network of a model, by name, shaped for a square picture.

    pixels: the picture's side, a multiple of 64. Raises as `to_tflite` does.
    """
    return {
        name: to_tflite(network, (pixels // PIXELS_PER_CELL[name],) * 2, model.rule)
        for name, network in model.networks.items()
    }


def to_tflite(network: IntegerNetwork, size: tuple[int, int], rule: Rule) -> bytes:
    """Return the flatbuffer of a network: inputs and outputs int8 [1, height, width, channels].

    size: (height, width) of all inputs. Tensors keep the names they have in the network. Raises ModelError
    when the network breaks the rule, ExportError when the size is not a multiple of the network's
    strides.
    """
    network.check(rule)
    require_whole(network, size)
    writer = _Writer(network, size, rule)
    for name, spec in network.inputs.items():
        writer.activation(name, size, spec)
    for layer in network.layers:
        writer.layer(layer)
    return writer.finish()


class _Writer:
    """Collects the objects of one flatbuffer; activations are found by name."""

    def __init__(self, network: IntegerNetwork, size: tuple[int, int], rule: Rule) -> None:
        self.network = network
        self.size = size
        self.rule = rule
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]  # buffer 0 is empty by convention
        self.operators: list[Any] = []
        self.codes: list[Any] = []
        self.code_index: dict[str, int] = {}
        self.index: dict[str, int] = {}

    def tensor(self, name: str, shape: Sequence[int], data: NDArray[Any] | None = None) -> Any:
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = [int(n) for n in shape]
        kind = np.dtype(np.int8) if data is None else data.dtype
        tensor.type = schema.TensorType.INT32 if kind == np.int32 else schema.TensorType.INT8
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.index[name] = len(self.tensors)
        self.tensors.append(tensor)
        return tensor

    def activation(self, name: str, size: tuple[int, int], spec: Spec) -> None:
        tensor = self.tensor(name, (1, *size, spec.channels))
        tensor.quantization = _quantization(np.array([2.0**spec.exponent]), spec.zero_point)

    def operator(self, kind: str, inputs: Sequence[str], output: str, options: Any) -> None:
        if kind not in self.code_index:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, kind)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = _VERSIONS.get(kind, 1)
            self.code_index[kind] = len(self.codes)
            self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.code_index[kind]
        operator.inputs = [self.index[i] for i in inputs]
        operator.outputs = [self.index[output]]
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(operator)

    def layer(self, layer: Layer) -> None:
        """One method for each kind of layer writes its operators."""
        numerator, denominator = self.network.strides[layer.name]
        height, width = (side * numerator // denominator for side in self.size)
        self.activation(layer.name, (height, width), layer.spec)
        getattr(self, layer.kind)(layer)

    def pointwise(self, layer: Layer) -> None:
        weight = layer.convolution()[0][:, None, None, :]
        self.convolution("CONV_2D", layer, weight, 0, schema.Conv2DOptionsT())

    def depthwise(self, layer: Layer) -> None:
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = 1
        self.convolution("DEPTHWISE_CONV_2D", layer, layer.convolution()[0][None], 3, options)

    def convolution(self, kind: str, layer: Layer, weight: NDArray[Any], axis: int, options: Any) -> None:
        """axis: of the weight's output channels."""
        _, bias, shift = layer.convolution()
        source = self.network.specs[layer.inputs[0]]
        scale = np.ldexp(np.float32(1), layer.spec.exponent - source.exponent - shift.astype(np.int32))
        if self.rule == "cpu":
            scale = np.nextafter(scale, np.float32(0))
        tensor = self.tensor(f"{layer.name}/weight", weight.shape, weight)
        tensor.quantization = _quantization(scale, 0, axis)
        tensor = self.tensor(f"{layer.name}/bias", bias.shape, bias)
        tensor.quantization = _quantization(scale * np.float32(2.0**source.exponent), 0)
        options.padding = schema.Padding.SAME
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = _activation(layer.relu)
        self.operator(kind, (layer.inputs[0], f"{layer.name}/weight", f"{layer.name}/bias"), layer.name, options)

    def add(self, layer: Layer) -> None:
        options = schema.AddOptionsT()
        options.fusedActivationFunction = _activation(layer.relu)
        self.operator("ADD", layer.inputs, layer.name, options)

    def space_to_depth(self, layer: Layer) -> None:
        options = schema.SpaceToDepthOptionsT()
        options.blockSize = layer.factor
        self.operator("SPACE_TO_DEPTH", layer.inputs, layer.name, options)

    def depth_to_space(self, layer: Layer, source: str | None = None) -> None:
        options = schema.DepthToSpaceOptionsT()
        options.blockSize = layer.factor
        self.operator("DEPTH_TO_SPACE", (source or layer.inputs[0],), layer.name, options)

    def upsample(self, layer: Layer) -> None:
        """Concatenate copies along the channels, then depth to space.

        RESIZE_NEAREST_NEIGHBOR stores its output size as a constant, which rules out other sizes. XNNPACK does not run
        it either, which would split the network. Columns and rows are two steps, because XNNPACK concatenates at most
        five tensors.
        """
        _, height, width, channels = self.tensors[self.index[layer.inputs[0]]].shape
        source = layer.inputs[0]
        for axis in ("columns", "rows"):
            channels *= layer.factor
            copies = f"{layer.name}/{axis}"
            spec = Spec(channels, layer.spec.exponent, layer.spec.zero_point)
            self.activation(copies, (height, width), spec)
            options = schema.ConcatenationOptionsT()
            options.axis = 3
            self.operator("CONCATENATION", [source] * layer.factor, copies, options)
            source = copies
        self.depth_to_space(layer, source)

    def finish(self) -> bytes:
        graph = schema.SubGraphT()
        graph.name = self.network.name.encode()
        graph.tensors = self.tensors
        graph.operators = self.operators
        graph.inputs = [self.index[i] for i in self.network.inputs]
        graph.outputs = [self.index[o] for o in self.network.outputs]
        model = schema.ModelT()
        model.version = 3
        model.description = f"pocketlic {self.network.name}, tie-free int8, profile {self.rule}".encode()
        model.operatorCodes = self.codes
        model.subgraphs = [graph]
        model.buffers = self.buffers
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _quantization(scale: NDArray[Any], zero_point: int, axis: int = 0) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale = [float(s) for s in scale]
    quantization.zeroPoint = [zero_point] * len(scale)
    quantization.quantizedDimension = axis
    return quantization


def _activation(relu: bool) -> int:
    kinds = schema.ActivationFunctionType
    return int(kinds.RELU if relu else kinds.NONE)
