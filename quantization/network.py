"""Integer networks: layers of integer tensors and shifts, and the executor that defines their results.

Everything that leaves training (LiteRT, ExecuTorch, ONNX, the native core) is made from this representation and must
equal `IntegerNetwork.run` bit for bit. A tensor is int8 [height, width, channels] and stands for
(value - zero_point) * 2**exponent. Exponents only label tensors; the arithmetic does not use them.

    convolution   acc = bias + sum(weight * (x - zero_point))
                  y = clamp(((acc + 2**(shift-1)) >> shift) + zero_point)
    sum           y = clamp((a - zero_point_a) + (b - zero_point_b) + zero_point)

The clamp is to -128..127, or from the zero point up behind a ReLU. Runtimes differ in how they round ties, and some
round twice. The tie-free rules keep every accumulator away from those cases:

    cpu     even weights, odd biases: acc is odd, so never half-way (shift >= 2)
    strict  weights 0 mod 4, biases 2 mod 4: nor half-way after a first rounding by one bit (shift >= 3)

codec/SPEC.md, section 3, specifies the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError, Rule

Kind = Literal["pointwise", "depthwise", "add", "upsample", "space_to_depth", "depth_to_space"]
Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class TieFree(NamedTuple):
    """A tie-free rule: weights = 0 mod `multiple`, biases = `remainder` mod 2 * `remainder`, and a range of shifts."""

    multiple: int
    remainder: int
    least_shift: int
    greatest_shift: int


RULES: dict[Rule, TieFree] = {"cpu": TieFree(2, 1, 2, 15), "strict": TieFree(4, 2, 3, 17)}
"""XNNPACK requantizes in float32: beyond the greatest shift its rounding error reaches the nearest tie (measured on
every accumulator beside a tie).
"""

MAX_CHANNELS, MAX_KERNEL, MAX_FACTOR, MAX_GRID = 1 << 16, 31, 16, 256
MAX_TENSORS, MAX_ENDS, MAX_KEPT = 256, 8, 32
"""Limits every decoder must support: codec/SPEC.md, section 3."""


@dataclass(frozen=True)
class Spec:
    """What a tensor's integers mean: channels, scale 2**exponent, zero point (0; -128 behind a ReLU)."""

    channels: int
    exponent: int
    zero_point: int = 0


@dataclass(frozen=True)
class Layer:
    """One operation; `name` is also the name of its output tensor, `spec` its meaning.

    pointwise: weight int8 [out, in]; depthwise: weight int8 [k, k, channels], odd k, zero padding; both with
    bias int32 [out] and shift int8 [out]. `factor` is the block or factor of the three that move pixels, in
    the channel order (dy, dx, c). `relu` clamps at the zero point.
    """

    kind: Kind
    name: str
    inputs: tuple[str, ...]
    spec: Spec
    relu: bool = False
    factor: int = 1
    weight: Int8 | None = None
    bias: Int32 | None = None
    shift: Int8 | None = None

    def convolution(self) -> tuple[Int8, Int32, Int8]:
        """Weight, bias and shift of a convolution, which has all three."""
        assert self.weight is not None
        assert self.bias is not None
        assert self.shift is not None
        return self.weight, self.bias, self.shift

    @property
    def grid(self) -> tuple[int, int]:
        """Cells of the output per cell of the input along an axis, as a fraction (numerator, denominator)."""
        finer = OPERATIONS[self.kind].finer
        return self.factor if finer > 0 else 1, self.factor if finer < 0 else 1


def space_to_depth(x: NDArray[Any], block: int) -> NDArray[Any]:
    """[H, W, C] -> [H/r, W/r, r*r*C], channels ordered (dy, dx, c)."""
    h, w, c = x.shape
    y = x.reshape(h // block, block, w // block, block, c).swapaxes(1, 2)
    return y.reshape(h // block, w // block, block * block * c)


def depth_to_space(x: NDArray[Any], block: int) -> NDArray[Any]:
    """[H, W, r*r*C] -> [r*H, r*W, C], channels ordered (dy, dx, c)."""
    h, w, c = x.shape
    depth = c // (block * block)
    return x.reshape(h, w, block, block, depth).swapaxes(1, 2).reshape(h * block, w * block, depth)


def rounding_shift(acc: Int64, shift: NDArray[Any] | int) -> Int64:
    """floor(acc / 2**shift + 1/2) for shift >= 1, elementwise over the last axis."""
    s = np.asarray(shift, np.int64)
    return np.asarray((acc + (np.int64(1) << (s - 1))) >> s)


def _pointwise(layer: Layer, x: Int64) -> Int64:
    weight, bias, shift = layer.convolution()
    # Twice as fast as @, which has no BLAS for integers.
    return rounding_shift(np.einsum("hwi,oi->hwo", x, weight.astype(np.int64)) + bias, shift)


def _depthwise(layer: Layer, x: Int64) -> Int64:
    weight, bias, shift = layer.convolution()
    k = weight.shape[0]
    h, w, _ = x.shape
    padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    acc = np.broadcast_to(bias.astype(np.int64), x.shape).copy()
    for dy in range(k):
        for dx in range(k):
            acc += padded[dy : dy + h, dx : dx + w] * weight[dy, dx]
    return rounding_shift(acc, shift)


class Operation(NamedTuple):
    """What the layers of a kind do: `compute` takes the layer and its inputs less their zero points, int64 [H, W, C].

    The output's grid is factor**finer times as fine as the input's, and has factor**deeper times as many channels; a
    convolution's channels are its weight's.
    """

    compute: Callable[..., NDArray[Any]]
    inputs: int = 1
    finer: int = 0
    deeper: int = 0

    @property
    def moves(self) -> bool:
        """Whether it only moves pixels."""
        return self.finer != 0

    def channels(self, source: int, factor: int) -> Fraction:
        """Channels of the output for an input of `source` channels; a fraction when they do not divide."""
        return source * Fraction(factor) ** self.deeper


OPERATIONS: dict[Kind, Operation] = {
    "pointwise": Operation(_pointwise),
    "depthwise": Operation(_depthwise),
    "add": Operation(lambda _, a, b: a + b, inputs=2),
    "upsample": Operation(lambda layer, x: x.repeat(layer.factor, 0).repeat(layer.factor, 1), finer=1),
    "space_to_depth": Operation(lambda layer, x: space_to_depth(x, layer.factor), finer=-1, deeper=2),
    "depth_to_space": Operation(lambda layer, x: depth_to_space(x, layer.factor), finer=1, deeper=-2),
}
CONVOLUTIONS: tuple[Kind, ...] = ("pointwise", "depthwise")


def _is_int(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _check_spec(where: str, spec: Spec) -> None:
    if not (_is_int(spec.channels, 1, MAX_CHANNELS) and _is_int(spec.exponent, -64, 64)):
        raise ModelError(f"{where}: impossible channels or scale")
    if not _is_int(spec.zero_point, -128, 0) or spec.zero_point not in (0, -128):
        raise ModelError(f"{where}: a zero point is 0 or -128")


def _check_name(network: str, name: object) -> None:
    # Names become parts of arrays' names and of messages.
    if not isinstance(name, str) or not 1 <= len(name) <= 64 or any(not "!" <= c <= "~" or c == "/" for c in name):
        raise ModelError(f"{network}: a tensor has no sound name")


def _check_convolution(where: str, layer: Layer, source: Spec, rule: Rule) -> None:
    multiple, remainder, least, most = RULES[rule]
    w, b, s = layer.weight, layer.bias, layer.shift
    if w is None or b is None or s is None or w.dtype != np.int8 or b.dtype != np.int32 or s.dtype != np.int8:
        raise ModelError(f"{where}: a convolution needs int8 weights, int32 biases and int8 shifts")
    if layer.kind == "pointwise":
        fits = w.shape == (layer.spec.channels, source.channels)
    else:
        fits = w.shape[1:] == (*w.shape[:1], source.channels) and w.shape[0] % 2 == 1 and w.shape[0] <= MAX_KERNEL
        fits = fits and layer.spec.channels == source.channels
    if not fits or b.shape != (layer.spec.channels,) or s.shape != b.shape:
        raise ModelError(f"{where}: weight {w.shape}, bias {b.shape} do not fit {source.channels} channels")
    if w.min() < -127 or (w % multiple).any() or (b % (2 * remainder) != remainder).any():
        raise ModelError(f"{where}: breaks the tie-free rule {rule}")
    if s.min() < least or s.max() > most:
        raise ModelError(f"{where}: shifts {s.min()}..{s.max()} outside {least}..{most}")
    if (largest_accumulators(layer, source) + (np.int64(1) << (s.astype(np.int64) - 1)) >= 2**31).any():
        raise ModelError(f"{where}: an accumulator can exceed 32 bits")


def largest_accumulators(layer: Layer, source: Spec) -> Int64:
    """The largest magnitude that each accumulator [out] of a convolution can reach, int64. source: of its input."""
    weight, bias, _ = layer.convolution()
    taps = np.abs(weight.astype(np.int64)).sum(1 if layer.kind == "pointwise" else (0, 1))
    return np.asarray(taps * (128 - source.zero_point) + np.abs(bias.astype(np.int64)))


def _check_add(where: str, sources: list[Spec], spec: Spec) -> None:
    if len({s.channels for s in (*sources, spec)}) > 1:
        raise ModelError(f"{where}: a sum needs two inputs of equal shape")
    if len({s.exponent for s in (*sources, spec)}) > 1:
        raise ModelError(f"{where}: a sum needs equal scales")


def _check_move(where: str, layer: Layer, source: Spec) -> None:
    if not _is_int(layer.factor, 1, MAX_FACTOR):
        raise ModelError(f"{where}: a factor is 1 to {MAX_FACTOR}")
    channels = OPERATIONS[layer.kind].channels(source.channels, layer.factor)
    if channels % 1:
        raise ModelError(f"{where}: {source.channels} channels do not divide by {layer.factor**2}")
    if layer.spec != Spec(int(channels), source.exponent, source.zero_point) or layer.relu:
        raise ModelError(f"{where}: moving pixels must keep scale and zero point")


def _check_layer(where: str, layer: Layer, sources: list[Spec], rule: Rule) -> None:
    operation = OPERATIONS.get(layer.kind) if isinstance(layer.kind, str) else None
    if operation is None:
        raise ModelError(f"{where}: unknown kind of layer")
    if len(sources) != operation.inputs:
        raise ModelError(f"{where}: {len(sources)} inputs are not what a {layer.kind} takes")
    _check_spec(where, layer.spec)
    if type(layer.relu) is not bool:
        raise ModelError(f"{where}: relu is neither true nor false")
    convolves = layer.kind in CONVOLUTIONS
    if not convolves and any(part is not None for part in (layer.weight, layer.bias, layer.shift)):
        raise ModelError(f"{where}: weights of a layer that is no convolution")
    if not operation.moves and not _is_int(layer.factor, 1, 1):
        raise ModelError(f"{where}: a factor other than 1")
    if convolves:
        _check_convolution(where, layer, sources[0], rule)
    elif operation.moves:
        _check_move(where, layer, sources[0])
    else:
        _check_add(where, sources, layer.spec)


@dataclass(frozen=True)
class IntegerNetwork:
    """A list of layers in the order they run; inputs and outputs are named tensors."""

    name: str
    inputs: dict[str, Spec]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]

    @property
    def specs(self) -> dict[str, Spec]:
        """The meaning of every tensor, inputs included."""
        return {**self.inputs, **{layer.name: layer.spec for layer in self.layers}}

    @property
    def strides(self) -> dict[str, tuple[int, int]]:
        """Height of every tensor relative to the first input's, as a fraction (numerator, denominator)."""
        scale = dict.fromkeys(self.inputs, Fraction(1))
        for layer in self.layers:
            scale[layer.name] = scale[layer.inputs[0]] * Fraction(*layer.grid)
        return {name: fraction.as_integer_ratio() for name, fraction in scale.items()}

    def macs(self) -> dict[str, float]:
        """Multiply-accumulates of each convolution per pixel of the first input's grid."""
        result, strides = {}, self.strides
        for layer in self.layers:
            if layer.weight is not None:
                n, d = strides[layer.name]
                result[layer.name] = layer.weight.size * (n / d) ** 2
        return result

    def check(self, rule: Rule) -> None:
        """Raise ModelError unless the network is sound.

        Shapes agree, int32 holds every accumulator, and the tie-free rule holds.
        """
        ends, tensors = max(len(self.inputs), len(self.outputs)), len(self.inputs) + len(self.layers)
        if not self.layers or ends > MAX_ENDS or tensors > MAX_TENSORS:
            raise ModelError(f"{self.name}: too few or too many tensors")
        known: dict[str, Spec] = {}
        for name, spec in self.inputs.items():
            _check_name(self.name, name)
            _check_spec(f"{self.name}/{name}", spec)
            known[name] = spec
        for layer in self.layers:
            _check_name(self.name, layer.name)
            where = f"{self.name}/{layer.name}"
            if layer.name in known or any(i not in known for i in layer.inputs):
                raise ModelError(f"{where}: tensors out of order")
            _check_layer(where, layer, [known[i] for i in layer.inputs], rule)
            known[layer.name] = layer.spec
        strides = self.strides
        for layer in self.layers:
            if len({strides[i] for i in layer.inputs}) > 1:
                raise ModelError(f"{self.name}/{layer.name}: a sum needs two inputs of equal shape")
            if max(strides[layer.name]) > MAX_GRID:
                raise ModelError(f"{self.name}/{layer.name}: the grid is too fine or too coarse")
        if not self.inputs or not self.outputs or any(o not in known for o in self.outputs):
            raise ModelError(f"{self.name}: unknown input or output")
        if self.kept() > MAX_KEPT:
            raise ModelError(f"{self.name}: too many tensors at a time")

    def kept(self) -> int:
        """Peak live tensors, excluding inputs."""
        last = {layer.name: i for i, layer in enumerate(self.layers)}
        for i, layer in enumerate(self.layers):
            last.update((name, i) for name in layer.inputs if name in last)
        last.update((name, len(self.layers)) for name in self.outputs if name in last)
        # A layer's inputs are needed while its output is made.
        names = list(last)
        return max(sum(last[name] >= i for name in names[: i + 1]) for i in range(len(names)))

    def run(self, inputs: Sequence[Int8], keep: bool = False) -> dict[str, Int8]:
        """Run on int8 [H, W, C] arrays in the order of `inputs`; returns the outputs by name.

        keep: return all tensors. Raises ModelError when an input's dtype or channels are wrong.
        """
        tensors: dict[str, Int8] = {}
        for (name, spec), x in zip(self.inputs.items(), inputs, strict=True):
            if x.dtype != np.int8 or x.ndim != 3 or x.shape[2] != spec.channels:
                raise ModelError(
                    f"{self.name}: input {name} must be int8 [H, W, {spec.channels}], not {x.dtype} {x.shape}"
                )
            tensors[name] = x
        specs = self.specs
        for layer in self.layers:
            sources = (tensors[i].astype(np.int64) - specs[i].zero_point for i in layer.inputs)
            zero = layer.spec.zero_point
            y = OPERATIONS[layer.kind].compute(layer, *sources) + zero
            tensors[layer.name] = np.clip(y, zero if layer.relu else -128, 127).astype(np.int8)
        return tensors if keep else {name: tensors[name] for name in self.outputs}
