"""Bundles come back as written, replace only bundles, and show damage."""

import json

import numpy as np
import pytest

from pocketlic.export.bundle import MANIFEST, MODEL, PROOF, macs_per_pixel, open_bundle, write_bundle
from pocketlic.export.errors import ExportError
from pocketlic.export.tflite import model_to_tflite


@pytest.fixture
def model(make, rule):
    return make.small_model(rule)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("tile", [None, 192])
def test_round_trip(make, model, tmp_path, tile):
    out = tmp_path / "new" / "bundle"
    written = write_bundle(model, out, tile)
    bundle = open_bundle(out)
    assert (bundle.files, bundle.manifest) == (written.files, written.manifest)
    assert bundle.files == model_to_tflite(model, tile or 256)
    assert bundle.model.model_id == model.model_id == bundle.manifest["model_id"]
    assert bundle.tile == tile
    assert sorted(contents(out)) == sorted([*(f"{n}.tflite" for n in model.networks), MODEL, MANIFEST])
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    network = bundle.model.networks["context"]
    inputs = make.random_inputs(network, 16, 13)
    for name, y in bundle.executor()(network, inputs).items():
        np.testing.assert_array_equal(y, network.run(inputs)[name])


def test_manifest_says_what_the_files_are(model, tmp_path):
    write_bundle(model, tmp_path / "b", 192)
    manifest = json.loads((tmp_path / "b" / MANIFEST).read_text())
    entry = manifest["files"]["synthesis.tflite"]
    assert entry["inputs"] == [
        {"name": "y_hat", "shape": [1, 12, 12, 18], "dtype": "int8", "scale": 0.0625, "zero_point": 0},
        {"name": "details", "shape": [1, 12, 12, 16], "dtype": "int8", "scale": 0.0625, "zero_point": 0},
    ]
    assert entry["outputs"][0]["shape"] == [1, 192, 192, 3]
    assert entry["bytes"] == (tmp_path / "b" / "synthesis.tflite").stat().st_size
    assert manifest["profile"] == model.rule
    assert manifest["tile"] == 192
    assert manifest["tools"]["numpy"] == np.__version__


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    write_bundle(model, tmp_path / "a")
    write_bundle(model, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_macs_are_those_of_the_layers(make):
    model = make.small_model("cpu")
    macs = macs_per_pixel(model)
    assert macs["context"] == (2 * 16 * 16 + 25 * 16 + 16 * 16) / 256
    assert macs["latent"] == 1
    assert macs["detail"] == 4 * 12 / 64
    assert macs["rows"] == 1
    assert macs["detail_rows"] == 1
    both = ("rows", "detail_rows", "hyper_synthesis", "context")
    encode = (*both, "analysis", "latent", "detail", "hyper_analysis")
    assert macs["encode"] == pytest.approx(sum(macs[p] for p in encode))
    assert macs["decode"] == pytest.approx(sum(macs[p] for p in (*both, "synthesis")))


def test_an_old_bundle_is_replaced(make, tmp_path):
    out = tmp_path / "b"
    write_bundle(make.small_model("cpu", 1), out)
    (out / PROOF).write_bytes(b"old")
    model = make.small_model("cpu", 2)
    write_bundle(model, out)
    assert open_bundle(out).model.model_id == model.model_id
    assert not (out / PROOF).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_an_empty_folder_may_become_a_bundle(make, tmp_path):
    write_bundle(make.small_model("cpu"), tmp_path / "")
    assert open_bundle(tmp_path).tile is None


def test_nothing_but_a_bundle_is_replaced(make, tmp_path):
    model = make.small_model("cpu")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"dear")
    with pytest.raises(ExportError, match="not a bundle"):
        write_bundle(model, folder)
    file = tmp_path / "file"
    file.write_bytes(b"dear")
    with pytest.raises(ExportError, match="cannot write"):
        write_bundle(model, file)
    with pytest.raises(ExportError, match="cannot write"):
        write_bundle(model, file / "below")
    write_bundle(model, tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("dear")
    with pytest.raises(ExportError, match=r"notes\.txt"):
        write_bundle(model, tmp_path / "b")
    with pytest.raises(ExportError, match="at least 192"):
        write_bundle(model, tmp_path / "c", 128)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "file", "photos"]
    assert (folder / "holiday.jpg").read_bytes() == (file).read_bytes() == b"dear"


def test_a_failure_half_way_leaves_the_old_bundle(make, tmp_path, monkeypatch):
    out = tmp_path / "b"
    write_bundle(make.small_model("cpu", 1), out)
    before = contents(out)
    real = type(out).write_bytes

    def full_disk(path, data):
        if path.name == MANIFEST:
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(type(out), "write_bytes", full_disk)
    with pytest.raises(ExportError, match="No space left"):
        write_bundle(make.small_model("cpu", 2), out)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_damage_is_found(make, tmp_path):
    out = tmp_path / "b"
    write_bundle(make.small_model("cpu"), out)
    for name in sorted(contents(out)):
        path = out / name
        good = path.read_bytes()
        if name != MANIFEST:
            path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
            with pytest.raises(ExportError, match="is damaged"):
                open_bundle(out)
        path.unlink()
        with pytest.raises(ExportError, match=r"cannot read|is not a Pocketlic bundle"):
            open_bundle(out)
        path.write_bytes(good)
    open_bundle(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "not a Pocketlic bundle"),
        ({"model_id": "0" * 64}, "not the manifest's"),
        ({"files": {"../x": {"sha256": ""}}}, "leaves the bundle"),
        ({"files": {}}, "damaged"),
        ({"files": 3}, "damaged"),
        ({"tile": 100}, "at least 192"),
        ({"tile": "x"}, "damaged"),
    ],
)
def test_a_manifest_that_lies(make, tmp_path, change, message):
    write_bundle(make.small_model("cpu"), tmp_path / "b")
    path = tmp_path / "b" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ExportError, match=message):
        open_bundle(tmp_path / "b")
