"""The container: golden bytes, round trips, and no damaged file accepted."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlic.codec import format as plic
from pocketlic.codec.errors import FormatError, PlicError

HEADER = plic.Header(width=768, height=512, grey=False, quality_hundredths=6050, model_id=bytes(range(8)))
FILE = plic.PlicFile(HEADER, (b"symbols" * 70,), icc=b"profile", exif=b"II*\0")


def with_check(content: bytes) -> bytes:
    return content + plic.crc32c(content).to_bytes(4, "little")


def test_golden_bytes():
    data = plic.write(FILE)
    assert data[:22].hex() == "d04c0d0a0206000102030405060780068004a217ea03"
    assert hashlib.sha256(data).hexdigest()[:16] == "ccbd3e4ddbdb69fe"
    assert plic.read(data) == FILE
    assert plic.read_header(data) == HEADER


def test_overhead_of_an_ordinary_photograph():
    bare = replace(FILE, icc=b"", exif=b"", bands=(bytes(40_000),))
    assert len(plic.write(bare)) - 40_000 == 20 + 3 + 4


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 65535),
    st.integers(1, 65535),
    st.booleans(),
    st.integers(0, 10000),
    st.binary(min_size=8, max_size=8),
    st.binary(max_size=300),
    st.binary(max_size=5),
    st.binary(max_size=5),
)
def test_round_trip(width, height, grey, quality, model_id, payload, icc, exif):
    header = plic.Header(width, height, grey, quality, model_id)
    file = plic.PlicFile(header, (payload, *[payload[1:]] * (plic.band_count(height) - 1)), icc, exif)
    assert plic.read(plic.write(file), max_pixels=1 << 32) == file


@pytest.mark.parametrize(("height", "bands"), [(1, 1), (64, 1), (1024, 1), (1025, 2), (2048, 2), (65535, 64)])
def test_band_count(height, bands):
    assert plic.band_count(height) == bands


def test_every_truncation_is_refused():
    data = plic.write(FILE)
    for size in range(len(data)):
        with pytest.raises(FormatError, match="empty" if size == 0 else "truncated|incomplete"):
            plic.read(data[:size])


def test_every_truncation_behind_a_right_checksum_is_refused():
    data = plic.write(FILE)[:-4]
    for size in range(5, len(data)):
        with pytest.raises(FormatError, match="truncated"):
            plic.read(with_check(data[:size]))


def test_every_bit_flip_is_refused():
    data = plic.write(FILE)
    for i in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << i % 8
        with pytest.raises(FormatError) as caught:
            plic.read(bytes(flipped))
        assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([0, 4, 5, 6, 20, 22]))
def test_rubbish_is_refused(tail, kept):
    for data in (plic.write(FILE)[:kept] + tail, with_check(plic.write(FILE)[:kept] + tail)):
        with pytest.raises(FormatError):
            plic.read(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: b"", "the file is empty"),
        (lambda d: b"\x89PNG\r\n\x1a\n" + d, "not a .plic file"),
        (lambda d: d.replace(b"\r\n", b"\n"), "text mode"),
        (lambda d: d.replace(b"\n", b"\r\n"), "text mode"),
        (lambda d: bytes(b & 127 for b in d), "text mode"),
        (lambda d: d[:4] + b"\x03" + d[5:], r"file version 3 is newer than this decoder \(2\)"),
        (lambda d: d[:4] + b"\x01" + d[5:], "no file version 1"),
        (lambda d: d[:5] + b"\x08" + d[6:], "damaged or incomplete"),
        (lambda d: with_check(d[:5] + b"\x08" + d[6:-4]), "unknown flags"),
        (lambda d: d + b"\0", "damaged or incomplete"),
        (lambda d: with_check(d[:-4] + b"\0"), "1 bytes follow"),
    ],
)
def test_messages(damage, message):
    with pytest.raises(FormatError, match=message):
        plic.read(damage(plic.write(FILE)))


@pytest.mark.parametrize(
    ("size_and_quality", "message"),
    [
        (b"\x00\x01\x00\x00", "impossible"),
        (b"\x80\x80\x04\x01\x00\x00", "impossible"),
        (b"\x01\x01\xff\xff", "impossible"),
        (b"\x81\x00\x01\x00\x00", "malformed number"),
        (b"\xff\xff\xff\xff\xff\x01\x00\x00", "malformed number"),
    ],
)
def test_impossible_headers(size_and_quality, message):
    data = plic.write(FILE)
    with pytest.raises(FormatError, match=message):
        plic.read(with_check(data[:14] + size_and_quality + data[20:-4]))


def test_non_canonical_section_length():
    data = plic.write(FILE)
    with pytest.raises(FormatError, match="malformed number"):
        plic.read(with_check(data[:20] + b"\xea\x83\x00" + data[22:-4]))  # 490 as three bytes


def test_flagged_metadata_must_not_be_empty():
    data = plic.write(replace(FILE, exif=b""))
    with pytest.raises(FormatError, match="EXIF is flagged but empty"):
        plic.read(with_check(data[:5] + bytes([data[5] | 4]) + data[6:-4] + b"\0"))


def test_too_many_pixels():
    huge = plic.PlicFile(replace(HEADER, width=65535, height=65535), (b"",) * 64)
    data = plic.write(huge)
    with pytest.raises(FormatError, match="65535x65535 = 4294836225 pixels, more than the limit of 13421"):
        plic.read(data)
    assert plic.read(data, max_pixels=1 << 32) == huge
    assert plic.read_header(data) == huge.header


def test_a_claimed_length_allocates_nothing():
    data = plic.write(FILE)
    with pytest.raises(FormatError, match="truncated in the symbols"):
        plic.read(with_check(data[:20] + b"\xff\xff\xff\xff\x0f" + bytes(100)))


@pytest.mark.parametrize(
    "change", [{"width": 0}, {"height": 65536}, {"quality_hundredths": 10001}, {"model_id": b"short"}]
)
def test_bad_values_are_refused_when_writing(change):
    with pytest.raises(PlicError):
        replace(HEADER, **change)


def test_wrong_number_of_bands_is_refused_when_writing():
    with pytest.raises(PlicError, match="1 bands, not 2"):
        plic.write(replace(FILE, bands=(b"", b"")))
