"""What a machine's clock rates, temperatures and battery say before and after a measurement."""

from __future__ import annotations

import re

from .devices import Device
from .results import Conditions

CPU = "/sys/devices/system/cpu"
HOT_C = {"battery": 42.0, "skin": 45.0}
HOT_OTHER_C = 90.0
_LINE = 'for f in {paths}; do [ -r $f ] && echo "$f=$(cat $f)"; done 2>/dev/null; true'


def read_files(device: Device, *patterns: str) -> dict[str, str]:
    """Content of all readable one-line files that match the shell patterns, by path."""
    lines = device.run(_LINE.format(paths=" ".join(patterns))).out.splitlines()
    return {path: value for path, _, value in (line.partition("=") for line in lines) if path.startswith("/")}


def read_conditions(device: Device) -> Conditions:
    """Clock rates in kHz, temperatures in degrees Celsius, battery, load, and `flags` of what spoils figures.

    What a machine does not tell is missing.
    """
    files = read_files(
        device,
        f"{CPU}/cpu[0-9]*/cpufreq/scaling_cur_freq",
        f"{CPU}/cpu[0-9]*/cpufreq/scaling_max_freq",
        f"{CPU}/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
        f"{CPU}/cpu[0-9]*/cpufreq/scaling_governor",
        "/sys/class/thermal/thermal_zone*/type",
        "/sys/class/thermal/thermal_zone*/temp",
        "/sys/class/power_supply/battery/status",
        "/sys/class/power_supply/battery/capacity",
        "/sys/class/power_supply/battery/temp",
        "/proc/loadavg",
    )
    result: Conditions = {
        "cpu_khz": _by_cpu(files, "scaling_cur_freq"),
        "cpu_limit_khz": _by_cpu(files, "scaling_max_freq"),
        "cpu_max_khz": _by_cpu(files, "cpuinfo_max_freq"),
        "governor": next((v for k, v in files.items() if k.endswith("scaling_governor")), None),
        "temperature_c": _temperatures(files),
        "battery": {
            key: files[path]
            for key in ("status", "capacity")
            if (path := f"/sys/class/power_supply/battery/{key}") in files
        },
        "load_1min": float(files["/proc/loadavg"].split()[0]) if "/proc/loadavg" in files else None,
        "flags": [],
    }
    status = re.search(r"Thermal Status:\s*(\d+)", device.run("dumpsys thermalservice 2>/dev/null; true").out)
    if status:
        result["thermal_status"] = int(status[1])
    result["flags"] = _flags(result)
    return result


def _by_cpu(files: dict[str, str], name: str) -> dict[str, int]:
    found = {}
    for path, value in files.items():
        match = re.search(rf"/cpu(\d+)/cpufreq/{name}$", path)
        if match and value.isdigit():
            found[match[1]] = int(value)
    return found


def _temperatures(files: dict[str, str]) -> dict[str, float]:
    found = {}
    for path, kind in files.items():
        value = files.get(path.replace("/type", "/temp"), "") if path.endswith("/type") else ""
        if re.fullmatch(r"-?\d+", value):
            # Zones say thousandths of a degree; a few old ones whole degrees.
            found[kind] = int(value) / 1000 if abs(int(value)) > 200 else float(value)
    battery = files.get("/sys/class/power_supply/battery/temp", "")
    if re.fullmatch(r"-?\d+", battery):
        found["battery"] = int(battery) / 10
    return {kind: celsius for kind, celsius in found.items() if -30 < celsius < 150}


def _flags(conditions: Conditions) -> list[str]:
    flags = []
    for kind, celsius in conditions["temperature_c"].items():
        limit = next((v for k, v in HOT_C.items() if k in kind.lower()), HOT_OTHER_C)
        if celsius >= limit:
            flags.append(f"hot: {kind} {celsius:g} °C")
    most = conditions.get("cpu_max_khz", {})
    limited = [cpu for cpu, khz in conditions.get("cpu_limit_khz", {}).items() if khz < most.get(cpu, 0)]
    if limited:
        flags.append(f"throttled: clock rate limited on cpu {', '.join(sorted(limited, key=int))}")
    if (status := conditions.get("thermal_status", 0)) > 0:
        flags.append(f"throttled: Android's thermal status is {status}")
    return flags
