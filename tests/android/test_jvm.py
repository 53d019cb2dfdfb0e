"""The app's logic and its JNI library on JVMs: the APK's own libraries, on this processor and as Arm code under qemu.

The libraries are the APK's; this system's C library stands in for Android's libc.so. Times mean nothing.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from pocketlic.codec.native import COMPILE, TOOL

ROOT = Path(__file__).parents[2]
LISTED = json.loads((ROOT / "tests" / "vectors" / "vectors.json").read_text())["models"]
SCHEMA = json.loads((ROOT / "profiling" / "device" / "profile.schema.json").read_text())
PACKAGES = "openjdk-17-jre-headless"


@pytest.fixture(scope="module")
def classpath(build, ci):
    """The app's classes, their tests, and what both need."""
    return [build.classes("litert"), build.jvm_tests(), *ci.JUNIT, *build.libraries]


def junit(java, classpath, library, libc, folder, *options, tests=("LogicTest", "EngineTest")):
    """Run tests on a JVM and return what it printed."""
    folder.mkdir(exist_ok=True)
    for name, target in (("libc.so", libc), ("libpocketlic.so", library)):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [*java, f"-Djava.library.path={folder}", f"-Dpocketlic.root={ROOT}", *options, "-cp",
         os.pathsep.join(map(str, classpath)), "org.junit.runner.JUnitCore",
         *(f"org.pocketlic.demo.{test}" for test in tests)],
        capture_output=True, text=True, env=environment, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def libc():
    return next(Path(p) for p in ("/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6") if Path(p).exists())


@pytest.fixture(scope="module")
def report(build, classpath, libc, tmp_path_factory):
    """The output of this machine's JVM, and the profile that the app's benchmark made there."""
    folder = tmp_path_factory.mktemp("jvm")
    options = ["-Xcheck:jni", "-Xmx200m", f"-Dpocketlic.report={folder / 'report.json'}"]
    text = junit(["java"], classpath, build.jni("x86_64"), libc, folder / "lib", *options)
    return text, json.loads((folder / "report.json").read_text())


def test_on_this_machine(report):
    text, _ = report
    assert "OK (" in text
    assert "WARNING in native method" not in text  # printed by -Xcheck:jni


def test_memory_for_12_megapixels(build, classpath, libc, tmp_path, monkeypatch):
    """With a phone's number of cores, and little of Java's heap; pictures and the core's memory are outside it."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "262144")
    options = ["-Xmx64m", "-XX:MaxDirectMemorySize=256m", "-XX:+UseSerialGC", "-XX:ActiveProcessorCount=8"]
    text = junit(["java"], classpath, build.jni("x86_64"), libc, tmp_path / "lib", *options, tests=["MemoryTest"])
    assert "OK (1 test)" in text
    taken, counted = map(int, re.search(r"take (\d+) MB, counted were (\d+) MB", text).groups())
    # The count holds, apart from the growth of the JVM itself, and leaves the platform its share of 256 MB.
    assert taken - 16 <= counted <= 208


def test_the_benchmarks_json_is_a_profile(report):
    _, profile = report
    jsonschema.validate(profile, SCHEMA)
    (device,) = profile["devices"]
    (run,) = device["runs"]
    assert run["determinism"]["equal"]
    assert device["flags"] == ["before: warm", "after: warm", "decoded on 1 of 2 threads"]
    assert len(run["latency_metrics"]["decode"]["total"]["samples_ms"]) == profile["protocol"]["num_runs"] == 2
    assert profile["bundle"]["model_id"] == LISTED["cpu"]["id"]


def test_as_arm_code(build, classpath, tmp_path):
    """The conformance vectors through arm64-v8a's library on an Arm JVM: the code that phones run."""
    root = Path(os.environ.get("POCKETLIC_ARM64_JVM", ROOT / "build" / "arm64-jvm"))
    if not root.exists():
        if shutil.which("mmdebstrap") is None or shutil.which("qemu-aarch64-static") is None:
            pytest.skip("an Arm JVM needs mmdebstrap and qemu-user-static")
        made = root.with_name(root.name + ".new")
        shutil.rmtree(made, ignore_errors=True)
        made.parent.mkdir(parents=True, exist_ok=True)
        command = ["mmdebstrap", "--arch=arm64", "--variant=extract", f"--include={PACKAGES}", "bookworm", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no Arm JVM could be fetched: {done.stderr.strip().splitlines()[-1]}")
        made.rename(root)
    program = root / "usr/lib/jvm/java-17-openjdk-arm64/bin/java"
    java = ["qemu-aarch64-static", "-cpu", "cortex-a76", "-L", str(root), str(program), "-XX:TieredStopAtLevel=1"]
    libc = root / "lib/aarch64-linux-gnu/libc.so.6"
    text = junit(java, classpath, build.jni("arm64-v8a"), libc, tmp_path / "lib", "-Dpocketlic.emulated=yes")
    assert "OK (" in text


def test_as_32_bit_arm_code(build, ci, tmp_path):
    """There is no JVM for armeabi-v7a: the core, made by the same compiler and flags, decodes some of the vectors."""
    if shutil.which("qemu-arm-static") is None:
        pytest.skip("32-bit Arm code needs qemu-user-static")
    compiler, *flags = ci.COMPILERS["armeabi-v7a"]
    program = tmp_path / "plic"
    subprocess.run([compiler, "-std=c++17", "-O1", "-static", *flags, *COMPILE, *TOOL, "-o", program], check=True)
    names = ("odd", "metadata", "four-states", "symbols-1")
    files = [ROOT / "tests" / "vectors" / "cpu" / f"{name}.plic" for name in names]
    model = ROOT / "models" / "weights" / "pocketlic-cpu.safetensors"
    done = subprocess.run(
        ["qemu-arm-static", program, "hash", model, *files], capture_output=True, text=True, check=True
    )
    expected = {entry["name"]: [entry["symbols"], entry["pixels"]] for entry in LISTED["cpu"]["vectors"]}
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [expected[name] for name in names]
