"""Packages that are missing are named before anything is measured, each by the command that needs it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from PIL import Image

from pocketlic.export.bundle import write_bundle

MODULES = {
    "bjontegaard": "bjontegaard", "jinja2": "jinja2", "jsonschema": "jsonschema", "matplotlib": "matplotlib",
    "pillow-heif": "pillow_heif", "pillow-jxl-plugin": "pillow_jxl", "psnr-hvsm": "psnr_hvsm",
    "pytorch-msssim": "pytorch_msssim", "scipy": "scipy", "vmaf-torch": "vmaf_torch", "av": "av",
    "perfetto": "perfetto", "torch": "torch",
}  # fmt: skip
"""What the extra `profile` adds to the installation, and the module of each."""

NEEDS = {
    "profile": {"jinja2", "jsonschema", "matplotlib"},
    "evaluate": {"av", "bjontegaard", "pillow-heif", "pillow-jxl-plugin", "psnr-hvsm", "pytorch-msssim", "scipy",
                 "vmaf-torch"},
    "codecs": {"pillow-heif"},
    "compare": {"jinja2"},
}  # fmt: skip
"""Each package once, with a command that needs it. Perfetto's is only for some phones; torch comes with others."""


HIDE = """
import importlib.metadata, sys
from importlib.machinery import PathFinder

module, package = sys.argv[1:3]

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] == module else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
version = importlib.metadata.version

def hidden(name):
    if name == package:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

importlib.metadata.version = hidden
sys.argv = ["pocketlic", *sys.argv[3:]]
from pocketlic.cli import app
app()
"""


def test_the_table_has_every_package_of_the_extra() -> None:
    lines = [line.replace('"', "'") for line in requires("pocketlic") or ()]
    names = {re.split(r"[<>=;\[ ]", line)[0] for line in lines if "extra == 'profile'" in line}
    # A newer Pillow, and another extra of this package.
    assert names - {"pillow", "pocketlic"} == set(MODULES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make, picture) -> Path:
    folder = tmp_path_factory.mktemp("extras")
    write_bundle(make.small_model("cpu"), folder / "bundle")
    (folder / "images").mkdir()
    Image.fromarray(picture(64, 64)).save(folder / "images" / "one.png")
    return folder


@pytest.mark.parametrize(("command", "package"), [(c, p) for c, packages in NEEDS.items() for p in sorted(packages)])
def test_a_missing_package_is_one_line_before_measuring(command: str, package: str, folder: Path, tmp_path: Path):
    picture = folder / "images" / "one.png"
    arguments = {
        "profile": ["profile", "--bundle", folder / "bundle", "--images", folder / "images", "--runs", "1"],
        "evaluate": ["evaluate", folder / "images", "--codecs", "all", "--metrics", "all", "--out", tmp_path / "out"],
        "codecs": ["profile", "codecs", folder / "images", "--runs", "1"],
        "compare": ["compare", picture, picture, "--html", tmp_path / "out"],
    }[command]
    done = subprocess.run(
        [sys.executable, "-P", "-c", HIDE, MODULES[package], package, *map(str, arguments)], capture_output=True,
        text=True, check=False, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert package.replace("-", "_") in line.replace("-", "_")
    assert "pip install" in line
    assert list(tmp_path.iterdir()) == []
