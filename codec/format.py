"""The `.plic` container, version 2.

All integers are little-endian; a *varint* is unsigned LEB128 in its shortest form.

    magic         4 bytes  D0 4C 0D 0A: shows a lost high bit and every kind of newline conversion
    version       u8       2
    flags         u8       1: grey, 2: has an ICC profile, 4: has EXIF; the other bits are 0
    model id      8 bytes  the first bytes of the model's SHA-256
    width         varint   1 .. 65535 pixels
    height        varint   1 .. 65535 pixels
    quality       u16      in hundredths, 0 .. 10000
    sections               the symbols of each band of 64 latent rows; ICC, EXIF, if flagged:
      length      varint   of the payload
      payload
    check         u32      CRC-32C of all of the above

A band's payload is one stream of the entropy coder: z of the whole picture, in the first band; y; details. The file
ends with the check. A latent row is 16 pixels high and the picture is padded to a multiple of 64 pixels, so there
are ceil(ceil(height / 64) * 4 / 64) bands: one up to a height of 1024 pixels.
In a photograph of one band, about 27 bytes are not payload, and 7 bytes of the payload carry no information.

Limits: each section takes at least a byte, so the file's size bounds the number of bands. It does not bound the
number of pixels: all symbols of a flat picture may have tables that are skipped, at no cost. So the reader has a limit
on pixels, `max_pixels`, and checks it before any section.
"""

from dataclasses import dataclass
from typing import Final

from pocketlic.codec._native import crc32c
from pocketlic.codec.errors import FormatError, PlicError

MAGIC: Final = b"\xd0L\r\n"
VERSION: Final = 2
MAX_SIDE: Final = 65535
DEFAULT_MAX_PIXELS: Final = 1 << 27
MODEL_ID_BYTES: Final = 8
BAND_LATENT_ROWS: Final = 64

_GREY, _ICC, _EXIF = 1, 2, 4
_CHECK_BYTES = 4
_MAX_QUALITY = 10000


@dataclass(frozen=True, slots=True)
class Header:
    """The header: all that a decoder must know before the first symbol.

    width, height: pixels, 1 .. 65535 each.
    grey: one component (luma) instead of three (RGB).
    quality_hundredths: 0 .. 10000, the quality 0 .. 100 in exact steps of 1/100.
    model_id: the first 8 bytes of the SHA-256 of the model that encoded.

    Raises PlicError if a value is out of range.
    """

    width: int
    height: int
    grey: bool
    quality_hundredths: int
    model_id: bytes

    def __post_init__(self) -> None:
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise PlicError(f"{self.width}x{self.height} pixels are outside 1x1 to {MAX_SIDE}x{MAX_SIDE}")
        if not 0 <= self.quality_hundredths <= _MAX_QUALITY:
            raise PlicError(f"quality {self.quality_hundredths / 100:g} is outside 0 to 100")
        if len(self.model_id) != MODEL_ID_BYTES:
            raise PlicError(f"a model id has {MODEL_ID_BYTES} bytes, not {len(self.model_id)}")


@dataclass(frozen=True, slots=True)
class PlicFile:
    """A whole file.

    bands: the entropy-coded bytes of each band (see `band_count`), from top to bottom.
    icc, exif: as stored in the picture (EXIF without the `Exif` prefix of JPEG); empty means absent.
    """

    header: Header
    bands: tuple[bytes, ...]
    icc: bytes = b""
    exif: bytes = b""


def band_count(height: int) -> int:
    """Return the number of bands of a picture that is `height` pixels high."""
    latent_rows = -(-height // 64) * 4
    return -(-latent_rows // BAND_LATENT_ROWS)


def write(file: PlicFile) -> bytes:
    """Return the bytes of a `.plic` file. Raises PlicError if the number of bands is wrong."""
    header = file.header
    bands = band_count(header.height)
    if len(file.bands) != bands:
        raise PlicError(f"there must be {bands} bands, not {len(file.bands)}")
    flags = (_GREY if header.grey else 0) | (_ICC if file.icc else 0) | (_EXIF if file.exif else 0)
    data = (
        MAGIC
        + bytes([VERSION, flags])
        + header.model_id
        + _varint(header.width)
        + _varint(header.height)
        + header.quality_hundredths.to_bytes(2, "little")
    )
    sections = (*file.bands, *(m for m in (file.icc, file.exif) if m))
    data = b"".join([data, *(part for payload in sections for part in (_varint(len(payload)), payload))])
    return data + _check(data)


def decoding_memory(width: int, height: int, threads: int = 1) -> int:
    """Bytes that suffice the native core to decode a picture, its file and pixels apart.

    With w and h, the sides rounded up to multiples of 64, and the number of bands: 16 MiB + 128 w a thread; w h / 16
    for z; and 2816 w for each of at most 2 + threads bands. With less, the core takes fewer threads, down to one.
    """
    w, h = (-(-side // 64) * 64 for side in (width, height))
    return ((16 << 20) + 128 * w) * threads + w * h // 16 + 2816 * w * min(band_count(height), 2 + threads)


def encoding_memory(width: int, height: int, threads: int = 1) -> int:
    """Bytes that suffice the native core to encode a picture at effort 0, its file and pixels apart.

    With w and h as above: 4 w h, and 16 MiB + 7000 w a thread.
    """
    w, h = (-(-side // 64) * 64 for side in (width, height))
    return 4 * w * h + ((16 << 20) + 7000 * w) * threads


def with_metadata(data: bytes, icc: bytes, exif: bytes) -> bytes:
    """A `.plic` file without ICC profile and EXIF, of any size, and those added to it."""
    if not icc and not exif:
        return data
    file = read(data, MAX_SIDE**2)
    return write(PlicFile(file.header, file.bands, icc, exif))


def read_header(data: bytes) -> Header:
    """Return the header of a whole `.plic` file, which is checked for damage. Raises FormatError."""
    return _read_header(_Cursor(data))[0]


def read(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> PlicFile:
    """Return the content of a `.plic` file, every byte of it checked.

    Raises FormatError on anything but a whole, undamaged file of version 2 with at most `max_pixels` pixels.
    Memory: the size of `data`, whatever it claims.
    """
    cursor = _Cursor(data)
    header, flags = _read_header(cursor)
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise FormatError(
            f"the file claims {header.width}x{header.height} = {pixels} pixels, more than the limit of "
            f"{max_pixels}; raise max_pixels if you trust it"
        )
    bands = tuple(cursor.section("symbols") for _ in range(band_count(header.height)))
    icc = cursor.metadata("ICC profile") if flags & _ICC else b""
    exif = cursor.metadata("EXIF") if flags & _EXIF else b""
    if cursor.at != cursor.end:
        raise FormatError(f"{cursor.end - cursor.at} bytes follow the last section")
    return PlicFile(header, bands, icc, exif)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _check(data: bytes) -> bytes:
    return crc32c(data).to_bytes(_CHECK_BYTES, "little")


class _Cursor:
    """Reads `data` from front to back, never into the check at its end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at, self.end = 0, max(0, len(data) - _CHECK_BYTES)

    def take(self, size: int, what: str) -> bytes:
        end = self.at + size
        if end > self.end:
            raise FormatError(f"the file is truncated in the {what}")
        start, self.at = self.at, end
        return self.data[start:end]

    def varint(self, what: str) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1, what)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift > 0:
                    break
                return value
        raise FormatError(f"the {what} holds a malformed number")

    def section(self, what: str) -> bytes:
        return self.take(self.varint(what), what)

    def metadata(self, what: str) -> bytes:
        payload = self.section(what)
        if not payload:
            raise FormatError(f"the {what} is flagged but empty")
        return payload


def _read_header(cursor: _Cursor) -> tuple[Header, int]:
    data = cursor.data
    if not data:
        raise FormatError("the file is empty")
    if not data.startswith(MAGIC):
        if data[:2] in (MAGIC[:2], b"PL") and len(data) > len(MAGIC):
            raise FormatError("not a .plic file, or damaged by a transfer in text mode")
        cut = MAGIC.startswith(data)
        raise FormatError("the file is truncated in the header" if cut else "not a .plic file")
    cursor.take(len(MAGIC), "header")
    version = cursor.take(1, "header")[0]
    if version > VERSION:
        raise FormatError(f"file version {version} is newer than this decoder ({VERSION})")
    if version < VERSION:
        raise FormatError(f"there is no file version {version}")
    # The check comes first: other errors of a damaged file would mislead.
    if _check(data[: cursor.end]) != data[cursor.end :]:
        raise FormatError("the file is damaged or incomplete (checksum mismatch)")
    flags = cursor.take(1, "header")[0]
    if flags & ~(_GREY | _ICC | _EXIF):
        raise FormatError(f"the header has unknown flags (0x{flags:02x})")
    model_id = cursor.take(MODEL_ID_BYTES, "header")
    width = cursor.varint("header")
    height = cursor.varint("header")
    quality = int.from_bytes(cursor.take(2, "header"), "little")
    try:
        return Header(width, height, bool(flags & _GREY), quality, model_id), flags
    except PlicError as error:
        raise FormatError(f"the header is impossible: {error}") from None
