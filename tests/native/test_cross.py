"""The app's build of the native core for each ABI, run under emulation.

Toolchain files stand in for the Android NDK's; all else is as Gradle runs it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pocketlic.codec import format as plic
from pocketlic.codec.codec import Codec
from pocketlic.codec.native import COMPILE, TOOL

ROOT = Path(__file__).parents[2]
ENTRY = ROOT / "android_demo" / "app" / "src" / "main" / "cpp"
# ABI: compiler, its flags, ELF's number of the machine, emulator, kernels
ABIS = {
    "arm64-v8a": (
        *("aarch64-linux-gnu-g++", "", 183, ["qemu-aarch64-static", "-cpu", "cortex-a76"]),
        ["neon-dot", "neon", "portable"],
    ),
    "armeabi-v7a": (
        *("arm-linux-gnueabihf-g++", "-march=armv7-a -mfpu=neon", 40, ["qemu-arm-static"]),
        ["neon", "portable"],
    ),
    "x86_64": ("x86_64-linux-gnu-g++", "", 62, [], None),
}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.parametrize("abi", ABIS)
def test_the_apps_build(abi, tmp_path, make, odd_network, picture):
    compiler, flags, machine, emulator, kernels = ABIS[abi]
    javac = shutil.which("javac")
    for program in ("cmake", compiler, "javac", *emulator[:1]):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    if not ENTRY.exists():
        pytest.skip("the app's sources are not beside the tests")
    include = Path(os.path.realpath(javac)).parents[1] / "include"  # the NDK has jni.h itself
    processor = {183: "aarch64", 40: "armv7-a", 62: "x86_64"}[machine]
    (tmp_path / "toolchain.cmake").write_text(
        f"""set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR {processor})
set(CMAKE_CXX_COMPILER {compiler})
set(CMAKE_CXX_FLAGS_INIT "{flags} -I{include} -I{include / "linux"}")
"""
    )
    build = tmp_path / "build"
    run("cmake", "-S", ENTRY, "-B", build, f"-DCMAKE_TOOLCHAIN_FILE={tmp_path / 'toolchain.cmake'}",
        "-DCMAKE_BUILD_TYPE=Release")  # fmt: skip
    run("cmake", "--build", build)
    library = (build / "libpocketlic.so").read_bytes()
    assert library[:4] == b"\x7fELF"
    assert int.from_bytes(library[18:20], "little") == machine
    tool = tmp_path / "plic"
    run(compiler, *flags.split(), "-std=c++17", "-static", *COMPILE, TOOL[0],
        build / "core" / "libplic.a", "-o", tool)  # fmt: skip

    # The app's code equals the reference, also where channels do not fill a vector.
    model = make.small_model("cpu")
    model = replace(model, networks={**model.networks, "context": odd_network("cpu", 1)})
    (tmp_path / "model").write_bytes(model.to_bytes())
    codec = Codec(model)
    data = codec.encode(picture(150, 200), 60)
    (tmp_path / "picture.plic").write_bytes(data)
    file = plic.read(data)
    symbols = codec.read_symbols(file)
    pixels = hashlib.sha256(codec.synthesise(symbols, file.header).tobytes()).hexdigest()
    found = run(*emulator, tool, "kernels").split()
    assert found == kernels or kernels is None
    for name in found:
        answer = run(*emulator, tool, "--kernels", name, "hash", tmp_path / "model", tmp_path / "picture.plic")
        assert answer.split()[:2] == [symbols.sha256(), pixels], name
