"""Files of pictures opened and read by Pillow and its plugins: pixels, colours, EXIF, and what there is to tell."""

import contextlib
import importlib
import io
import logging
import re
import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from pocketlic.codec import exif as exif_blocks
from pocketlic.codec import icc as icc_profiles
from pocketlic.codec import jxl
from pocketlic.codec.errors import PlicError
from pocketlic.codec.pixels import read_pixels
from pocketlic.codec.stderr import held_back

logging.getLogger("PIL").addHandler(logging.NullHandler())  # nor does it print to standard error what it logs

_HEAD_BYTES = 1 << 16
_ORIENTATION, _NEW_SUBFILE_TYPE = 0x0112, 0x00FE
_PNG_CHUNKS = (b"IHDR", b"tRNS", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf")
_DEEP_BOX = re.compile(rb"pixi.{4}[\x01-\x04][\x09-\x20]", re.DOTALL)
_PROFILE_BOX = re.compile(rb"(.{4})colr[\x02\x03].{2}", re.DOTALL)
_NUMBERS_BOX = re.compile(rb"colrnclx(.{4})", re.DOTALL)
_GAIN_MAPS = (b"hdrgm:Version", b"http://ns.adobe.com/hdr-gain-map/", b"urn:iso:std:iso:ts:21496:-1", b"HDRGainMap")


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


class TooManyPixels(PlicError):
    """The picture is larger than the caller allows."""


def read_file(file: BinaryIO, max_pixels: int, warn: Callable[[str], None]) -> tuple[NDArray[np.uint8], bytes, bytes]:
    """Upright pixels uint8 [H, W, 3] or [H, W], ICC profile and EXIF block of a seekable file.

    warn: told what is changed or left out. Raises PlicError, and whatever Pillow raises.
    """
    head = file.read(_HEAD_BYTES)
    header = jxl.read_header(head)
    if header:  # its plugin decodes as soon as it opens
        _limit(header.width, header.height, max_pixels)
        if header.animated:
            raise PlicError(
                "it is an animation, of which Pillow's plugin reads the last picture; convert it to PNG first"
            )
    with _opened(file, head) as image:
        _limit(image.width, image.height, max_pixels)
        if image.format == "EPS":
            raise PlicError("PostScript is a program and not run here; make a PNG of it first")
        if getattr(image, "tag_v2", {}).get(_NEW_SUBFILE_TYPE, 0) & 1:
            raise PlicError("its first picture is a thumbnail, as in cameras' raw files; develop it first")
        chunks = _png_chunks(file) if image.format == "PNG" else {}
        # libtiff prints its complaints by itself, before Pillow raises an error
        with held_back(lambda line: True) if image.format == "TIFF" else contextlib.nullcontext():
            pixels, white = read_pixels(image, file, chunks)
        if header and header.bits > 8 and pixels.ndim == 3:
            raise PlicError(
                "it has more than 8 bits per component, which Pillow's plugin cuts; convert it to PNG first"
            )
        if white > 255 or (image.format == "AVIF" and _DEEP_BOX.search(_boxes(image, head))):
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
        if _has_gain_map(image, head):
            warn("its gain map for HDR screens is left out")
        elif _is_one_of_several(image):
            warn("it has more than one picture; only the first is taken")
    return _turned(pixels, orientation), icc, exif


def _limit(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixels(f"it has {width}x{height} pixels, more than the limit of {max_pixels}")


def _opened(file: BinaryIO, head: bytes) -> ImageFile.ImageFile:
    """The image, by a plugin if Pillow alone does not know it. PlicError when it is of no known kind."""
    file.seek(0)
    with contextlib.suppress(UnidentifiedImageError):
        return Image.open(file)
    for plugin in _PLUGINS:
        if re.match(plugin.magic, head, re.DOTALL):
            require_plugin(plugin.format)
            file.seek(0)
            with contextlib.suppress(UnidentifiedImageError):
                return Image.open(file)
    for name, (_, accept) in Image.OPEN.items():
        with contextlib.suppress(struct.error, IndexError):  # of a file of a few bytes
            if accept and accept(head[:16]) is True:
                raise PlicError(f"a {name} file that is damaged, or of a kind that Pillow does not know")
    raise PlicError("not a picture in a known format")


def require_plugin(format_: str) -> None:
    """Register the plugin of a format that Pillow lacks. PlicError, which names the package, where it is missing."""
    for plugin in _PLUGINS:
        if plugin.format == format_:
            try:
                module = importlib.import_module(plugin.module)
            except ImportError:
                raise PlicError(f"{plugin.name} needs a package: pip install {plugin.package}") from None
            if plugin.format == "HEIF":
                module.register_heif_opener()


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
    """What an AVIF, HEIC or JPEG 2000 file says before its data."""
    data = {"AVIF": b"mdat", "HEIF": b"mdat", "JPEG2000": b"jp2c"}.get(image.format or "")
    return head.partition(data)[0] if data else b""


def _is_one_of_several(image: ImageFile.ImageFile) -> bool:
    """Whether a loaded image has siblings; layers of PSD are none. Pillow looks for a second one only now."""
    try:
        return bool(getattr(image, "is_animated", False)) and image.format != "PSD"
    except Exception:  # there is one, and it is damaged
        return True


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
    boxes = _boxes(image, head)
    if image.format == "JPEG2000" and (box := _PROFILE_BOX.search(boxes)):
        return boxes[box.end() : box.start() + int.from_bytes(box[1], "big")]
    if image.format != "JPEG2000" and (box := _NUMBERS_BOX.search(boxes)):
        primaries, transfer = struct.unpack(">HH", box[1])
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
