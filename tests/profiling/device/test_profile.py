"""Profiles of this machine: stages, statistics, reports, comparison, and one clear line for what is wrong."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pocketlic.cli import app
from pocketlic.codec.errors import PlicError
from pocketlic.export.bundle import write_bundle
from pocketlic.profiling.device import conditions, devices
from pocketlic.profiling.device.compare import compare, parse_percent
from pocketlic.profiling.device.devices import HostDevice, find_devices
from pocketlic.profiling.device.latency import WARMUPS, Stopwatch, repeat, statistics
from pocketlic.profiling.device.report import check, markdown, page, read_report, write_reports


@pytest.fixture(scope="module")
def run():
    return lambda *args: CliRunner().invoke(app, ["profile", *(str(a) for a in args)])


@pytest.fixture(scope="module")
def folder(make, picture, tmp_path_factory):
    """A bundle of a random codec in `bundle`, and two pictures in `images`."""
    folder = tmp_path_factory.mktemp("profile")
    write_bundle(make.small_model("cpu"), folder / "bundle")
    (folder / "images").mkdir()
    for name, size in (("one", (80, 112)), ("two", (64, 200))):
        Image.fromarray(picture(*size)).save(folder / "images" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def report(run, folder):
    result = run("--bundle", folder / "bundle", "--images", folder / "images", "--runs", 4, "--out", folder / "out",
                 "--allow-hot")  # fmt: skip
    assert result.exit_code == 0, result.output
    return read_report(folder / "out" / "profile.json")


def test_statistics():
    result = statistics([4.0, 1.0, 2.0, 3.0])
    assert result["samples_ms"] == [4.0, 1.0, 2.0, 3.0]
    assert (result["avg_ms"], result["median_ms"], result["min_ms"], result["max_ms"]) == (2.5, 2.5, 1.0, 4.0)
    assert result["p90_ms"] == pytest.approx(3.7)
    assert result["stddev_ms"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1), abs=1e-4)
    assert statistics([1.0])["stddev_ms"] == 0


def test_a_stage_excludes_the_stages_inside_it():
    watch = Stopwatch()
    with watch.stage("outer"), watch.stage("inner"):
        sum(range(200_000))
    stages = watch.take()
    assert stages["inner"] > 5 * stages["outer"] > 0
    assert watch.take() == {}


def test_the_first_run_and_the_warm_ups_are_kept_apart():
    calls = []
    _, latency = repeat(lambda: calls.append(1), Stopwatch(), 5)
    assert len(calls) == 1 + WARMUPS + 5
    assert len(latency["total"]["samples_ms"]) == 5


def test_report_of_this_machine(report, folder):
    (device,) = report["devices"]
    assert [r["image"] for r in device["runs"]] == ["one", "two"]
    assert device["layer_counts"]["cpu"] == device["layer_counts"]["total"] > 10
    for r in device["runs"]:
        encode, decode = (r["latency_metrics"][side] for side in ("encode", "decode"))
        assert set(encode["stages"]) == {"load", "pre_processing", "analysis", "hyper_analysis", "hyper_synthesis",
                                         "context", "quantization", "entropy_encoding", "other"}  # fmt: skip
        assert set(decode["stages"]) == {"entropy_decoding", "hyper_synthesis", "context", "dequantization",
                                         "synthesis", "post_processing", "other"}  # fmt: skip
        sums = np.sum([s["samples_ms"] for s in decode["stages"].values()], axis=0)
        np.testing.assert_allclose(sums, decode["total"]["samples_ms"], rtol=0.01, atol=0.01)
        assert len(decode["processor"]["samples_ms"]) == len(decode["total"]["samples_ms"])
        assert r["determinism"]["equal"]
        assert r["determinism"]["first_difference"] is None
        assert {s["stage"] for s in r["determinism"]["stages"]} >= {"file", "symbols", "pixels"}
        for energy in r["energy"].values():
            assert energy["available"] or energy["reason"]
    html = (folder / "out" / "profile.html").read_text()
    assert html.count("<svg") >= 3
    assert "mathdefault" not in html
    assert "http" not in html.replace("http://www.w3.org", "").replace("http://creativecommons.org", "").replace(
        "http://purl.org", ""
    ).replace("https://matplotlib.org", "")
    assert "| one | encode |" in (folder / "out" / "profile.md").read_text()


def test_one_wrong_value_is_found_and_named(run, folder, one_wrong_value, tmp_path):
    result = run("--bundle", folder / "bundle", "--images", folder / "images", "--runs", 1, "--out", tmp_path / "o",
                 "--allow-hot")  # fmt: skip
    assert result.exit_code == 1, result.output
    determinism = read_report(tmp_path / "o" / "profile.json")["devices"][0]["runs"][0]["determinism"]
    place = determinism["first_difference"]
    assert (place["stage"], place["index"]) == ("synthesis", [7, 9, 1])
    assert place["value"] ^ place["reference"] == 1
    assert determinism["max_difference"] == 1
    assert determinism["psnr_to_reference_db"] > 60


def test_a_planted_slowdown_fails_the_comparison(run, report, tmp_path):
    slow = copy.deepcopy(report)
    total = slow["devices"][0]["runs"][1]["latency_metrics"]["decode"]["total"]
    total["median_ms"] *= 1.2
    for name, content in (("a", report), ("b", slow)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert run("compare", tmp_path / "a.json", tmp_path / "a.json").exit_code == 0
    result = run(
        "compare", tmp_path / "a.json", tmp_path / "b.json", "--fail-over", "5%", "--html", tmp_path / "p.html"
    )
    assert result.exit_code == 1
    assert "+20.0 %" in result.output
    assert "1 rose by more than 5%, 0 give other bits" in result.output
    assert "Report 2" in (tmp_path / "p.html").read_text()
    assert run("compare", tmp_path / "a.json", tmp_path / "b.json", "--fail-over", "25%").exit_code == 0
    assert run("compare", tmp_path / "b.json", tmp_path / "a.json").exit_code == 0  # faster is no failure


def test_a_planted_bit_fails_the_comparison(report):
    for planted, message in (({"equal": False}, "not the reference's bits"), ({}, "other bits, first in pixels")):
        other = copy.deepcopy(report)
        stage = next(s for s in other["devices"][0]["runs"][0]["determinism"]["stages"] if s["stage"] == "pixels")
        stage.update({"sha256": "0" * 64, **planted})
        result = compare(report, other, 5.0)
        assert result.failed
        (line,) = result.mismatches
        assert message in line
    other["bundle"]["model_id"] = "1" * 64  # another model may give other bits
    assert not compare(report, other, 5.0).mismatches


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("protocol", "quality"), 40, "quality 60 and 40"),
        (("protocol", "threads"), 4, "threads 1 and 4"),
        (("protocol", "num_warmup_runs"), 5, "warm-ups 3 and 5"),
        (("bundle", "target"), "onnx-qdq", "target tflite-int8 and onnx-qdq"),
        (("bundle", "profile"), "strict", "rule cpu and strict"),
        (("bundle", "model_id"), "1" * 64, "and 1111111111111111"),
        (("bundle", "tile"), 512, "tile None and 512"),
        (("devices", 0, "emulated"), True, "emulated False and True"),
        (("devices", 0, "kind"), "adb", "kind host and adb"),
        (("devices", 0, "primary_compute_unit"), "NPU", "unit CPU and NPU"),
        (("devices", 0, "properties", "model"), "Toaster <1>", "and Toaster <1>"),
        (("devices", 0, "properties", "cpus"), "64", "and 64"),
        (("devices", 0, "affinity"), [7], "and [7]"),
        (("devices", 0, "runs", 0, "width"), 9, "size 112x80 and 9x80"),
    ],
)  # fmt: skip
def test_unlike_reports_are_refused_and_compared_anyway(report, run, tmp_path, path, value, message):
    other = copy.deepcopy(report)
    part = other
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    for name, content in (("a", report), ("b", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    arguments = "compare", tmp_path / "a.json", tmp_path / "b.json", "--html", tmp_path / "p.html"
    result = run(*arguments)
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1), result.output
    assert message in result.output
    assert "--anyway" in result.output
    assert not (tmp_path / "p.html").exists()
    result = run(*arguments, "--anyway")
    assert result.exit_code == 0, result.output
    assert f"NOT ALIKE {result.output.split('NOT ALIKE ')[1].splitlines()[0]}" in result.output
    assert message in result.output
    assert "Not alike: " in (tmp_path / "p.html").read_text()


def test_versions_and_serial_numbers_may_differ(report):
    """They are what one compares, and two phones of one kind are alike."""
    other = copy.deepcopy(report)
    other["tools"] = {"numpy": "99"}
    other["protocol"]["num_runs"] = 7
    (device,) = other["devices"]
    device["name"], device["properties"]["system"] = "another", "Linux 99"
    assert compare(report, other, 5.0).differences == []


def test_reports_that_cannot_be_compared(report, run, tmp_path):
    other = copy.deepcopy(report)
    for r in other["devices"][0]["runs"]:
        r["image"] += "!"
    with pytest.raises(PlicError, match="share no run"):
        compare(report, other, 5.0)
    for text in ("x", "-3%", "nan"):
        with pytest.raises(PlicError, match="not a percentage"):
            parse_percent(text)
    for content in ("{}", "[]", "not json", '{"schema": "pocketlic-profile"}'):
        (tmp_path / "x.json").write_text(content)
        result = run("compare", tmp_path / "x.json", tmp_path / "x.json")
        assert (result.exit_code, len(result.output.splitlines())) == (2, 1), result.output
    assert run("compare", tmp_path / "none.json", tmp_path / "none.json").exit_code == 2


def test_the_schema_refuses_what_is_missing(report):
    for path in (("bundle",), ("devices", 0, "runs", 0, "determinism"), ("protocol", "num_runs")):
        broken = copy.deepcopy(report)
        part = broken
        for key in path[:-1]:
            part = part[key]
        del part[path[-1]]
        with pytest.raises(PlicError, match="not a Pocketlic profile"):
            check(broken)


def test_a_full_disk_leaves_the_old_reports(report, tmp_path, monkeypatch):
    write_reports(report, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    real = Path.write_bytes

    def full(path, content):
        if "html" in path.name:
            raise OSError(28, "No space left on device", str(path))
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PlicError, match="No space left"):
        write_reports(report | {"created": "later"}, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_energy_and_several_devices_are_drawn(report):
    other = copy.deepcopy(report)
    phone = copy.deepcopy(report["devices"][0])
    phone |= {"name": "phone <1>", "emulated": True, "flags": ["hot & bothered"]}
    for r in phone["runs"]:
        decode = {"available": True, "meter": "odpm", "window_s": 1.0, "idle_mw": 5.0}
        decode |= {"mj_per_image": 3.0, "mj_per_megapixel": 9.0, "uncertainty_mj_per_image": 0.5}
        r["energy"] = {"decode": decode}
    other["devices"].append(phone)
    html = page([check(other)]).decode()
    assert "mJ/MP, idle subtracted" in html
    assert "phone &lt;1&gt;" in html
    assert "hot &amp; bothered" in html
    assert "3.0 ± 0.5 mJ" in markdown(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say which bundle"),
        ({"--bundle": "nowhere"}, "not a Pocketlic bundle"),
        ({"--bundle": "bundle", "--device": "toaster"}, "there is no device toaster"),
        ({"--bundle": "bundle", "--images": "bundle"}, "no picture"),
        ({"--bundle": "bundle", "--sizes": "big"}, "not a list of sizes"),
        ({"--bundle": "bundle", "--plic": "none"}, "no such file"),
        ({"--bundle": "bundle", "--images": "images", "--out": "/dev/null/x", "--runs": 1, "--allow-hot": None},
         "cannot write"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run, folder, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    arguments = [str(part) for pair in options.items() for part in pair if part is not None]
    result = run("--out", "made", *arguments) if "--out" not in options else run(*arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if not line.startswith("host:")]
    assert len(lines) == 1
    assert lines[0].startswith("profile: ")
    assert message in lines[0]
    assert not (folder / "made").exists()


def test_a_hot_or_throttled_machine_is_refused(run, folder, monkeypatch, tmp_path):
    cpu = tmp_path / "cpu"
    for number, limit in ((0, 1_200_000), (1, 2_000_000)):
        (cpu / f"cpu{number}" / "cpufreq").mkdir(parents=True)
        for name, value in (
            ("scaling_max_freq", limit),
            ("cpuinfo_max_freq", 2_000_000),
            ("scaling_cur_freq", 900_000),
        ):
            (cpu / f"cpu{number}" / "cpufreq" / name).write_text(f"{value}\n")
    monkeypatch.setattr(conditions, "CPU", str(cpu))
    state = conditions.read_conditions(HostDevice())
    assert state["cpu_khz"] == {"0": 900_000, "1": 900_000}
    assert state["flags"] == ["throttled: clock rate limited on cpu 0"]
    arguments = ("--bundle", folder / "bundle", "--images", folder / "images", "--runs", 1, "--out", tmp_path / "o")
    result = run(*arguments)
    assert result.exit_code == 2
    assert "throttled" in result.output
    assert not (tmp_path / "o").exists()
    assert run(*arguments, "--allow-hot").exit_code == 0
    assert "before: throttled" in read_report(tmp_path / "o" / "profile.json")["devices"][0]["flags"][0]


def test_temperatures(tmp_path):
    files = {"/sys/class/thermal/thermal_zone0/type": "skin-therm", "/sys/class/thermal/thermal_zone0/temp": "46250",
             "/sys/class/thermal/thermal_zone1/type": "cpu-0-0", "/sys/class/thermal/thermal_zone1/temp": "71",
             "/sys/class/thermal/thermal_zone2/type": "unused", "/sys/class/thermal/thermal_zone2/temp": "-274000",
             "/sys/class/power_supply/battery/temp": "315"}  # fmt: skip
    celsius = conditions._temperatures(files)
    assert celsius == {"skin-therm": 46.25, "cpu-0-0": 71.0, "battery": 31.5}
    state = {"temperature_c": celsius, "cpu_limit_khz": {}, "cpu_max_khz": {}, "thermal_status": 2}
    assert conditions._flags(state) == ["hot: skin-therm 46.25 °C", "throttled: Android's thermal status is 2"]


def test_without_adb(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(devices.DeviceError, match="there is no adb here"):
        find_devices("adb")


def test_a_shell_line_that_does_not_end():
    with pytest.raises(devices.DeviceError, match="no end after"):
        HostDevice().run("sleep 5", timeout=0.2)
