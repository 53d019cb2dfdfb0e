"""Integer network -> ONNX with QuantizeLinear and DequantizeLinear around every operation: the same integers.

A runtime folds each such group into one integer kernel. Scales are powers of two; biases are int32 with the
scale of the product. Height and width are free. Importing this needs the package onnx.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

from ..quantization.errors import Rule
from ..quantization.model import IntegerModel
from ..quantization.network import Int8, IntegerNetwork, Layer, Spec

OPSET = 13
IR_VERSION = 8  # the oldest with this opset, so that old runtimes read it


def model_to_onnx(model: IntegerModel) -> dict[str, bytes]:
    """Return the file of every network of a model, by name. Raises ModelError as `to_onnx` does."""
    return {name: to_onnx(network, model.rule) for name, network in model.networks.items()}


def to_onnx(network: IntegerNetwork, rule: Rule) -> bytes:
    """Return the file of a network: inputs and outputs int8 [1, height, width, channels], any size.

    Raises ModelError when the network breaks the rule.
    """
    network.check(rule)
    writer = _Writer(network)
    for name in network.inputs:
        writer.node("Transpose", [name], f"{name}/nchw", perm=[0, 3, 1, 2])
    for layer in network.layers:
        writer.layer(layer)
    for name in network.outputs:
        writer.node("Transpose", [f"{name}/nchw"], name, perm=[0, 2, 3, 1])
    graph = helper.make_graph(
        writer.nodes,
        network.name,
        [_value(network, name) for name in network.inputs],
        [_value(network, name) for name in network.outputs],
        writer.constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="pocketlic"
    )
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _value(network: IntegerNetwork, name: str) -> Any:
    n, d = network.strides[name]
    sides = [f"{n}*{side}/{d}" if n != d else side for side in ("height", "width")]
    return helper.make_tensor_value_info(name, TensorProto.INT8, [1, *sides, network.specs[name].channels])


class _Writer:
    """Collects nodes and constants. The network's int8 tensor x is called x/nchw here, [1, C, H, W]."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.specs = network.specs
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.count = 0

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}:{output}", **attributes))
        return output

    def constant(self, array: NDArray[Any]) -> str:
        name = f"constant{self.count}"
        self.count += 1
        self.constants.append(numpy_helper.from_array(array.copy(order="C"), name))
        return name

    def scale(self, spec: Spec) -> list[str]:
        return [
            self.constant(np.array(2.0**spec.exponent, np.float32)),
            self.constant(np.array(spec.zero_point, np.int8)),
        ]

    def dequantize(self, name: str, reader: str) -> str:
        # One copy per reader: runtimes fold a group only when nothing else reads its inside.
        return self.node("DequantizeLinear", [f"{name}/nchw", *self.scale(self.specs[name])], f"{reader}<{name}")

    def layer(self, layer: Layer) -> None:
        """One method for each kind of layer adds its node."""
        x = [self.dequantize(name, f"{layer.name}:{i}") for i, name in enumerate(layer.inputs)]
        y = f"{layer.name}/float"
        getattr(self, layer.kind)(layer, x, y)
        if layer.relu and layer.spec.zero_point == 0:  # a zero point of -128 clamps by itself
            y = self.node("Relu", [y], f"{layer.name}/relu")
        self.node("QuantizeLinear", [y, *self.scale(layer.spec)], f"{layer.name}/nchw")

    def pointwise(self, layer: Layer, x: list[str], y: str) -> None:
        self.convolution(layer, x, y, layer.convolution()[0][:, :, None, None], 1)

    def depthwise(self, layer: Layer, x: list[str], y: str) -> None:
        weight = layer.convolution()[0].transpose(2, 0, 1)[:, None]
        self.convolution(layer, x, y, weight, len(weight))

    def convolution(self, layer: Layer, x: list[str], y: str, weight: Int8, groups: int) -> None:
        _, bias, shift = layer.convolution()
        source = self.specs[layer.inputs[0]].exponent
        exponent = layer.spec.exponent - source - shift.astype(np.int32)
        zero = np.zeros(len(exponent), np.int8)
        parts = []
        for array, scale in ((weight, exponent), (bias, exponent + source)):
            zeros = zero.astype(array.dtype)
            inputs = [self.constant(a) for a in (array, np.ldexp(np.float32(1), scale), zeros)]
            parts.append(self.node("DequantizeLinear", inputs, f"{y}/{array.ndim}", axis=0))
        kernel = weight.shape[2]
        self.node("Conv", [*x, *parts], y, kernel_shape=[kernel, kernel], pads=[kernel // 2] * 4, group=groups)

    def add(self, layer: Layer, x: list[str], y: str) -> None:
        self.node("Add", x, y)

    def space_to_depth(self, layer: Layer, x: list[str], y: str) -> None:
        self.node("SpaceToDepth", x, y, blocksize=layer.factor)

    def depth_to_space(self, layer: Layer, x: list[str], y: str) -> None:
        self.node("DepthToSpace", x, y, blocksize=layer.factor, mode="DCR")

    def upsample(self, layer: Layer, x: list[str], y: str) -> None:
        scales = self.constant(np.array([1, 1, layer.factor, layer.factor], np.float32))
        self.node("Resize", [*x, "", scales], y, mode="nearest", coordinate_transformation_mode="asymmetric",
                  nearest_mode="floor")  # fmt: skip
