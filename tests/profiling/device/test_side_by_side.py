"""The table of ours beside other codecs: rates match, all take turns, and the reports name what ran."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from pocketlic.cli import app
from pocketlic.profiling.device.side_by_side import choose, match
from pocketlic.profiling.evaluation.codecs import OTHER_CODECS, Source


@pytest.fixture
def run():
    return lambda *args: CliRunner().invoke(app, ["profile", "codecs", *(str(a) for a in args)])


def test_the_nearest_size_is_found(picture):
    """The same result as a trial of every quality."""
    source = Source("one", picture(96, 128))
    webp = next(codec for codec in OTHER_CODECS if codec.name == "webp")
    sizes = [len(webp.encode(source, setting)) for setting in range(101)]
    for wanted in (1, sizes[20], sizes[60] + 3, 10**6):
        found = match(webp, source, wanted)
        best = min(max(s / wanted, wanted / s) for s in sizes)
        assert max(len(found.data) / wanted, wanted / len(found.data)) == pytest.approx(best, rel=0.02)
        assert found.psnr_db > 15


def test_libraries_choose_their_own_speed():
    _, jpeg, webp = choose("jpeg,webp", 60, "cpu")
    assert jpeg.options == {}
    assert webp.options == {}
    fast = choose("webp-method-0,avif-speed-10,jxl-effort-1,jxl-effort-3", 60, "cpu")[1:]
    assert [codec.options.get("method", codec.options.get("speed", codec.options.get("effort"))) for codec in fast] == [
        0, 10, 1, 3,
    ]  # fmt: skip
    (heic,) = choose("heic", 60, "cpu")[1:]
    assert heic.options  # one thread


def test_report(run, picture, tmp_path):
    for name, size in (("one", (64, 96)), ("two", (80, 64))):
        Image.fromarray(picture(*size)).save(tmp_path / f"{name}.png")
    result = run(tmp_path, "--codecs", "jpeg,webp", "--quality", 97, "--runs", 3, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "codecs.json").read_text())
    ours, *others = report["codecs"]
    assert [codec["name"] for codec in report["codecs"]] == ["pocketlic", "jpeg", "webp"]
    assert report["pictures"]["one"] == {"width": 96, "height": 64}
    for codec in report["codecs"]:
        for side in ("encode", "decode"):
            times = codec[side]["ms_per_megapixel"]
            assert len(times["samples_ms"]) == 3
            assert min(times["samples_ms"]) > 0
            assert codec[side]["ratio_to_ours"] == pytest.approx(
                times["median_ms"] / ours[side]["ms_per_megapixel"]["median_ms"], abs=0.01
            )
            passes = sum(codec["pictures"][p][side]["samples_ms"][0] for p in ("one", "two"))
            assert times["samples_ms"][0] == pytest.approx(passes / (64 * 96 + 80 * 64) * 1e6, rel=0.01)
    for codec in others:
        for name, one in codec["pictures"].items():
            assert one["bpp"] == pytest.approx(ours["pictures"][name]["bpp"], rel=0.4)
    table = (tmp_path / "out" / "codecs.md").read_text()
    assert "| webp |" in table
    assert "libjpeg\\_turbo" in table


def test_mistakes_end_in_one_line(run, tmp_path):
    for arguments, message in (
        ((tmp_path,), "has no pictures"),
        ((tmp_path / "none",), "is not a folder"),
        ((tmp_path, "--codecs", "gif"), "there is no codec 'gif'"),
    ):
        result = run(*arguments, "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert len(result.output.splitlines()) == 1
        assert message in result.output
        assert not (tmp_path / "out").exists()
