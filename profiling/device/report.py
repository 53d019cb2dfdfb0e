"""What a profile is shown as: JSON checked against its schema, Markdown, and one self-contained page."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, cast
from warnings import catch_warnings, filterwarnings

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ...codec.errors import PlicError
from ...codec.files import parse_json
from ...console import printable
from ..pages import render
from ..text import Table, markdown_text, megapixels, size_text
from .compare import Comparison
from .results import Determinism, DeviceResult, Latency, Report, Run, Unavailable, Vectors, unavailable

COLOURS = (
    "#1f6f8b", "#e07a5f", "#81b29a", "#f2cc8f", "#6d597a", "#b56576", "#4a6fa5",
    "#99a88c", "#d4a373", "#7fb3d5", "#9c2a2a", "#4f772d", "#c9ada7", "#777777",
)  # fmt: skip
INK = "#010203"
"""Stands for the colour of the page's text in drawings, which differs by day and night."""


def check(report: object) -> Report:
    """The report, if it obeys the schema. Raises PlicError with the first thing that is wrong."""
    schema = json.loads(Path(__file__).with_name("profile.schema.json").read_text("utf-8"))
    error = best_match(Draft202012Validator(schema).iter_errors(report))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the report"
        raise PlicError(printable(f"not a Pocketlic profile: {place}: {error.message[:200]}"))
    return cast(Report, report)


def read_report(path: Path) -> Report:
    """Read and check a report. Raises PlicError when it cannot be read or is none."""
    try:
        return check(parse_json(path.read_bytes()))
    except OSError as error:
        raise PlicError(f"cannot read {path}: {error.strerror}") from None
    except PlicError as error:
        raise PlicError(f"{path}: {error}") from None
    except ValueError:
        raise PlicError(f"{path} is not JSON") from None


def write_reports(report: Report, out: Path) -> list[Path]:
    """Write profile.json, profile.md and profile.html into a folder; all are made before any is written."""
    check(report)
    contents = {
        "profile.json": (json.dumps(report, indent=1) + "\n").encode(),
        "profile.md": markdown(report).encode("utf-8", "backslashreplace"),
        "profile.html": page([report]),
    }
    names = {out / name: out / f".{name}.{secrets.token_hex(6)}.tmp" for name in contents}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for (name, content), temporary in zip(contents.items(), names.values(), strict=True):
            if (out / name).is_dir():
                raise PlicError(f"cannot write {out / name}: it is a folder")
            temporary.write_bytes(content)
        for path, temporary in names.items():
            temporary.replace(path)
    except OSError as error:
        raise PlicError(f"cannot write {error.filename or out}: {error.strerror}") from None
    finally:
        for temporary in names.values():
            with suppress(OSError):
                temporary.unlink()
    return list(names)


# --- texts of figures


def energy_text(run: Run, side: str) -> str:
    """Energy of a side per picture, or why there is none."""
    energy = run["energy"].get(side, unavailable("not measured"))
    if not energy["available"]:
        return f"not available: {energy['reason']}"
    return (
        f"{energy['mj_per_image']:.1f} ± {energy['uncertainty_mj_per_image']:.1f} mJ "
        f"({energy['mj_per_megapixel']:.1f} mJ/MP, {energy['meter']})"
    )


def processor_text(latency: Latency) -> str:
    """Median milliseconds of processor time, if that was measured."""
    return f"{latency['processor']['median_ms']:.2f}" if "processor" in latency else "not measured"


def per_megapixel(run: Run, amount: float) -> float:
    """An amount of a whole picture by megapixel."""
    return amount / megapixels(run["height"], run["width"])


def instructions_text(run: Run, side: str) -> str:
    """Instructions of a side, and by pixel; or why they were not counted."""
    counted = run.get("instructions", unavailable("not counted"))
    if not counted["available"]:
        return f"not available: {counted['reason']}"
    count = counted["encode"] if side == "encode" else counted["decode"]
    return f"{count / 1e6:.2f} million, {count / run['width'] / run['height']:.0f} a pixel"


def memory_text(run: Run) -> str:
    """The most memory in MB, or why that is not known."""
    memory = run.get("memory_metrics", {})
    if "peak_mem_mb" in memory:
        return f"{memory['peak_mem_mb']:.1f} MB, whole process"
    if "decoder_mem_mb" in memory:
        return f"{memory['decoder_mem_mb']:.1f} MB, decoder"
    return f"not available: {memory.get('not_available', 'not measured')}"


def determinism_text(determinism: Determinism | Unavailable) -> str:
    """Whether results equalled the reference, and where not."""
    if not determinism["available"]:
        return determinism["reason"]
    if determinism["equal"]:
        return f"equal, {len(determinism['stages'])} of {len(determinism['stages'])} hashes"
    place = determinism["first_difference"]
    wrong = next(s["stage"] for s in determinism["stages"] if not s["equal"])
    detail = f": {place['tensor']}{place['index']} is {place['value']}, not {place['reference']}" if place else ""
    return f"DIFFERS first in {wrong}{detail}; largest pixel difference {determinism['max_difference']}"


def vectors_text(vectors: Vectors | Unavailable) -> str:
    """How many conformance vectors gave the recorded hashes on the device, and which did not."""
    if not vectors["available"]:
        return f"Conformance vectors: {vectors['reason']}"
    wrong = [v["name"] for v in vectors["vectors"] if not (v["symbols_equal"] and v["pixels_equal"])]
    count = len(vectors["vectors"])
    return f"Conformance vectors: {count - len(wrong)} of {count} equal" + (
        f"; not {', '.join(wrong)}" if wrong else ""
    )


def conditions_text(device: DeviceResult) -> str:
    """Clock rates and temperatures before and after, as far as the device tells; empty when it tells nothing."""

    def range_of(values: Sequence[float], scale: float, unit: str) -> str:
        low, high = f"{min(values) * scale:.4g}", f"{max(values) * scale:.4g}"
        return (low if low == high else f"{low} to {high}") + f" {unit}"

    texts = []
    for moment, found in device["conditions"].items():
        parts = []
        if found["cpu_khz"]:
            parts.append(range_of(list(found["cpu_khz"].values()), 1e-6, "GHz"))
        if found["temperature_c"]:
            parts.append(range_of(list(found["temperature_c"].values()), 1, "°C"))
        if (load := found.get("load_1min")) is not None:
            parts.append(f"load {load:g}")
        if parts:
            texts.append(f"{moment}: {', '.join(parts)}")
    return "; ".join(texts)


def sides(report: Report, emulated: bool) -> Iterator[tuple[DeviceResult, Run, str, Latency]]:
    """(device, run, side, latency) of everything that was timed on devices that are emulated, or are not."""
    for device in report["devices"]:
        for run in device["runs"] if device["emulated"] == emulated else ():
            for side, latency in run["latency_metrics"].items():
                yield device, run, side, latency


def facts(report: Report) -> list[str]:
    """What was measured, and how, as short texts."""
    bundle, protocol = report["bundle"], report["protocol"]
    return [
        report["created"],
        f"target {bundle['target']}",
        f"rule {bundle['profile']}",
        f"model {bundle['model_id'][:16]}",
        f"{bundle['model_size_mb']:.3g} MB",
        f"quality {protocol['quality']:g}",
        f"{protocol['num_runs']} runs after {protocol['num_warmup_runs']} warm-ups",
        f"{protocol['threads']} thread{'s' * (protocol['threads'] > 1)}",
    ]


# --- tables

TIME_HEAD = ("picture", "side", "median ms", "p90", "p99", "sd", "min", "max", "first", "ms/MP", "processor ms")


def tables(device: DeviceResult, summary: bool = False) -> list[Table]:
    """Everything that was measured on a device; `summary` leaves out stages and networks."""
    made = [_instructions(device) if device["emulated"] else _times(device), _outcomes(device), _energies(device)]
    if summary:
        return made
    if not device["emulated"]:
        made.insert(1, _stages(device))
    if rows := network_rows(device):
        made.append(Table("Networks and operators", ("network", "source", "operator", "ms"), rows, words=3))
    return made


def _times(device: DeviceResult) -> Table:
    rows = []
    for run in device["runs"]:
        for side, latency in run["latency_metrics"].items():
            total = latency["total"]
            figures = [
                *(total["median_ms"], total["p90_ms"], total["p99_ms"], total["stddev_ms"], total["min_ms"]),
                *(total["max_ms"], latency["first_inference_ms"], per_megapixel(run, total["median_ms"])),
            ]
            rows.append([run["image"], side, *(f"{value:.2f}" for value in figures), processor_text(latency)])
    return Table("Time of each side in ms", TIME_HEAD, rows, words=2)


def _stages(device: DeviceResult) -> Table:
    rows = []
    for run in device["runs"]:
        for side, latency in run["latency_metrics"].items():
            whole = sum(s["median_ms"] for s in latency["stages"].values()) or 1.0
            for name, stage in latency["stages"].items():
                part = f"{stage['median_ms'] / whole:.0%}"
                rows.append([run["image"], side, name, f"{stage['median_ms']:.2f}", part])
    return Table("Time of each stage", ("picture", "side", "stage", "median ms", "part"), rows, words=3)


def _instructions(device: DeviceResult) -> Table:
    rows = [[run["image"], side, instructions_text(run, side)] for run in device["runs"]
            for side in run["latency_metrics"]]  # fmt: skip
    return Table("Instructions of each side", ("picture", "side", "instructions"), rows, words=3)


def _outcomes(device: DeviceResult) -> Table:
    rows, bad = [], set()
    for number, run in enumerate(device["runs"]):
        psnr = "lossless" if run["psnr_db"] is None else f"{run['psnr_db']:.2f}"
        size = size_text(run["height"], run["width"])
        if not run["determinism"].get("equal", True):
            bad.add(number)
        rows.append([run["image"], size, f"{run['bpp']:.3f}", psnr, memory_text(run),
                     determinism_text(run["determinism"])])  # fmt: skip
    head = ("picture", "size", "bpp", "PSNR dB", "memory", "against the reference")
    return Table("Files, memory and exactness", head, rows, frozenset(bad), words=6)


def _energies(device: DeviceResult) -> Table:
    rows = [[run["image"], side, energy_text(run, side)] for run in device["runs"] for side in run["latency_metrics"]]
    return Table("Energy", ("picture", "side", "energy"), rows, words=3)


def network_rows(device: DeviceResult) -> list[list[str]]:
    """Times that a runtime's own profiler gave of networks and their operators: network, source, operator, ms."""
    networks = device.get("networks", {})
    tool, profiler = networks.get("benchmark_model"), networks.get("operators")
    rows = []
    if tool and tool["available"]:
        for name, network in tool.get("networks", {}).items():
            rows.append([name, "benchmark_model", "all", f"{network['latency_metrics']['avg_ms']:.3f}"])
            rows += [["", "", op["operator"], f"{op['avg_ms']:.3f}"] for op in network.get("operators", ())]
    if profiler and profiler["available"]:
        for name, operators in profiler["times"].items():
            rows += [[name, profiler["source"], op["operator"], f"{op['median_ms']:.3f}"] for op in operators]
    if device["emulated"]:
        rows = [[*row[:3], "emulated"] for row in rows if row[2] == "all"]
    return rows


def markdown(report: Report) -> str:
    """The report's figures as text."""
    lines = ["# Profile", "", markdown_text(", ".join(facts(report))), ""]
    for device in report["devices"]:
        about = ", ".join(f"{key} {value}" for key, value in device["properties"].items())
        title = f"{device['name']}{' (emulated)' if device['emulated'] else ''}"
        lines += [f"## {markdown_text(title)}", "", markdown_text(about), ""]
        if conditions := conditions_text(device):
            lines += [markdown_text(conditions), ""]
        lines += [f"- **{markdown_text(flag)}**" for flag in device["flags"]] + ([""] if device["flags"] else [])
        for table in tables(device):
            lines += [f"### {table.title}", "", *table.markdown(), ""]
        if "vectors" in device:
            lines += [markdown_text(vectors_text(device["vectors"])), ""]
    return "\n".join(lines)


# --- the page


@dataclass(frozen=True)
class _Device:
    """A device as the page shows it."""

    title: str
    about: str
    conditions: str
    flags: list[str]
    tables: list[Table]


@dataclass(frozen=True)
class _Shown:
    """A report as the page shows it."""

    title: str
    facts: str
    devices: list[_Device]


def page(reports: Sequence[Report], comparison: Comparison | None = None) -> bytes:
    """One HTML page of any number of reports, plots inside as SVG; of two with what changed, rises highlighted."""
    plots = {
        "Instructions": _instruction_plot(reports),
        "Where the time goes": _stage_plot(reports),
        "Latency of every run": _spread_plot(reports),
        "Rate and distortion against time": _rd_plot(reports),
        "Energy": _energy_plot(reports),
    }
    return render(
        "profile.html",
        title="Pocketlic profile" if comparison is None else "Pocketlic profiles compared",
        verdict=comparison.verdict if comparison else "",
        changes=comparison.table if comparison else None,
        mismatches=comparison.mismatches if comparison else (),
        differences=comparison.differences if comparison else (),
        reports=[_shown(report, f"Report {i + 1}: " if len(reports) > 1 else "") for i, report in enumerate(reports)],
        figures={title: drawing for title, drawing in plots.items() if drawing},
    )


def _shown(report: Report, label: str) -> _Shown:
    devices = []
    for device in report["devices"]:
        about = " · ".join(f"{key} {value}" for key, value in device["properties"].items())
        flags = [*device["flags"], *([vectors_text(device["vectors"])] if "vectors" in device else [])]
        title = f"{device['name']}{' (emulated)' if device['emulated'] else ''}"
        devices.append(_Device(title, about, conditions_text(device), flags, tables(device)))
    title = f"{label}{report['bundle']['target']}, rule {report['bundle']['profile']}"
    return _Shown(title, " · ".join(facts(report)), devices)


_Timed = tuple[str, DeviceResult, Run, str, Latency]


def _sides(reports: Sequence[Report], emulated: bool = False) -> list[_Timed]:
    """(label, device, run, side, latency), of all reports, as `sides` has them of one."""
    rows = []
    for number, report in enumerate(reports):
        for device, run, side, latency in sides(report, emulated):
            prefix = f"{number + 1}: " if len(reports) > 1 else ""
            where = f"{device['name']}, " if len(report["devices"]) > 1 or len(reports) > 1 else ""
            rows.append((printable(f"{prefix}{where}{run['image']}, {side}"), device, run, side, latency))
    return rows


_STYLE: dict[Any, object] = {
    "svg.hashsalt": "pocketlic", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
    "text.parse_math": False, "legend.framealpha": 0,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color",
                     "legend.edgecolor"), INK),
}  # fmt: skip


def _drawing(height: float, plot: Callable[[Axes], None], **labels: str) -> Markup:
    """What `plot` draws, as SVG in the colours of the page."""
    with rc_context(_STYLE), catch_warnings():
        filterwarnings("ignore", "Glyph")  # fonts here may lack what the browser's have
        figure = Figure(figsize=(7.2, height), layout="constrained")
        plot(figure.add_subplot(**labels))
        buffer = StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :].replace(INK, "currentColor"))


def _bars(rows: Sequence[str], plot: Callable[[Axes], None], legend: float = 0.0, **labels: str) -> Markup | str:
    """A drawing of one bar, or line of dots, for each row, and room for a legend in inches; empty without rows."""
    if not rows:
        return ""

    def labelled(axes: Axes) -> None:
        plot(axes)
        axes.set_yticks(range(len(rows)), rows)
        axes.invert_yaxis()

    return _drawing(0.9 + legend + 0.34 * len(rows), labelled, **labels)


def _stage_plot(reports: Sequence[Report]) -> Markup | str:
    rows = _sides(reports)
    names = list(dict.fromkeys(name for row in rows for name in row[4]["stages"]))

    def plot(axes: Axes) -> None:
        for index, name in enumerate(names):
            axes.barh(0, 0, color=COLOURS[index % len(COLOURS)], label=name)
        for position, (_, _, run, _, latency) in enumerate(rows):
            left = 0.0
            for index, name in enumerate(names):
                if name in latency["stages"]:
                    width = per_megapixel(run, latency["stages"][name]["median_ms"])
                    axes.barh(position, width, left=left, color=COLOURS[index % len(COLOURS)], height=0.7)
                    left += width
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.legend(loc="outside upper center", ncols=4, fontsize=8)

    return _bars([row[0] for row in rows], plot, 1.0, xlabel="median ms/MP")


def _instruction_plot(reports: Sequence[Report]) -> Markup | str:
    rows = []
    for label, _, run, side, _ in _sides(reports, emulated=True):
        counted = run.get("instructions")
        if counted and counted["available"]:
            count = counted["encode"] if side == "encode" else counted["decode"]
            rows.append((label, side, count / (run["width"] * run["height"])))

    def plot(axes: Axes) -> None:
        for position, (_, side, count) in enumerate(rows):
            axes.barh(position, count, color=COLOURS[side != "encode"], height=0.7)

    return _bars([row[0] for row in rows], plot, xlabel="instructions per pixel")


def _spread_plot(reports: Sequence[Report]) -> Markup | str:
    rows = _sides(reports)

    def plot(axes: Axes) -> None:
        for position, (_, _, _, side, latency) in enumerate(rows):
            samples, colour = latency["total"]["samples_ms"], COLOURS[side != "encode"]
            axes.plot(samples, [position] * len(samples), "o", ms=4, alpha=0.6, color=colour)
            axes.plot([latency["total"]["median_ms"]] * 2, [position - 0.3, position + 0.3], color=INK, lw=1.5)
            axes.plot(latency["first_inference_ms"], position, "x", ms=6, color=colour)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(LogFormatter())  # as the default one, but plain: labels are not parsed here
        axes.grid(axis="x", alpha=0.2)

    return _bars([row[0] for row in rows], plot, xlabel="ms (dots: runs; line: median; cross: first, cold)")


def _rd_plot(reports: Sequence[Report]) -> Markup | str:
    rows = [row for row in _sides(reports) if row[2]["psnr_db"] is not None]
    if not rows:
        return ""

    def plot(axes: Axes) -> None:
        for _, _, run, side, latency in rows:
            x, y = per_megapixel(run, latency["total"]["median_ms"]), run["psnr_db"]
            assert y is not None
            axes.plot(x, y, "o" if side == "decode" else "^", color=COLOURS[side != "encode"])
            text = f"{printable(run['image'])}\n{run['bpp']:.2f} bpp"
            axes.annotate(text, (x, y), fontsize=7, xytext=(4, 4), textcoords="offset points")
        axes.plot([], [], "o", color=COLOURS[1], label="decode")
        axes.plot([], [], "^", color=COLOURS[0], label="encode")
        axes.margins(0.2)
        axes.grid(alpha=0.2)
        axes.legend()

    return _drawing(4.2, plot, xlabel="median ms/MP", ylabel="PSNR dB")


def _energy_plot(reports: Sequence[Report]) -> Markup | str:
    rows, reasons = [], set()
    for label, _, run, side, _ in [*_sides(reports), *_sides(reports, emulated=True)]:
        energy = run["energy"].get(side, unavailable("not measured"))
        if energy["available"]:
            error = per_megapixel(run, energy["uncertainty_mj_per_image"])
            rows.append((label, energy["mj_per_megapixel"], error))
        else:
            reasons.add(energy["reason"])

    def plot(axes: Axes) -> None:
        for position, (_, energy, error) in enumerate(rows):
            axes.barh(position, energy, xerr=error, color=COLOURS[2], ecolor=INK, height=0.7, capsize=3)

    drawn = _bars([row[0] for row in rows], plot, xlabel="mJ/MP, idle subtracted, one standard deviation")
    return drawn or f"not available: {'; '.join(sorted(reasons))}"
