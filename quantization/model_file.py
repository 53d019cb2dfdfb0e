"""The model file: safetensors whose metadata describes the networks in JSON. codec/SPEC.md, section 3, specifies it.

A convolution's arrays are called NETWORK/LAYER/weight, bias and shift; those of the model have names without a slash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .errors import ModelError, Rule
from .network import IntegerNetwork, Layer, Spec

MAX_HEADER, MAX_LEVELS, MAX_KEYS = 1 << 20, 16, 1024
"""Limits every decoder must support, of the header's bytes, of JSON's nesting and of an object's keys."""

FOREIGN = SafetensorError, LookupError, TypeError, AttributeError, ValueError, RecursionError
"""What reading anything but a model file can end in."""

_METADATA = "pocketlic"
_PARTS = ("weight", "bias", "shift")

Arrays = dict[str, NDArray[Any]]


class Description(NamedTuple):
    """What a model file holds beside the model's arrays."""

    rule: Rule
    skip: int
    notes: dict[str, str]
    networks: dict[str, IntegerNetwork]


def write(description: Description, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The file of a model; equal models give equal bytes."""
    tensors = dict(arrays)
    networks = {}
    for network in description.networks.values():
        for layer in network.layers:
            parts = ((part, getattr(layer, part)) for part in _PARTS)
            tensors |= {f"{network.name}/{layer.name}/{part}": array for part, array in parts if array is not None}
        networks[network.name] = {
            "inputs": [[name, astuple(spec)] for name, spec in network.inputs.items()],
            "layers": [_layer_to_json(layer) for layer in network.layers],
            "outputs": network.outputs,
        }
    content = {
        "profile": description.rule, "skip": description.skip, "networks": networks, "notes": description.notes,
    }  # fmt: skip
    # One metadata key: safetensors keeps several in no fixed order, and the bytes are hashed.
    metadata = {_METADATA: json.dumps(content, sort_keys=True)}
    return save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata=metadata)


def read(data: bytes) -> tuple[Description, Arrays]:
    """The inverse of `write`. Nothing that it returns has been checked.

    Raises ModelError or another of `FOREIGN` when the bytes are no model file.
    """
    tensors = load(data)
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise ModelError(f"not a Pocketlic model: the header exceeds {MAX_HEADER} bytes")
    metadata = _parse(data[8 : 8 + length].decode())["__metadata__"]
    if len(metadata) != 1:
        raise ModelError("not a Pocketlic model: metadata besides the description")
    content = _parse(metadata[_METADATA])
    networks = {}
    for name, network in content["networks"].items():
        inputs = {key: _spec_from_json(spec) for key, spec in network["inputs"]}
        if len(inputs) != len(network["inputs"]):
            raise ModelError(f"{name}: two inputs have one name")
        layers = tuple(_layer_from_json(name, entry, tensors) for entry in network["layers"])
        networks[name] = IntegerNetwork(name, inputs, layers, tuple(network["outputs"]))
    return Description(content["profile"], content["skip"], content["notes"], networks), tensors


def _layer_to_json(layer: Layer) -> dict[str, Any]:
    return {
        "kind": layer.kind, "name": layer.name, "inputs": layer.inputs, "relu": layer.relu, "factor": layer.factor,
        "spec": astuple(layer.spec),
    }  # fmt: skip


def _layer_from_json(network: str, entry: Mapping[str, Any], tensors: Arrays) -> Layer:
    """The layer; takes its arrays out of `tensors`."""
    parts = {part: tensors.pop(f"{network}/{entry['name']}/{part}", None) for part in _PARTS}
    return Layer(
        kind=entry["kind"], name=entry["name"], inputs=tuple(entry["inputs"]), spec=_spec_from_json(entry["spec"]),
        relu=entry["relu"], factor=entry["factor"], **parts,
    )  # fmt: skip


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
