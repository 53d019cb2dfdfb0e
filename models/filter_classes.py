"""Classes of the post-filter: how strong, how straight and in which direction a picture changes around a cell.

The one place that says so, for arrays of NumPy, which the codec uses, and of torch, which training does. SPEC.md, 6.4.
"""

from __future__ import annotations

from typing import Any

LUMA = (54, 183, 19)  # BT.709's, in 2**-8
STRENGTHS = (182, 729, 2916, 11664, 46656)  # 81 * s**2: changes of s = 1.5, 3, 6, 12 and 24 a pixel
STRAIGHTNESS = (120, 205, 246)  # in 2**-8, of 1; 0 is as much change in all directions
DIRECTIONS = 16
CLASSES = (len(STRENGTHS) + 1) * (len(STRAIGHTNESS) + 1) * DIRECTIONS
# Of one of each two taps that share a weight: (down, right) of the pixel, within 5x5.
OFFSETS = tuple((down, right) for down in range(3) for right in range(-2, 3) if (down, right) > (0, 0))
KNOTS = 3  # qualities at which filters are learned, 0, 50 and 100; linear between
MARGIN = 5  # pixels around a cell that its class depends on
MAC_PER_PIXEL = len(LUMA) + 3 + len(OFFSETS)  # luma, products, taps; the sums over cells are additions


def classes(around: Any, xp: Any) -> Any:
    """Class of every cell of 2x2 pixels, int [..., h, w], of luma int32 [..., 2h + 10, 2w + 10] in quarters.

    xp: numpy or torch, whose arrays these are.

    By the structure tensor, as in Romano, Isidoro, Milanfar, "RAISR: rapid and accurate image super resolution", IEEE
    Transactions on Computational Imaging, 2017; of its two numbers here are only comparisons.
    """
    across = around[..., 1:-1, 2:] - around[..., 1:-1, :-2]
    down = around[..., 2:, 1:-1] - around[..., :-2, 1:-1]
    a, b, c = (_smooth(_cells(product)) for product in (across * across, across * down, down * down))
    energy, u, v = (a + c) >> 8, a - c, 2 * b
    x, y = abs(u) >> 8, abs(v) >> 8
    more, less = xp.maximum(x, y), xp.minimum(x, y)
    # (u, v) points to twice the gradient's angle: in sixteenths of the circle, and by an octagon its length.
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
