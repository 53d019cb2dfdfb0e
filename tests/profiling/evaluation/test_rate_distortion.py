"""BD-rates against known values; runs on small pictures: real files, resumed and shown."""

from __future__ import annotations

import json
import re
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from pocketlic.cli import app
from pocketlic.codec.errors import PlicError
from pocketlic.profiling.console import progress
from pocketlic.profiling.evaluation import rate_distortion
from pocketlic.profiling.evaluation.codecs import OTHER_CODECS, Pillow, Pocketlic
from pocketlic.profiling.evaluation.rate_distortion import (
    PUBLISHED,
    PUBLISHED_PICTURES,
    CurveError,
    at_rates,
    bd_rate,
    evaluate,
    pareto,
    with_an_anchor,
)
from pocketlic.quantization.shipped import shipped

CURVE = [(0.1, 28.0), (0.25, 31.0), (0.5, 34.0), (0.9, 37.0), (1.4, 40.0)]


def test_a_curve_against_itself_is_0() -> None:
    result = bd_rate(CURVE, CURVE)
    assert result.percent == pytest.approx(0, abs=1e-9)
    assert (result.overlap, result.low, result.high) == (1, 28, 40)


@pytest.mark.parametrize("percent", [10, -25])
def test_a_shifted_rate_is_the_shift(percent: float) -> None:
    shifted = [(rate * (1 + percent / 100), value) for rate, value in CURVE]
    assert bd_rate(CURVE, shifted).percent == pytest.approx(percent, abs=1e-9)


def test_overlap_is_reported_and_too_little_refused() -> None:
    shifted = [(rate, value + 6) for rate, value in CURVE]
    result = bd_rate(CURVE, shifted)
    assert (result.overlap, result.low, result.high) == (0.5, 34, 40)
    assert result.percent < -40
    with pytest.raises(CurveError, match=r"covers 17% of the anchor's, 28 to 40; 33% is the least"):
        bd_rate(CURVE, [(rate, value + 10) for rate, value in CURVE])
    with pytest.raises(CurveError, match="covers 0%"):
        bd_rate(CURVE, [(rate, value + 20) for rate, value in CURVE])


def test_points_that_others_beat_are_left_out() -> None:
    worse = [(0.6, 33.0), (0.25, 30.0), (1.5, 40.0)]
    assert pareto([*worse, *CURVE]) == CURVE
    assert bd_rate(CURVE, [*worse, *CURVE]).percent == pytest.approx(0, abs=1e-9)
    with pytest.raises(CurveError, match="tested curve has 3 ascending points"):
        bd_rate(CURVE, CURVE[:3])


@pytest.mark.parametrize(("codec", "percent"), [("HM", 23), ("AV1", 16), ("mbt2018-mean", 21)])
def test_published_curves_give_the_published_bd_rates(codec: str, percent: float) -> None:
    """Nearly: those rest on more points of the same curves."""
    assert list(PUBLISHED[codec]) == pareto(PUBLISHED[codec])
    assert bd_rate(PUBLISHED["VTM"], PUBLISHED[codec]).percent == pytest.approx(percent, abs=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, picture) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    Image.fromarray(picture(144, 176)).save(path / "colour.png")
    Image.fromarray(picture(160, 130, grey=True)).save(path / "grey.png")
    return path


JPEG = Pillow("jpeg", "JPEG", ".jpg", (10, 30, 60, 85, 95), feature="libjpeg_turbo")


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("evaluated")
    ours = Pocketlic(tuple((weights.quality, weights.path) for weights in shipped()), (10, 100))
    return out, [ours, JPEG], evaluate(folder, [ours, JPEG], out, check_reference=True, anchor="jpeg")


def test_records_tell_of_real_files(finished) -> None:
    out, _, evaluation = finished
    assert len(evaluation.records) == 2 * (2 + 5)
    for r in evaluation.records:
        height, width = (144, 176) if r.picture == "colour" else (160, 130)
        assert r.bytes == (out / r.file).stat().st_size
        assert r.bpp == 8 * r.bytes / (height * width)
        assert r.encode_ms > 0
        assert r.decode_ms > 0
    jpeg = next(r for r in evaluation.records if r.codec == "jpeg" and r.picture == "colour")
    with Image.open(out / jpeg.file) as image:
        assert (image.format, image.size) == ("JPEG", (176, 144))


def test_ours_equals_the_reference_and_the_tables(finished) -> None:
    _, _, evaluation = finished
    assert len(evaluation.compared) == 4
    assert evaluation.unequal == []
    assert evaluation.judged  # the test is not empty
    assert evaluation.off_entropy == []
    means = evaluation.means["pocketlic"]
    assert means[0].bpp < means[1].bpp
    assert means[0].metrics["rgb_psnr"] < means[1].metrics["rgb_psnr"]
    assert not evaluation.published_comparable
    assert {c.anchor for c in evaluation.comparisons} == {"jpeg"}
    assert all("ascending points" in c.refusal for c in evaluation.comparisons)  # two of ours


def test_means_are_over_the_pictures(finished) -> None:
    _, _, evaluation = finished
    for mean in evaluation.means["jpeg"]:
        group = [r for r in evaluation.records if r.codec == "jpeg" and r.setting == mean.setting]
        assert mean.bpp == pytest.approx(np.mean([r.bpp for r in group]))
        assert mean.metrics["yuv_psnr"] == pytest.approx(np.mean([r.metrics["yuv_psnr"] for r in group]))


def test_a_run_takes_what_is_there_and_makes_what_is_not(finished, folder: Path, tmp_path: Path) -> None:
    out, codecs, evaluation = finished
    shutil.copytree(out, tmp_path / "copy")
    out = tmp_path / "copy"
    records = sorted((out / "records").iterdir())
    records[0].unlink()
    records[1].write_text('{"record": {"codec"')  # as an old version or a bad disk may leave it
    before = {path: path.stat().st_mtime_ns for path in records[2:]}
    again = evaluate(folder, codecs, out, check_reference=True, anchor="jpeg")
    assert {path: path.stat().st_mtime_ns for path in records[2:]} == before
    assert records[0].is_file()
    for new, old in zip(again.records, evaluation.records, strict=True):
        assert (new.file, new.bytes, new.metrics) == (old.file, old.bytes, old.metrics)


def test_nothing_is_started_when_all_is_there(finished, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, codecs, evaluation = finished
    monkeypatch.setattr(rate_distortion, "ProcessPoolExecutor", None)
    assert evaluate(folder, codecs, out, anchor="jpeg").records == evaluation.records


def test_another_picture_of_the_same_name_is_coded_anew(folder: Path, tmp_path: Path, picture) -> None:
    jpeg = Pillow("jpeg", "JPEG", ".jpg", (50,), feature="libjpeg_turbo")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    sizes = []
    for seed in (1, 2):
        Image.fromarray(picture(64, 64, seed)).save(pictures / "a.png")
        rate_distortion._picture_hash.cache_clear()
        rate_distortion._source.cache_clear()
        sizes.append(evaluate(pictures, [jpeg], tmp_path / "out").records[0].bytes)
    assert sizes[0] != sizes[1]
    assert len(list((tmp_path / "out" / "files" / "jpeg").iterdir())) == 2


def test_metrics_are_added_to_the_files_there_are(finished, folder: Path, tmp_path: Path) -> None:
    out, _, _ = finished
    shutil.copytree(out, tmp_path / "copy")
    more = evaluate(folder, [JPEG], tmp_path / "copy", ("rgb_psnr", "fsim"))
    files = sorted((tmp_path / "copy" / "files" / "jpeg").iterdir())
    assert [f.name for f in files] == [f.name for f in sorted((out / "files" / "jpeg").iterdir())]
    assert all(0 < r.metrics["fsim"] <= 1 for r in more.records)


def test_the_setting_for_a_rate_is_found(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "files" / "jpeg").mkdir(parents=True)
    path = folder / "colour.png"
    ((key, record),) = at_rates([path], [JPEG], [2.0], tmp_path).items()
    assert key == ("jpeg", "colour", 2.0)
    assert record.bpp == pytest.approx(2, rel=0.05)
    assert record.setting not in JPEG.settings


def test_errors_name_the_picture(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "pictures"
    broken.mkdir()
    (broken / "torn.png").write_bytes((folder / "colour.png").read_bytes()[:500])
    with pytest.raises(PlicError, match=r"torn\.png"):
        evaluate(broken, [JPEG], tmp_path / "out")
    refusing = Pillow("refusing", "JPEG", ".jpg", (50,), {"qtables": "no such tables"}, feature="webp")
    with pytest.raises(PlicError, match=r"\.png with refusing at 50"):
        evaluate(folder, [refusing], tmp_path / "out")


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    return result.exit_code, result.output


def test_command_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    metrics = "rgb_psnr,ms_ssim"
    code, text = run(
        folder, "--out", out, "--codecs", "pocketlic,jpeg", "--qualities", "5,30,60,95",
        "--metrics", metrics, "--anchor", "jpeg",
    )  # fmt: skip
    assert code == 0, text
    assert "means of 2 pictures" in text
    results = json.loads((out / "evaluation.json").read_text())
    assert results["metrics"] == metrics.split(",")
    assert len(results["records"]) == 2 * (4 + len(next(c for c in OTHER_CODECS if c.name == "jpeg").settings))
    for metric in results["metrics"]:
        with Image.open(out / f"rd-{metric}.png") as image:
            assert image.width > 600
    page = (out / "index.html").read_text("utf-8")
    assert not re.search(r"(src|href)=\"?http|url\(http|@import|@DATA@", page)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    content = json.loads(data[1])
    assert [p["name"] for p in content["pictures"]] == ["colour", "grey"]
    for shots in content["pictures"][0]["shots"].values():
        assert {shot["image"][:23] for shot in shots.values()} == {"data:image/webp;base64,"}


@pytest.mark.parametrize("option", ["--check-reference", "--verify"])
def test_the_reference_is_asked_under_either_name(option: str, folder: Path, tmp_path: Path) -> None:
    code, text = run(folder, "--out", tmp_path / "out", "--qualities", "50", option)
    assert code == 0, text
    assert "files and pixels of LiteRT equal the NumPy reference: 2 of 2" in text


def test_jpeg_is_the_anchor_where_there_is_no_better_one(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text = run(folder, "--out", out, "--qualities", "5,30,60,95", "--metrics", "rgb_psnr")
    assert code == 0, text
    comparisons = json.loads((out / "evaluation.json").read_text())["comparisons"]
    assert [(c["codec"], c["anchor"], c["metric"]) for c in comparisons] == [("pocketlic", "jpeg", "rgb_psnr")]
    assert comparisons[0]["result"] is not None
    assert text.endswith(f"wrote {out / 'index.html'}\n")


def test_progress_is_told_line_by_line_where_there_is_no_terminal(folder: Path, tmp_path: Path) -> None:
    _, text = run(folder, "--out", tmp_path / "out", "--codecs", "jpeg", "--metrics", "rgb_psnr")
    lines = [line for line in text.splitlines() if line.startswith("evaluating: ")]
    assert lines[0] == "evaluating: 0 of 20"
    assert lines[-1] == "evaluating: 20 of 20"
    assert len(lines) == 21
    console = Console(file=StringIO(), width=80)
    with progress(console, "many", 1000, 500) as advance:
        for _ in range(500):
            advance()
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue().splitlines()
    assert shown[0] == "many: 500 of 1000"
    assert shown[-1] == "many: 1000 of 1000"
    assert len(shown) == 11


def test_kodak_needs_no_other_anchor(tmp_path: Path, picture) -> None:
    for name in PUBLISHED_PICTURES:
        Image.fromarray(picture(16, 16)).save(tmp_path / f"{name}.png")
    ours = Pocketlic(tuple((weights.quality, weights.path) for weights in shipped()), (10, 100))
    assert with_an_anchor([ours], tmp_path) == [ours]
    (tmp_path / "kodim01.png").unlink()
    assert [codec.name for codec in with_an_anchor([ours], tmp_path)] == ["pocketlic", "jpeg"]
    assert with_an_anchor([ours, JPEG], tmp_path) == [ours, JPEG]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "gif"], "no codec 'gif'"),
        (["--metrics", "beauty"], "no metric 'beauty'"),
        (["--qualities", "1,x"], "numbers"),
        (["--anchor", "jpeg"], "anchor jpeg is not among"),
        (["--model", "absent.safetensors"], "absent.safetensors"),
        (["--vvc", "absent"], "no streams"),
    ],
)
def test_user_errors_are_one_line(options: list[str], message: str, folder: Path, tmp_path: Path) -> None:
    code, text = run(folder, "--out", tmp_path / "out", *options)
    assert code == 2
    assert message in text
    assert text.count("\n") == 1


def test_folders_without_pictures_or_unwritable_are_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ((tmp_path / "absent", "--out", tmp_path / "out"), "is not a folder"),
        ((tmp_path, "--out", tmp_path / "out"), "has no pictures"),
        ((folder, "--out", tmp_path / "file"), "cannot write"),
    ):
        code, text = run(*arguments)
        assert (code, text.count("\n")) == (2, 1), text
        assert message in text
