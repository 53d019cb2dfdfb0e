"""The codecs for comparison: each encodes and decodes, or says which package it needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlic.codec.errors import PlicError
from pocketlic.profiling.evaluation.codecs import (
    FAST_CODECS,
    OTHER_CODECS,
    SLACK_BYTES,
    Pillow,
    Source,
    VvcStreams,
    entropy_met,
    parse_codecs,
    rgb_of_video,
    video_of_rgb,
)
from pocketlic.profiling.evaluation.metrics import rgb_psnr
from pocketlic.quantization.errors import ModelError
from pocketlic.quantization.shipped import shipped


@pytest.mark.parametrize("codec", OTHER_CODECS, ids=lambda codec: codec.name)
def test_quality_buys_psnr_for_bits(codec: Pillow, picture) -> None:
    source = Source("texture", picture(96, 128))
    low, high = codec.settings[1], codec.settings[-2]
    coarse, fine = (codec.encode(source, setting) for setting in (low, high))
    assert len(coarse) < len(fine)
    decoded = [codec.decode(data) for data in (coarse, fine)]
    assert all(x.shape == source.pixels.shape and x.dtype == np.uint8 for x in decoded)
    assert rgb_psnr(source.pixels, decoded[0]) + 3 < rgb_psnr(source.pixels, decoded[1])


def test_identities_tell_codecs_apart() -> None:
    identities = {codec.identity for codec in OTHER_CODECS}
    assert len(identities) == len(OTHER_CODECS)


def test_video_planes_become_rgb() -> None:
    """BT.709 limited range, 10 bits: black, white, and the primaries by the standard's matrix."""
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    for colour in colours:
        r, g, b = colour / 255
        y = 0.2126 * r + 0.7152 * g + 0.0722 * b
        values = 64 + 876 * y, 512 + 896 * (b - y) / 1.8556, 512 + 896 * (r - y) / 1.5748
        luma, cb, cr = (np.full((4, 6), v, np.float32) for v in values)
        rgb = rgb_of_video(luma, cb[::2, ::2], cr[::2, ::2])
        assert (rgb == colour).all(), colour


def test_missing_vvc_streams_are_named(tmp_path: Path, picture) -> None:
    with pytest.raises(PlicError, match="no streams"):
        _ = VvcStreams(tmp_path).settings
    (tmp_path / "a_qp32.266").write_bytes(b"x")
    (tmp_path / "a_qp22.266").write_bytes(b"x")
    codec = VvcStreams(tmp_path)
    assert codec.settings == (32, 22)
    with pytest.raises(PlicError, match="b_qp22"):
        codec.encode(Source("b", picture(16, 16)), 22)


def test_the_entropy_of_a_file_is_that_of_its_symbols(picture) -> None:
    (codec,) = parse_codecs("pocketlic", "0", "0", "cpu", None, None)
    source = Source("texture", picture(128, 192))
    for setting in (10, 60, 95):
        data = codec.encode(source, setting)
        bits = codec.entropy_bits(data)
        assert bits <= 8 * len(data) <= 1.0001 * bits + 8 * 36
        assert entropy_met(len(data), bits)
        assert not entropy_met(round(len(data) * 1.05) + SLACK_BYTES, bits)


@pytest.mark.parametrize(
    ("names", "qualities", "efforts", "message"),
    [
        ("pocketlic,gif", "10", "0", "no codec 'gif'; there are pocketlic, jpeg"),
        ("vvc", "10", "0", "--vvc"),
        ("pocketlic", "10,low", "0", "numbers"),
        ("pocketlic", "10,101", "0", "0 to 100"),
        ("pocketlic", "10", "0,10", "efforts are whole numbers from 0 to 9"),
        ("pocketlic", "10", "", "efforts"),
    ],
)
def test_wrong_names_and_numbers_are_refused(names: str, qualities: str, efforts: str, message: str) -> None:
    with pytest.raises(PlicError, match=message):
        parse_codecs(names, qualities, efforts, "cpu", None, None)


def test_names_of_the_command_line(tmp_path: Path) -> None:
    chosen = parse_codecs("jpeg,pocketlic", "40,10,40", "0", "strict", None, tmp_path)
    assert [codec.name for codec in chosen] == ["jpeg", "pocketlic", "vvc"]
    assert chosen[1].settings == (40, 10)
    everything = parse_codecs("all", "50", "0", "cpu", None, None)
    assert [codec.name for codec in everything] == ["pocketlic", *(codec.name for codec in OTHER_CODECS)]


def test_the_list_has_the_systems_that_codecs_are_judged_by() -> None:
    names = [codec.name for codec in parse_codecs("all", "50", "0", "cpu", None, None)]
    assert names == ["pocketlic", "jpeg", "jpeg-444", "jpeg2000", "webp", "heic", "avif", "avif-444", "jxl", "h264",
                     "h265"]  # fmt: skip
    fast = [codec.name for codec in FAST_CODECS]
    assert [codec.name for codec in parse_codecs(",".join(fast), "50", "0", "cpu", None, None)] == fast
    assert not set(names) & set(fast)


@pytest.mark.parametrize("codec", FAST_CODECS, ids=lambda codec: codec.name)
def test_fast_presets_give_other_files(codec: Pillow, picture) -> None:
    source = Source("texture", picture(96, 128))
    usual = next(c for c in OTHER_CODECS if codec.name.startswith(f"{c.name}-") and c.name.count("-") == 0)
    assert codec.encode(source, 60) != usual.encode(source, 60)
    assert rgb_psnr(source.pixels, codec.decode(codec.encode(source, 60))) > 20


def test_video_planes_go_there_and_back(picture) -> None:
    pixels = picture(33, 47)
    assert (rgb_of_video(*video_of_rgb(pixels).astype(np.float32)) == pixels).all()


@pytest.mark.parametrize("name", ["h264", "h265"])
@pytest.mark.parametrize("shape", [(64, 64), (65, 33), (17, 100)])
def test_video_of_any_size_holds_pictures_alone(name: str, shape: tuple[int, int], picture) -> None:
    """Nearly lossless at the highest setting; no message such as the encoder's version takes bytes."""
    codec = next(c for c in OTHER_CODECS if c.name == name)
    source = Source("texture", picture(*shape))
    data = codec.encode(source, 99)
    assert b"x264" not in data
    assert b"x265" not in data
    assert rgb_psnr(source.pixels, codec.decode(data)) > 40


def test_each_set_of_weights_is_a_codec() -> None:
    chosen = parse_codecs("pocketlic", "60", "0,2", "cpu", None, None, "psnr,visual")
    assert [codec.name for codec in chosen] == [
        "pocketlic-psnr", "pocketlic-psnr-effort-2", "pocketlic", "pocketlic-effort-2",
    ]  # fmt: skip
    assert len({codec.identity for codec in chosen}) == 4
    (own,) = parse_codecs("pocketlic", "60", "0", "strict", shipped("cpu", "psnr")[0].path, None, "visual")
    assert own.name == "pocketlic-psnr"
    with pytest.raises(PlicError, match="psnr or visual, not 'loud'"):
        parse_codecs("pocketlic", "60", "0", "cpu", None, None, "psnr,loud")
    with pytest.raises(ModelError, match="no weights of rule strict"):
        parse_codecs("pocketlic", "60", "0", "strict", None, None, "visual")


def test_each_effort_is_a_codec(picture) -> None:
    plain, rounded = parse_codecs("pocketlic", "60", "0,1", "cpu", None, None, "psnr")
    assert [codec.name for codec in (plain, rounded)] == ["pocketlic-psnr", "pocketlic-psnr-effort-1"]
    assert plain.identity != rounded.identity
    source = Source("texture", picture(96, 128))
    files = [codec.encode(source, 60) for codec in (plain, rounded)]
    assert len(files[1]) < len(files[0])
    assert (rounded.decode(files[1]) == plain.decode(files[1])).all()
