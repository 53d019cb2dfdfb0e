"""The native encoder, which the app uses, writes the same files as the reference encoder."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

import pocketlic
from pocketlic.codec.codec import Codec
from pocketlic.codec.native import COMPILE, TOOL
from pocketlic.export.litert import LiteRTExecutor

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="the native core needs c++")


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    """The command-line tool with checks of memory and arithmetic; it returns (exit code, standard error)."""
    path = tmp_path_factory.mktemp("tool") / "plic"
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["c++", "-std=c++17", "-O1", *sanitizers, *COMPILE, *TOOL, "-o", str(path)], check=True)

    def run(*arguments):
        done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True)
        return done.returncode, done.stderr

    return run


@pytest.mark.parametrize(
    ("height", "width", "grey", "quality"),
    [(1, 1, True, 100), (64, 64, False, 0), (67, 131, False, 33.33), (65, 1100, True, 50), (1100, 40, False, 90)],
)
def test_random_models(make, picture, tool, tmp_path, profile, height, width, grey, quality):
    """Several strips of rows, several bands, padding on all sides, and a random model, which shows any error."""
    model = make.small_model(profile, height)
    pixels = picture(height, width, grey=grey)
    Image.fromarray(pixels).save(tmp_path / "picture.ppm")
    (tmp_path / "model").write_bytes(model.to_bytes())
    assert tool("encode", tmp_path / "model", tmp_path / "picture.ppm", quality, tmp_path / "made.plic") == (0, "")
    assert (tmp_path / "made.plic").read_bytes() == Codec(model).encode(pixels, quality)


def test_shipped_models(picture, tool, tmp_path, profile):
    model = pocketlic.shipped_model(profile)
    codec = Codec(model, LiteRTExecutor.from_model(model))
    pixels = picture(600, 1050, 3)
    Image.fromarray(pixels).save(tmp_path / "picture.ppm")
    (tmp_path / "model").write_bytes(model.to_bytes())
    for quality in (5, 60, 97.5):
        assert tool("encode", tmp_path / "model", tmp_path / "picture.ppm", quality, tmp_path / "made.plic") == (0, "")
        assert (tmp_path / "made.plic").read_bytes() == codec.encode(pixels, quality)


def test_a_limit_on_memory_and_bad_arguments(make, tool, tmp_path):
    """A tall picture within 3.5 bytes a pixel and 4 MB; an eighth of that is refused in one line."""
    pixels = np.zeros((6000, 300, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.ppm")
    (tmp_path / "model").write_bytes(make.small_model("cpu").to_bytes())
    (tmp_path / "cut.ppm").write_bytes((tmp_path / "picture.ppm").read_bytes()[:-1])
    allowed = 7 * 6000 * 300 // 2 + (4 << 20)

    def encode(name, quality, memory):
        return tool("--max-memory", memory, "encode", tmp_path / "model", tmp_path / name, quality, tmp_path / "out")

    assert encode("picture.ppm", 50, allowed) == (0, "")
    (tmp_path / "out").unlink()
    for arguments, message in (
        (("picture.ppm", 50, allowed // 8), "memory"),
        (("picture.ppm", 101, allowed), "quality are out of range"),
        (("cut.ppm", 50, allowed), "cut off"),
        (("model", 50, allowed), "not a PPM"),
    ):
        code, text = encode(*arguments)
        assert (code, text.count("\n")) == (2, 1)
        assert message in text
        assert not (tmp_path / "out").exists()
