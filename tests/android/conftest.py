"""The app, built as far as the tools of this machine allow: see android_demo/ci/build.py."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CI = ROOT / "android_demo" / "ci"
TOOLS = Path(os.environ.get("POCKETLIC_ANDROID_TOOLS", ROOT / "build" / "android-tools"))


@pytest.fixture(scope="session")
def ci():
    """The module android_demo/ci/build.py."""
    spec = importlib.util.spec_from_file_location("android_build", CI / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build(ci):
    """The steps of the build. Results are kept in build/android and remade when their sources change."""
    if names := ci.absent(TOOLS):
        pytest.skip(f"building the app needs {', '.join(names)}; see android_demo/ci/build.py")
    return ci.Build(TOOLS, ROOT / "build" / "android")
