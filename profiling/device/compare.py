"""Compares two profiles: what got slower or hungrier, and what no longer gives the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...codec.errors import PlicError
from ..text import Table
from .results import DeviceResult, Report, Run

HARDWARE = ("manufacturer", "model", "soc", "abi", "cpus", "virtual")
"""Properties that make two devices unlike; the versions of their systems are what one may want to compare."""


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
    """Outcome of `compare`. fail_over: the rise in percent that is allowed.

    mismatches: one line for each result that is not, or no longer, the same bits. differences: what was measured
    otherwise, one short text each: figures of unlike reports do not tell what changed.
    """

    fail_over: float
    changes: list[Change]
    mismatches: list[str]
    differences: list[str]

    @property
    def failed(self) -> bool:
        """Whether anything rose too much or differs."""
        return bool(self.mismatches) or any(change.failed for change in self.changes)

    @property
    def verdict(self) -> str:
        """Both counts."""
        risen = sum(change.failed for change in self.changes)
        return f"{risen} rose by more than {self.fail_over:g}%, {len(self.mismatches)} give other bits"

    @property
    def table(self) -> Table:
        """All figures; those that rose are highlighted."""
        rows = [
            (c.where, c.what, c.unit, f"{c.before:.2f}", f"{c.after:.2f}", f"{c.percent:+.1f} %", "ROSE" * c.failed)
            for c in self.changes
        ]
        head = ("run", "figure", "unit", "before", "after", "change", "")
        return Table("What changed", head, rows, frozenset(i for i, c in enumerate(self.changes) if c.failed), words=3)


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
    old, new = _devices(before), _devices(after)
    if len(old) == len(new) == 1:  # two phones of one model have two serial numbers
        old, new = ({"": next(iter(devices.values()))} for devices in (old, new))
    changes: list[Change] = []
    mismatches: list[str] = []
    differences = _protocol_differences(before, after)
    same_results = not any(d.startswith(("model", "quality")) for d in differences)
    shared = 0
    for name in [name for name in old if name in new]:
        label = name or new[name]["name"]
        differences += [f"{label}: {text}" for text in _device_differences(old[name], new[name])]
        emulated = old[name]["emulated"] or new[name]["emulated"]
        runs = {(run["image"], run["runtime"]): run for run in old[name]["runs"]}
        for run in new[name]["runs"]:
            other = runs.get((run["image"], run["runtime"]))
            if other is None:
                continue
            shared += 1
            where = ", ".join(part for part in (name, run["image"], run["runtime"]) if part)
            sizes = [f"{r['width']}x{r['height']}" for r in (other, run)]
            if sizes[0] != sizes[1]:
                differences.append(f"{run['image']}: size {sizes[0]} and {sizes[1]}")
            changes += _changes(where, other, run, fail_over, emulated)
            mismatches += _mismatches(where, other, run, same_results and sizes[0] == sizes[1])
    if not shared:
        raise PlicError("the two profiles share no run: devices, pictures or runtimes differ")
    return Comparison(fail_over, changes, mismatches, differences)


def _devices(report: Report) -> dict[str, DeviceResult]:
    return {device["name"]: device for device in report["devices"]}


def _unlike(pairs: dict[str, tuple[object, object]]) -> list[str]:
    return [f"{name} {a} and {b}" for name, (a, b) in pairs.items() if a != b]


def _protocol_differences(before: Report, after: Report) -> list[str]:
    a, b = before["bundle"], after["bundle"]
    p, q = before["protocol"], after["protocol"]
    return _unlike({
        "target": (a["target"], b["target"]),
        "rule": (a["profile"], b["profile"]),
        "model": (a["model_id"][:16], b["model_id"][:16]),
        "tile": (a["tile"], b["tile"]),
        "quality": (f"{p['quality']:g}", f"{q['quality']:g}"),
        "threads": (p["threads"], q["threads"]),
        "warm-ups": (p["num_warmup_runs"], q["num_warmup_runs"]),
    })  # fmt: skip


def _device_differences(old: DeviceResult, new: DeviceResult) -> list[str]:
    properties = [device["properties"] for device in (old, new)]
    return _unlike({
        "kind": (old["kind"], new["kind"]),
        "emulated": (old["emulated"], new["emulated"]),
        "unit": (old["primary_compute_unit"], new["primary_compute_unit"]),
        **{name: (properties[0].get(name, "unknown"), properties[1].get(name, "unknown")) for name in HARDWARE},
        "processors": (old.get("affinity", []), new.get("affinity", [])),
    })  # fmt: skip


def _changes(where: str, old: Run, new: Run, fail_over: float, emulated: bool) -> Iterator[Change]:
    def change(what: str, unit: str, a: float, b: float, judged: bool) -> Change:
        return Change(where, what, unit, a, b, judged and b > a * (1 + fail_over / 100))

    counts = old.get("instructions"), new.get("instructions")
    for side, latency in old["latency_metrics"].items():
        other = new["latency_metrics"].get(side)
        if other is None:
            continue
        yield change(side, "ms", latency["total"]["median_ms"], other["total"]["median_ms"], not emulated)
        if counts[0] and counts[1] and counts[0]["available"] and counts[1]["available"]:
            a, b = ((c["encode"] if side == "encode" else c["decode"]) / 1e6 for c in (counts[0], counts[1]))
            yield change(f"{side}: instructions", "M", a, b, emulated)
        for name, stage in latency["stages"].items():
            if name in other["stages"]:
                times = stage["median_ms"], other["stages"][name]["median_ms"]
                yield change(f"{side}: {name}", "ms", *times, False)
        energies = old["energy"].get(side), new["energy"].get(side)
        if energies[0] and energies[1] and energies[0]["available"] and energies[1]["available"]:
            yield change(f"{side}: energy", "mJ", energies[0]["mj_per_image"], energies[1]["mj_per_image"], True)
    peaks = [run.get("memory_metrics", {}).get("peak_mem_mb") for run in (old, new)]
    if peaks[0] is not None and peaks[1] is not None:
        yield change("peak memory", "MB", peaks[0], peaks[1], True)


def _mismatches(where: str, old: Run, new: Run, comparable: bool) -> Iterator[str]:
    before, after = old["determinism"], new["determinism"]
    if not after["available"]:
        return
    wrong = [s["stage"] for s in after["stages"] if not s["equal"]]
    if wrong:
        yield f"{where}: not the reference's bits, first in {wrong[0]}"
    if not comparable or not before["available"]:
        return
    hashes = {s["stage"]: s["sha256"] for s in before["stages"]}
    changed = [s["stage"] for s in after["stages"] if hashes.get(s["stage"], s["sha256"]) != s["sha256"]]
    if changed and not wrong:
        yield f"{where}: same model and picture, other bits, first in {changed[0]}"
