"""The integer network: layers of integer tensors and shifts, and the executor that defines their meaning.

Everything that leaves the training side (LiteRT, ExecuTorch, the native core) is made from this
representation and has to equal `IntegerNetwork.run` bit by bit. A tensor is int8 [height, width, channels]
standing for (value - zero_point) * 2**exponent; exponents only label tensors, the arithmetic needs none of
them.

    convolution   acc = bias + sum(weight * (x - zero_point))
                  y = clamp(((acc + 2**(shift-1)) >> shift) + zero_point)
    sum           y = clamp((a - zero_point_a) + (b - zero_point_b) + zero_point)

The clamp is to -128..127, or from the zero point up behind a ReLU. Where a runtime rounds ties otherwise, or
rounds twice, results could differ; the tie-free rules keep the accumulator off every such case:

    cpu     even weights, odd biases: acc is odd, so never half-way (shift >= 2)
    strict  weights 0 mod 4, biases 2 mod 4: nor half-way after a first rounding by one bit (shift >= 3)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ..models.filter_classes import CLASSES, OFFSETS

Kind = Literal["pointwise", "depthwise", "add", "upsample", "space_to_depth", "depth_to_space"]
Profile = Literal["cpu", "strict"]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]

RULES: dict[Profile, tuple[int, int, int, int]] = {"cpu": (2, 1, 2, 15), "strict": (4, 2, 3, 17)}
"""Profile -> (weights are multiples of, biases leave this remainder, least shift, greatest shift).

XNNPACK requantizes in float32: beyond the greatest shift its rounding error reaches the nearest tie (measured
on every accumulator beside a tie).
"""

MAX_HEADER, MAX_LEVELS, MAX_KEYS = 1 << 20, 16, 1024
MAX_CHANNELS, MAX_KERNEL, MAX_FACTOR, MAX_GRID = 1 << 16, 31, 16, 256
MAX_TENSORS, MAX_ENDS, MAX_KEPT = 256, 8, 32
"""What every decoder can hold: codec/SPEC.md, section 3, says what of."""


class ModelError(ValueError):
    """A model file or integer network that breaks its own rules; the message is one line."""


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
    bias: NDArray[np.int32] | None = None
    shift: Int8 | None = None


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


def _accumulate(layer: Layer, x: Int64) -> Int64:
    assert layer.weight is not None
    assert layer.bias is not None
    weight = layer.weight.astype(np.int64)
    if layer.kind == "pointwise":
        # Twice as fast as @, which has no BLAS for integers.
        return np.asarray(np.einsum("hwi,oi->hwo", x, weight) + layer.bias)
    k = weight.shape[0]
    h, w, _ = x.shape
    padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    acc = np.broadcast_to(layer.bias.astype(np.int64), x.shape).copy()
    for dy in range(k):
        for dx in range(k):
            acc += padded[dy : dy + h, dx : dx + w] * weight[dy, dx]
    return acc


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


def _check_convolution(where: str, layer: Layer, source: Spec, profile: Profile) -> None:
    multiple, remainder, least, most = RULES[profile]
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
        raise ModelError(f"{where}: breaks the tie-free rule of profile {profile}")
    if s.min() < least or s.max() > most:
        raise ModelError(f"{where}: shifts {s.min()}..{s.max()} outside {least}..{most}")
    taps = np.abs(w.astype(np.int64)).sum(1 if layer.kind == "pointwise" else (0, 1))
    worst = taps * (128 - source.zero_point) + np.abs(b.astype(np.int64))
    if (worst + (np.int64(1) << (s.astype(np.int64) - 1)) >= 2**31).any():
        raise ModelError(f"{where}: an accumulator can exceed 32 bits")


def _check_move(where: str, layer: Layer, source: Spec) -> None:
    if not _is_int(layer.factor, 1, MAX_FACTOR):
        raise ModelError(f"{where}: a factor is 1 to {MAX_FACTOR}")
    area = layer.factor**2
    if layer.kind == "depth_to_space" and source.channels % area:
        raise ModelError(f"{where}: {source.channels} channels do not divide by {area}")
    if layer.kind == "upsample":
        moved = source.channels
    elif layer.kind == "space_to_depth":
        moved = source.channels * area
    elif layer.kind == "depth_to_space":
        moved = source.channels // area
    else:
        raise ModelError(f"{where}: unknown kind of layer")
    if layer.spec != Spec(moved, source.exponent, source.zero_point) or layer.relu:
        raise ModelError(f"{where}: moving pixels must keep scale and zero point")


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
        scale = dict.fromkeys(self.inputs, (1, 1))
        for layer in self.layers:
            n, d = scale[layer.inputs[0]]
            n *= layer.factor if layer.kind in ("upsample", "depth_to_space") else 1
            d *= layer.factor if layer.kind == "space_to_depth" else 1
            g = int(np.gcd(n, d))
            scale[layer.name] = (n // g, d // g)
        return scale

    def macs(self) -> dict[str, float]:
        """Multiply-accumulates of each convolution per pixel of the first input's grid."""
        result = {}
        for layer in self.layers:
            if layer.weight is not None:
                n, d = self.strides[layer.name]
                result[layer.name] = layer.weight.size * (n / d) ** 2
        return result

    def check(self, profile: Profile) -> None:
        """Raise ModelError unless the network is sound.

        Shapes agree, int32 holds every accumulator, and the profile's tie-free rule holds.
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
            if len(layer.inputs) != (2 if layer.kind == "add" else 1):
                raise ModelError(f"{where}: {len(layer.inputs)} inputs are not what a {layer.kind} takes")
            _check_spec(where, layer.spec)
            if type(layer.relu) is not bool:
                raise ModelError(f"{where}: relu is neither true nor false")
            sources = [known[i] for i in layer.inputs]
            convolves = layer.kind in ("pointwise", "depthwise")
            if not convolves and any(part is not None for part in (layer.weight, layer.bias, layer.shift)):
                raise ModelError(f"{where}: weights of a layer that is no convolution")
            if (convolves or layer.kind == "add") and not _is_int(layer.factor, 1, 1):
                raise ModelError(f"{where}: a factor other than 1")
            if layer.kind in ("pointwise", "depthwise"):
                _check_convolution(where, layer, sources[0], profile)
            elif layer.kind == "add":
                if len({s.channels for s in (*sources, layer.spec)}) > 1:
                    raise ModelError(f"{where}: a sum needs two inputs of equal shape")
                if len({s.exponent for s in (*sources, layer.spec)}) > 1:
                    raise ModelError(f"{where}: a sum needs equal scales")
            else:
                _check_move(where, layer, sources[0])
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
        """The most tensors, inputs apart, that have to be kept at a time."""
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
            x = tensors[layer.inputs[0]]
            zero = layer.spec.zero_point
            low = zero if layer.relu else -128
            if layer.kind in ("pointwise", "depthwise"):
                assert layer.shift is not None
                acc = _accumulate(layer, x.astype(np.int64) - specs[layer.inputs[0]].zero_point)
                y = np.clip(rounding_shift(acc, layer.shift) + zero, low, 127).astype(np.int8)
            elif layer.kind == "add":
                a, b = (tensors[i].astype(np.int64) - specs[i].zero_point for i in layer.inputs)
                y = np.clip(a + b + zero, low, 127).astype(np.int8)
            elif layer.kind == "upsample":
                y = x.repeat(layer.factor, 0).repeat(layer.factor, 1)
            elif layer.kind == "space_to_depth":
                y = space_to_depth(x, layer.factor)
            else:
                y = depth_to_space(x, layer.factor)
            tensors[layer.name] = y
        return tensors if keep else {name: tensors[name] for name in self.outputs}


NETWORKS = ("analysis", "hyper_analysis", "hyper_synthesis", "context", "synthesis")


@dataclass(frozen=True)
class IntegerModel:
    """Everything a codec needs, in integers: five networks, four projections, gain knots, entropy tables and filters.

    Fixed-point units: latents 2**-8 of the latent grid; logarithms 2**-8 octaves; rows 2**-16.
    """

    profile: Profile
    networks: dict[str, IntegerNetwork]
    latent_weight: Int8  # [96, features]: features at 1/16 -> y
    latent_bias: NDArray[np.int32]  # [96]
    latent_shift: Int8  # [96]; y = accumulator << shift, or rounded >> -shift, in 2**-8
    detail_weight: Int8  # [48, features]: features at 1/8 -> d, folded to [h/16, w/16, 192] as (dy, dx, c)
    detail_bias: NDArray[np.int32]  # [48]
    detail_shift: Int8  # [48]
    row_weight: Int8  # [16*288, 64]: z -> rows of y and d, channels (dy, dx, c) of a depth-to-space by 4
    row_scale: NDArray[np.int32]  # [16*288]; accumulator * scale is in 2**-16 rows
    row_bias: NDArray[np.int32]  # [16*288], 2**-16 rows
    detail_row_weight: Int8  # [192, 96]: magnitudes of y's symbols -> what they add to the rows of d
    detail_row_scale: NDArray[np.int32]  # [192]; accumulator * scale is in 2**-16 rows
    magnitude: Int8  # [128]: round(16 * log2(1 + i)), for the symbol i or -i; greater ones count as 127
    step_knots: NDArray[np.int32]  # [knots, 288] log2 of the step in units of the grid, 2**-8 octaves
    row_knots: NDArray[np.int32]  # [knots, 288] what quality adds to the row, 2**-16 rows
    hyper_gain_knots: NDArray[np.int32]  # [knots, 64] log2 of the encoder's gain on z, 2**-8 octaves
    hyper_row_knots: NDArray[np.int32]  # [knots, 64] row that codes z less its prediction, 2**-16 rows
    hyper_prediction: Int8  # [64, 3]: of z from the cells to the left, above and above left, in 2**-6
    wide: NDArray[np.int16]  # channels whose grid is four times finer; the two bits are a plane of their own
    exp2: NDArray[np.int32]  # [256]: round(2**16 * 2**(i/256))
    table_radius: NDArray[np.uint16]  # [64]
    table_freq: NDArray[np.uint16]  # concatenated rows of 2*radius+2 frequencies, each summing to 2**16
    skip: int  # rows below this are not coded: their symbols are 0
    post_filter: Int8 | None = None  # [knots, 384, 12], in 2**-8: filters of the picture by class; some have none
    notes: dict[str, str] = field(default_factory=dict)  # provenance: training steps, data, figures
    _file: bytes | None = field(default=None, init=False, repr=False, compare=False)  # what it was read from

    ARRAYS = (
        "latent_weight", "latent_bias", "latent_shift", "detail_weight", "detail_bias", "detail_shift",
        "row_weight", "row_scale", "row_bias", "detail_row_weight", "detail_row_scale", "magnitude",
        "step_knots", "row_knots", "hyper_gain_knots", "hyper_row_knots", "hyper_prediction", "wide", "exp2",
        "table_radius", "table_freq",
    )  # fmt: skip

    @property
    def projections(self) -> dict[str, tuple[Int8, int]]:
        """What is multiplied outside the networks: name -> (weights, pixels per side of a cell).

        Encoding runs them all, decoding those of the rows.
        """
        return {
            "latent": (self.latent_weight, 16),
            "detail": (self.detail_weight, 8),
            "rows": (self.row_weight, 64),
            "detail_rows": (self.detail_row_weight, 16),
        }

    def check(self) -> None:
        """Raise ModelError unless all parts are there, fit together, and obey the profile."""
        if self.profile not in RULES:
            raise ModelError(f"there is no profile {self.profile}")
        if set(self.networks) != set(NETWORKS):
            names = ", ".join(NETWORKS)
            raise ModelError(f"a model has the networks {names}; this one has {', '.join(self.networks)}")
        for network in self.networks.values():
            network.check(self.profile)
        if not isinstance(self.notes, dict) or not all(isinstance(v, str) for v in self.notes.values()):
            raise ModelError("notes are not texts by name")
        self._check_arrays()
        latents, features = self.latent_weight.shape
        details, fine_features = 4 * self.detail_weight.shape[0], self.detail_weight.shape[1]
        hyper = self.row_weight.shape[1]
        synthesis = self.networks["hyper_synthesis"]
        context = synthesis.specs[synthesis.outputs[0]].channels
        # network -> channels of inputs; channels of outputs and their cells per cell of the inputs
        faces: dict[str, tuple[list[int], list[tuple[int, tuple[int, int]]]]] = {
            "analysis": ([3], [(features, (1, 16)), (fine_features, (1, 8))]),
            "hyper_analysis": ([latents, details], [(hyper, (1, 4))]),
            "hyper_synthesis": ([hyper], [(context, (4, 1)), (latents, (4, 1)), (latents, (4, 1))]),
            "context": ([context, latents], [(latents, (1, 1))]),
            "synthesis": ([latents + len(self.wide), details], [(3, (16, 1))]),
        }
        for name, (inputs, outputs) in faces.items():
            network = self.networks[name]
            specs, strides = network.specs, network.strides
            if [s.channels for s in network.inputs.values()] != inputs or (
                [(specs[o].channels, strides[o]) for o in network.outputs] != outputs
            ):
                raise ModelError(f"{name}: inputs or outputs do not fit the codec")
            # Pictures are padded to 64 pixels, which is 4 cells of y and one of z.
            cells = {"analysis": 64, "hyper_synthesis": 1}.get(name, 4)
            if any(cells % coarser for _, coarser in strides.values()):
                raise ModelError(f"{name}: its grids do not divide pictures of all sizes")

    def _check_arrays(self) -> None:
        latents, features = self.latent_weight.shape if self.latent_weight.ndim == 2 else (0, 0)
        detail, fine = self.detail_weight.shape if self.detail_weight.ndim == 2 else (0, 0)
        total = latents + 4 * detail
        outputs, hyper = self.row_weight.shape if self.row_weight.ndim == 2 else (0, 0)
        knots = len(self.step_knots) if self.step_knots.ndim else 0
        rows = self.table_radius.size
        entries = 2 * self.table_radius.astype(np.int64) + 2
        expected: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "latent_weight": (np.int8, (latents, features)),
            "latent_bias": (np.int32, (latents,)),
            "latent_shift": (np.int8, (latents,)),
            "detail_weight": (np.int8, (detail, fine)),
            "detail_bias": (np.int32, (detail,)),
            "detail_shift": (np.int8, (detail,)),
            "row_weight": (np.int8, (16 * total, hyper)),
            "row_scale": (np.int32, (outputs,)),
            "row_bias": (np.int32, (outputs,)),
            "detail_row_weight": (np.int8, (4 * detail, latents)),
            "detail_row_scale": (np.int32, (4 * detail,)),
            "magnitude": (np.int8, (128,)),
            "step_knots": (np.int32, (knots, total)),
            "row_knots": (np.int32, (knots, total)),
            "hyper_gain_knots": (np.int32, (knots, hyper)),
            "hyper_row_knots": (np.int32, (knots, hyper)),
            "hyper_prediction": (np.int8, (hyper, 3)),
            "wide": (np.int16, (self.wide.size,)),
            "exp2": (np.int32, (256,)),
            "table_radius": (np.uint16, (rows,)),
            "table_freq": (np.uint16, (int(entries.sum()),)),
        }
        if self.post_filter is not None:
            expected["post_filter"] = (np.int8, (len(self.post_filter), CLASSES, len(OFFSETS)))
        for name, (dtype, shape) in expected.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape or 0 in shape[1:]:
                raise ModelError(f"{name} is {array.dtype} {list(array.shape)}, not {dtype.__name__} {list(shape)}")
        if latents == 0 or detail == 0 or max(latents, detail) > MAX_CHANNELS // 4 or hyper > MAX_CHANNELS:
            raise ModelError(f"{latents} latents, {4 * detail} details and {hyper} hyper-latents are no codec")
        for count in (knots, 2 if self.post_filter is None else len(self.post_filter)):
            if count < 2 or 10000 % (count - 1):
                raise ModelError(f"{count} knots are no codec")
        for shift in (self.latent_shift, self.detail_shift):
            if shift.min() < -31 or shift.max() > 16:
                raise ModelError("latent_shift or detail_shift is outside -31..16")
        if self.hyper_gain_knots.min() < -15 << 8 or self.hyper_gain_knots.max() > 15 << 8:
            raise ModelError("hyper_gain_knots exceed 15 octaves")
        if self.wide.size and (self.wide.min() < 0 or (np.diff(self.wide) <= 0).any() or self.wide[-1] >= latents):
            raise ModelError("wide does not list channels in order")
        if self.exp2.min() < 1 << 16 or self.exp2.max() >= 1 << 17:
            raise ModelError("exp2 is outside one octave")
        if not 1 <= rows <= 256 or self.table_radius.max() > 32767 or self.table_freq.min() < 1:
            raise ModelError("the entropy tables break the coder's limits")
        starts = np.cumsum(entries) - entries
        if (np.add.reduceat(self.table_freq.astype(np.int64), starts) != 1 << 16).any():
            raise ModelError("the frequencies of a row of the entropy tables do not sum to 65536")
        if not _is_int(self.skip, 0, rows - 1):
            raise ModelError(f"skip {self.skip} is not the index of a row")

    def to_bytes(self) -> bytes:
        """Safetensors with JSON metadata: the file that it was read from, or else a new one, always the same."""
        if self._file is not None:
            return self._file
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in self.ARRAYS}
        if self.post_filter is not None:
            tensors["post_filter"] = np.ascontiguousarray(self.post_filter)
        described: dict[str, Any] = {}
        for network in self.networks.values():
            layers = []
            for layer in network.layers:
                entry: dict[str, Any] = {
                    "kind": layer.kind, "name": layer.name, "inputs": layer.inputs, "relu": layer.relu,
                    "factor": layer.factor, "spec": _spec_to_json(layer.spec),
                }  # fmt: skip
                layers.append(entry)
                for part in _PARTS:
                    array = getattr(layer, part)
                    if array is not None:
                        tensors[f"{network.name}/{layer.name}/{part}"] = np.ascontiguousarray(array)
            described[network.name] = {
                "inputs": [[name, _spec_to_json(spec)] for name, spec in network.inputs.items()],
                "layers": layers,
                "outputs": network.outputs,
            }
        content = {"profile": self.profile, "skip": self.skip, "networks": described, "notes": self.notes}
        # One metadata key: safetensors keeps several in no fixed order, and the bytes are hashed.
        return save_tensors(tensors, metadata={"pocketlic": json.dumps(content, sort_keys=True)})

    @staticmethod
    def from_bytes(data: bytes) -> IntegerModel:
        """Inverse of `to_bytes`; ModelError on anything that is not a sound model."""
        try:
            tensors = load_tensors(data)
            length = int.from_bytes(data[:8], "little")
            if length > MAX_HEADER:
                raise ModelError(f"not a Pocketlic model: the header exceeds {MAX_HEADER} bytes")
            metadata = _parse(data[8 : 8 + length].decode())["__metadata__"]
            if len(metadata) != 1:
                raise ModelError("not a Pocketlic model: metadata besides the description")
            content = _parse(metadata["pocketlic"])
            networks = {}
            for name, net in content["networks"].items():
                layers = tuple(_layer_from_json(name, entry, tensors) for entry in net["layers"])
                inputs = {key: _spec_from_json(spec) for key, spec in net["inputs"]}
                if len(inputs) != len(net["inputs"]):
                    raise ModelError(f"{name}: two inputs have one name")
                networks[name] = IntegerNetwork(name, inputs, layers, tuple(net["outputs"]))
            parts: dict[str, Any] = {name: tensors.pop(name) for name in IntegerModel.ARRAYS}
            parts |= {key: content[key] for key in ("profile", "skip", "notes")}
            parts["post_filter"] = tensors.pop("post_filter", None)
            model = IntegerModel(networks=networks, **parts)
            model.check()
            used = {
                f"{net.name}/{layer.name}/{part}"
                for net in networks.values()
                for layer in net.layers
                for part in _PARTS
            }
            if set(tensors) - used:
                raise ModelError(f"array {min(set(tensors) - used)} is unknown")
            object.__setattr__(model, "_file", data)
        except ModelError:
            raise
        except (SafetensorError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ModelError(f"not a Pocketlic model: {type(error).__name__}: {error}") from error
        return model

    @property
    def model_id(self) -> str:
        """SHA-256 of the model file, hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def load_model(path: Path) -> IntegerModel:
    """Read a model file; ModelError with one line when it cannot be read or is unsound."""
    try:
        return IntegerModel.from_bytes(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read model {path}: {error.strerror}") from error


def _spec_to_json(spec: Spec) -> list[int]:
    return [getattr(spec, f.name) for f in fields(spec)]


def _spec_from_json(values: Sequence[int]) -> Spec:
    channels, exponent, zero_point = values
    return Spec(channels, exponent, zero_point)


def _parse(text: str) -> Any:
    """A JSON text of few levels; ModelError if an object has a key twice, or more keys than decoders search."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs) or len(result) > MAX_KEYS:
            raise ModelError("not a Pocketlic model: an object has a key twice, or too many")
        return result

    def levels(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + max(map(levels, inner), default=-1) if isinstance(value, dict | list) else 0

    def refuse(constant: str) -> None:
        raise ModelError(f"not a Pocketlic model: {constant} is not JSON")

    result = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    # Empty objects and arrays open no level.
    if levels(result) > MAX_LEVELS:
        raise ModelError("not a Pocketlic model: the description has too many levels")
    return result


_PARTS = ("weight", "bias", "shift")


def _layer_from_json(network: str, entry: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Layer:
    parts = {part: tensors.get(f"{network}/{entry['name']}/{part}") for part in _PARTS}
    return Layer(
        kind=entry["kind"], name=entry["name"], inputs=tuple(entry["inputs"]), spec=_spec_from_json(entry["spec"]),
        relu=entry["relu"], factor=entry["factor"], **parts,
    )  # fmt: skip
