"""Words of the reports: names that are safe to show, sizes, and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..console import printable


def picture_name(path: Path) -> str:
    """What reports call a picture: its file's name without the suffix, `printable`."""
    return printable(path.stem)


def megapixels(height: int, width: int) -> float:
    """Millions of pixels: MP."""
    return height * width / 1e6


def size_text(height: int, width: int) -> str:
    """768x512 (0.39 MP)."""
    return f"{width}x{height} ({megapixels(height, width):.2f} MP)"


def bytes_text(count: float) -> str:
    """0.0251 MB: millions of bytes, three digits that count."""
    return f"{count / 1e6:.3g} MB" if count < 1e9 else f"{count / 1e6:.0f} MB"


def markdown_text(text: str) -> str:
    """Text as Markdown shows it: what would be a table's bar, emphasis, a link, code or HTML is escaped."""
    return re.sub(r"([\\`*_\[\]<>|~#&$])", r"\\\1", printable(text))


@dataclass(frozen=True)
class Table:
    """Cells of text under a head, for Markdown and for pages.

    bad: rows that are highlighted. words: how many of the columns, from the left, hold words; the others hold numbers.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    bad: frozenset[int] = frozenset()
    words: int = 1

    def markdown(self) -> list[str]:
        """Its lines, without the title."""

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(map(markdown_text, cells))} |"

        return [line(self.head), "|" + "---|" * len(self.head), *map(line, self.rows)]
