"""Perceptual error of a decoded picture, and what computes it with torch inside the codec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.perceptual import picture_bits


def to_tensor(array: NDArray[Any]) -> Tensor:
    """float32 [1, C, H, W], in memory as [H, W, C] is."""
    return torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch on one thread.

    Its threads do not survive a fork: the next operation would wait for them forever. On a busy machine they
    wait for one another: 74 s instead of 5 s, measured with 2 threads for 8 iterations on 0.1 megapixels. And sums in
    another order end in another file.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def visual_error(rgb: NDArray[np.uint8], decoded: NDArray[np.uint8], quality_hundredths: int) -> float:
    """Perceptual error of a decoded picture, in bits; both uint8 [H, W, 3]."""
    with torch.no_grad():
        bits = picture_bits(to_tensor(rgb), to_tensor(decoded), torch.tensor([quality_hundredths / 100]))
    return float(bits)
