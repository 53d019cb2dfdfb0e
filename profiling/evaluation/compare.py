"""A picture beside files made of it: their sizes, metrics, and a page that shows any two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...codec import format as plic
from ...codec.errors import PlicError
from ...codec.figures import bits_per_pixel
from ...codec.image import read_picture
from ...console import printable
from ..pages import render
from ..text import Table, bytes_text, size_text
from .codecs import Pixels, as_rgb
from .metrics import METRICS, measure, value_text
from .report import data_url

MOST_SHOWN = 2048
"""Pixels, the greatest side of what the page shows of a picture."""

Decode = Callable[[bytes], Pixels]
"""The pixels of a .plic file, uint8 [H, W, 3] or [H, W]."""


@dataclass(frozen=True)
class Shown:
    """A picture and the file that it came from. name: as reports show it. pixels: uint8 [H, W, 3] RGB."""

    name: str
    pixels: Pixels
    bytes: int

    @property
    def bpp(self) -> float:
        """Bits of the file per pixel."""
        return bits_per_pixel(self.bytes, *self.pixels.shape[:2])


@dataclass(frozen=True)
class Pair:
    """An original, the files made of it, and the metrics of each, by name."""

    original: Shown
    files: list[Shown]
    metrics: list[dict[str, float]]


def read_any(path: Path, decode: Decode, max_pixels: int | None = None) -> Shown:
    """Read a .plic file or a picture. PlicError when that is impossible."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PlicError(f"cannot read {path}: {error.strerror}") from None
    pixels = decode(data) if data.startswith(plic.MAGIC) else read_picture(path, max_pixels).pixels
    return Shown(printable(path.name), as_rgb(pixels), len(data))


def compare(
    original: Path, files: Sequence[Path], metrics: Sequence[str], decode: Decode, max_pixels: int | None = None
) -> Pair:
    """Measure files, .plic or pictures, against the original picture. max_pixels: that a picture may have.

    PlicError when one cannot be read, or has another size than the original.
    """
    expected = read_any(original, decode, max_pixels)
    shown = []
    for path in files:
        shown.append(read_any(path, decode, max_pixels))
        sizes = [size_text(*one.pixels.shape[:2]) for one in (shown[-1], expected)]
        if sizes[0] != sizes[1]:
            raise PlicError(f"{path} has {sizes[0]} and {original} {sizes[1]}: they cannot be compared")
    return Pair(expected, shown, [measure(metrics, expected.pixels, one.pixels) for one in shown])


def table(pair: Pair) -> Table:
    """Size, rate and metrics of each file."""
    names = list(pair.metrics[0])
    rows = [[pair.original.name, bytes_text(pair.original.bytes), f"{pair.original.bpp:.3f}", *[""] * len(names)]]
    for one, values in zip(pair.files, pair.metrics, strict=True):
        rows.append([one.name, bytes_text(one.bytes), f"{one.bpp:.3f}", *map(value_text, values.values())])
    return Table("Sizes and metrics", ("file", "size", "bpp", *(METRICS[name].axis for name in names)), rows)


def page(pair: Pair) -> bytes:
    """One page with the figures, and a handle between any two of the pictures."""
    height, width = pair.original.pixels.shape[:2]
    part = [min(side, MOST_SHOWN) for side in (height, width)]
    facts = size_text(height, width) + (f"; the middle {part[1]}x{part[0]} is shown" if part != [height, width] else "")
    # Files of one name from two folders are told apart by a number.
    shots = {
        f"{i}: {one.name}" if i else f"original: {one.name}": {
            "image": data_url(one.pixels, MOST_SHOWN),
            "note": f"{one.name}: {bytes_text(one.bytes)}, {one.bpp:.3f} bpp",
        }
        for i, one in enumerate([pair.original, *pair.files])
    }
    data = {"shots": shots, "width": part[1]}
    title = f"{pair.original.name} compared"
    return render("compare.html", title=title, facts=facts, figures=table(pair), data=data)
