"""Multiply-accumulates per pixel, counted while a picture goes through encoder and decoder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..models.filter_classes import MAC_PER_PIXEL
from ..quantization.model import IntegerModel
from ..quantization.network import Int8, IntegerNetwork
from . import codec as reference_codec

VMUC_KMAC_PER_PIXEL = 69.0  # JPEG AI's VMuC, first stage, decoding


@dataclass(frozen=True)
class Complexity:
    """kMAC per pixel of a whole encode and a whole decode.

    components: name -> kMAC per pixel, parameters, and whether it runs when encoding and when decoding.
    """

    decode_kmac_per_pixel: float
    encode_kmac_per_pixel: float
    decode_ratio_to_vmuc: float
    encode_ratio_to_vmuc: float
    components: dict[str, dict[str, float | int | bool]]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def count(model: IntegerModel, side: int = 128) -> Complexity:
    """Encode and decode a side x side picture, and count the multiplications of every convolution that runs.

    The projections outside the networks run once per encode, those of the table indices also once per decode. Depthwise
    windows count in full at the borders, as runtimes compute them. The post-filter runs once per decode.
    """
    totals: dict[str, int] = defaultdict(int)

    def run(network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        tensors = network.run(inputs, keep=True)
        for layer in network.layers:
            if layer.weight is not None:
                height, width, _ = tensors[layer.name].shape
                totals[network.name] += layer.weight.size * height * width
        return {name: tensors[name] for name in network.outputs}

    codec = reference_codec.Codec(model, run)
    projections = {name: w.size * (side // cell) ** 2 for name, (w, cell) in model.projections.items()}
    data = codec.encode(np.zeros((side, side, 3), np.uint8), 50)
    encode = {**totals, **projections}
    totals.clear()
    codec.decode(data)
    decode = {**totals, **{name: projections[name] for name in ("rows", "detail_rows")}}
    if model.post_filter is not None:
        decode["post_filter"] = MAC_PER_PIXEL * side**2

    parameters = {
        network.name: sum(
            la.weight.size + la.bias.size for la in network.layers if la.weight is not None and la.bias is not None
        )
        for network in model.networks.values()
    }
    parameters |= {name: w.size + w.shape[0] for name, (w, _) in model.projections.items()}
    parameters["post_filter"] = 0 if model.post_filter is None else model.post_filter.size
    unit = 1000.0 * side * side
    components: dict[str, dict[str, float | int | bool]] = {
        name: {
            "kmac_per_pixel": macs / unit,
            "parameters": parameters[name],
            "encodes": name in encode,
            "decodes": name in decode,
        }
        for name, macs in {**encode, **decode}.items()
    }
    encoding, decoding = sum(encode.values()) / unit, sum(decode.values()) / unit
    return Complexity(decoding, encoding, VMUC_KMAC_PER_PIXEL / decoding, VMUC_KMAC_PER_PIXEL / encoding, components)
