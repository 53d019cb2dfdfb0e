"""Pictures in and out: files to arrays and back, with ICC profile and EXIF; files are written atomically.

Read is the first picture of whatever Pillow and its plugins read, if it is opaque grey or RGB or becomes that without
a choice: palettes become RGB, black-and-white becomes grey, 16 bits are rounded to 8, CMYK is converted by its ICC
profile. What is changed or left out is told by a PlicWarning. Everything else is refused with a message that names the
remedy. Written are PNG, TIFF and other formats without loss where they can, else of high quality.
"""

import contextlib
import importlib
import io
import os
import re
import secrets
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pocketlic.codec import exif as exif_blocks
from pocketlic.codec import icc as icc_profiles
from pocketlic.codec.errors import PlicError, PlicWarning
from pocketlic.codec.format import DEFAULT_MAX_PIXELS
from pocketlic.codec.pixels import read_pixels

_HEAD_BYTES = 1 << 16
_ORIENTATION = 0x0112
_JPEG_EXIF_BYTES = 65533 - len(exif_blocks.PREFIX)
_JXL_RATIOS = ((1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class _Plugin(NamedTuple):
    format: str  # as Pillow calls it
    name: str
    magic: bytes  # how files begin, a regular expression
    module: str
    package: str


# Formats that plugins of Pillow bring: Pillow's name, how files begin, the module, the package, and what registers it.
_PLUGINS = (
    _Plugin("HEIF", "HEIC", rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "pillow_heif", "pillow-heif"),
    _Plugin("JXL", "JPEG XL", rb"\xff\x0a|.{4}JXL ", "pillow_jxl", "pillow-jxl-plugin"),
)
_PNG_CHUNKS = (b"IHDR", b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf")
_GAIN_MAPS = (b"hdrgm:Version", b"http://ns.adobe.com/hdr-gain-map/", b"urn:iso:std:iso:ts:21496:-1", b"HDRGainMap")


class _Format(NamedTuple):
    """How pictures of a suffix are written: Pillow's name and options, and what it has a place for."""

    name: str
    options: dict[str, bool | int | str]
    icc: bool = True
    exif: bool = True
    grey: bool = True


_TIFF = _Format("TIFF", {"compression": "tiff_lzw"})
_PPM = _Format("PPM", {}, icc=False, exif=False)
_JPEG = _Format("JPEG", {"quality": 95, "subsampling": 0})
_HEIC = _Format("HEIF", {"quality": 95, "chroma": 444})
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
    ".webp": _Format("WEBP", {"lossless": True}, grey=False),
    ".avif": _Format("AVIF", {"quality": 95}),
    ".jp2": _Format("JPEG2000", {}, icc=False, exif=False),
    ".heic": _HEIC,
    ".heif": _HEIC,
    ".jxl": _Format("JXL", {"lossless": True}, icc=False),
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


def read_picture(path: str | os.PathLike[str], max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Read a picture file. EXIF orientation is applied to the pixels and set to 1 in the EXIF.

    Colours: PNG's cICP, its iCCP, and its gAMA and cHRM hold in this order; numbers become an ICC profile, unless they
    mean sRGB, as does PNG's sRGB. So do the numbers of AVIF and HEIC.

    Warns, by PlicWarning, when there are more pictures in the file, an HDR gain map, more than 8 bits per component,
    CMYK, an ICC profile for other pixels, or a damaged EXIF block; both are left out. Raises PlicError, with one line
    that names the file, if it cannot be read, is no picture or not a whole one, has more than `max_pixels` pixels, or
    is of a kind that this codec does not take (transparent, floating-point, HDR, CMYK without profile).
    """
    name = os.fspath(path)
    told: list[str] = []
    try:
        with warnings.catch_warnings():
            # max_pixels is our limit; Pillow's lower one only warns.
            warnings.simplefilter("ignore")
            with Path(path).open("rb") as file:
                picture = _read(file if file.seekable() else io.BytesIO(file.read()), max_pixels, told.append)
    except PlicError as error:
        raise PlicError(f"cannot read {name}: {error}") from None
    except Image.DecompressionBombError:
        raise PlicError(f"cannot read {name}: more pixels than PIL.Image.MAX_IMAGE_PIXELS allows") from None
    except OSError as error:
        raise PlicError(f"cannot read {name}: {_reason(error)}") from None
    except Exception as error:
        # Pillow's parsers raise almost anything on malformed files: SyntaxError, struct.error, IndexError ...
        raise PlicError(
            f"cannot read {name}: malformed, or of a kind that Pillow cannot read ({_reason(error)})"
        ) from None
    for message in told:
        warnings.warn(f"{name}: {message}", PlicWarning, stacklevel=2)
    return picture


def write_picture(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a picture in the format of the suffix, whole or not at all.

    PNG, TIFF, PPM, BMP, TGA, WebP, JPEG 2000 and JPEG XL keep the pixels; JPEG, AVIF and HEIC are of quality 95,
    without chroma subsampling. Warns, by PlicWarning, when the format has no place for the ICC profile or EXIF, or they
    do not fit. Raises PlicError if the suffix is another, lacks its plugin, or the file cannot be written.
    """
    name = os.fspath(path)
    kind = _WRITABLE.get(Path(path).suffix.lower())
    if kind is None:
        raise PlicError(f"cannot write {name}: choose one of the suffixes {', '.join(_WRITABLE)}")
    told: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what it finds in EXIF
            data = _encoded(picture, kind, told.append)
    except PlicError as error:
        raise PlicError(f"cannot write {name}: {error}") from None
    except Exception as error:  # Pillow's writers raise as its parsers do
        raise PlicError(f"cannot write {name} as {kind.name}: {_reason(error)}") from None
    write_atomic(path, data)
    for message in told:
        warnings.warn(f"{name}: {message}", PlicWarning, stacklevel=2)


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


def _encoded(picture: Picture, kind: _Format, warn: Callable[[str], None]) -> bytes:
    """The bytes of a file."""
    for plugin in _PLUGINS:
        if plugin.format == kind.name:
            _register(plugin)
    icc, exif = picture.icc, picture.exif
    if not icc_profiles.fits(icc, grey=picture.pixels.ndim == 2 and kind.grey):
        warn("its colour profile is for other pixels and left out")
        icc = b""
    try:
        exif = exif_blocks.upright(exif)[1] if exif else b""
    except (ValueError, struct.error):
        warn("its EXIF is damaged and left out")
        exif = b""
    lost = ["colour profile"] * bool(icc and not kind.icc) + ["EXIF"] * bool(exif and not kind.exif)
    if lost:
        warn(f"its {' and '.join(lost)} is left out: {kind.name} is written without")
    if kind.name == "JPEG" and len(exif) > _JPEG_EXIF_BYTES:
        warn(f"its EXIF is left out: of {len(exif)} bytes JPEG has place for {_JPEG_EXIF_BYTES}")
        exif = b""
    options: dict[str, bool | int | str | bytes] = dict(kind.options)
    if icc and kind.icc:
        options["icc_profile"] = icc
    if kind.name == "AVIF":
        exif = exif_blocks.without_orientation(exif) if exif else b""  # with it, Pillow would write the block anew
        options["subsampling"] = "4:0:0" if picture.pixels.ndim == 2 else "4:4:4"
    if exif and kind.exif and kind.name != "TIFF":
        options["exif"] = exif_blocks.PREFIX + exif if kind.name == "JPEG" else exif
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, kind.name, **options)
    return exif_blocks.into_tiff(buffer.getvalue(), exif) if exif and kind.name == "TIFF" else buffer.getvalue()


def _read(file: BinaryIO, max_pixels: int, warn: Callable[[str], None]) -> Picture:
    head = file.read(_HEAD_BYTES)
    if size := _jxl_size(head):  # its plugin decodes as soon as it opens
        _limit(*size, max_pixels)
    with _opened(file, head) as image:
        _limit(*image.size, max_pixels)
        if image.format == "EPS":
            raise PlicError("PostScript is a program and not run here; make a PNG of it first")
        if getattr(image, "tag_v2", {}).get(254, 0) & 1:
            raise PlicError("its first picture is a thumbnail, as in cameras' raw files; develop it first")
        if _has_gain_map(image, head):
            warn("its gain map for HDR screens is left out")
        elif getattr(image, "is_animated", False) and image.format != "PSD":
            warn("it has more than one picture; only the first is taken")
        chunks = _png_chunks(file) if image.format == "PNG" else {}
        pixels, white = read_pixels(image, file, chunks)
        if white > 255 or _is_deep(image, head):
            warn("its samples of more than 8 bits are rounded to 8")
        icc = _icc(image, head, chunks, pixels.ndim == 2, warn)
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            if not icc:
                raise PlicError("it is CMYK without a colour profile; convert it to RGB first")
            pixels, icc = icc_profiles.cmyk_to_srgb(pixels, icc), b""
            warn("its CMYK colours are converted to sRGB")
        elif not icc_profiles.fits(icc, pixels.ndim == 2):
            icc = b""
            warn("its colour profile is for other pixels and left out")
        orientation, exif = _upright(image, file, chunks, warn)
    return Picture(_turned(pixels, orientation), icc, exif)


def _limit(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PlicError(
            f"it has {width}x{height} pixels, more than the limit of {max_pixels}; "
            "raise max_pixels if you trust the file"
        )


def _opened(file: BinaryIO, head: bytes) -> ImageFile.ImageFile:
    """The image, by a plugin if Pillow alone does not know it. PlicError when it is of no known kind."""
    file.seek(0)
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        plugin = next((p for p in _PLUGINS if re.match(p.magic, head, re.DOTALL)), None)
    if plugin is not None:
        _register(plugin)
        file.seek(0)
        with contextlib.suppress(UnidentifiedImageError):
            return Image.open(file)
        raise PlicError(f"a {plugin.name} file that is damaged or of an unknown kind")
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise PlicError("a TIFF file that is damaged, or whose samples Pillow does not know: save it with 8 or 16 bits")
    raise PlicError("not a picture in a known format")


def _register(plugin: _Plugin) -> None:
    try:
        module = importlib.import_module(plugin.module)
    except ImportError:
        raise PlicError(f"{plugin.name} needs the package {plugin.package}: pip install {plugin.package}") from None
    if plugin.format == "HEIF":
        module.register_heif_opener()


def _jxl_size(head: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG XL file, from the beginning of its codestream."""
    start = re.match(rb"(?:.{4}JXL .*?jxl(?:c|p.{4}))?\xff\x0a", head, re.DOTALL)
    if start is None:
        return None
    bits = int.from_bytes(head[start.end() : start.end() + 16], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & (1 << count) - 1
        bits >>= count
        return value

    def side(eighths: int) -> int:
        return 8 * (1 + take(5)) if eighths else 1 + take((9, 13, 18, 30)[take(2)])

    eighths = take(1)
    height = side(eighths)
    ratio = take(3)
    return (height * _JXL_RATIOS[ratio - 1][0] // _JXL_RATIOS[ratio - 1][1] if ratio else side(eighths)), height


def _png_chunks(file: BinaryIO) -> dict[bytes, bytes]:
    """Those chunks of a PNG file that Pillow does not hand on as they are, wherever they stand; the first of each."""
    chunks: dict[bytes, bytes] = {}
    file.seek(8)
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind in _PNG_CHUNKS and kind not in chunks:
            chunks[kind] = file.read(length)
            file.seek(4, io.SEEK_CUR)
        else:
            file.seek(length + 4, io.SEEK_CUR)
    return chunks


def _boxes(image: ImageFile.ImageFile, head: bytes) -> bytes:
    """What an AVIF or HEIC file says before its data."""
    return head.partition(b"mdat")[0] if image.format in ("AVIF", "HEIF") else b""


def _is_deep(image: ImageFile.ImageFile, head: bytes) -> bool:
    return re.search(rb"pixi.{4}[\x01-\x04][\x09-\x20]", _boxes(image, head), re.DOTALL) is not None


def _has_gain_map(image: ImageFile.ImageFile, head: bytes) -> bool:
    if image.format in ("JPEG", "MPO"):
        segments = getattr(image, "applist", [])
        return any(mark in content for name, content in segments if name in ("APP1", "APP2") for mark in _GAIN_MAPS)
    return any(mark in _boxes(image, head) for mark in (b"tmap", b"hdrgainmap"))


def _icc(
    image: ImageFile.ImageFile, head: bytes, chunks: dict[bytes, bytes], grey: bool, warn: Callable[[str], None]
) -> bytes:
    """The ICC profile that a file has, or what its numbers amount to."""
    if b"cICP" in chunks:
        primaries, transfer, matrix, full_range = chunks[b"cICP"][:4]
        if matrix != 0 or full_range != 1:
            raise PlicError("its colours (cICP) are not those of full-range RGB; convert it to sRGB first")
        return icc_profiles.of_cicp(primaries, transfer, grey)
    if icc := image.info.get("icc_profile"):
        return bytes(icc)
    if b"iCCP" in chunks:
        warn("its colour profile is damaged and left out")
    elif b"sRGB" not in chunks and (b"gAMA" in chunks or b"cHRM" in chunks):
        gamma, numbers = ([n / 100_000 for n in _unsigned(chunks.get(c, b""))] for c in (b"gAMA", b"cHRM"))
        try:
            return icc_profiles.of_gamma(gamma[0] if gamma else None, None if grey else numbers or None, grey)
        except ValueError:
            warn("its gAMA and cHRM are impossible and left out")
    if nclx := re.search(rb"colrnclx(.{4})", _boxes(image, head), re.DOTALL):
        primaries, transfer = struct.unpack(">HH", nclx[1])
        return icc_profiles.of_cicp(primaries, transfer, grey)
    return b""


def _unsigned(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(data) // 4}I", data)


def _upright(
    image: ImageFile.ImageFile, file: BinaryIO, chunks: dict[bytes, bytes], warn: Callable[[str], None]
) -> tuple[int, bytes]:
    """The orientation that is still to be applied to the pixels, and the EXIF block without it."""
    turned = image.format in ("TIFF", "HEIF") or (image.format == "JXL" and not getattr(image, "jpeg", False))
    orientation = 1
    try:
        if image.format == "TIFF":
            block = exif_blocks.of_tiff(file)
        else:
            block = chunks.get(b"eXIf") or image.info.get("exif") or _raw_profile(image)
        while block.startswith(exif_blocks.PREFIX):
            block = block.removeprefix(exif_blocks.PREFIX)
        if block:
            orientation, block = exif_blocks.upright(block)
    except (ValueError, struct.error):
        warn("its EXIF is damaged and left out")
        block = b""
    if orientation == 1 and "xmp" in image.info:
        with contextlib.suppress(Exception):  # Pillow finds the orientation in XMP too, and raises almost anything
            orientation = image.getexif().get(_ORIENTATION, 1)
    return 1 if turned else orientation, block


def _raw_profile(image: ImageFile.ImageFile) -> bytes:
    """EXIF in a text of PNG, as ImageMagick wrote it: the kind, the number of bytes, and these in hexadecimal."""
    for kind in ("exif", "APP1"):
        _, size, *digits = str(image.info.get(f"Raw profile type {kind}", "- 0")).split()
        block = bytes.fromhex("".join(digits))[: int(size)]
        if block.startswith((exif_blocks.PREFIX, b"II*\0", b"MM\0*")):
            return block
    return b""


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels as an EXIF orientation wants them shown."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
