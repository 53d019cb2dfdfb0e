"""Pictures in and out: what is converted, what is refused, and nothing half-written."""

import contextlib
import io
import os
import re
import resource
import stat
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketlic.codec.errors import PlicError, PlicWarning
from pocketlic.codec.files import write_atomic
from pocketlic.codec.image import _WRITABLE, Picture, read_picture, write_picture
from pocketlic.codec.reading import require_plugin

RGB = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
GREY = RGB[:, :, 0].copy()
ORIENTATION = 0x0112


def exif_block(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = "a camera"
    return exif.tobytes()


def orientation_of(exif: bytes) -> int:
    tags = Image.Exif()
    tags.load(exif)
    return tags[ORIENTATION]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".ppm", ".PNG"])
@pytest.mark.parametrize("pixels", [RGB, GREY], ids=["rgb", "grey"])
def test_round_trip(tmp_path, suffix, pixels):
    write_picture(tmp_path / f"a{suffix}", Picture(pixels))
    read = read_picture(tmp_path / f"a{suffix}")
    assert read.pixels.dtype == np.uint8
    assert np.array_equal(read.pixels, pixels)
    assert read.icc == b""
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_metadata_is_attached(tmp_path, suffix):
    exif = exif_block(1).removeprefix(b"Exif\0\0")
    write_picture(tmp_path / f"a{suffix}", Picture(RGB, b"a profile", exif))
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.info["icc_profile"] == b"a profile"
        assert image.getexif()[0x010F] == "a camera"
    assert read_picture(tmp_path / f"a{suffix}").icc == b"a profile"
    if suffix == ".png":
        assert read_picture(tmp_path / "a.png").exif == exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_orientation_is_applied_and_reset(tmp_path, orientation, kind):
    path = tmp_path / "a"
    Image.fromarray(RGB).save(path, kind, exif=exif_block(orientation), icc_profile=b"p")
    with Image.open(path) as image:
        stored = np.array(image)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(stored),
    }[orientation]
    read = read_picture(path)
    assert np.array_equal(read.pixels, upright)
    assert orientation_of(read.exif) == 1
    assert read.exif[:2] in (b"II", b"MM")
    assert b"a camera" in read.exif
    assert read.icc == b"p"


def test_malformed_exif_is_dropped(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=b"Exif\0\0rubbish")
    with pytest.warns(PlicWarning, match="its EXIF is damaged and left out"):
        read = read_picture(tmp_path / "a.png")
    assert np.array_equal(read.pixels, RGB)
    assert read.exif == b""


def save(image: Image.Image, path, **options) -> None:
    image.save(path, "PNG", **options)


def test_conversions(tmp_path):
    path = tmp_path / "a.png"
    palette = Image.fromarray(RGB).quantize(16)
    save(palette, path)
    assert np.array_equal(read_picture(path).pixels, np.array(palette.convert("RGB")))
    save(Image.fromarray(GREY).convert("1"), path)
    assert set(np.unique(read_picture(path).pixels)) == {0, 255}
    opaque = np.full((7, 5, 1), 255, np.uint8)
    save(Image.fromarray(np.concatenate([RGB, opaque], 2)), path)
    assert np.array_equal(read_picture(path).pixels, RGB)
    save(Image.fromarray(np.concatenate([GREY[..., None], opaque], 2)), path)
    assert np.array_equal(read_picture(path).pixels, GREY)


def transparent_pictures():
    alpha = np.full((7, 5, 1), 255, np.uint8)
    alpha[3, 2] = 254
    yield "rgba", Image.fromarray(np.concatenate([RGB, alpha], 2)), {}
    yield "la", Image.fromarray(np.concatenate([GREY[..., None], alpha], 2)), {}
    yield "palette", Image.fromarray(RGB).quantize(16), {"transparency": 3}
    yield "rgb key", Image.fromarray(RGB), {"transparency": tuple(int(v) for v in RGB[2, 2])}
    yield "grey key", Image.fromarray(GREY), {"transparency": int(GREY[2, 2])}


@pytest.mark.parametrize(("image", "options"), [p[1:] for p in transparent_pictures()], ids=lambda x: "")
def test_transparency_is_refused(tmp_path, image, options):
    save(image, tmp_path / "a.png", **options)
    with pytest.raises(PlicError, match="transparent pixels"):
        read_picture(tmp_path / "a.png")


def test_sixteen_bits_are_rounded_and_told(tmp_path):
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(deep).save(tmp_path / "a.png")
    with pytest.warns(PlicWarning, match=r"a\.png: its samples of more than 8 bits are rounded to 8"):
        read = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read.pixels, np.round(deep / 257))


def test_other_colour_modes_are_refused(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(PlicError, match="CMYK"):
        read_picture(tmp_path / "a.jpg")
    Image.fromarray(RGB).convert("LAB").save(tmp_path / "a.tif")
    with pytest.raises(PlicError, match="colour mode is LAB"):
        read_picture(tmp_path / "a.tif")


def test_unreadable_inputs(tmp_path):
    good = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(good, "JPEG")
    cases = {
        "missing.png": None,
        "empty.png": b"",
        "text.png": b"hello",
        "cut.jpg": good.getvalue()[:-200],
        "cut.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    }
    for name, data in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(PlicError, match=f"cannot read .*{name}: ") as caught:
            read_picture(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(PlicError, match="cannot read"):
        read_picture(tmp_path)


def test_pixel_limits(tmp_path, monkeypatch):
    save(Image.fromarray(RGB), tmp_path / "a.png")
    with pytest.raises(PlicError, match="more than the limit of 34; raise max_pixels"):
        read_picture(tmp_path / "a.png", max_pixels=34)
    monkeypatch.setattr("pocketlic.codec.image.DEFAULT_MAX_PIXELS", 34)
    with pytest.raises(PlicError, match=r"more than the limit of 34$"):
        read_picture(tmp_path / "a.png")  # as commands do that have no option for it
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(PlicError, match="MAX_IMAGE_PIXELS"):
        read_picture(tmp_path / "a.png")


def test_unknown_suffixes_are_refused(tmp_path):
    for name in ("a.plic", "a.gif", "a"):
        with pytest.raises(PlicError, match=r"choose one of the suffixes \.png"):
            write_picture(tmp_path / name, Picture(RGB))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", _WRITABLE)
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (2, 70_000, 3), (70_000, 2)], ids=str)
def test_every_suffix_writes_or_says_why_not(tmp_path, suffix, shape):
    pixels = np.full(shape, 77, np.uint8)
    path = tmp_path / f"a{suffix}"
    try:
        write_picture(path, Picture(pixels))
    except PlicError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert max(shape) > 65000
        assert re.fullmatch(rf"cannot write {path} as \w+: .+", message)
        assert not list(tmp_path.iterdir())
    else:
        read = read_picture(path).pixels
        assert read.shape[:2] == shape[:2]
        assert np.abs(read.astype(int) - 77).max() <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".avif", ".heic"])
def test_lossy_formats_are_of_high_quality(tmp_path, suffix):
    """Colours at full resolution too: red and blue stripes of one pixel stay apart."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 220, 30, 40
    stripes[:, 1::2] = 30, 40, 220
    write_picture(tmp_path / f"a{suffix}", Picture(stripes))
    assert np.abs(read_picture(tmp_path / f"a{suffix}").pixels.astype(int) - stripes).mean() < 4


def frames(count=3):
    return [Image.fromarray(np.roll(RGB, i, 0)) for i in range(count)]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF", "HEIF"])
def test_first_of_several_pictures(tmp_path, kind):
    require_plugin(kind)
    first, *others = frames()
    options = {"WEBP": {"lossless": True}, "MPO": {"quality": 100}}.get(kind, {})
    first.save(tmp_path / "a", kind, save_all=True, append_images=others, **options)
    first.save(tmp_path / "b", "JPEG" if kind == "MPO" else kind, **options)
    with pytest.warns(PlicWarning, match="more than one picture; only the first is taken") as told:
        several = read_picture(tmp_path / "a")
    assert len(told) == 1
    single = read_picture(tmp_path / "b")
    assert np.abs(several.pixels.astype(int) - single.pixels).max() <= (12 if kind == "AVIF" else 0)


def test_a_damaged_second_picture_does_no_harm(tmp_path):
    first, second = frames(2)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    data = (tmp_path / "a.gif").read_bytes()
    at = data.rindex(b",")
    for cut in (at + 3, at + 20):
        (tmp_path / "a.gif").write_bytes(data[:cut])
        with pytest.warns(PlicWarning, match="more than one picture"):
            read = read_picture(tmp_path / "a.gif")
        np.testing.assert_array_equal(read.pixels, np.array(first.quantize(256).convert("RGB")))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "raw"])
def test_libtiff_is_silent(tmp_path, capfd, compression):
    """It prints by itself, and from C."""
    Image.fromarray(np.tile(RGB, (9, 9, 1))).save(tmp_path / "a.tif", compression=compression)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for at, value in ((60, 255), (61, 0), (9, 255), (10, 255)):
        damaged = data.copy()
        damaged[at : at + 40] = bytes([value]) * 40
        for content in (damaged, data[:at], data[: len(data) // 2]):
            (tmp_path / "a.tif").write_bytes(content)
            with contextlib.suppress(PlicError):
                read_picture(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_default_picture_of_an_animation(tmp_path):
    """It is what viewers without animation show, and no part of it."""
    default, *others = frames()
    default.save(tmp_path / "a.png", save_all=True, append_images=others, default_image=True)
    with pytest.warns(PlicWarning, match="more than one picture"):
        read = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read.pixels, np.array(default))


@pytest.mark.parametrize("size", range(16))
def test_files_of_a_few_bytes(tmp_path, size):
    """Whatever else Pillow has loaded: its own checks of such files raise almost anything."""
    Image.init()
    for content in (bytes(size), b"hello, this is a text"[:size], b"\xff" * size):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(PlicError, match=r"not a picture|file that is damaged|malformed"):
            read_picture(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(PlicError, match="not a picture in a known format"):
        read_picture(tmp_path / "a.png")


def test_a_damaged_file_is_named_by_its_kind(tmp_path):
    for kind in ("PNG", "GIF", "TIFF"):
        Image.fromarray(RGB).save(tmp_path / "a", kind)
        data = (tmp_path / "a").read_bytes()
        (tmp_path / "a").write_bytes(data[:9])
        with pytest.raises(PlicError, match=rf"a {kind} file that is damaged|malformed"):
            read_picture(tmp_path / "a")


def jpeg_with(segment, *others):
    """A JPEG file with a segment after its start, and further JPEG files behind it."""
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    return data[:2] + segment[:2] + struct.pack(">H", len(segment)) + segment[2:] + data[2:] + b"".join(others)


@pytest.mark.parametrize(
    "segment",
    [
        b'\xff\xe1http://ns.adobe.com/xap/1.0/\0<x xmlns:hdrgm="..." hdrgm:Version="1.0"/>',
        b"\xff\xe1http://ns.adobe.com/xap/1.0/\0<hdrgm:Version>1.0</hdrgm:Version>",
        b"\xff\xe2urn:iso:std:iso:ts:21496:-1\0\0\0\0\0",
    ],
    ids=["attribute", "element", "ISO"],
)
def test_gain_maps_are_left_out(tmp_path, segment):
    """Ultra HDR: the gain map is a second JPEG behind the first."""
    (tmp_path / "a.jpg").write_bytes(jpeg_with(segment, jpeg_with(segment)))
    (tmp_path / "b.jpg").write_bytes(jpeg_with(b"\xff\xe1other"))
    with pytest.warns(PlicWarning, match="gain map for HDR screens is left out") as told:
        read = read_picture(tmp_path / "a.jpg")
    assert len(told) == 1
    np.testing.assert_array_equal(read.pixels, read_picture(tmp_path / "b.jpg").pixels)


@pytest.mark.parametrize(
    ("suffix", "module", "package"),
    [(".heic", "pillow_heif", "pillow-heif"), (".jxl", "pillow_jxl", "pillow-jxl-plugin")],
)
def test_plugins_are_registered_or_named(tmp_path, suffix, module, package):
    """In processes of their own, where nothing is registered yet."""
    path = tmp_path / f"a{suffix}"
    run = [sys.executable, "-P", "-W", "ignore", "-c"]
    program = (
        "import sys\nimport numpy as np\n"
        "from pocketlic.codec.image import Picture, PlicError, read_picture, write_picture\n"
        f"if sys.argv[1] == 'without': sys.modules[{module!r}] = None\n"
        "try:\n"
        "    if sys.argv[2] == 'write': write_picture(sys.argv[3], Picture(np.full((9, 7, 3), 50, np.uint8)))\n"
        "    else: print(read_picture(sys.argv[3]).pixels.shape)\n"
        "except PlicError as error: print(error)\n"
    )

    def output(*arguments):
        return subprocess.run([*run, program, *map(str, arguments)], capture_output=True, text=True, check=True).stdout

    assert output("with", "write", path) == ""
    assert output("with", "read", path) == "(9, 7, 3)\n"
    for direction, verb in (("read", "read"), ("write", "write")):
        assert re.search(
            rf"cannot {verb} {path}: .* needs a package: pip install {package}", output("without", direction, path)
        )


def test_postscript_is_not_run(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", "EPS")
    with pytest.raises(PlicError, match="PostScript is a program and not run here"):
        read_picture(tmp_path / "a.png")


def test_raw_files_of_cameras_are_refused(tmp_path):
    """They begin with a thumbnail, which Pillow would take for the picture."""
    tifffile.imwrite(tmp_path / "a.nef", RGB, photometric="rgb", subfiletype=1)
    with pytest.raises(PlicError, match="thumbnail"):
        read_picture(tmp_path / "a.nef")


def test_pipes_are_read(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "a.png").read_bytes()))
    thread.start()
    np.testing.assert_array_equal(read_picture(tmp_path / "pipe").pixels, RGB)
    thread.join()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bits_of(*fields):
    value, at = 0, 0
    for number, width in fields:
        value |= number << at
        at += width
    return value.to_bytes(32, "little")


BOMBS = {
    "png": b"\x89PNG\r\n\x1a\n"
    + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 65000, 65000, 8, 2, 0, 0, 0))
    + png_chunk(b"IDAT", zlib.compress(bytes(1 << 20))),
    "gif": b"GIF89a" + struct.pack("<HHBBB6x1sHHHHB", 65000, 65000, 128, 0, 0, b",", 0, 0, 65000, 65000, 0) + b"\2\0;",
    "ppm": b"P6 65000 65000 255\n" + bytes(99),
    "plain.ppm": b"P3 65000 65000 255\n" + b"1 " * 99,
    "jxl": b"\xff\x0a" + bits_of((0, 1), (3, 2), (64999, 30), (0, 3), (3, 2), (64999, 30)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header(tmp_path, name):
    path = tmp_path / f"a.{name}"
    path.write_bytes(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(PlicError, match=r"65000x65000 pixels, more than the limit|MAX_IMAGE_PIXELS"):
            read_picture(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "size", [(1, 1), (8, 8), (256, 256), (300, 200), (512, 512), (640, 480), (1920, 1080), (77, 5000)]
)
def test_jpeg_xl_sizes(tmp_path, size):
    """The header is read by code of ours, since the plugin decodes when it opens."""
    import pillow_jxl  # noqa: F401

    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "a.jxl", lossless=True, effort=1, use_container=size[0] > 300)
    for limit in (size[0] * size[1] - 1, size[0] * size[1]):
        if limit < size[0] * size[1]:
            with pytest.raises(PlicError, match=f"it has {size[0]}x{size[1]} pixels, more than the limit of {limit};"):
                read_picture(tmp_path / "a.jxl", max_pixels=limit)
        else:
            assert read_picture(tmp_path / "a.jxl", max_pixels=limit).pixels.shape == (size[1], size[0], 3)


def saved(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.tile(RGB, (9, 9, 1))).save(buffer, kind, **options)
    return buffer.getvalue()


require_plugin("HEIF")
require_plugin("JXL")
KINDS = [saved(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "AVIF", "BMP", "JPEG2000", "PPM", "QOI", "HEIF", "JXL")]
KINDS += [saved(kind) for kind in ("ICO", "ICNS", "DDS", "SGI", "PCX")]
KINDS += [saved("WEBP", lossless=True), saved("TIFF", compression="tiff_lzw"), saved("TGA", compression="tga_rle")]


@given(
    data=st.sampled_from(KINDS),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5),
)
@settings(max_examples=300, deadline=None)
def test_damaged_files(tmp_path_factory, data, cut, changes):
    """A picture, or one line; Pillow's own warnings stay inside."""
    damaged = bytearray(data[: round(len(data) * cut)])
    for at, value in changes:
        if damaged:
            damaged[int(at * (len(damaged) - 1))] = value
    path = tmp_path_factory.mktemp("damaged") / "a"
    path.write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PlicWarning)
        try:
            assert read_picture(path, max_pixels=1_000_000).pixels.dtype == np.uint8
        except PlicError as error:
            message = str(error)
        else:
            return
    assert message.startswith(f"cannot read {path}: ")
    assert "\n" not in message


def test_write_atomic(tmp_path):
    path = tmp_path / "a.plic"
    write_atomic(path, b"old")
    (tmp_path / "link").symlink_to(path)
    write_atomic(tmp_path / "link", b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_write_failures_leave_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    for bad in (tmp_path / "no" / "a.plic", tmp_path / "file" / "a.plic", tmp_path, tmp_path / "pipe"):
        with pytest.raises(PlicError, match="cannot write ") as caught:
            write_atomic(bad, b"data")
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PlicError, match="Permission denied"):
        write_atomic(tmp_path / "a.plic", b"data")


def test_full_disk_keeps_the_old_file(tmp_path):
    """A limit on the size of files stands in for a full disk."""
    path = tmp_path / "a.plic"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(PlicError, match=r"cannot write .*File too large"):
            write_atomic(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
