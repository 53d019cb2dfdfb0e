"""Pictures in and out: what is converted, what is refused, and nothing half-written."""

import io
import os
import resource
import stat
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pocketlic.codec.errors import PlicError
from pocketlic.codec.image import Picture, read_picture, write_atomic, write_picture

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


def png_16_bit_rgb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(13))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_sixteen_bits_are_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_16_bit_rgb())
    with pytest.raises(PlicError, match="more than 8 bits"):
        read_picture(path)
    path.write_bytes(b"P6 2 1 65535\n" + bytes(12))
    with pytest.raises(PlicError, match="more than 8 bits"):
        read_picture(path)
    path.write_bytes(b"P6 2 1 100\n" + bytes(6))
    assert read_picture(path).pixels.shape == (1, 2, 3)
    save(Image.fromarray(GREY.astype(np.uint16) * 257), path)
    with pytest.raises(PlicError, match="more than 8 bits"):
        read_picture(path)


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
        "cut.png": png_16_bit_rgb()[:20],
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
    with pytest.raises(PlicError, match="more than the limit of 34"):
        read_picture(tmp_path / "a.png", max_pixels=34)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(PlicError, match="MAX_IMAGE_PIXELS"):
        read_picture(tmp_path / "a.png")


def test_lossy_suffixes_are_refused(tmp_path):
    for name in ("a.jpg", "a.webp", "a"):
        with pytest.raises(PlicError, match=r"choose one of the suffixes \.png"):
            write_picture(tmp_path / name, Picture(RGB))
    assert not list(tmp_path.iterdir())


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
