"""JPEG AI's metrics of luma, differentiable: MS-SSIM, VIFp, NLPD, VMAF and PSNR-HVS-M.

Each is what `profiling.evaluation.metrics` measures, except for the pixels along the borders of a crop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .banded import Filter, band, band_matrix, both, filtered, gaussian
from .metric_tables import MS_SSIM_EXPONENTS, NLPD_CONSTANTS, NLPD_NEIGHBOURS, NLPD_TAPS


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
    """MS-SSIM [B] (Wang, Simoncelli, Bovik, "Multi-scale structural similarity", Asilomar 2003) of lumas [B, H, W]."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    product = torch.ones(len(a), device=a.device)
    for level, exponent in enumerate(MS_SSIM_EXPONENTS):
        mean_a, mean_b, variance_a, variance_b, covariance = _moments(a, b, gaussian(11, 1.5))
        similarity = (2 * covariance + c2) / (variance_a + variance_b + c2)
        if level == len(MS_SSIM_EXPONENTS) - 1:
            similarity = similarity * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        product = product * similarity.mean((1, 2)).clamp(min=1e-3) ** exponent
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return product


def nlpd(a: Tensor, b: Tensor) -> Tensor:
    """1 - the normalized Laplacian pyramid distance, [B] (Laparra, Ballé, Berardino, Simoncelli 2016)."""
    distance = torch.zeros(len(a), device=a.device)
    for band_a, band_b in zip(_normalized_bands(a), _normalized_bands(b), strict=True):
        distance = distance + ((band_a - band_b).square().mean((1, 2)) + 1e-8).sqrt() / len(NLPD_CONSTANTS)
    return 1 - distance


def _normalized_bands(x: Tensor) -> Iterator[Tensor]:
    """The Laplacian pyramid of [B, H, W], finest band first, each value divided by its neighbours' magnitudes."""
    plane = x / 255
    for base, (above, left, right, below) in zip(NLPD_CONSTANTS, NLPD_NEIGHBOURS, strict=True):
        low = filtered(plane, NLPD_TAPS, 2, 2, 2)
        h, w = plane.shape[1:]
        wide = both(low, *(_interpolation(side, x.device) for side in low.shape[1:]))[:, :h, :w]
        high = plane - wide
        around = F.pad(high.abs()[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
        divisor = base + above * around[:, :-2, 1:-1] + below * around[:, 2:, 1:-1]
        divisor = divisor + left * around[:, 1:-1, :-2] + right * around[:, 1:-1, 2:]
        yield high / divisor
        plane = low


def psnr_hvs_m(a: Tensor, b: Tensor) -> Tensor:
    """PSNR-HVS-M [B] in dB (Ponomarenko and others 2007), of whole blocks of 8x8."""
    blocks = [_blocks(x / 255) for x in (a, b)]
    basis = constant(_DCT, a.device)
    spectra = [basis @ x @ basis.T for x in blocks]
    with torch.no_grad():  # the error that a block's contrast hides
        mask = torch.maximum(*(_masking(*pair) for pair in zip(blocks, spectra, strict=True)))
    seen = ((spectra[0] - spectra[1]).abs() - mask[..., None, None] * constant(_HIDES, a.device)).clamp(min=0)
    error = (seen * constant(_SENSITIVITY, a.device)).square().sum((2, 3)).mean(1) / 64
    return -10 * torch.log10(error + 1e-9)


@contextmanager
def _exact_products() -> Iterator[None]:
    """Multiply in float32: a variance is a small difference of large sums, which TF32's 11 bits cannot give."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@cache
def constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """Nested numbers as float32, made once: a CUDA graph cannot copy them to the device."""
    return torch.tensor(values, dtype=torch.float32, device=device)


@cache
def _interpolation(n: int, device: torch.device) -> Filter:
    """Linear interpolation of n samples to 2n, then NLPD's taps."""
    matrix = torch.zeros(2 * n, n)
    for row in range(2 * n):
        position = row * (n - 1) / (2 * n - 1)
        first = min(int(position), n - 2)
        matrix[row, first] = 1 - (position - first)
        matrix[row, first + 1] = position - first
    return Filter((band_matrix(2 * n, NLPD_TAPS, 1, 2, 2, False) @ matrix).to(device))


def _moments(a: Tensor, b: Tensor, taps: tuple[float, ...], around: int = 0) -> tuple[Tensor, ...]:
    """Local means, variances and covariance."""
    # Two calls: the original has no gradient.
    mean_a, square_a = filtered(torch.cat([a, a * a]), taps, 1, around, around).chunk(2)
    mean_b, square_b, product = filtered(torch.cat([b, b * b, a * b]), taps, 1, around, around).chunk(3)
    variances = ((square_a - mean_a**2).clamp(min=0), (square_b - mean_b**2).clamp(min=0))
    return mean_a, mean_b, *variances, product - mean_a * mean_b


def _vif(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel-domain visual information fidelity (Sheikh, Bovik 2006): VIFp [B], and VMAF's terms by scale, [B, 4]."""
    noise = 2.0
    plain = [torch.zeros(len(a), device=a.device) for _ in range(2)]
    terms: list[tuple[Tensor, Tensor]] = []
    for size in (17, 9, 5, 3):
        taps, around = gaussian(size, size / 5), size // 2
        if terms:
            a, b = (filtered(x, taps, 2, around, around) for x in (a, b))
        _, _, variance_a, variance_b, covariance = _moments(a, b, taps, around)
        covariance = covariance.clamp(min=0)
        gain = covariance / (variance_a + 1e-10)
        rest = (variance_b - gain * covariance).clamp(min=1e-10)
        information = torch.log2(1 + gain**2 * variance_a / (rest + noise))
        total = torch.log2(1 + variance_a / noise)
        plain = [plain[0] + information.sum((1, 2)), plain[1] + total.sum((1, 2))]
        # VMAF has another rule for flat parts.
        busy = (variance_a >= noise).float()
        flat = (1 - busy) * (1 - variance_b * (4 / 255**2))
        terms.append(((busy * information + flat).sum((1, 2)), (busy * total + 1 - busy).sum((1, 2))))
    numerators, denominators = (torch.stack(parts, 1) for parts in zip(*terms, strict=True))
    # A flat picture has no information to lose: its VIFp is 1.
    return (plain[0] + 1e-6) / (plain[1] + 1e-6), numerators, denominators


def _detail_loss(a: Tensor, b: Tensor) -> Tensor:
    """VMAF's detail loss metric [B] (Li, Zhang, Ma, Ngan 2011; libvmaf's `adm`)."""
    kept, total = (torch.zeros(len(a), device=a.device) for _ in range(2))
    for sensitivity in _ADM_SENSITIVITY:
        (low_a, low_b), *pairs = zip(_wavelet(a), _wavelet(b), strict=True)
        with torch.no_grad():  # where only the contrast differs
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
        floor = 3 * ((h - 2 * top) * (w - 2 * left) / 32) ** (1 / 3)
        kept = kept + floor
        total = total + floor
        for f, (original, _), r in zip(sensitivity, pairs, restored, strict=True):
            kept = kept + _cubic_norm((r[inner].abs() * f - threshold).clamp(min=0))
            total = total + _cubic_norm(original[inner].abs() * f)
        a, b = low_a, low_b
    return kept / total


def _wavelet(x: Tensor) -> list[Tensor]:
    """The four half-size bands of [B, H, W]: low in both directions; high across rows, across columns, in both."""
    (low_rows, high_rows), (low_columns, high_columns) = (
        [band(side, taps, 2, 1, 1, True, x.device) for taps in (_DB2_LOW, _DB2_HIGH)] for side in x.shape[1:]
    )
    below, above = low_rows.along(x, 1), high_rows.along(x, 1)
    return [columns.along(half, 2) for columns in (low_columns, high_columns) for half in (below, above)]


def _cubic_norm(x: Tensor) -> Tensor:
    return (x**3).sum((1, 2)).clamp(min=1e-12) ** (1 / 3)


@cache
def _vmaf_regression(device: torch.device) -> Any:
    """VMAF v0.6.1 [B, 1] of its features [B, 6], by vmaf-torch."""
    from vmaf_torch.svm_predict import SVMPredict

    return SVMPredict().to(device)


def _blocks(x: Tensor) -> Tensor:
    """[B, blocks, 8, 8]"""
    h, w = (side // 8 for side in x.shape[1:])
    return x[:, : 8 * h, : 8 * w].reshape(-1, h, 8, w, 8).transpose(2, 3).reshape(len(x), -1, 8, 8)


def _masking(blocks: Tensor, spectra: Tensor) -> Tensor:
    """The error that a block's contrast hides, [B, blocks]; less where a quarter of the block is flat."""

    def variation(x: Tensor) -> Tensor:
        return torch.var(x, dim=(-1, -2)) * x.shape[-1] * x.shape[-2]

    energy = (spectra.square() * constant(_CONTRAST, blocks.device)).sum((2, 3))
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
