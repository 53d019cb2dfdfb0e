"""Pixels of every format, mode and depth against independent readers: equal, or one line says why not."""

import io
import itertools
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketlic.codec.errors import PlicError, PlicWarning
from pocketlic.codec.image import read_picture

HEIGHT, WIDTH = 37, 29
RANDOM = np.random.default_rng(5)


def rounded(samples, white):
    """What 8 bits of samples are, by definition."""
    return np.floor(samples.astype(np.float64) * 255 / white + 0.5).astype(np.uint8)


def refused(path, words="cannot read"):
    with pytest.raises(PlicError, match=words) as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def read(path, white=255):
    """The pixels, after a warning where there were more than 8 bits, and without one otherwise."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pixels = read_picture(path).pixels
    assert [str(w.message) for w in told if w.category is PlicWarning] == (
        [f"{path}: its samples of more than 8 bits are rounded to 8"] if white > 255 else []
    )
    return pixels


# ------------------------------------------------------------------------------------------------------------- PNG

PNG_KINDS = [(0, d) for d in (1, 2, 4, 8, 16)] + [(3, d) for d in (1, 2, 4, 8)]
PNG_KINDS += [(c, d) for c in (2, 4, 6) for d in (8, 16)]
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_rows(samples, depth):
    """Rows of samples [h, w, channels], most significant bit first, with filter 0."""
    if 0 in samples.shape:
        return b""
    flat = samples.reshape(len(samples), -1)
    bits = np.unpackbits(flat.astype(">u2").view(np.uint8).reshape(*flat.shape, 2), axis=2)[:, :, 16 - depth :]
    return b"".join(b"\0" + np.packbits(row).tobytes() for row in bits.reshape(len(flat), -1))


def png(samples, colour, depth, *chunks, interlaced=False):
    """A PNG file of samples uint16 [H, W, channels], with chunks (kind, data) before the pixels."""
    height, width = samples.shape[:2]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [samples]
    data = zlib.compress(b"".join(png_rows(part, depth) for part in parts))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + b"".join(itertools.starmap(chunk, chunks))
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def png_samples(colour, depth, height=HEIGHT, width=WIDTH):
    samples = RANDOM.integers(0, 1 << depth, (height, width, PNG_CHANNELS[colour]), dtype=np.uint16)
    if colour in (4, 6):
        samples[..., -1] = (1 << depth) - 1
    return samples


PALETTE = RANDOM.integers(0, 256, (256, 3), dtype=np.uint8)


@pytest.mark.parametrize("interlaced", [False, True], ids=["rows", "adam7"])
@pytest.mark.parametrize(("colour", "depth"), PNG_KINDS)
def test_png(tmp_path, colour, depth, interlaced):
    samples, white = png_samples(colour, depth), (1 << depth) - 1
    palette = [(b"PLTE", PALETTE[: white + 1].tobytes())] * (colour == 3)
    (tmp_path / "a.png").write_bytes(png(samples, colour, depth, *palette, interlaced=interlaced))
    if colour == 3:
        expected = PALETTE[samples[..., 0]]
    else:
        expected = rounded(samples[..., :3] if colour in (2, 6) else samples[..., 0], white)
    np.testing.assert_array_equal(read(tmp_path / "a.png", white if colour != 3 else 255), expected)
    if not interlaced:
        other = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
        other = other[..., :3] if colour in (2, 6) else other[..., 0] if colour == 4 else other
        np.testing.assert_array_equal(expected, rounded(other, 65535) if other.dtype == np.uint16 else other)


@given(
    kind=st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)]),
    present=st.booleans(),
    data=st.data(),
)
@settings(deadline=None)
def test_png_keys(tmp_path_factory, kind, present, data):
    """A picture is transparent where its samples equal the key in all bits that they have, and only there."""
    colour, depth = kind
    path = tmp_path_factory.mktemp("key") / "a.png"
    samples = png_samples(colour, depth, 5, 4)
    key = data.draw(st.tuples(*[st.integers(0, (1 << depth) - 1)] * PNG_CHANNELS[colour]))
    if depth == 16:  # as like the key as can be without being it
        samples[...] = np.array(key) ^ 1
    if present:
        samples[2, 3] = key
    else:
        near = samples.copy()
        near[(samples == key).all(2)] ^= 1
        samples = near
    excess = data.draw(st.integers(0, 65535)) >> depth << depth if depth < 16 else 0
    trns = struct.pack(f">{len(key)}H", *(k | excess for k in key))
    path.write_bytes(png(samples, colour, depth, (b"tRNS", trns)))
    if present:
        refused(path, "transparent pixels")
    else:
        expected = rounded(samples if colour == 2 else samples[..., 0], (1 << depth) - 1)
        np.testing.assert_array_equal(read(path, (1 << depth) - 1), expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [[0], [255, 0], [255, 128], [255, 254]], ids=str)
def test_png_palettes_with_alpha(tmp_path, depth, alphas):
    samples = png_samples(3, depth)
    samples[0, :2, 0] = 0, len(alphas) - 1
    extra = (b"PLTE", PALETTE[: 1 << depth].tobytes()), (b"tRNS", bytes(alphas))
    (tmp_path / "a.png").write_bytes(png(samples, 3, depth, *extra))
    refused(tmp_path / "a.png", "transparent pixels")
    (tmp_path / "a.png").write_bytes(png(samples, 3, depth, extra[0], (b"tRNS", b"\xff\xff")))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), PALETTE[samples[..., 0]])
    unused = np.minimum(samples, 0) if alphas[0] == 255 else np.maximum(samples, 1)
    (tmp_path / "a.png").write_bytes(png(unused, 3, depth, *extra))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), PALETTE[unused[..., 0]])


@pytest.mark.parametrize(("colour", "depth"), [(4, 8), (4, 16), (6, 8), (6, 16)])
def test_png_alpha(tmp_path, colour, depth):
    """One pixel that is a little transparent is enough."""
    samples = png_samples(colour, depth)
    samples[7, 9, -1] -= 1
    (tmp_path / "a.png").write_bytes(png(samples, colour, depth))
    refused(tmp_path / "a.png", "transparent pixels")


# ------------------------------------------------------------------------------------------------------------ TIFF

GREY, WHITE_IS_ZERO, COLOUR, INKS = "minisblack", "miniswhite", "rgb", "separated"
TIFF_KINDS = {
    "grey": (1, GREY, ()),
    "white is zero": (1, WHITE_IS_ZERO, ()),
    "rgb": (3, COLOUR, ()),
    "rgba": (4, COLOUR, ("unassalpha",)),
    "premultiplied": (4, COLOUR, ("assocalpha",)),
    "rgbx": (4, COLOUR, ("unspecified",)),
    "grey with alpha": (2, GREY, ("unassalpha",)),
    "grey premultiplied": (2, GREY, ("assocalpha",)),
}


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "f2", "f4"])
@pytest.mark.parametrize("kind", TIFF_KINDS)
def test_tiff(tmp_path, kind, dtype, order):
    """Equal to tifffile's, or one line. What must be equal is said, or a reader that refuses everything would pass."""
    channels, photometric, extra = TIFF_KINDS[kind]
    path = tmp_path / "a.tif"
    layouts = itertools.product((None, "lzw", "deflate", "packbits", "zstd"), ("contig", "separate"), (None, (16, 32)))
    for compression, planar, tile in layouts:
        if planar == "separate" and channels == 1:
            continue
        top = {"u1": 255, "u2": 65535, "u4": 2**32 - 1, "i1": 127, "i2": 32767}.get(dtype, 1)
        samples = RANDOM.integers(0, top, (HEIGHT, WIDTH, channels), endpoint=True).astype(dtype)
        if channels in (2, 4):
            samples[..., -1] = top
        stored = samples[..., 0] if channels == 1 else np.moveaxis(samples, -1, 0) if planar == "separate" else samples
        tifffile.imwrite(
            path, stored, photometric=photometric, planarconfig=planar if channels > 1 else None, byteorder=order,
            compression=compression, tile=tile, rowsperstrip=None if tile else 10, extrasamples=extra, metadata=None,
        )  # fmt: skip
        back = tifffile.imread(path)
        np.testing.assert_array_equal(back, stored)
        samples = (np.moveaxis(back, 0, -1) if planar == "separate" else back).reshape(HEIGHT, WIDTH, -1)
        if dtype[0] != "u" or dtype == "u4":
            refused(path)
            continue
        samples = samples[..., 0] if channels < 3 else samples[..., :3]
        expected = rounded(top - samples if photometric == WHITE_IS_ZERO else samples, top)
        try:
            pixels = read(path, top)
        except PlicError:
            refused(path)
            assert dtype == "u2" or (planar == "separate" and extra), (compression, planar, tile)
            assert planar == "separate" or channels == 2 or (photometric == WHITE_IS_ZERO and order == ">")
        else:
            np.testing.assert_array_equal(pixels, expected, err_msg=f"{compression} {planar} {tile}")


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compression", ["lzw", "deflate"])
def test_tiff_predictors(tmp_path, compression, channels, dtype, order):
    white = 255 if dtype == "u1" else 65535
    shape = (HEIGHT, WIDTH, 3) if channels == 3 else (HEIGHT, WIDTH)
    samples = RANDOM.integers(0, white, shape, endpoint=True).astype(dtype)
    photometric = COLOUR if channels == 3 else GREY
    options = {"predictor": True, "compression": compression, "byteorder": order, "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric=photometric, **options)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), samples)
    np.testing.assert_array_equal(read(tmp_path / "a.tif", white), rounded(samples, white))


def test_tiff_with_jpeg_inside(tmp_path):
    smooth = np.array(Image.fromarray(COLOURS).resize((64, 48), Image.Resampling.BICUBIC))
    options = {"photometric": "ycbcr", "compression": "jpeg", "metadata": None, "tile": (16, 16)}
    tifffile.imwrite(tmp_path / "a.tif", smooth, subsampling=(1, 1), **options)
    other = tifffile.imread(tmp_path / "a.tif")
    assert np.abs(read(tmp_path / "a.tif").astype(int) - other).max() <= 3  # two decoders of JPEG


@pytest.mark.parametrize("compression", ["lzma", "jpeg2000", "lerc", "jpegxl", "png", "zstd"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_tiff_compressions(tmp_path, compression, dtype):
    """Equal, or one line: those that Pillow does not know."""
    samples = RANDOM.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, 3), dtype, endpoint=True)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", compression=compression, metadata=None)
    if compression in ("lzma", "zstd"):
        white = np.iinfo(dtype).max
        np.testing.assert_array_equal(read(tmp_path / "a.tif", white), rounded(samples, white))
    else:
        refused(tmp_path / "a.tif", "a TIFF file that is damaged, or of a kind that Pillow does not know")


@pytest.mark.parametrize("photometric", ["ycbcr", "cielab"])
def test_tiff_of_other_colours(tmp_path, photometric):
    tifffile.imwrite(tmp_path / "a.tif", COLOURS, photometric=photometric, metadata=None)
    refused(tmp_path / "a.tif", "its colour mode is (YCbCr|LAB); convert it to RGB or grey first")


def test_jpeg_of_twelve_bits(tmp_path):
    samples = RANDOM.integers(0, 4096, (HEIGHT, WIDTH, 3), np.uint16)
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(samples, bitspersample=12))
    refused(tmp_path / "a.jpg", "a JPEG file that is damaged, or of a kind that Pillow does not know")


def tiff(order, tags, data):
    """A TIFF file of one strip. tags: {tag: (type, values)}; sorted, as they have to be."""
    types = {3: "H", 4: "L"}
    tags = {273: (4, [8]), 278: (4, [HEIGHT]), 279: (4, [len(data)]), 256: (4, [WIDTH]), 257: (4, [HEIGHT]), **tags}
    table, behind = b"", b""
    start = 8 + len(data) + len(data) % 2
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{types[kind]}", *values)
        if len(packed) > 4:
            inline = struct.pack(f"{order}L", start + 2 + 12 * len(tags) + 4 + len(behind))
            behind += packed
        else:
            inline = packed.ljust(4, b"\0")
        table += struct.pack(f"{order}HHL", tag, kind, len(values)) + inline
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", start)
    count = struct.pack(f"{order}H", len(tags))
    return head + data + bytes(len(data) % 2) + count + table + bytes(4) + behind


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("fill", [1, 2])
@pytest.mark.parametrize("photometric", [0, 1, 3])
@pytest.mark.parametrize("bits", range(1, 17))
def test_tiff_depths(tmp_path, bits, photometric, fill, order):
    path, white = tmp_path / "a.tif", (1 << bits) - 1
    samples = RANDOM.integers(0, white, (HEIGHT, WIDTH), np.uint16, endpoint=True)
    if bits == 16:
        data = samples.astype(f"{order}u2").tobytes()
    else:
        data = b"".join(row[1:] for row in [png_rows(samples[i : i + 1, :, None], bits) for i in range(HEIGHT)])
    if fill == 2:
        data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()
    tags = {258: (3, [bits]), 259: (3, [1]), 262: (3, [photometric]), 266: (3, [fill]), 277: (3, [1])}
    palette = RANDOM.integers(0, 256, (3, white + 1), np.uint16)
    if photometric == 3:
        tags[320] = (3, (palette * 257).ravel().tolist())
    path.write_bytes(tiff(order, tags, data))
    if photometric == 3:
        expected = np.moveaxis(palette[:, samples], 0, -1)
    else:
        expected = rounded(white - samples if photometric == 0 else samples, white)
    try:
        pixels = read(path, white if photometric != 3 else 255)
    except PlicError:
        refused(path)
        assert bits not in (1, 2, 4, 8) or fill == 2, "these are Baseline TIFF"
        assert (bits, photometric, fill) not in [(16, 1, 1), (12, 1, 1)] or (bits, order) == (12, ">")
    else:
        np.testing.assert_array_equal(pixels, expected)
        if fill == 1 and bits in (1, 2, 4, 8, 12, 16):
            other = tifffile.imread(path).astype(np.uint16)
            np.testing.assert_array_equal(other, samples)


# ---------------------------------------------------------------------------------------------------------- others


@pytest.mark.parametrize("white", [1, 7, 100, 254, 255, 256, 1023, 4095, 65534, 65535])
@pytest.mark.parametrize("kind", [b"P2", b"P3", b"P5", b"P6"])
def test_netpbm(tmp_path, kind, white):
    channels = 3 if kind in (b"P3", b"P6") else 1
    samples = RANDOM.integers(0, white, (HEIGHT, WIDTH, channels), endpoint=True)
    if kind in (b"P2", b"P3"):
        data = " ".join(map(str, samples.ravel())).encode()
    else:
        data = samples.astype(np.uint8 if white < 256 else ">u2").tobytes()
    (tmp_path / "a").write_bytes(b"%s\n# a comment\n%d %d\n%d\n" % (kind, WIDTH, HEIGHT, white) + data)
    pixels = read(tmp_path / "a", white).reshape(samples.shape)
    error = np.abs(pixels - samples * 255 / white)
    assert error.max() <= 0.5  # halves may go either way


@pytest.mark.parametrize("kind", [b"P1", b"P4"])
def test_bitmaps(tmp_path, kind):
    black = RANDOM.integers(0, 2, (HEIGHT, WIDTH), np.uint8)
    data = np.packbits(black, axis=1).tobytes() if kind == b"P4" else " ".join(map(str, black.ravel())).encode()
    (tmp_path / "a").write_bytes(b"%s %d %d\n" % (kind, WIDTH, HEIGHT) + data)
    np.testing.assert_array_equal(read(tmp_path / "a"), 255 * (1 - black))


COLOURS = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
MODES = {
    "1": Image.fromarray(COLOURS[..., 0]).convert("1"),
    "L": Image.fromarray(COLOURS[..., 0]),
    "P": Image.fromarray(COLOURS).quantize(64),
    "RGB": Image.fromarray(COLOURS),
    "RGBA": Image.fromarray(np.dstack([COLOURS, np.full((HEIGHT, WIDTH), 255, np.uint8)])),
    "LA": Image.fromarray(COLOURS[..., 0]).convert("LA"),
    "RGBX": Image.fromarray(COLOURS).convert("RGBX"),
    "PA": Image.fromarray(COLOURS).quantize(64).convert("PA"),
}
FORMATS = ["BMP", "DDS", "DIB", "JPEG2000", "MSP", "PCX", "PNG", "QOI", "SGI", "TGA", "TIFF", "WEBP", "XBM"]


def writable(images):
    """Formats and modes that Pillow writes."""
    for format_, mode in itertools.product(FORMATS, images):
        try:
            images[mode].save(io.BytesIO(), format_)
        except (OSError, KeyError, ValueError):
            continue
        yield format_, mode


@pytest.mark.parametrize(("format_", "mode"), [*writable(MODES)])
def test_formats_and_modes(tmp_path, format_, mode):
    """Whatever Pillow writes without loss comes back; grey may come back as RGB."""
    path, image = tmp_path / "a", MODES[mode]
    image.save(path, format_, lossless=True)
    expected = np.array(image.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    pixels = read(path)
    if pixels.ndim != expected.ndim:
        pixels, expected = np.broadcast_arrays(*(p if p.ndim == 3 else p[..., None] for p in (pixels, expected)))
    np.testing.assert_array_equal(pixels, expected)
    decoders = {"BMP": imagecodecs.bmp_decode, "WEBP": imagecodecs.webp_decode, "QOI": imagecodecs.qoi_decode}
    if format_ in decoders and mode == "RGB":
        np.testing.assert_array_equal(pixels, decoders[format_](path.read_bytes())[..., :3])


def bmp(bits, rows, palette=b"", masks=(), *, compression=0, upside_up=False):
    """A BMP file of rows from the top."""
    padded = [row + bytes(-len(row) % 4) for row in rows]
    data = b"".join(padded if upside_up else padded[::-1])
    header = 40 if len(masks) < 4 else 108  # with alpha: version 4
    extra = struct.pack(f"<{len(masks)}I", *masks).ljust(header - 40, b"\0")
    start = 14 + 40 + len(extra) + len(palette)
    height = -len(rows) if upside_up else len(rows)
    info = struct.pack(
        "<IiiHHIIiiII", header, WIDTH, height, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0
    )
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + extra + palette + data


@pytest.mark.parametrize("upside_up", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 8, 15, 16, 24, 32])
def test_bmp(tmp_path, bits, upside_up):
    compression, palette, masks = 0, b"", ()
    if bits <= 8:
        samples = RANDOM.integers(0, 1 << bits, (HEIGHT, WIDTH, 1), np.uint16)
        rows = [png_rows(samples[i : i + 1], bits)[1:] for i in range(HEIGHT)]
        palette = np.hstack([PALETTE[: 1 << bits, ::-1], np.zeros((1 << bits, 1), np.uint8)]).tobytes()
        expected = PALETTE[samples[..., 0]]
    elif bits <= 16:
        whites = np.array([31, 31 if bits == 15 else 63, 31])
        samples = RANDOM.integers(0, whites, (HEIGHT, WIDTH, 3), np.uint16, endpoint=True)
        shifts = (10, 5, 0) if bits == 15 else (11, 5, 0)
        rows = [row.astype("<u2").tobytes() for row in (samples << shifts).sum(2)]
        if bits == 16:
            compression, masks = 3, tuple(int(w) << s for w, s in zip(whites, shifts, strict=True))
        expected = rounded(samples, whites)
    else:
        expected = COLOURS
        stored = COLOURS[..., ::-1] if bits == 24 else np.dstack([COLOURS[..., ::-1], HOLE])  # the fourth means nothing
        rows = [row.tobytes() for row in stored]
    data = bmp(
        (bits + 7) // 8 * 8 if bits > 8 else bits, rows, palette, masks, compression=compression, upside_up=upside_up
    )
    (tmp_path / "a").write_bytes(data)
    np.testing.assert_array_equal(read(tmp_path / "a"), expected)


def test_bmp_alpha(tmp_path):
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    for alpha in (SOFT, HOLE, np.full_like(SOFT, 255)):
        rows = [row.tobytes() for row in np.dstack([COLOURS[..., ::-1], alpha])]
        (tmp_path / "a").write_bytes(bmp(32, rows, masks=masks, compression=3))
        if alpha.min() < 255:
            refused(tmp_path / "a", "transparent pixels")
        else:
            np.testing.assert_array_equal(read(tmp_path / "a"), COLOURS)
        (tmp_path / "a").write_bytes(bmp(32, rows, masks=(*masks[:3], 0), compression=3))
        np.testing.assert_array_equal(read(tmp_path / "a"), COLOURS)


@pytest.mark.parametrize("descriptor", [0, 0x10, 0x20, 0x30], ids=["", "from right", "from top", "from top right"])
@pytest.mark.parametrize("kind", ["grey", "palette", "15", "24", "32", "runs"])
def test_tga(tmp_path, kind, descriptor):
    palette, code, bits = b"", 2, 24
    samples = RANDOM.integers(0, 32, (HEIGHT, WIDTH, 3), np.uint16)
    expected, data = COLOURS, COLOURS[..., ::-1].tobytes()
    if kind == "grey":
        code, bits, expected, data = 3, 8, COLOURS[..., 0], COLOURS[..., 0].tobytes()
    elif kind == "palette":
        code, bits, expected, palette = 1, 8, PALETTE[COLOURS[..., 0]], PALETTE[:, ::-1].tobytes()
        data = COLOURS[..., 0].tobytes()
    elif kind == "15":
        bits, expected = 16, rounded(samples, 31)
        data = (samples << (10, 5, 0)).sum(2).astype("<u2").tobytes()
    elif kind == "32":
        bits, descriptor, data = 32, descriptor | 8, np.dstack([COLOURS[..., ::-1], np.full_like(SOFT, 255)]).tobytes()
    elif kind == "runs":
        code, data = 10, b"".join(b"\0" + bytes(pixel[::-1]) for pixel in COLOURS.reshape(-1, 3))
    head = struct.pack(
        "<BBBHHBHHHH", 0, bool(palette), code, 0, len(palette) // 3, 24 * bool(palette), 0, 0, WIDTH, HEIGHT
    )
    (tmp_path / "a.tga").write_bytes(head + bytes([bits, descriptor]) + palette + data)
    expected = expected if descriptor & 0x20 else expected[::-1]
    expected = expected[:, ::-1] if descriptor & 0x10 else expected
    np.testing.assert_array_equal(read(tmp_path / "a.tga"), expected)


SOFT = np.full((HEIGHT, WIDTH), 255, np.uint8)
SOFT[11, 5] = 254
HOLE = np.where(SOFT < 255, 0, 255).astype(np.uint8)


ALPHA = {
    "LA": Image.fromarray(np.dstack([COLOURS[..., 0], SOFT])),
    "RGBA": Image.fromarray(np.dstack([COLOURS, SOFT])),
    "holes LA": Image.fromarray(np.dstack([COLOURS[..., 0], HOLE])),
    "holes RGBA": Image.fromarray(np.dstack([COLOURS, HOLE])),
}


@pytest.mark.parametrize(("format_", "mode"), [p for p in writable(ALPHA) if p[0] not in ("BMP", "DIB", "PCX")])
def test_alpha_is_refused(tmp_path, format_, mode):
    ALPHA[mode].save(tmp_path / "a", format_, lossless=True)
    refused(tmp_path / "a", "transparent pixels")


@pytest.mark.parametrize("mode", ["RGBA", "holes RGBA", "holes LA"])
def test_alpha_of_lossy_formats_is_refused(tmp_path, mode):
    ALPHA[mode].save(tmp_path / "a", "AVIF", quality=100)
    refused(tmp_path / "a", "transparent pixels")


@pytest.mark.parametrize("grey", [False, True])
def test_gif_transparency(tmp_path, grey):
    image = MODES["L"].point(lambda v: v // 2) if grey else MODES["P"]
    image.save(tmp_path / "a.gif", transparency=200)  # nobody's colour
    expected = np.array(image if grey else image.convert("RGB"))
    pixels = read(tmp_path / "a.gif")
    np.testing.assert_array_equal(pixels, expected if pixels.ndim == expected.ndim else np.dstack([expected] * 3))
    image.save(tmp_path / "a.gif", transparency=int(np.array(image)[3, 4]))
    refused(tmp_path / "a.gif", "transparent pixels")


def test_gif_smaller_than_its_canvas(tmp_path):
    buffer = io.BytesIO()
    MODES["P"].save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", WIDTH + 1, HEIGHT)
    (tmp_path / "a.gif").write_bytes(data)
    refused(tmp_path / "a.gif", "transparent pixels")
    np.testing.assert_array_equal(
        imagecodecs.gif_decode(buffer.getvalue()).reshape(HEIGHT, WIDTH, 3), MODES["P"].convert("RGB")
    )


@pytest.mark.parametrize("bits", [4, 8, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_2000(tmp_path, bits, channels):
    white = (1 << bits) - 1
    shape = (64, 48) if channels == 1 else (64, 48, 3)
    samples = RANDOM.integers(0, white, shape, endpoint=True).astype(np.uint8 if bits <= 8 else np.uint16)
    data = imagecodecs.jpeg2k_encode(samples, bitspersample=bits, reversible=True, level=0)
    (tmp_path / "a.jp2").write_bytes(data)
    if bits < 8 or (bits > 8 and channels == 3):
        refused(tmp_path / "a.jp2", "bits")
    else:
        np.testing.assert_array_equal(read(tmp_path / "a.jp2", white), rounded(samples, white))


@pytest.mark.parametrize("bits", [8, 10, 12, 16, 32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg_xl(tmp_path, bits, channels):
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    white = 1 if bits == 32 else (1 << bits) - 1
    samples = RANDOM.integers(0, white, shape, endpoint=True).astype({8: "u1", 32: "f4"}.get(bits, "u2"))
    if channels == 4:
        samples[..., 3] = white
    extra = {"bitspersample": bits} if 8 < bits < 32 else {}
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(samples, lossless=True, **extra))
    if bits == 32 or (bits > 8 and channels > 1):
        refused(tmp_path / "a.jxl", "floating-point" if channels == 1 else "more than 8 bits per component")
    else:
        np.testing.assert_array_equal(
            read(tmp_path / "a.jxl", white), rounded(samples[..., :3] if channels > 1 else samples, white)
        )


def test_animated_jpeg_xl(tmp_path):
    """Its plugin would give the last picture and not say so."""
    frames = RANDOM.integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(frames, lossless=True))
    refused(tmp_path / "a.jxl", "it is an animation")


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_deep_heic(tmp_path, mode, bits):
    import pillow_heif

    ramp = np.arange(1 << bits, dtype=np.uint16).reshape(32, -1)
    samples = ramp if mode == "L" else np.repeat(ramp[..., None], 3, 2)
    stored = pillow_heif.from_bytes(f"{mode};{bits}", ramp.shape[::-1], samples.tobytes())
    lossless = {"quality": -1, "chroma": 444, "matrix_coefficients": 0} if mode == "RGB" else {"quality": -1}
    stored.save(tmp_path / "a.heic", **lossless)
    np.testing.assert_array_equal(read(tmp_path / "a.heic", (1 << bits) - 1), rounded(samples, (1 << bits) - 1))


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif(tmp_path, bits):
    samples = np.repeat(np.arange(1 << bits, dtype=np.uint16).reshape(32, -1, 1), 3, 2)
    (tmp_path / "a.avif").write_bytes(
        imagecodecs.avif_encode(samples, level=100, bitspersample=bits, pixelformat="444")
    )
    np.testing.assert_array_equal(imagecodecs.avif_decode((tmp_path / "a.avif").read_bytes()), samples)
    pixels = read(tmp_path / "a.avif", (1 << bits) - 1)
    assert np.abs(pixels.astype(int) - rounded(samples, (1 << bits) - 1)).max() <= 1
