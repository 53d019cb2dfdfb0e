"""Encoder effort: symbols that cost less in rate and distortion together, for the same decoder.

    0       the nearest symbols
    1 .. 9  optimise y and d by gradient descent against the training loss, 2 to 200 iterations (`refine`, needs torch)

With weights tuned for PSNR, every level also tries rate-aware rounding (RDO quantization): toward zero, where the bits
saved outweigh the error added. Levels 1 and 2 do only that when torch is missing.

The loss is the Lagrangian of training, with two exact parts: the bits by the model's own tables, and the error of the
decoded picture. The error is squared (`lagrangian.SQUARED_ERROR_WEIGHT`), or for the eye that of `models.perceptual`.
No level returns symbols that cost more than those of level 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from ..quantization.network import Int64
from .codec import LATENT, Codec, Rounding, Symbols, nearest
from .errors import PlicError
from .lagrangian import Lagrangian

Progress = Callable[[float], None]
"""Called with the fraction of the work that is done, 0 to 1."""

_ITERATIONS = {1: 2, 2: 3, 3: 5, 4: 8, 5: 13, 6: 22, 7: 40, 8: 100, 9: 200}

# Factors on `error_energies`: several errors of one cell add up to more than the sum of their energies.
_ERROR_WEIGHTS = {1: (8.0,), 2: (5.0, 8.0, 12.0)}


@lru_cache(maxsize=4)
def error_energies(codec: Codec) -> NDArray[np.float64]:
    """Squared error of the picture, summed over its samples, per unit of error in each channel of y and d: [288].

    Measured by impulses: one latent in each channel, against a picture of zeros.
    """
    spacing, amplitude = 5, 32  # cells between impulses, beyond which they hardly reach; units of the coarse grid
    latents, network = codec.latents, codec.model.networks["synthesis"]
    planes, details = (spec.channels for spec in network.inputs.values())
    channel = np.arange(latents + details)
    across = math.ceil(math.sqrt(len(channel)))
    row, column = (spacing * k + spacing // 2 for k in divmod(channel, across))

    def response(value: int) -> NDArray[np.int32]:
        cells = np.zeros((across * spacing, across * spacing, planes + details), np.int8)
        cells[row, column, np.where(channel < latents, channel, channel - latents + planes)] = value
        (pixels,) = codec.run(network, [cells[:, :, :planes].copy(), cells[:, :, planes:].copy()]).values()
        return pixels.astype(np.int32)

    side = spacing * LATENT
    windows = np.square(response(amplitude) - response(0)).reshape(across, side, across, side, 3)
    energy = windows.sum((1, 3, 4)).ravel()[: len(channel)] / amplitude**2
    energy[:latents] /= 4.0**codec.fine_bits
    return np.asarray(energy)


def rate_aware(lagrangian: Lagrangian, weight: float) -> Rounding:
    """Rounds to the nearest symbol or the next one toward zero, whichever costs less.

    weight: factor on `error_energies`. Sullivan and Wiegand, "Rate-distortion optimization for video
    compression", IEEE Signal Processing Magazine, 1998; here per symbol, by the table that will code it.
    """
    energies = weight * lagrangian.error_bits * error_energies(lagrangian.codec)

    def rounding(channels: slice, distance: Int64, step: Int64, indices: NDArray[np.uint8]) -> Int64:
        close = nearest(channels, distance, step, indices)
        lower = close - np.sign(close)
        error = [np.square(distance / 256 - symbols * step) * energies[channels] for symbols in (close, lower)]
        saved = lagrangian.bits(close, indices) - lagrangian.bits(lower, indices)
        return np.where(error[1] - error[0] < saved, lower, close)

    return rounding


def encode(
    codec: Codec,
    pixels: NDArray[np.uint8],
    quality: float,
    icc: bytes = b"",
    exif: bytes = b"",
    effort: int = 0,
    progress: Progress | None = None,
) -> bytes:
    """`Codec.encode` with effort 0 to 9; ImportError when torch is needed and missing."""
    if effort not in range(10):
        raise PlicError(f"effort {effort} is not one of 0 to 9")
    analyse = partial(search, codec, effort=effort, progress=progress) if effort else codec.analyse
    return codec.encode(pixels, quality, icc, exif, analyse)


def search(
    codec: Codec, rgb: NDArray[np.uint8], quality_hundredths: int, effort: int, progress: Progress | None = None
) -> Symbols:
    """Symbols of uint8 [H, W, 3], found with effort 1 to 9.

    ImportError when torch is missing. Efforts 1 and 2 with weights tuned for PSNR then only round.
    """
    lagrangian, latents = Lagrangian(codec, rgb, quality_hundredths), codec.transform(rgb, quality_hundredths)
    roundings: list[Rounding] = [nearest]
    if not lagrangian.visual:
        roundings += [rate_aware(lagrangian, weight) for weight in _ERROR_WEIGHTS[min(effort, 2)]]
    candidates = [codec.quantize(latents, quality_hundredths, rounding) for rounding in roundings]
    try:
        from .refine import refine  # which needs torch
    except ImportError:
        if lagrangian.visual or effort > 2:
            raise
    else:
        refined = refine(lagrangian, latents, _ITERATIONS[effort], progress)
        candidates.append(codec.quantize(refined, quality_hundredths, nearest))
    return min(candidates, key=lagrangian)
