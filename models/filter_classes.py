"""The post-filter's classes: how strongly, how straight and in which direction a picture changes around a cell.

For NumPy arrays, which the codec uses, and for torch tensors, which training uses. codec/SPEC.md, section 6.4.
"""

from __future__ import annotations

from typing import Any

LUMA = (54, 183, 19)  # BT.709's, in 2**-8
STRENGTHS = (182, 729, 2916, 11664, 46656)  # 81 * s**2: changes of s = 1.5, 3, 6, 12 and 24 a pixel
STRAIGHTNESS = (120, 205, 246)  # in 2**-8; 0 means equal change in all directions, 1 change in one
DIRECTIONS = 16
CLASSES = (len(STRENGTHS) + 1) * (len(STRAIGHTNESS) + 1) * DIRECTIONS
# (down, right) from the pixel, within 5x5, of one of the two taps that share a weight.
OFFSETS = tuple((down, right) for down in range(3) for right in range(-2, 3) if (down, right) > (0, 0))
KNOTS = 3  # filters are learned at qualities 0, 50 and 100, and interpolated between
MARGIN = 5  # pixels around a cell that its class depends on
MAC_PER_PIXEL = len(LUMA) + 3 + len(OFFSETS)  # luma, products, taps; the sums over cells are additions


def classes(around: Any, xp: Any) -> Any:
    """Class of every cell of 2x2 pixels, int [..., h, w], of luma int32 [..., 2h + 10, 2w + 10] in quarters.

    xp: the arrays' module, numpy or torch.

    From the structure tensor, as in Romano, Isidoro, Milanfar, "RAISR: rapid and accurate image super resolution", IEEE
    Transactions on Computational Imaging, 2017, but in integers, by comparisons only.
    """
    across = around[..., 1:-1, 2:] - around[..., 1:-1, :-2]
    down = around[..., 2:, 1:-1] - around[..., :-2, 1:-1]
    a, b, c = (_smooth(_cells(product)) for product in (across * across, across * down, down * down))
    energy, u, v = (a + c) >> 8, a - c, 2 * b
    x, y = abs(u) >> 8, abs(v) >> 8
    more, less = xp.maximum(x, y), xp.minimum(x, y)
    # (u, v) has twice the gradient's angle. Its angle is found in sixteenths of the circle, its length by an octagon.
    beyond = xp.where(less * 256 > more * 106, 1, 0)
    direction = xp.where(x >= y, beyond, 3 - beyond)
    direction = xp.where(u >= 0, direction, 7 - direction)
    direction = xp.where(v >= 0, direction, 15 - direction)
    length = xp.maximum(more, ((x + y) * 181) >> 8)
    strength = sum(xp.where(energy >= limit, 1, 0) for limit in STRENGTHS)
    straight = sum(xp.where(length * 256 >= energy * limit, 1, 0) for limit in STRAIGHTNESS)
    return (strength * (len(STRAIGHTNESS) + 1) + straight) * DIRECTIONS + direction


def _cells(x: Any) -> Any:
    """Sums over 2x2."""
    rows = x[..., ::2, :] + x[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def _smooth(x: Any) -> Any:
    """Sums over 3x3, of sums over 3x3: weights 1, 2, 3, 2, 1 along both axes."""
    for _ in range(2):
        x = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
        x = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    return x
