"""Colours that files describe: kept as ICC profiles that LittleCMS reads, or refused by one line."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pocketlic.codec import icc
from pocketlic.codec.errors import PlicError, PlicWarning
from pocketlic.codec.image import _WRITABLE, Picture, read_picture, write_picture

COLOURS = np.random.default_rng(7).integers(0, 256, (24, 36, 3), dtype=np.uint8)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
D65 = (0.3127, 0.329)
P3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
BT709 = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)


def read(path, *messages):
    """The picture, after exactly these warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        picture = read_picture(path)
    assert [str(w.message).removeprefix(f"{path}: ") for w in told if w.category is PlicWarning] == [*messages]
    return picture


def refused(path, words):
    with pytest.raises(PlicError, match=words) as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, pixels, *chunks, profile=b""):
    """Writes a PNG file with further chunks; returns its path."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", icc_profile=profile or None)
    data = buffer.getvalue()
    path.write_bytes(data[:33] + b"".join(chunk(*c) for c in chunks) + data[33:])
    return path


def gama(gamma):
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chrm(white, primaries):
    return b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in (*white, *primaries)))


def linear_srgb(pixels):
    """Linear light of sRGB, by its standard."""
    v = pixels / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def to_xyz(white, primaries):
    xy = np.array([*white, *primaries]).reshape(4, 2)
    columns = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
    return columns[:, 1:] * np.linalg.solve(columns[:, 1:], columns[:, 0])


def seen(pixels, profile):
    """Linear light in sRGB that a colour-managed viewer shows, before clipping ends at 0 and 1."""
    image = Image.fromarray(pixels)
    mode = "RGB" if pixels.ndim == 3 else "L"
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    flags = ImageCms.Flags.NOCACHE | ImageCms.Flags.HIGHRESPRECALC
    transform = ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags)
    return linear_srgb(np.array(ImageCms.applyTransform(image, transform)).astype(float))


def wanted(pixels, decode, white, primaries):
    light = decode(pixels / 255) if pixels.ndim == 3 else np.repeat(decode(pixels / 255)[..., None], 3, 2)
    matrix = np.linalg.inv(to_xyz(D65, BT709)) @ to_xyz(white, primaries) if pixels.ndim == 3 else np.eye(3)
    return np.clip(light @ matrix.T, 0, 1)


@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
@pytest.mark.parametrize("gamma", [1.0, 0.5, 1 / 1.8, 1 / 2.6])
def test_gamma(tmp_path, gamma, grey):
    pixels = GREY if grey else COLOURS
    picture = read(png(tmp_path / "a.png", pixels, gama(gamma)))
    np.testing.assert_array_equal(picture.pixels, pixels)
    light = wanted(pixels, lambda v: v ** (1 / (round(gamma, 5))), D65, BT709)
    assert np.abs(seen(pixels, picture.icc) - light).max() < 0.006


@pytest.mark.parametrize("transfer", ["gamma", "sRGB"])
def test_chromaticities(tmp_path, transfer):
    chunks = [chrm(D65, P3)] + [gama(1 / 2.2)] * (transfer == "gamma")
    picture = read(png(tmp_path / "a.png", COLOURS, *chunks))
    np.testing.assert_array_equal(picture.pixels, COLOURS)
    decode = (lambda v: v ** (1 / 0.45455)) if transfer == "gamma" else lambda v: linear_srgb(v * 255)
    assert np.abs(seen(COLOURS, picture.icc) - wanted(COLOURS, decode, D65, P3)).max() < 0.012


CICP = {
    "Display P3": (12, 13, P3, lambda v: linear_srgb(v * 255)),
    "BT.709": (1, 1, BT709, lambda v: np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))),
    "linear": (1, 8, BT709, lambda v: v),
    "gamma 2.2": (1, 4, BT709, lambda v: v**2.2),
}


@pytest.mark.parametrize("name", CICP)
def test_cicp(tmp_path, name):
    primaries, transfer, xy, decode = CICP[name]
    path = png(tmp_path / "a.png", COLOURS, (b"cICP", bytes([primaries, transfer, 0, 1])), profile=SRGB)
    picture = read(path)
    np.testing.assert_array_equal(picture.pixels, COLOURS)
    assert np.abs(seen(COLOURS, picture.icc) - wanted(COLOURS, decode, D65, xy)).max() < 0.012


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"sRGB", b"\0")],
        [(b"sRGB", b"\0"), gama(0.45455), chrm(D65, BT709)],
        [(b"sRGB", b"\0"), gama(1.0), chrm(D65, P3)],
        [gama(0.45455)],
        [gama(0.45455), chrm(D65, BT709)],
        [chrm(D65, BT709)],
        [(b"cICP", bytes([1, 13, 0, 1])), gama(1.0)],
        [(b"cICP", bytes([2, 2, 0, 1]))],
    ],
    ids=lambda chunks: " ".join(kind.decode() for kind, _ in chunks),
)
@pytest.mark.parametrize("pixels", [COLOURS, GREY], ids=["rgb", "grey"])
def test_what_means_srgb_needs_no_profile(tmp_path, chunks, pixels):
    assert read(png(tmp_path / "a.png", pixels, *chunks)).icc == b""


def test_a_profile_goes_before_gamma(tmp_path):
    assert read(png(tmp_path / "a.png", COLOURS, gama(1.0), chrm(D65, P3), profile=SRGB)).icc == SRGB


@pytest.mark.parametrize(
    ("cicp", "words"),
    [((9, 16, 0, 1), "HDR .PQ."), ((9, 18, 0, 1), "HDR .HLG."), ((1, 13, 1, 1), "full-range"),
     ((1, 13, 0, 0), "full-range"), ((10, 13, 0, 1), "no known kind"), ((1, 9, 0, 1), "no known kind")],
)  # fmt: skip
def test_cicp_that_no_profile_can_say(tmp_path, cicp, words):
    refused(png(tmp_path / "a.png", COLOURS, (b"cICP", bytes(cicp))), words)


@given(
    gamma=st.none() | st.floats(),
    numbers=st.none() | st.lists(st.floats(0, 2), min_size=8, max_size=8),
    grey=st.booleans(),
)
@settings(deadline=None)
def test_any_numbers(gamma, numbers, grey):
    """A profile that LittleCMS can build a transform from, nothing, or ValueError."""
    try:
        profile = icc.of_gamma(gamma, numbers, grey)
    except ValueError:
        return
    assert profile == b"" or icc.fits(profile, grey)
    assert profile == b"" or seen(GREY if grey else COLOURS, profile).shape[2] == 3


@given(x=st.floats(0.28, 0.4), y=st.floats(0.28, 0.4), gamma=st.floats(0.3, 1.0))
@settings(deadline=None)
def test_white_is_white(x, y, gamma):
    """Whatever its colour, a display's white is shown as white, and its greys as greys."""
    assume(not 0.45 <= gamma <= 0.46)
    pixels = np.repeat(GREY[..., None], 3, 2)
    light = seen(pixels, icc.of_gamma(gamma, (x, y, *BT709), False))
    assert np.abs(light - wanted(pixels, lambda v: v ** (1 / gamma), D65, BT709)).max() < 0.012


@pytest.mark.parametrize("chunks", [[gama(0)], [chrm((0, 0), P3)], [chrm(D65, (0.3, 0.3) * 3)]])
def test_impossible_numbers_are_left_out(tmp_path, chunks):
    path = png(tmp_path / "a.png", COLOURS, *chunks)
    assert read(path, "its gAMA and cHRM are impossible and left out").icc == b""


GREY_PROFILE = icc.of_gamma(1 / 1.8, None, True)
LEFT_OUT = "its colour profile is for other pixels and left out"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize(("pixels", "profile"), [(GREY, SRGB), (COLOURS, GREY_PROFILE)], ids=["grey", "rgb"])
def test_profiles_for_other_pixels(tmp_path, kind, pixels, profile):
    Image.fromarray(pixels).save(tmp_path / "a", kind, icc_profile=profile)
    assert read(tmp_path / "a", LEFT_OUT).icc == b""


@pytest.mark.parametrize("suffix", _WRITABLE)
@pytest.mark.parametrize("pixels", [GREY, COLOURS], ids=["grey", "rgb"])
@pytest.mark.parametrize("profile", [GREY_PROFILE, SRGB], ids=["GRAY", "RGB"])
def test_every_suffix(tmp_path, suffix, pixels, profile):
    """What is written has no profile, or one for its own pixels; what is left out is told."""
    path = tmp_path / f"a{suffix}"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        write_picture(path, Picture(pixels, icc=profile))
    with Image.open(path) as image:
        found = image.info.get("icc_profile") or b""
        assert not found or icc.fits(found, image.mode == "L")
    kept = suffix != ".jxl" and found != b""
    assert kept == (not told)
    if kept:
        assert found == profile
    if suffix == ".png":
        assert kept == icc.fits(profile, pixels.ndim == 2)


def cmyk_profile():
    """An ICC profile of version 2 of inks that multiply, RGB = (1 - CMY)(1 - K), in a table of XYZ under D50."""
    matrix = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7142]])
    steps = np.linspace(0, 1, 17)
    c, m, y, k = np.meshgrid(steps, steps, steps, steps, indexing="ij")
    light = linear_srgb(255 * np.stack([1 - c, 1 - m, 1 - y], -1) * (1 - k)[..., None])
    xyz = np.clip(light @ matrix.T * 32768, 0, 65535).round().astype(">u2")
    ramp = np.array([0, 65535], ">u2").tobytes()
    table = struct.pack(">4sIBBBB", b"mft2", 0, 4, 3, 17, 0) + b"".join(
        struct.pack(">i", 65536 if i % 4 == 0 else 0) for i in range(9)
    )
    table += struct.pack(">HH", 2, 2) + ramp * 4 + xyz.tobytes() + ramp * 3
    text = struct.pack(">4sI", b"text", 0) + b"none\0\0\0\0"
    description = struct.pack(">4sII", b"desc", 0, 5) + b"inks\0" + bytes(12 + 67)
    white = struct.pack(">4sI3i", b"XYZ ", 0, 63190, 65536, 54061)
    tags = {b"desc": description, b"cprt": text, b"wtpt": white, b"A2B0": table}
    directory, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        directory += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = 128 + len(directory) + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"prtr", b"CMYK", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp").ljust(44, b"\0") + struct.pack(
        ">3i", 63190, 65536, 54061
    )
    return head.ljust(128, b"\0") + directory + body


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(tmp_path, kind):
    inks = np.random.default_rng(8).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    inks = np.repeat(np.repeat(inks, 8, 0), 8, 1)
    image = Image.frombytes("CMYK", (64, 64), inks.tobytes())
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    image.save(tmp_path / "a", kind, icc_profile=cmyk_profile(), **options)
    picture = read(tmp_path / "a", "its CMYK colours are converted to sRGB")
    assert picture.icc == b""
    expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:]) / 255
    assert np.abs(picture.pixels - expected).max() < 8
    image.save(tmp_path / "a", kind, **options)
    refused(tmp_path / "a", "CMYK without a colour profile; convert it to RGB first")
    image.save(tmp_path / "a", kind, icc_profile=SRGB, **options)
    refused(tmp_path / "a", "CMYK")
    image.save(tmp_path / "a", kind, icc_profile=b"rubbish", **options)
    refused(tmp_path / "a", "CMYK")


def test_deep_cmyk(tmp_path):
    inks = np.random.default_rng(9).integers(0, 65536, (16, 16, 4), np.uint16)
    tifffile.imwrite(tmp_path / "a", inks, photometric="separated", iccprofile=cmyk_profile(), metadata=None)
    rounded = "its samples of more than 8 bits are rounded to 8"
    picture = read(tmp_path / "a", rounded, "its CMYK colours are converted to sRGB")
    expected = (65535 - inks[..., :3].astype(float)) * (65535 - inks[..., 3:]) / 65535 / 257
    assert np.abs(picture.pixels - expected).max() < 4


def nclx(path, kind, primaries, transfer):
    """An AVIF or HEIC file that says so in its colour box."""
    Image.fromarray(COLOURS).save(path, kind, quality=95)
    data = path.read_bytes()
    at = data.index(b"colrnclx") + 8
    path.write_bytes(data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :])
    return path


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_code_points_of_other_formats(tmp_path, kind):
    import pillow_heif

    pillow_heif.register_heif_opener()
    assert read(nclx(tmp_path / "a", kind, 1, 13)).icc == b""
    assert read(nclx(tmp_path / "a", kind, 12, 13)).icc == icc.of_cicp(12, 13, False)
    refused(nclx(tmp_path / "a", kind, 9, 16), "HDR .PQ.")


def test_profile_of_jpeg_2000(tmp_path):
    """In its colour box, where an enumerated colour space stands otherwise."""
    Image.fromarray(COLOURS).save(tmp_path / "a.jp2")
    data = (tmp_path / "a.jp2").read_bytes()
    at = data.index(b"colr") - 4
    old = int.from_bytes(data[at : at + 4], "big")
    box = struct.pack(">I4sBBB", 11 + len(SRGB), b"colr", 2, 0, 0) + SRGB
    header = data.index(b"jp2h") - 4
    size = int.from_bytes(data[header : header + 4], "big") + len(box) - old
    changed = data[:header] + struct.pack(">I", size) + data[header + 4 : at] + box + data[at + old :]
    (tmp_path / "a.jp2").write_bytes(changed)
    picture = read(tmp_path / "a.jp2")
    np.testing.assert_array_equal(picture.pixels, COLOURS)
    assert picture.icc == SRGB
