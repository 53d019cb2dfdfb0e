"""Reads what LiteRT's `benchmark_model` prints."""

from __future__ import annotations

import re

from .results import NetworkTimes, OperatorTime

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"


def read_benchmark_model(text: str) -> NetworkTimes:
    """Fields of benchmark_result.proto from the text that `benchmark_model` prints: latency_metrics and others.

    `operators`, a list of operator and avg_ms, is there when the text has a profile of them.

    ValueError when the summary line is missing.
    """
    summary = re.search(
        rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
        rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}",
        text,
    )
    if summary is None:
        raise ValueError("no line 'Inference timings in us' of benchmark_model")
    init, first, warm, average = (float(value) / 1e3 for value in summary.groups())
    latency = {"init_ms": init, "first_inference_ms": first, "average_warm_up_ms": warm, "avg_ms": average}
    misc: dict[str, float] = {}
    lines = re.findall(r"count=(\d+)((?: \w+=[\d.e+-]+)+)", text)
    if len(lines) > 1:
        misc["num_warmup_runs"] = int(lines[0][0])
    if lines:
        misc["num_runs"] = int(lines[-1][0])
        names = {"min": "min_ms", "max": "max_ms", "std": "stddev_ms", "median": "median_ms", "p5": "p5_ms",
                 "p95": "p95_ms"}  # fmt: skip
        for name, value in re.findall(r"(\w+)=([\d.e+-]+)", lines[-1][1]):
            if name in names:
                latency[names[name]] = float(value) / 1e3
    size = re.search(rf"The input model file size \(MB\): {_NUMBER}", text)
    if size:
        misc["model_size_mb"] = float(size[1])
    memory = {}
    footprint = re.search(rf"footprint[^\n]*\(MB\): init={_NUMBER} overall={_NUMBER}", text)
    if footprint:
        memory["init_footprint_kb"] = round(1024 * float(footprint[1]))
        memory["overall_footprint_kb"] = round(1024 * float(footprint[2]))
    result: NetworkTimes = {"latency_metrics": latency, "memory_metrics": memory, "misc_metrics": misc}
    if operators := _operators(text):
        result["operators"] = operators
    return result


def _operators(text: str) -> list[OperatorTime]:
    """Type and mean time of each operator: the last table "Run Order", which --enable_op_profiling adds."""
    columns: list[str] = []
    rows: list[OperatorTime] = []
    for line in text.rpartition(" Run Order =")[2].splitlines():
        cells = [cell.strip() for cell in line.strip().split("\t")]
        if "[node type]" in cells:
            columns = cells
        elif columns and len(cells) >= len(columns) - 1:
            named = dict(zip(columns, cells, strict=False))
            rows.append({"operator": named["[node type]"], "avg_ms": float(named["[avg ms]"])})
        elif rows:
            break
    return rows
