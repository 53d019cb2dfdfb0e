"""EXIF of cameras' shape through every format, against Pillow's own reader, and blocks that nobody should write."""

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketlic.codec import exif
from pocketlic.codec.errors import PlicWarning
from pocketlic.codec.image import _WRITABLE, Picture, read_picture, write_picture

PIXELS = np.random.default_rng(3).integers(0, 256, (24, 36, 3), dtype=np.uint8)
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SIGNED_RATIONAL = 1, 2, 3, 4, 5, 7, 10
CODES = {BYTE: "B", SHORT: "H", LONG: "L", RATIONAL: "LL", SIGNED_RATIONAL: "ll"}
EXIF, GPS, INTEROP = 0x8769, 0x8825, 0xA005
EXACT = [suffix for suffix in _WRITABLE if suffix not in (".jpg", ".jpeg", ".avif", ".heic", ".heif")]
WITH_EXIF = [suffix for suffix, kind in _WRITABLE.items() if kind.exif]

MAIN = [
    (0x010F, ASCII, b"A maker\0"), (0x0110, ASCII, b"X1\0"), (0x0112, SHORT, [6]), (0x011A, RATIONAL, [(72, 1)]),
    (0x011B, RATIONAL, [(72, 1)]), (0x0128, SHORT, [2]), (0x0131, ASCII, b"Firmware 1.2\0"),
    (0x0132, ASCII, b"2026:01:02 03:04:05\0"), (0x8298, ASCII, b"Nobody\0"), (0x9C9B, BYTE, [84, 0, 0, 0]),
]  # fmt: skip
STORAGE = [
    (0x0100, LONG, [4000]), (0x0101, LONG, [3000]), (0x0102, SHORT, [16, 16, 16]), (0x0103, SHORT, [6]),
    (0x0106, SHORT, [6]), (0x0111, LONG, [8, 9, 10]), (0x0115, SHORT, [1]), (0x0116, LONG, [1]), (0x0117, LONG, [5]),
    (0x011C, SHORT, [2]), (0x013D, SHORT, [2]), (0x0142, LONG, [64]), (0x0143, LONG, [64]), (0x0144, LONG, [64]),
    (0x0145, LONG, [9]), (0x014A, LONG, [64, 128]), (0x0152, SHORT, [2]), (0x0153, SHORT, [3]), (0x0201, LONG, [8]),
    (0x0202, LONG, [9]), (0x0212, SHORT, [2, 2]), (0x0213, SHORT, [1]), (0x8773, UNDEFINED, b"profile!"),
    (0x010A, SHORT, [2]), (0x015B, UNDEFINED, b"tables!!"), (0xC612, BYTE, [1, 4, 0, 0]),
]  # fmt: skip
SHOT = [
    (0x829A, RATIONAL, [(1, 250)]), (0x829D, RATIONAL, [(28, 10)]), (0x8827, SHORT, [400]),
    (0x9000, UNDEFINED, b"0232"),
    (0x9003, ASCII, b"2026:01:02 03:04:05\0"), (0x9204, SIGNED_RATIONAL, [(-1, 3)]), (0x9214, SHORT, [1, 2, 3, 4]),
    (0x927C, UNDEFINED, bytes(range(256)) * 3), (0x9286, UNDEFINED, b"ASCII\0\0\0a comment"), (0xA002, LONG, [4000]),
    (0xA432, RATIONAL, [(24, 1), (70, 1), (28, 10), (0, 0)]), (0xA434, ASCII, b"24-70\0"),
]  # fmt: skip
PLACE = [
    (0, BYTE, [2, 3, 0, 0]), (1, ASCII, b"N\0"), (2, RATIONAL, [(52, 1), (30, 1), (1234, 100)]), (3, ASCII, b"E\0"),
    (4, RATIONAL, [(13, 1), (24, 1), (0, 1)]), (5, BYTE, [0]), (6, RATIONAL, [(34, 1)]), (29, ASCII, b"2026:01:02\0"),
]  # fmt: skip
COMPATIBLE = [(1, ASCII, b"R98\0"), (2, UNDEFINED, b"0100")]


def packed(order, kind, values):
    if isinstance(values, bytes):
        return values, len(values)
    flat = [n for v in values for n in (v if isinstance(v, tuple) else (v,))]
    return b"".join(struct.pack(order + CODES[kind][0], n) for n in flat), len(values)


def laid(order, entries, at, following=0):
    """A directory at an offset, its values behind it, entries in the order given."""
    table, behind, start = b"", b"", at + 2 + 12 * len(entries) + 4
    for tag, kind, values in entries:
        value, count = packed(order, kind, values)
        if len(value) > 4:
            table += struct.pack(order + "HHLL", tag, kind, count, start + len(behind))
            behind += value + bytes(len(value) % 2)
        else:
            table += struct.pack(order + "HHL", tag, kind, count) + value.ljust(4, b"\0")
    return struct.pack(order + "H", len(entries)) + table + struct.pack(order + "L", following) + behind


def camera_block(order, *, shuffled=False, storage=False, thumbnail=b"", orientation=6):
    """What a camera writes: subdirectories, a maker's note, a place, a thumbnail; first directory last."""
    main = [(0x0112, SHORT, [orientation]) if e[0] == 0x0112 else e for e in MAIN] + STORAGE * storage
    parts = []
    at = 8
    for entries in (COMPATIBLE, PLACE):
        parts.append(laid(order, entries, at))
        at += len(parts[-1])
    shot = [*SHOT, (INTEROP, LONG, [8])]
    parts.append(laid(order, shot, at))
    main += [(EXIF, LONG, [at]), (GPS, LONG, [8 + len(parts[0])])]
    at += len(parts[-1])
    following = 0
    if thumbnail:
        following = at
        entries = [(0x0103, SHORT, [6]), (0x0201, LONG, [at + 42]), (0x0202, LONG, [len(thumbnail)])]
        parts.append(laid(order, entries, at) + thumbnail + bytes(len(thumbnail) % 2))
        at += len(parts[-1])
    random.Random(1).shuffle(main) if shuffled else main.sort()
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", at)
    return head + b"".join(parts) + laid(order, main, at, following)


def tags_of(block):
    """What Pillow reads of a block: descriptions, shot, place, compatibility."""
    tags = Image.Exif()
    tags.load(block)
    ours = {tag for tag, _, _ in MAIN}
    parts = [{t: v for t, v in tags.items() if t in ours and t != 0x0112}]
    parts += [{t: v for t, v in tags.get_ifd(i).items() if t != INTEROP} for i in (EXIF, GPS, INTEROP)]
    return [{t: str(part[t]) for t in sorted(part)} for part in parts]  # as text: 0/0 does not equal itself


def jpeg_thumbnail():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12)).save(buffer, "JPEG")
    return buffer.getvalue()


SHAPES = {
    "plain": {},
    "shuffled": {"shuffled": True},
    "storage": {"storage": True},
    "thumbnail": {"thumbnail": jpeg_thumbnail()},
    "all": {"shuffled": True, "storage": True, "thumbnail": jpeg_thumbnail()},
}


@pytest.mark.parametrize("suffix", _WRITABLE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", "<>", ids=["little", "big"])
@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
def test_every_suffix(tmp_path, suffix, shape, order, grey):
    block = camera_block(order, orientation=1, **SHAPES[shape])
    path, pixels = tmp_path / f"a{suffix}", PIXELS[..., 0] if grey else PIXELS
    if suffix in WITH_EXIF:
        write_picture(path, Picture(pixels, exif=block))
    else:
        with pytest.warns(PlicWarning, match="EXIF is left out"):
            write_picture(path, Picture(pixels, exif=block))
    read = read_picture(path)
    found = read.pixels[..., 0] if grey and read.pixels.ndim == 3 else read.pixels
    if suffix in EXACT:
        np.testing.assert_array_equal(found, pixels)
    else:
        assert np.abs(found.astype(int) - pixels).mean() < 6
    if suffix not in WITH_EXIF:
        assert read.exif == b""
        return
    assert tags_of(read.exif) == tags_of(block)
    assert len(tags_of(read.exif)[0]) == len(MAIN) - 1
    with Image.open(path) as image:  # as others read it
        assert image.getexif().get_ifd(EXIF)[0x927C] == bytes(range(256)) * 3
        assert image.getexif().get_ifd(GPS)[2] == (52, 30, 12.34)
        assert getattr(image, "n_frames", 1) == 1
    if suffix in (".png", ".jpg", ".webp", ".jxl", ".heic"):
        assert read.exif == block  # nothing moved
    if suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            assert len(file.pages) == 1
            np.testing.assert_array_equal(file.pages[0].asarray(), pixels)
            tags = file.pages[0].tags
            assert tags[EXIF].value["LensSpecification"][:4] == (24, 1, 70, 1)
            assert [t.code for t in tags] == sorted({t.code for t in tags})
            assert file.byteorder == order


@pytest.mark.parametrize("order", "<>", ids=["little", "big"])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "PNG", "HEIF", "JXL"])
def test_every_source(tmp_path, kind, order):
    import pillow_heif
    import pillow_jxl  # noqa: F401

    pillow_heif.register_heif_opener()
    block = camera_block(order, thumbnail=jpeg_thumbnail(), orientation=1)
    Image.fromarray(PIXELS).save(tmp_path / "a", kind, exif=exif.PREFIX + block if kind == "JPEG" else block)
    assert tags_of(read_picture(tmp_path / "a").exif) == tags_of(block)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)], ids=["II", "MM", "BigTIFF"])
def test_tiff_as_a_source(tmp_path, order, big):
    path = tmp_path / "a.tif"
    write_picture(path, Picture(PIXELS, exif=camera_block(order, storage=True, orientation=1)))
    if big:
        extra = [(0x010F, 2, 0, "A maker", True), (0x0132, 2, 0, "2026:01:02 03:04:05", True)]
        tifffile.imwrite(path, PIXELS, photometric="rgb", bigtiff=True, byteorder=order, extratags=extra, metadata=None)
    read = read_picture(path)
    np.testing.assert_array_equal(read.pixels, PIXELS)
    assert read.exif[:2] == (b"II" if order == "<" else b"MM")
    assert tags_of(read.exif)[0][0x010F] == "A maker"
    if not big:
        assert tags_of(read.exif) == tags_of(camera_block(order))
    tags = Image.Exif()
    tags.load(read.exif)
    assert not {tag for tag, _, _ in STORAGE} & set(tags)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def text_of(kind, block):
    return f"\n{kind}\n{len(block):8}\n{block.hex()}\n".encode()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("prefix", [b"", exif.PREFIX], ids=["bare", "prefixed"])
@pytest.mark.parametrize("kind", ["eXIf", "exif", "APP1", "compressed"])
def test_png_as_a_source(tmp_path, kind, prefix, late):
    block = camera_block(">", orientation=8)
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    data = buffer.getvalue()
    if kind == "eXIf":
        extra = chunk(b"eXIf", prefix + block)
    elif kind == "compressed":
        extra = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text_of("exif", prefix + block)))
    else:
        extra = chunk(b"tEXt", f"Raw profile type {kind}".encode() + b"\0" + text_of(kind, prefix + block))
    at = len(data) - 12 if late else 33
    (tmp_path / "a.png").write_bytes(data[:at] + extra + data[at:])
    read = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read.pixels, np.rot90(PIXELS))
    assert read.exif == exif.upright(block)[1]
    assert tags_of(read.exif) == tags_of(block)


UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}
WIDE = np.repeat(np.repeat(np.random.default_rng(4).integers(0, 256, (3, 5, 3), dtype=np.uint8), 16, 0), 16, 1)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_orientation(tmp_path, kind, orientation):
    import pillow_heif

    pillow_heif.register_heif_opener()
    block = camera_block("<", orientation=orientation)
    options = {"compression": None} if kind == "TIFF" else {"lossless": True} if kind == "WEBP" else {"quality": 95}
    Image.fromarray(WIDE).save(tmp_path / "a", kind, exif=exif.PREFIX + block if kind == "JPEG" else block, **options)
    read = read_picture(tmp_path / "a")
    expected = UPRIGHT[orientation](WIDE)
    assert read.pixels.shape == expected.shape
    assert np.abs(read.pixels.astype(int) - expected).mean() < 6
    assert exif.upright(read.exif)[0] == 1
    assert tags_of(read.exif)[0][0x010F] == "A maker"
    write_picture(tmp_path / "b.avif", read)
    assert read_picture(tmp_path / "b.avif").pixels.shape == expected.shape


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [s for s in WITH_EXIF if s != ".jxl"])  # which ignores that of EXIF
def test_orientation_that_is_written_stays(tmp_path, suffix, orientation):
    """Who encodes pixels as a camera stores them, with their EXIF, gets a file that is shown upright."""
    path = tmp_path / f"a{suffix}"
    write_picture(path, Picture(WIDE, exif=camera_block(">", orientation=orientation)))
    read = read_picture(path)
    expected = UPRIGHT[orientation](WIDE)
    assert read.pixels.shape == expected.shape
    assert np.abs(read.pixels.astype(int) - expected).mean() < 6
    assert tags_of(read.exif) == tags_of(camera_block(">"))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_of_jpeg_xl(tmp_path, orientation):
    """It has one of its own, which the decoder applies; that of EXIF is to be ignored."""
    import pillow_jxl  # noqa: F401

    block = camera_block("<", orientation=orientation)
    Image.fromarray(WIDE).save(tmp_path / "a.jxl", lossless=True, exif=block)
    read = read_picture(tmp_path / "a.jxl")
    np.testing.assert_array_equal(read.pixels, WIDE)
    assert read.exif == exif.upright(block)[1]


def test_long_blocks(tmp_path):
    """JPEG has place for 64 kB; the others take all."""
    block = camera_block("<", thumbnail=bytes(100_000), orientation=1)
    for suffix in WITH_EXIF:
        if suffix in (".jpg", ".jpeg"):
            with pytest.warns(PlicWarning, match="JPEG has place for 65527"):
                write_picture(tmp_path / f"a{suffix}", Picture(PIXELS, exif=block))
        else:
            write_picture(tmp_path / f"a{suffix}", Picture(PIXELS, exif=block))
            assert tags_of(read_picture(tmp_path / f"a{suffix}").exif) == tags_of(block)
    block = camera_block(
        "<", thumbnail=bytes(65526 - len(camera_block("<", thumbnail=b"", orientation=1)) - 42), orientation=1
    )
    assert len(block) in (65526, 65527)
    write_picture(tmp_path / "a.jpg", Picture(PIXELS, exif=block))
    assert read_picture(tmp_path / "a.jpg").exif == block


def rubbish():
    block = camera_block(">", storage=True, thumbnail=b"thumb", orientation=3)
    flips = st.lists(st.tuples(st.integers(0, len(block) - 1), st.integers(0, 255)), min_size=1, max_size=12)

    def flipped(changes):
        out = bytearray(block)
        for at, value in changes:
            out[at] = value
        return bytes(out)

    small = st.tuples(st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]), st.binary(max_size=90)).map(b"".join)
    return st.binary(max_size=60) | small | flips.map(flipped) | st.integers(0, len(block)).map(lambda n: block[:n])


@given(block=rubbish(), suffix=st.sampled_from([".tif", ".png", ".jpg", ".avif", ".webp"]))
@settings(deadline=None)
def test_rubbish_is_left_out_or_written(tmp_path_factory, block, suffix):
    """Whatever the block is, the picture is written, and what is written can be read, as the block turns it."""
    path = tmp_path_factory.mktemp("rubbish") / f"a{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlicWarning)
        write_picture(path, Picture(PIXELS, exif=block))
        read = read_picture(path)
    views = [turn(PIXELS) for turn in UPRIGHT.values()]
    if suffix in EXACT:
        assert any(np.array_equal(read.pixels, view) for view in views)
    else:
        assert read.pixels.shape in [view.shape for view in views]


@given(block=rubbish())
@settings(deadline=None)
def test_tiff_and_back_changes_nothing_more(block):
    """What a TIFF file takes of a block is what it gives back; a second time, byte for byte."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "TIFF", compression="tiff_lzw")
    try:
        once = exif.of_tiff(io.BytesIO(exif.into_tiff(buffer.getvalue(), block)))
        direct = exif.of_tiff(io.BytesIO(block))
    except (ValueError, struct.error):
        return
    assert once == direct
    assert not once or exif.of_tiff(io.BytesIO(exif.into_tiff(buffer.getvalue(), once))) == once


@pytest.mark.parametrize("order", "<>", ids=["little", "big"])
@pytest.mark.parametrize("profile", [b"", b"p" * 3, b"a profile, nearly" * 99], ids=len)
def test_tiff_with_profile_and_exif(tmp_path, order, profile):
    """Byte orders of Pillow and of the block meet in one directory."""
    for pixels in (PIXELS, PIXELS[..., 0], np.tile(PIXELS, (60, 60, 1))):
        write_picture(tmp_path / "a.tif", Picture(pixels, profile, camera_block(order, orientation=1)))
        read = read_picture(tmp_path / "a.tif")
        np.testing.assert_array_equal(read.pixels, pixels)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), pixels)
        assert read.icc == profile
        assert tags_of(read.exif) == tags_of(camera_block(order))


def test_directories_that_share_and_circle():
    """65,535 tags that all name one value, or the directory itself: no more work than the file has bytes."""
    for kind, tag in ((UNDEFINED, 0x9999), (LONG, EXIF), (LONG, GPS)):
        count = 65535
        entry = struct.pack("<HHLL", tag, kind, 1 if kind == LONG else 700_000, 8)
        block = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entry * count + bytes(4)
        assert exif.upright(block) == (1, block)
        assert len(exif.of_tiff(io.BytesIO(block))) < 2 * len(block)


def test_without_orientation_nothing_moves():
    for order in "<>":
        block = camera_block(order, shuffled=True, thumbnail=jpeg_thumbnail())
        less = exif.without_orientation(block)
        assert len(less) == len(block)
        assert tags_of(less) == tags_of(block)
        tags = Image.Exif()
        tags.load(less)
        assert 0x0112 not in tags
        assert tags.get_ifd(1) == {}  # Pillow's name for the thumbnail's directory is IFD1 only
