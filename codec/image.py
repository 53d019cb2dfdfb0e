"""Pictures in and out: files to arrays and back, with ICC profile and EXIF; files are written atomically.

Read is the first frame of PNG, JPEG, TIFF, WebP, BMP, GIF and PPM files, if it has 8 bits per component and
is grey, RGB, palette (becomes RGB) or black-and-white (becomes grey). An alpha channel is dropped if it is
opaque everywhere. Everything else is refused with a message that names the remedy: there is no place for it.
"""

import contextlib
import io
import os
import re
import secrets
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from pocketlic.codec.errors import PlicError
from pocketlic.codec.format import DEFAULT_MAX_PIXELS

_READABLE = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
_WRITABLE = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM", ".pnm": "PPM"}
_ORIENTATION = 0x0112
_EXIF_PREFIX = b"Exif\x00\x00"
_RAW_16_BIT = re.compile(r"(L|LA|RGB|RGBA|RGBX|RGBa|I);16")


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


def read_picture(path: str | os.PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Read a picture file. EXIF orientation is applied to the pixels and set to 1 in the EXIF.

    An EXIF block that cannot be parsed is dropped. Raises PlicError, with one line that names the file, if it
    cannot be read, is no picture or not a whole one, has more than `max_pixels` pixels, or is of a kind that
    this codec does not take (transparent, 16-bit, CMYK).
    """
    name = os.fspath(path)
    try:
        with warnings.catch_warnings():
            # max_pixels is our limit; Pillow's lower one only warns.
            warnings.simplefilter("ignore")
            with Path(path).open("rb") as file, Image.open(file, formats=_READABLE) as image:
                if image.width * image.height > max_pixels:
                    raise PlicError(
                        f"it has {image.width}x{image.height} pixels, more than the limit of {max_pixels}; "
                        "raise max_pixels if you trust the file"
                    )
                return _convert(image)
    except PlicError as error:
        raise PlicError(f"cannot read {name}: {error}") from None
    except UnidentifiedImageError:
        raise PlicError(f"cannot read {name}: not a picture in a known format") from None
    except Image.DecompressionBombError:
        raise PlicError(f"cannot read {name}: more pixels than PIL.Image.MAX_IMAGE_PIXELS allows") from None
    except OSError as error:
        raise PlicError(f"cannot read {name}: {_reason(error)}") from None
    except Exception as error:
        # Pillow's parsers raise almost anything on malformed files: SyntaxError, struct.error, IndexError ...
        raise PlicError(f"cannot read {name}: malformed picture ({_reason(error)})") from None


def write_picture(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a picture losslessly as PNG, TIFF or PPM, chosen by the suffix, whole or not at all.

    ICC profile and EXIF go into PNG and TIFF; PPM has no place for them. Raises PlicError if the suffix is
    another or the file cannot be written.
    """
    kind = _WRITABLE.get(Path(path).suffix.lower())
    if kind is None:
        raise PlicError(f"cannot write {os.fspath(path)}: choose one of the suffixes {', '.join(_WRITABLE)}")
    options: dict[str, bytes | str] = {}
    if kind != "PPM":
        options |= {"icc_profile": picture.icc} if picture.icc else {}
        options |= {"exif": picture.exif} if picture.exif else {}
    if kind == "TIFF":
        options["compression"] = "tiff_lzw"
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, kind, **options)
    write_atomic(path, buffer.getvalue())


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that at any moment there is the old one, if any, or the whole new one.

    The bytes go to a temporary file beside it, which then takes its name. Raises PlicError, with one line
    that names the file, if that fails (no such folder, not writable, disk full) or if the path is something
    other than a regular file, such as a device, which must not be replaced. Nothing is left behind.
    """
    try:
        target = Path(path).resolve()  # a symbolic link stays; what it points to is replaced
        temporary = target.with_name(f".pocketlic-{secrets.token_hex(6)}.tmp")
        if target.exists() and not target.is_file():
            raise PlicError(f"cannot write {os.fspath(path)}: not a regular file")
        try:
            with temporary.open("xb") as file:
                file.write(data)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise PlicError(f"cannot write {os.fspath(path)}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _convert(image: ImageFile.ImageFile) -> Picture:
    if _is_deep(image):
        raise PlicError("it has more than 8 bits per component; convert it to 8 bits first")
    if image.mode == "CMYK":
        raise PlicError("it is CMYK; convert it to RGB first, with its colour profile")
    image.load()  # some formats find their EXIF only now
    icc = image.info.get("icc_profile") or b""
    upright, exif = _upright(image)
    return Picture(_pixels(upright), icc, exif.removeprefix(_EXIF_PREFIX))


def _is_deep(image: ImageFile.ImageFile) -> bool:
    if image.mode.startswith(("I", "F")):
        return True
    # Pillow reads 16-bit colour as 8-bit without a word; only the decoder's arguments still tell: the raw
    # mode, or for PPM the largest value.
    for tile in image.tile:
        args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if _RAW_16_BIT.match(str(args[0])) or (tile.codec_name.startswith("ppm") and args[1] > 255):
            return True
    return False


def _upright(image: Image.Image) -> tuple[Image.Image, bytes]:
    exif = image.info.get("exif") or b""
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image, exif
        image = ImageOps.exif_transpose(image)
        if exif:
            tags = image.getexif()
            tags[_ORIENTATION] = 1
            exif = tags.tobytes()
    except Exception:  # as above: Pillow's parsers raise almost anything
        return image, b""
    return image, exif


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    mode = image.mode
    if mode == "1":
        image = image.convert("L")
    elif mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        image = image.convert("LA" if mode in ("L", "LA") else "RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            raise PlicError("it has transparent pixels; put it on an opaque background first")
        image = image.convert("L" if image.mode == "LA" else "RGB")
    elif mode == "P":
        image = image.convert("RGB")
    elif mode not in ("L", "RGB"):
        raise PlicError(f"its colour mode is {mode}; convert it to RGB or grey first")
    return np.array(image)
