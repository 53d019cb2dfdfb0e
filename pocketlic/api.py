"""Pixels to `.plic` bytes and back, with the shipped models: what `import pocketlic` offers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .codec import format as plic
from .codec._native import NativeDecoder
from .codec.errors import FormatError, PlicError, PlicWarning
from .codec.rate_control import Encode, encode_to_bpp, encode_to_bytes, for_size
from .models import Tune
from .models.errors import check_choice, install_command
from .quantization.errors import ModelError, Rule
from .quantization.shipped import DEFAULT_QUALITY, Weights, by_short_id, for_quality, shipped, shipped_model

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import Buffer

    from .codec.codec import Codec, Executor

__all__ = ["FormatError", "ModelError", "PlicError", "PlicWarning", "Runtime", "decode", "encode", "shipped_model"]

Runtime = Literal["native", "litert", "reference"]
"""What runs the networks: the native core, LiteRT in its place, or the slow NumPy reference. Results are equal."""


@cache
def _engine(weights: Weights, runtime: Runtime) -> NativeDecoder:
    if runtime == "native":
        return NativeDecoder(weights.read())
    model, executor = weights.load(), _litert(weights)

    def run(name: str, inputs: list[NDArray[np.int8]]) -> list[NDArray[np.int8]]:
        network = model.networks[name]
        made = executor(network, inputs)
        return [made[output] for output in network.outputs]

    return NativeDecoder(weights.read(), runner=run)


@cache
def _litert(weights: Weights) -> Executor:
    try:
        from .export.litert import LiteRTExecutor
    except ImportError as error:
        raise PlicError(f"the runtime litert needs the package {error.name}: {install_command('litert')}") from None
    return LiteRTExecutor.from_model(weights.load())


@cache
def _codec(weights: Weights, runtime: Runtime) -> Codec:
    """What encodes with effort; and the reference."""
    from .codec.codec import Codec
    from .codec.fast import FastCodec

    model = weights.load()
    if runtime == "reference":
        return Codec(model)
    if runtime == "native":
        engine = _engine(weights, runtime)
        return FastCodec(model, lambda network, inputs: engine.run(network.name, inputs))
    return FastCodec(model, _litert(weights))


def _bytes(what: str, data: Buffer) -> bytes:
    try:
        return data if isinstance(data, bytes) else memoryview(data).tobytes()
    except TypeError:
        raise PlicError(f"{what} is bytes, not {type(data).__name__}") from None
    except ValueError as error:  # a memoryview or an mmap that is closed
        raise PlicError(f"{what} cannot be read: {error}") from None


def _number(what: str, number: object) -> float | None:
    """Any real number, of Python or NumPy, as a float; what is too great for one becomes infinite. None stays."""
    if number is None:
        return None
    if not isinstance(number, int | float | np.integer | np.floating):
        raise PlicError(f"{what} is a number, not {number!r}")
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _is_pil(image: object) -> TypeGuard[Image.Image]:
    """Whether it is a PIL picture, without importing PIL to know."""
    return hasattr(image, "getbands")


def _pixels(image: ArrayLike | Image.Image) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] or [H, W]."""
    if _is_pil(image):
        if "transparency" in image.info:
            raise PlicError("a PIL picture is opaque, and one of its colours is transparent; convert it to RGBA first")
        if image.mode in ("1", "P"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        if image.mode not in ("L", "RGB"):
            raise PlicError(f"a PIL picture has mode RGB or L, not {image.mode}; convert it first")
    try:
        pixels: NDArray[Any] = np.asarray(image)
    except Exception as error:  # of whatever library the object is from
        raise PlicError(f"a picture is what numpy.asarray takes, not {type(image).__name__}: {error}") from None
    if np.ma.is_masked(image):
        raise PlicError("a picture has all its pixels, and some of this one are masked; fill them first")
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
    runtime: Runtime = "native",
    max_memory: int | None = None,
    threads: int = 0,
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
    - max_memory: bytes that encoding may take besides the picture and the file; by default no limit. What
      `codec.format.encoding_memory` says suffices. Effort and the
      runtime `reference` only compare it with an estimate before they begin.
    - threads: the most threads that are used, 0 for one a core; the file is the same.
    - icc, exif: an ICC profile and EXIF, stored unchanged.
    - progress: called with the fraction of gradient descent that is done, 0 to 1.

    Raises PlicError on any other picture, quality or choice, when no quality gives the size, and when `max_memory` is
    too little; ModelError, which is a PlicError, when the rule has no such weights; ImportError when torch is needed
    and missing.
    """
    pixels = _pixels(image)
    check_choice("runtime", runtime, get_args(Runtime))
    quality, bpp, size = (
        _number("quality", quality),
        _number("bits per pixel", bpp),
        _number("greatest size", max_bytes),
    )
    if size is not None and math.isnan(size):
        raise PlicError("greatest size is a number, not nan")
    colours, block = _bytes("an ICC profile", icc), _bytes("EXIF", exif)
    if sum(choice is not None for choice in (quality, bpp, size)) > 1:
        raise PlicError("choose one of quality, bits per pixel and greatest size")

    if not isinstance(effort, int | np.integer) or effort not in range(10):
        raise PlicError(f"effort {effort} is not one of 0 to 9")
    threads = _whole("threads", threads, _MOST_THREADS)
    limit = _limit(max_memory, 0 if runtime != "reference" and effort == 0 else _SLOW_BYTES * pixels.size)

    def encoder(weights: Weights) -> Encode:
        def attempt(quality: float, effort: int) -> bytes:
            if runtime == "reference" or effort:
                from .codec.effort import encode

                return encode(_codec(weights, runtime), pixels, quality, colours, block, effort, progress)
            if not 0 <= quality <= 100:
                raise PlicError(f"quality {quality:g} is outside 0 to 100")
            hundredths, array = round(quality * 100), np.ascontiguousarray(pixels)
            plic.Header(array.shape[1], array.shape[0], array.ndim == 2, hundredths, bytes.fromhex(weights.short_id))
            file = _engine(weights, runtime).encode(array, hundredths, _NO_LIMIT, limit, threads)
            return plic.with_metadata(file, colours, block)

        return attempt

    encoders = [(weights.quality, encoder(weights)) for weights in shipped(rule if profile is None else profile, tune)]
    metadata = len(colours) + len(block)
    if bpp is not None:
        area = math.prod(pixels.shape[:2])
        return encode_to_bpp(for_size(encoders, bpp * area / 8), effort, area, bpp, metadata)
    if size is not None:
        most = int(np.clip(size, -_MOST_BYTES, _MOST_BYTES))
        return encode_to_bytes(for_size(encoders, most), effort, most, metadata)
    quality = DEFAULT_QUALITY if quality is None else quality
    return for_quality(encoders, quality)(quality, effort)


def decode(
    data: Buffer,
    *,
    runtime: Runtime = "native",
    max_pixels: int = plic.DEFAULT_MAX_PIXELS,
    max_memory: int | None = None,
    threads: int = 0,
) -> NDArray[np.uint8]:
    """Decode `.plic` bytes to uint8 [H, W, 3] RGB or [H, W] grey, the same on every machine and runtime.

    data: any bytes-like object. max_memory: bytes that decoding may take besides the file and the picture, 512 MiB if
    None; what `codec.format.decoding_memory` says of the header suffices. threads: at most so many, 0 for as many as
    there are cores.

    Raises FormatError when the bytes are damaged, not a `.plic` file, of a model this package does not have, claim more
    than `max_pixels` pixels, or need more than `max_memory`; PlicError when `data` or `runtime` is of another kind.
    """
    check_choice("runtime", runtime, get_args(Runtime))
    max_pixels = _whole("pixels", max_pixels, _NO_LIMIT)
    threads = _whole("threads", threads, _MOST_THREADS)
    content = _bytes("a file", data)
    header = plic.read_header(content)
    weights = by_short_id(header.model_id.hex())
    if weights is None:
        raise FormatError(
            f"the file needs model {header.model_id.hex()}, which this version of Pocketlic does not have"
        )
    if runtime != "reference":
        limit = _limit(_DECODE_MEMORY if max_memory is None else max_memory, 0)
        return _engine(weights, runtime).decode(content, max_pixels, limit, threads)
    if header.width * header.height <= max_pixels:
        _limit(max_memory, _SLOW_BYTES * 3 * header.width * header.height)
    return _codec(weights, runtime).decode(content, max_pixels)


_NO_LIMIT = 2**64 - 1
_MOST_BYTES = 2**62
_MOST_THREADS = 2**32 - 1
_DECODE_MEMORY = 1 << 29
_SLOW_BYTES = 200  # that the reference, or effort, takes for a sample of the picture


def _whole(what: str, number: object, most: int) -> int:
    """A whole number from 0 on, or the most that the core takes. PlicError when it is none."""
    if not isinstance(number, int | np.integer) or number < 0:
        raise PlicError(f"{what}: {number!r} is no number from 0 on")
    return min(int(number), most)


def _limit(max_memory: int | None, needed: int) -> int:
    """The core's limit on memory. PlicError when it is none, or when more is needed."""
    limit = _NO_LIMIT if max_memory is None else _whole("memory", max_memory, _NO_LIMIT)
    if needed > limit:
        raise PlicError(f"this needs about {needed} bytes of memory, more than the limit of {limit}")
    return limit
