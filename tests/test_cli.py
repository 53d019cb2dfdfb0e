"""The command line: its output, and one line with exit code 2 for every mistake of a user."""

import contextlib
import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import pocketlic
from pocketlic.cli import app
from pocketlic.codec import format as plic
from pocketlic.export.bundle import FORMAT, VERSION
from pocketlic.models.errors import install_command
from pocketlic.quantization.model import NETWORKS
from pocketlic.quantization.shipped import MODELS

# PYTHONSAFEPATH: from the checkout, `python -m` would import its bare folder pocketlic, not the package.
PROCESS = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
PROCESS.pop("PYTHONUNBUFFERED", None)  # users have standard output buffered


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def run_process(*arguments, **options):
    options = {"text": True, "timeout": 300} | options
    command = [sys.executable, "-m", "pocketlic", *map(str, arguments)]
    return subprocess.run(command, env=PROCESS, capture_output=True, **options)


def refused(result, *words, program="pocketlic"):
    """Assert one line on standard error that contains the words, no standard output, exit code 2."""
    code = result.exit_code if hasattr(result, "exit_code") else result.returncode
    assert code == 2, result
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(f"{program}: ")
    assert not result.stdout
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="module")
def data(picture):
    return pocketlic.encode(picture(50, 90), 60, icc=b"", exif=b"")


@pytest.fixture
def photo(picture, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(picture(50, 90)).save(path)
    return path


@pytest.fixture
def file(data, tmp_path):
    path = tmp_path / "photo.plic"
    path.write_bytes(data)
    return path


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_encode_info_decode(photo, picture, tmp_path):
    out = tmp_path / "out.plic"
    result = run("encode", photo, out, "--quality", "72.5")
    assert result.exit_code == 0, result.output
    data = out.read_bytes()
    assert data == pocketlic.encode(picture(50, 90), 72.5)
    assert f"{len(data)} bytes" in result.stdout
    assert f"{8 * len(data) / 4500:.3f} bpp" in result.stdout

    facts = json.loads(run("info", out, "--json").stdout)
    content = plic.read(data)
    assert facts["width"] == 90
    assert facts["height"] == 50
    assert facts["components"] == 3
    assert facts["quality"] == 72.5
    assert facts["model_id"] == pocketlic.shipped_model("cpu", quality=72.5).model_id[:16]
    assert facts["bytes"] == len(data)
    assert facts["bpp"] == pytest.approx(8 * len(data) / 4500)
    assert facts["band_bytes"] == [len(band) for band in content.bands]
    plain = run("info", out).stdout
    assert all(name in plain for name in facts)

    for suffix in ("png", "ppm", "tif"):
        result = run("decode", out, tmp_path / f"out.{suffix}")
        assert (result.exit_code, result.output) == (0, "")
        with Image.open(tmp_path / f"out.{suffix}") as image:
            np.testing.assert_array_equal(np.array(image), pocketlic.decode(data))


def test_profile_runtime_and_grey(picture, tmp_path):
    Image.fromarray(picture(40, 40, grey=True)).save(tmp_path / "grey.png")
    for runtime in ("litert", "reference"):
        out = tmp_path / f"{runtime}.plic"
        assert run(
            "encode", tmp_path / "grey.png", out, "--profile", "strict", "--runtime", runtime
        ).exit_code == 0  # fmt: skip
        decoded = tmp_path / f"{runtime}.png"
        assert run("decode", out, decoded, "--runtime", runtime).exit_code == 0
    assert (tmp_path / "litert.plic").read_bytes() == (tmp_path / "reference.plic").read_bytes()
    assert (tmp_path / "litert.png").read_bytes() == (tmp_path / "reference.png").read_bytes()
    facts = json.loads(run("info", tmp_path / "litert.plic", "--json").stdout)
    assert facts["components"] == 1
    assert facts["model_id"] == pocketlic.shipped_model("strict").model_id[:16]


def test_colour_profile_and_exif_travel(picture, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(picture(40, 70)).save(tmp_path / "a.jpg", quality=95, icc_profile=b"some profile", exif=exif)
    assert run("encode", tmp_path / "a.jpg", tmp_path / "a.plic").exit_code == 0
    facts = json.loads(run("info", tmp_path / "a.plic", "--json").stdout)
    assert (facts["width"], facts["height"]) == (40, 70)
    assert facts["icc_bytes"] == len(b"some profile")
    assert facts["exif_bytes"] > 0
    assert run("decode", tmp_path / "a.plic", tmp_path / "b.png").exit_code == 0
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (40, 70)
        assert image.info["icc_profile"] == b"some profile"
        assert image.getexif()[0x010F] == "maker"
        assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("weights", MODELS, ids=lambda weights: weights.name)
def test_complexity(weights):
    choice = ("--rule", weights.rule, "--tune", weights.tune, "--quality", f"{weights.quality:g}")
    result = json.loads(run("complexity", *choice, "--json").stdout)
    assert 0 < result["decode_kmac_per_pixel"] <= 2.0
    assert 0 < result["encode_kmac_per_pixel"] <= 2.0
    assert set(NETWORKS) <= set(result["components"])
    outputs, inputs = weights.load().row_weight.shape
    assert result["components"]["rows"]["parameters"] == outputs * (inputs + 1)
    table = run("complexity", *choice).stdout
    assert "synthesis" in table
    assert f"decode {result['decode_kmac_per_pixel']:.3f} kMAC/pixel" in table


def test_a_process_of_its_own(photo, tmp_path):
    """In real processes: exit codes, streams, and a file that one process writes and another reads."""
    done = run_process("encode", "photo.png", "out.plic", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = run_process("decode", "out.plic", "out.png", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (90, 50)
    refused(run_process("decode", "photo.png", "other.png", cwd=tmp_path), "not a .plic file")
    assert names(tmp_path) == ["out.plic", "out.png", "photo.png"]
    assert "Usage" in run_process("--help", cwd=tmp_path).stdout


def flip(data):
    return data[:-40] + bytes([data[-40] ^ 8]) + data[-39:]


def of_stranger(data):
    file = plic.read(data)
    return plic.write(replace(file, header=replace(file.header, model_id=b"stranger")))


def damaged_payload(data):
    file = plic.read(data)
    return plic.write(replace(file, bands=(file.bands[0][:-2] + b"\0\0",)))


def huge(data):
    file = plic.read(data)
    header = replace(file.header, width=65535, height=65535)
    return plic.write(replace(file, header=header, bands=file.bands * 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: b"", "empty"),
        (lambda d: d[:3], "truncated"),
        (lambda d: d[:-1], "incomplete"),
        (lambda d: d[: len(d) // 2], "incomplete"),
        (flip, "damaged"),
        (lambda d: d + b"more", "damaged"),
        (lambda d: b"\x89PNG\r\n\x1a\n" + d, "not a .plic file"),
        (lambda d: d.replace(b"\r\n", b"\n", 1), "text mode"),
        (lambda d: d[:4] + b"\x03" + d[5:], "version 3 is newer"),
        (of_stranger, "needs model 737472616e676572"),
        (damaged_payload, "damaged payload"),
        (huge, "more than the limit"),
    ],
)
def test_files_that_cannot_be_decoded(data, tmp_path, change, message):
    (tmp_path / "bad.plic").write_bytes(change(data))
    refused(run("decode", tmp_path / "bad.plic", tmp_path / "out.png"), message)
    assert names(tmp_path) == ["bad.plic"]
    if message in ("needs model 737472616e676572", "damaged payload", "more than the limit"):
        assert run("info", tmp_path / "bad.plic").exit_code == 0  # info reads no symbols
    else:
        refused(run("info", tmp_path / "bad.plic"), message)


def test_inputs_that_are_not_there(photo, tmp_path):
    for command in ("decode", "encode"):
        refused(run(command, tmp_path / "none", tmp_path / "out.png"), "No such file")
        refused(run(command, tmp_path, tmp_path / "out.png"), "cannot read")
        refused(run(command, photo / "below", tmp_path / "out.png"), "Not a directory")
    refused(run("info", tmp_path / "none"), "No such file")
    assert names(tmp_path) == ["photo.png"]


def test_pictures_that_cannot_be_encoded(tmp_path, picture):
    def save(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    Image.fromarray(picture(30, 40)).save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    clear = Image.fromarray(np.zeros((4, 4, 4), np.uint8))
    clear.save(tmp_path / "clear.png")
    for path, message in (
        (save("text.png", b"hello"), "not a picture"),
        (save("empty.png", b""), "not a picture"),
        (save("cut.png", good[: len(good) // 2]), "cut.png"),
        (tmp_path / "clear.png", "transparent"),
    ):
        refused(run("encode", path, tmp_path / "out.plic"), message)
        assert not (tmp_path / "out.plic").exists()


def test_warnings_are_one_line_each(tmp_path):
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    result = run("encode", tmp_path / "deep.png", tmp_path / "out.plic")
    assert result.exit_code == 0
    assert result.stderr == (
        f"pocketlic: warning: {tmp_path / 'deep.png'}: its samples of more than 8 bits are rounded to 8\n"
    )
    assert "bpp" in result.stdout


def camera_jpeg(path, pixels):
    """With what nearly every camera writes: a directory of the shot, one of the place, a maker's note."""
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({0x9003: "2026:01:02 03:04:05", 0x829A: 0.004, 0x927C: bytes(range(200))})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 12.5)})
    Image.fromarray(pixels).save(path, "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "avif", "jp2", "bmp", "ppm"])
def test_a_photograph_through_every_suffix(picture, tmp_path, suffix):
    camera_jpeg(tmp_path / "a.jpg", picture(40, 70))
    assert run("encode", tmp_path / "a.jpg", tmp_path / "a.plic").exit_code == 0
    out = tmp_path / f"out.{suffix}"
    result = run("decode", tmp_path / "a.plic", out)
    assert result.exit_code == 0, result.output
    pixels = pocketlic.decode((tmp_path / "a.plic").read_bytes())
    with Image.open(out) as image:
        difference = np.abs(np.array(image).astype(int) - pixels)
        assert difference.max() == 0 or (suffix in ("jpg", "avif") and difference.mean() < 3)
        shot, place = image.getexif().get_ifd(0x8769), image.getexif().get_ifd(0x8825)
    if suffix in ("jp2", "bmp", "ppm"):
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"pocketlic: warning: {out}: its EXIF is left out")
    else:
        assert result.output == ""
        assert shot[0x9003] == "2026:01:02 03:04:05"
        assert place[2] == (52, 30, 12.5)


def test_outputs_that_cannot_be_written(photo, file, tmp_path):
    """Such as below a regular file. Permissions would not do: the tests may run as root."""
    before = names(tmp_path)
    for command, source in (("encode", photo), ("decode", file)):
        refused(run(command, source, file / "out.png"), "cannot write", "Not a directory")
        refused(run(command, source, tmp_path / "none" / "out.png"), "cannot write", "No such file")
        refused(run(command, source, tmp_path / ("x" * 300 + ".png")), "cannot write")
    refused(run("encode", photo, "/dev/full"), "cannot write", "No space left")
    refused(run("encode", photo, tmp_path), "cannot write", "Is a directory")
    refused(run("decode", file, tmp_path / "out.gif"), "suffixes")
    assert names(tmp_path) == before


def test_a_full_disk_leaves_the_old_file(file, tmp_path):
    """A limit of 2,000 bytes a file stands in for a full disk."""
    out = tmp_path / "out.png"
    out.write_bytes(b"what was there")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    assert len(pocketlic.decode(file.read_bytes()).tobytes()) > 9000
    refused(run_process("decode", file, out, preexec_fn=limit), "cannot write", "File too large")
    assert out.read_bytes() == b"what was there"
    assert names(tmp_path) == ["out.png", "photo.plic"]


@pytest.mark.parametrize("quality", ["-1", "100.5", "nan", "fine"])
def test_qualities_out_of_range(photo, tmp_path, quality):
    result = run("encode", photo, tmp_path / "out.plic", "--quality", quality)
    assert result.exit_code == 2
    assert result.stderr
    assert not result.stdout
    assert names(tmp_path) == ["photo.png"]


def size_of(photo, out, *options):
    result = run("encode", photo, out, *options)
    assert result.exit_code == 0, result.stderr
    assert f"{out}: {out.stat().st_size} bytes" in result.stdout
    return out.stat().st_size


@pytest.mark.parametrize("bpp", [1, 2])
def test_bits_per_pixel(photo, tmp_path, bpp):
    out = tmp_path / "out.plic"
    assert 8 * size_of(photo, out, "--bpp", bpp) / (50 * 90) == pytest.approx(bpp, rel=0.01)
    assert 8 * size_of(photo, out, "--bpp", bpp, "--effort", 1, "--tune", "psnr") / (50 * 90) == pytest.approx(
        bpp, rel=0.01
    )


@pytest.mark.parametrize("most", [600, 1001])
def test_greatest_sizes(photo, tmp_path, most):
    out = tmp_path / "out.plic"
    assert 0.99 * most <= size_of(photo, out, "--max-bytes", most) <= most
    assert 0.99 * most <= size_of(photo, out, "--max-bytes", most, "--effort", 1, "--tune", "psnr") <= most
    run("decode", out, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (90, 50)
    assert size_of(photo, out, "--max-bytes", 10**7) == size_of(photo, tmp_path / "best.plic", "--quality", 100)


def test_sizes_count_the_metadata(picture, tmp_path):
    Image.fromarray(picture(50, 90)).save(tmp_path / "a.png", icc_profile=b"x" * 300)
    assert 990 <= size_of(tmp_path / "a.png", tmp_path / "out.plic", "--max-bytes", 1000) <= 1000
    refused(run("encode", tmp_path / "a.png", tmp_path / "no.plic", "--max-bytes", 301), "at most 301 bytes")
    assert names(tmp_path) == ["a.png", "out.plic"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bpp", 0.001], "no quality gives 0.001 bits per pixel: quality 0 gives"),
        (["--bpp", 50], "quality 100 gives"),
        (["--bpp", "nan"], "no size"),
        (["--bpp", -1], "no size"),
        (["--max-bytes", 40], "at most 40 bytes: quality 0 takes"),
        (["--max-bytes", 0], "at most 0 bytes"),
        (["--max-bytes", 40, "--effort", 1], "at most 40 bytes: quality 0 takes"),
        (["--bpp", 1, "--max-bytes", 900], "choose one"),
        (["--quality", 60, "--bpp", 1], "choose one"),
    ],
)
def test_sizes_that_cannot_be_had(photo, tmp_path, options, message):
    (tmp_path / "out.plic").write_bytes(b"what was there")
    refused(run("encode", photo, tmp_path / "out.plic", *options), message)
    assert (tmp_path / "out.plic").read_bytes() == b"what was there"
    assert names(tmp_path) == ["out.plic", "photo.png"]


@pytest.mark.parametrize("effort", ["-1", "10", "2.5"])
def test_efforts_out_of_range(photo, tmp_path, effort):
    result = run("encode", photo, tmp_path / "out.plic", "--effort", effort)
    assert result.exit_code == 2
    assert "--effort" in result.stderr
    assert names(tmp_path) == ["photo.png"]


def test_effort_makes_files_that_decode_alike(photo, tmp_path):
    pytest.importorskip("torch")
    plain = tmp_path / "plain.plic"
    # A quality at which two iterations gain something in so small a picture.
    quality = ("--quality", 90)
    squared = size_of(photo, tmp_path / "psnr.plic", *quality, "--tune", "psnr")
    visual = size_of(photo, plain, *quality)
    for effort in (1, 3):
        for tune in ("psnr", "visual"):
            out = tmp_path / f"{tune}-{effort}.plic"
            size = size_of(photo, out, *quality, "--effort", effort, "--tune", tune)
            assert 0 < size < squared if tune == "psnr" else size != visual
            decoded = [tmp_path / f"{runtime}.png" for runtime in ("litert", "native", "reference")]
            for picture in decoded:
                assert run("decode", out, picture, "--runtime", picture.stem).exit_code == 0
            assert len({picture.read_bytes() for picture in decoded}) == 1
    assert size_of(photo, tmp_path / "0.plic", *quality, "--effort", 0) == visual
    assert (tmp_path / "0.plic").read_bytes() == plain.read_bytes()


def test_effort_without_torch(photo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "pocketlic.codec.refine", raising=False)
    for options in (["--effort", 1], ["--effort", 3, "--tune", "psnr"]):
        refused(run("encode", photo, tmp_path / "out.plic", *options), "torch", install_command("train"))
        assert names(tmp_path) == ["photo.png"]
    assert size_of(photo, tmp_path / "out.plic", "--effort", 2, "--tune", "psnr") > 0


def test_max_pixels(file, tmp_path):
    refused(run("decode", file, tmp_path / "out.png", "--max-pixels", 4499), "limit of 4499")
    assert run("decode", file, tmp_path / "out.png", "--max-pixels", 4500).exit_code == 0


def training(*arguments):
    return run(*arguments, "--steps", 1, "--batch", 1, "--crop", 64, "--threads", 1)


def refused_when_training(result, *words):
    """As `refused`, but progress on standard output is allowed."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("pocketlic: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_training_without_photographs(photo_folder, photo, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "run"
    for name, message in (("empty", "no pictures in"), ("none", "no such folder")):
        refused_when_training(training("train", "--data", tmp_path / name, "--out", out), message, name)
    result = training("train", "--data", photo_folder, "--out", out, "--kodak", tmp_path / "none")
    refused_when_training(result, "no such folder", "none")
    result = run("train", "--data", photo_folder, "--out", out, "--crop", 1024)
    refused_when_training(result, "at least 1024 pixels")
    (tmp_path / "empty" / "bad.png").write_bytes(b"no picture")
    refused_when_training(training("train", "--data", tmp_path / "empty", "--out", out), "bad.png")
    refused_when_training(training("train", "--data", photo_folder, "--out", photo / "run"), "photo.png")
    assert not out.exists()


def test_training_options_that_make_no_sense(photo_folder, tmp_path):
    for option in (("--crop", 100), ("--crop", 0), ("--steps", 0), ("--batch", 0), ("--decay", 1.5)):
        result = run("train", "--data", photo_folder, "--out", tmp_path / "run", *option)
        assert result.exit_code == 2, option
        assert option[0] in result.stderr
    assert names(tmp_path) == []


def test_qat_of_what_are_no_weights(photo_folder, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    for weights, message in (
        (tmp_path / "bad.pt", "does not hold the weights"),
        (tmp_path / "no.pt", "no.pt"),
    ):
        result = training("qat", "--weights", weights, "--data", photo_folder, "--out", tmp_path / "run")
        refused_when_training(result, message)


@pytest.mark.parametrize("qualities", [(40, 40), (50, 20), (90, 101), (-1, 50)])
def test_qat_for_qualities_that_are_no_range(photo_folder, tmp_path, qualities):
    pytest.importorskip("torch")
    options = ("--data", photo_folder, "--out", tmp_path / "run", "--qualities", *qualities)
    refused_when_training(training("qat", "--weights", tmp_path / "float.pt", *options), "two from 0 to 100")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [n for n in sys.modules if n.startswith(("pocketlic.models", "pocketlic.quantization.qat"))]:
        monkeypatch.delitem(sys.modules, name)
    refused(training("train", "--data", tmp_path, "--out", tmp_path), install_command("train"))


def begun(*arguments, **options):
    """A process of the program that has come as far as its own first lines: it handles signals."""
    command = [sys.executable, "-m", "pocketlic", *map(str, arguments)]
    process = subprocess.Popen(
        command, env=PROCESS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )  # fmt: skip
    caught = 0
    while not caught >> (signal.SIGHUP - 1) & 1 and process.poll() is None:
        time.sleep(0.001)
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")), 0)
    return process


def alive(group):
    """The processes of a group, those left out that have ended and that nobody waits for."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stats.append(path.read_text().rpartition(")")[2].split())
    return [stat for stat in stats if int(stat[2]) == group and stat[0] != "Z"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_it_ends_at_any_moment(file, tmp_path, number):
    """In one line, from the first moment on; the output is the old file or the whole new one."""
    out = tmp_path / "out" / "photo.png"
    out.parent.mkdir()
    began = time.monotonic()
    assert begun("decode", file, out).wait() == 0
    seconds, new = time.monotonic() - began, out.read_bytes()
    codes = set()
    for i in range(7):
        out.write_bytes(b"what was there")
        process = begun("decode", file, out)
        time.sleep(seconds * i / 6)
        process.send_signal(number)
        _, stderr = process.communicate()
        codes.add(process.returncode)
        assert out.read_bytes() in (b"what was there", new)
        if number == signal.SIGKILL:
            assert process.returncode in (0, -number)
            continue
        assert names(out.parent) == ["photo.png"]
        word = "interrupted" if number == signal.SIGINT else "terminated"
        allowed = [(128 + number, f"pocketlic: {word}\n")]
        if out.read_bytes() == new:
            allowed += [(0, ""), (-number, "")]  # the interpreter, when it ends, gives the signals back
        assert (process.returncode, stderr) in allowed
    assert codes != {0}


def test_ctrl_c_ends_all_jobs(picture, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(40):
        Image.fromarray(picture(256, 256, i)).save(tmp_path / "in" / f"{i}.png")
    process = begun(
        "encode", tmp_path / "in", "--out-dir", tmp_path / "out", "--jobs", 2, "--runtime", "reference",
        start_new_session=True,
    )  # fmt: skip
    assert " bytes, " in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "pocketlic: interrupted\n")
    assert 0 < len(names(tmp_path / "out")) < 40
    assert not list((tmp_path / "out").glob(".*"))
    end = time.monotonic() + 60
    while alive(process.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert alive(process.pid) == []


@pytest.fixture
def folder(picture, tmp_path):
    """Pictures, one of them damaged, in two folders, beside what is no picture or hidden."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    for i, name in enumerate(("a.png", "B.JPG", "below/a.tif", "._a.png", ".hidden/c.png")):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(40, 50, i)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("no picture either")
    return tmp_path / "in"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_folder_at_once(folder, tmp_path, jobs):
    done = run_process("encode", folder, "--out-dir", tmp_path / "out", "--jobs", jobs)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"cannot read {folder / 'broken.png'}" in done.stderr
    *lines, summary = done.stdout.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(
        str(tmp_path / "out" / name) for name in ("B.plic", "a.plic", "below/a.plic")
    )
    assert summary.startswith("encoded 3 of 4 files: ")
    for name, source in (("a", "a.png"), ("B", "B.JPG"), ("below/a", "below/a.tif")):
        alone = tmp_path / "alone.plic"
        assert run("encode", folder / source, alone).exit_code == 0
        assert (tmp_path / "out" / f"{name}.plic").read_bytes() == alone.read_bytes()
    done = run("decode", tmp_path / "out", "--out-dir", tmp_path / "back", "--jobs", jobs, "--format", "ppm")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("decoded 3 of 3 files: ")
    assert names(tmp_path / "back") == ["B.ppm", "a.ppm", "below"]


def test_several_files_by_name(folder, tmp_path):
    out = tmp_path / "out"
    result = run("encode", folder / "a.png", folder / "B.JPG", "--out-dir", out)
    assert (result.exit_code, names(out)) == (0, ["B.plic", "a.plic"])
    result = run("info", out / "a.plic", out / "none", out / "B.plic", "--json")
    assert result.exit_code == 2
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [
        str(out / "a.plic"),
        str(out / "B.plic"),
    ]
    assert result.stderr.count("\n") == 1
    assert "No such file" in result.stderr
    # Two that would become one file: the first does, the other is told.
    result = run("encode", folder / "a.png", folder / "below" / "a.tif", "--out-dir", out)
    assert result.exit_code == 2
    assert "a.tif" in result.stderr
    assert "becomes" in result.stderr


def test_names_that_do_not_go_together(folder, tmp_path):
    before = names(tmp_path)
    refused(run("encode", folder / "a.png"), "--out-dir")
    refused(run("encode", folder / "a.png", folder / "B.JPG", tmp_path / "out.plic"), "--out-dir")
    refused(run("encode", folder, tmp_path / "out.plic"), "folder", "--out-dir")
    refused(run("encode", "-", "--out-dir", tmp_path / "out"), "standard input has no name")
    refused(run("decode", folder, "--out-dir", tmp_path / "out"), "has no files .plic")
    refused(run("encode", folder / "a.png", folder / "a.png" / "x.plic"), "Not a directory")
    assert names(tmp_path) == before


def test_an_output_is_no_input(photo, file, tmp_path):
    """By identity: the name itself, another spelling, a symbolic link, a hard link."""
    for command, path in (("encode", photo), ("decode", file)):
        path = path.rename(tmp_path / "own")
        content = path.read_bytes()
        (tmp_path / "soft").symlink_to(path)
        (tmp_path / "hard").hardlink_to(path)
        for out in (path, f"{tmp_path}/../{tmp_path.name}/own", tmp_path / "soft", tmp_path / "hard"):
            refused(run(command, path, out), "one of the inputs")
        assert path.read_bytes() == content
        for name in ("own", "soft", "hard"):
            (tmp_path / name).unlink()


def test_an_output_in_a_batch_is_no_input(picture, tmp_path):
    """A picture that is named like the result of another one."""
    Image.fromarray(picture(40, 50)).save(tmp_path / "a.png")
    Image.fromarray(picture(40, 50)).save(tmp_path / "a.plic", "PNG")
    before = (tmp_path / "a.plic").read_bytes()
    result = run("encode", tmp_path / "a.png", tmp_path / "a.plic", "--out-dir", tmp_path)
    assert result.exit_code == 2
    assert "one of the inputs" in result.stderr
    assert (tmp_path / "a.plic").read_bytes() == before


def test_outputs_named_like_the_other_kind(photo, file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"a photograph")
    pictures = "png jpg jpeg JPG tif tiff webp avif heic heif jxl jp2 gif bmp tga ppm pgm pnm pbm dng cr2 ico psd"
    for suffix in pictures.split():
        old = other.rename(tmp_path / f"other.{suffix}")
        refused(run("encode", photo, old), "a picture's name")
        assert old.read_bytes() == b"a photograph"
        old.rename(other)
    for suffix in ("plic", "PLIC"):
        refused(run("decode", file, tmp_path / f"a.{suffix}"), "an encoded file's name")
    for name in ("a.plic", "plic", "jpg", "a.jpg.plic", "a.bin"):
        assert run("encode", photo, tmp_path / name).exit_code == 0


def test_owner_mode_and_links_stay(photo, tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "photo.plic", tmp_path / "link.plic"
    link.symlink_to("far/photo.plic")
    assert run("encode", photo, link).exit_code == 0  # to a file that is not there yet
    for mode in (0o600, 0o640, 0o666, 0o755):
        target.write_bytes(b"old")
        target.chmod(mode)
        if os.geteuid() == 0:
            os.chown(target, 1234, 5678)
        before = target.stat()
        assert run("encode", photo, link).exit_code == 0
        after = target.stat()
        assert (after.st_mode & 0o7777, plic.read(target.read_bytes()).header.width) == (mode, 90)
        assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert link.is_symlink()
    loop = tmp_path / "loop.plic"
    loop.symlink_to("loop.plic")
    refused(run("encode", photo, loop), "cannot write")
    assert loop.is_symlink()


def test_special_files_are_written_to_and_stay(photo, file, tmp_path):
    wanted = pocketlic.encode(np.asarray(Image.open(photo)))
    for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        done = run_process("encode", photo, name, text=False)
        assert (done.returncode, done.stdout) == (0, wanted), name
        assert done.stderr.startswith(f"{name}: ".encode())  # the size, which must not stand in the file
    with (tmp_path / "redirected").open("wb") as to, photo.open("rb") as source:
        command = [sys.executable, "-m", "pocketlic", "encode", "-", "-"]
        done = subprocess.run(command, env=PROCESS, stdin=source, stdout=to, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, (tmp_path / "redirected").read_bytes()) == (0, wanted)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pipe.read_bytes)
        time.sleep(0.2)
        assert run("encode", photo, pipe).exit_code == 0
        assert reading.result() == wanted
    assert run("encode", photo, "/dev/null").exit_code == 0
    assert Path("/dev/null").is_char_device()
    refused(run("decode", file, "/dev/full", "--format", "png"), "No space left")
    done = run_process("decode", file, "-", text=False)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(done.stdout))), pocketlic.decode(file.read_bytes()))
    done = run_process("decode", file, "-", "--format", "ppm", text=False)
    assert done.stdout.startswith(b"P6\n90 50\n255\n")


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["-h"], ["encode", "-h"], ["info", "FILE"], ["info", "FILE", "--json"], ["complexity"],
     ["export", "--list"], ["decode", "FILE", "-"]],
)  # fmt: skip
def test_a_full_standard_output(file, arguments):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pocketlic", *(str(file) if a == "FILE" else a for a in arguments)],
            env=PROCESS, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "No space left" in done.stderr


def test_a_reader_that_has_seen_enough(file):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pocketlic", "info", str(file)], env=PROCESS, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("arguments", "closed", "message"),
    [
        (["info", "-"], "<&-", "cannot read -: Bad file descriptor"),
        (["encode", "-", "OUT"], "<&-", "cannot read -: Bad file descriptor"),
        (["decode", "FILE", "-"], ">&-", "cannot write -: Bad file descriptor"),
        (["info", "FILE"], ">&-", "Bad file descriptor"),
        (["encode", "PHOTO", "OUT"], ">&-", "Bad file descriptor"),
        (["--version"], ">&-", "Bad file descriptor"),
        (["decode", "FILE", "OUT.png"], "<&- >&-", ""),
        (["decode", "FILE", "OUT.png"], "2>&-", ""),
        (["decode", "FILE.none", "OUT.png"], "<&- >&- 2>&-", None),
    ],
)  # fmt: skip
def test_closed_standard_streams(photo, file, tmp_path, arguments, closed, message):
    """What needs one that is closed fails in one line; no file of the user takes its place."""
    places = {"PHOTO": photo, "FILE": file, "OUT": tmp_path / "out"}
    paths = [next((a.replace(k, str(p)) for k, p in places.items() if a.startswith(k)), a) for a in arguments]
    command = shlex.join([sys.executable, "-m", "pocketlic", *paths])
    done = subprocess.run(["bash", "-c", f"{command} {closed}"], env=PROCESS, capture_output=True, text=True)
    lines = f"pocketlic: {message}\n" if message else ""
    assert (done.returncode, done.stderr) == (0 if message == "" else 2, lines)
    if message == "":
        with Image.open(tmp_path / "out.png") as image:
            np.testing.assert_array_equal(np.asarray(image), pocketlic.decode(file.read_bytes()))


@pytest.mark.parametrize("suffix", ["", ".", "../x", "a/b", "plic", "exe", "p\nng"])
def test_formats_that_are_none(file, tmp_path, suffix):
    for target in (["--out-dir", tmp_path / "out"], [tmp_path / "out.png"]):
        refused(run("decode", file, *target, "--format", suffix), "choose one of the suffixes")
    refused(run("decode", tmp_path, "--out-dir", tmp_path / "out", "--format", suffix), "choose one of the suffixes")
    assert names(tmp_path) == ["photo.plic"]


def test_folders_named_like_pictures(tmp_path):
    (tmp_path / "in" / "a.png").mkdir(parents=True)
    refused(run("encode", tmp_path / "in", "--out-dir", tmp_path / "out"), "has no files")
    refused(run("train", "--data", tmp_path / "in", "--out", tmp_path / "out"), "no pictures in")


def test_results_into_what_is_no_folder(photo, tmp_path):
    before = photo.read_bytes()
    for place in (photo, "/dev/null"):
        refused(run("encode", photo, photo, "--out-dir", place), "cannot write into", "no folder")
    assert photo.read_bytes() == before
    assert names(tmp_path) == ["photo.png"]


def test_a_page_is_no_input(photo, file, tmp_path):
    (tmp_path / "hard.html").hardlink_to(photo)
    (tmp_path / "soft.html").symlink_to(file)
    before = photo.read_bytes(), file.read_bytes()
    for page in (photo, file, tmp_path / "hard.html", tmp_path / "soft.html"):
        refused(run("compare", photo, file, "--html", page), "one of the inputs")
        refused(run("profile", "compare", photo, file, "--html", page), "one of the inputs", program="profile")
    assert (photo.read_bytes(), file.read_bytes()) == before


def test_results_are_not_laid_among_the_pictures(photo, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link", tmp_path / "link" / ".." / tmp_path.name):
        refused(run("evaluate", tmp_path, "--out", out), "cannot write into", "another folder")
    assert names(tmp_path) == ["link", "photo.png"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (option, value)
        for option in ("threads", "muon-lr", "adam-lr", "decay", "seed", "save-minutes", "steps", "batch", "crop")
        for value in ("-1", "nan", "-inf", "1" + 30 * "0" if option != "save-minutes" else "-1e30")
    ],
)
def test_numbers_for_training_that_are_none(tmp_path, option, value):
    for command in (["train"], ["qat", "--weights", tmp_path / "none"]):
        result = run(*command, "--data", tmp_path / "none", "--out", tmp_path / "out", f"--{option}", value)
        assert result.exit_code == 2
        assert f"--{option}" in re.sub(r"\x1b\[[\d;]*m", "", result.stderr)
    assert names(tmp_path) == []


def test_names_that_are_no_text(photo, tmp_path):
    """Bytes that are no UTF-8, and what would move a terminal's cursor, are printed escaped."""
    for name, shown in ((b"a\xff.plic", "a\\xff.plic"), (b"b\x1b[2J\n.plic", "b\\x1b[2J\\n.plic")):
        out = os.fsencode(tmp_path) + b"/" + name
        done = run_process("encode", photo, os.fsdecode(out))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{tmp_path}/{shown}: ")
        assert done.stdout.count("\n") == 1
        assert shown in json.loads(run_process("info", os.fsdecode(out), "--json").stdout)["file"]
        done = run_process("decode", os.fsdecode(out), os.fsdecode(out) + ".nothing")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        Path(os.fsdecode(out)).write_bytes(b"damaged")
        refused(run_process("info", os.fsdecode(out)), "not a .plic file")


def test_version_and_help():
    for name in ("--version", "-v"):
        assert run(name).stdout == f"pocketlic {version('pocketlic')}\n"
    for arguments in (["-h"], ["encode", "-h"], ["profile", "-h"], ["profile", "compare", "-h"]):
        assert "Usage" in run(*arguments).stdout
    assert run_process("--version").stdout == run_process("-v").stdout == run("-v").stdout
    options = {name for parameter in get_command(app).params for name in parameter.opts}
    assert {"--install-completion", "--show-completion"} <= options


def commands(command):
    yield command
    for name in getattr(command, "list_commands", lambda _: [])(None):
        yield from commands(command.get_command(None, name))


def test_everything_has_a_help_text():
    lacking = [
        f"{command.name} {parameter.name}"
        for command in commands(get_command(app))
        for parameter in command.params
        if not parameter.help
    ]
    assert lacking == []
    assert all(command.help for command in commands(get_command(app)))


def test_stripped_metadata(picture, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x010F] = "x" * 3000
    exif[0x0112] = 6
    Image.fromarray(picture(40, 70)).save(tmp_path / "a.jpg", exif=exif)
    assert run("encode", tmp_path / "a.jpg", tmp_path / "a.plic").exit_code == 0
    assert run("encode", tmp_path / "a.jpg", tmp_path / "b.plic", "--strip").exit_code == 0
    kept, stripped = (plic.read((tmp_path / name).read_bytes()) for name in ("a.plic", "b.plic"))
    assert len(kept.exif) > 3000
    assert stripped.exif == b""
    assert (stripped.header, stripped.bands) == (kept.header, kept.bands)  # upright too
    told = f"{len(kept.exif)} bytes of it for ICC profile and EXIF"
    for size in (("--max-bytes", 2000), ("--bpp", 1)):
        refused(run("encode", tmp_path / "a.jpg", tmp_path / "c.plic", *size), told)
        assert run("encode", tmp_path / "a.jpg", tmp_path / "c.plic", *size, "--strip").exit_code == 0


def test_limits_can_be_raised(picture, tmp_path, monkeypatch):
    Image.fromarray(picture(40, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own, which is told by no option
    refused(run("encode", tmp_path / "a.png", tmp_path / "a.plic", "--max-pixels", 1999), "limit of 1999")
    assert run("encode", tmp_path / "a.png", tmp_path / "a.plic", "--max-pixels", 2000).exit_code == 0
    refused(run("decode", tmp_path / "a.plic", tmp_path / "b.png", "--max-pixels", 1999), "limit of 1999")
    assert run("decode", tmp_path / "a.plic", tmp_path / "b.png", "--max-pixels", 2000).exit_code == 0


HOSTILE = {
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "NUL": b'{"format": "pocketlic\\u0000"}',
    "NULs": bytes(1000),
    "half a character": b'{"format": "\\ud800"}',
    "half a key": b'{"\\udfff": 1}',
    "no UTF-8": b'{"format": "\xff"}',
    "a number": b"1e999",
    "null": b"null",
    "nothing": b"",
    "a list": b"[]",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_json(tmp_path, content):
    """One line, wherever a command reads JSON: manifests, profiles, heads of models."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_bytes(content)
    (tmp_path / "profile.json").write_bytes(content)
    (tmp_path / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    bundle, report, model = tmp_path / "bundle", tmp_path / "profile.json", tmp_path / "model.safetensors"
    for arguments in (
        ["verify", bundle],
        ["export", "--operators", bundle],
        ["export", "--out", bundle],
        ["profile", "--bundle", bundle],
        ["profile", "compare", report, report],
        ["evaluate", tmp_path, "--out", tmp_path / "out", "--model", model],
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), (arguments, result.output)


@pytest.mark.parametrize("name", ["a\\u0000b", "\\ud800", "../a", "", "/", "a\\nb", 3])
@pytest.mark.parametrize("entry", ['{"bytes": 1, "sha256": ""}', "null", "[]", "3", '{"sha256": 1}'])
def test_hostile_manifests(tmp_path, name, entry):
    key = f'"{name}"'
    (tmp_path / "manifest.json").write_text(
        f'{{"format": "{FORMAT}", "version": {VERSION}, "target": ["x"], "tile": 1e400, "files": {{{key}: {entry}}}}}'
    )
    result = run("verify", tmp_path)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output


def test_a_quality_that_is_no_number(photo, tmp_path):
    for command in (["complexity"], ["encode", photo, tmp_path / "a.plic"]):
        result = run(*command, "--quality", "nan")
        assert result.exit_code == 2
        assert "nan" in result.stderr
