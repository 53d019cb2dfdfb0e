"""Imports run one way: between the folders, and between the modules of those that decode."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("models", "quantization", "codec", "export", "profiling")  # each may import those before it
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if "native" not in path.parts  # scripts, which are no part of the package
}


def imports(module: str) -> Iterator[str]:
    """Modules of the package that a module imports, also those within its functions."""
    path = MODULES[module]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            package = [] if node.level == 0 else list(path.relative_to(ROOT).parts[: -node.level])
            named = ".".join([*package, *(node.module or "").split(".")]).strip(".").removeprefix("pocketlic.")
            found = [each for each in (f"{named}.{alias.name}" for alias in node.names) if each in MODULES]
            yield from found or ([named] if named in MODULES else [])


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_those_before_them(folder: str) -> None:
    later = FOLDERS[FOLDERS.index(folder) + 1 :]
    edges = [(a, b) for a in MODULES if a.split(".")[0] == folder for b in imports(a)]
    assert edges  # the test is not empty
    assert [edge for edge in edges if edge[1].split(".")[0] in later] == []


def test_no_circle_of_modules_up_to_the_codec() -> None:
    graph = {a: {b for b in imports(a) if b != a} for a in MODULES if a.split(".")[0] in FOLDERS[:3]}
    assert graph["codec.effort"] >= {"codec.codec", "codec.lagrangian", "codec.refine"}  # the test sees imports
    tuple(TopologicalSorter(graph).static_order())  # CycleError names the circle
