"""Targets say what they need; a missing requirement is one line, and nothing is written."""

import re
from dataclasses import replace
from importlib.util import find_spec

import pytest

from pocketlic.export import targets
from pocketlic.export.bundle import write_bundle
from pocketlic.export.errors import ExportError
from pocketlic.export.npu import _reason, _require_whole
from pocketlic.export.operators import operators
from pocketlic.export.prove import prove
from pocketlic.export.targets import TARGETS, Need, missing


@pytest.mark.parametrize("name", TARGETS)
def test_a_missing_part_is_one_line(make, tmp_path, monkeypatch, name):
    lacking = Need("a unicorn", "look in a wood", lambda: False)
    monkeypatch.setitem(TARGETS, name, replace(TARGETS[name], to_build=(lacking,)))
    with pytest.raises(ExportError, match=f"^target {name} needs a unicorn: look in a wood$"):
        write_bundle(make.small_model("cpu"), tmp_path / "b", target=name)
    assert not list(tmp_path.iterdir())
    assert missing((lacking,)) == ["a unicorn"]


def test_a_target_that_does_not_exist_is_one_line(make, tmp_path):
    with pytest.raises(ExportError, match=r"^there is no target tflite: pocketlic export --list shows all$"):
        write_bundle(make.small_model("cpu"), tmp_path / "b", target="tflite")
    assert not list(tmp_path.iterdir())


def test_sdks_that_are_not_here_are_named(make, tmp_path):
    for name in ("litert-mediatek", "litert-google-tensor", "executorch-qnn", "executorch-coreml"):
        if missing(TARGETS[name].to_build):
            with pytest.raises(ExportError, match=rf"^target {name} needs [^\n]+: [^\n]+$"):
                write_bundle(make.small_model("cpu"), tmp_path / "b", target=name)


def test_android_assets_prove_like_a_bundle(make, picture, tmp_path):
    bundle = write_bundle(make.small_model("cpu"), tmp_path / "b", target="android-assets")
    assert prove(bundle, picture(150, 230), 70).pixels_equal
    assert {p.name for p in tmp_path.glob("b/*.jpg")} == {p.name for p in targets.SAMPLES.glob("*.jpg")} != set()


def test_operators_of_tflite(make, tmp_path):
    bundle = write_bundle(make.small_model("cpu"), tmp_path / "b", 192)
    for name, rows in operators(bundle).items():
        entry = bundle.manifest["files"][f"{name}.tflite"]
        assert sum(row.macs for row in rows) == pytest.approx(entry["mac_per_pixel"] * 192 * 192)
        assert {row.backend for row in rows} == {"XNNPACK"}
        assert all(row.bytes > 0 and re.search(r" 1x\d+x\d+x\d+$", row.output) for row in rows)


def test_compiler_logs_become_one_line(tmp_path):
    log = tmp_path / "x.error"
    log.write_text("INFO: fine\n  Could not load shared library: libX.so\n\tDone\n")
    assert _reason(f"apply_plugin failed. See {log} for details.") == "Could not load shared library: libX.so"
    assert not log.exists()
    assert _reason("two\nlines") == "two lines"


def test_a_partly_compiled_network_is_refused():
    part = type("Part", (), {"num_ops_offloaded": 3, "num_total_ops": 5})()
    with pytest.raises(ExportError, match="SM8750 takes 3 of 5 operators"):
        _require_whole("context", "SM8750", type("Stats", (), {"subgraph_stats": [part]})())


@pytest.mark.skipif(find_spec("onnxruntime_qnn") is None, reason="the extra qnn is not installed")
def test_compiled_for_hexagon(make, rule, picture, tmp_path):
    bundle = write_bundle(make.small_model(rule), tmp_path / "b", 192, "litert-qnn")
    assert all(f"{name}_Qualcomm_SM8750.tflite" in bundle.manifest["files"] for name in bundle.model.networks)
    if rule == "strict":
        report = prove(bundle, picture(200, 200), 70)
        assert report.files_equal
        assert report.pixels_equal


@pytest.mark.skipif(find_spec("executorch") is None, reason="the extra executorch is not installed")
def test_vulkan_is_built_but_not_run(make, tmp_path):
    bundle = write_bundle(make.small_model("cpu"), tmp_path / "b", 192, "executorch-vulkan")
    with pytest.raises(ExportError, match="Vulkan backend"):
        bundle.executor()
    assert "VulkanBackend" in {row.backend for rows in operators(bundle).values() for row in rows}
