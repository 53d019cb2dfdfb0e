"""Compares two profiles: what got slower or hungrier, and what no longer gives the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...codec.errors import PlicError

Report = dict[str, Any]
Run = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One figure of both reports. failed: it rose by more than is allowed.

    unit: ms, mJ, MB, or M for a million instructions.
    """

    where: str
    what: str
    unit: str
    before: float
    after: float
    failed: bool

    @property
    def percent(self) -> float:
        """The rise in percent."""
        return 100 * (self.after / self.before - 1) if self.before else 0.0


@dataclass(frozen=True)
class Comparison:
    """Outcome of `compare`. mismatches: one line for each result that is not, or no longer, the same bits."""

    changes: list[Change]
    mismatches: list[str]

    @property
    def failed(self) -> bool:
        """Whether anything rose too much or differs."""
        return bool(self.mismatches) or any(change.failed for change in self.changes)


def parse_percent(text: str) -> float:
    """5 for `5%` or `5`. Raises PlicError for anything else."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise PlicError(f"{text} is not a percentage, such as 5%")
    return value


def compare(before: Report, after: Report, fail_over: float) -> Comparison:
    """Compare the runs that both reports have: same device, picture and runtime.

    fail_over: percent by which a median time, memory or energy may rise, or, on an emulated device, instructions.
    Times of stages are shown and only totals are judged. Raises PlicError when the reports share no run.
    """
    old, new = _runs(before), _runs(after)
    if len(before["devices"]) == len(after["devices"]) == 1:  # two phones of one model have two serial numbers
        old = {("", *key[1:]): run for key, run in old.items()}
        new = {("", *key[1:]): run for key, run in new.items()}
    shared = [key for key in old if key in new]
    if not shared:
        raise PlicError("the two profiles share no run: devices, pictures or runtimes differ")
    changes, mismatches = [], []
    same_model = before["bundle"]["model_id"] == after["bundle"]["model_id"]
    same_quality = before["protocol"]["quality"] == after["protocol"]["quality"]
    for key in shared:
        where = ", ".join(part for part in key if part)
        changes += list(_changes(where, old[key], new[key], fail_over))
        mismatches += list(_mismatches(where, old[key], new[key], same_model and same_quality))
    return Comparison(changes, mismatches)


def _runs(report: Report) -> dict[tuple[str, str, str], Run]:
    return {
        (device["name"], run["image"], run["runtime"]): {**run, "emulated": device["emulated"]}
        for device in report["devices"]
        for run in device["runs"]
    }


def _changes(where: str, old: Run, new: Run, fail_over: float) -> Iterator[Change]:
    def change(what: str, unit: str, a: float, b: float, judged: bool) -> Change:
        return Change(where, what, unit, a, b, judged and b > a * (1 + fail_over / 100))

    for side, latency in old["latency_metrics"].items():
        other, emulated = new["latency_metrics"].get(side), old["emulated"] or new["emulated"]
        if other is None:
            continue
        yield change(side, "ms", latency["total"]["median_ms"], other["total"]["median_ms"], not emulated)
        a, b = old.get("instructions", {}), new.get("instructions", {})
        if a.get("available") and b.get("available"):
            yield change(f"{side}: instructions", "M", a[side] / 1e6, b[side] / 1e6, emulated)
        for name, stage in latency["stages"].items():
            if name in other["stages"]:
                times = stage["median_ms"], other["stages"][name]["median_ms"]
                yield change(f"{side}: {name}", "ms", *times, False)
        a, b = old["energy"].get(side, {}), new["energy"].get(side, {})
        if a.get("available") and b.get("available"):
            yield change(f"{side}: energy", "mJ", a["mj_per_image"], b["mj_per_image"], True)
    a, b = (run.get("memory_metrics", {}).get("peak_mem_mb") for run in (old, new))
    if a is not None and b is not None:
        yield change("peak memory", "MB", a, b, True)


def _mismatches(where: str, old: Run, new: Run, comparable: bool) -> Iterator[str]:
    determinism = new["determinism"]
    if not determinism["available"]:
        return
    wrong = [s["stage"] for s in determinism["stages"] if not s["equal"]]
    if wrong:
        yield f"{where}: not the reference's bits, first in {wrong[0]}"
    if not comparable or not old["determinism"]["available"]:
        return
    hashes = {s["stage"]: s["sha256"] for s in old["determinism"]["stages"]}
    changed = [s["stage"] for s in determinism["stages"] if hashes.get(s["stage"], s["sha256"]) != s["sha256"]]
    if changed and not wrong:
        yield f"{where}: same model and picture, other bits, first in {changed[0]}"
