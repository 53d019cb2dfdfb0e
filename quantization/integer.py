"""The integer network: layers of integer tensors and shifts, and the NumPy executor that defines their meaning.

Everything that leaves the training side (LiteRT, ExecuTorch, the native core) is made from this representation and
has to equal `IntegerNetwork.run` bit by bit. A tensor is int8 [height, width, channels] standing for
(value - zero_point) * 2**exponent; exponents only label tensors, the arithmetic needs none of them.

Convolutions:  acc = bias + sum(weight * (x - zero_point));  y = clamp(((acc + 2**(shift-1)) >> shift) + zero_point)
Sums:          y = clamp((a - zero_point_a) + (b - zero_point_b) + zero_point)

The clamp is to -128..127, or from the zero point up behind a ReLU. Where a runtime rounds ties otherwise, or rounds
twice, results could differ; the tie-free rules keep the accumulator off every such case:

    cpu     even weights, odd biases: acc is odd, so never half-way (shift >= 2)
    strict  weights 0 mod 4, biases 2 mod 4: not half-way after a first rounding by one bit either (shift >= 3)
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

Kind = Literal["pointwise", "depthwise", "add", "upsample", "space_to_depth", "depth_to_space"]
Profile = Literal["cpu", "strict"]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]

RULES: dict[Profile, tuple[int, int, int, int]] = {"cpu": (2, 1, 2, 15), "strict": (4, 2, 3, 17)}
"""Profile -> (weights are multiples of, biases leave this remainder, least shift, greatest shift).

XNNPACK requantizes in float32: beyond the greatest shift its rounding error reaches the nearest tie (measured on every
accumulator beside a tie).
"""


class ModelError(ValueError):
    """A model file or integer network that breaks its own rules; the message is one line."""


@dataclass(frozen=True)
class Spec:
    """What the integers of a tensor mean: channels, scale 2**exponent, zero point (0, or -128 behind a ReLU)."""

    channels: int
    exponent: int
    zero_point: int = 0


@dataclass(frozen=True)
class Layer:
    """One operation; `name` is also the name of its output tensor, `spec` its meaning.

    pointwise: weight int8 [out, in]; depthwise: weight int8 [k, k, channels], odd k, zero padding; both with
    bias int32 [out] and shift int8 [out]. `factor` is the block or factor of the three that move pixels, in the
    channel order (dy, dx, c). `relu` clamps at the zero point.
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


def rounding_shift(acc: Int64, shift: NDArray[Any]) -> Int64:
    """floor(acc / 2**shift + 1/2) for shift >= 1, elementwise over the last axis."""
    s = shift.astype(np.int64)
    return (acc + (np.int64(1) << (s - 1))) >> s


def _accumulate(layer: Layer, x: Int64) -> Int64:
    assert layer.weight is not None and layer.bias is not None
    weight = layer.weight.astype(np.int64)
    if layer.kind == "pointwise":
        return np.einsum("hwi,oi->hwo", x, weight) + layer.bias  # twice as fast as @, which has no BLAS for integers
    k = weight.shape[0]
    h, w, _ = x.shape
    padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    acc = np.broadcast_to(layer.bias.astype(np.int64), x.shape).copy()
    for dy in range(k):
        for dx in range(k):
            acc += padded[dy : dy + h, dx : dx + w] * weight[dy, dx]
    return acc


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
        scale = {name: (1, 1) for name in self.inputs}
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
        """Raise ModelError unless shapes agree, int32 holds every accumulator and the profile's tie-free rule holds."""
        multiple, remainder, least, most = RULES[profile]
        known: dict[str, Spec] = dict(self.inputs)
        for layer in self.layers:
            where = f"{self.name}/{layer.name}"
            if layer.name in known or any(i not in known for i in layer.inputs):
                raise ModelError(f"{where}: tensors out of order")
            sources = [known[i] for i in layer.inputs]
            channels = sources[0].channels
            if layer.kind in ("pointwise", "depthwise"):
                w, b, s = layer.weight, layer.bias, layer.shift
                if w is None or b is None or s is None or w.dtype != np.int8 or b.dtype != np.int32:
                    raise ModelError(f"{where}: a convolution needs int8 weights, int32 biases and shifts")
                pointwise = layer.kind == "pointwise"
                outputs = w.shape[0] if pointwise else channels
                shape = (outputs, channels) if pointwise else (w.shape[0], w.shape[0], channels)
                if w.shape != shape or b.shape != (outputs,) or s.shape != (outputs,) or layer.spec.channels != outputs:
                    raise ModelError(f"{where}: weight {w.shape}, bias {b.shape} do not fit {channels} channels")
                if (w % multiple).any() or (b % (2 * remainder) != remainder).any():
                    raise ModelError(f"{where}: breaks the tie-free rule of profile {profile}")
                if s.min() < least or s.max() > most:
                    raise ModelError(f"{where}: shifts {s.min()}..{s.max()} outside {least}..{most}")
                reach = 128 - sources[0].zero_point if sources[0].zero_point < 0 else 128
                axes = (1,) if pointwise else (0, 1)
                worst = np.abs(w.astype(np.int64)).sum(axes) * reach + np.abs(b.astype(np.int64))
                if (worst + (np.int64(1) << (s.astype(np.int64) - 1)) >= 2**31).any():
                    raise ModelError(f"{where}: an accumulator can exceed 32 bits")
            elif layer.kind == "add":
                if len(sources) != 2 or sources[0].channels != sources[1].channels != layer.spec.channels:
                    raise ModelError(f"{where}: a sum needs two inputs of equal shape")
                if {s.exponent for s in sources} != {layer.spec.exponent}:
                    raise ModelError(f"{where}: a sum needs equal scales")
            else:
                factor = layer.factor**2
                moved = {"upsample": channels, "space_to_depth": channels * factor}.get(layer.kind, channels // factor)
                if layer.spec != Spec(moved, sources[0].exponent, sources[0].zero_point):
                    raise ModelError(f"{where}: moving pixels must keep scale and zero point")
            known[layer.name] = layer.spec
        if any(o not in known for o in self.outputs):
            raise ModelError(f"{self.name}: unknown output")

    def run(self, inputs: Sequence[Int8], keep: bool = False) -> dict[str, Int8]:
        """Run on int8 [H, W, C] arrays in the order of `inputs`; returns the outputs by name, or with `keep` all tensors.

        Raises ModelError when an input's dtype or channels are wrong.
        """
        tensors: dict[str, Int8] = {}
        for (name, spec), x in zip(self.inputs.items(), inputs, strict=True):
            if x.dtype != np.int8 or x.ndim != 3 or x.shape[2] != spec.channels:
                raise ModelError(f"{self.name}: input {name} must be int8 [H, W, {spec.channels}], not {x.dtype} {x.shape}")
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
    """Everything a codec needs, in integers: five networks, two projections, gain knots and entropy tables.

    Fixed-point units: latents 2**-8 of the latent grid; logarithms 2**-8 octaves; rows 2**-16.
    """

    profile: Profile
    networks: dict[str, IntegerNetwork]
    latent_weight: Int8  # [128, features]: features -> y
    latent_bias: NDArray[np.int32]  # [128]
    latent_shift: Int8  # [128]; y = accumulator << shift, or rounded >> -shift, in 2**-8
    row_weight: Int8  # [16*128, 64]: z -> row, channels (dy, dx, c) of a depth-to-space by 4
    row_scale: NDArray[np.int32]  # [16*128]; accumulator * scale is in 2**-16 rows
    row_bias: NDArray[np.int32]  # [16*128], 2**-16 rows
    step_knots: NDArray[np.int32]  # [knots, 128] log2 of the quantization step in units of the grid, 2**-8 octaves
    row_knots: NDArray[np.int32]  # [knots, 128] what quality adds to the row, 2**-16 rows
    hyper_gain_knots: NDArray[np.int32]  # [knots, 64] log2 of the encoder's gain on z, 2**-8 octaves
    hyper_row_knots: NDArray[np.int32]  # [knots, 64] row that codes z, 2**-16 rows
    wide: NDArray[np.int16]  # channels whose grid is four times finer; the two bits are a plane of their own
    exp2: NDArray[np.int32]  # [256]: round(2**16 * 2**(i/256))
    table_radius: NDArray[np.uint16]  # [64]
    table_freq: NDArray[np.uint16]  # concatenated rows of 2*radius+2 frequencies, each summing to 2**16
    skip: int  # rows below this are not coded: their symbols are 0
    notes: dict[str, str] = field(default_factory=dict)  # provenance: training steps, data, figures

    ARRAYS = (
        "latent_weight", "latent_bias", "latent_shift", "row_weight", "row_scale", "row_bias", "step_knots",
        "row_knots", "hyper_gain_knots", "hyper_row_knots", "wide", "exp2", "table_radius", "table_freq",
    )  # fmt: skip

    def check(self) -> None:
        """Raise ModelError unless every network obeys the profile and all five are there."""
        if set(self.networks) != set(NETWORKS):
            raise ModelError(f"a model has the networks {', '.join(NETWORKS)}; this one has {', '.join(self.networks)}")
        for network in self.networks.values():
            network.check(self.profile)

    def to_bytes(self) -> bytes:
        """Serialize as safetensors with JSON metadata; the same model gives the same bytes."""
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in self.ARRAYS}
        described: dict[str, Any] = {}
        for network in self.networks.values():
            layers = []
            for layer in network.layers:
                entry: dict[str, Any] = {
                    "kind": layer.kind, "name": layer.name, "inputs": layer.inputs, "relu": layer.relu,
                    "factor": layer.factor, "spec": _spec_to_json(layer.spec),
                }  # fmt: skip
                layers.append(entry)
                for part in ("weight", "bias", "shift"):
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
            content = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["pocketlic"])
            networks = {}
            for name, net in content["networks"].items():
                layers = tuple(_layer_from_json(name, entry, tensors) for entry in net["layers"])
                inputs = {key: Spec(*spec) for key, spec in net["inputs"]}
                networks[name] = IntegerNetwork(name, inputs, layers, tuple(net["outputs"]))
            arrays = {name: tensors[name] for name in IntegerModel.ARRAYS}
            model = IntegerModel(
                profile=content["profile"], networks=networks, skip=int(content["skip"]), notes=content["notes"], **arrays
            )
            model.check()
        except (SafetensorError, KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"not a Pocketlic model: {type(error).__name__}: {error}") from error
        return model

    @property
    def model_id(self) -> str:
        """SHA-256 of the serialized model, hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def load_model(path: Path) -> IntegerModel:
    """Read a model file; ModelError with one line when it cannot be read or is unsound."""
    try:
        return IntegerModel.from_bytes(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read model {path}: {error.strerror}") from error


def _spec_to_json(spec: Spec) -> list[int]:
    return [getattr(spec, f.name) for f in fields(spec)]


def _layer_from_json(network: str, entry: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Layer:
    parts = {part: tensors.get(f"{network}/{entry['name']}/{part}") for part in ("weight", "bias", "shift")}
    return Layer(
        kind=entry["kind"], name=entry["name"], inputs=tuple(entry["inputs"]), spec=Spec(*entry["spec"]),
        relu=entry["relu"], factor=entry["factor"], **parts,
    )  # fmt: skip
