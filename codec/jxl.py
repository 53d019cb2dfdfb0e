"""The header of JPEG XL, for what Pillow's plugin does not tell: it decodes when it opens, and cuts to 8 bits."""

import re
from typing import NamedTuple

_START = re.compile(rb"(?:.{4}JXL .*?jxl(?:c|p.{4}))?\xff\x0a", re.DOTALL)
_RATIOS = ((1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class Header(NamedTuple):
    """bits: of a sample; 0 where a preview stands before that. animated: whether there are frames with durations."""

    width: int
    height: int
    bits: int
    animated: bool


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self.left & (1 << count) - 1
        self.left >>= count
        return value

    def choice(self, *options: tuple[int, int]) -> int:
        """One of four ranges: its beginning, and how many bits follow."""
        begin, count = options[self.take(2)]
        return begin + self.take(count)

    def size(self) -> tuple[int, int]:
        eighths = self.take(1)
        sides = (1, 9), (1, 13), (1, 18), (1, 30)
        height = 8 * (1 + self.take(5)) if eighths else self.choice(*sides)
        if ratio := self.take(3):
            return height * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1], height
        return 8 * (1 + self.take(5)) if eighths else self.choice(*sides), height


def read_header(head: bytes) -> Header | None:
    """The header of a file that begins so, or None where it is no JPEG XL. Of a file cut short it is nonsense."""
    start = _START.match(head)
    if start is None:
        return None
    bits = _Bits(head[start.end() : start.end() + 64])
    width, height = bits.size()
    animated = False
    if bits.take(1):  # all as usual
        return Header(width, height, 8, animated)
    if bits.take(1):
        bits.take(3)  # orientation, which the decoder applies
        if bits.take(1):
            bits.size()
        if bits.take(1):
            return Header(width, height, 0, animated)
        if animated := bool(bits.take(1)):
            bits.choice((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.choice((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.choice((0, 0), (0, 3), (0, 16), (0, 32))
            bits.take(1)
    if bits.take(1):  # floating-point
        return Header(width, height, bits.choice((32, 0), (16, 0), (24, 0), (1, 6)), animated)
    return Header(width, height, bits.choice((8, 0), (10, 0), (12, 0), (1, 6)), animated)
