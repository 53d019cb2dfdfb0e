"""JPEG AI's metrics as a loss: differentiable, on the luma of batches of crops or of a whole picture.

Of the seven metrics five are here; MS-SSIM also stands in for IW-SSIM and FSIM, whose values move with it. Each is
what `profiling.evaluation.metrics` measures, but for the pixels along the borders of a crop.

Filtering is a product with a banded matrix from either side: for one channel a CPU does that several times faster
than a convolution, backward above all. Of the matrix only the blocks along its band are multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .metric_tables import MS_SSIM_EXPONENTS, NLPD_CONSTANTS, NLPD_NEIGHBOURS, NLPD_TAPS
from .network import rate_weight

YCBCR = ((0.2126, 0.7152, 0.0722), (-0.1146, -0.3854, 0.5), (0.5, -0.4542, -0.0458))  # BT.709

# How much of each metric lies between 0.14 and 1.5 bits per pixel on Kodak, where our curves and VVC's overlap, and
# for how many of the seven it stands, times the rate that we took in relation to VVC when they were chosen: the mean is
# of percentages of VVC's rate, in which the same part of ours is more where we take more. A BD-rate is an average over
# the metric's axis, so that a gain of one metric counts in proportion to its own range, at whatever rate it is made.
RANGES = {"ms_ssim": 0.054, "vif_p": 0.38, "nlpd": 0.16, "vmaf": 26.6, "psnr_hvs_m": 16.0}
SHARES = {"ms_ssim": 0.398, "vif_p": 0.1925, "nlpd": 0.168, "vmaf": 0.102, "psnr_hvs_m": 0.1395}
BEST = {"ms_ssim": 1.0, "vif_p": 1.0, "nlpd": 1.0, "vmaf": 100.0, "psnr_hvs_m": 50.0}

SMALLEST = 192  # pixels: a side below that is continued by its last pixels
LARGEST = 512  # pixels: pictures are measured in parts, not much larger than the crops that weights are trained on
BLOCK = 64  # rows of a matrix that are multiplied at a time

# Bits per pixel that a unit of luma's distortion is worth at qualities 0 and 100: the slopes that weights tuned for
# MS-SSIM had there on Kodak.
LUMA_WEIGHTS = (0.0485, 10.2)
# Of squared error in Cb and in Cr, beside RGB's in `rate_weight`, as no metric looks at colour: of each pixel, and of
# the mean of blocks, whose errors are seen as shifts of colour.
CHROMA_WEIGHT, CHROMA_BLOCK_WEIGHT, CHROMA_BLOCK = 0.24, 1.0, 8


def visual_bits(original: Tensor, decoded: Tensor, quality: Tensor) -> Tensor:
    """What the errors of decoded RGB [B, 3, H, W], 0..255, are worth at qualities [B], 0 to 100: bits per pixel [B]."""
    matrix = _constant(YCBCR, original.device)
    a, b = (torch.einsum("oc,bchw->bohw", matrix, x) for x in (original, decoded))
    low, high = LUMA_WEIGHTS
    luma = low * (high / low) ** (quality / 100) * luma_distortion(a[:, 0], b[:, 0])
    chroma = a[:, 1:] - b[:, 1:]
    blocks = F.avg_pool2d(chroma, CHROMA_BLOCK, ceil_mode=True)
    squared, of_blocks = (x.square().sum(1).mean((1, 2)) for x in (chroma, blocks))
    return luma + rate_weight(quality) * (CHROMA_WEIGHT * squared + CHROMA_BLOCK_WEIGHT * of_blocks)


def picture_bits(original: Tensor, decoded: Tensor, quality: Tensor) -> Tensor:
    """`visual_bits` of pictures of any size, for all of their pixels: bits [B]."""
    bits = torch.zeros(len(original), device=original.device)
    rows, columns = (_parts(side) for side in original.shape[2:])
    for row in rows:
        for column in columns:
            a, b = (x[:, :, row, column] for x in (original, decoded))
            bits = bits + visual_bits(a, b, quality) * (a.shape[2] * a.shape[3])
    return bits


def _parts(side: int) -> list[slice]:
    """A side in parts of about equal length, `LARGEST` at most, that begin on blocks of 8."""
    count = math.ceil(side / LARGEST)
    bounds = [side * i // count // 8 * 8 for i in range(count)] + [side]
    return [slice(start, end) for start, end in pairwise(bounds)]


def luma_distortion(a: Tensor, b: Tensor) -> Tensor:
    """How far lumas [B, H, W] in 0..255, a the original, fall short of the best values: [B], about 0 to 1.

    A unit is the range of the metrics on Kodak from 0.14 to 1.5 bits per pixel.
    """
    a, b = (_enlarged(x) for x in (a, b))
    values = luma_metrics(a, b)
    # Flat pictures exceed the best value of PSNR-HVS-M: no negative cost for that.
    short = {name: (BEST[name] - values[name]).clamp(min=0) for name in SHARES}
    return sum((SHARES[name] / RANGES[name] * short[name] for name in SHARES), torch.zeros(()))


def luma_metrics(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """MS-SSIM, VIFp, 1 - NLPD, VMAF and PSNR-HVS-M, each [B], of lumas [B, H, W] in 0..255, sides 161 or more."""
    with _exact_products():
        vif, numerators, denominators = _vif(a - 128, b - 128)
        motion = torch.zeros_like(vif)
        features = torch.cat([_detail_loss(a, b)[:, None], motion[:, None], numerators / denominators], 1)
        return {
            "ms_ssim": ms_ssim(a, b),
            "vif_p": vif,
            "nlpd": nlpd(a, b),
            "vmaf": _vmaf_regression(a.device)(features).flatten(),
            "psnr_hvs_m": psnr_hvs_m(a, b),
        }


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Wang, Simoncelli, Bovik 2003."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    product = torch.ones(len(a), device=a.device)
    for level, exponent in enumerate(MS_SSIM_EXPONENTS):
        mean_a, mean_b, variance_a, variance_b, covariance = _moments(a, b, _gaussian(11, 1.5))
        similarity = (2 * covariance + c2) / (variance_a + variance_b + c2)
        if level == len(MS_SSIM_EXPONENTS) - 1:
            similarity = similarity * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        product = product * similarity.mean((1, 2)).clamp(min=1e-3) ** exponent
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return product


def nlpd(a: Tensor, b: Tensor) -> Tensor:
    """1 - the normalized Laplacian pyramid distance (Laparra, Ballé, Berardino, Simoncelli 2016)."""
    distance = torch.zeros(len(a), device=a.device)
    for band_a, band_b in zip(_normalized_bands(a), _normalized_bands(b), strict=True):
        distance = distance + ((band_a - band_b).square().mean((1, 2)) + 1e-8).sqrt() / len(NLPD_CONSTANTS)
    return 1 - distance


def _normalized_bands(x: Tensor) -> Iterator[Tensor]:
    """The Laplacian pyramid of [B, H, W], from fine to coarse, each value divided by what is around it."""
    plane = x / 255
    for constant, (above, left, right, below) in zip(NLPD_CONSTANTS, NLPD_NEIGHBOURS, strict=True):
        low = _filtered(plane, NLPD_TAPS, 2, 2, 2)
        h, w = plane.shape[1:]
        wide = _both(low, *(_interpolation(side, x.device) for side in low.shape[1:]))[:, :h, :w]
        band = plane - wide
        around = F.pad(band.abs()[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
        divisor = constant + above * around[:, :-2, 1:-1] + below * around[:, 2:, 1:-1]
        divisor = divisor + left * around[:, 1:-1, :-2] + right * around[:, 1:-1, 2:]
        yield band / divisor
        plane = low


def psnr_hvs_m(a: Tensor, b: Tensor) -> Tensor:
    """In dB (Ponomarenko and others 2007); whole blocks of 8x8 only."""
    blocks = [_blocks(x / 255) for x in (a, b)]
    basis = _constant(_DCT, a.device)
    spectra = [basis @ x @ basis.T for x in blocks]
    with torch.no_grad():  # what is hidden behind a block's own contrast
        mask = torch.maximum(*(_masking(*pair) for pair in zip(blocks, spectra, strict=True)))
    seen = ((spectra[0] - spectra[1]).abs() - mask[..., None, None] * _constant(_HIDES, a.device)).clamp(min=0)
    error = (seen * _constant(_SENSITIVITY, a.device)).square().sum((2, 3)).mean(1) / 64
    return -10 * torch.log10(error + 1e-9)


def _enlarged(x: Tensor) -> Tensor:
    h, w = x.shape[1:]
    return F.pad(x[:, None], (0, max(0, SMALLEST - w), 0, max(0, SMALLEST - h)), mode="replicate")[:, 0]


@contextmanager
def _exact_products() -> Iterator[None]:
    """A variance is a small difference of great sums: 11 bits of precision, as tensor cores have, do not do."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@cache
def _constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _gaussian(size: int, sigma: float) -> tuple[float, ...]:
    taps = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
    return tuple(tap / sum(taps) for tap in taps)


class _Banded:
    """A matrix whose nonzero entries lie along a band: blocks of its rows, each with the columns that it needs."""

    def __init__(self, matrix: Tensor) -> None:
        # A GPU would rather multiply all of it than start a kernel for every block.
        size = BLOCK if matrix.device.type == "cpu" else len(matrix)
        self.outputs = len(matrix)
        self.blocks: list[tuple[slice, slice, Tensor]] = []
        for start in range(0, len(matrix), size):
            rows = matrix[start : start + size]
            used = rows.any(0).nonzero()
            columns = slice(int(used[0]), int(used[-1]) + 1)
            self.blocks.append((slice(start, start + len(rows)), columns, rows[:, columns].contiguous()))

    def times(self, x: Tensor, axis: int) -> Tensor:
        """The product along axis 1 or 2 of [B, H, W]."""
        if axis == 1:
            return torch.cat([block @ x[:, columns] for _, columns, block in self.blocks], 1)
        flat = x.reshape(-1, x.shape[2])
        y = x.new_empty(len(flat), self.outputs)
        for rows, columns, block in self.blocks:
            torch.mm(flat[:, columns], block.T, out=y[:, rows])
        return y.view(*x.shape[:2], -1)


class _Product(torch.autograd.Function):
    """`_Banded.times` with the gradient of x, by the transposed matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: _Banded, transposed: _Banded, axis: int) -> Tensor:
        ctx.transposed, ctx.axis = transposed, axis
        return matrix.times(x, axis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.transposed.times(grad, ctx.axis), None, None, None


_Filter = tuple[_Banded, _Banded]
"""A matrix [outputs, n] and its transpose."""


def _filter(matrix: Tensor) -> _Filter:
    return _Banded(matrix), _Banded(matrix.T)


def _along(x: Tensor, filter: _Filter, axis: int) -> Tensor:
    """[B, H, W] filtered along axis 1 or 2."""
    return _Product.apply(x, *filter, axis)  # type: ignore[no-any-return,no-untyped-call]


def _both(x: Tensor, rows: _Filter, columns: _Filter) -> Tensor:
    """[B, H, W] filtered along both axes."""
    return _along(_along(x, rows, 1), columns, 2)


@cache
def _band(
    n: int, taps: tuple[float, ...], stride: int, before: int, after: int, repeat: bool, device: torch.device
) -> _Filter:
    """Filtering n samples with so many mirrored ones beside them; the last sample once more or not."""
    return _filter(_band_matrix(n, taps, stride, before, after, repeat).to(device))


def _band_matrix(n: int, taps: tuple[float, ...], stride: int, before: int, after: int, repeat: bool) -> Tensor:
    """[outputs, n]"""
    samples = list(range(n))
    samples += samples[n - after :][::-1] if repeat else samples[n - 1 - after : n - 1][::-1]
    samples = samples[1 : before + 1][::-1] + samples
    matrix = torch.zeros((len(samples) - len(taps)) // stride + 1, n, dtype=torch.float64)
    for row in range(len(matrix)):
        for k, tap in enumerate(taps):
            matrix[row, samples[row * stride + k]] += tap
    return matrix.float()


def _filtered(
    x: Tensor, taps: tuple[float, ...], stride: int = 1, before: int = 0, after: int = 0, repeat: bool = False
) -> Tensor:
    """[B, H, W] filtered along both axes."""
    rows, columns = (_band(n, taps, stride, before, after, repeat, x.device) for n in x.shape[1:])
    return _both(x, rows, columns)


def _moments(a: Tensor, b: Tensor, taps: tuple[float, ...], around: int = 0) -> tuple[Tensor, ...]:
    """Local means, variances and covariance."""
    # Apart, for the original has no gradient.
    mean_a, square_a = _filtered(torch.cat([a, a * a]), taps, 1, around, around).chunk(2)
    mean_b, square_b, product = _filtered(torch.cat([b, b * b, a * b]), taps, 1, around, around).chunk(3)
    variances = ((square_a - mean_a**2).clamp(min=0), (square_b - mean_b**2).clamp(min=0))
    return mean_a, mean_b, *variances, product - mean_a * mean_b


def _vif(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel-domain visual information fidelity (Sheikh, Bovik 2006): VIFp [B], and VMAF's terms by scale, [B, 4]."""
    noise = 2.0
    plain = [torch.zeros(len(a), device=a.device) for _ in range(2)]
    terms: list[tuple[Tensor, Tensor]] = []
    for size in (17, 9, 5, 3):
        taps, around = _gaussian(size, size / 5), size // 2
        if terms:
            a, b = (_filtered(x, taps, 2, around, around) for x in (a, b))
        _, _, variance_a, variance_b, covariance = _moments(a, b, taps, around)
        covariance = covariance.clamp(min=0)
        gain = covariance / (variance_a + 1e-10)
        rest = (variance_b - gain * covariance).clamp(min=1e-10)
        information = torch.log2(1 + gain**2 * variance_a / (rest + noise))
        total = torch.log2(1 + variance_a / noise)
        plain = [plain[0] + information.sum((1, 2)), plain[1] + total.sum((1, 2))]
        # VMAF judges flat parts by their own rule.
        busy = (variance_a >= noise).float()
        flat = (1 - busy) * (1 - variance_b * (4 / 255**2))
        terms.append(((busy * information + flat).sum((1, 2)), (busy * total + 1 - busy).sum((1, 2))))
    numerators, denominators = (torch.stack(parts, 1) for parts in zip(*terms, strict=True))
    # A flat picture has no information to lose: 1.
    return (plain[0] + 1e-6) / (plain[1] + 1e-6), numerators, denominators


def _detail_loss(a: Tensor, b: Tensor) -> Tensor:
    """VMAF's detail loss metric [B] (Li, Zhang, Ma, Ngan 2011; libvmaf's `adm`)."""
    kept, total = (torch.zeros(len(a), device=a.device) for _ in range(2))
    for sensitivity in _ADM_SENSITIVITY:
        (low_a, low_b), *pairs = zip(_wavelet(a), _wavelet(b), strict=True)
        with torch.no_grad():  # where the picture only has another contrast
            (oh, th), (ov, tv) = pairs[:2]
            dot = oh * th + ov * tv
            parallel = dot**2 >= math.cos(math.pi / 180) ** 2 * (oh**2 + ov**2) * (th**2 + tv**2)
            same = (parallel & (dot >= 0)).float()
        restored = []
        for original, decoded in pairs:
            within = torch.minimum(torch.maximum(decoded, original.clamp(max=0)), original.clamp(min=0))
            restored.append(within + same * (within.detach() != 0).float() * (decoded - within))
        added = [f * (pair[1] - r).abs() for f, pair, r in zip(sensitivity, pairs, restored, strict=True)]
        impairment = torch.stack(added).sum(0)
        h, w = impairment.shape[1:]
        top, left = int(h * 0.1 - 0.5), int(w * 0.1 - 0.5)
        inner = (slice(None), slice(top, h - top), slice(left, w - left))
        around = F.avg_pool2d(impairment[:, None], 3, 1)[:, 0] * 9
        threshold = ((around + impairment[:, 1:-1, 1:-1]) / 30)[:, top - 1 : h - top - 1, left - 1 : w - left - 1]
        constant = 3 * ((h - 2 * top) * (w - 2 * left) / 32) ** (1 / 3)
        kept = kept + constant
        total = total + constant
        for f, (original, _), r in zip(sensitivity, pairs, restored, strict=True):
            kept = kept + _cubic_norm((r[inner].abs() * f - threshold).clamp(min=0))
            total = total + _cubic_norm(original[inner].abs() * f)
        a, b = low_a, low_b
    return kept / total


def _wavelet(x: Tensor) -> list[Tensor]:
    """[B, H, W] by halves: low in both directions; high across rows, across columns, in both."""
    (low_rows, high_rows), (low_columns, high_columns) = (
        [_band(side, taps, 2, 1, 1, True, x.device) for taps in (_DB2_LOW, _DB2_HIGH)] for side in x.shape[1:]
    )
    below, above = _along(x, low_rows, 1), _along(x, high_rows, 1)
    return [_along(half, columns, 2) for columns in (low_columns, high_columns) for half in (below, above)]


def _cubic_norm(x: Tensor) -> Tensor:
    return (x**3).sum((1, 2)).clamp(min=1e-12) ** (1 / 3)


@cache
def _vmaf_regression(device: torch.device) -> Any:
    """VMAF v0.6.1 [B, 1] of its features [B, 6], by vmaf-torch."""
    from vmaf_torch.svm_predict import SVMPredict

    return SVMPredict().to(device)


@cache
def _interpolation(n: int, device: torch.device) -> _Filter:
    """n samples to twice as many, linearly from the first to the last, then NLPD's taps."""
    matrix = torch.zeros(2 * n, n)
    for row in range(2 * n):
        position = row * (n - 1) / (2 * n - 1)
        first = min(int(position), n - 2)
        matrix[row, first] = 1 - (position - first)
        matrix[row, first + 1] = position - first
    return _filter((_band_matrix(2 * n, NLPD_TAPS, 1, 2, 2, False) @ matrix).to(device))


def _blocks(x: Tensor) -> Tensor:
    """[B, blocks, 8, 8]"""
    h, w = (side // 8 for side in x.shape[1:])
    return x[:, : 8 * h, : 8 * w].reshape(-1, h, 8, w, 8).transpose(2, 3).reshape(len(x), -1, 8, 8)


def _masking(blocks: Tensor, spectra: Tensor) -> Tensor:
    """[B, blocks]: the error that a block's contrast hides, less where a quarter of it is flat."""

    def variation(x: Tensor) -> Tensor:
        return torch.var(x, dim=(-1, -2)) * x.shape[-1] * x.shape[-2]

    energy = (spectra.square() * _constant(_CONTRAST, blocks.device)).sum((2, 3))
    half = (slice(0, 4), slice(4, 8))
    quarters = torch.stack([variation(blocks[..., rows, columns]) for rows in half for columns in half]).sum(0)
    return (energy * quarters / (variation(blocks) + 1e-9) / (16 * 64)).sqrt()


_DB2_LOW = (0.482962913144690, 0.836516303737469, 0.224143868041857, -0.129409522550921)
_DB2_HIGH = (-0.129409522550921, -0.224143868041857, 0.836516303737469, -0.482962913144690)
_ADM_SENSITIVITY = (  # of the eye to the three bands of each scale
    (0.017382, 0.017382, 0.005891),
    (0.031985, 0.031985, 0.014299),
    (0.043373, 0.043373, 0.024397),
    (0.045673, 0.045673, 0.031313),
)

_DCT = tuple(
    tuple(math.cos(math.pi * (2 * j + 1) * i / 16) * math.sqrt((1 if i == 0 else 2) / 8) for j in range(8))
    for i in range(8)
)
# PSNR-HVS-M takes the eye's sensitivity from JPEG's quantization table (ITU-T T.81, table K.1).
_JPEG_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_SENSITIVITY = tuple(tuple(25.735088 / q for q in row) for row in _JPEG_LUMA)
# The mean of a block neither masks nor is masked.
_CONTRAST = tuple(tuple((10 / q) ** 2 if i + j else 0.0 for j, q in enumerate(row)) for i, row in enumerate(_JPEG_LUMA))
_HIDES = tuple(tuple((q / 10) ** 2 if i + j else 0.0 for j, q in enumerate(row)) for i, row in enumerate(_JPEG_LUMA))
