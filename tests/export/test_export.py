"""The command: from weights and a photograph to a proved bundle, and one line for each error."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from pocketlic.codec.codec import Codec
from pocketlic.export import cli
from pocketlic.export.bundle import PROOF, open_bundle, write_bundle
from pocketlic.export.errors import ExportError
from pocketlic.export.prove import Report, prove
from pocketlic.export.targets import TARGETS, Need

LAUNCHER = Path(__file__).resolve().parents[2] / "export.py"


@pytest.fixture
def pixels():
    y, x = np.mgrid[:150, :230]
    rng = np.random.default_rng(0)
    return (np.stack([x, y, x + y], 2) // 2 + rng.integers(0, 60, (150, 230, 3))).astype(np.uint8)


@pytest.mark.parametrize("tile", [None, 192])
def test_proof(make, rule, pixels, tmp_path, tile):
    bundle = write_bundle(make.small_model(rule), tmp_path / "b", tile)
    report = prove(bundle, pixels, 70)
    assert report.files_equal
    assert report.pixels_equal
    assert set(report.milliseconds) == set(bundle.files)
    data = (tmp_path / "b" / PROOF).read_bytes()
    assert report.bpp == 8 * len(data) / pixels[..., 0].size
    decoded = Codec(open_bundle(tmp_path / "b").model).decode(data)
    assert np.unique(decoded).size > 100
    assert report.psnr == pytest.approx(10 * np.log10(255**2 / np.mean((decoded - pixels.astype(float)) ** 2)))


def test_proof_of_grey(make, pixels, tmp_path):
    assert prove(write_bundle(make.small_model("cpu"), tmp_path / "b"), pixels[..., 0], 20).pixels_equal


def test_proof_sees_a_single_wrong_value(make, pixels, tmp_path, one_wrong_value):
    bundle = write_bundle(make.small_model("cpu"), tmp_path / "b")
    assert prove(bundle, pixels, 70).differing == 1


@pytest.fixture
def run(make, tmp_path, monkeypatch):
    """The command line, with random weights instead of the shipped ones."""
    monkeypatch.setattr(cli, "shipped_model", lambda rule, tune, quality: make.small_model("cpu"))
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.command()(cli.export)
    return lambda *args: CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture
def photo(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("tile", [(), ("--tile", "192")])
def test_command(run, photo, tmp_path, tile):
    result = run("--target", "tflite-int8", "--image", photo, "--out", tmp_path / "b", *tile)
    assert result.exit_code == 0, result.output
    assert "synthesis.tflite" in result.output
    assert result.output.splitlines()[-1].endswith("pixels equal: yes")
    open_bundle(tmp_path / "b")


@pytest.mark.parametrize(("files_equal", "differing"), [(True, 3), (False, 0)])
def test_a_difference_exits_with_1(run, photo, tmp_path, monkeypatch, files_equal, differing):
    monkeypatch.setattr(cli, "prove", lambda *_: Report(files_equal, differing, {}, 1.0, 30.0))
    result = run("--image", photo, "--out", tmp_path / "b")
    assert result.exit_code == 1
    assert "equal: no" in result.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--image", "nowhere.jpg", "cannot read nowhere.jpg"),
        ("--image", __file__, "not a picture"),
        ("--out", "/dev/null/x", "cannot write"),
        ("--out", ".", "not a bundle"),
        ("--tile", "128", "at least 192"),
        ("--tile", "256", "does not fill a tile of 256x256"),
    ],
)
def test_bad_input_is_one_line(run, photo, tmp_path, option, value, message):
    options = {"--image": photo, "--out": tmp_path / "b", option: value}
    result = run(*(item for pair in options.items() for item in pair))
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
    assert result.output.startswith("export: ")
    assert message in result.output
    assert not (tmp_path / "b").exists()


def test_missing_weights_and_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "SAMPLES", tmp_path)
    with pytest.raises(ExportError, match="--image"):
        cli._sample()
    monkeypatch.setattr(cli.resources, "files", lambda _: tmp_path)
    with pytest.raises(ExportError, match="no weights pocketlic-float"):
        cli._float_weights()


def test_float_without_its_package(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    monkeypatch.delitem(sys.modules, "pocketlic.export.tflite_float", raising=False)
    result = run("--target", "tflite-float")
    assert result.exit_code == 2
    assert "needs the package litert_torch" in result.output


def test_list(run):
    result = run("--list")
    assert result.exit_code == 0
    names = [line.split()[1] for line in result.output.splitlines() if line.startswith("│ ") and line[2] != " "]
    assert names == [*TARGETS, "tflite-float"]


def test_operators(run, photo, tmp_path):
    assert run("--image", photo, "--out", tmp_path / "b").exit_code == 0
    result = run("--operators", tmp_path / "b")
    assert result.exit_code == 0
    assert "DEPTHWISE_CONV_2D" in result.output
    assert "XNNPACK" in result.output
    result = run("--operators", tmp_path)
    assert (result.exit_code, result.output) == (2, f"export: {tmp_path} is not a Pocketlic bundle\n")


def test_a_target_that_cannot_run_here(run, photo, tmp_path, monkeypatch):
    phone = Need("a phone", "buy one", lambda: False)
    monkeypatch.setitem(TARGETS, "tflite-int8", replace(TARGETS["tflite-int8"], to_run=(phone,)))
    result = run("--image", photo, "--out", tmp_path / "b")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "pixels equal: not proved, running it needs a phone"


def test_launcher_in_its_own_folder():
    """There, folders with the names of subpackages are beside it."""
    done = subprocess.run([sys.executable, LAUNCHER, "--list"], cwd=LAUNCHER.parent, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tflite-int8" in done.stdout


def test_launcher_without_the_package():
    done = subprocess.run([sys.executable, "-S", LAUNCHER], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install ." in done.stderr
    assert len(done.stderr.splitlines()) == 1
