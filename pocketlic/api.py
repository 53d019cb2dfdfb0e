"""Pixels to `.plic` bytes and back, with the shipped models: what `import pocketlic` offers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from .codec._native import NativeDecoder
from .codec.codec import Codec
from .codec.errors import FormatError, PlicError, PlicWarning
from .codec.fast import FastCodec
from .codec.format import DEFAULT_MAX_PIXELS, MODEL_ID_BYTES, read_header
from .codec.rate_control import Encode, encode_to_bpp, encode_to_bytes, for_size
from .export.litert import LiteRTExecutor
from .models import Tune
from .models.errors import check_choice
from .quantization.network import ModelError, Rule
from .quantization.shipped import DEFAULT_QUALITY, MODELS, Weights, for_quality, shipped, shipped_model

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FormatError", "ModelError", "PlicError", "PlicWarning", "Runtime", "decode", "encode", "shipped_model"]

Runtime = Literal["litert", "native", "reference"]
"""What runs the networks: LiteRT with XNNPACK, the native core, or the slow NumPy reference. Results are equal."""


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


def _bytes(what: str, data: Buffer) -> bytes:
    try:
        return data if isinstance(data, bytes) else memoryview(data).tobytes()
    except TypeError:
        raise PlicError(f"{what} is bytes, not {type(data).__name__}") from None


def _pixels(image: ArrayLike | Image.Image) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] or [H, W]."""
    if isinstance(image, Image.Image):
        if image.mode in ("1", "P") and "transparency" not in image.info:
            image = image.convert("L" if image.mode == "1" else "RGB")
        if image.mode not in ("L", "RGB"):
            raise PlicError(f"a PIL picture has mode RGB or L, not {image.mode}; convert it first")
    try:
        pixels: NDArray[Any] = np.asarray(image)
    except Exception as error:  # of whatever library the object is from
        raise PlicError(f"a picture is what numpy.asarray takes, not {type(image).__name__}: {error}") from None
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        shape = list(pixels.shape)
        raise PlicError(f"a picture is uint8 [H, W, 3], [H, W, 1] or [H, W], not {pixels.dtype} {shape}")
    return pixels


def encode(
    image: ArrayLike | Image.Image,
    quality: float | None = None,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    effort: int = 0,
    rule: Rule = "cpu",
    tune: Tune | None = None,
    runtime: Runtime = "litert",
    icc: Buffer = b"",
    exif: Buffer = b"",
    progress: Callable[[float], None] | None = None,
    profile: Rule | None = None,
) -> bytes:
    """Encode a picture; returns `.plic` bytes.

    - image: uint8 [H, W, 3] RGB, or [H, W] or [H, W, 1] grey, or what `numpy.asarray` makes such an array of; or a PIL
      picture, whose EXIF orientation is not applied.
    - quality: 0 to 100, fractions allowed; 60 by default.
    - bpp: instead of a quality, the file's bits per pixel, met within 1 %.
    - max_bytes: instead of a quality, the largest size of the file.
    - effort: 0 to 9. Each level takes longer for smaller files at equal fidelity, and needs torch; with weights tuned
      for PSNR, 1 and 2 work without torch, and gain less.
    - rule: the arithmetic rule of the model, `cpu` or `strict`. profile: an older name of it.
    - tune: what the weights were trained for; by default `visual`, or `psnr` with rule strict. Files name their model.
    - runtime: what runs the networks; the file is the same.
    - icc, exif: an ICC profile and EXIF, stored unchanged.
    - progress: called with the fraction of gradient descent that is done, 0 to 1.

    Raises PlicError on any other picture, quality or choice, and when no quality gives the size; ModelError, which is a
    PlicError, when the rule has no such weights; ImportError when torch is needed and missing.
    """
    pixels = _pixels(image)
    check_choice("runtime", runtime, get_args(Runtime))
    for what, number in (("quality", quality), ("bits per pixel", bpp), ("greatest size", max_bytes)):
        if number is not None and not isinstance(number, int | float | np.number):
            raise PlicError(f"{what} is a number, not {number!r}")
    colours, block = _bytes("an ICC profile", icc), _bytes("EXIF", exif)
    if sum(choice is not None for choice in (quality, bpp, max_bytes)) > 1:
        raise PlicError("choose one of quality, bits per pixel and greatest size")

    def encoder(weights: Weights) -> Encode:
        def attempt(quality: float, effort: int) -> bytes:
            return _codec(weights, runtime).encode(pixels, quality, colours, block, effort, progress)

        return attempt

    encoders = [(weights.quality, encoder(weights)) for weights in shipped(profile or rule, tune)]
    metadata = len(colours) + len(block)
    if bpp is not None:
        area = math.prod(pixels.shape[:2])
        return encode_to_bpp(for_size(encoders, bpp * area / 8), effort, area, bpp, metadata)
    if max_bytes is not None:
        return encode_to_bytes(for_size(encoders, max_bytes), effort, max_bytes, metadata)
    quality = DEFAULT_QUALITY if quality is None else quality
    return for_quality(encoders, quality)(quality, effort)


def decode(data: Buffer, *, runtime: Runtime = "litert", max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode `.plic` bytes to uint8 [H, W, 3] RGB or [H, W] grey, the same on every machine and runtime.

    data: any bytes-like object.

    Raises FormatError when the bytes are damaged, not a `.plic` file, of a model this package does not have,
    or claim more than `max_pixels` pixels; PlicError when `data` or `runtime` is of another kind.
    """
    check_choice("runtime", runtime, get_args(Runtime))
    content = _bytes("a file", data)
    wanted = read_header(content).model_id
    for weights in MODELS:
        if bytes.fromhex(weights.load().model_id)[:MODEL_ID_BYTES] == wanted:
            if runtime == "native":
                return _native(weights).decode(content, max_pixels)
            return _codec(weights, runtime).decode(content, max_pixels)
    raise FormatError(f"the file needs model {wanted.hex()}, which this version of Pocketlic does not have")
