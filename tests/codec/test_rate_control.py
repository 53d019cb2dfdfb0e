"""The search for a size, on synthetic files whose sizes grow like real ones."""

import math

import pytest

from pocketlic.codec.errors import PlicError
from pocketlic.codec.rate_control import encode_to_bpp, encode_to_bytes

PIXELS = 100_000


class Encoder:
    """Sizes from 700 bytes to 30 times that at quality 100, jagged, and smaller with more effort."""

    def __init__(self, bend=0.0, jag=0):
        self.bend, self.jag, self.calls = bend, jag, []

    def __call__(self, quality, effort):
        assert 0 <= quality <= 100
        self.calls.append((quality, effort))
        growth = math.log(30) * (quality / 100) ** (1 + self.bend)
        return bytes(round(700 * math.exp(growth) * (1 - 0.01 * effort)) + self.jag * (round(100 * quality) % 2))


@pytest.mark.parametrize("effort", [0, 1, 9])
@pytest.mark.parametrize("encoder", [Encoder(), Encoder(0.7), Encoder(-0.4), Encoder(jag=3)], ids=repr)
def test_sizes_are_met_in_a_few_encodings(encoder, effort):
    for bpp in (0.06, 0.1, 0.35, 1.0, 1.5):
        encoder.calls.clear()
        data = encode_to_bpp(encoder, effort, PIXELS, bpp)
        assert 8 * len(data) / PIXELS == pytest.approx(bpp, rel=0.01)
        assert len(data) == len(encoder(*encoder.calls[-1]))
        assert encoder.calls[-1][1] == effort
        assert len(encoder.calls) <= 16
        assert sum(level == effort for _, level in encoder.calls) <= 9
    for most in (800, 5000, 18000):
        data = encode_to_bytes(encoder, effort, most)
        assert 0.99 * most <= len(data) <= most


def test_a_greatest_size_beyond_all_gives_the_best_quality():
    encoder = Encoder()
    assert encode_to_bytes(encoder, 0, 10**9) == encoder(100, 0)


def test_a_size_between_two_files_is_not_exceeded():
    """Where sizes jump over the wanted one, the smaller file is chosen."""

    def encode(quality, effort):
        return bytes(1000 if quality < 61.37 else 2000)

    assert len(encode_to_bytes(encode, 0, 1500)) == 1000
    with pytest.raises(PlicError, match=r"no quality gives 0\.12 bits per pixel: quality 61\.36 gives 0\.08"):
        encode_to_bpp(encode, 0, PIXELS, 0.12)


def test_a_size_that_effort_jumps_over_is_met_without():
    smooth = Encoder()

    def encode(quality, effort):
        size = len(smooth(quality, 0))
        return bytes(size if effort == 0 else 1000 if size < 1600 else 2000)

    for effort in (1, 9):
        assert 0.99 * 1500 <= len(encode_to_bytes(encode, effort, 1500)) <= 1500
        assert len(encode_to_bpp(encode, effort, PIXELS, 0.12)) == pytest.approx(1500, rel=0.01)


def test_sizes_that_only_effort_reaches():
    encoder = Encoder()
    least = len(encoder(0, 0))
    assert len(encode_to_bytes(encoder, 9, least - 10)) < least
    with pytest.raises(PlicError):
        encode_to_bytes(encoder, 0, least - 10)


@pytest.mark.parametrize(
    ("bpp", "message"),
    [
        (0.01, "quality 0 gives 0.056"),
        (9.0, "quality 100 gives 1.68"),
        (0.0, "no size"),
        (-1.0, "no size"),
        (math.nan, "no size"),
        (math.inf, "no size"),
    ],
)
def test_rates_out_of_reach(bpp, message):
    with pytest.raises(PlicError, match=message):
        encode_to_bpp(Encoder(), 0, PIXELS, bpp)


@pytest.mark.parametrize("most", [699, 1, 0, -5])
def test_sizes_out_of_reach(most):
    with pytest.raises(PlicError, match=f"at most {most} bytes: quality 0 takes 700"):
        encode_to_bytes(Encoder(), 0, most)
