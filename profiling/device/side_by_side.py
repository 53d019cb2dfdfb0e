"""Ours beside other codecs on this machine: time per megapixel on one thread, at the same rate, in one run.

Each codec codes each picture at the whole-numbered quality whose file comes closest in size to ours, with the speed
that its library chooses by default. Then all take turns: one *pass* encodes and decodes every picture once with every
codec, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ...codec.errors import PlicError
from ...codec.files import write_atomic
from ...models import Tune
from ...quantization.network import Rule
from ..evaluation.codecs import ImageCodec, Pillow, Pocketlic, Source, parse_codecs, read_source, require_pictures
from .devices import HostDevice
from .latency import statistics

WARMUPS = 1
SPEED_OPTIONS = ("optimize", "method")
"""Options of Pillow's codecs that buy rate with time: left to the library here."""


Samples = dict[tuple[str, str, str], list[float]]
"""(codec, picture, encode or decode) -> milliseconds of each pass."""


@dataclass(frozen=True)
class Match:
    """A picture in a codec's file, of a size near ours."""

    setting: float
    data: bytes
    psnr_db: float


def choose(names: str, quality: float, rule: Rule, tune: Tune | None = None) -> list[ImageCodec]:
    """Ours and the codecs of a comma-separated list. PlicError for one that does not exist, or lacks its package."""
    chosen = parse_codecs(f"pocketlic,{names}", f"{quality:g}", "0", rule, None, None, tune)
    return [_at_default_speed(codec) for codec in chosen]


def _at_default_speed(codec: ImageCodec) -> ImageCodec:
    if not isinstance(codec, Pillow):
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
    error = float(np.mean((codec.decode(data).astype(np.float64) - source.pixels) ** 2))
    return Match(setting, data, 10 * float(np.log10(255**2 / error)) if error else float("inf"))


def side_by_side(folder: Path, codecs: Sequence[ImageCodec], runs: int, console: Console) -> dict[str, Any]:
    """The report, of plain values: `runs` passes over the pictures of a folder; ours is the first of the codecs.

    Times are of the processor, so that other programs hardly count, and threads that a library starts do.
    PlicError when a picture cannot be read or coded.
    """
    ours, *others = codecs
    assert isinstance(ours, Pocketlic)
    (quality,) = ours.settings
    sources = [read_source(path) for path in require_pictures(folder)]
    matches: dict[tuple[str, str], Match] = {}
    for source in sources:
        console.print(f"{source.name}: matching rates")
        data = ours.encode(source, quality)
        matches[ours.name, source.name] = _described(ours, source, quality, data)
        for codec in others:
            matches[codec.name, source.name] = match(codec, source, len(data))
    samples: Samples = {}
    for run in range(WARMUPS + runs):
        console.print(f"pass {run + 1} of {WARMUPS + runs}")
        for source in sources:
            for codec in codecs:
                chosen = matches[codec.name, source.name]
                for side, work in _sides(codec, source, chosen):
                    start = time.process_time()
                    work()
                    if run >= WARMUPS:
                        elapsed = 1e3 * (time.process_time() - start)
                        samples.setdefault((codec.name, source.name, side), []).append(elapsed)
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
) -> dict[str, Any]:
    sizes = {s.name: s.pixels.shape[0] * s.pixels.shape[1] for s in sources}
    megapixels = sum(sizes.values()) / 1e6

    def per_megapixel(name: str, side: str) -> Any:
        """Of each pass."""
        return np.sum([samples[name, picture, side] for picture in sizes], axis=0) / megapixels

    result: dict[str, Any] = {
        "name": codec.name,
        "identity": codec.identity,
        "bpp": round(8e-6 * sum(len(matches[codec.name, p].data) for p in sizes) / megapixels, 4),
        "psnr_db": round(float(np.mean([matches[codec.name, p].psnr_db for p in sizes])), 2),
    }
    for side in ("encode", "decode"):
        times = per_megapixel(codec.name, side)
        base = float(np.median(per_megapixel(ours.name, side)))
        result[side] = {
            "ms_per_megapixel": statistics(times),
            "ratio_to_ours": round(float(np.median(times)) / base, 3),
        }
    result["pictures"] = {
        p: {
            "setting": matches[codec.name, p].setting,
            "bpp": round(8 * len(matches[codec.name, p].data) / sizes[p], 4),
            "psnr_db": round(matches[codec.name, p].psnr_db, 2),
            **{side: statistics(samples[codec.name, p, side]) for side in ("encode", "decode")},
        }
        for p in sizes
    }
    return result


HEADINGS = ("codec", "bpp", "dB", "encode ms/MP", "p90", "to ours", "decode ms/MP", "p90", "to ours")


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table, under `HEADINGS`: medians over the passes, each codec's divided by ours."""
    table = []
    for codec in report["codecs"]:
        cells = [codec["name"], f"{codec['bpp']:.3f}", f"{codec['psnr_db']:.2f}"]
        for side in ("encode", "decode"):
            ms = codec[side]["ms_per_megapixel"]
            cells += [f"{ms['median_ms']:.1f}", f"{ms['p90_ms']:.1f}", f"{codec[side]['ratio_to_ours']:.2f}"]
        table.append(tuple(cells))
    return table


def markdown(report: dict[str, Any]) -> str:
    """The table, what was timed, and how."""
    machine = report["machine"]
    pictures = ", ".join(f"{name} ({p['width']}x{p['height']})" for name, p in report["pictures"].items())
    lines = [
        f"Processor time on one thread of {machine['model']}, medians of {report['num_runs']} interleaved passes over "
        f"{pictures}; ours at quality {report['quality']:g}, the others at the nearest size.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|---|" + "---:|" * (len(HEADINGS) - 1),
        *("| " + " | ".join(row) + " |" for row in rows(report)),
        "",
        *(f"- {codec['name']}: {codec['identity']}" for codec in report["codecs"]),
        "",
    ]
    return "\n".join(lines)


def write(report: dict[str, Any], out: Path) -> list[Path]:
    """Write codecs.json and codecs.md into a folder, which is made. PlicError when that is impossible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlicError(f"cannot write {out}: {error.strerror}") from None
    paths = [out / "codecs.json", out / "codecs.md"]
    for path, text in zip(paths, (json.dumps(report, indent=1) + "\n", markdown(report)), strict=True):
        write_atomic(path, text.encode())
    return paths
