"""Each set of kernels computes what the portable one computes: natively, and as Arm code under emulation."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from pocketlic.codec.native import COMPILE, CORE

MAIN = Path(__file__).with_name("kernels.cpp")
# Name: compiler and flags, emulator, sets; None: those that the processor has.
MACHINES = {
    "native": (["g++"], [], None),
    "sanitized": (["g++", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], [], None),
    "aarch64": (
        ["aarch64-linux-gnu-g++", "-static"],
        ["qemu-aarch64-static", "-cpu", "max"],
        ["neon-i8mm", "neon-dot", "neon"],
    ),
    "armhf": (["arm-linux-gnueabihf-g++", "-mfpu=neon", "-static"], ["qemu-arm-static"], ["neon"]),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_kernels(machine, tmp_path):
    compiler, emulator, sets = MACHINES[machine]
    for program in (compiler[0], *emulator[:1]):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    sources = [source for source in CORE if Path(source).parent.name == "kernels"]
    program = tmp_path / "kernels"
    subprocess.run([*compiler, "-std=c++17", "-O2", *COMPILE, str(MAIN), *sources, "-o", str(program)], check=True)
    rounds = "40" if emulator or machine == "sanitized" else "300"
    done = subprocess.run([*emulator, str(program), rounds], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = done.stdout.split()
    assert names == sets if sets is not None else names or platform.machine() not in ("x86_64", "aarch64")
