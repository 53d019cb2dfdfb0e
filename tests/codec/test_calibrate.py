"""Calibration of the entropy tables: the symbols stay, their bits shrink."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pocketlic import shipped_model
from pocketlic.codec import format as plic
from pocketlic.codec.calibrate import (
    LARGEST,
    PICTURES,
    SIDE,
    calibrate,
    count_magnitudes,
    fit_hyper_indices,
    fit_prediction,
    sample,
)
from pocketlic.codec.codec import Codec
from pocketlic.export.litert import LiteRTExecutor
from pocketlic.export.tflite import model_to_tflite
from pocketlic.models.entropy import SPREADS, mixture_tables, table_scales


@pytest.fixture(scope="module")
def gaussian():
    """The shipped model with tables of Gaussians."""
    radius, freq = mixture_tables(np.tile(np.array(SPREADS) == 1.0, (64, 1)).astype(float))
    return replace(shipped_model("cpu"), table_radius=radius, table_freq=freq)


@pytest.fixture(scope="module")
def run(gaussian):
    return LiteRTExecutor(model_to_tflite(gaussian))


@pytest.fixture(scope="module")
def photograph():
    with Image.open("samples/spices.jpg") as file:
        return np.asarray(file.convert("RGB"))


def test_calibrated_tables_save_bits_on_another_picture(gaussian, run, photograph):
    left, right = photograph[:256, :320], photograph[-256:, -320:]
    calibrated = calibrate(gaussian, [left], run)
    before, after = (Codec(model, run) for model in (gaussian, calibrated))
    assert before.model_id != after.model_id
    total = dict.fromkeys(("before", "after"), 0)
    for quality in (1000, 4000, 8000):
        symbols = before.analyse(right, quality)
        assert symbols.sha256() == after.analyse(right, quality).sha256()
        for name, codec in (("before", before), ("after", after)):
            header = plic.Header(320, 256, False, quality, codec.model_id)
            data = codec.write_symbols(symbols, header)
            assert codec.read_symbols(plic.read(data)).sha256() == symbols.sha256()
            total[name] += len(data)
    assert total["after"] < 0.99 * total["before"]


def test_tables_of_the_qualities_that_a_model_is_for_save_bits_there(gaussian, run, photograph):
    size = {}
    for name, qualities in {"all": (0.0, 100.0), "low": (0.0, 12.0), "high": (92.0, 100.0)}.items():
        codec = Codec(calibrate(gaussian, [photograph], run, qualities), run)
        for quality in (10, 95):
            size[name, quality] = len(codec.encode(photograph, quality))
    assert size["low", 10] < size["all", 10] < size["high", 10]
    assert size["high", 95] < size["all", 95] < size["low", 95]


def test_magnitudes_are_counted_by_row(gaussian):
    skip = gaussian.skip
    symbols = np.array([[0, -1, 2, 600], [1, 1, 0, 7]], np.int32)
    indices = np.array([[skip, 5, 5, 63], [5, skip - 1, 0, 63]], np.uint8)
    counts = count_magnitudes(Codec(gaussian), [(symbols, indices), (symbols[:1], indices[:1])])
    assert counts.shape == (len(gaussian.table_radius), LARGEST + 1)
    expected = {(skip, 0): 2, (5, 1): 3, (5, 2): 2, (63, LARGEST): 2, (63, 7): 1}
    assert {(int(r), int(m)): int(counts[r, m]) for r, m in np.argwhere(counts)} == expected


def test_prediction_finds_how_z_depends_on_its_neighbours():
    rng = np.random.default_rng(1)
    z = np.zeros((40, 40, 3), np.int8)
    for y in range(40):
        for x in range(40):
            left, above = z[y, x - 1] if x else z[y - 1, x], z[y - 1, x] if y else z[y, x - 1]
            z[y, x] = np.round([0.5, 0, 1] * left + [0.25, 0, 0] * above + rng.normal(0, [20, 0, 2]))
    weights = fit_prediction([z[:, :20], z[:, 20:]]) / 64
    np.testing.assert_allclose(weights[0], [0.5, 0.25, 0], atol=0.08)
    np.testing.assert_array_equal(weights[1], 0)
    np.testing.assert_allclose(weights[2], [1, 0, 0], atol=0.08)


def test_rows_of_z_follow_its_spread(gaussian):
    rng = np.random.default_rng(2)
    model = replace(gaussian, hyper_prediction=np.zeros((64, 3), np.int8))
    spread = np.linspace(0.3, 30, 64)
    hypers = {q: [np.clip(rng.normal(0, spread, (40, 40, 64)), -128, 127).round().astype(np.int8)] for q in (0, 10000)}
    knots = fit_hyper_indices(Codec(model), hypers)
    assert knots.shape == model.hyper_row_knots.shape
    np.testing.assert_allclose(table_scales()[knots >> 16], np.broadcast_to(spread, knots.shape), rtol=0.25)


def test_the_sample_spreads_over_the_folder_and_is_cut_from_the_middle(tmp_path):
    for i in range(PICTURES + 10):
        Image.fromarray(np.full((8, 8 + i, 3), i, np.uint8)).save(tmp_path / f"{i:03}.png")
    pictures = list(sample(tmp_path))
    assert len(pictures) == PICTURES
    shades = [int(p[0, 0, 0]) for p in pictures]
    assert shades == sorted(set(shades))
    assert shades[-1] > PICTURES
    large = np.zeros((SIDE + 100, SIDE + 200, 3), np.uint8)
    large[50:-50, 100:-100] = 255
    for path in tmp_path.iterdir():
        path.unlink()
    Image.fromarray(large).save(tmp_path / "large.png")
    (picture,) = sample(tmp_path)
    assert picture.shape == (SIDE, SIDE, 3)
    assert picture.min() == 255
