"""A short run of the fuzzers; `run.py` makes long ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("run", Path(__file__).with_name("run.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fuzzers(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    run.prepare(folder)
    try:
        return folder, run.commands(folder)
    except run.Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", ["core-files", "core-models", "entry-files", "entry-models"])
def test_nothing_is_found(run, fuzzers, name):
    folder, commands = fuzzers
    if name not in commands:
        pytest.skip("the package atheris is not installed")
    executed, finding = run.fuzz(commands[name], folder, name, 10_000, 8, 1)
    assert not finding
    assert executed > 50
