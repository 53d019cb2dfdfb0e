"""Calibration of the entropy tables: the symbols stay, their bits shrink."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pocketlic import shipped_model
from pocketlic.codec import format as plic
from pocketlic.codec.calibrate import LARGEST, PICTURES, SIDE, calibrate, count_symbols, sample
from pocketlic.codec.codec import Codec
from pocketlic.export.litert import LiteRTExecutor
from pocketlic.export.tflite import model_to_tflite
from pocketlic.models.entropy import SPREADS, mixture_tables


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


def test_every_coded_symbol_is_counted_once(gaussian, run, photograph):
    crop = photograph[:64, :128]
    codec = Codec(gaussian, run)
    counts = count_symbols(codec, [crop])
    assert counts.shape == (len(gaussian.table_radius), LARGEST + 1)
    assert counts[: gaussian.skip].sum() == 0
    expected = np.zeros(2, np.int64)
    for quality in range(0, 10001, 1000):
        for symbols, rows in codec.coded(codec.analyse(crop, quality), quality):
            expected += (rows >= gaussian.skip).sum(), ((rows >= gaussian.skip) & (np.abs(symbols) == 1)).sum()
    assert (counts.sum(), counts[:, 1].sum()) == tuple(expected)


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
