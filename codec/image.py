"""Pictures in and out: files to arrays and back, with ICC profile and EXIF; files are written atomically.

Read is the first picture of whatever Pillow and its plugins read, if it is opaque grey or RGB or becomes that without
a choice: palettes become RGB, black-and-white becomes grey, 16 bits are rounded to 8, CMYK is converted by its ICC
profile. What is changed or left out is told by a PlicWarning. Everything else is refused with a message that names the
remedy. Written are PNG, TIFF and other formats without loss where they can, else of high quality.
"""

import copy
import io
import os
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pocketlic.codec import exif as exif_blocks
from pocketlic.codec import icc as icc_profiles
from pocketlic.codec.errors import PlicError, PlicWarning
from pocketlic.codec.files import open_seekable, reason, write_atomic
from pocketlic.codec.format import DEFAULT_MAX_PIXELS
from pocketlic.codec.reading import TooManyPixels, read_file, require_plugin

_JPEG_EXIF_BYTES = 65533 - len(exif_blocks.PREFIX)


class _Format(NamedTuple):
    """How pictures of a suffix are written: Pillow's name and options, and what it has a place for.

    Speeds are chosen so that a megapixel takes about a second at most.
    """

    name: str
    options: dict[str, Any]
    icc: bool = True
    exif: bool = True
    grey: bool = True


_TIFF = _Format("TIFF", {"compression": "tiff_lzw"})
_PPM = _Format("PPM", {}, icc=False, exif=False)
_JPEG = _Format("JPEG", {"quality": 95, "subsampling": 0})
_HEIC = _Format("HEIF", {"quality": 95, "chroma": 444, "enc_params": {"preset": "fast"}})
_WRITABLE = {
    ".png": _Format("PNG", {}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".ppm": _PPM,
    ".pgm": _PPM,
    ".pnm": _PPM,
    ".bmp": _Format("BMP", {}, icc=False, exif=False),
    ".tga": _Format("TGA", {}, icc=False, exif=False),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _Format("WEBP", {"lossless": True, "quality": 20, "method": 1}, grey=False),
    ".avif": _Format("AVIF", {"quality": 95, "speed": 8}),
    ".jp2": _Format("JPEG2000", {}, icc=False, exif=False),
    ".heic": _HEIC,
    ".heif": _HEIC,
    ".jxl": _Format("JXL", {"lossless": True, "effort": 3}, icc=False),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, upright.

    pixels: uint8[H, W, 3] (RGB) or uint8[H, W] (grey).
    icc: the ICC profile, or empty.
    exif: the EXIF block, a TIFF structure without the `Exif` prefix of JPEG, or empty. Its orientation is 1.
    """

    pixels: NDArray[np.uint8]
    icc: bytes = b""
    exif: bytes = b""


def read_picture(path: str | os.PathLike[str], max_pixels: int | None = None) -> Picture:
    """Read a picture file. EXIF orientation is applied to the pixels and set to 1 in the EXIF.

    Colours: PNG's cICP, its iCCP, and its gAMA and cHRM hold in this order; numbers become an ICC profile, unless they
    mean sRGB, as does PNG's sRGB. So do the numbers of AVIF and HEIC.

    Warns, by PlicWarning, when there are more pictures in the file, an HDR gain map, more than 8 bits per component,
    CMYK, an ICC profile for other pixels, or a damaged EXIF block; both are left out. Raises PlicError, with one line
    that names the file, if it cannot be read, is no picture or not a whole one, has more pixels than `max_pixels`
    (None: `DEFAULT_MAX_PIXELS`), or is of a kind that this codec does not take (transparent, floating-point, HDR, CMYK
    without profile).
    """
    name = os.fspath(path)
    told: list[str] = []
    try:
        with warnings.catch_warnings():
            # max_pixels is our limit; Pillow's lower one only warns.
            warnings.simplefilter("ignore")
            with open_seekable(path) as file:
                limit = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
                picture = Picture(*read_file(file, limit, told.append))
    except TooManyPixels as error:
        # Who did not give the limit cannot raise it.
        remedy = "" if max_pixels is None else "; raise max_pixels if you trust the file"
        raise PlicError(f"cannot read {name}: {error}{remedy}") from None
    except PlicError as error:
        raise PlicError(f"cannot read {name}: {error}") from None
    except Image.DecompressionBombError:
        raise PlicError(f"cannot read {name}: more pixels than PIL.Image.MAX_IMAGE_PIXELS allows") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's; Pillow's have no number
            raise PlicError(f"cannot read {name}: {reason(error)}") from None
        # Pillow's parsers raise almost anything on malformed files: SyntaxError, struct.error, IndexError ...
        raise PlicError(
            f"cannot read {name}: malformed, or of a kind that Pillow cannot read ({reason(error)})"
        ) from None
    for message in told:
        warnings.warn(f"{name}: {message}", PlicWarning, stacklevel=2)
    return picture


def write_picture(path: str | os.PathLike[str], picture: Picture, suffix: str | None = None) -> None:
    """Write a picture in the format of the suffix, whole or not at all.

    suffix: instead of the path's; `-`, standard output, has none.
    PNG, TIFF, PPM, BMP, TGA, WebP, JPEG 2000 and JPEG XL keep the pixels; JPEG, AVIF and HEIC are of quality 95,
    without chroma subsampling. Warns, by PlicWarning, when the format has no place for the ICC profile or EXIF, or they
    do not fit. Raises PlicError if the suffix is another, lacks its plugin, or the file cannot be written.
    """
    name = os.fspath(path)
    kind = _kind(name, suffix)
    told: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what it finds in EXIF
            data = _encoded(picture, kind, told.append)
    except PlicError as error:
        raise PlicError(f"cannot write {name}: {error}") from None
    except Exception as error:  # Pillow's writers raise as its parsers do
        raise PlicError(f"cannot write {name} as {kind.name}: {reason(error)}") from None
    write_atomic(path, data)
    for message in told:
        warnings.warn(f"{name}: {message}", PlicWarning, stacklevel=2)


def check_suffix(path: str | os.PathLike[str], suffix: str | None = None) -> None:
    """PlicError when `write_picture` does not write such a suffix: the path's, or `suffix` instead."""
    _kind(os.fspath(path), suffix)


def _kind(name: str, suffix: str | None) -> _Format:
    kind = _WRITABLE.get((Path(name).suffix if suffix is None else suffix).lower())
    if kind is None:
        raise PlicError(f"cannot write {name}: choose one of the suffixes {', '.join(_WRITABLE)}")
    return kind


def _encoded(picture: Picture, kind: _Format, warn: Callable[[str], None]) -> bytes:
    """The bytes of a file."""
    require_plugin(kind.name)
    icc, exif = picture.icc, picture.exif
    if not icc_profiles.fits(icc, grey=picture.pixels.ndim == 2 and kind.grey):
        warn("its colour profile is for other pixels and left out")
        icc = b""
    orientation = 1
    try:
        if exif:
            orientation, _ = exif_blocks.upright(exif)
    except (ValueError, struct.error):
        warn("its EXIF is damaged and left out")
        exif = b""
    lost = ["colour profile"] * bool(icc and not kind.icc) + ["EXIF"] * bool(exif and not kind.exif)
    if lost:
        warn(f"its {' and '.join(lost)} {'is' if len(lost) == 1 else 'are'} left out: {kind.name} is written without")
    if kind.name == "JPEG" and len(exif) > _JPEG_EXIF_BYTES:
        warn(f"its EXIF is left out: of {len(exif)} bytes JPEG has place for {_JPEG_EXIF_BYTES}")
        exif = b""
    options = copy.deepcopy(kind.options)
    if icc and kind.icc:
        options["icc_profile"] = icc
    if kind.name == "AVIF":
        if exif and orientation == 1:  # with it, Pillow would write the block anew
            exif = exif_blocks.without_orientation(exif)
        options["subsampling"] = "4:0:0" if picture.pixels.ndim == 2 else "4:4:4"
    if exif and kind.exif and kind.name != "TIFF":
        options["exif"] = exif_blocks.PREFIX + exif if kind.name == "JPEG" else exif
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, kind.name, **options)
    return exif_blocks.into_tiff(buffer.getvalue(), exif) if exif and kind.name == "TIFF" else buffer.getvalue()
