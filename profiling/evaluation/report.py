"""What an evaluation is shown as: JSON, tables, plots and one self-contained page."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table

from ...codec.files import write_atomic
from ..pages import render
from ..text import bytes_text
from .codecs import SLACK_BYTES, ImageCodec, Pixels, read_source, require_pictures
from .metrics import JPEG_AI, METRICS, value_text
from .rate_distortion import PUBLISHED, Comparison, Evaluation, Record, at_rates

TARGET_BPP = (0.25, 0.5, 1.0)
MOST_PICTURES = 3
CROP = 384  # pixels, the greatest side of what the page shows of a picture


def write_json(evaluation: Evaluation, path: Path) -> None:
    """Everything that was measured. PlicError when the file cannot be written."""
    write_atomic(path, json.dumps(evaluation.to_json(), indent=1).encode())


def print_tables(evaluation: Evaluation, console: Console) -> None:
    """Means by codec and setting, BD-rates, and what verification found."""
    table = Table(title=f"means of {len(evaluation.pictures)} pictures")
    for heading in ("codec", "setting", "bpp", *evaluation.metrics, "encode ms", "decode ms"):
        table.add_column(heading, justify="left" if heading == "codec" else "right")
    for codec, means in evaluation.means.items():
        for i, mean in enumerate(means):
            encode = "" if mean.encode_ms is None else f"{mean.encode_ms:.0f}"
            values = (value_text(mean.metrics[m]) for m in evaluation.metrics)
            table.add_row(
                codec if i == 0 else "",
                f"{mean.setting:g}",
                f"{mean.bpp:.4f}",
                *values,
                encode,
                f"{mean.decode_ms:.0f}",
                end_section=i == len(means) - 1,
            )
    console.print(table)
    if evaluation.comparisons:
        console.print(_bd_table(evaluation))
        for c in evaluation.comparisons:
            if c.result is None:
                console.print(f"no BD-rate for {c.codec} against {c.anchor} in {c.metric}: {c.refusal}")
    for codec in evaluation.codecs:
        seven = evaluation.jpeg_ai_mean(codec)
        if seven is not None:
            console.print(f"{codec}: {seven[0]:+.1f} %, mean of JPEG AI's {len(JPEG_AI)} metrics ({seven[1]} pictures)")
    for line in verdicts(evaluation):
        console.print(line)


def _bd_table(evaluation: Evaluation) -> Table:
    table = Table(title="BD-rate: more rate than the anchor at equal metric")
    for heading in ("codec", "anchor", "metric"):
        table.add_column(heading, no_wrap=True)
    for heading in ("mean curve", "covered", "mean of pictures"):
        table.add_column(heading, no_wrap=True, justify="right")
    shown = ("", "")
    for c in evaluation.comparisons:
        names = tuple("" if old == new else new for old, new in zip(shown, (c.codec, c.anchor), strict=True))
        if names[0]:
            table.add_section()
            names = (c.codec, c.anchor)
        shown = (c.codec, c.anchor)
        covered = "" if c.result is None else f"{c.result.overlap:.0%}"
        single = "" if c.per_picture_mean is None else f"{c.per_picture_mean:+.1f} % ({c.pictures})"
        table.add_row(*names, METRICS[c.metric].label, percent(c), covered, single)
    return table


def _by_anchor(evaluation: Evaluation) -> dict[tuple[str, str], dict[str, Comparison]]:
    """(anchor, metric) -> codec -> comparison."""
    rows: dict[tuple[str, str], dict[str, Comparison]] = {}
    for c in evaluation.comparisons:
        rows.setdefault((c.anchor, c.metric), {})[c.codec] = c
    return rows


def percent(comparison: Comparison) -> str:
    """The BD-rate as text."""
    return "none" if comparison.result is None else f"{comparison.result.percent:+.1f} %"


def overlap(comparison: Comparison) -> str:
    """The part of the anchor's range that was compared, as text."""
    result = comparison.result
    return "" if result is None else f"{result.overlap:.0%} ({result.low:.4g}..{result.high:.4g})"


def verdicts(evaluation: Evaluation) -> list[str]:
    """One line for each check that was made."""
    lines = []
    judged = evaluation.judged
    if judged:
        worst = max(abs(8 * r.bytes / r.entropy_bits - 1) for r in judged if r.entropy_bits)
        lines.append(
            f"real bits within 1 % + {SLACK_BYTES} bytes of the estimated entropy: "
            f"{len(judged) - len(evaluation.off_entropy)} of {len(judged)} files (worst {worst:.2%})"
        )
    if evaluation.compared:
        lines.append(
            "files and pixels of LiteRT equal the NumPy reference: "
            f"{len(evaluation.compared) - len(evaluation.unequal)} of {len(evaluation.compared)}"
        )
    return lines


def write_plots(evaluation: Evaluation, out: Path) -> list[Path]:
    """One PNG for each metric, `rd-METRIC.png`. PlicError when a file cannot be written."""
    paths = []
    for metric in evaluation.metrics:
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel="bits per pixel", ylabel=METRICS[metric].axis)
        for codec, means in evaluation.means.items():
            own = codec.startswith("pocketlic")
            points = [(m.bpp, m.metrics[metric]) for m in means]
            axes.plot(*zip(*points, strict=True), marker="o", ms=4, lw=2.5 if own else 1.3, label=codec)
        published = PUBLISHED if metric == "rgb_psnr" and evaluation.published_comparable else {}
        for (name, curve), style in zip(published.items(), ("--", "-.", ":", (0, (1, 3))), strict=False):
            axes.plot(*zip(*curve, strict=True), ls=style, lw=1.2, color="gray", label=f"{name}, published")
        axes.set_title(f"means of {len(evaluation.pictures)} pictures")
        ticks = [0.0625, 0.125, 0.25, 0.5, 1, 2, 4]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        paths.append(out / f"rd-{metric}.png")
        write_atomic(paths[-1], buffer.getvalue())
    return paths


def write_page(evaluation: Evaluation, folder: Path, codecs: Sequence[ImageCodec], out: Path, jobs: int = 1) -> Path:
    """`index.html` in `out`: curves, tables and a slider over parts of some pictures, all in one file.

    folder: the pictures evaluated. For the slider they are coded at equal rates, in `jobs` processes.
    PlicError when a file cannot be read or written.
    """
    paths = _spread(require_pictures(folder))
    records = at_rates(paths, codecs, TARGET_BPP, out, jobs=jobs)
    data = {
        "metrics": [{"name": m, "label": METRICS[m].axis} for m in evaluation.metrics],
        "means": evaluation.to_json()["means"],
        "published": PUBLISHED if evaluation.published_comparable else {},
        "bd": _bd_matrix(evaluation),
        "targets": [f"{t:g}" for t in TARGET_BPP],
        "pictures": [_compared(path, codecs, records, out) for path in paths],
    }
    facts = " · ".join([f"{len(evaluation.pictures)} pictures", *verdicts(evaluation)])
    write_atomic(out / "index.html", render("evaluation.html", title="Rate and distortion", facts=facts, data=data))
    return out / "index.html"


def _spread(paths: Sequence[Path]) -> list[Path]:
    count = min(MOST_PICTURES, len(paths))
    return [paths[(2 * i + 1) * len(paths) // (2 * count)] for i in range(count)]


def _compared(
    path: Path, codecs: Sequence[ImageCodec], records: Mapping[tuple[str, str, float], Record], out: Path
) -> dict[str, object]:
    """A picture's middle, as it was and at about the target rates by every codec."""
    source = read_source(path)
    shots: dict[str, dict[str, dict[str, str]]] = {}
    for target in TARGET_BPP:
        shots[f"{target:g}"] = {}
        for codec in codecs:
            record = records[codec.name, source.name, target]
            decoded = codec.decode((out / record.file).read_bytes())
            shots[f"{target:g}"][codec.name] = {"image": data_url(decoded, CROP), "note": _note(record)}
    width = min(source.pixels.shape[1], CROP)
    return {"name": source.name, "width": width, "original": data_url(source.pixels, CROP), "shots": shots}


def _note(record: Record) -> str:
    figures = f"{bytes_text(record.bytes)}, {record.bpp:.3f} bpp, {record.metrics['rgb_psnr']:.2f} dB"
    return f"{record.codec} at {record.setting:g}: {figures}"


def data_url(pixels: Pixels, side: int) -> str:
    """The middle of a picture, at most `side` pixels high and wide, lossless, as a page holds it."""
    height, width = pixels.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    buffer = BytesIO()
    Image.fromarray(pixels[top : top + side, left : left + side]).save(buffer, "WEBP", lossless=True, quality=50)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _bd_matrix(evaluation: Evaluation) -> dict[str, object]:
    """Anchors and metrics by codecs, as cells of the page's table."""
    rows: list[list[object]] = []
    for (anchor, metric), cells in _by_anchor(evaluation).items():
        row: list[object] = [f"{METRICS[metric].label} against {anchor}"]
        for codec in evaluation.codecs:
            c = cells.get(codec)
            if c is None:
                row.append("")
                continue
            single = f"; mean of {c.pictures} pictures {c.per_picture_mean:+.1f} %" if c.per_picture_mean else ""
            title = (c.refusal or f"overlap {overlap(c)}") + single
            row.append({"text": percent(c), "title": title, "better": c.result is not None and c.result.percent < 0})
        rows.append(row)
    means = {codec: evaluation.jpeg_ai_mean(codec) for codec in evaluation.codecs}
    if any(means.values()):
        seven = [{"text": f"{m[0]:+.1f} %", "better": m[0] < 0} if m else "" for m in means.values()]
        rows.append(["mean of JPEG AI's seven, pictures first", *seven])
    published = "VTM, HM, AV1 and mbt2018-mean are published means. " if evaluation.published_comparable else ""
    return {
        "note": f"More rate than the anchor at equal metric; mean curves, PCHIP. {published}Point at a "
        "figure for its overlap and the mean of the pictures' own BD-rates.",
        "head": ["", *evaluation.codecs],
        "rows": rows,
    }
