// What the kernels for vector instructions share, and their names.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define POCKETLIC_X86 1
#else
#define POCKETLIC_X86 0
#endif

// The 256-bit dot product, with compilers that know it.
#if POCKETLIC_X86 && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define POCKETLIC_AVX_VNNI 1
#else
#define POCKETLIC_AVX_VNNI 0
#endif

// Not big-endian, whose vectors count their lanes the other way round.
#if defined(__ARM_NEON) && defined(__GNUC__) && !defined(__ARM_BIG_ENDIAN)
#define POCKETLIC_ARM 1
#else
#define POCKETLIC_ARM 0
#endif

// The dot product of Armv8.2, with compilers whose header has it for functions that ask for it, or for all.
#if POCKETLIC_ARM && defined(__aarch64__) && \
    (defined(__ARM_FEATURE_DOTPROD) || !defined(__clang__) || __clang_major__ >= 17)
#define POCKETLIC_DOT 1
#else
#define POCKETLIC_DOT 0
#endif

// The matrix product of Armv8.6.
#if POCKETLIC_DOT && (defined(__ARM_FEATURE_MATMUL_INT8) || (defined(__clang__) ? __clang_major__ >= 17 : __GNUC__ >= 10))
#define POCKETLIC_I8MM 1
#else
#define POCKETLIC_I8MM 0
#endif

namespace pocketlic {

#if POCKETLIC_X86
extern const Kernels kAvx2, kAvx512Vnni;
#endif
#if POCKETLIC_AVX_VNNI
extern const Kernels kAvxVnni;
#endif
#if POCKETLIC_ARM
extern const Kernels kNeon;
#endif
#if POCKETLIC_DOT
extern const Kernels kDot;
#endif
#if POCKETLIC_I8MM
extern const Kernels kI8mm;
#endif

inline size_t count(int32_t n) { return static_cast<size_t>(n); }
inline size_t round_up(size_t n, size_t m) { return (n + m - 1) / m * m; }
inline size_t blocks(const Pointwise& c) { return round_up(count(c.outputs), kBlock) / kBlock; }

inline int32_t load32(const void* p) {
    int32_t v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

// Table rows from the i-th on: those that fill no vector, or all.
inline void rows_from(size_t i, const Term* terms, size_t n_terms, const int64_t* base, size_t n, int32_t last,
                      uint8_t* y) {
    for (; i < n; ++i) {
        int64_t sum = base[i];
        for (size_t t = 0; t < n_terms; ++t) sum += int64_t{terms[t].acc[i]} * terms[t].scale[i];
        y[i] = static_cast<uint8_t>(std::clamp<int64_t>(sum >> 16, 0, last));
    }
}

#if POCKETLIC_X86 || POCKETLIC_DOT
// SHA-256 by the processor's own instructions.
bool has_sha256();
void sha256_processor(uint32_t (&state)[8], const uint8_t* data, size_t blocks);
#endif

// What other kernels leave kernels of unusual sizes to.
void depthwise_portable(const Depthwise&, const int8_t* const* rows, int32_t n_rows, const Span&, int8_t* y);

// The portable kernels of the post-filter, for those sets that have none of their own.
void luma_portable(const int8_t* rgb, int32_t cells, LumaRow& y);
void tensors_portable(const LumaRow* const* rows, int32_t cells, TensorRow& y);
void filter_portable(const int16_t* filters, const TensorRow* const* tensors, const LumaRow* const* rows,
                     int32_t cells, ChangeRow* y);

// Pixels from the i-th on: those that fill no vector, or all.
inline void show_from(size_t i, const int8_t* rgb, const ChangeRow& change, size_t pixels, uint8_t* y) {
    for (; i < pixels; ++i)
        for (size_t c = 3 * i; c < 3 * i + 3; ++c)
            y[c] = static_cast<uint8_t>(std::clamp(rgb[c] + 128 + change.plus[i] - change.minus[i], 0, 255));
}

inline void show_portable(const int8_t* rgb, const ChangeRow& change, size_t pixels, uint8_t* y) {
    show_from(0, rgb, change, pixels, y);
}

// Channel `at` of one pixel, of the columns begin .. end - 1 of the kernel: for channels that fill no vector.
inline int8_t depthwise_one(const Depthwise& c, const int8_t* const* rows, int32_t x0, int32_t column, int32_t begin,
                            int32_t end, size_t at) {
    const size_t channels = count(c.channels);
    int32_t acc = c.bias[at];
    for (int32_t dy = 0; dy < c.kernel; ++dy)
        for (int32_t dx = begin; rows[dy] != nullptr && dx < end; ++dx)
            acc += (rows[dy][count(column + dx - c.kernel / 2 - x0) * channels + at] - c.zero_in) *
                   c.weight[count(dy * c.kernel + dx) * channels + at];
    const int32_t v = ((acc + (1 << (c.shift[at] - 1))) >> c.shift[at]) + c.zero;
    return static_cast<int8_t>(std::clamp(v, c.low, 127));
}

// Weights [block][group of kGroup inputs][16 outputs][kGroup]; missing inputs and outputs are 0. `correction` times
// the sum of an output's weights is taken off its bias.
template <typename T, size_t kGroup>
bool pack(Arena& arena, const int8_t* weight, const int32_t* bias, int32_t correction, Pointwise& to) {
    const size_t inputs = count(to.inputs), groups = round_up(inputs, kGroup) / kGroup;
    const size_t padded = blocks(to) * kBlock;
    auto* w = arena.make<T>(uint64_t{padded} * groups * kGroup);
    auto* b = arena.make<int32_t>(padded);
    if (w == nullptr || b == nullptr) return false;
    for (size_t o = 0; o < count(to.outputs); ++o) {
        const int8_t* from = weight + o * inputs;
        int32_t sum = 0;  // of at most 2^16 weights
        for (size_t i = 0; i < inputs; ++i) sum += from[i];
        T* out = w + (o / kBlock * groups * kBlock + o % kBlock) * kGroup;
        for (size_t i = 0; i < inputs; i += kGroup, out += kBlock * kGroup) {
            const size_t n = std::min(kGroup, inputs - i);
            for (size_t k = 0; k < kGroup; ++k) out[k] = k < n ? from[i + k] : T{0};
        }
        // Modulo 2^32: the accumulator, which wraps as well, ends where it should.
        b[o] = static_cast<int32_t>(static_cast<uint32_t>(bias[o] - int64_t{correction} * sum));
    }
    to.weight = w;
    to.bias = b;
    return true;
}

}  // namespace pocketlic
