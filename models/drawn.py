"""Pictures drawn by code, for what no photograph shows: flat colours, text, line art, checkers, codes, screens.

Trained on photographs alone, the networks never meet the corners of the colour cube, and their integer grids leave no
room for them: flat (0, 255, 0) came out as (47, 227, 64).
"""

from __future__ import annotations

import string
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

FONTS = Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path("/Library/Fonts"), Path("C:/Windows/Fonts")
LETTERS = string.ascii_letters * 3 + string.digits + string.punctuation


def draw(rng: np.random.Generator, size: int) -> Pixels:
    """A drawn picture, uint8 [size, size, 3], of a random kind; nothing but `rng` decides what it shows."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    return kind(rng, size)


def flat(rng: np.random.Generator, size: int) -> Pixels:
    """One colour."""
    return np.full((size, size, 3), _colour(rng), np.uint8)


def areas(rng: np.random.Generator, size: int) -> Pixels:
    """A few flat rectangles."""
    image, pen = _canvas(rng, size)
    for _ in range(int(rng.integers(1, 5))):
        pen.rectangle(_box(rng, size), fill=_colour(rng))
    return np.asarray(image)


def gradient(rng: np.random.Generator, size: int) -> Pixels:
    """A linear or radial gradient between two colours."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        position = np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None] + 0.5
    else:
        y, x = rng.uniform(-0.5, 0.5, 2)
        position = np.hypot(axis[None] - x, axis[:, None] - y) * rng.uniform(0.7, 2)
    part: NDArray[np.float64] = np.clip(position, 0, 1)[..., None]
    mixed = (1 - part) * np.array(_colour(rng)) + part * np.array(_colour(rng))
    return np.asarray(np.round(mixed), np.uint8)


def shapes(rng: np.random.Generator, size: int) -> Pixels:
    """Ellipses, polygons and rectangles; smoothed in half of the pictures."""
    scale = int(rng.integers(1, 3))
    image, pen = _canvas(rng, size * scale)
    for _ in range(int(rng.integers(3, 20))):
        box, colour = _box(rng, size * scale), _colour(rng)
        match int(rng.integers(3)):
            case 0:
                pen.ellipse(box, fill=colour)
            case 1:
                pen.rectangle(box, fill=colour)
            case _:
                corners = rng.integers(0, size * scale, (int(rng.integers(3, 6)), 2))
                pen.polygon([(int(x), int(y)) for x, y in corners], fill=colour)
    return np.asarray(image.reduce(scale) if scale > 1 else image)


def text(rng: np.random.Generator, size: int) -> Pixels:
    """Lines of random letters on one colour."""
    image, pen = _canvas(rng, size)
    _write(rng, pen, (0, 0, size, size), _colour(rng))
    return np.asarray(image)


def lines(rng: np.random.Generator, size: int) -> Pixels:
    """Straight lines and arcs of 1 to 4 pixels on one colour."""
    image, pen = _canvas(rng, size)
    colour = _colour(rng)
    for _ in range(int(rng.integers(5, 40))):
        box, width = _box(rng, size), int(rng.integers(1, 5))
        if rng.random() < 0.6:
            pen.line(box, fill=colour, width=width)
        else:
            start = float(rng.uniform(0, 360))
            pen.arc(box, start, start + float(rng.uniform(30, 330)), fill=colour, width=width)
    return np.asarray(image)


def checker(rng: np.random.Generator, size: int) -> Pixels:
    """A checkerboard, or stripes, of two colours."""
    y, x = np.mgrid[:size, :size] // int(2 ** rng.uniform(0, 5.5))
    odd = [(x + y) % 2, x % 2, y % 2][int(rng.integers(3))].astype(bool)
    return np.where(odd[..., None], _colour(rng), _colour(rng)).astype(np.uint8)


def code(rng: np.random.Generator, size: int) -> Pixels:
    """A matrix code: random modules of two colours, with a quiet zone."""
    module = int(rng.integers(2, 11))
    count = max(3, int(rng.integers(size // (2 * module), size // module + 1)))
    pattern = np.pad(rng.random((count, count)) < 0.5, 4)
    for top, left in ((4, 4), (4, count - 3), (count - 3, 4)):  # finders
        pattern[top : top + 7, left : left + 7] = True
        pattern[top + 1 : top + 6, left + 1 : left + 6] = False
        pattern[top + 2 : top + 5, left + 2 : left + 5] = True
    dark = np.kron(pattern, np.ones((module, module), bool))
    dark = np.pad(dark, (0, max(0, size - len(dark))))
    top, left = rng.integers(0, len(dark) - size + 1, 2)
    return np.where(dark[top : top + size, left : left + size, None], _colour(rng), _colour(rng)).astype(np.uint8)


def screen(rng: np.random.Generator, size: int) -> Pixels:
    """Windows with title bars, buttons and text."""
    image, pen = _canvas(rng, size)
    for _ in range(int(rng.integers(1, 4))):
        left, top, right, bottom = box = _box(rng, size)
        paper = _colour(rng) if rng.random() < 0.3 else (255, 255, 255)
        pen.rectangle(box, fill=paper, outline=_colour(rng))
        bar = min(bottom, top + int(rng.integers(10, 30)))
        pen.rectangle((left, top, right, bar), fill=_colour(rng))
        for _ in range(int(rng.integers(0, 4))):
            x, y = int(rng.integers(left, right + 1)), int(rng.integers(top, bottom + 1))
            pen.rounded_rectangle((x, y, x + 30, y + 14), 4, fill=_colour(rng))
        _write(rng, pen, (left + 4, bar + 4, right, bottom), (0, 0, 0) if paper == (255, 255, 255) else _colour(rng))
    return np.asarray(image)


KINDS: tuple[Callable[[np.random.Generator, int], Pixels], ...] = (
    flat, flat, areas, gradient, shapes, text, lines, checker, code, screen,
)  # fmt: skip
"""Flat colours twice: what is wrong with them is seen best."""


def _colour(rng: np.random.Generator) -> Colour:
    """Any colour; a third of them at a corner of the cube, a third near its edges."""
    values = rng.integers(0, 256, 3)
    kind = rng.random(3) < (1 if (choice := rng.random()) < 1 / 3 else 0.5 if choice < 2 / 3 else 0)
    ends = np.where(rng.random(3) < 0.5, 0, 255)
    red, green, blue = np.where(kind, ends, values).tolist()
    return red, green, blue


def _canvas(rng: np.random.Generator, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (size, size), _colour(rng))
    return image, ImageDraw.Draw(image)


def _box(rng: np.random.Generator, size: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random box within a square."""
    (left, right), (top, bottom) = np.sort(rng.integers(0, size, (2, 2)), axis=1).tolist()
    return left, top, right, bottom


def _write(rng: np.random.Generator, pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: Colour) -> None:
    """Fill a box with lines of random letters in one font."""
    left, top, right, bottom = box
    size = int(2 ** rng.uniform(3, 5.5))
    fonts = _fonts()
    font = _font(int(rng.integers(max(1, len(fonts)))), size)
    for y in range(top, bottom - size, size + size // 4):
        words = "".join(rng.choice(list(LETTERS + " " * 20), max(1, 2 * (right - left) // size)))
        pen.text((left, y), words, fill=colour, font=font)


@cache
def _fonts() -> list[Path]:
    """The system's TrueType fonts, and those that matplotlib carries."""
    folders = list(FONTS)
    with suppress(ModuleNotFoundError):
        folders.append(Path(str(resources.files("matplotlib") / "mpl-data" / "fonts" / "ttf")))
    return sorted(path for folder in folders for path in folder.rglob("*.ttf"))


@cache
def _font(number: int, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """One of the fonts, or Pillow's own where there is none."""
    fonts = _fonts()
    if not fonts:
        return ImageFont.load_default(size)
    return ImageFont.truetype(str(fonts[number]), size)
