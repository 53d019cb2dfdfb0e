"""What is measured, and how: pictures, runs, and programs for phones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..evaluation.codecs import require_pictures
from ..text import picture_name

SIZES = ((768, 512), (1920, 1080), (4032, 3024))


@dataclass(frozen=True)
class Tools:
    """Programs for the phone: `plic` and `benchmark_model`, built for it; vectors: folder of conformance vectors."""

    plic: Path | None = None
    benchmark_model: Path | None = None
    vectors: Path | None = None


@dataclass(frozen=True)
class Protocol:
    """What is run: quality 0..100, runs after the warm-ups, threads of the runtime, programs for phones.

    allow_hot: measure, and flag, a device that is hot or throttled.
    """

    quality: float = 60.0
    runs: int = 20
    threads: int = 1
    tools: Tools = field(default_factory=Tools)
    allow_hot: bool = False


@dataclass(frozen=True)
class Subject:
    """A picture to profile: its name, and the file that `load` reads."""

    name: str
    path: Path


def subjects(images: Path | None, sample: Path, work: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Subject]:
    """The pictures of a folder; without one, the sample resized to each of `sizes`, written to `work` as PNG."""
    if images is not None:
        return [Subject(picture_name(path), path) for path in require_pictures(images)]
    made = []
    for width, height in sizes:
        path = work / f"{sample.stem}-{width}x{height}.png"
        with Image.open(sample) as picture:
            picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(path, compress_level=1)
        made.append(Subject(path.stem, path))
    return made
