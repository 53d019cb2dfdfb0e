"""The codecs that are compared: each codes and decodes; the ones that need something say what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlic.codec.errors import PlicError
from pocketlic.profiling.codecs import (
    PILLOW_CODECS,
    MeteringCoder,
    Pillow,
    Source,
    VvcStreams,
    entropy_met,
    parse_codecs,
    rgb_of_video,
)
from pocketlic.profiling.metrics import rgb_psnr


@pytest.mark.parametrize("codec", PILLOW_CODECS, ids=lambda codec: codec.name)
def test_quality_buys_psnr_for_bits(codec: Pillow, picture) -> None:
    source = Source("texture", picture(96, 128))
    low, high = codec.settings[1], codec.settings[-2]
    coarse, fine = (codec.encode(source, setting) for setting in (low, high))
    assert len(coarse) < len(fine)
    decoded = [codec.decode(data) for data in (coarse, fine)]
    assert all(x.shape == source.pixels.shape and x.dtype == np.uint8 for x in decoded)
    assert rgb_psnr(source.pixels, decoded[0]) + 3 < rgb_psnr(source.pixels, decoded[1])


def test_identities_tell_codecs_apart() -> None:
    identities = {codec.identity for codec in PILLOW_CODECS}
    assert len(identities) == len(PILLOW_CODECS)


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


def test_metered_bits_are_the_stream_s(make) -> None:
    """Entropy by the tables and real bytes agree but for the coder's state: symbols drawn from the tables."""
    model = make.small_model("cpu")
    meter = MeteringCoder(model)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 64, 20000).astype(np.uint8)
    symbols = rng.integers(-40, 41, 20000).astype(np.int32)
    symbols[::100] = rng.integers(-3000, 3000, 200)  # escapes
    symbols[rows < model.skip] = 0
    data = meter.encode(symbols, rows)
    assert 8 * len(data) == pytest.approx(meter.bits, rel=0.001)
    assert entropy_met(len(data), meter.bits)
    assert not entropy_met(round(len(data) * 1.05), meter.bits)
    assert (meter.decode(data, rows) == symbols).all()


@pytest.mark.parametrize(
    ("names", "qualities", "message"),
    [
        ("pocketlic,gif", "10", "no codec 'gif'; there are pocketlic, jpeg"),
        ("vvc", "10", "--vvc"),
        ("pocketlic", "10,low", "numbers"),
        ("pocketlic", "10,101", "0 to 100"),
    ],
)
def test_wrong_names_and_qualities_are_refused(names: str, qualities: str, message: str) -> None:
    with pytest.raises(PlicError, match=message):
        parse_codecs(names, qualities, "cpu", None, None)


def test_names_of_the_command_line(tmp_path: Path) -> None:
    chosen = parse_codecs("jpeg,pocketlic", "40,10,40", "strict", None, tmp_path)
    assert [codec.name for codec in chosen] == ["jpeg", "pocketlic", "vvc"]
    assert chosen[1].settings == (40, 10)
    everything = parse_codecs("all", "50", "cpu", None, None)
    assert [codec.name for codec in everything] == ["pocketlic", *(codec.name for codec in PILLOW_CODECS)]
