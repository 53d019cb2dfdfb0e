"""Energy meters, and what they say of a piece of work. Where no meter exists the answer is why, never a guess.

    odpm          Pixel's on-device power monitors: energy of each rail since start, in microjoules
    battery       current times voltage of the battery, sampled while the work runs
    batterystats  the battery's charge counter as Android reports it, in steps of a milliampere-hour
    perfetto      the same rails as odpm, from a recorded trace
    rapl          energy counters of x86 processors

A measurement is two windows: one of idling, one of work. The work's energy less the idle power over its window
is what the work cost.
"""

from __future__ import annotations

import math
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

from .conditions import read_files
from .devices import Device, DeviceError
from .results import Energy, Unavailable, unavailable

T = TypeVar("T")

IDLE_PARTS = 4
SAMPLE_S = 0.1
MICROAMPERES_FROM = 20_000
"""A battery current of this size or more cannot be in mA: it is in uA."""


@dataclass(frozen=True)
class Reading:
    """A counter at one time. seconds: on the meter's own clock. joules: by rail, since some start."""

    seconds: float
    joules: Mapping[str, float]


class Meter(Protocol):
    """Something that counts energy. step_j: the smallest difference it shows."""

    name: str
    step_j: float

    def read(self) -> Reading:
        """The counters now."""

    def close(self) -> None:
        """End what runs in the background: nothing, in most."""
        return


# --- formats


def parse_odpm(text: str) -> Reading:
    """Read an `energy_value` file of an ODPM: `t=MS`, then lines `CH0(T=MS)[RAIL], MICROJOULES`.

    Rails are told apart by name: channel numbers differ between phones. ValueError when the text is none.
    """
    start = re.search(r"^t=(\d+)", text, re.MULTILINE)
    rails = re.findall(r"^CH\d+\(T=\d+\)\[([^\]]+)\],\s*(\d+)", text, re.MULTILINE)
    if start is None or not rails:
        raise ValueError("not the energy_value file of an ODPM")
    return Reading(int(start[1]) / 1e3, {name: int(value) / 1e6 for name, value in rails})


@dataclass(frozen=True)
class BatterySample:
    """One reading of a battery: seconds, watts (positive: it is drained), whether a charger is connected."""

    seconds: float
    watts: float
    charging: bool


def parse_battery(files: Mapping[str, str], seconds: float) -> BatterySample:
    """Read `current_now`, `voltage_now` (uV) and `status` of /sys/class/power_supply/battery, given by name.

    Makers disagree about the current's unit (uA or mA) and sign. The unit follows from the size; the sign is
    dropped, as `status` says which way it flows. ValueError when a value is missing.
    """
    try:
        current, voltage = int(files["current_now"]), int(files["voltage_now"])
    except (KeyError, ValueError):
        raise ValueError("the battery tells no current_now and voltage_now") from None
    amperes = abs(current) / (1e6 if abs(current) >= MICROAMPERES_FROM else 1e3)
    charging = files.get("status", "Unknown").strip() not in ("Discharging", "Unknown")
    return BatterySample(seconds, amperes * voltage / 1e6 * (-1 if charging else 1), charging)


def integrate(samples: list[BatterySample]) -> float:
    """Joules between the first and the last sample, by trapezoids. ValueError when a charger was connected."""
    if any(sample.charging for sample in samples):
        raise ValueError("a charger is connected, so the battery's current is not what the phone uses")
    return sum((b.seconds - a.seconds) * (a.watts + b.watts) / 2 for a, b in pairwise(samples))


def parse_batterystats(text: str) -> float:
    """mAh taken from the battery since the last reset: the record `dc` of `dumpsys batterystats --checkin`.

    ValueError when there is none.
    """
    for line in text.splitlines():
        parts = line.strip().split(",")
        if parts[2:4] == ["l", "dc"] and len(parts) > 8:
            return float(parts[8])
    raise ValueError("no discharge record (l,dc) in batterystats")


def parse_perfetto(trace: bytes) -> list[Reading]:
    """Power rails of a recorded Perfetto trace (data source android.power), in the order of time.

    Needs the package perfetto. ValueError when the bytes are no trace or have no rails.
    """
    from google.protobuf.message import DecodeError
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2

    content = perfetto_trace_pb2.Trace()
    try:
        content.ParseFromString(trace)
    except DecodeError:
        raise ValueError("not a Perfetto trace") from None
    names: dict[int, str] = {}
    joules: dict[int, dict[str, float]] = {}
    for packet in content.packet:
        if not packet.HasField("power_rails"):
            continue
        for rail in packet.power_rails.rail_descriptor:
            names[rail.index] = rail.rail_name
        for value in packet.power_rails.energy_data:
            at = joules.setdefault(value.timestamp_ms, {})
            at[names.get(value.index, f"rail {value.index}")] = value.energy / 1e6
    if not joules:
        raise ValueError("the trace has no power rails")
    return [Reading(ms / 1e3, joules[ms]) for ms in sorted(joules)]


# --- meters


@dataclass
class OdpmMeter(Meter):
    """Energy of all rails of all ODPMs of a Pixel."""

    device: Device
    paths: list[str]
    name: str = "odpm"
    step_j: float = 1e-6

    def read(self) -> Reading:
        rails: dict[str, float] = {}
        seconds = 0.0
        for path in self.paths:
            part = parse_odpm(self.device.run(f"cat {path}").out)
            rails |= part.joules
            seconds = max(seconds, part.seconds)
        return Reading(seconds, rails)


PERFETTO_FILE = "/data/misc/perfetto-traces/pocketlic"
PERFETTO_CONFIG = (
    'duration_ms: 400 buffers { size_kb: 1024 } data_sources { config { name: "android.power" '
    "android_power_config { battery_poll_ms: 100 collect_power_rails: true } } }"
)


@dataclass
class PerfettoMeter(Meter):
    """Power rails through a phone's own `perfetto`: each reading is the end of a trace of 0.4 s."""

    device: Device
    name: str = "perfetto"
    step_j: float = 1e-6

    def read(self) -> Reading:
        done = self.device.run(f"echo '{PERFETTO_CONFIG}' | perfetto --txt -c - -o {PERFETTO_FILE}")
        if done.code:
            raise ValueError("perfetto refused to record")
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "trace"
            self.device.pull(PERFETTO_FILE, local)
            return parse_perfetto(local.read_bytes())[-1]


@dataclass
class RaplMeter(Meter):
    """Energy of the processor packages of this machine, in microjoules that start again at a maximum."""

    device: Device
    paths: list[str]
    name: str = "rapl"
    step_j: float = 1e-6
    _last: dict[str, float] = field(default_factory=dict)
    _wraps: dict[str, float] = field(default_factory=dict)

    def read(self) -> Reading:
        rails = {}
        for path in self.paths:
            value = int(self.device.run(f"cat {path}/energy_uj").out) / 1e6
            if value < self._last.get(path, 0.0):
                top = int(self.device.run(f"cat {path}/max_energy_range_uj").out) / 1e6
                self._wraps[path] = self._wraps.get(path, 0.0) + top
            self._last[path] = value
            rails[path.rpartition("/")[2]] = value + self._wraps.get(path, 0.0)
        return Reading(time.monotonic(), rails)


class BatteryMeter(Meter):
    """Current times voltage of a phone's battery, sampled in the background every 0.1 s or as adb allows."""

    name = "battery"
    step_j = 1e-3

    def __init__(self, device: Device) -> None:
        self.device = device
        self.samples: list[BatterySample] = []
        self._stop = threading.Event()
        self._error: DeviceError | ValueError | None = None
        self._sample()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        folder = "/sys/class/power_supply/battery"
        files = read_files(self.device, *(f"{folder}/{name}" for name in ("current_now", "voltage_now", "status")))
        named = {path.rpartition("/")[2]: value for path, value in files.items()}
        self.samples.append(parse_battery(named, time.monotonic()))

    def _loop(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            try:
                self._sample()
            except (DeviceError, ValueError) as error:
                self._error = error
                return

    def read(self) -> Reading:
        """Up to now. ValueError when a charger was connected at any time, DeviceError when the phone is gone."""
        if self._error is not None:
            raise self._error
        self._sample()
        samples = sorted(self.samples, key=lambda sample: sample.seconds)
        return Reading(samples[-1].seconds, {"battery": integrate(samples)})

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)


@dataclass
class BatteryStatsMeter(Meter):
    """The battery's charge counter times its voltage; steps of 1 mAh need minutes of work to mean anything."""

    device: Device
    volts: float
    name: str = "batterystats"
    step_j: float = 0.0

    def __post_init__(self) -> None:
        self.step_j = 3.6 * self.volts  # one milliampere-hour

    def read(self) -> Reading:
        mah = parse_batterystats(self.device.run("dumpsys batterystats --checkin").out)
        return Reading(time.monotonic(), {"battery": 3.6 * mah * self.volts})


def _battery_stats(device: Device) -> Meter | None:
    voltage = next(iter(read_files(device, "/sys/class/power_supply/battery/voltage_now").values()), "")
    meter = BatteryStatsMeter(device, int(voltage) / 1e6) if voltage.isdigit() else None
    try:
        if meter is not None:
            meter.read()
    except ValueError:
        return None
    return meter


def _perfetto(device: Device) -> PerfettoMeter | str:
    """The meter, or why there is none."""
    if device.run("command -v perfetto").code:
        return "no perfetto"
    meter = PerfettoMeter(device)
    try:
        meter.read()
    except ValueError as error:
        return f"perfetto: {error}"
    except ImportError:
        return "perfetto: its Python package is not installed"
    return meter


def find_meter(device: Device) -> tuple[Meter | None, str]:
    """The best meter a device has, or None and why there is none."""
    if device.kind == "host":
        found = device.run("ls -d /sys/class/powercap/intel-rapl:[0-9] 2>/dev/null; true").out.split()
        readable = [path for path in found if device.run(f"cat {path}/energy_uj").code == 0]
        if readable:
            return RaplMeter(device, readable), ""
        if found:
            return None, "the RAPL counters under /sys/class/powercap can only be read by root"
        virtual = device.properties().get("virtual") == "yes"
        return None, "a virtual machine has no energy counter" if virtual else "this machine has no RAPL counters"
    reasons = []
    rails = device.run("ls /sys/bus/iio/devices/iio:device*/energy_value 2>/dev/null; true").out.split()
    if rails:
        try:
            meter = OdpmMeter(device, rails)
            meter.read()
        except ValueError as error:
            reasons.append(f"ODPM: {error}")
        else:
            return meter, ""
    else:
        reasons.append("no ODPM rails")
    perfetto = _perfetto(device)
    if isinstance(perfetto, PerfettoMeter):
        return perfetto, ""
    reasons.append(perfetto)
    try:
        battery = BatteryMeter(device)
    except ValueError as error:
        stats = _battery_stats(device)
        return stats, "" if stats else "; ".join([*reasons, str(error)])
    if battery.samples[0].charging:
        battery.close()
        return None, "; ".join([*reasons, "the battery is being charged, which spoils its readings: unplug USB"])
    return battery, ""


# --- measuring


def measure(
    meter: Meter, work: Callable[[], T], images: int, pixels: int, idle_s: float = 2.0
) -> tuple[T, Energy | Unavailable]:
    """Run `work`, which handles `images` pictures of `pixels` pixels; returns its result and the energy.

    The uncertainty is one standard deviation: of the idle power, and of when the counters were read.
    """
    try:
        idle = [meter.read()]
        for _ in range(IDLE_PARTS):
            time.sleep(idle_s / IDLE_PARTS)
            idle.append(meter.read())
    except (DeviceError, ValueError) as error:
        return work(), unavailable(str(error))
    powers = [_power(a, b) for a, b in pairwise(idle)]
    asked = time.monotonic()
    before = meter.read()
    delay = time.monotonic() - asked
    result = work()
    try:
        after = meter.read()
    except (DeviceError, ValueError) as error:
        return result, unavailable(str(error))
    return result, summarize(meter.name, meter.step_j, powers, before, after, images, pixels, delay)


def _power(a: Reading, b: Reading) -> float:
    window = b.seconds - a.seconds
    return (sum(b.joules.values()) - sum(a.joules.values())) / window if window > 0 else 0.0


def summarize(
    name: str,
    step_j: float,
    idle_powers: list[float],
    before: Reading,
    after: Reading,
    images: int,
    pixels: int,
    delay: float,
) -> Energy | Unavailable:
    """What a report says of two readings around work, the idle powers in W, and the seconds a reading takes."""
    window = after.seconds - before.seconds
    if window <= 0:
        return unavailable(f"{name}: its counters did not move during the work; do more runs")
    gross = sum(after.joules.values()) - sum(before.joules.values())
    idle = statistics.mean(idle_powers)
    spread = statistics.stdev(idle_powers) if len(idle_powers) > 1 else 0.0
    net = gross - idle * window
    error = math.hypot(spread * window, delay * gross / window, step_j)
    return {
        "available": True,
        "meter": name,
        "window_s": round(window, 4),
        "total_mj": round(1e3 * gross, 3),
        "idle_mw": round(1e3 * idle, 3),
        "net_mj": round(1e3 * net, 3),
        "mj_per_image": round(1e3 * net / images, 4),
        "mj_per_megapixel": round(1e9 * net / images / pixels, 4),
        "uncertainty_mj_per_image": round(1e3 * error / images, 4),
        "rails_mj": {
            rail: round(1e3 * (after.joules[rail] - before.joules.get(rail, 0.0)), 3) for rail in after.joules
        },
    }
