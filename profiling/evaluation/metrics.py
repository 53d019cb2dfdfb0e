"""How much a decoded picture differs from its original. Higher is better in all of them.

Beside two PSNRs, the seven metrics of JPEG AI's common test conditions, computed as its reference software
does it (except that FSIM looks at luma only, and that luma is not rounded): on BT.709 full-range luma;
pictures too small for a metric's pyramid are extended with zeros; NLPD, a distance, counts as 1 - NLPD.
`JPEG_AI` names the seven, `METRICS` describes all. MS-SSIM, VMAF and PSNR-HVS-M come from libraries; the tests compare
the others with libraries, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ...codec.errors import PlicError
from ...codec.figures import psnr
from ...models.errors import install_command
from ...models.metric_tables import MS_SSIM_EXPONENTS, NLPD_CONSTANTS, NLPD_NEIGHBOURS, NLPD_TAPS

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float64]

IDENTICAL_DB = 100.0
"""What the PSNRs give for no difference at all, where the formula says infinity."""

# ITU-R BT.709, full range: rows are Y, Cb, Cr of RGB.
_KR, _KB = 0.2126, 0.0722
_YCBCR = np.array(
    [
        [_KR, 1 - _KR - _KB, _KB],
        [-_KR / (2 - 2 * _KB), -(1 - _KR - _KB) / (2 - 2 * _KB), 0.5],
        [0.5, -(1 - _KR - _KB) / (2 - 2 * _KR), -_KB / (2 - 2 * _KR)],
    ]
)


def ycbcr(pixels: Pixels) -> Plane:
    """BT.709 full-range YCbCr, float [H, W, 3]: Y in 0..255, Cb and Cr in -127.5..127.5, not rounded."""
    return np.asarray(pixels.astype(np.float64) @ _YCBCR.T)


def luma(pixels: Pixels) -> Plane:
    """The Y of `ycbcr`, float [H, W] in 0..255."""
    return np.asarray(np.clip(pixels.astype(np.float64) @ _YCBCR[0], 0, 255))


def rgb_psnr(original: Pixels, decoded: Pixels) -> float:
    """PSNR in dB over all samples of RGB, as CompressAI's tables have it."""
    return min(psnr(original, decoded), IDENTICAL_DB)


def yuv_psnr(original: Pixels, decoded: Pixels) -> float:
    """(6 Y + Cb + Cr) / 8 of the planes' PSNRs in dB, at full resolution."""
    a, b = ycbcr(original), ycbcr(decoded)
    y, cb, cr = (min(psnr(a[:, :, i], b[:, :, i]), IDENTICAL_DB) for i in range(3))
    return (6 * y + cb + cr) / 8


def ms_ssim(a: Plane, b: Plane) -> float:
    """Multi-scale SSIM of lumas (Wang, Simoncelli, Bovik 2003), by pytorch-msssim."""
    from pytorch_msssim import ms_ssim as library

    return float(library(*(_tensor(_at_least(x, 164)) for x in (a, b)), data_range=255))


def vif_p(a: Plane, b: Plane) -> float:
    """Visual information fidelity of lumas in the pixel domain (Sheikh, Bovik 2006; `vifp_mscale.m`)."""
    a, b = _at_least(a, 64), _at_least(b, 64)
    noise, tiny = 2.0, 1e-10
    information = total = 0.0
    for size in (17, 9, 5, 3):
        window = _gaussian(size, size / 5)
        if size < 17:
            a, b = _valid(a, window)[::2, ::2], _valid(b, window)[::2, ::2]
        variance_a, variance_b, gain, rest = _channel(a, b, window, tiny)
        flat_a, flat_b = variance_a < tiny, variance_b < tiny
        rest[flat_a] = variance_b[flat_a]
        rest[flat_b] = 0
        variance_a = np.where(flat_a, 0, variance_a)
        opposed = gain < 0
        rest[opposed] = variance_b[opposed]
        gain[opposed] = 0
        information += float(np.log10(1 + gain**2 * variance_a / (np.maximum(rest, tiny) + noise)).sum())
        total += float(np.log10(1 + variance_a / noise).sum())
    return float(information / total) if total else 1.0


def fsim(a: Plane, b: Plane) -> float:
    """Feature similarity of lumas (Zhang, Zhang, Mou, Zhang 2011): phase congruency and gradients."""
    a, b = _at_least(a, 64), _at_least(b, 64)
    block = max(1, round(min(a.shape) / 256))
    a, b = _block_means(a, block), _block_means(b, block)
    congruency_a, congruency_b = _phase_congruency(a), _phase_congruency(b)
    gradient_a, gradient_b = _scharr(a), _scharr(b)
    similarity = _similarity(congruency_a, congruency_b, 0.85) * _similarity(gradient_a, gradient_b, 160)
    weight = np.maximum(congruency_a, congruency_b)
    return float((similarity * weight).sum() / weight.sum()) if weight.any() else 1.0


def nlpd(a: Plane, b: Plane) -> float:
    """1 - the normalized Laplacian pyramid distance of lumas (Laparra, Ballé, Berardino, Simoncelli 2016)."""
    pyramids = [_normalized_pyramid(_at_least(x, 128) / 255) for x in (a, b)]
    return 1 - float(np.mean([np.sqrt(np.mean((x - y) ** 2)) for x, y in zip(*pyramids, strict=True)]))


def iw_ssim(a: Plane, b: Plane) -> float:
    """Information-content weighted multi-scale SSIM of lumas (Wang, Li 2011)."""
    bands_a, bands_b = (_laplacian_pyramid(_at_least(x, 256), 4) for x in (a, b))
    window, crop = _gaussian(11, 1.5), 4
    product = 1.0
    for level, (x, y, exponent) in enumerate(zip(bands_a, bands_b, MS_SSIM_EXPONENTS, strict=True)):
        mean_x, mean_y, variance_x, variance_y, covariance = _moments(x, y, window)
        contrast = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
        if level == len(MS_SSIM_EXPONENTS) - 1:
            score = float(np.mean(contrast * (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)))
        else:
            parent = bands_a[level + 1] if level < len(MS_SSIM_EXPONENTS) - 2 else None
            weight = _information_content(x, y, parent)[crop:-crop, crop:-crop]
            score = float(np.sum(contrast * weight) / np.sum(weight)) if weight.any() else 1.0
        product *= abs(score) ** exponent
    return product


def vmaf(a: Plane, b: Plane) -> float:
    """VMAF v0.6.1 of lumas as of a film of one frame (no motion), 0 to 100, by vmaf-torch."""
    import torch

    with torch.no_grad():
        score = _vmaf()(*(_tensor(_at_least(x, 64)) for x in (a, b)))
    return float(np.clip(float(score), 0, 100))


def psnr_hvs_m(a: Plane, b: Plane) -> float:
    """PSNR-HVS-M of lumas in dB (Ponomarenko and others 2007), by psnr-hvsm."""
    return _psnr_hvs(a, b)[1]


def psnr_hvs(a: Plane, b: Plane) -> float:
    """PSNR-HVS of lumas in dB (Egiazarian and others 2006), by psnr-hvsm: no masking.

    JPEG AI's reference software reports this one where its test conditions name PSNR-HVS-M.
    """
    return _psnr_hvs(a, b)[0]


@dataclass(frozen=True)
class Metric:
    """A metric of an original and a decoded picture.

    label: what reports call it. of: computes it, from two lumas if `luma`, else from two pictures. unit: dB or nothing.
    package: the distribution that it needs, whose version matters, and the module of that.
    """

    label: str
    of: Callable[[NDArray[Any], NDArray[Any]], float]
    luma: bool = True
    unit: str = ""
    package: str = ""
    module: str = ""

    @property
    def axis(self) -> str:
        """The label with the unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


METRICS = {
    "rgb_psnr": Metric("RGB-PSNR", rgb_psnr, False, "dB"),
    "yuv_psnr": Metric("YUV-PSNR 6:1:1", yuv_psnr, False, "dB"),
    "ms_ssim": Metric("MS-SSIM", ms_ssim, package="pytorch-msssim", module="pytorch_msssim"),
    "vif_p": Metric("VIFp", vif_p),
    "fsim": Metric("FSIM", fsim),
    "nlpd": Metric("1 - NLPD", nlpd),
    "iw_ssim": Metric("IW-SSIM", iw_ssim),
    "vmaf": Metric("VMAF", vmaf, package="vmaf-torch", module="vmaf_torch"),
    "psnr_hvs_m": Metric("PSNR-HVS-M", psnr_hvs_m, unit="dB", package="psnr-hvsm", module="psnr_hvsm"),
    "psnr_hvs": Metric("PSNR-HVS", psnr_hvs, unit="dB", package="psnr-hvsm", module="psnr_hvsm"),
}
JPEG_AI = ("ms_ssim", "vif_p", "fsim", "nlpd", "iw_ssim", "vmaf", "psnr_hvs_m")
LIBRARIES = tuple(dict.fromkeys(metric.package for metric in METRICS.values() if metric.package))
"""Distributions whose version determines a metric."""


def measure(names: Iterable[str], original: Pixels, decoded: Pixels) -> dict[str, float]:
    """The named metrics of uint8 [H, W, 3] RGB pictures of one size."""
    lumas = cache(lambda: (luma(original), luma(decoded)))
    return {name: METRICS[name].of(*(lumas() if METRICS[name].luma else (original, decoded))) for name in names}


def value_text(value: float) -> str:
    """A metric's value, with the digits that matter."""
    return f"{value:.{3 if value > 10 else 4}f}"


def parse_metrics(names: str) -> tuple[str, ...]:
    """The metrics that a command line names, also `jpeg-ai` or `all`.

    PlicError for an unknown one, or one whose package is missing.
    """
    wanted: list[str] = []
    for name in names.split(","):
        wanted += {"all": tuple(METRICS), "jpeg-ai": JPEG_AI}.get(name, (name,))
    unknown = [n for n in wanted if n not in METRICS]
    if unknown:
        raise PlicError(f"there is no metric {unknown[0]!r}; there are {', '.join(METRICS)}, jpeg-ai and all")
    for name in wanted:
        if METRICS[name].module and find_spec(METRICS[name].module) is None:
            package = METRICS[name].package
            raise PlicError(f"the metric {name} needs the package {package}: {install_command('profile')}")
    return tuple(dict.fromkeys(wanted))


_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def _tensor(plane: Plane) -> Any:
    import torch

    return torch.from_numpy(plane.astype(np.float32))[None, None]


@cache
def _vmaf() -> Any:
    from vmaf_torch import VMAF

    return VMAF(enable_motion=False)


@cache
def _psnr_hvs_hvsm() -> Any:
    with redirect_stdout(StringIO()):  # it prints that an optional part is missing
        from psnr_hvsm import psnr_hvs_hvsm
    return psnr_hvs_hvsm


def _psnr_hvs(a: Plane, b: Plane) -> tuple[float, float]:
    psnr_hvs_hvsm = _psnr_hvs_hvsm()
    if np.array_equal(a, b):
        return IDENTICAL_DB, IDENTICAL_DB
    # It works on blocks of 8x8 and wants whole ones.
    a, b = (np.pad(x, [(0, -side % 8) for side in x.shape], mode="edge") / 255 for x in (a, b))
    with np.errstate(invalid="ignore"):  # it divides 0 by 0 in flat blocks, and then does not use the result
        hvs, hvs_m = psnr_hvs_hvsm(a, b)
    return min(float(hvs), IDENTICAL_DB), min(float(hvs_m), IDENTICAL_DB)


def _at_least(plane: Plane, side: int) -> Plane:
    return np.pad(plane, [(0, max(0, side - n)) for n in plane.shape])


def _gaussian(size: int, sigma: float) -> Plane:
    taps = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return np.asarray(taps / taps.sum())


def _valid(plane: Plane, taps: Plane) -> Plane:
    """Filter along both axes, where all taps fall inside."""
    r = len(taps) // 2
    rows = ndimage.correlate1d(plane, taps, 0)[r : plane.shape[0] - r]
    return np.asarray(ndimage.correlate1d(rows, taps, 1)[:, r : plane.shape[1] - r])


def _moments(a: Plane, b: Plane, taps: Plane) -> tuple[Plane, Plane, Plane, Plane, Plane]:
    """Local means, variances and covariance."""
    mean_a, mean_b = _valid(a, taps), _valid(b, taps)
    variance_a = np.maximum(_valid(a * a, taps) - mean_a**2, 0)
    variance_b = np.maximum(_valid(b * b, taps) - mean_b**2, 0)
    return mean_a, mean_b, variance_a, variance_b, _valid(a * b, taps) - mean_a * mean_b


def _similarity(a: Plane, b: Plane, constant: float) -> Plane:
    return (2 * a * b + constant) / (a * a + b * b + constant)


def _block_means(plane: Plane, block: int) -> Plane:
    h, w = (n // block for n in plane.shape)
    return np.asarray(plane[: h * block, : w * block].reshape(h, block, w, block).mean((1, 3)))


def _scharr(plane: Plane) -> Plane:
    """Magnitude of the gradient, zeros around the picture."""
    side, across = np.array([3, 10, 3]) / 16, np.array([1, 0, -1])
    derivatives = (
        ndimage.correlate1d(ndimage.correlate1d(plane, across, axis, mode="constant"), side, 1 - axis, mode="constant")
        for axis in (0, 1)
    )
    return np.asarray(np.hypot(*derivatives))


def _phase_congruency(plane: Plane) -> Plane:
    """Kovesi's phase congruency (`phasecong2.m`) with FSIM's parameters: 4 scales, 4 orientations."""
    orientations, scales, tiny = 4, 4, 1e-4
    filters = _log_gabor(plane.shape[0], plane.shape[1], orientations, scales)
    spectrum = fft.fft2(plane)
    energy_sum, amplitude_sum = np.zeros(plane.shape), np.zeros(plane.shape)
    for bank in filters:
        responses = fft.ifft2(spectrum * bank)
        amplitude_sum += np.abs(responses).sum(0)
        mean = responses.sum(0)
        mean /= np.abs(mean) + tiny
        # Along the mean phase, minus the deviation from it.
        turned = responses * mean.conj()
        energy = (turned.real - np.abs(turned.imag)).sum(0)
        # Noise: the median energy at the smallest scale, as if it were Rayleigh distributed.
        power = np.median(np.abs(responses[0]) ** 2) / math.log(2) / (bank[0] ** 2).sum()
        kernels = fft.ifft2(bank).real * math.sqrt(plane.size)
        squares = (kernels**2).sum()
        cross = ((kernels.sum(0) ** 2).sum() - squares) / 2
        tau = math.sqrt(max(power * (squares + 2 * cross), 0))
        threshold = tau * math.sqrt(math.pi / 2) + 2 * math.sqrt((2 - math.pi / 2) * tau**2)
        energy_sum += np.maximum(energy - threshold / 1.7, 0)
    return energy_sum / (amplitude_sum + tiny)


@cache
def _log_gabor(height: int, width: int, orientations: int, scales: int) -> list[Plane]:
    """Filters [scales, H, W] of each orientation, zero frequency first."""
    y, x = (fft.ifftshift((np.arange(n) - n // 2) / n) for n in (height, width))
    radius = np.hypot(x, y[:, None])
    lowpass = 1 / (1 + (radius / 0.45) ** 30)
    radius[0, 0] = 1
    angle = np.arctan2(-y[:, None], x)
    bands = [np.exp(-(np.log(radius * 6 * 2**s) ** 2) / (2 * math.log(0.55) ** 2)) * lowpass for s in range(scales)]
    for band in bands:
        band[0, 0] = 0
    spread = math.pi / orientations / 1.2
    filters = []
    for o in range(orientations):
        offset = angle - o * math.pi / orientations
        distance = np.abs(np.arctan2(np.sin(offset), np.cos(offset)))
        filters.append(np.stack(bands) * np.exp(-(distance**2) / (2 * spread**2)))
    return filters


def _normalized_pyramid(plane: Plane) -> list[Plane]:
    bands, taps = [], np.array(NLPD_TAPS)
    for constant, (above, left, right, below) in zip(NLPD_CONSTANTS, NLPD_NEIGHBOURS, strict=True):
        low = _mirrored(plane, taps)[::2, ::2]
        wide = _mirrored(_resample(low, [np.linspace(0, n - 1, 2 * n) for n in low.shape]), taps)
        band = plane - wide[: plane.shape[0], : plane.shape[1]]
        neighbours = np.array([[0, above, 0], [left, 0, right], [0, below, 0]])
        bands.append(band / (constant + ndimage.correlate(np.abs(band), neighbours, mode="mirror")))
        plane = low
    return bands


def _mirrored(plane: Plane, taps: Plane) -> Plane:
    """Filter along both axes, the picture mirrored at its outermost samples."""
    return np.asarray(ndimage.correlate1d(ndimage.correlate1d(plane, taps, 0, mode="mirror"), taps, 1, mode="mirror"))


def _resample(plane: Plane, positions: list[Plane]) -> Plane:
    """Bilinear interpolation at the positions of rows and columns, clamped to the plane."""
    for axis, (position, n) in enumerate(zip(positions, plane.shape, strict=True)):
        position = np.clip(position, 0, n - 1)
        first = np.minimum(position.astype(int), max(n - 2, 0))
        part = np.expand_dims(position - first, 1 - axis)
        second = np.minimum(first + 1, n - 1)
        plane = plane.take(first, axis) * (1 - part) + plane.take(second, axis) * part
    return plane


def _laplacian_pyramid(plane: Plane, levels: int) -> list[Plane]:
    """Burt and Adelson's, binomial taps: `levels` band-pass planes and the low-pass rest."""
    taps = np.array([1, 4, 6, 4, 1]) / 16 * math.sqrt(2)
    bands = []
    for _ in range(levels):
        low = _mirrored(plane, taps)[::2, ::2]
        wide = np.zeros((2 * low.shape[0], 2 * low.shape[1]))
        wide[::2, ::2] = low
        bands.append(plane - _mirrored(wide, taps)[: plane.shape[0], : plane.shape[1]])
        plane = low
    return [*bands, plane]


def _channel(a: Plane, b: Plane, window: Plane, tiny: float) -> tuple[Plane, Plane, Plane, Plane]:
    """Variances of a and b in windows, and what makes b of a: b = gain * a + noise, with the noise's variance."""
    variance_a, variance_b, covariance = _moments(a, b, window)[2:]
    gain = covariance / (variance_a + tiny)
    rest = variance_b - gain * covariance
    gain[(variance_a < tiny) | (variance_b < tiny)] = 0
    return variance_a, variance_b, gain, rest


def _information_content(a: Plane, b: Plane, parent: Plane | None) -> Plane:
    """Bits that an eye gets of each coefficient of a and b, [H-2, W-2].

    Coefficients are a Gaussian scale mixture over blocks of 3x3 and their parent.
    """
    noise, tiny = 0.4, 1e-15
    variance_a, variance_b, covariance = _moments(a, b, np.full(3, 1 / 3))[2:]
    gain = covariance / (variance_a + tiny)
    rest = variance_b - gain * covariance
    flat_a, flat_b = variance_a < tiny, variance_b < tiny
    gain[flat_a | flat_b] = 0
    rest[flat_a] = variance_b[flat_a]
    rest[flat_b] = 0
    h, w = variance_a.shape
    neighbours = [a[dy : dy + h, dx : dx + w] for dy in range(3) for dx in range(3)]
    if parent is not None:
        neighbours.append(_enlarged(parent)[1 : 1 + h, 1 : 1 + w])
    vectors = np.stack([x.ravel() for x in neighbours])
    values, basis = np.linalg.eigh(vectors @ vectors.T / vectors.shape[1])
    positive = np.maximum(values, 0)
    positive *= values.sum() / positive.sum() if positive.any() else 0
    usable = positive > tiny * max(float(positive.max()), tiny)
    # The scale of the mixture: s = v' C^-1 v / N, in the basis of C.
    projected = basis[:, usable].T @ vectors
    scale = ((projected**2 / positive[usable, None]).sum(0) / len(vectors)).reshape(h, w)
    bits = np.zeros((h, w))
    for value in positive:
        bits += np.log2(1 + ((rest + (1 + gain**2) * noise) * scale * value + noise * rest) / noise**2)
    return np.where(bits < tiny, 0, bits)


def _enlarged(plane: Plane) -> Plane:
    """Twice the size, as IW-SSIM has it: bilinear to 4n - 3, one more around, every second sample."""
    h, w = plane.shape
    inner = _resample(plane, [(np.arange(4 * n - 3) + 0.5) * n / (4 * n - 3) - 0.5 for n in (h, w)])
    wide = np.pad(inner, 1)
    wide[0], wide[-1] = 2 * wide[1] - wide[2], 2 * wide[-2] - wide[-3]
    wide[:, 0], wide[:, -1] = 2 * wide[:, 1] - wide[:, 2], 2 * wide[:, -2] - wide[:, -3]
    return wide[::2, ::2]
