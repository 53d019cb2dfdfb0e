"""What an evaluation is shown as: JSON, tables, plots and one self-contained page."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from ..codec.image import write_atomic
from .codecs import ImageCodec, Pixels, read_source
from .metrics import JPEG_AI
from .rate_distortion import PUBLISHED, Comparison, Evaluation, Record

LABELS = {
    "rgb_psnr": "RGB-PSNR, dB",
    "yuv_psnr": "YUV-PSNR 6:1:1, dB",
    "ms_ssim": "MS-SSIM",
    "vif_p": "VIFp",
    "fsim": "FSIM",
    "nlpd": "1 - NLPD",
    "iw_ssim": "IW-SSIM",
    "vmaf": "VMAF",
    "psnr_hvs_m": "PSNR-HVS-M, dB",
    "psnr_hvs": "PSNR-HVS, dB",
}
TARGET_BPP = (0.25, 0.5, 1.0)
MOST_PICTURES = 4
CROP = 400  # pixels, the greatest side of what the page shows of a picture


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
            values = (f"{mean.metrics[m]:.{3 if mean.metrics[m] > 10 else 4}f}" for m in evaluation.metrics)
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
        if not evaluation.published_comparable:
            console.print("The published curves are means over Kodak's 24 pictures; these are not those.")
    for codec in evaluation.codecs:
        mean = evaluation.jpeg_ai_mean(codec)
        if mean is not None:
            console.print(f"{codec}: {mean[0]:+.1f} %, mean of JPEG AI's {len(JPEG_AI)} metrics, {mean[1]} pictures or more")
    for line in verdicts(evaluation):
        console.print(line)


def _bd_table(evaluation: Evaluation) -> Table:
    table = Table(title="BD-rate: more rate than the anchor at equal metric")
    for heading, justify in (
        ("codec", "left"),
        ("anchor", "left"),
        ("metric", "left"),
        ("mean curve", "right"),
        ("overlap", "right"),
        ("mean of pictures", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for c in evaluation.comparisons:
        single = f"{c.per_picture_mean:+.1f} % ({c.pictures})" if c.per_picture_mean is not None else ""
        table.add_row(c.codec, c.anchor, c.metric, percent(c), overlap(c), single)
    return table


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
    predicted = [r for r in evaluation.records if r.entropy_bits is not None]
    if predicted:
        worst = max(abs(8 * r.bytes / r.entropy_bits - 1) for r in predicted if r.entropy_bits)
        lines.append(
            f"real bits within 1 % + 64 bytes of the estimated entropy: "
            f"{len(predicted) - len(evaluation.off_entropy)} of {len(predicted)} files (worst {worst:.2%})"
        )
    if evaluation.verified:
        lines.append(
            "files and pixels of LiteRT equal the NumPy reference: "
            f"{len(evaluation.verified) - len(evaluation.unequal)} of {len(evaluation.verified)}"
        )
    return lines


def write_plots(evaluation: Evaluation, out: Path) -> list[Path]:
    """One PNG for each metric, `rd-METRIC.png`. PlicError when a file cannot be written."""
    from matplotlib.figure import Figure

    paths = []
    for metric in evaluation.metrics:
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel="bits per pixel", ylabel=LABELS[metric])
        for codec, means in evaluation.means.items():
            own = codec == "pocketlic"
            points = [(m.bpp, m.metrics[metric]) for m in means]
            axes.plot(*zip(*points, strict=True), marker="o", ms=4, lw=2.5 if own else 1.3, label=codec)
        for name, curve in (PUBLISHED if metric == "rgb_psnr" else {}).items():
            axes.plot(*zip(*curve, strict=True), ls="--", lw=1, color="gray", alpha=0.8)
            axes.annotate(name, curve[-1], fontsize=8, color="gray")
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


def write_page(evaluation: Evaluation, folder: Path, codecs: Sequence[ImageCodec], out: Path) -> Path:
    """`index.html` in `out`: curves, tables and a slider over parts of some pictures; everything is in the file.

    folder: the pictures evaluated. PlicError when a file cannot be read or written.
    """
    pictures = [_compared(name, evaluation, folder, codecs, out) for name in _spread(evaluation.pictures)]
    data = {
        "facts": " · ".join([f"{len(evaluation.pictures)} pictures", *verdicts(evaluation)]),
        "metrics": [{"name": m, "label": LABELS[m]} for m in evaluation.metrics],
        "means": evaluation.to_json()["means"],
        "published": PUBLISHED if "rgb_psnr" in evaluation.metrics else {},
        "bd": _bd_matrix(evaluation),
        "targets": [f"{t:g}" for t in TARGET_BPP],
        "pictures": pictures,
    }
    template = (resources.files("pocketlic.profiling") / "page.html").read_text("utf-8")
    # Inside a script element only a closing tag could end the JSON early.
    content = template.replace("@DATA@", json.dumps(data).replace("</", "<\\/"))
    write_atomic(out / "index.html", content.encode())
    return out / "index.html"


def _spread(names: Sequence[str]) -> list[str]:
    count = min(MOST_PICTURES, len(names))
    return [names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)]


def _compared(
    name: str, evaluation: Evaluation, folder: Path, codecs: Sequence[ImageCodec], out: Path
) -> dict[str, Any]:
    """A picture's middle, as it was and at about the target rates by every codec."""
    source = read_source(next(p for p in sorted(folder.iterdir()) if p.stem == name))
    shots: dict[str, dict[str, dict[str, str]]] = {}
    for target in TARGET_BPP:
        shots[f"{target:g}"] = {}
        for codec in codecs:
            records = [r for r in evaluation.records if r.codec == codec.name and r.picture == name]
            record = min(records, key=lambda r: abs(math.log(r.bpp / target)))
            decoded = codec.decode((out / record.file).read_bytes())
            shots[f"{target:g}"][codec.name] = {"image": _data_url(decoded), "note": _note(record)}
    height, width = source.pixels.shape[:2]
    return {"name": name, "width": min(width, CROP), "original": _data_url(source.pixels), "shots": shots}


def _note(record: Record) -> str:
    values = ", ".join(f"{LABELS[m].removesuffix(', dB')} {v:.2f}" for m, v in record.metrics.items() if "psnr" in m)
    return f"{record.codec} at {record.setting:g}: {record.bpp:.3f} bpp, {values}"


def _data_url(pixels: Pixels) -> str:
    height, width = pixels.shape[:2]
    top, left = max(0, (height - CROP) // 2), max(0, (width - CROP) // 2)
    buffer = BytesIO()
    crop = pixels[top : top + CROP, left : left + CROP]
    Image.fromarray(crop).save(buffer, "WEBP", lossless=True, quality=50)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _bd_matrix(evaluation: Evaluation) -> dict[str, Any]:
    """Codecs by anchors and metrics."""
    columns = list(dict.fromkeys((c.anchor, c.metric) for c in evaluation.comparisons))
    cells: Mapping[tuple[str, str, str], Comparison] = {(c.codec, c.anchor, c.metric): c for c in evaluation.comparisons}
    rows = []
    for codec in evaluation.codecs:
        row: list[object] = [codec]
        for anchor, metric in columns:
            c = cells.get((codec, anchor, metric))
            if c is None:
                row.append("")
                continue
            better = c.result is not None and c.result.percent < 0
            title = c.refusal or f"overlap {overlap(c)}"
            row.append({"text": percent(c), "title": title, "better": better})
        mean = evaluation.jpeg_ai_mean(codec)
        row.append("" if mean is None else {"text": f"{mean[0]:+.1f} %", "better": mean[0] < 0})
        rows.append(row)
    kodak = "" if evaluation.published_comparable else " The pictures here are not Kodak's 24."
    return {
        "note": "More rate than the anchor at equal metric, mean curves, PCHIP; point at a figure for its overlap. VTM, HM, "
        "AV1 and mbt2018-mean are published means over Kodak's 24 pictures." + kodak + " The last column is the mean of "
        "JPEG AI's seven metrics, each the mean of the pictures' own BD-rates.",
        "head": ["codec", *(f"{LABELS[m].split(',')[0]} to {a}" for a, m in columns), "seven"],
        "rows": rows,
    }
