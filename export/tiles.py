"""Runs fixed-shape networks on pictures of any size, tile by tile; the result equals a run on the whole picture.

Along one axis:

    [ kept         | halo ]                     the first tile is kept up to the picture's border, where zero
             [ halo | kept | halo ]             padding is right; neighbours overlap by two halos;
                    [ halo |         kept ]     the last tile is shifted inward to end with the picture

At a border inside the picture a tile sees zero padding instead of its neighbour. Each depthwise convolution spreads
that error k // 2 cells further inward. The sum, in cells of the first input, is the halo.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import lcm

import numpy as np

from ..codec.codec import STRIDE, Executor
from ..quantization.model import IntegerModel
from ..quantization.network import Int8, IntegerNetwork
from .errors import ExportError

PIXELS_PER_CELL = {"analysis": 1, "hyper_analysis": 16, "hyper_synthesis": 64, "context": 16, "synthesis": 16}
"""Network -> side in picture pixels of one cell of its inputs."""

DEFAULT_PIXELS = 256
"""Side of the pictures that networks are exported for where shapes are not fixed."""


def require_whole(network: IntegerNetwork, size: tuple[int, int]) -> None:
    """Raise ExportError unless every tensor has a whole number of cells for inputs of a size (height, width)."""
    if any(side * n % d for side in size for n, d in network.strides.values()):
        raise ExportError(f"{network.name}: size {size[0]}x{size[1]} does not divide by its strides")


def alignment(network: IntegerNetwork) -> int:
    """Shifts of tiles are multiples of this many cells of the first input, so that blocks stay whole."""
    return lcm(*(denominator for _, denominator in network.strides.values()))


def halo(network: IntegerNetwork) -> int:
    """Width of the wrong margin along an inner border, in cells of the first input, rounded up."""
    wrong = dict.fromkeys(network.inputs, 0)  # in each tensor's own cells
    for layer in network.layers:
        cells = max(wrong[i] for i in layer.inputs)
        if layer.kind == "depthwise":
            cells += layer.convolution()[0].shape[0] // 2
        numerator, denominator = layer.grid
        wrong[layer.name] = -(-cells * numerator // denominator)
    align = alignment(network)
    result = 0
    for output in network.outputs:
        numerator, denominator = network.strides[output]
        cells = -(-wrong[output] * denominator // numerator)
        result = max(result, -(-cells // align) * align)
    return result


def spans(length: int, tile: int, margin: int) -> list[tuple[int, int, int]]:
    """(start of tile, start and end of what it keeps) of tiles that cover 0..length, length >= tile."""
    result = []
    kept = 0
    while kept < length:
        start = min(max(kept - margin, 0), length - tile)
        end = length if start + tile == length else start + tile - margin
        result.append((start, kept, end))
        kept = end
    return result


def run_tiled(run: Executor, network: IntegerNetwork, inputs: Sequence[Int8], tile: int) -> dict[str, Int8]:
    """The result of network.run(inputs), from `run` on inputs of tile x tile cells.

    All inputs have the same height and width, multiples of `alignment`, as `tile` is. A picture smaller than a tile in
    either direction runs on the NumPy reference. Raises ExportError when the tile is too small for the halo.
    """
    margin, align = halo(network), alignment(network)
    if tile % align or tile < 2 * margin + align:
        raise ExportError(f"{network.name}: tiles of {tile} cells do not fit a halo of {margin} and steps of {align}")
    height, width = inputs[0].shape[:2]
    if height < tile or width < tile:
        return network.run(inputs)
    outputs: dict[str, Int8] = {}
    for (top, y0, y1), (left, x0, x1) in product(spans(height, tile, margin), spans(width, tile, margin)):
        part = run(network, [x[top : top + tile, left : left + tile] for x in inputs])
        for name, values in part.items():
            n, d = network.strides[name]
            if name not in outputs:
                outputs[name] = np.empty((height * n // d, width * n // d, values.shape[2]), np.int8)
            kept = values[(y0 - top) * n // d : (y1 - top) * n // d, (x0 - left) * n // d : (x1 - left) * n // d]
            outputs[name][y0 * n // d : y1 * n // d, x0 * n // d : x1 * n // d] = kept
    return outputs


def least_tile(model: IntegerModel) -> int:
    """The smallest tile, in pixels, that all networks of the model can use."""
    return max(
        -(-(2 * halo(network) + alignment(network)) * PIXELS_PER_CELL[name] // STRIDE) * STRIDE
        for name, network in model.networks.items()
    )


def check_tile(model: IntegerModel, tile: int) -> None:
    """Raise ExportError unless tile x tile pixels is a size that all networks of the model can use."""
    least = least_tile(model)
    if tile % STRIDE or tile < least:
        raise ExportError(f"a tile must be a multiple of {STRIDE} pixels and at least {least}, not {tile}")


class TiledExecutor:
    """An executor of a codec's networks that calls `run` on tiles of tile x tile picture pixels only."""

    def __init__(self, run: Executor, tile: int) -> None:
        self.run = run
        self.tile = tile

    def __call__(self, network: IntegerNetwork, inputs: Sequence[Int8]) -> dict[str, Int8]:
        return run_tiled(self.run, network, inputs, self.tile // PIXELS_PER_CELL[network.name])
