"""The post-filter in NumPy: SPEC.md, section 6.4. What it is for: `models.postfilter`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..models.filter_classes import LUMA, MARGIN, OFFSETS, classes


def post_filter(rgb: NDArray[np.uint8], filters: NDArray[np.int32]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], filtered; filters: [384, 12] in 2**-8."""
    height, width = rgb.shape[:2]
    luma = (rgb.astype(np.int32) @ np.array(LUMA, np.int32) + 32) >> 6
    # The last row and column once more where there is half a cell.
    around = np.pad(luma, ((MARGIN, MARGIN + height % 2), (MARGIN, MARGIN + width % 2)), mode="edge")
    chosen = filters[classes(around, np)].repeat(2, 0).repeat(2, 1)[:height, :width]

    def at(down: int, right: int) -> NDArray[np.int32]:
        top, left = MARGIN + down, MARGIN + right
        return around[top : top + height, left : left + width]

    change = np.full((height, width), 512, np.int32)
    for i, (down, right) in enumerate(OFFSETS):
        change += chosen[:, :, i] * (at(down, right) + at(-down, -right) - 2 * luma)
    return np.clip(rgb + (change >> 10)[:, :, None], 0, 255).astype(np.uint8)
