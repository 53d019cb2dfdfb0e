"""Machines to measure on, behind one small interface: this one, and Android phones through the real `adb`.

Everything above speaks to a device by shell lines, so that the host and a phone are read by the same code.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...codec.errors import PlicError

PHONE_FOLDER = "/data/local/tmp/pocketlic"
TIMEOUT_S = 600.0

PROPERTIES = {
    "manufacturer": "ro.product.manufacturer",
    "model": "ro.product.model",
    "soc": "ro.soc.model",
    "abi": "ro.product.cpu.abi",
    "android": "ro.build.version.release",
    "build": "ro.build.fingerprint",
}


class DeviceError(PlicError):
    """A device is missing, refuses, or went away; the message is one line."""


@dataclass(frozen=True)
class Output:
    """What a shell line left: its exit code and its two streams as text."""

    code: int
    out: str
    err: str


class Device(Protocol):
    """A machine that takes files and runs shell lines.

    name: how reports call it. folder: where files may be put. emulated: its times mean nothing.
    """

    name: str
    kind: str
    folder: str
    emulated: bool

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device. DeviceError when it cannot be reached or its disk is full."""

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device. DeviceError when it is not there."""

    def run(self, line: str, timeout: float = TIMEOUT_S) -> Output:
        """Run a shell line. DeviceError when the device goes away or the line runs longer than `timeout` s."""

    def properties(self) -> dict[str, str]:
        """What the device is: model, processor, system."""


class HostDevice:
    """This machine."""

    kind = "host"
    emulated = False

    def __init__(self) -> None:
        self.name = "host"
        self.folder = "."

    def push(self, local: Path, remote: str) -> None:
        try:
            shutil.copyfile(local, remote)
        except OSError as error:
            raise DeviceError(f"cannot write {remote}: {error.strerror}") from None

    def pull(self, remote: str, local: Path) -> None:
        self.push(Path(remote), str(local))

    def run(self, line: str, timeout: float = TIMEOUT_S) -> Output:
        try:
            done = subprocess.run(
                ["sh", "-c", line], capture_output=True, text=True, errors="replace", timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"host: no end after {timeout:g} s: {line.split()[0]}") from None
        return Output(done.returncode, done.stdout, done.stderr)

    def properties(self) -> dict[str, str]:
        cpuinfo = self.run("cat /proc/cpuinfo").out
        names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
        return {
            "model": names[0] if names else platform.processor() or "unknown",
            "abi": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "cpus": str(os.cpu_count()),
            "virtual": "yes" if " hypervisor" in cpuinfo else "no",
        }


class AdbDevice:
    """An Android phone that `adb` sees, by its serial number."""

    kind = "adb"

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self.name = serial
        self.folder = PHONE_FOLDER
        self._check(self._adb("shell", f"mkdir -p {PHONE_FOLDER}"), f"make {PHONE_FOLDER}")
        self.emulated = "1" in self.run("getprop ro.kernel.qemu; getprop ro.boot.qemu").out.split()

    def properties(self) -> dict[str, str]:
        line = "; ".join(f'echo "{key}=$(getprop {name})"' for key, name in PROPERTIES.items())
        answers = self.run(f'{line}; echo "kernel=$(uname -r)"').out.splitlines()
        pairs = (answer.partition("=") for answer in answers)
        return {key: value.strip() for key, _, value in pairs if value.strip()}

    def push(self, local: Path, remote: str) -> None:
        self._check(self._adb("push", str(local), remote), f"take {local.name}")

    def pull(self, remote: str, local: Path) -> None:
        self._check(self._adb("pull", remote, str(local)), f"give {remote}")

    def run(self, line: str, timeout: float = TIMEOUT_S) -> Output:
        done = self._adb("shell", line, timeout=timeout)
        # With its own failures adb writes "error: ..." or "adb: ..." and exits with 1, as a command might.
        if done.code and done.err.lstrip().startswith(("error:", "adb:")):
            self._check(done, "run a command")
        return done

    def _adb(self, *arguments: str, timeout: float = TIMEOUT_S) -> Output:
        return _adb("-s", self.serial, *arguments, timeout=timeout)

    def _check(self, done: Output, what: str) -> None:
        if done.code:
            lines = (done.err + done.out).strip().splitlines() or [f"exit code {done.code}"]
            reason = next((line for line in lines if "error" in line), lines[-1])
            raise DeviceError(f"phone {self.serial} did not {what}: {reason.strip()}")


def _adb(*arguments: str, timeout: float = TIMEOUT_S) -> Output:
    try:
        done = subprocess.run(
            ["adb", *arguments], capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise DeviceError("there is no adb here: install Android's platform tools (Debian: adb)") from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"adb: no end after {timeout:g} s: {' '.join(arguments[:4])}") from None
    return Output(done.returncode, done.stdout, done.stderr)


def _phones() -> dict[str, str]:
    """Serial number -> state (device, unauthorized, offline, ...) of every phone that adb knows."""
    listed = _adb("devices", timeout=30)
    if listed.code:
        raise DeviceError(f"adb: {(listed.err.strip() or 'failed').splitlines()[-1]}")
    rows = [line.split("\t") for line in listed.out.splitlines() if "\t" in line]
    return {row[0]: row[1].strip() for row in rows}


def find_devices(wanted: str) -> list[Device]:
    """The devices that `--device` names: host, adb, adb:SERIAL, or all (phones that are ready).

    Raises DeviceError with what to do when there is none, several for `adb`, or one that is not ready.
    """
    if wanted == "host":
        return [HostDevice()]
    kind, _, serial = wanted.partition(":")
    if wanted != "all" and kind != "adb":
        raise DeviceError(f"there is no device {wanted}: say host, adb, adb:SERIAL or all")
    phones = _phones()
    if serial:
        phones = {serial: phones.get(serial, "not connected")}
    for name, state in phones.items():
        if state != "device" and (serial or len(phones) == 1):
            hint = ": allow debugging on its screen" if state in ("unauthorized", "authorizing") else ""
            raise DeviceError(f"phone {name} is {state}{hint}")
    ready = [name for name, state in phones.items() if state == "device"]
    if not ready:
        raise DeviceError("adb sees no phone: connect one with USB debugging allowed")
    if wanted == "adb" and len(ready) > 1:
        raise DeviceError(f"adb sees {len(ready)} phones: say adb:SERIAL or all ({', '.join(sorted(ready))})")
    return [AdbDevice(name) for name in sorted(ready)]


def quoted(*arguments: str) -> str:
    """A shell line of these arguments."""
    return shlex.join(arguments)
