"""The loss for the eye measures what `evaluation.metrics` measures, and descending it raises all seven metrics."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from pocketlic.models import perceptual
from pocketlic.models.banded import Filter, band_matrix
from pocketlic.models.luma_metrics import luma_metrics
from pocketlic.models.network import rate_weight
from pocketlic.models.perceptual import luma_distortion, picture_bits, visual_bits
from pocketlic.profiling.evaluation import metrics

torch.set_num_threads(1)


def tensor(pixels):
    """uint8 [H, W, 3] to float [1, 3, H, W]"""
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None].contiguous()


def blurred(pixels, radius=0.8):
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


@pytest.fixture(scope="module")
def pair(picture):
    """A picture, and the same blurred and coarsely quantized."""
    original = picture(232, 304)
    return original, np.clip(np.round(blurred(original) / 9.0) * 9, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    # VIFp's border is mirrored here as VMAF's is, not cut off.
    [("ms_ssim", 1e-5), ("vif_p", 0.02), ("nlpd", 1e-5), ("vmaf", 0.05), ("psnr_hvs_m", 1e-3)],
)
def test_a_metric_is_the_one_that_is_reported(pair, name, tolerance):
    a, b = (metrics.luma(x) for x in pair)
    value = luma_metrics(*(torch.from_numpy(x.copy()).float()[None] for x in (a, b)))[name]
    assert value.item() == pytest.approx(metrics.METRICS[name].of(a, b), abs=tolerance)


def test_distortion_counts_each_metric_by_its_range_and_share(pair):
    a, b = (torch.from_numpy(metrics.luma(x).copy()).float()[None] for x in pair)
    values = luma_metrics(a, b)
    shared = 0.398 * (1 - values["ms_ssim"]) / 0.054 + 0.1925 * (1 - values["vif_p"]) / 0.38
    shared += 0.168 * (1 - values["nlpd"]) / 0.16 + 0.102 * (100 - values["vmaf"]) / 26.6
    shared += 0.1395 * (50 - values["psnr_hvs_m"]) / 16
    assert luma_distortion(a, b).item() == pytest.approx(shared.item(), rel=1e-4)


def test_pictures_of_a_batch_do_not_mix(pair):
    a, b = (tensor(x) for x in pair)
    quality = torch.tensor([30.0, 70.0])
    both = visual_bits(torch.cat([a, a]), torch.cat([b, a]), quality)
    alone = [visual_bits(a, x, q[None]).item() for x, q in ((b, quality[0]), (a, quality[1]))]
    assert both.tolist() == pytest.approx(alone, rel=1e-4)


def test_colour_counts_by_its_squared_error(picture):
    image = tensor(picture(192, 192)) * 0.5 + 64
    hue = torch.tensor([0.7152, -0.2126, 0.0])[:, None, None] * 8  # of equal luma
    quality = torch.tensor([40.0])
    added = visual_bits(image, image + hue, quality) - visual_bits(image, image, quality)
    cb, cr = (8 * (row[0] * 0.7152 - row[1] * 0.2126) for row in perceptual.YCBCR[1:])
    expected = (perceptual.CHROMA_WEIGHT + perceptual.CHROMA_BLOCK_WEIGHT) * rate_weight(quality) * (cb**2 + cr**2)
    assert added.item() == pytest.approx(expected.item(), rel=0.01)
    board = torch.tensor([1.0, -1.0]).repeat(96)
    fine = visual_bits(image, image + hue * board * board[:, None], quality) - visual_bits(image, image, quality)
    expected = perceptual.CHROMA_WEIGHT * rate_weight(quality) * (cb**2 + cr**2)  # the blocks have kept their colour
    assert fine.item() == pytest.approx(expected.item(), rel=0.01)


def test_descending_the_loss_raises_all_seven_metrics(pair):
    original, start = pair
    a, quality = tensor(original), torch.tensor([50.0])
    x = tensor(start).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.5)
    for _ in range(12):
        optimizer.zero_grad()
        visual_bits(a, x, quality).sum().backward()
        assert torch.isfinite(x.grad).all()
        optimizer.step()
    end = x.detach()[0].permute(1, 2, 0).round().clamp(0, 255).numpy().astype(np.uint8)
    names = tuple(metrics.JPEG_AI)
    before, after = (metrics.measure(names, original, y) for y in (start, end))
    assert {name for name in names if after[name] <= before[name]} == set()


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize(("n", "stride"), [(7, 1), (64, 2), (65, 1), (300, 1), (301, 2)])
def test_a_banded_product_is_the_whole_matrix_s(n, stride, axis):
    """And so is its gradient, for sides below, at and above a block's."""
    matrix = band_matrix(n, (0.1, 0.2, 0.4, 0.2, 0.1), stride, 2, 2, False)
    x = torch.randn(2, 5, n, generator=torch.Generator().manual_seed(n))
    whole = x.requires_grad_()
    expected = whole @ matrix.T
    banded = (x.detach().transpose(1, 2) if axis == 1 else x.detach()).requires_grad_()
    y = Filter(matrix).along(banded, axis)
    for values in (expected, y):
        values.square().sum().backward()
    results = (y, banded.grad) if axis == 2 else (y.transpose(1, 2), banded.grad.transpose(1, 2))
    torch.testing.assert_close(results, (expected, whole.grad))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_pictures_have_finite_gradients(value):
    flat = torch.full((1, 3, 192, 192), float(value))
    for decoded in (flat.clone(), flat + 3 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))):
        decoded.requires_grad_()
        visual_bits(flat, decoded, torch.tensor([50.0])).sum().backward()
        assert torch.isfinite(decoded.grad).all()


def test_a_picture_is_measured_in_parts(picture):
    original = picture(200, 530)
    a, b = tensor(original), tensor(blurred(original))
    quality = torch.tensor([50.0])
    halves = [
        visual_bits(a[..., :264], b[..., :264], quality) * 200 * 264,
        visual_bits(a[..., 264:], b[..., 264:], quality) * 200 * 266,
    ]
    assert picture_bits(a, b, quality).item() == pytest.approx(sum(halves).item(), rel=1e-5)
    # Sides of any length are covered once, in parts large enough for every metric.
    for side in (1, 7, 161, 512, 513, 1025, 4096, 12345):
        parts = perceptual._parts(side)
        assert [p.start for p in parts[1:]] == [p.stop for p in parts[:-1]]
        assert (parts[0].start, parts[-1].stop) == (0, side)
        assert all(p.stop - p.start <= 520 for p in parts)
        assert side <= 512 or all(p.stop - p.start >= 192 for p in parts)


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (161, 7)])
def test_small_pictures_are_continued(picture, size):
    original = picture(*size)
    decoded = tensor(original) + 4
    decoded.requires_grad_()
    bits = picture_bits(tensor(original), decoded, torch.tensor([50.0]))
    bits.sum().backward()
    assert torch.isfinite(decoded.grad).all()
    assert torch.isfinite(bits).all()
