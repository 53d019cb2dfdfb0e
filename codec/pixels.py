"""Pixels of an open Pillow image as bytes, exact: what cannot be had exactly is refused by a line with the remedy.

Pillow cuts 16-bit colours to their upper bytes without a word. Here both bytes are read, and values are rounded. Alpha
is the same in all its disguises: dropped where every pixel is opaque, refused otherwise. There is no place for it.
"""

import re
import struct
import sys
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pocketlic.codec.errors import PlicError

Samples = NDArray[np.uint8] | NDArray[np.uint16]

_REMEDY = "convert it to 8 bits first"
_TRANSPARENT = "it has transparent pixels; put it on an opaque background first"
_DEEP_COLOUR = re.compile(r"(?:L|LA|RGB|RGBX|RGBA|RGBa|CMYK);16[BLN]")
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_JPEG2000_DEPTHS = re.compile(rb"\xff\x4f\xff\x51.{36}\x00([\x01-\x04])((?:...){1,4})", re.DOTALL)
_BITS, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339  # tags of TIFF
_WHITE_IS_ZERO, _SEPARATE, _SIGNED = 0, 2, 2
# Components of 5 and 6 bits, in raw modes of BMP and TGA.
_SHORT_COLOUR = {"BGR;15": (31, 31, 31), "BGRA;15": (31, 31, 31), "BGRA;15Z": (31, 31, 31), "BGR;16": (31, 63, 31)}
_CONVERTED = {"1": "L", "P": "RGB", "PA": "RGBA", "RGBX": "RGB"}
_CHANNELS = {"L": "L", "LA": "LA", "La": "LA", "RGB": "RGB", "RGBA": "RGBA", "RGBa": "RGBA", "CMYK": "CMYK"}


def read_pixels(
    image: ImageFile.ImageFile, file: BinaryIO, chunks: dict[bytes, bytes]
) -> tuple[NDArray[np.uint8], int]:
    """Pixels of an image that is open and not loaded yet, and the value of its samples that becomes 255.

    file: what it was opened from. chunks: those of a PNG file. The pixels are uint8 [H, W, 4] CMYK, [H, W, 3] RGB or
    [H, W] grey. Raises PlicError when some are transparent, or when samples are of a kind that has no 8-bit equal.
    """
    keyed = b"tRNS" in chunks and image.mode != "P"
    samples, channels, white = _samples(image, file)
    if channels in ("LA", "RGBA"):
        if samples[..., -1].min() < white:
            raise PlicError(_TRANSPARENT)
        samples = samples[..., 0] if channels == "LA" else samples[..., :3]
    elif keyed and (samples.reshape(*samples.shape[:2], -1) == _key(chunks)).all(2).any():
        raise PlicError(_TRANSPARENT)
    if white == 255:
        return np.array(samples, np.uint8), white
    table = (np.arange(white + 1) * 510 + white) // (2 * white)
    return table.astype(np.uint8)[np.minimum(samples, white)], white


def _samples(image: ImageFile.ImageFile, file: BinaryIO) -> tuple[Samples, str, int]:
    """Samples [H, W] or [H, W, channels], the channels (L, LA, RGB, RGBA or CMYK), and the value that is white."""
    coder, rawmode, greatest, covered = _coding(image)
    tags = getattr(image, "tag_v2", {})
    if _SIGNED in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)):
        raise PlicError(f"its samples are signed numbers; {_REMEDY}")
    if tags.get(_PLANAR) == _SEPARATE and np.size(tags.get(_BITS, 1)) > 1 and np.max(tags.get(_BITS, 1)) > 8:
        raise PlicError(f"it has more than 8 bits per component, each component apart; {_REMEDY}")
    if image.format == "GIF" and not covered:
        raise PlicError(_TRANSPARENT)
    if coder == "ppm":
        return _of_netpbm(image, file, greatest)
    if rawmode == "LA;16B" and image.format == "PNG":  # as many bytes as RGBA
        both = _loaded(file, "RGBA")
        return _joined(both[..., ::2], both[..., 1::2]), "LA", 65535
    if _DEEP_COLOUR.fullmatch(rawmode):
        if image.format not in ("PNG", "TIFF"):
            raise PlicError(f"it has 16 bits per component, which Pillow cuts short; {_REMEDY}")
        low = _loaded(file, rawmode[:-1] + _OTHER_BYTE[rawmode[-1]])
        return _joined(_loaded(file, rawmode), low), _CHANNELS[image.mode], 65535
    if image.format == "HEIF" and (bits := image.info.get("bit_depth", 8)) > 8:
        return *_of_deep_heif(image, file), (1 << bits) - 1 << 16 - bits
    depth = _jpeg2000_depth(file) if image.format == "JPEG2000" else 8
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        samples: Samples = np.asarray(image).astype(np.uint16)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            samples = 65535 - samples
        if image.format == "JPEG2000":
            return samples, "L", (1 << depth) - 1 << 16 - depth
        return samples, "L", 4095 if rawmode == "I;12" else 65535
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise PlicError(f"its samples are {kind}, whose white is not known; {_REMEDY}")
    eight, channels = _of_eight_bits(image)
    if rawmode in _SHORT_COLOUR:
        eight = _rounded(eight, _SHORT_COLOUR[rawmode])
    if coder == "ppm_plain" and greatest > 255:  # rounded by Pillow
        return eight.astype(np.uint16) * 257, channels, 65535
    return eight, channels, 255


def _coding(image: ImageFile.ImageFile) -> tuple[str, str, int, bool]:
    """Of an image not loaded yet: decoder, raw mode, netpbm's greatest value, whether its tile is the whole canvas."""
    if not image.tile:
        return "", "", 255, True
    coder, extents, _, arguments = image.tile[0]
    parts = arguments if isinstance(arguments, tuple) else (arguments,)
    greatest = parts[1] if coder.startswith("ppm") and len(parts) > 1 else 255
    return coder, str(parts[0]), int(greatest), extents == (0, 0, *image.size)


def _loaded(file: BinaryIO, rawmode: str) -> NDArray[np.uint8]:
    """All channels of a file, with its bytes taken for those of another raw mode."""
    file.seek(0)
    with Image.open(file) as image:
        image.tile = [
            tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *(tile.args or ())[1:]))
            for tile in image.tile
        ]
        return np.array(image)


def _joined(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    joined = high.astype(np.uint16)
    joined <<= 8
    joined |= low
    return joined


def _of_netpbm(image: ImageFile.ImageFile, file: BinaryIO, greatest: int) -> tuple[Samples, str, int]:
    """Of PGM and PPM in binary with a greatest value that is none of Pillow's, whose own way is slow."""
    channels = "RGB" if image.mode == "RGB" else "L"
    shape = (image.height, image.width, 3) if channels == "RGB" else (image.height, image.width)
    kind = np.dtype(np.uint8 if greatest < 256 else ">u2")
    file.seek(image.tile[0].offset)
    data = file.read(image.height * image.width * len(channels) * kind.itemsize)
    samples = np.frombuffer(data, kind).reshape(shape)
    return samples.astype(np.uint16), channels, greatest


def _of_deep_heif(image: ImageFile.ImageFile, file: BinaryIO) -> tuple[Samples, str]:
    """Of HEIC with more than 8 bits, which Pillow's plugin cuts; in the upper bits of 16."""
    import pillow_heif  # which has opened the image

    file.seek(0)
    samples = np.array(pillow_heif.open_heif(file, convert_hdr_to_8bit=False), np.uint16)
    return samples, "L" if samples.ndim == 2 else ("LA", "RGB", "RGBA")[samples.shape[2] - 2]


def _of_eight_bits(image: Image.Image) -> tuple[NDArray[np.uint8], str]:
    """Samples and channels of a loaded image of at most 8 bits."""
    if image.mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode in ("L", "RGB") and "transparency" in image.info and image.format != "PNG":
        image = image.convert(f"{image.mode}A")
    elif image.mode in _CONVERTED:
        image = image.convert(_CONVERTED[image.mode])
    if image.mode not in _CHANNELS:
        raise PlicError(f"its colour mode is {image.mode}; convert it to RGB or grey first")
    return np.asarray(image), _CHANNELS[image.mode]


def _rounded(samples: NDArray[np.uint8], whites: tuple[int, ...]) -> NDArray[np.uint8]:
    """Samples that Pillow stretched to 8 bits and cut, rounded instead."""
    rounded = samples.copy()
    for channel, white in enumerate(whites):
        values, table = np.arange(white + 1), np.arange(256)
        table[values * 255 // white] = (values * 510 + white) // (2 * white)
        rounded[..., channel] = table[samples[..., channel]]
    return rounded


def _key(chunks: dict[bytes, bytes]) -> NDArray[np.uint16]:
    """The transparent colour of a PNG file without palette, as samples are scaled here; excess bits do not count."""
    depth, colours = chunks[b"IHDR"][8], 3 if chunks[b"IHDR"][9] == 2 else 1
    values = np.array(struct.unpack(f">{colours}H", chunks[b"tRNS"][: 2 * colours]), np.int64)
    scale = 1 if depth == 16 else 255 // ((1 << depth) - 1)
    return ((values & (1 << depth) - 1) * scale).astype(np.uint16)


def _jpeg2000_depth(file: BinaryIO) -> int:
    """Bits per component. PlicError where Pillow would cut or stretch them wrongly."""
    file.seek(0)
    found = _JPEG2000_DEPTHS.search(file.read(1 << 16))
    depths = set(found[2][: 3 * found[1][0] : 3]) if found else {7}
    depth = max(depths) + 1
    if len(depths) > 1 or depth < 8 or depth > 16 or (depth > 8 and found and found[1][0] > 1):
        raise PlicError(f"its components have {depth} bits, which Pillow does not read exactly; {_REMEDY}")
    return depth
