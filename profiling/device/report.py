"""What a profile is shown as: JSON checked against its schema, Markdown, and one self-contained page."""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any

from ...codec.errors import PlicError
from ...codec.files import parse_json

COLOURS = (
    "#1f6f8b", "#e07a5f", "#81b29a", "#f2cc8f", "#6d597a", "#b56576", "#355070",
    "#99a88c", "#d4a373", "#7fb3d5", "#9c2a2a", "#4f772d", "#c9ada7", "#222222",
)  # fmt: skip
Report = dict[str, Any]


def check(report: Any) -> Report:
    """The report, if it obeys the schema. Raises PlicError with the first thing that is wrong."""
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped,unused-ignore]
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped,unused-ignore]

    schema = json.loads((resources.files("pocketlic.profiling.device") / "profile.schema.json").read_text("utf-8"))
    error = best_match(Draft202012Validator(schema).iter_errors(report))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the report"
        raise PlicError(f"not a Pocketlic profile: {place}: {error.message.splitlines()[0][:200]}")
    checked: Report = report
    return checked


def read_report(path: Path) -> Report:
    """Read and check a report. Raises PlicError when it cannot be read or is none."""
    try:
        return check(parse_json(path.read_bytes()))
    except OSError as error:
        raise PlicError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, PlicError):
            raise PlicError(f"{path}: {error}") from None
        raise PlicError(f"{path} is not JSON") from None


def write_reports(report: Report, out: Path) -> list[Path]:
    """Write profile.json, profile.md and profile.html into a folder; all are made before any is written."""
    check(report)
    contents = {
        "profile.json": json.dumps(report, indent=1) + "\n",
        "profile.md": markdown(report),
        "profile.html": page([report]),
    }
    names = {out / name: out / f".{name}.{secrets.token_hex(6)}.tmp" for name in contents}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for (name, text), temporary in zip(contents.items(), names.values(), strict=True):
            if (out / name).is_dir():
                raise PlicError(f"cannot write {out / name}: it is a folder")
            temporary.write_text(text, "utf-8")
        for path, temporary in names.items():
            temporary.replace(path)
    except OSError as error:
        raise PlicError(f"cannot write {error.filename or out}: {error.strerror}") from None
    finally:
        for temporary in names.values():
            with suppress(OSError):
                temporary.unlink()
    return list(names)


def energy_text(run: dict[str, Any], side: str) -> str:
    """Energy of a side per picture, or why there is none."""
    energy = run["energy"].get(side, {"available": False, "reason": "not measured"})
    if not energy["available"]:
        return f"not available: {energy['reason']}"
    return (
        f"{energy['mj_per_image']:.1f} ± {energy['uncertainty_mj_per_image']:.1f} mJ "
        f"({energy['mj_per_megapixel']:.1f} mJ/MP, {energy['meter']})"
    )


def processor_text(latency: dict[str, Any]) -> str:
    """Median milliseconds of processor time, if that was measured."""
    return f"{latency['processor']['median_ms']:.2f}" if "processor" in latency else "not measured"


TIME_HEAD = ("picture", "side", "median ms", "p90", "p99", "sd", "min", "max", "first", "ms/MP", "processor ms")


def time_row(run: dict[str, Any], side: str) -> list[str]:
    """Under `TIME_HEAD`: how long a side of a run took."""
    latency = run["latency_metrics"][side]
    total = latency["total"]
    cells = [f"{total[k]:.2f}" for k in ("median_ms", "p90_ms", "p99_ms", "stddev_ms", "min_ms", "max_ms")]
    per_megapixel = total["median_ms"] / (run["width"] * run["height"] / 1e6)
    cells += [f"{latency['first_inference_ms']:.2f}", f"{per_megapixel:.2f}", processor_text(latency)]
    return [run["image"], side, *cells]


def instructions_text(run: dict[str, Any], side: str) -> str:
    """Instructions of a side, and by pixel; or why they were not counted."""
    counted = run.get("instructions", {"available": False, "reason": "not counted"})
    if not counted["available"]:
        return f"not available: {counted['reason']}"
    return f"{counted[side] / 1e6:.2f} million, {counted[side] / run['width'] / run['height']:.0f} a pixel"


def determinism_text(determinism: dict[str, Any]) -> str:
    """Whether results equalled the reference, and where not."""
    if not determinism["available"]:
        return str(determinism["reason"])
    if determinism["equal"]:
        return f"equal, {len(determinism['stages'])} of {len(determinism['stages'])} hashes"
    place = determinism["first_difference"]
    wrong = next(s["stage"] for s in determinism["stages"] if not s["equal"])
    detail = f": {place['tensor']}{place['index']} is {place['value']}, not {place['reference']}" if place else ""
    return f"DIFFERS first in {wrong}{detail}; largest pixel difference {determinism['max_difference']}"


def vectors_text(vectors: dict[str, Any]) -> str:
    """How many conformance vectors gave the recorded hashes on the device, and which did not."""
    if not vectors["available"]:
        return f"Conformance vectors: {vectors['reason']}"
    wrong = [v["name"] for v in vectors["vectors"] if not (v["symbols_equal"] and v["pixels_equal"])]
    count = len(vectors["vectors"])
    return f"Conformance vectors: {count - len(wrong)} of {count} equal" + (
        f"; not {', '.join(wrong)}" if wrong else ""
    )


NETWORK_HEAD = ("network", "source", "operator", "ms")


def network_rows(device: dict[str, Any]) -> list[list[str]]:
    """Under `NETWORK_HEAD`: times that a runtime's own profiler gave of networks and their operators."""
    tool, profiler = (device.get("networks", {}).get(key, {}) for key in ("benchmark_model", "operators"))
    rows = []
    for name, network in tool.items() if tool.get("available") else ():
        if name != "available":
            rows.append([name, "benchmark_model", "all", f"{network['latency_metrics']['avg_ms']:.3f}"])
            rows += [["", "", op["operator"], f"{op['avg_ms']:.3f}"] for op in network.get("operators", ())]
    for name, operators in profiler["times"].items() if profiler.get("available") else ():
        for op in operators:
            rows.append([name, profiler["source"], op["operator"], f"{op['median_ms']:.3f}"])
    if device["emulated"]:
        rows = [[*row[:3], "emulated"] for row in rows if row[2] == "all"]
    return rows


def conditions_text(device: dict[str, Any]) -> str:
    """Clock rates and temperatures before and after, as far as the device tells; empty when it tells nothing."""

    def range_of(values: list[float], scale: float, unit: str) -> str:
        low, high = f"{min(values) * scale:.4g}", f"{max(values) * scale:.4g}"
        return (low if low == high else f"{low} to {high}") + f" {unit}"

    texts = []
    for moment, found in device["conditions"].items():
        parts = []
        if found["cpu_khz"]:
            parts.append(range_of(list(found["cpu_khz"].values()), 1e-6, "GHz"))
        if found["temperature_c"]:
            parts.append(range_of(list(found["temperature_c"].values()), 1, "°C"))
        if found.get("load_1min") is not None:
            parts.append(f"load {found['load_1min']:g}")
        if parts:
            texts.append(f"{moment}: {', '.join(parts)}")
    return "; ".join(texts)


def sides(report: Report, emulated: bool) -> Iterator[tuple[dict[str, Any], dict[str, Any], str, dict[str, Any]]]:
    """(device, run, side, latency) of everything that was timed on devices that are emulated, or are not."""
    for device in report["devices"]:
        for run in device["runs"] if device["emulated"] == emulated else ():
            for side, latency in run["latency_metrics"].items():
                yield device, run, side, latency


def markdown(report: Report) -> str:
    """The report's figures as text."""
    bundle, protocol = report["bundle"], report["protocol"]
    lines = [
        "# Rule",
        "",
        f"{report['created']}, target {bundle['target']}, profile {bundle['profile']}, "
        f"model {bundle['model_id'][:16]}, quality {protocol['quality']:g}, {protocol['num_runs']} runs after "
        f"{protocol['num_warmup_runs']} warm-ups, {protocol['threads']} thread(s)",
        "",
    ]
    for device in report["devices"]:
        about = ", ".join(f"{key} {value}" for key, value in device["properties"].items())
        lines += [f"## {device['name']}{' (emulated)' if device['emulated'] else ''}", "", about, ""]
        if conditions := conditions_text(device):
            lines += [conditions, ""]
        lines += [f"- **{flag}**" for flag in device["flags"]] + ([""] if device["flags"] else [])
        lines += _instruction_lines(device) if device["emulated"] else _time_lines(device)
        lines += ["", "| picture | bpp | PSNR dB | memory | determinism |", "|---|---|---|---|---|"]
        for run in device["runs"]:
            memory = ", ".join(f"{k} {v}" for k, v in run.get("memory_metrics", {}).items()) or "not measured"
            psnr = "lossless" if run["psnr_db"] is None else f"{run['psnr_db']:.2f}"
            lines.append(
                f"| {run['image']} | {run['bpp']:.3f} | {psnr} | {memory} | {determinism_text(run['determinism'])} |"
            )
        if "vectors" in device:
            lines += ["", vectors_text(device["vectors"])]
        if rows := network_rows(device):
            lines += ["", "| " + " | ".join(NETWORK_HEAD) + " |", "|" + "---|" * len(NETWORK_HEAD)]
            lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines) + "\n"


def _instruction_lines(device: dict[str, Any]) -> list[str]:
    lines = ["| picture | side | instructions | energy |", "|---|---|---|---|"]
    for run in device["runs"]:
        for side in run["latency_metrics"]:
            lines.append(f"| {run['image']} | {side} | {instructions_text(run, side)} | {energy_text(run, side)} |")
    return lines


def _time_lines(device: dict[str, Any]) -> list[str]:
    lines = ["| " + " | ".join((*TIME_HEAD, "energy")) + " |", "|" + "---|" * (len(TIME_HEAD) + 1)]
    for run in device["runs"]:
        for side in run["latency_metrics"]:
            lines.append("| " + " | ".join([*time_row(run, side), energy_text(run, side)]) + " |")
    lines += ["", "| picture | side | stage | median ms | part |", "|---|---|---|---|---|"]
    for run in device["runs"]:
        for side, latency in run["latency_metrics"].items():
            whole = sum(s["median_ms"] for s in latency["stages"].values()) or 1.0
            for name, stage in latency["stages"].items():
                part = f"{stage['median_ms']:.2f} | {stage['median_ms'] / whole:.0%}"
                lines.append(f"| {run['image']} | {side} | {name} | {part} |")
    return lines


def page(reports: Sequence[Report]) -> str:
    """One HTML page of any number of reports, plots inside as SVG; nothing is loaded from elsewhere."""
    body = []
    for number, report in enumerate(reports):
        label = f"Report {number + 1}: " if len(reports) > 1 else ""
        bundle, protocol = report["bundle"], report["protocol"]
        body.append(
            f"<h2>{label}{html.escape(bundle['target'])}, profile {bundle['profile']}</h2><p class=facts>"
            f"{html.escape(report['created'])} · model {bundle['model_id'][:16]} · quality {protocol['quality']:g} · "
            f"{protocol['num_runs']} runs after {protocol['num_warmup_runs']} warm-ups · "
            f"{protocol['threads']} thread(s)</p>"
        )
        for device in report["devices"]:
            about = " · ".join(f"{k} {html.escape(v)}" for k, v in device["properties"].items())
            emulated = " <b class=bad>emulated</b>" if device["emulated"] else ""
            flags = "".join(f"<li class=bad>{html.escape(flag)}</li>" for flag in device["flags"])
            body.append(f"<h3>{html.escape(device['name'])}{emulated}</h3><p class=facts>{about}</p>")
            body.append(f"<p class=facts>{html.escape(conditions_text(device))}</p><ul>{flags}</ul>")
            body.append(_tables(device))
            if rows := network_rows(device):
                body.append(_table(NETWORK_HEAD, rows))
            if "vectors" in device:
                body.append(f"<p>{html.escape(vectors_text(device['vectors']))}</p>")
    plots = {
        "Instructions": _instruction_plot(reports),
        "Where the time goes": _stage_plot(reports),
        "Latency of every run": _spread_plot(reports),
        "Rate and distortion against time": _rd_plot(reports),
        "Energy": _energy_plot(reports),
    }
    figures = "".join(f"<h2>{title}</h2>{svg}" for title, svg in plots.items() if svg)
    template = (resources.files("pocketlic.profiling.device") / "page.html").read_text("utf-8")
    return template.replace("@FIGURES@", figures).replace("@BODY@", "".join(body))


def _tables(device: dict[str, Any]) -> str:
    latency, outcome, hashes = [], [], []
    for run in device["runs"]:
        for side in run["latency_metrics"]:
            counted = [run["image"], side, instructions_text(run, side)]
            latency.append(counted if device["emulated"] else time_row(run, side))
        energy = _energy_of(run)
        memory = ", ".join(f"{k} {v}" for k, v in run.get("memory_metrics", {}).items()) or "not measured"
        psnr = "lossless" if run["psnr_db"] is None else f"{run['psnr_db']:.2f}"
        outcome.append([run["image"], f"{run['bpp']:.3f}", psnr, memory, energy])
        determinism = run["determinism"]
        marks = "".join(
            f'<span class="{"good" if s["equal"] else "bad"} cell" title="{s["stage"]} {s["sha256"][:16]}"></span>'
            for s in determinism.get("stages", ())
        )
        hashes.append(
            f"<tr><td>{html.escape(run['image'])}</td><td>{marks}</td>"
            f"<td>{html.escape(determinism_text(determinism))}</td></tr>"
        )
    head = ("picture", "side", "instructions") if device["emulated"] else TIME_HEAD
    return (
        _table(head, latency)
        + _table(["picture", "bpp", "PSNR dB", "memory", "energy"], outcome, "scroll text")
        + "<div class='scroll text'><table><tr><th>picture</th><th>hashes by stage</th>"
        + "<th>against the reference</th></tr>"
        + "".join(hashes)
        + "</table></div>"
    )


def _energy_of(run: dict[str, Any]) -> str:
    texts = {side: energy_text(run, side) for side in run["energy"]}
    if len(set(texts.values())) == 1 and not any(e["available"] for e in run["energy"].values()):
        return next(iter(texts.values()))  # one reason for both sides
    return "; ".join(f"{side} {text}" for side, text in texts.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], style: str = "scroll") -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='{style}'><table><tr>{top}</tr>{body}</table></div>"


def _sides(
    reports: Sequence[Report], emulated: bool = False
) -> list[tuple[str, dict[str, Any], dict[str, Any], str, dict[str, Any]]]:
    """(label, device, run, side, latency), of all reports, as `sides` has them of one."""
    rows = []
    for number, report in enumerate(reports):
        for device, run, side, latency in sides(report, emulated):
            prefix = f"{number + 1}: " if len(reports) > 1 else ""
            where = f"{device['name']}, " if len(report["devices"]) > 1 or len(reports) > 1 else ""
            rows.append((f"{prefix}{where}{run['image']}, {side}", device, run, side, latency))
    return rows


def _figure(height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(7.2, height), layout="constrained")


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    buffer = StringIO()
    with rc_context({"svg.hashsalt": "pocketlic", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return f"<div class=scroll>{text[text.index('<svg') :]}</div>"


def _stage_plot(reports: Sequence[Report]) -> str:
    rows = _sides(reports)
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row[4]["stages"]))
    figure = _figure(1.4 + 0.34 * len(rows))
    axes = figure.add_subplot(xlabel="median milliseconds per megapixel")
    for position, (_, _, run, _, latency) in enumerate(rows):
        left = 0.0
        for index, name in enumerate(names):
            if name in latency["stages"]:
                width = latency["stages"][name]["median_ms"] / (run["width"] * run["height"] / 1e6)
                axes.barh(position, width, left=left, color=COLOURS[index % len(COLOURS)], height=0.7)
                left += width
    for index, name in enumerate(names):
        axes.barh(0, 0, color=COLOURS[index % len(COLOURS)], label=name)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=4, fontsize=7)
    return _svg(figure)


def _instruction_plot(reports: Sequence[Report]) -> str:
    rows = [row for row in _sides(reports, emulated=True) if row[2].get("instructions", {}).get("available")]
    if not rows:
        return ""
    figure = _figure(0.9 + 0.34 * len(rows))
    axes = figure.add_subplot(xlabel="instructions per pixel")
    for position, (_, _, run, side, _) in enumerate(rows):
        count = run["instructions"][side] / (run["width"] * run["height"])
        axes.barh(position, count, color=COLOURS[0 if side == "encode" else 1], height=0.7)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
    axes.invert_yaxis()
    return _svg(figure)


def _spread_plot(reports: Sequence[Report]) -> str:
    rows = _sides(reports)
    if not rows:
        return ""
    figure = _figure(0.9 + 0.34 * len(rows))
    axes = figure.add_subplot(xlabel="milliseconds (dots: runs; line: median; cross: first, cold)", xscale="log")
    for position, (_, _, _, side, latency) in enumerate(rows):
        samples = latency["total"]["samples_ms"]
        colour = COLOURS[0] if side == "encode" else COLOURS[1]
        axes.plot(samples, [position] * len(samples), "o", ms=4, alpha=0.35, color=colour)
        axes.plot([latency["total"]["median_ms"]] * 2, [position - 0.3, position + 0.3], color="black", lw=1.5)
        axes.plot(latency["first_inference_ms"], position, "x", ms=6, color=colour)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def _rd_plot(reports: Sequence[Report]) -> str:
    rows = [row for row in _sides(reports) if row[2]["psnr_db"] is not None]
    if not rows:
        return ""
    figure = _figure(4.2)
    axes = figure.add_subplot(xlabel="median milliseconds per megapixel", ylabel="PSNR, dB")
    for _, _, run, side, latency in rows:
        x = latency["total"]["median_ms"] / (run["width"] * run["height"] / 1e6)
        axes.plot(x, run["psnr_db"], "o" if side == "decode" else "^", color=COLOURS[1 if side == "decode" else 0])
        axes.annotate(f"{run['image']}\n{run['bpp']:.2f} bpp", (x, run["psnr_db"]), fontsize=6, xytext=(4, 4),
                      textcoords="offset points")  # fmt: skip
    axes.plot([], [], "o", color=COLOURS[1], label="decode")
    axes.plot([], [], "^", color=COLOURS[0], label="encode")
    axes.margins(0.2)
    axes.grid(alpha=0.3)
    axes.legend()
    return _svg(figure)


def _energy_plot(reports: Sequence[Report]) -> str:
    everything = [*_sides(reports), *_sides(reports, emulated=True)]
    rows = [(label, run, run["energy"].get(side, {})) for label, _, run, side, _ in everything]
    measured = [row for row in rows if row[2].get("available")]
    if not measured:
        reasons = sorted({energy["reason"] for _, _, energy in rows if "reason" in energy})
        return f"<p>not available: {html.escape('; '.join(reasons) or 'not measured')}</p>"
    figure = _figure(0.9 + 0.34 * len(measured))
    axes = figure.add_subplot(xlabel="mJ per megapixel, idle subtracted, one standard deviation")
    for position, (_, run, energy) in enumerate(measured):
        error = energy["uncertainty_mj_per_image"] / (run["width"] * run["height"] / 1e6)
        axes.barh(position, energy["mj_per_megapixel"], xerr=error, color=COLOURS[2], height=0.7, capsize=3)
    axes.set_yticks(range(len(measured)), [label for label, _, _ in measured], fontsize=8)
    axes.invert_yaxis()
    return _svg(figure)
