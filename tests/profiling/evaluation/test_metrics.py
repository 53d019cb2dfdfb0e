"""Metrics against other libraries' values, and properties of every metric."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketlic.codec.errors import PlicError
from pocketlic.profiling.evaluation import metrics

Plane = NDArray[np.float64]

# Other software's values for `pair()`.
REFERENCES = {
    "ms_ssim": (0.98552012, 1e-6),  # piq 0.8.0
    "vif_p": (0.46875779, 1e-6),  # piq 0.8.0
    "fsim": (0.96299989, 1e-6),  # piq 0.8.0, chromatic=False
    "iw_ssim": (0.97460078, 1e-5),  # piq 0.8.0
    "nlpd": (0.78743434, 1e-6),  # 1 - NLPD of IQA_pytorch 0.1, which JPEG AI's reference software has
    "vmaf": (65.081831, 0.05),  # libvmaf in FFmpeg 9.0.2, its integer features
}


def pair() -> tuple[Plane, Plane]:
    """Two lumas of whole numbers, [272, 304], the second blurred and quantized; nothing random."""
    y, x = np.mgrid[:272, :304]
    original = 120 + 40 * np.sin(x / 7) + 30 * np.sin(x * y / 900) + 24 * ((x // 16 + y // 16) % 2)
    original = np.clip(np.round(original + (x * 7919 + y * 104729) % 37), 0, 255)
    blurred = (original + np.roll(original, 1, 0) + np.roll(original, 1, 1)) / 3
    return original, np.clip(np.round(blurred / 9) * 9, 0, 255)


@pytest.mark.parametrize("name", REFERENCES)
def test_metric_equals_another_implementation(name: str) -> None:
    value, tolerance = REFERENCES[name]
    assert metrics.METRICS[name].of(*pair()) == pytest.approx(value, abs=tolerance)


def test_psnr_hvs_equals_the_library_s_other_implementation() -> None:
    from psnr_hvsm import BACKENDS

    a, b = pair()
    hvs, hvs_m = BACKENDS["cpp"]["psnr_hvs_hvsm"](a / 255, b / 255)
    assert metrics.psnr_hvs(a, b) == pytest.approx(hvs, abs=1e-3)
    assert metrics.psnr_hvs_m(a, b) == pytest.approx(hvs_m, abs=1e-3)


def test_psnr_of_a_known_error() -> None:
    original = np.full((16, 16, 3), 100, np.uint8)
    assert metrics.rgb_psnr(original, original + np.uint8(1)) == pytest.approx(48.1308, abs=1e-4)
    # An equal step in R, G and B is one in luma only; the other planes stay identical.
    expected = (6 * 48.1308 + 2 * metrics.IDENTICAL_DB) / 8
    assert metrics.yuv_psnr(original, original + np.uint8(1)) == pytest.approx(expected, abs=1e-4)


def test_luma_is_bt709() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert metrics.ycbcr(colours)[0, :, 0] == pytest.approx(255 * np.array([0.2126, 0.7152, 0.0722, 1]))
    assert np.abs(metrics.ycbcr(colours)[..., 1:]).max() == pytest.approx(127.5)


def test_every_metric_prefers_the_better_picture(picture) -> None:
    original = picture(200, 264)
    noise = np.random.default_rng(1).normal(0, 1, original.shape)
    fine, coarse = (np.clip(original + s * noise, 0, 255).astype(np.uint8) for s in (3, 25))
    best = metrics.measure(metrics.METRICS, original, original)
    good, bad = (metrics.measure(metrics.METRICS, original, x) for x in (fine, coarse))
    assert list(best) == list(metrics.METRICS)
    for name in metrics.METRICS:
        assert best[name] > good[name] > bad[name], name
        if "psnr" in name:
            assert best[name] == metrics.IDENTICAL_DB
        elif name != "vmaf":  # a regression, not normalized
            assert best[name] == pytest.approx(1, abs=1e-6), name


@pytest.mark.parametrize("shape", [(1, 1), (7, 200), (65, 33)])
@pytest.mark.parametrize("flat", [True, False])
def test_pictures_of_any_size_and_content_have_finite_values(shape: tuple[int, int], flat: bool, picture) -> None:
    original = np.full((*shape, 3), 90, np.uint8) if flat else picture(*shape)
    values = metrics.measure(metrics.METRICS, original, original ^ np.uint8(4))
    assert np.isfinite(list(values.values())).all(), values


def test_names_of_the_command_line() -> None:
    assert metrics.parse_metrics("jpeg-ai") == metrics.JPEG_AI
    assert metrics.parse_metrics("rgb_psnr,jpeg-ai,fsim") == ("rgb_psnr", *metrics.JPEG_AI)
    assert metrics.parse_metrics("all") == tuple(metrics.METRICS)
    with pytest.raises(PlicError, match="no metric 'ssim'"):
        metrics.parse_metrics("ssim")
