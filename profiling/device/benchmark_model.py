"""Reads what other tools print: LiteRT's `benchmark_model`, and MLPerf's summary."""

from __future__ import annotations

import re
from typing import Any

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
_MLPERF = {
    "min_ms": "Min latency (ns)",
    "max_ms": "Max latency (ns)",
    "avg_ms": "Mean latency (ns)",
    "median_ms": "50.00 percentile latency (ns)",
    "p90_ms": "90.00 percentile latency (ns)",
    "p95_ms": "95.00 percentile latency (ns)",
    "p99_ms": "99.00 percentile latency (ns)",
}


def read_benchmark_model(text: str) -> dict[str, Any]:
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
    misc: dict[str, float | int] = {}
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
    result: dict[str, Any] = {"latency_metrics": latency, "memory_metrics": memory, "misc_metrics": misc}
    operators = _operators(text)
    return result | ({"operators": operators} if operators else {})


def _operators(text: str) -> list[dict[str, Any]]:
    """Type and mean time of each operator: the last table "Run Order", which --enable_op_profiling adds."""
    columns: list[str] = []
    rows: list[dict[str, Any]] = []
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


def read_mlperf(text: str) -> dict[str, Any]:
    """Latency of MLPerf's `mlperf_log_summary.txt`, in ms, named as ours. ValueError when there is none."""
    found = {}
    for name, label in _MLPERF.items():
        match = re.search(rf"^{re.escape(label)}\s*:\s*(\d+)\s*$", text, re.MULTILINE)
        if match:
            found[name] = int(match[1]) / 1e6
    if not found:
        raise ValueError("no latencies of an MLPerf summary")
    valid = re.search(r"^Result is\s*:\s*(\w+)", text, re.MULTILINE)
    return {"latency_metrics": found, "valid": valid is not None and valid[1] == "VALID"}
