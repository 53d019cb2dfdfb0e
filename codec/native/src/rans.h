// The entropy coder of Pocketlic: table-driven rANS, for the desktop codec and for phones.
// This comment is the normative description of the bitstream; codec/rans.py is a slow twin of it.
//
// rANS in three lines (Duda, arXiv 1311.2540; layout after F. Giesen's ryg_rans): the state x is one big
// number. Coding a symbol that owns the slots [cum, cum + freq) of 65536 does
//     x  ->  (x / freq) * 65536 + cum + x % freq              (x grows by -log2(freq / 65536) bits)
// and decoding reads the slot x % 65536, finds its symbol, and undoes it. The encoder therefore runs from
// the last symbol to the first, and the decoder forwards.
//
// Table set: R rows (1 to 256). Row i has a radius T_i and 2 * T_i + 2 frequencies, each at least 1, that sum
//     to 65536, in the order -T_i .. T_i, escape. `cum` is the sum of the frequencies before an entry.
//     T_i is at most 32767. `skip` is in 0 .. R: symbols whose row index is below `skip` are not
//     coded at all and decode as 0.
// States: N of 64 bits, 1 or 4. The k-th *coded* symbol (skipped ones are not counted) uses state k mod N.
//     A state is always in [2^32, 2^64). Encoding an entry first moves the low 32 bits of the state to the
//     stream if x >= freq * 2^48; decoding an entry afterwards takes 32 bits back if x < 2^32.
//     Each costs about 6 bytes that carry nothing, but four decode twice as fast as one: the encoder takes four from
//     2^18 coded symbols on, where those bytes no longer count.
// Stream: one byte, N; the N final states of the encoder as little-endian u64, state 0 first; then little-endian
//     u32 words in the order the decoder takes them. If no symbol is coded, the stream is empty.
// Parts: a stream may be decoded in parts, whose rows may depend on the symbols of the parts before.
// End: after the last symbol every state must be 2^32, where the encoder began, and every byte must have been
//     taken. Otherwise the stream is corrupt. (This check costs nothing: the states have to begin somewhere.)
// Escape: a symbol v with |v| > T is coded as the escape entry, followed on the same state by
//     m = 2 * (|v| - T - 1) + (v < 0) + 1, as uniform bits: first the 4 bits n = floor(log2(m)), then the n bits
//     of m below its leading one. k uniform bits with value u are the entry freq = 2^(16-k), cum = u * 2^(16-k);
//     0 bits are not coded. |v| is at most 32767; a stream that says otherwise is corrupt.
//
// No dependencies, no undefined behaviour on any input, no read beyond the end, no recursion; nothing here throws.
// A built TableSet is immutable: any number of threads may share it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "memory.h"

namespace pocketlic::rans {

constexpr size_t kMaxStates = 4;
constexpr size_t kManySymbols = size_t{1} << 18;  // from so many coded symbols on, the encoder takes four states
constexpr uint64_t kLower = uint64_t{1} << 32;    // a state's lower bound, and its value at the end
constexpr int32_t kMaxSymbol = 32767;
constexpr size_t kMaxRows = 256;

enum class Status {
    ok,
    bad_row_count,      // R is not in 1 .. 256
    bad_radius,         // a radius exceeds 32767
    bad_skip,           // skip is not in 0 .. R
    bad_table_size,     // the number of frequencies is not the sum of 2 * T + 2
    zero_frequency,     // an entry has frequency 0
    bad_sum,            // a row does not sum to 65536
    bad_row,            // a row index is not below R
    bad_symbol,         // a symbol to encode exceeds 32767 in magnitude
    skipped_not_zero,   // a symbol to encode is not 0 but its row is skipped
    truncated,          // the stream ended before the last symbol
    corrupt,            // the stream contradicts itself
    no_memory,          // for the tables
};

inline const char* message(Status s) {
    switch (s) {
        case Status::ok: return "ok";
        case Status::bad_row_count: return "a table set has 1 to 256 rows";
        case Status::bad_radius: return "a row's radius is at most 32767";
        case Status::bad_skip: return "skip is not between 0 and the number of rows";
        case Status::bad_table_size: return "the number of frequencies does not match the radii";
        case Status::zero_frequency: return "a frequency is 0";
        case Status::bad_sum: return "the frequencies of a row do not sum to 65536";
        case Status::bad_row: return "a row index is outside the table set";
        case Status::bad_symbol: return "a symbol exceeds 32767 in magnitude";
        case Status::skipped_not_zero: return "a symbol of a skipped row is not 0";
        case Status::truncated: return "the entropy-coded data ends too early";
        case Status::corrupt: return "the entropy-coded data is corrupt";
        case Status::no_memory: return "out of memory";
    }
    return "unknown status";
}

struct Entry {
    uint16_t cum, freq;
};

// For decoding: the entry that holds the first of a bucket of slots. The wanted entry is that one, nearly always, or one
// behind it. So that the rare cases are one, the escape has freq 0 here, which holds no slot.
struct Bucket {
    uint16_t cum, freq;
    int16_t symbol;
    uint16_t index;  // in the row
};

// A checked table set.
class TableSet {
public:
    // radius: n_rows values; freq: n_freq values, the rows one after another. Replaces what was built before.
    Status build(Memory& memory, const uint16_t* radius, size_t n_rows, const uint16_t* freq, size_t n_freq,
                 uint32_t skip) {
        row_count_ = 0;
        if (n_rows < 1 || n_rows > kMaxRows) return Status::bad_row_count;
        if (skip > n_rows) return Status::bad_skip;
        size_t total = 0;
        for (size_t i = 0; i < n_rows; ++i) {
            if (radius[i] > kMaxSymbol) return Status::bad_radius;
            total += 2 * size_t{radius[i]} + 2;
        }
        if (total != n_freq) return Status::bad_table_size;
        if (!entries_.allocate(memory, total) || !buckets_.allocate(memory, n_rows * kBuckets) ||
            !rows_.allocate(memory, n_rows))
            return Status::no_memory;
        size_t at = 0;
        for (size_t i = 0; i < n_rows; ++i) {
            const size_t size = 2 * size_t{radius[i]} + 2;
            uint32_t cum = 0, bucket = 0;
            for (size_t j = 0; j < size; ++j) {
                const uint32_t f = freq[at + j];
                if (f == 0) return Status::zero_frequency;
                if (cum + f > 65536) return Status::bad_sum;
                entries_[at + j] = {static_cast<uint16_t>(cum), static_cast<uint16_t>(f)};
                cum += f;
                const Bucket here = {entries_[at + j].cum, static_cast<uint16_t>(j == size - 1 ? 0 : f),
                                     static_cast<int16_t>(static_cast<int32_t>(j) - radius[i]),
                                     static_cast<uint16_t>(j)};
                for (; bucket < kBuckets && bucket << kBucketShift < cum; ++bucket)
                    buckets_[i * kBuckets + bucket] = here;
            }
            if (cum != 65536) return Status::bad_sum;
            rows_[i] = {static_cast<uint32_t>(at), radius[i]};
            at += size;
        }
        skip_ = skip;
        row_count_ = n_rows;
        return Status::ok;
    }

    size_t row_count() const { return row_count_; }
    uint32_t skip() const { return skip_; }
    int32_t radius(size_t row) const { return rows_[row].radius; }
    const Entry* entries(size_t row) const { return entries_.data() + rows_[row].first; }
    const Bucket& bucket(size_t row, uint32_t slot) const {
        return buckets_[row * kBuckets + (slot >> kBucketShift)];
    }

private:
    // So many that a scan is rare, so few that the rows of a picture stay in a processor's nearest cache.
    static constexpr uint32_t kBuckets = 128;
    static constexpr int kBucketShift = 9;
    struct Row {
        uint32_t first;  // its first entry in entries_
        int32_t radius;
    };
    Buffer<Row> rows_;
    Buffer<Entry> entries_;
    Buffer<Bucket> buckets_;
    size_t row_count_ = 0;
    uint32_t skip_ = 0;
};

// ---------------------------------------------------------------------------------------------------- encoding

// More than the bytes of a stream of n coded symbols. An entry takes up to 16 bits, an escape 4 + 15 more; the rounding
// of states adds less than 2^-13 bits to that.
constexpr uint64_t max_encoded_bytes(uint64_t n) { return 1 + 8 * kMaxStates + 5 * n; }

// Counts the symbols out of rows[0 .. n) that are coded.
inline Status count_coded(const TableSet& tables, const uint8_t* rows, size_t n, size_t& coded) {
    coded = 0;
    bool bad = false;
    for (size_t i = 0; i < n; ++i) {
        bad |= rows[i] >= tables.row_count();
        coded += rows[i] >= tables.skip();
    }
    return bad ? Status::bad_row : Status::ok;
}

// Writes a stream backwards, from the end of a buffer of max_encoded_bytes(coded) bytes: the last part first.
class Writer {
public:
    // coded: the symbols in all parts that are not skipped.
    Writer(const TableSet& tables, size_t coded, uint8_t* end)
        : tables_(tables), at_(end), left_(coded), states_(coded < kManySymbols ? 1 : kMaxStates) {
        for (uint64_t& x : state_) x = kLower;
        empty_ = coded == 0;
    }

    // Codes symbols[0 .. n) with the tables rows[0 .. n), which count_coded has seen.
    template <typename T>
    Status put(const T* symbols, const uint8_t* rows, size_t n) {
        for (size_t i = n; i-- > 0;) {
            const uint32_t row = rows[i];
            const int32_t v = symbols[i];
            if (row < tables_.skip()) {
                if (v != 0) return Status::skipped_not_zero;
                continue;
            }
            if (v < -kMaxSymbol || v > kMaxSymbol) return Status::bad_symbol;
            const int32_t radius = tables_.radius(row), magnitude = v < 0 ? -v : v;
            uint64_t& x = state_[--left_ % states_];
            int32_t index = v + radius;
            if (magnitude > radius) {
                index = 2 * radius + 1;
                const uint32_t m = 2u * static_cast<uint32_t>(magnitude - radius - 1) + (v < 0) + 1;
                uint32_t bits = 0;
                while (m >> (bits + 1)) ++bits;
                put_bits(x, m - (1u << bits), bits);  // backwards: what is read last is put first
                put_bits(x, bits, 4);
            }
            const Entry e = tables_.entries(row)[index];
            put_entry(x, e.cum, e.freq);
        }
        return Status::ok;
    }

    // Where the stream begins; it ends where the buffer does.
    uint8_t* finish() {
        if (empty_) return at_;
        for (size_t s = states_; s-- > 0;) {
            word(static_cast<uint32_t>(state_[s] >> 32));
            word(static_cast<uint32_t>(state_[s]));
        }
        *--at_ = static_cast<uint8_t>(states_);
        return at_;
    }

private:
    void put_entry(uint64_t& x, uint32_t cum, uint32_t freq) {
        if (x >= uint64_t{freq} << 48) {  // freq < 65536: no overflow
            word(static_cast<uint32_t>(x));
            x >>= 32;
        }
        x = ((x / freq) << 16) + cum + x % freq;
    }

    void put_bits(uint64_t& x, uint32_t value, uint32_t bits) {
        if (bits > 0) put_entry(x, value << (16 - bits), 1u << (16 - bits));
    }

    void word(uint32_t w) {
        at_ -= 4;
        for (int i = 0; i < 4; ++i) at_[i] = static_cast<uint8_t>(w >> (8 * i));
    }

    const TableSet& tables_;
    uint8_t* at_;
    size_t left_, states_;
    uint64_t state_[kMaxStates];
    bool empty_;
};

// ---------------------------------------------------------------------------------------------------- decoding

// Where decoding a stream stands, between its parts. A copy goes on from there independently.
class Reader {
public:
    Reader() = default;
    Reader(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

    // Decodes the next n symbols with the tables rows[0 .. n) into out[0 .. n), which the caller has filled with
    // zeros. T holds -32767 .. 32767. On any other status than ok, `out` holds rubbish and the reader is of no use.
    template <typename T>
    Status read(const TableSet& tables, const uint8_t* rows, size_t n, T* out) {
        if (states_ == 0) {
            size_t i = 0;
            while (i < n && rows[i] < tables.skip()) ++i;
            if (i == n) return bad_row(tables, rows, n);
            const Status status = begin();
            if (status != Status::ok) return status;
        }
        return states_ == 1 ? read_with<1>(tables, rows, n, out) : read_with<kMaxStates>(tables, rows, n, out);
    }

    // ok if the last symbol has been read and this was the whole stream.
    Status finish() const {
        for (size_t s = 0; s < states_; ++s)
            if (state_[s] != kLower) return Status::corrupt;
        return at_ == end_ ? Status::ok : Status::corrupt;
    }

private:
    static Status bad_row(const TableSet& tables, const uint8_t* rows, size_t n) {
        size_t ignored;
        return count_coded(tables, rows, n, ignored);
    }

    Status begin() {
        if (at_ == end_) return Status::truncated;
        const size_t states = *at_++;
        if (states != 1 && states != kMaxStates) return Status::corrupt;
        if (static_cast<size_t>(end_ - at_) < 8 * states) return Status::truncated;
        for (size_t s = 0; s < states; ++s) {
            const uint64_t low = word();
            state_[s] = uint64_t{word()} << 32 | low;
            if (state_[s] < kLower) return Status::corrupt;
        }
        states_ = states;
        return Status::ok;
    }

    template <size_t N, typename T>
    Status read_with(const TableSet& tables, const uint8_t* rows, size_t n, T* out) {
        // Rows that are skipped come in patterns that no branch predictor learns: so first gather the positions of
        // coded symbols without branching, then decode those, N independent states at a time.
        constexpr size_t kBlock = 1024;
        const uint32_t skip = tables.skip();
        size_t position[kBlock + N];
        size_t count = 0, i = 0;
        uint64_t x[N];
        for (size_t s = 0; s < N; ++s) x[s] = state_[s];
        do {
            const size_t block_end = n - i < kBlock ? n : i + kBlock;
            uint8_t last_row = 0;
            for (size_t j = i; j < block_end; ++j) last_row = rows[j] > last_row ? rows[j] : last_row;
            if (last_row >= tables.row_count()) return Status::bad_row;
            const auto look = [&] {
                position[count] = i;
                count += rows[i++] >= skip;
            };
            while (block_end - i >= 4)
                for (int j = 0; j < 4; ++j) look();
            while (i < block_end) look();
            // All but the last block leave the symbols behind the last whole group to the next block.
            const size_t ready = i == n ? count : count - count % N;
            size_t k = 0;
            for (; k + N <= ready; k += N)
                for (size_t s = 0; s < N; ++s)
                    if (const Status status = decode_one(tables, x[s], rows[position[k + s]], out[position[k + s]]);
                        status != Status::ok)
                        return status;
            for (size_t s = 0; k < ready; ++s, ++k)
                if (const Status status = decode_one(tables, x[s], rows[position[k]], out[position[k]]);
                    status != Status::ok)
                    return status;
            if (i == n)  // the state whose turn is next goes first
                for (size_t s = 0; s < N; ++s) state_[s] = x[(ready + s) % N];
            for (; k < count; ++k) position[k - ready] = position[k];
            count -= ready;
        } while (i < n);
        return Status::ok;
    }

    template <typename T>
    Status decode_one(const TableSet& tables, uint64_t& x, uint32_t row, T& out) {
        const auto slot = static_cast<uint32_t>(x & 0xFFFF);
        const Bucket& b = tables.bucket(row, slot);
        if (slot - b.cum >= b.freq) {
            const Decoded other = decode_other(tables, x, row, b.index);
            x = other.x;
            out = static_cast<T>(other.symbol);
            return other.status;
        }
        x = b.freq * (x >> 16) + (slot - b.cum);
        out = static_cast<T>(b.symbol);
        return refill(x) ? Status::ok : Status::truncated;
    }

    struct Decoded {
        uint64_t x;
        int32_t symbol;
        Status status;
    };

    // The symbol of an entry at `index` or behind. Apart, and x by value, so that states stay in registers elsewhere.
#if defined(__GNUC__)
    __attribute__((noinline))
#endif
    Decoded decode_other(const TableSet& tables, uint64_t x, uint32_t row, uint32_t index) {
        const int32_t radius = tables.radius(row);
        const Entry* entries = tables.entries(row);
        const auto slot = static_cast<uint32_t>(x & 0xFFFF);
        // The row's entries cover all slots, so the scan stops at the right one, at the latest the last.
        while (slot - entries[index].cum >= entries[index].freq) ++index;
        x = entries[index].freq * (x >> 16) + (slot - entries[index].cum);
        if (!refill(x)) return {x, 0, Status::truncated};
        const int32_t symbol = static_cast<int32_t>(index) - radius;
        if (symbol <= radius) return {x, symbol, Status::ok};
        uint32_t bits, low;
        if (!take_bits(x, 4, bits) || !take_bits(x, bits, low)) return {x, 0, Status::truncated};
        const uint32_t e = (1u << bits) + low - 1;
        const int32_t magnitude = static_cast<int32_t>(e >> 1) + radius + 1;
        return {x, e & 1 ? -magnitude : magnitude, magnitude <= kMaxSymbol ? Status::ok : Status::corrupt};
    }

    bool take_bits(uint64_t& x, uint32_t bits, uint32_t& value) {
        value = 0;
        if (bits == 0) return true;
        const uint32_t low = (1u << (16 - bits)) - 1, slot = static_cast<uint32_t>(x & 0xFFFF);
        value = slot >> (16 - bits);
        x = ((x >> 16) << (16 - bits)) + (slot & low);
        return refill(x);
    }

    bool refill(uint64_t& x) {
        if (x < kLower) {
            if (end_ - at_ < 4) return false;
            x = x << 32 | word();
        }
        return true;
    }

    uint32_t word() {
        const uint32_t w = static_cast<uint32_t>(at_[0] | at_[1] << 8 | at_[2] << 16) |
                           static_cast<uint32_t>(at_[3]) << 24;
        at_ += 4;
        return w;
    }

    const uint8_t* at_ = nullptr;
    const uint8_t* end_ = nullptr;
    size_t states_ = 0;  // 0 before the first coded symbol
    uint64_t state_[kMaxStates] = {};
};

}  // namespace pocketlic::rans
