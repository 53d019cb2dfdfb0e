"""EXIF blocks: directories of tags in the form of a TIFF file, which cameras put beside the pixels.

A block stays as the camera wrote it, byte for byte, but for its orientation: makers' notes hold offsets into it. Only
TIFF files make us take blocks apart and write new ones, since there tags of the picture and of its storage share a
directory. Values then keep their bytes and byte order. Tags that say how a file stores its pixels stay behind, and so
do thumbnails.
"""

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import numpy as np

PREFIX = b"Exif\x00\x00"
"""What JPEG writes before a block."""

_ORIENTATION = 0x0112
_FIRST, _EXIF, _GPS, _INTEROPERABILITY = -1, 0x8769, 0x8825, 0xA005
_SUBDIRECTORIES = {_FIRST: (_EXIF, _GPS), _EXIF: (_INTEROPERABILITY,), _GPS: (), _INTEROPERABILITY: ()}
_LONG, _OFFSETS = 4, (4, 13, 16, 18)  # types; 13 is IFD, 16 and 18 are their large siblings in BigTIFF
_VALUES = range(1, 13)  # types of values that mean the same in any file
_UNITS = dict(zip((*_VALUES, 13, 16, 18), (1, 1, 2, 4, 4, 1, 1, 2, 4, 4, 4, 8, 4, 8, 8), strict=True))  # bytes
_NUMBERS = {5: 2, 10: 2}  # numbers of a value, where more than one: rationals

# Below 0x0300 TIFF's own tags, but for these: document, description, make, model, orientation, resolution, software,
# date, artist, host.
_DESCRIPTIONS = {0x010D, 0x010E, 0x010F, 0x0110, _ORIENTATION, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C}
# SGI's layout, colour filters, IPTC, Photoshop's resources, ICC profile, JBIG, Photoshop's layers, LERC; DNG's tags
# describe raw sensor data.
_STORAGE = {*range(0x80E3, 0x80E7), 0x828D, 0x828E, 0x83BB, 0x8649, 0x8773, 0x87BE, 0x935C, 0xC5F2}
_STORAGE |= {*range(0xC612, 0xC800)}


def _describes_storage(tag: int) -> bool:
    return tag in _STORAGE or (tag < 0x0300 and tag not in _DESCRIPTIONS)


class _Entry(NamedTuple):
    tag: int
    type: int
    value: bytes
    at: int  # where the value is in the file


@dataclass
class _Directory:
    entries: dict[int, _Entry] = field(default_factory=dict)
    subdirectories: dict[int, "_Directory"] = field(default_factory=dict)


class _Reader:
    """Reads the directories of a TIFF structure. ValueError or struct.error when it is none.

    A value that lies outside of the file, or is of an unknown type, is left out. All that is read takes at most as many
    bytes as the file, which many entries that share one value would exceed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.budget = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not self.order:
            raise ValueError("no TIFF structure")
        version = struct.unpack(f"{self.order}H", head[2:4])[0]
        if version not in (42, 43):
            raise ValueError("no TIFF structure")
        self.count, self.entry, self.offset = ("Q", "HHQ8s", "Q") if version == 43 else ("H", "HHL4s", "L")
        at = 8 if version == 43 else 4
        self.first: int = self.numbers(self.offset, head[at : at + struct.calcsize(self.order + self.offset)])[0]

    def numbers(self, form: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack(self.order + form, data)

    def read(self, form: str, at: int) -> tuple[int, ...]:
        if at >= 1 << 63:
            raise ValueError("the directory is nowhere")
        self.file.seek(at)
        return self.numbers(form, self.file.read(struct.calcsize(self.order + form)))

    def entries(self, at: int) -> Iterator[_Entry]:
        (count,) = self.read(self.count, at)
        size = struct.calcsize(self.order + self.entry)
        at += struct.calcsize(self.order + self.count)
        if count * size > self.budget:
            raise ValueError("the directory is cut off")
        self.budget -= count * size
        self.file.seek(at)
        table = self.file.read(count * size)
        for i in range(count):
            tag, kind, number, inline = struct.unpack_from(self.order + self.entry, table, i * size)
            bytes_ = number * _UNITS.get(kind, 0) * _NUMBERS.get(kind, 1)
            place = at + i * size + size - len(inline)
            if bytes_ > len(inline):
                place = self.numbers(self.offset, inline)[0]
                if bytes_ > self.budget or place >= 1 << 63:
                    continue
                self.budget -= bytes_
            self.file.seek(place)
            value = self.file.read(bytes_)
            if 0 < len(value) == bytes_:
                yield _Entry(tag, kind, value, place)

    def directory(self, at: int, tag: int = _FIRST) -> _Directory:
        """The directory at an offset, which the tag's value is."""
        found = _Directory()
        for entry in list(self.entries(at)):
            if entry.tag in _SUBDIRECTORIES[tag] and entry.type in _OFFSETS:
                below = int.from_bytes(entry.value, "little" if self.order == "<" else "big")
                with contextlib.suppress(ValueError, struct.error):
                    found.subdirectories[entry.tag] = self.directory(below, entry.tag)
            elif entry.tag not in _SUBDIRECTORIES and entry.type in _VALUES:
                found.entries[entry.tag] = entry
        return found


def _swapped(entry: _Entry) -> _Entry:
    return entry._replace(value=np.frombuffer(entry.value, f"u{_UNITS[entry.type]}").byteswap().tobytes())


def _written(directory: _Directory, order: str, offset: int) -> bytes:
    """A directory as it lies at `offset`, an even number, with its values and subdirectories behind it."""
    tags = sorted({*directory.entries, *directory.subdirectories})
    table = struct.pack(f"{order}H", len(tags))
    behind = b""
    start = offset + 2 + 12 * len(tags) + 4
    for tag in tags:
        if tag in directory.subdirectories:
            kind, count, inline = _LONG, 1, struct.pack(f"{order}L", start + len(behind))
            behind += _written(directory.subdirectories[tag], order, start + len(behind))
        else:
            _, kind, value, _ = directory.entries[tag]
            count = len(value) // (_UNITS[kind] * _NUMBERS.get(kind, 1))
            inline = value if len(value) <= 4 else struct.pack(f"{order}L", start + len(behind))
            behind += value if len(value) > 4 else b""
        behind += b"\x00" * (len(behind) % 2)
        table += struct.pack(f"{order}HHL4s", tag, kind, count, inline)
    return table + bytes(4) + behind


def _header(order: str, first: int) -> bytes:
    return {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HL", 42, first)


def _orientations(block: bytes) -> tuple[_Reader, list[_Entry]]:
    reader = _Reader(io.BytesIO(block))
    entries = list(reader.entries(reader.first))
    return reader, [e for e in entries if e.tag == _ORIENTATION and e.type in (1, 3, 4)]


def upright(block: bytes) -> tuple[int, bytes]:
    """The orientation of a block, 1 to 8, and the block with orientation 1.

    A block without orientation, or with a number that means nothing, has 1. ValueError or struct.error when the block
    is none, or its first directory is not whole.
    """
    reader, entries = _orientations(block)
    orientation, out = 1, bytearray(block)
    for _, kind, value, at in entries:
        width = _UNITS[kind]
        orientation = reader.numbers("?BH?L"[width], value[:width])[0]
        out[at : at + width] = struct.pack(reader.order + "?BH?L"[width], 1)
    return orientation if 1 <= orientation <= 8 else 1, bytes(out)


def without_orientation(block: bytes) -> bytes:
    """The block with a first directory that has no orientation; everything else stays where it is."""
    reader = _Reader(io.BytesIO(block))
    (count,) = reader.read("H", reader.first)
    start, end = reader.first + 2, reader.first + 2 + 12 * count
    rows = [block[at : at + 12] for at in range(start, end, 12)]
    kept = [row for row in rows if reader.numbers("H", row[:2])[0] != _ORIENTATION]
    table = struct.pack(f"{reader.order}H", len(kept)) + b"".join(kept) + block[end : end + 4]
    return block[: reader.first] + table + bytes(12 * (count - len(kept))) + block[end + 4 :]


def _descriptions(directory: _Directory) -> _Directory:
    kept = {tag: entry for tag, entry in directory.entries.items() if not _describes_storage(tag)}
    return _Directory(kept, directory.subdirectories)


def of_tiff(file: BinaryIO) -> bytes:
    """The tags of a TIFF file's first picture as a block, or nothing where it has none. Errors as of `upright`."""
    reader = _Reader(file)
    directory = _descriptions(reader.directory(reader.first))
    if not directory.entries and not directory.subdirectories:
        return b""
    return _header(reader.order, 8) + _written(directory, reader.order, 8)


def into_tiff(tiff: bytes, block: bytes) -> bytes:
    """A TIFF file of 8 bits per sample that Pillow wrote, with the tags of a block beside its own.

    The file takes the block's byte order, which makers' notes rely on. Errors as of `upright`.
    """
    reader, own = _Reader(io.BytesIO(block)), _Reader(io.BytesIO(tiff))
    directory = _descriptions(reader.directory(reader.first))
    for tag, entry in own.directory(own.first).entries.items():
        directory.entries[tag] = entry if own.order == reader.order else _swapped(entry)
    body = tiff[8:] + b"\x00" * (len(tiff) % 2)
    first = 8 + len(body)
    return _header(reader.order, first) + body + _written(directory, reader.order, first)
