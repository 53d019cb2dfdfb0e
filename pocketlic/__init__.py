"""Pocketlic: a learned image codec small enough for a phone, exact to the pixel on every machine.

>>> import numpy as np, pocketlic
>>> picture = np.zeros((48, 64, 3), np.uint8)
>>> pocketlic.decode(pocketlic.encode(picture, quality=50)).shape
(48, 64, 3)
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .codec._native import NativeDecoder
from .codec.codec import Codec, reference
from .codec.errors import FormatError, PlicError
from .codec.format import DEFAULT_MAX_PIXELS, MODEL_ID_BYTES, read_header
from .export.litert import LiteRTExecutor
from .quantization.integer import IntegerModel, ModelError, Profile, load_model

__all__ = ["FormatError", "ModelError", "PlicError", "decode", "encode", "shipped_model"]

Runtime = Literal["litert", "native", "reference"]
"""What runs the networks: LiteRT with XNNPACK, the native core, or the slow NumPy reference.

The results are equal.
"""

PROFILES: tuple[Profile, ...] = ("cpu", "strict")


@cache
def shipped_model(profile: Profile = "cpu") -> IntegerModel:
    """The model of a profile that comes with the package. ModelError when it is missing or damaged."""
    weights = resources.files("pocketlic.models") / f"weights/pocketlic-{profile}.safetensors"
    with resources.as_file(weights) as path:
        return load_model(path)


@cache
def _native(profile: Profile) -> NativeDecoder:
    return NativeDecoder(shipped_model(profile).to_bytes())


@cache
def _codec(profile: Profile, runtime: Runtime) -> Codec:
    model = shipped_model(profile)
    if runtime == "native":
        return Codec(model, lambda network, inputs: _native(profile).run(network.name, inputs))
    return Codec(model, reference if runtime == "reference" else LiteRTExecutor.from_model(model))


def encode(
    image: NDArray[np.uint8],
    quality: float = 60.0,
    *,
    profile: Profile = "cpu",
    runtime: Runtime = "litert",
    icc: bytes = b"",
    exif: bytes = b"",
) -> bytes:
    """Encode uint8 [H, W, 3] RGB or [H, W] grey at a quality from 0 to 100; returns `.plic` bytes.

    `icc` and `exif` are carried along as they are. Raises PlicError on any other kind of array or quality.
    """
    return _codec(profile, runtime).encode(image, quality, icc, exif)


def decode(data: bytes, *, runtime: Runtime = "litert", max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode `.plic` bytes to uint8 [H, W, 3] RGB or [H, W] grey, the same on every machine and runtime.

    Raises FormatError when the bytes are damaged, not a `.plic` file, of a model this package does not have,
    or claim more than `max_pixels` pixels.
    """
    wanted = read_header(data).model_id
    for profile in PROFILES:
        if bytes.fromhex(shipped_model(profile).model_id)[:MODEL_ID_BYTES] == wanted:
            if runtime == "native":
                return _native(profile).decode(data, max_pixels)
            return _codec(profile, runtime).decode(data, max_pixels)
    raise FormatError(f"the file needs model {wanted.hex()}, which this version of Pocketlic does not have")
