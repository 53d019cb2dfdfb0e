"""Fuzzes the native core and the Python entry points: python tests/fuzz/run.py FOLDER [--runs N] [--only NAME]

Files and models are fuzzed separately, because models are long: core-files, core-models, entry-files, entry-models.
FOLDER keeps the program, the corpora and the findings; a later run continues there. The core needs clang with
libFuzzer, the Python side the package atheris.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pocketlic.codec import rans
from pocketlic.codec.codec import Codec
from pocketlic.codec.native import COMPILE, CORE
from pocketlic.profiling.conformance.vectors import extreme_model, picture

HERE = Path(__file__).resolve().parent
LENGTHS = {"files": 4096, "models": 80_000}  # largest inputs, in bytes
FLAGS = ["-std=c++17", "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]


class Missing(Exception):
    """A required tool is missing; the message says which."""


def prepare(folder: Path) -> None:
    """Write the model and the seeds: files, streams of one state and of four, and the model itself."""
    files, models = folder / "seeds-files", folder / "seeds-models"
    for path in (files, models):
        path.mkdir(parents=True, exist_ok=True)
    # Small tables, so that the model is a small seed.
    tables = np.tile(np.array([9000, 30000, 20000, 6536], np.uint16), 16)
    model = replace(extreme_model("cpu"), table_radius=np.ones(16, np.uint16), table_freq=tables)
    (folder / "model").write_bytes(model.to_bytes())
    (models / "model").write_bytes(b"\3" + model.to_bytes())
    for states in (1, 4):
        codec = Codec(model, coder=partial(rans.SymbolCoder, many=1 if states == 4 else 1 << 40))
        for kind, height, width in (("texture", 50, 70), ("grey", 1, 1), ("lines", 100, 60), ("black", 1030, 20)):
            data = codec.encode(picture(kind, height, width), 40, icc=b"icc", exif=b"exif" if states == 4 else b"")
            for how in (0, 1):
                (files / f"{kind}-{states}-{how}").write_bytes(bytes([how]) + data)
            if kind == "texture":
                payload = codec.encode(picture(kind, 50, 70), 39)[22:-4]
                (files / f"payload-{states}").write_bytes(b"\2\x64" + payload)


def build(folder: Path) -> Path:
    """Compile the core with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer. Missing without clang."""
    compiler = shutil.which("clang++")
    if compiler is None:
        raise Missing("there is no clang++")
    out = folder / "core"
    command = [compiler, *FLAGS, *COMPILE, str(HERE / "core.cpp"), *CORE, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 and re.search("cannot find .*libclang_rt", done.stderr):
        raise Missing("clang++ has no libFuzzer")
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return out


def fuzz(command: list[str], folder: Path, name: str, runs: int, seconds: int, seed: int) -> tuple[int, str]:
    """Run a fuzzer. Returns the number of executed inputs and, after a finding, the end of its output."""
    kind = name.rpartition("-")[2]
    corpus, findings = folder / f"corpus-{name}", folder / f"findings-{name}"
    for path in (corpus, findings):
        path.mkdir(exist_ok=True)
    options = [
        *(f"-runs={runs}", f"-max_total_time={seconds}", f"-seed={seed}", f"-dict={HERE / 'words.dict'}"),
        *(f"-max_len={LENGTHS[kind]}", "-rss_limit_mb=3000", "-timeout=30", "-print_final_stats=1", "-verbosity=1"),
        *(f"-artifact_prefix={findings}/", str(corpus), str(folder / f"seeds-{kind}")),
    ]
    environment = {**os.environ, "MODEL": str(folder / "model"), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([*command, *options], capture_output=True, text=True, errors="replace", env=environment)
    # Atheris prints no statistics: its last line of progress has the number.
    counts = [int(n) for n in re.findall(r"number_of_executed_units: (\d+)|#(\d+)\t", done.stderr) for n in n if n]
    return max(counts, default=0), "" if done.returncode == 0 else done.stderr[-3000:]


def commands(folder: Path) -> dict[str, list[str]]:
    """The fuzzers that can run here: name -> command."""
    programs = {"core": [str(build(folder))]}
    if find_spec("atheris") is not None:
        programs["entry"] = [sys.executable, "-P", str(HERE / "entry.py"), str(folder / "model")]
    return {f"{program}-{kind}": command for program, command in programs.items() for kind in LENGTHS}


def main() -> int:
    """Print the number of executions; exit code 1 after a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=100_000, help="of each fuzzer")
    parser.add_argument("--seconds", type=int, default=3600, help="that each may take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the name of one of them")
    arguments = parser.parse_args()
    prepare(arguments.folder)
    code = 0
    for name, command in commands(arguments.folder).items():
        if arguments.only in (None, name):
            runs, finding = fuzz(command, arguments.folder, name, arguments.runs, arguments.seconds, arguments.seed)
            print(f"{name}: {runs} executions, {'a finding' if finding else 'no findings'}", flush=True)
            print(finding, file=sys.stderr)
            code |= bool(finding)
    return code


if __name__ == "__main__":
    sys.exit(main())
