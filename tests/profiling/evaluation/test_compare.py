"""The command that compares files with the picture they were made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import pocketlic
from pocketlic.cli import app
from pocketlic.profiling.evaluation.compare import MOST_SHOWN, compare, page, table
from pocketlic.profiling.evaluation.metrics import rgb_psnr


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path, picture) -> Path:
    Image.fromarray(picture(64, 96)).save(tmp_path / "a.png")
    Image.fromarray(picture(64, 96)).save(tmp_path / "a.jpg", quality=20)
    (tmp_path / "a.plic").write_bytes(pocketlic.encode(picture(64, 96), quality=80))
    return tmp_path


def test_figures_are_those_of_the_files(folder: Path, picture) -> None:
    files = [folder / "a.plic", folder / "a.jpg", folder / "a.png"]
    pair = compare(folder / "a.png", files, ["rgb_psnr", "fsim"], pocketlic.decode)
    decoded = pocketlic.decode((folder / "a.plic").read_bytes())
    assert [one.name for one in pair.files] == ["a.plic", "a.jpg", "a.png"]
    assert [one.bytes for one in pair.files] == [path.stat().st_size for path in files]
    assert pair.files[0].bpp == 8 * pair.files[0].bytes / (64 * 96)
    assert pair.metrics[0]["rgb_psnr"] == rgb_psnr(picture(64, 96), decoded)
    assert pair.metrics[2] == {"rgb_psnr": 100, "fsim": 1}
    rows = table(pair).rows
    assert rows[0][:1] == ["a.png"]
    assert rows[1][3] == f"{pair.metrics[0]['rgb_psnr']:.3f}"


def test_command_line(folder: Path) -> None:
    code, text = run(folder / "a.png", folder / "a.plic", folder / "a.jpg", "--metrics", "rgb_psnr", "--html",
                     folder / "page.html")  # fmt: skip
    assert code == 0, text
    assert "a.plic" in text
    assert "RGB-PSNR, dB" in text
    assert text.endswith(f"wrote {folder / 'page.html'}\n")
    assert (folder / "page.html").read_text("utf-8").count("data:image/webp;base64,") == 3


def test_grey_and_large_pictures(tmp_path: Path, picture) -> None:
    grey = picture(40, MOST_SHOWN + 200, grey=True)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    (tmp_path / "grey.plic").write_bytes(pocketlic.encode(grey))
    pair = compare(tmp_path / "grey.png", [tmp_path / "grey.plic"], ["rgb_psnr"], pocketlic.decode)
    assert pair.files[0].pixels.shape == (40, MOST_SHOWN + 200, 3)
    assert np.ptp(pair.files[0].pixels, axis=2).max() == 0
    assert f"2248x40 (0.09 MP); the middle {MOST_SHOWN}x40 is shown" in page(pair).decode()


def test_mistakes_are_one_line(folder: Path, picture) -> None:
    Image.fromarray(picture(64, 80)).save(folder / "b.png")
    (folder / "torn.plic").write_bytes((folder / "a.plic").read_bytes()[:90])
    (folder / "text.png").write_text("no picture")
    for arguments, message in (
        ((folder / "a.png", folder / "b.png"), "80x64 (0.01 MP)"),
        ((folder / "a.png", folder / "absent.plic"), "absent.plic"),
        ((folder / "absent.png", folder / "a.plic"), "absent.png"),
        ((folder / "a.png", folder / "torn.plic"), ""),
        ((folder / "a.png", folder / "text.png"), "text.png"),
        ((folder / "a.png", folder), ""),
        ((folder / "a.png", folder / "a.plic", "--metrics", "beauty"), "no metric 'beauty'"),
        ((folder / "a.png", folder / "a.plic", "--max-pixels", 100), "limit of 100"),
        ((folder / "a.png", folder / "a.plic", "--html", folder), ""),
    ):
        code, text = run(*arguments)
        assert (code, text.count("\n")) == (2, 1), text
        assert message in text
