"""Ours beside other codecs on this machine: time per megapixel on one thread, at the same rate, in one run.

Each codec codes each picture at the whole-numbered quality whose file comes closest in size to ours, with the speed
that its library chooses by default, and some at their fast presets too. Then all take turns: one *pass* encodes and
decodes every picture once with every codec, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

import numpy as np
from rich.console import Console

from ...codec.errors import PlicError
from ...codec.figures import bits_per_pixel, psnr
from ...codec.files import write_atomic
from ...models import Tune
from ...quantization.errors import Rule
from ..console import progress
from ..evaluation.codecs import (
    FAST_CODECS,
    ImageCodec,
    Pillow,
    Pocketlic,
    Source,
    parse_codecs,
    read_source,
    require_pictures,
)
from ..text import Table, markdown_text, megapixels, size_text
from .devices import HostDevice
from .latency import statistics
from .results import Statistics

WARMUPS = 1
SPEED_OPTIONS = ("optimize", "method")
"""Options of Pillow's codecs that buy rate with time: left to the library here, but for the fast presets."""

Samples = dict[tuple[str, str, str], list[float]]
"""(codec, picture, encode or decode) -> milliseconds of each pass."""


class Size(TypedDict):
    """Of a picture, in pixels."""

    width: int
    height: int


class Timed(TypedDict):
    """One side of a codec over all pictures; the ratio is of medians."""

    ms_per_megapixel: Statistics
    ratio_to_ours: float


class PictureResult(TypedDict):
    """One picture by one codec, times in ms."""

    setting: float
    bpp: float
    psnr_db: float | None
    encode: Statistics
    decode: Statistics


class CodecResult(TypedDict):
    """A codec: its rate over all pixels, and the pictures' mean PSNR, None where one is lossless."""

    name: str
    identity: str
    bpp: float
    psnr_db: float | None
    encode: Timed
    decode: Timed
    pictures: dict[str, PictureResult]


class CodecsReport(TypedDict):
    """What codecs.json has."""

    created: str
    machine: dict[str, str]
    num_runs: int
    num_warmup_runs: int
    quality: float
    pictures: dict[str, Size]
    codecs: list[CodecResult]


@dataclass(frozen=True)
class Match:
    """A picture in a codec's file, of a size near ours; psnr_db: infinity where it is lossless."""

    setting: float
    data: bytes
    psnr_db: float


def choose(names: str, quality: float, rule: Rule, tune: Tune | None = None) -> list[ImageCodec]:
    """Ours and the codecs of a comma-separated list. PlicError for one that does not exist, or lacks its package."""
    chosen = parse_codecs(f"pocketlic,{names}", f"{quality:g}", "0", rule, None, None, tune)
    return [_at_default_speed(codec) for codec in chosen]


def _at_default_speed(codec: ImageCodec) -> ImageCodec:
    if not isinstance(codec, Pillow) or codec in FAST_CODECS:
        return codec
    options = {key: value for key, value in codec.options.items() if key not in SPEED_OPTIONS}
    return replace(codec, options=options)


def match(codec: ImageCodec, source: Source, size: int) -> Match:
    """The file, of qualities 0 to 100, that comes closest to `size` bytes in ratio; found by bisection."""
    tried: dict[int, bytes] = {}
    low, high = 0, 100
    while low <= high:
        middle = (low + high) // 2
        tried[middle] = codec.encode(source, middle)
        if len(tried[middle]) < size:
            low = middle + 1
        else:
            high = middle - 1
    setting = min(tried, key=lambda s: abs(np.log(len(tried[s]) / size)))
    return _described(codec, source, setting, tried[setting])


def _described(codec: ImageCodec, source: Source, setting: float, data: bytes) -> Match:
    return Match(setting, data, psnr(codec.decode(data), source.pixels))


def side_by_side(folder: Path, codecs: Sequence[ImageCodec], runs: int, console: Console) -> CodecsReport:
    """The report: `runs` passes over the pictures of a folder; ours is the first of the codecs.

    Times are of the processor, so that other programs hardly count, and threads that a library starts do.
    PlicError when a picture cannot be read or coded.
    """
    ours, *others = codecs
    assert isinstance(ours, Pocketlic)
    (quality,) = ours.settings
    sources = [read_source(path) for path in require_pictures(folder)]
    matches: dict[tuple[str, str], Match] = {}
    with progress(console, "matching rates", len(sources) * len(codecs)) as advance:
        for source in sources:
            data = ours.encode(source, quality)
            matches[ours.name, source.name] = _described(ours, source, quality, data)
            advance()
            for codec in others:
                matches[codec.name, source.name] = match(codec, source, len(data))
                advance()
    samples: Samples = {}
    with progress(console, "passes", WARMUPS + runs) as advance:
        for run in range(WARMUPS + runs):
            for source in sources:
                for codec in codecs:
                    chosen = matches[codec.name, source.name]
                    for side, work in _sides(codec, source, chosen):
                        start = time.process_time()
                        work()
                        if run >= WARMUPS:
                            elapsed = 1e3 * (time.process_time() - start)
                            samples.setdefault((codec.name, source.name, side), []).append(elapsed)
            advance()
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": HostDevice().properties() | {"python": platform.python_version()},
        "num_runs": runs,
        "num_warmup_runs": WARMUPS,
        "quality": quality,
        "pictures": {s.name: {"width": s.pixels.shape[1], "height": s.pixels.shape[0]} for s in sources},
        "codecs": [_result(codec, ours, sources, matches, samples) for codec in codecs],
    }


def _sides(codec: ImageCodec, source: Source, chosen: Match) -> list[tuple[str, Callable[[], object]]]:
    return [
        ("encode", lambda: codec.encode(source, chosen.setting)),
        ("decode", lambda: codec.decode(chosen.data)),
    ]


def _result(
    codec: ImageCodec,
    ours: ImageCodec,
    sources: Sequence[Source],
    matches: dict[tuple[str, str], Match],
    samples: Samples,
) -> CodecResult:
    shapes = {s.name: s.pixels.shape[:2] for s in sources}
    pixels = sum(height * width for height, width in shapes.values())

    def per_megapixel(name: str, side: str) -> list[float]:
        """Of each pass."""
        passes = zip(*(samples[name, picture, side] for picture in shapes), strict=True)
        return [sum(times) / megapixels(pixels, 1) for times in passes]

    def timed(side: str) -> Timed:
        times = per_megapixel(codec.name, side)
        base = float(np.median(per_megapixel(ours.name, side)))
        return {
            "ms_per_megapixel": statistics(times),
            "ratio_to_ours": round(float(np.median(times)) / base, 3),
        }

    found = {name: matches[codec.name, name] for name in shapes}
    return {
        "name": codec.name,
        "identity": codec.identity,
        "bpp": round(bits_per_pixel(sum(len(m.data) for m in found.values()), pixels, 1), 4),
        "psnr_db": _finite(float(np.mean([m.psnr_db for m in found.values()]))),
        "encode": timed("encode"),
        "decode": timed("decode"),
        "pictures": {
            name: {
                "setting": m.setting,
                "bpp": round(bits_per_pixel(len(m.data), *shapes[name]), 4),
                "psnr_db": _finite(m.psnr_db),
                "encode": statistics(samples[codec.name, name, "encode"]),
                "decode": statistics(samples[codec.name, name, "decode"]),
            }
            for name, m in found.items()
        },
    }


def _finite(decibels: float) -> float | None:
    return round(decibels, 2) if math.isfinite(decibels) else None


def table(report: CodecsReport) -> Table:
    """Medians over the passes, each codec's divided by ours."""
    head = ("codec", "bpp", "PSNR dB", "encode ms/MP", "p90", "to ours", "decode ms/MP", "p90", "to ours")
    rows = []
    for codec in report["codecs"]:
        decibels = "lossless" if codec["psnr_db"] is None else f"{codec['psnr_db']:.2f}"
        cells = [codec["name"], f"{codec['bpp']:.3f}", decibels]
        for timed in (codec["encode"], codec["decode"]):
            ms = timed["ms_per_megapixel"]
            cells += [f"{ms['median_ms']:.1f}", f"{ms['p90_ms']:.1f}", f"{timed['ratio_to_ours']:.2f}"]
        rows.append(cells)
    return Table("Time beside other codecs", head, rows)


def markdown(report: CodecsReport) -> str:
    """The table, what was timed, and how."""
    sizes = [f"{name}, {size_text(p['height'], p['width'])}" for name, p in report["pictures"].items()]
    how = (
        f"Processor time on one thread of {report['machine']['model']}, medians of {report['num_runs']} interleaved "
        f"passes over {'; '.join(sizes)}; ours at quality {report['quality']:g}, the others at the nearest size."
    )
    identities = [f"- {codec['name']}: {markdown_text(codec['identity'])}" for codec in report["codecs"]]
    return "\n".join([markdown_text(how), "", *table(report).markdown(), "", *identities, ""])


def write(report: CodecsReport, out: Path) -> list[Path]:
    """Write codecs.json and codecs.md into a folder, which is made. PlicError when that is impossible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlicError(f"cannot write {out}: {error.strerror}") from None
    paths = [out / "codecs.json", out / "codecs.md"]
    for path, text in zip(paths, (json.dumps(report, indent=1) + "\n", markdown(report)), strict=True):
        write_atomic(path, text.encode("utf-8", "backslashreplace"))
    return paths
