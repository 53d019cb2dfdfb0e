"""The entropy coder, slowly: a readable twin of the native core, bit for bit the same streams.

`native/src/rans.h` opens with the normative description of the bitstream. This module follows it word by word and
is what the native core is compared with. Nothing else should use it: it is a few hundred times slower.
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

MANY_STATES = 4
MANY_SYMBOLS = 1 << 18
LOWER = 1 << 32
MAX_SYMBOL = 32767


class SymbolCoder:
    """The same interface as `pocketlic.codec._native.SymbolCoder`.

    radius: uint16[R], 1 <= R <= 256. Table i codes -radius[i] .. radius[i] directly, others by an escape.
    freq: uint16[sum(2 * radius + 2)], table after table, each in the order -radius .. radius, escape; each
    frequency at least 1, each table summing to 65536.
    skip: symbols whose table index is below it are 0 and cost nothing.
    many: coded symbols from which on `encode` uses four states; decoders take either number at any length.

    Raises ValueError if the table set breaks a rule.
    """

    def __init__(
        self, radius: NDArray[np.uint16], freq: NDArray[np.uint16], skip: int = 0, many: int = MANY_SYMBOLS
    ) -> None:
        if not 1 <= len(radius) <= 256:
            raise ValueError("a table set has 1 to 256 rows")
        if not 0 <= skip <= len(radius):
            raise ValueError("skip is not between 0 and the number of rows")
        self.radius = [int(t) for t in radius]
        self.skip, self.many = skip, many
        if max(self.radius) > MAX_SYMBOL:
            raise ValueError("a row's radius is at most 32767")
        ends = list(itertools.accumulate(2 * t + 2 for t in self.radius))
        if ends[-1] != len(freq):
            raise ValueError("the number of frequencies does not match the radii")
        flat = [int(f) for f in freq]
        self.freq = [flat[end - 2 * t - 2 : end] for t, end in zip(self.radius, ends, strict=True)]
        if any(min(table) == 0 for table in self.freq):
            raise ValueError("a frequency is 0")
        if any(sum(table) != 65536 for table in self.freq):
            raise ValueError("the frequencies of a row do not sum to 65536")
        self.cum = [[0, *itertools.accumulate(table[:-1])] for table in self.freq]

    def encode(self, symbols: NDArray[np.int32], indices: NDArray[np.uint8]) -> bytes:
        """Return the stream of symbols (int32[n]) coded with the tables indices (uint8[n]).

        Raises ValueError on an index outside the table set, a symbol beyond +-32767, or a symbol of a skipped
        table that is not 0.
        """
        if len(symbols) != len(indices):
            raise ValueError("there are not as many symbols as rows")
        coded = int(np.count_nonzero(indices >= self.skip))
        count = 1 if coded < self.many else MANY_STATES
        # The decoder's steps, in its order: on state k, it takes the slots [cum, cum + freq).
        steps: list[tuple[int, int, int]] = []
        k = 0
        for v, table in zip(symbols.tolist(), indices.tolist(), strict=True):
            if table >= len(self.radius):
                raise ValueError("a row index is outside the table set")
            if table < self.skip:
                if v != 0:
                    raise ValueError("a symbol of a skipped row is not 0")
                continue
            if abs(v) > MAX_SYMBOL:
                raise ValueError("a symbol exceeds 32767 in magnitude")
            radius = self.radius[table]
            escaped = abs(v) > radius
            index = 2 * radius + 1 if escaped else v + radius
            steps.append((k % count, self.cum[table][index], self.freq[table][index]))
            if escaped:
                m = 2 * (abs(v) - radius - 1) + (v < 0) + 1
                n = m.bit_length() - 1
                steps.append((k % count, n << 12, 1 << 12))
                if n > 0:
                    steps.append((k % count, (m - (1 << n)) << (16 - n), 1 << (16 - n)))
            k += 1
        if k == 0:
            return b""
        states = [LOWER] * count
        words: list[int] = []
        for s, cum, freq in reversed(steps):
            if states[s] >= freq << 48:
                words.append(states[s] & 0xFFFFFFFF)
                states[s] >>= 32
            states[s] = (states[s] // freq << 16) + cum + states[s] % freq
        return struct.pack(f"<B{count}Q{len(words)}I", count, *states, *reversed(words))

    def decode(self, data: bytes, indices: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the symbols, int32[n], that encode(symbols, indices) made data from; indices is uint8[n].

        Raises ValueError if data is not exactly one such stream, or on an index outside the table set.
        """
        reader = self.reader(data)
        symbols = reader.read(indices)
        reader.finish()
        return symbols

    def reader(self, data: bytes) -> SymbolReader:
        """Return what decodes a stream that `encode` made, in parts."""
        return SymbolReader(self, data)


class SymbolReader:
    """The same interface as `pocketlic.codec._native.SymbolReader`: decodes one stream in parts.

    The table indices of a part may depend on the symbols of the parts before.
    """

    def __init__(self, coder: SymbolCoder, data: bytes) -> None:
        self._coder, self._data, self._at = coder, data, 0
        self._states: list[int] = []
        self._next = 0  # the state whose turn it is
        self._broken = False

    def read(self, indices: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the next symbols, int32[n], coded with the tables indices, uint8[n].

        Raises ValueError if the stream ends too early or is corrupt, or on an index outside the table set.
        """
        if self._broken:
            raise ValueError("the entropy-coded data is corrupt")
        self._broken = True
        if any(table >= len(self._coder.radius) for table in indices.tolist()):
            raise ValueError("a row index is outside the table set")
        out = np.zeros(len(indices), np.int32)
        for i, table in enumerate(indices.tolist()):
            if table >= self._coder.skip:
                out[i] = self._symbol(table)
        self._broken = False
        return out

    def finish(self) -> None:
        """Raise ValueError unless all symbols have been read and data was exactly one stream."""
        if self._broken or any(x != LOWER for x in self._states) or self._at != len(self._data):
            raise ValueError("the entropy-coded data is corrupt")

    def _symbol(self, table: int) -> int:
        if not self._states:
            self._begin()
        s, self._next = self._next, (self._next + 1) % len(self._states)
        radius, cum = self._coder.radius[table], self._coder.cum[table]
        index = bisect_right(cum, self._states[s] & 0xFFFF) - 1
        self._take(s, cum[index], self._coder.freq[table][index])
        v = index - radius
        if v > radius:
            n = self._take_bits(s, 4)
            e = (1 << n) + self._take_bits(s, n) - 1
            v = (e >> 1) + radius + 1
            if v > MAX_SYMBOL:
                raise ValueError("the entropy-coded data is corrupt")
            if e & 1:
                v = -v
        return v

    def _begin(self) -> None:
        count = self._number(1)
        if count not in (1, MANY_STATES):
            raise ValueError("the entropy-coded data is corrupt")
        self._states = [self._number(8) for _ in range(count)]
        if min(self._states) < LOWER:
            raise ValueError("the entropy-coded data is corrupt")

    def _number(self, size: int) -> int:
        data = self._data[self._at : self._at + size]
        if len(data) < size:
            raise ValueError("the entropy-coded data ends too early")
        self._at += size
        return int.from_bytes(data, "little")

    def _take(self, s: int, cum: int, freq: int) -> None:
        x = freq * (self._states[s] >> 16) + (self._states[s] & 0xFFFF) - cum
        self._states[s] = x if x >= LOWER else x << 32 | self._number(4)

    def _take_bits(self, s: int, bits: int) -> int:
        if bits == 0:
            return 0
        value: int = (self._states[s] & 0xFFFF) >> (16 - bits)
        self._take(s, value << (16 - bits), 1 << (16 - bits))
        return value
