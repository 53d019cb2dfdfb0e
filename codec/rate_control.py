"""Rate control: the quality whose file has a wanted size.

Size grows with quality, by about the same factor per step, but not always. So the search interpolates the logarithm
of the size between a quality known to be too low and one known to be too high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .errors import PlicError
from .figures import bits_per_pixel

TOLERANCE = 0.01
"""Largest deviation from the wanted size, as a fraction of it."""

_GROWTH = 3e-4  # growth of the logarithm of the size per hundredth of quality, assumed until two sizes are known

Encode = Callable[[float, int], bytes]
"""(quality, effort) -> file"""


def for_size(encoders: Sequence[tuple[float, Encode]], size: float) -> Encode:
    """Choose the highest-quality encoder whose lowest-quality file, at effort 0, fits `size` bytes; else the first.

    encoders: (lowest quality that the encoder is best at, encoder), from low to high. An encoder also takes qualities
    beyond its own, so sizes between those of two encoders can be met.
    """
    return next((encode for quality, encode in encoders[:0:-1] if len(encode(quality, 0)) <= size), encoders[0][1])


def encode_to_bpp(encode: Encode, effort: int, pixels: int, bpp: float, metadata: int = 0) -> bytes:
    """The file of a picture of `pixels` pixels with `bpp` bits per pixel, within 1 %.

    metadata: bytes of the file that are no picture. PlicError when no quality gives it.
    """
    if not 0 < bpp < math.inf:
        raise PlicError(f"{bpp:g} bits per pixel are no size")
    size = bpp * pixels / 8
    quality, data = _search(encode, effort, math.ceil(size * (1 - TOLERANCE)), math.floor(size * (1 + TOLERANCE)))
    if abs(len(data) - size) > TOLERANCE * size:
        nearest = f"quality {quality:g} gives {bits_per_pixel(len(data), pixels, 1):.4g}"
        raise PlicError(f"no quality gives {bpp:g} bits per pixel: {nearest}{_of_which(metadata)}")
    return data


def encode_to_bytes(encode: Encode, effort: int, most: int, metadata: int = 0) -> bytes:
    """The largest file found of at most so many bytes; within 1 % of it where one exists.

    metadata: bytes of the file that are no picture. PlicError when quality 0 takes more.
    """
    quality, data = _search(encode, effort, math.ceil(most * (1 - TOLERANCE)), most)
    if len(data) > most:
        least = f"quality {quality:g} takes {len(data)}{_of_which(metadata)}"
        raise PlicError(f"no quality gives a file of at most {most} bytes: {least}")
    return data


def _of_which(metadata: int) -> str:
    return f", {metadata} bytes of it for ICC profile and EXIF" if metadata else ""


def _search(encode: Encode, effort: int, least: int, most: int) -> tuple[float, bytes]:
    """Quality and file of `least` to `most` bytes; else the largest smaller file found; else that of quality 0."""
    plain = _search_from(50.0, lambda q: encode(q, 0), least, most)
    if effort == 0:
        return plain
    # Effort 0 is quick, and its quality is close.
    found = _search_from(plain[0], lambda q: encode(q, effort), least, most)
    # On small pictures a changed choice between roundings makes sizes jump, maybe past the wanted range.
    jumped = not least <= len(found[1]) <= most and least <= len(plain[1]) <= most
    return plain if jumped else found


def _search_from(start: float, encode: Callable[[float], bytes], least: int, most: int) -> tuple[float, bytes]:
    wanted = math.log(max(1, least + most) / 2)
    # (quality_hundredths, logarithm of the size, file)
    low: tuple[int, float, bytes] | None = None
    high: tuple[int, float, bytes] | None = None
    quality_hundredths = round(100 * start)
    below, streak = False, 0
    while True:
        data = encode(quality_hundredths / 100)
        tried = (quality_hundredths, math.log(len(data)), data)
        if least <= len(data) <= most:
            break
        streak = streak + 1 if below == (len(data) < least) else 1
        below = len(data) < least
        if below:
            low = tried
        else:
            high = tried
        bottom, top = low[0] + 1 if low else 0, high[0] - 1 if high else 10000
        if bottom > top:
            tried = low or tried
            break
        if low and high:
            # Interpolation alone can converge slowly, always from one side: then bisect.
            part = 0.5 if streak > 2 else (wanted - low[1]) / (high[1] - low[1])
            quality_hundredths = round(low[0] + part * (high[0] - low[0]))
        else:
            # Overshoot by a fifth, so that both sides are known soon.
            quality_hundredths += round(1.2 * (wanted - tried[1]) / _GROWTH)
        quality_hundredths = min(max(quality_hundredths, bottom), top)
    return tried[0] / 100, tried[2]
