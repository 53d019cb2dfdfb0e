"""Filters of planes as products with banded matrices, with gradients.

For one channel a CPU does that several times faster than a convolution, backward above all. Only the blocks along the
band of a matrix are multiplied.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .layers import apply_function

BLOCK = 64  # rows of a matrix that are multiplied at a time


def gaussian(size: int, sigma: float) -> tuple[float, ...]:
    """Taps that sum to 1."""
    taps = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(tap / sum(taps) for tap in taps)


class _Banded:
    """A matrix whose nonzero entries lie along a band: blocks of its rows, each with the columns that it needs."""

    def __init__(self, matrix: Tensor) -> None:
        # On a GPU one product is faster than a kernel for each block.
        size = BLOCK if matrix.device.type == "cpu" else len(matrix)
        self.outputs = len(matrix)
        self.blocks: list[tuple[slice, slice, Tensor]] = []
        for start in range(0, len(matrix), size):
            rows = matrix[start : start + size]
            used = rows.any(0).nonzero()
            columns = slice(int(used[0]), int(used[-1]) + 1)
            self.blocks.append((slice(start, start + len(rows)), columns, rows[:, columns].contiguous()))

    def times(self, x: Tensor, axis: int) -> Tensor:
        """The product along axis 1 or 2 of [B, H, W]."""
        if axis == 1:
            return torch.cat([block @ x[:, columns] for _, columns, block in self.blocks], 1)
        flat = x.reshape(-1, x.shape[2])
        y = x.new_empty(len(flat), self.outputs)
        for rows, columns, block in self.blocks:
            torch.mm(flat[:, columns], block.T, out=y[:, rows])
        return y.view(*x.shape[:2], -1)


class _Product(torch.autograd.Function):
    """`_Banded.times` with the gradient of x, by the transposed matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: _Banded, transposed: _Banded, axis: int) -> Tensor:
        ctx.transposed, ctx.axis = transposed, axis
        return matrix.times(x, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.transposed.times(grad, ctx.axis), None, None, None


class Filter:
    """The linear map that a matrix [outputs, n] makes of n samples along an axis."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.transposed = _Banded(matrix), _Banded(matrix.T)

    def along(self, x: Tensor, axis: int) -> Tensor:
        """[B, H, W] filtered along axis 1 or 2."""
        return apply_function(_Product, x, self.matrix, self.transposed, axis)


def both(x: Tensor, rows: Filter, columns: Filter) -> Tensor:
    """[B, H, W] filtered along both axes."""
    return columns.along(rows.along(x, 1), 2)


@cache
def band(
    n: int, taps: tuple[float, ...], stride: int, before: int, after: int, repeat: bool, device: torch.device
) -> Filter:
    """The filter of n samples that are mirrored at both ends; cached.

    before, after: mirrored samples added at each end. repeat: whether the last sample is mirrored, too.
    """
    return Filter(band_matrix(n, taps, stride, before, after, repeat).to(device))


def band_matrix(n: int, taps: tuple[float, ...], stride: int, before: int, after: int, repeat: bool) -> Tensor:
    """The matrix [outputs, n] of `band`, float32."""
    samples = list(range(n))
    samples += samples[n - after :][::-1] if repeat else samples[n - 1 - after : n - 1][::-1]
    samples = samples[1 : before + 1][::-1] + samples
    matrix = torch.zeros((len(samples) - len(taps)) // stride + 1, n, dtype=torch.float64)
    for row in range(len(matrix)):
        for k, tap in enumerate(taps):
            matrix[row, samples[row * stride + k]] += tap
    return matrix.float()


def filtered(
    x: Tensor, taps: tuple[float, ...], stride: int = 1, before: int = 0, after: int = 0, repeat: bool = False
) -> Tensor:
    """[B, H, W] filtered along both axes."""
    rows, columns = (band(n, taps, stride, before, after, repeat, x.device) for n in x.shape[1:])
    return both(x, rows, columns)
