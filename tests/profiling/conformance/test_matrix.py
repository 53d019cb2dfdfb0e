"""The conformance matrix: equal cells, wrong cells, and the message when tools are missing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from pocketlic.cli import app
from pocketlic.codec import _native
from pocketlic.export.bundle import write_bundle
from pocketlic.profiling.conformance import matrix, vectors
from pocketlic.profiling.conformance.matrix import Cell, Failed, Unavailable, cells, verify


@pytest.fixture
def few(monkeypatch):
    """Only the first and the last few vectors."""
    chosen = [p for p in vectors.PICTURES if p[0] in ("one-pixel", "odd", "quality-25")]
    monkeypatch.setattr(vectors, "PICTURES", tuple(chosen))


@pytest.fixture
def models(make):
    return {profile: make.small_model(profile) for profile in ("cpu", "strict")}


def outcomes(found):
    return {r.name: r.outcome for r in found.results}


def test_there_are_enough_cells(tmp_path):
    names = [cell.name for cell in cells(tmp_path)]
    assert len(names) == len(set(names)) >= 30
    for part in ("s390x", "riscv64", "armhf", "i686", "clang -O0", "arm64 cortex-a53, LiteRT", "ExecuTorch"):
        assert any(part in name for name in names), part


def test_cells_in_this_process(few, models):
    seen = []
    names = ("NumPy", "module", "LiteRT xnnpack", "LiteRT builtin", "native networks")
    found = verify(models, only=names, jobs=2, progress=seen.append)
    assert seen == list(found.results)
    here = [r for r in seen if not r.name.startswith("arm64") and ("tiles" not in r.name or "native" in r.name)]
    assert {r.outcome for r in here} == {"equal"}
    assert len(here) == 7 + len(_native.kernels())
    assert found.bad == 0
    assert {r.vectors for r in here} == {2 * 10}
    assert all(r.hashes["cpu"] == found.expected["cpu"] for r in here)
    json.dumps(found.to_json())


@pytest.mark.parametrize("name", ["gcc -O2, portable", "clang -O0, portable", "s390x", "neon-dot"])
def test_cells_that_compile(few, models, name):
    (result,) = verify(models, only=[name]).results
    if result.outcome == "not run":
        pytest.skip(result.note)
    assert (result.outcome, result.vectors, result.note) == ("equal", 20, "")


def test_a_wrong_decoder_is_found(few, models, monkeypatch):
    def wrong(network, inputs):
        outputs = network.run(inputs)
        return {name: x ^ np.int8(x.shape[2] == 3) for name, x in outputs.items()}

    def other(subject):
        hashes = dict(subject.expected)
        hashes["odd"] = ("0" * 64, hashes["odd"][1])
        return hashes

    def broken(_):
        raise Failed("the tool crashed")

    def absent(_):
        raise Unavailable("there is no tool")

    made = [
        Cell("wrong", matrix._by_executor(lambda model: wrong)),
        *(Cell("other", other), Cell("broken", broken), Cell("absent", absent)),
    ]
    monkeypatch.setattr(matrix, "cells", lambda *_: iter(made))
    found = verify(models)
    assert outcomes(found) == {"wrong": "differs", "other": "differs", "broken": "failed", "absent": "not run"}
    first, second, third, last = found.results
    assert (first.symbol_mismatches, first.pixel_mismatches) == (0, first.vectors)
    assert (second.symbol_mismatches, second.pixel_mismatches) == (2, 0)
    assert (third.note, last.note) == ("the tool crashed", "there is no tool")
    assert (found.ran, found.bad) == (3, 3)


def test_results_of_another_machine(few, models, monkeypatch, tmp_path):
    """This machine stands in for the emulated one: the program that runs there gives the reference's hashes."""
    monkeypatch.setattr(matrix.shutil, "which", lambda name: name)
    arm64 = tmp_path / "arm64"
    (arm64 / "cpus" / "cortex-a53").mkdir(parents=True)
    real, damage = matrix._process, []

    def process(*command, **options):
        assert command[0] == "qemu-aarch64-static"
        at = command.index(str(matrix.EMULATED))
        folder = matrix.Path(command[at + 1])
        done = real(matrix.sys.executable, "-P", *command[at:], **options)
        if damage:
            with np.load(folder / "results.npz") as arrays:
                values = {key: x.copy() for key, x in arrays.items()}
            values[max(values)].flat[0] ^= 1
            np.savez(folder / "results.npz", **values)
        return done

    monkeypatch.setattr(matrix, "_process", process)
    (result,) = verify(models, arm64=arm64, only=["arm64 cortex-a53, LiteRT builtin"]).results
    assert (result.outcome, result.vectors, result.note) == ("equal", 20, "")
    damage.append(True)
    (result,) = verify(models, arm64=arm64, only=["arm64 cortex-a53, LiteRT builtin"]).results
    assert result.outcome == "differs"
    assert 0 < result.pixel_mismatches <= 4
    assert result.symbol_mismatches == 0


def test_what_is_missing_is_said(few, models, monkeypatch, tmp_path):
    def note(name, **options):
        (result,) = verify({"cpu": models["cpu"]}, only=[name], **options).results
        assert result.outcome == "not run"
        return result.note

    which = shutil.which
    monkeypatch.setattr(matrix.shutil, "which", lambda name: None if "-" in name or "mm" in name else which(name))
    assert note("s390x") == "there is no qemu-s390x-static"
    assert note("arm64 cortex-a53, LiteRT builtin") == "there is no qemu-aarch64-static"
    monkeypatch.setattr(matrix.shutil, "which", lambda name: None if "mm" in name else name)
    assert note("arm64 cortex-a53, LiteRT builtin") == "--arm64 names no folder"
    assert "no mmdebstrap to make it" in note("arm64 cortex-a53, LiteRT builtin", arm64=tmp_path / "none")
    assert note("big tiles") == "no vector is large enough"


def test_command(few, make, tmp_path):
    model = make.small_model("strict")
    write_bundle(model, tmp_path / "bundle")

    def run(*arguments):
        return CliRunner().invoke(app, ["verify", *map(str, arguments)])

    done = run(tmp_path / "bundle", "--only", "bundle, tflite-int8, builtin", "--json", tmp_path / "all.json")
    assert done.exit_code == 0, done.output
    assert "2 of 2 cells ran, 0 differ or failed" in done.stdout
    # Each cell is told as it ends, in a file too.
    assert [line.split(" ", 1)[0] for line in done.stderr.splitlines()] == ["equal", "equal"]
    content = json.loads((tmp_path / "all.json").read_text())
    assert content["models"] == {"bundle": model.model_id}
    assert [r["outcome"] for r in content["results"]] == ["equal", "equal"]
    assert content["results"][0]["hashes"]["bundle"] == content["expected"]["bundle"]
    done = run("--only", "no such cell")
    assert (done.exit_code, done.stderr) == (2, "pocketlic: no cell has no such cell in its name\n")
    assert run(tmp_path / "nothing").exit_code == 2


def test_a_difference_is_exit_code_1(few, make, tmp_path, monkeypatch):
    write_bundle(make.small_model("cpu"), tmp_path / "bundle")

    def cell(*_):
        yield Cell("lying", lambda subject: dict.fromkeys(subject.expected, ("", "")))

    monkeypatch.setattr(matrix, "cells", cell)
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "bundle")])
    assert done.exit_code == 1
    assert "1 of 1 cells ran, 1 differ or failed" in done.stdout
