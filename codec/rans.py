"""The entropy coder, slowly: a readable twin of the native core, bit for bit the same streams.

`native/rans.h` opens with the normative description of the bitstream. This module follows it word by word and
is what the tests compare the native core with; nothing else should use it: it is a few hundred times slower.
"""

import itertools
import struct
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

STATES = 4
LOWER = 1 << 16
MAX_SYMBOL = 32767


class SymbolCoder:
    """The same interface as `pocketlic.codec._native.SymbolCoder`.

    radius: uint16[R], 1 <= R <= 256. Row i codes -radius[i] .. radius[i] directly, others by an escape.
    freq: uint16[sum(2 * radius + 2)], row after row, each in the order -radius .. radius, escape; each
    frequency at least 1, each row summing to 65536.
    skip: symbols whose row index is below it are 0 and cost nothing.

    Raises ValueError if the table set breaks a rule.
    """

    def __init__(self, radius: NDArray[np.uint16], freq: NDArray[np.uint16], skip: int = 0) -> None:
        if not 1 <= len(radius) <= 256:
            raise ValueError("a table set has 1 to 256 rows")
        if not 0 <= skip <= len(radius):
            raise ValueError("skip is not between 0 and the number of rows")
        self._radius = [int(t) for t in radius]
        self._skip = skip
        if max(self._radius) > MAX_SYMBOL:
            raise ValueError("a row's radius is at most 32767")
        ends = list(itertools.accumulate(2 * t + 2 for t in self._radius))
        if ends[-1] != len(freq):
            raise ValueError("the number of frequencies does not match the radii")
        flat = [int(f) for f in freq]
        self._freq = [flat[end - 2 * t - 2 : end] for t, end in zip(self._radius, ends, strict=True)]
        if any(min(row) == 0 for row in self._freq):
            raise ValueError("a frequency is 0")
        if any(sum(row) != 65536 for row in self._freq):
            raise ValueError("the frequencies of a row do not sum to 65536")
        self._cum = [[0, *itertools.accumulate(row[:-1])] for row in self._freq]

    def encode(self, symbols: NDArray[np.int32], rows: NDArray[np.uint8]) -> bytes:
        """Return the stream of symbols (int32[n]) coded with the tables rows (uint8[n]).

        Raises ValueError on a row outside the table set, a symbol beyond +-32767, or a symbol that is not 0
        in a skipped row.
        """
        if len(symbols) != len(rows):
            raise ValueError("there are not as many symbols as rows")
        # What the decoder will do, in its order: on state k, the slots [cum, cum + freq) are taken.
        steps: list[tuple[int, int, int]] = []
        k = 0
        for v, row in zip(symbols.tolist(), rows.tolist(), strict=True):
            if row >= len(self._radius):
                raise ValueError("a row index is outside the table set")
            if row < self._skip:
                if v != 0:
                    raise ValueError("a symbol of a skipped row is not 0")
                continue
            if abs(v) > MAX_SYMBOL:
                raise ValueError("a symbol exceeds 32767 in magnitude")
            radius = self._radius[row]
            escaped = abs(v) > radius
            index = 2 * radius + 1 if escaped else v + radius
            steps.append((k % STATES, self._cum[row][index], self._freq[row][index]))
            if escaped:
                m = 2 * (abs(v) - radius - 1) + (v < 0) + 1
                n = m.bit_length() - 1
                steps.append((k % STATES, n << 12, 1 << 12))
                if n > 0:
                    steps.append((k % STATES, (m - (1 << n)) << (16 - n), 1 << (16 - n)))
            k += 1
        if k == 0:
            return b""
        states = [LOWER] * STATES
        words: list[int] = []
        for s, cum, freq in reversed(steps):
            if states[s] >= freq << 16:
                words.append(states[s] & 0xFFFF)
                states[s] >>= 16
            states[s] = (states[s] // freq << 16) + cum + states[s] % freq
        return struct.pack(f"<{STATES}I{len(words)}H", *states, *reversed(words))

    def decode(self, data: bytes, rows: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the symbols, int32[n], that encode(symbols, rows) made data from; rows is uint8[n].

        Raises ValueError if data is not exactly one such stream, or on a row outside the table set.
        """
        if any(row >= len(self._radius) for row in rows.tolist()):
            raise ValueError("a row index is outside the table set")
        out = np.zeros(len(rows), np.int32)
        coded = [i for i, row in enumerate(rows.tolist()) if row >= self._skip]
        if not coded:
            if data:
                raise ValueError("the entropy-coded data is corrupt")
            return out
        if len(data) < 4 * STATES:
            raise ValueError("the entropy-coded data ends too early")
        if len(data) % 2:
            raise ValueError("the entropy-coded data is corrupt")
        states: list[int] = list(struct.unpack_from(f"<{STATES}I", data))
        if min(states) < LOWER:
            raise ValueError("the entropy-coded data is corrupt")
        words = iter(struct.unpack_from(f"<{len(data) // 2 - 2 * STATES}H", data, 4 * STATES))

        def take(s: int, cum: int, freq: int) -> None:
            states[s] = freq * (states[s] >> 16) + (states[s] & 0xFFFF) - cum
            if states[s] < LOWER:
                word = next(words, None)
                if word is None:
                    raise ValueError("the entropy-coded data ends too early")
                states[s] = states[s] << 16 | word

        def take_bits(s: int, bits: int) -> int:
            if bits == 0:
                return 0
            value: int = (states[s] & 0xFFFF) >> (16 - bits)
            take(s, value << (16 - bits), 1 << (16 - bits))
            return value

        for k, i in enumerate(coded):
            s, row = k % STATES, int(rows[i])
            radius = self._radius[row]
            index = bisect_right(self._cum[row], states[s] & 0xFFFF) - 1
            take(s, self._cum[row][index], self._freq[row][index])
            v = index - radius
            if v > radius:
                n = take_bits(s, 4)
                e = (1 << n) + take_bits(s, n) - 1
                v = (e >> 1) + radius + 1
                if v > MAX_SYMBOL:
                    raise ValueError("the entropy-coded data is corrupt")
                if e & 1:
                    v = -v
            out[i] = v
        if states != [LOWER] * STATES or next(words, None) is not None:
            raise ValueError("the entropy-coded data is corrupt")
        return out
