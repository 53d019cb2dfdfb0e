"""Pocketlic: a learned image codec small enough for a phone, exact to the pixel on every machine.

>>> import numpy as np, pocketlic
>>> picture = np.zeros((48, 64, 3), np.uint8)
>>> pocketlic.decode(pocketlic.encode(picture, quality=50)).shape
(48, 64, 3)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .codec._native import NativeDecoder
from .codec.codec import Codec
from .codec.errors import FormatError, PlicError, PlicWarning
from .codec.fast import FastCodec
from .codec.format import DEFAULT_MAX_PIXELS, MODEL_ID_BYTES, read_header
from .codec.rate_control import Encode, encode_to_bpp, encode_to_bytes, for_size
from .export.litert import LiteRTExecutor
from .models import Tune
from .quantization.network import ModelError, Rule
from .quantization.shipped import DEFAULT_QUALITY, MODELS, Weights, for_quality, shipped, shipped_model

__all__ = ["FormatError", "ModelError", "PlicError", "PlicWarning", "decode", "encode", "shipped_model"]

Runtime = Literal["litert", "native", "reference"]
"""What runs the networks: LiteRT with XNNPACK, the native core, or the slow NumPy reference.

The results are equal.
"""


@cache
def _native(weights: Weights) -> NativeDecoder:
    return NativeDecoder(weights.load().to_bytes())


@cache
def _codec(weights: Weights, runtime: Runtime) -> Codec:
    model = weights.load()
    if runtime == "reference":
        return Codec(model)
    if runtime == "native":
        return FastCodec(model, lambda network, inputs: _native(weights).run(network.name, inputs))
    return FastCodec(model, LiteRTExecutor.from_model(model))


def encode(
    image: NDArray[np.uint8],
    quality: float | None = None,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    effort: int = 0,
    rule: Rule = "cpu",
    tune: Tune | None = None,
    runtime: Runtime = "litert",
    icc: bytes = b"",
    exif: bytes = b"",
    progress: Callable[[float], None] | None = None,
    profile: Rule | None = None,
) -> bytes:
    """Encode uint8 [H, W, 3] RGB or [H, W] grey; returns `.plic` bytes.

    quality: 0 to 100, 60 if nothing is said. Instead of it, bpp: the file's bits per pixel, met within 1 %; or
    max_bytes: the most that the file may have, which the highest quality found makes use of. effort: 0 to 9; each
    level takes longer for smaller files at equal fidelity, and needs torch; with weights tuned for PSNR, 1 and 2 gain
    less without it.
    icc, exif: carried along as they are. tune: what the weights were trained for; if None, the eye (rule cpu) or
    PSNR (strict); decoding takes the right ones by itself. progress: told the part of an encoding that is done, 0 to 1,
    where gradients are descended. profile: an older name of `rule`.

    Raises PlicError on any other kind of array or quality, and when no quality gives the size; ModelError when the
    rule has no such weights; ImportError without torch where it is needed.
    """
    if sum(choice is not None for choice in (quality, bpp, max_bytes)) > 1:
        raise PlicError("choose one of quality, bits per pixel and greatest size")

    def encoder(weights: Weights) -> Encode:
        def attempt(quality: float, effort: int) -> bytes:
            return _codec(weights, runtime).encode(image, quality, icc, exif, effort, progress)

        return attempt

    encoders = [(weights.quality, encoder(weights)) for weights in shipped(profile or rule, tune)]
    if bpp is not None:
        pixels = math.prod(image.shape[:2])
        return encode_to_bpp(for_size(encoders, bpp * pixels / 8), effort, pixels, bpp)
    if max_bytes is not None:
        return encode_to_bytes(for_size(encoders, max_bytes), effort, max_bytes)
    quality = DEFAULT_QUALITY if quality is None else quality
    return for_quality(encoders, quality)(quality, effort)


def decode(data: bytes, *, runtime: Runtime = "litert", max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode `.plic` bytes to uint8 [H, W, 3] RGB or [H, W] grey, the same on every machine and runtime.

    Raises FormatError when the bytes are damaged, not a `.plic` file, of a model this package does not have,
    or claim more than `max_pixels` pixels.
    """
    wanted = read_header(data).model_id
    for weights in MODELS:
        if bytes.fromhex(weights.load().model_id)[:MODEL_ID_BYTES] == wanted:
            if runtime == "native":
                return _native(weights).decode(data, max_pixels)
            return _codec(weights, runtime).decode(data, max_pixels)
    raise FormatError(f"the file needs model {wanted.hex()}, which this version of Pocketlic does not have")
