// Kernels for Arm processors with NEON, of 64 bits and of 32, and with the dot product of Armv8.2. portable.cpp chooses;
// "portable" is the oracle.
#include "simd.h"

#if POCKETLIC_ARM

#include <arm_neon.h>

#include <algorithm>
#include <cstring>

#include "../sha256.h"

#if defined(__ARM_FEATURE_DOTPROD)
#define DOT
#elif defined(__clang__)
#define DOT __attribute__((target("dotprod")))
#else
#define DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

#if POCKETLIC_I8MM
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define I8MM
#elif defined(__clang__)
#define I8MM __attribute__((target("i8mm,dotprod")))
#else
#define I8MM __attribute__((target("arch=armv8.2-a+i8mm+dotprod")))
#endif
#endif

#if POCKETLIC_DOT && defined(__linux__)
#include <sys/auxv.h>
#endif

#define INLINE inline __attribute__((always_inline))
// Without it, GCC keeps arrays of vectors in memory.
#define UNROLL _Pragma("GCC unroll 16")

namespace pocketlic {
namespace {

bool always() { return true; }

// Four outputs of one pixel; the instruction rounds halves up.
INLINE int32x4_t scaled(int32x4_t acc, const int32_t* shift, int32_t zero) {
    return vaddq_s32(vrshlq_s32(acc, vnegq_s32(vld1q_s32(shift))), vdupq_n_s32(zero));
}

INLINE int16x8_t narrow(int32x4_t low, int32x4_t high) { return vcombine_s16(vqmovn_s32(low), vqmovn_s32(high)); }

// A block of outputs of some pixels, all 16 or fewer: the call of memcpy alone costs registers all around.
template <bool kRaw, bool kAll, size_t kPixels>
INLINE void store(const Pointwise& c, const int32x4_t (&acc)[kPixels][4], size_t o, void* y, size_t pixel) {
    const size_t outputs = count(c.outputs);
    if (kRaw) {
        UNROLL for (size_t p = 0; p < kPixels; ++p) {
            int32_t out[kBlock];
            int32_t* const at = static_cast<int32_t*>(y) + (pixel + p) * outputs + o;
            UNROLL for (size_t b = 0; b < 4; ++b) vst1q_s32((kAll ? at : out) + 4 * b, acc[p][b]);
            if (!kAll) std::memcpy(at, out, (outputs - o) * sizeof *out);
        }
        return;
    }
    int32x4_t shift[4];
    UNROLL for (size_t b = 0; b < 4; ++b) shift[b] = vnegq_s32(vld1q_s32(c.shift + o + 4 * b));
    const int16x8_t zero = vdupq_n_s16(static_cast<int16_t>(c.zero));
    const int8x16_t low = vdupq_n_s8(static_cast<int8_t>(c.low));
    UNROLL for (size_t p = 0; p < kPixels; ++p) {
        int32x4_t v[4];  // the instruction rounds halves up
        UNROLL for (size_t b = 0; b < 4; ++b) v[b] = vrshlq_s32(acc[p][b], shift[b]);
        const int16x8_t first = vqaddq_s16(narrow(v[0], v[1]), zero), second = vqaddq_s16(narrow(v[2], v[3]), zero);
        const int8x16_t all = vmaxq_s8(vcombine_s8(vqmovn_s16(first), vqmovn_s16(second)), low);
        int8_t out[kBlock];
        int8_t* const at = static_cast<int8_t*>(y) + (pixel + p) * outputs + o;
        vst1q_s8(kAll ? at : out, all);
        if (!kAll) std::memcpy(at, out, outputs - o);
    }
}

// -------------------------------------------------------------------------------------------------------- NEON

#if defined(__aarch64__)
constexpr size_t kNeonPixels = 4;
#else
constexpr size_t kNeonPixels = 2;  // half as many registers
#endif

bool pack_ones(Arena& arena, const int8_t* weight, const int32_t* bias, int32_t zero_in, Pointwise& to) {
    return pack<int16_t, 1>(arena, weight, bias, zero_in, to);
}

size_t no_scratch(const Pointwise&) { return 0; }

// One of four inputs of each pixel.
template <size_t kPixels, int kLane>
INLINE void multiply(int32x4_t (&acc)[kPixels][4], const int16_t* w, const int16x4_t (&x)[kPixels]) {
    for (size_t b = 0; b < 4; ++b) {
        const int16x4_t weights = vld1_s16(w + kLane * kBlock + 4 * static_cast<int32_t>(b));
        for (size_t p = 0; p < kPixels; ++p) acc[p][b] = vmlal_lane_s16(acc[p][b], weights, x[p], kLane);
    }
}

template <size_t kPixels>
INLINE void multiply4(int32x4_t (&acc)[kPixels][4], const int16_t* w, const int16x4_t (&x)[kPixels]) {
    multiply<kPixels, 0>(acc, w, x);
    multiply<kPixels, 1>(acc, w, x);
    multiply<kPixels, 2>(acc, w, x);
    multiply<kPixels, 3>(acc, w, x);
}

template <size_t kPixels, bool kRaw, bool kAll>
void tile_neon(const Pointwise& c, size_t o, const int8_t* x, void* y, size_t pixel) {
    const size_t inputs = count(c.inputs);
    const auto* w = static_cast<const int16_t*>(c.weight) + o * inputs;
    int32x4_t acc[kPixels][4];
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t b = 0; b < 4; ++b) acc[p][b] = vld1q_s32(c.bias + o + 4 * b);
    size_t i = 0;
    for (; i + 8 <= inputs; i += 8, w += 8 * kBlock) {
        int16x4_t low[kPixels], high[kPixels];
        for (size_t p = 0; p < kPixels; ++p) {
            const int16x8_t wide = vmovl_s8(vld1_s8(x + p * inputs + i));
            low[p] = vget_low_s16(wide);
            high[p] = vget_high_s16(wide);
        }
        multiply4(acc, w, low);
        multiply4(acc, w + 4 * kBlock, high);
    }
    for (; i < inputs; ++i, w += kBlock)
        for (size_t b = 0; b < 4; ++b)
            for (size_t p = 0; p < kPixels; ++p)
                acc[p][b] = vmlal_n_s16(acc[p][b], vld1_s16(w + 4 * b), x[p * inputs + i]);
    store<kRaw, kAll>(c, acc, o, y, pixel);
}

template <bool kRaw, bool kAll>
void column_neon(const Pointwise& c, size_t o, const int8_t* x, size_t pixels, void* y) {
    const size_t inputs = count(c.inputs);
    size_t p = 0;
    for (; p + kNeonPixels <= pixels; p += kNeonPixels)
        tile_neon<kNeonPixels, kRaw, kAll>(c, o, x + p * inputs, y, p);
    for (; p < pixels; ++p) tile_neon<1, kRaw, kAll>(c, o, x + p * inputs, y, p);
}

template <bool kRaw>
void run_neon(const Pointwise& c, const int8_t* x, size_t pixels, void* y) {
    const size_t outputs = count(c.outputs);
    for (size_t o = 0; o < outputs; o += kBlock)
        (o + kBlock <= outputs ? column_neon<kRaw, true> : column_neon<kRaw, false>)(c, o, x, pixels, y);
}

void pointwise_neon(const Pointwise& c, const int8_t* x, size_t pixels, int8_t* y, void*) {
    run_neon<false>(c, x, pixels, y);
}

void accumulate_neon(const Pointwise& c, const int8_t* x, size_t pixels, int32_t* y, void*) {
    run_neon<true>(c, x, pixels, y);
}

INLINE int64x2_t sum2(const Term* terms, size_t n_terms, const int64_t* base, size_t at) {
    int64x2_t sum = vld1q_s64(base + at);
    for (size_t t = 0; t < n_terms; ++t)
        sum = vmlal_s32(sum, vld1_s32(terms[t].acc + at), vld1_s32(terms[t].scale + at));
    return sum;
}

void rows_neon(const Term* terms, size_t n_terms, const int64_t* base, size_t n, int32_t last, uint8_t* y) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint16x4_t half[2];
        for (size_t h = 0; h < 2; ++h) {
            const size_t at = i + 4 * h;
            const uint32x4_t shifted = vcombine_u32(vqshrun_n_s64(sum2(terms, n_terms, base, at), 16),
                                                    vqshrun_n_s64(sum2(terms, n_terms, base, at + 2), 16));
            half[h] = vmovn_u32(vminq_u32(shifted, vdupq_n_u32(static_cast<uint32_t>(last))));
        }
        vst1_u8(y + i, vmovn_u16(vcombine_u16(half[0], half[1])));
    }
    rows_from(i, terms, n_terms, base, n, last, y);
}

// 8 * kVectors channels of one pixel, of the columns begin .. end - 1 of the kernel.
template <size_t kVectors>
INLINE void depthwise_channels(const Depthwise& c, const int8_t* const* rows, int32_t x0, int32_t column,
                               int32_t begin, int32_t end, size_t at, int8_t* y) {
    const size_t channels = count(c.channels);
    const int8x8_t zero_in = vdup_n_s8(static_cast<int8_t>(c.zero_in));
    int32x4_t acc[kVectors][2];
    for (size_t v = 0; v < kVectors; ++v)
        for (size_t h = 0; h < 2; ++h) acc[v][h] = vld1q_s32(c.bias + at + 8 * v + 4 * h);
    for (int32_t dy = 0; dy < c.kernel; ++dy) {
        if (rows[dy] == nullptr) continue;
        const int8_t* x = rows[dy] + count(column + begin - c.kernel / 2 - x0) * channels + at;
        const int16_t* w = c.weight + count(dy * c.kernel + begin) * channels + at;
        for (int32_t dx = begin; dx < end; ++dx, x += channels, w += channels) {
            for (size_t v = 0; v < kVectors; ++v) {
                const int16x8_t value = vsubl_s8(vld1_s8(x + 8 * v), zero_in), weight = vld1q_s16(w + 8 * v);
                acc[v][0] = vmlal_s16(acc[v][0], vget_low_s16(value), vget_low_s16(weight));
                acc[v][1] = vmlal_s16(acc[v][1], vget_high_s16(value), vget_high_s16(weight));
            }
        }
    }
    for (size_t v = 0; v < kVectors; ++v) {
        const int32_t* shift = c.shift + at + 8 * v;
        const int8x8_t out = vqmovn_s16(narrow(scaled(acc[v][0], shift, c.zero), scaled(acc[v][1], shift + 4, c.zero)));
        vst1_s8(y + at + 8 * v, vmax_s8(out, vdup_n_s8(static_cast<int8_t>(c.low))));
    }
}

bool pack_nothing(Arena&, Depthwise&) { return true; }

void depthwise_neon(const Depthwise& c, const int8_t* const* rows, int32_t n_rows, const Span& span, int8_t* y) {
    const size_t channels = count(c.channels);
    const int32_t half = c.kernel / 2;
    for (; n_rows > 0; --n_rows, ++rows) {
        for (int32_t column = span.first; column < span.end; ++column, y += channels) {
            const int32_t from = std::max(0, span.x0 + half - column), to = std::min(c.kernel, span.x1 + half - column);
            size_t at = 0;
            for (; at + 32 <= channels; at += 32) depthwise_channels<4>(c, rows, span.x0, column, from, to, at, y);
            for (; at + 8 <= channels; at += 8) depthwise_channels<1>(c, rows, span.x0, column, from, to, at, y);
            for (; at < channels; ++at) y[at] = depthwise_one(c, rows, span.x0, column, from, to, at);
        }
    }
}

void add_neon(const int8_t* a, const int8_t* b, int32_t offset, int32_t low, size_t n, int8_t* y) {
    const int16x8_t offsets = vdupq_n_s16(static_cast<int16_t>(offset));
    const int8x8_t lows = vdup_n_s8(static_cast<int8_t>(low));
    size_t i = 0;
    // The two sums that there are in shipped models: saturation is all that there is to them.
    for (; offset == 0 && i + 16 <= n; i += 16)
        vst1q_s8(y + i, vmaxq_s8(vqaddq_s8(vld1q_s8(a + i), vld1q_s8(b + i)), vcombine_s8(lows, lows)));
    for (; offset == -128 && low == -128 && i + 16 <= n; i += 16) {
        const int8x16_t va = vld1q_s8(a + i), vb = vld1q_s8(b + i);
        const uint8x16_t sum = vcombine_u8(vqmovun_s16(vaddl_s8(vget_low_s8(va), vget_low_s8(vb))),
                                           vqmovun_s16(vaddl_s8(vget_high_s8(va), vget_high_s8(vb))));
        vst1q_s8(y + i, vreinterpretq_s8_u8(veorq_u8(sum, vdupq_n_u8(128))));
    }
    for (; i + 8 <= n; i += 8) {
        const int16x8_t sum = vaddq_s16(vaddl_s8(vld1_s8(a + i), vld1_s8(b + i)), offsets);
        vst1_s8(y + i, vmax_s8(vqmovn_s16(sum), lows));
    }
    for (; i < n; ++i) y[i] = static_cast<int8_t>(std::clamp(a[i] + b[i] + offset, low, 127));
}

// ---------------------------------------------------------------------------------------------- the post-filter

// 256 times the luma fits 16 bits, and with its offset 16 bits without a sign.
void luma_neon(const int8_t* rgb, int32_t cells, LumaRow& y) {
    const auto luma = [](int8x8_t r, int8x8_t g, int8x8_t b) {
        int16x8_t sum = vmull_s8(r, vdup_n_s8(54));
        sum = vmlal_s8(vmlal_s8(sum, g, vdup_n_s8(127)), g, vdup_n_s8(183 - 127));
        const uint16x8_t all = vreinterpretq_u16_s16(vmlal_s8(sum, b, vdup_n_s8(19)));
        return vreinterpretq_s16_u16(vshrq_n_u16(vaddq_u16(all, vdupq_n_u16(128 * 256 + 32)), 6));
    };
    for (int32_t k = 0; k < cells; k += 8, rgb += 48) {
        const int8x16x3_t p = vld3q_s8(rgb);
        const int16x8x2_t split =
            vuzpq_s16(luma(vget_low_s8(p.val[0]), vget_low_s8(p.val[1]), vget_low_s8(p.val[2])),
                      luma(vget_high_s8(p.val[0]), vget_high_s8(p.val[1]), vget_high_s8(p.val[2])));
        vst1q_s16(y.columns[0] + k, split.val[0]);
        vst1q_s16(y.columns[1] + k, split.val[1]);
    }
}

// acc + a * b, of eight values.
INLINE int32x4x2_t multiply_add(int32x4x2_t acc, int16x8_t a, int16x8_t b) {
    return {{vmlal_s16(acc.val[0], vget_low_s16(a), vget_low_s16(b)),
             vmlal_s16(acc.val[1], vget_high_s16(a), vget_high_s16(b))}};
}

template <typename At>
INLINE int32x4_t smooth(At at) {
    const int32x4_t twice = vaddq_s32(vaddq_s32(at(1), at(3)), at(2));
    return vaddq_s32(vaddq_s32(vaddq_s32(at(0), at(4)), at(2)), vaddq_s32(twice, twice));
}

void tensors_neon(const LumaRow* const* rows, int32_t cells, TensorRow& y) {
    const auto &above = rows[0]->columns, &upper = rows[1]->columns, &lower = rows[2]->columns,
               &below = rows[3]->columns;
    int32_t products[3][kFilterCells + 16];
    for (int32_t k = 0; k < cells + 4; k += 8) {
        const int32_t m = k + 1;
        const auto difference = [](const int16_t* a, const int16_t* b) { return vsubq_s16(vld1q_s16(a), vld1q_s16(b)); };
        const int16x8_t across[4] = {
            difference(upper[1] + m, upper[1] + m - 1), difference(upper[0] + m + 1, upper[0] + m),
            difference(lower[1] + m, lower[1] + m - 1), difference(lower[0] + m + 1, lower[0] + m)};
        const int16x8_t down[4] = {difference(lower[0] + m, above[0] + m), difference(lower[1] + m, above[1] + m),
                                   difference(below[0] + m, upper[0] + m), difference(below[1] + m, upper[1] + m)};
        const int32x4x2_t none = {{vdupq_n_s32(0), vdupq_n_s32(0)}};
        int32x4x2_t sums[3] = {none, none, none};
        UNROLL for (size_t i = 0; i < 4; ++i) {
            sums[0] = multiply_add(sums[0], across[i], across[i]);
            sums[1] = multiply_add(sums[1], across[i], down[i]);
            sums[2] = multiply_add(sums[2], down[i], down[i]);
        }
        UNROLL for (size_t t = 0; t < 3; ++t) {
            vst1q_s32(products[t] + k, sums[t].val[0]);
            vst1q_s32(products[t] + k + 4, sums[t].val[1]);
        }
    }
    for (size_t t = 0; t < 3; ++t)
        for (int32_t k = 0; k < cells; k += 4)
            vst1q_s32(y.products[t] + k, smooth([p = products[t] + k](int32_t i) { return vld1q_s32(p + i); }));
}

// a where the mask is set, or b.
INLINE int32x4_t either(uint32x4_t mask, int32x4_t a, int32x4_t b) { return vbslq_s32(mask, a, b); }

// The offsets of the weights of four cells' classes.
INLINE int32x4_t weights_of(int32x4_t across, int32x4_t both, int32x4_t down) {
    const auto ints = [](int32_t v) { return vdupq_n_s32(v); };
    const int32x4_t energy = vshrq_n_s32(vaddq_s32(across, down), 8);
    const int32x4_t u = vsubq_s32(across, down), v = vaddq_s32(both, both);
    const int32x4_t x = vshrq_n_s32(vabsq_s32(u), 8), y = vshrq_n_s32(vabsq_s32(v), 8);
    const int32x4_t more = vmaxq_s32(x, y), less = vminq_s32(x, y);
    const int32x4_t length = vmaxq_s32(more, vshrq_n_s32(vmulq_n_s32(vaddq_s32(x, y), 181), 8));
    // Comparisons give -1 where they hold.
    const auto holds = [](uint32x4_t mask) { return vreinterpretq_s32_u32(mask); };
    int32x4_t d = vnegq_s32(holds(vcgtq_s32(vshlq_n_s32(less, 8), vmulq_n_s32(more, 106))));
    d = either(vcgeq_s32(x, y), d, vsubq_s32(ints(3), d));
    d = either(vcgeq_s32(u, ints(0)), d, vsubq_s32(ints(7), d));
    d = either(vcgeq_s32(v, ints(0)), d, vsubq_s32(ints(15), d));
    int32x4_t steps = ints(0);
    for (const int32_t bound : {182, 729, 2916, 11664, 46656})
        steps = vaddq_s32(steps, holds(vcgeq_s32(energy, ints(bound))));
    steps = vshlq_n_s32(steps, 2);
    const int32x4_t scaled = vshlq_n_s32(length, 8);
    for (const int32_t bound : {120, 205, 246})
        steps = vaddq_s32(steps, holds(vcgeq_s32(scaled, vmulq_n_s32(energy, bound))));
    return vshlq_n_s32(vsubq_s32(d, vshlq_n_s32(steps, 4)), 4);  // kFilterStride to a class
}

// Weights 4 * i .. 4 * i + 3 of eight cells.
template <int kCell>
INLINE void load_weights(const int16_t* filters, const int32_t* offsets, int16x8x4_t (&weights)[3]) {
    const int16_t* from = filters + offsets[kCell];
    UNROLL for (size_t i = 0; i < 3; ++i) weights[i] = vld4q_lane_s16(from + 4 * i, weights[i], kCell);
    if constexpr (kCell < 7) load_weights<kCell + 1>(filters, offsets, weights);
}

void filter_neon(const int16_t* filters, const TensorRow* const* tensors, const LumaRow* const* rows, int32_t cells,
                 ChangeRow* y) {
    int32_t offsets[kFilterCells + 8];
    for (int32_t k = 0; k < cells; k += 4) {
        const auto sum = [=](int32_t t) { return smooth([=](int32_t i) { return vld1q_s32(tensors[i]->products[t] + k); }); };
        vst1q_s32(offsets + k, weights_of(sum(0), sum(1), sum(2)));
    }
    for (int32_t k = cells; k % 8 != 0; ++k) offsets[k] = 0;
    for (int32_t k = 0; k < cells; k += 8) {
        int16x8x4_t weights[3] = {};
        load_weights<0>(filters, offsets + k, weights);
        for (int32_t row = 0; row < 2; ++row) {
            int16x8_t change[2];
            UNROLL for (int32_t odd = 0; odd < 2; ++odd) {
                static constexpr int32_t kDown[12] = {0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2};
                static constexpr int32_t kRight[12] = {1, 2, -2, -1, 0, 1, 2, -2, -1, 0, 1, 2};
                const LumaRow* const* centre = rows + 2 + row;
                const int32_t column = kFilterReach + odd;
                const auto at = [=](int32_t down, int32_t right) {
                    return vld1q_s16(centre[down]->columns[(column + right) % 2] + (column + right) / 2 + k);
                };
                const int16x8_t twice = vshlq_n_s16(at(0, 0), 1);
                int32x4x2_t sum = {{vdupq_n_s32(512), vdupq_n_s32(512)}};
                UNROLL for (size_t i = 0; i < 12; ++i)
                    sum = multiply_add(sum, weights[i / 4].val[i % 4],
                                       vsubq_s16(vaddq_s16(at(kDown[i], kRight[i]), at(-kDown[i], -kRight[i])), twice));
                change[odd] = vcombine_s16(vshrn_n_s32(sum.val[0], 10), vshrn_n_s32(sum.val[1], 10));
            }
            const uint8x8x2_t plus = {{vqmovun_s16(change[0]), vqmovun_s16(change[1])}};
            const uint8x8x2_t minus = {{vqmovun_s16(vnegq_s16(change[0])), vqmovun_s16(vnegq_s16(change[1]))}};
            vst2_u8(y[row].plus + 2 * k, plus);
            vst2_u8(y[row].minus + 2 * k, minus);
        }
    }
}

void show_neon(const int8_t* rgb, const ChangeRow& change, size_t pixels, uint8_t* y) {
    size_t i = 0;
    for (; i + 16 <= pixels; i += 16) {
        const int8x16x3_t from = vld3q_s8(rgb + 3 * i);
        const uint8x16_t plus = vld1q_u8(change.plus + i), minus = vld1q_u8(change.minus + i);
        uint8x16x3_t to;
        UNROLL for (size_t c = 0; c < 3; ++c) {
            const uint8x16_t v = veorq_u8(vreinterpretq_u8_s8(from.val[c]), vdupq_n_u8(128));
            to.val[c] = vqsubq_u8(vqaddq_u8(v, plus), minus);
        }
        vst3q_u8(y + 3 * i, to);
    }
    show_from(i, rgb, change, pixels, y);
}

// ------------------------------------------------------------------------------------------------- dot product

#if POCKETLIC_DOT

bool has_dot() {
#if defined(__ARM_FEATURE_DOTPROD)
    return true;
#elif defined(__linux__)
    return (getauxval(AT_HWCAP) >> 20 & 1) != 0;  // HWCAP_ASIMDDP
#else
    return false;
#endif
}

bool pack_quads(Arena& arena, const int8_t* weight, const int32_t* bias, int32_t zero_in, Pointwise& to) {
    return pack<int8_t, 4>(arena, weight, bias, zero_in, to);
}

constexpr size_t kChunk = 60;  // pixels whose inputs are padded at a time

// Whole groups of kGroup inputs: the others are 0.
template <size_t kGroup>
size_t scratch_padded(const Pointwise& c) {
    return kChunk * round_up(count(c.inputs), kGroup);
}

// Hands chunks of pixels, padded, to run(x, n, y).
template <size_t kGroup, typename T, typename Run>
INLINE void chunks(const Pointwise& c, const int8_t* x, size_t pixels, T* y, void* scratch, Run run) {
    const size_t inputs = count(c.inputs), padded = round_up(inputs, kGroup);
    if (inputs == padded) return run(x, pixels, y);
    auto* to = static_cast<int8_t*>(scratch);
    for (size_t n = 0; pixels > 0; pixels -= n, x += n * inputs, y += n * count(c.outputs)) {
        n = std::min(kChunk, pixels);
        std::memset(to, 0, n * padded);
        for (size_t p = 0; p < n; ++p) std::memcpy(to + p * padded, x + p * inputs, inputs);
        run(to, n, y);
    }
}

// The four inputs kLane of each pixel.
template <int kLane, size_t kPixels>
DOT INLINE void dot_lane(int32x4_t (&acc)[kPixels][4], const int8_t* w, const int8x16_t (&x)[kPixels]) {
    int8x16_t weights[4];
    UNROLL for (size_t b = 0; b < 4; ++b) weights[b] = vld1q_s8(w + kLane * 4 * kBlock + 16 * b);
    UNROLL for (size_t p = 0; p < kPixels; ++p)
        UNROLL for (size_t b = 0; b < 4; ++b) acc[p][b] = vdotq_laneq_s32(acc[p][b], weights[b], x[p], kLane);
}

// x: pixels of `groups` times four inputs
template <size_t kPixels, bool kRaw, bool kAll>
DOT void tile_dot(const Pointwise& c, size_t o, const int8_t* x, size_t groups, void* y, size_t pixel) {
    const auto* w = static_cast<const int8_t*>(c.weight) + o * groups * 4;
    int32x4_t acc[kPixels][4];
    UNROLL for (size_t b = 0; b < 4; ++b) {
        const int32x4_t bias = vld1q_s32(c.bias + o + 4 * b);
        UNROLL for (size_t p = 0; p < kPixels; ++p) acc[p][b] = bias;
    }
    size_t g = 0;
    for (; g + 4 <= groups; g += 4, w += 16 * kBlock) {
        int8x16_t v[kPixels];
        UNROLL for (size_t p = 0; p < kPixels; ++p) v[p] = vld1q_s8(x + (p * groups + g) * 4);
        dot_lane<0>(acc, w, v);
        dot_lane<1>(acc, w, v);
        dot_lane<2>(acc, w, v);
        dot_lane<3>(acc, w, v);
    }
    for (; g < groups; ++g, w += 4 * kBlock) {
        int8x16_t v[kPixels];
        UNROLL for (size_t p = 0; p < kPixels; ++p)
            v[p] = vreinterpretq_s8_s32(vdupq_n_s32(load32(x + (p * groups + g) * 4)));
        dot_lane<0>(acc, w, v);
    }
    store<kRaw, kAll>(c, acc, o, y, pixel);
}

// A block of outputs of all pixels: the last tile computes some once more, rather than one by one.
template <bool kRaw, bool kAll>
void column_dot(const Pointwise& c, size_t o, const int8_t* x, size_t pixels, void* y) {
    constexpr size_t kPixels = 4;
    const size_t groups = round_up(count(c.inputs), 4) / 4;
    const auto at = [&](size_t p) { return x + p * groups * 4; };
    size_t p = 0;
    for (; p + kPixels <= pixels; p += kPixels) tile_dot<kPixels, kRaw, kAll>(c, o, at(p), groups, y, p);
    if (p < pixels && pixels > kPixels)
        tile_dot<kPixels, kRaw, kAll>(c, o, at(pixels - kPixels), groups, y, pixels - kPixels);
    else
        for (; p < pixels; ++p) tile_dot<1, kRaw, kAll>(c, o, at(p), groups, y, p);
}

template <bool kRaw, typename T>
void run_dot(const Pointwise& c, const int8_t* x, size_t pixels, T* y, void* scratch) {
    chunks<4>(c, x, pixels, y, scratch, [&c](const int8_t* from, size_t n, T* to) {
        const size_t outputs = count(c.outputs);
        for (size_t o = 0; o < outputs; o += kBlock)
            (o + kBlock <= outputs ? column_dot<kRaw, true> : column_dot<kRaw, false>)(c, o, from, n, to);
    });
}

void pointwise_dot(const Pointwise& c, const int8_t* x, size_t pixels, int8_t* y, void* scratch) {
    run_dot<false>(c, x, pixels, y, scratch);
}

void accumulate_dot(const Pointwise& c, const int8_t* x, size_t pixels, int32_t* y, void* scratch) {
    run_dot<true>(c, x, pixels, y, scratch);
}

// Depthwise convolutions: four rows of inputs are interleaved, so that a dot product takes four taps of a column; with
// two such quads, four rows of outputs are made. Kernels of 1x1 and 3x3 are ones of 5x5 with zeros around. Planes are
// [column][4 channels][4 rows].

constexpr int32_t kStrip = 32;  // columns of outputs whose planes are made at a time

struct Quads {
    const int8_t* weight;  // [4 channels][dx][row of outputs][first or second quad][4][4 rows]
    const int32_t* bias;   // with the correction for zero_in
};

bool pack_depthwise_dot(Arena& arena, Depthwise& c) {
    const size_t channels = count(c.channels);
    if (c.kernel > 5 || channels % 8 != 0) return true;
    auto* quads = arena.make<Quads>(1);
    auto* w = arena.make<int8_t>(uint64_t{channels} * 160);
    auto* b = arena.make<int32_t>(channels);
    if (quads == nullptr || w == nullptr || b == nullptr) return false;
    *quads = {w, b};
    const int32_t edge = (5 - c.kernel) / 2;
    for (size_t channel = 0; channel < channels; ++channel) {
        int64_t sum = 0;
        for (int32_t dx = 0; dx < c.kernel; ++dx) {
            for (int32_t dy = 0; dy < c.kernel; ++dy) {
                const int16_t value = c.weight[count(dy * c.kernel + dx) * channels + channel];
                sum += value;
                for (int32_t row = 0; row < 4; ++row) {
                    const int32_t input = row + dy + edge;  // of the eight that the quads hold
                    const size_t to = (count(dx + edge) * 4 + count(row)) * 2 + count(input / 4);
                    w[(channel / 4 * 40 + to) * 16 + channel % 4 * 4 + count(input % 4)] = static_cast<int8_t>(value);
                }
            }
        }
        b[channel] = static_cast<int32_t>(static_cast<uint32_t>(c.bias[channel] - c.zero_in * sum));
    }
    c.packed = quads;
    return true;
}

using Planes = int8_t[2][static_cast<size_t>(kStrip + 8) * 16];  // of eight channels

// Four columns of four rows, of which `rows` rows and `columns` columns are stored.
DOT void depthwise_tile(const Depthwise& c, size_t channel, const int8_t* first, const int8_t* second, size_t rows,
                        size_t columns, int8_t* y, size_t stride) {
    const auto& quads = *static_cast<const Quads*>(c.packed);
    const int8_t* w = quads.weight + channel * 160;
    const int32x4_t bias = vld1q_s32(quads.bias + channel);
    int32x4_t acc[4][4];  // [column][row]
    UNROLL for (size_t p = 0; p < 4; ++p)
        UNROLL for (size_t row = 0; row < 4; ++row) acc[p][row] = bias;
    UNROLL for (size_t dx = 0; dx < 5; ++dx) {
        int8x16_t a[4], b[4];
        UNROLL for (size_t p = 0; p < 4; ++p) {
            a[p] = vld1q_s8(first + (dx + p) * 16);
            b[p] = vld1q_s8(second + (dx + p) * 16);
        }
        UNROLL for (size_t row = 0; row < 4; ++row, w += 32) {
            const int8x16_t wa = vld1q_s8(w), wb = vld1q_s8(w + 16);
            UNROLL for (size_t p = 0; p < 4; ++p) acc[p][row] = vdotq_s32(vdotq_s32(acc[p][row], a[p], wa), b[p], wb);
        }
    }
    const int32x4_t shift = vnegq_s32(vld1q_s32(c.shift + channel)), zero = vdupq_n_s32(c.zero);
    const int8x16_t low = vdupq_n_s8(static_cast<int8_t>(c.low));
    UNROLL for (size_t row = 0; row < 4; ++row) {
        if (row >= rows) break;
        int32x4_t v[4];
        UNROLL for (size_t p = 0; p < 4; ++p) v[p] = vaddq_s32(vrshlq_s32(acc[p][row], shift), zero);
        const int32x4_t out = vreinterpretq_s32_s8(
            vmaxq_s8(vcombine_s8(vqmovn_s16(narrow(v[0], v[1])), vqmovn_s16(narrow(v[2], v[3]))), low));
        auto* to = y + row * stride;
        const size_t channels = count(c.channels);
        vst1q_lane_s32(reinterpret_cast<int32_t*>(to), out, 0);
        if (columns > 1) vst1q_lane_s32(reinterpret_cast<int32_t*>(to + channels), out, 1);
        if (columns > 2) vst1q_lane_s32(reinterpret_cast<int32_t*>(to + 2 * channels), out, 2);
        if (columns > 3) vst1q_lane_s32(reinterpret_cast<int32_t*>(to + 3 * channels), out, 3);
    }
}

// Columns first .. first + n - 1 of four rows; what is null or outside 0 .. width - 1 is `pad`.
void interleave(const int8_t* const* rows, size_t channels, int32_t first, int32_t n, int32_t width, int8_t pad,
                Planes& planes) {
    const int8x8_t pads = vdup_n_s8(pad);
    for (int32_t x = 0; x < n; ++x) {
        const int32_t column = first + x;
        int8x8_t row[4];
        UNROLL for (size_t i = 0; i < 4; ++i)
            row[i] = rows[i] != nullptr && column >= 0 && column < width ? vld1_s8(rows[i] + count(column) * channels)
                                                                         : pads;
        const int8x8x2_t upper = vzip_s8(row[0], row[1]), lower = vzip_s8(row[2], row[3]);
        const int16x4x2_t low = vzip_s16(vreinterpret_s16_s8(upper.val[0]), vreinterpret_s16_s8(lower.val[0]));
        const int16x4x2_t high = vzip_s16(vreinterpret_s16_s8(upper.val[1]), vreinterpret_s16_s8(lower.val[1]));
        vst1q_s8(planes[0] + 16 * x, vreinterpretq_s8_s16(vcombine_s16(low.val[0], low.val[1])));
        vst1q_s8(planes[1] + 16 * x, vreinterpretq_s8_s16(vcombine_s16(high.val[0], high.val[1])));
    }
}

void depthwise_dot(const Depthwise& c, const int8_t* const* rows, int32_t n, const Span& span, int8_t* y) {
    if (c.packed == nullptr) return depthwise_neon(c, rows, n, span, y);
    const size_t channels = count(c.channels), stride = count(span.end - span.first) * channels;
    Planes quads[2];
    for (int32_t from = span.first; from < span.end; from += kStrip) {
        const int32_t columns = std::min(kStrip, span.end - from);
        for (size_t channel = 0; channel < channels; channel += 8) {
            const auto fill = [&](int32_t quad, Planes& planes) {
                const int8_t* four[4];
                for (int32_t i = 0; i < 4; ++i) {
                    const int32_t row = 4 * quad + i - 2 + c.kernel / 2;
                    const bool given = row >= 0 && row < n + c.kernel - 1 && rows[row] != nullptr;
                    four[i] = given ? rows[row] + channel : nullptr;
                }
                interleave(four, channels, from - 2 - span.x0, static_cast<int32_t>(round_up(count(columns), 4)) + 4,
                           span.x1 - span.x0, static_cast<int8_t>(c.zero_in), planes);
            };
            fill(0, quads[0]);
            for (int32_t row = 0; row < n; row += 4) {
                const Planes &above = quads[row / 4 % 2], &below = quads[1 - row / 4 % 2];
                fill(row / 4 + 1, quads[1 - row / 4 % 2]);
                for (int32_t x = 0; x < columns; x += 4)
                    for (size_t half = 0; half < 2; ++half)
                        depthwise_tile(c, channel + 4 * half, above[half] + 16 * x, below[half] + 16 * x,
                                       count(std::min(n - row, 4)), count(std::min(columns - x, 4)),
                                       y + count(row) * stride + count(from - span.first + x) * channels + channel +
                                           4 * half,
                                       stride);
            }
        }
    }
}

#endif

// --------------------------------------------------------------------------------------------- matrix products

#if POCKETLIC_I8MM

bool has_i8mm() {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    return true;
#elif defined(__linux__)
    return has_dot() && (getauxval(AT_HWCAP2) >> 13 & 1) != 0;  // HWCAP2_I8MM
#else
    return false;
#endif
}

bool pack_eights(Arena& arena, const int8_t* weight, const int32_t* bias, int32_t zero_in, Pointwise& to) {
    return pack<int8_t, 8>(arena, weight, bias, zero_in, to);
}

// Pairs of pixels by pairs of outputs; where the last pixel has no other, it is its own. x: pixels of `groups` times
// eight inputs.
template <size_t kPixels, bool kRaw, bool kAll>
I8MM void tile_i8mm(const Pointwise& c, size_t o, const int8_t* x, size_t groups, void* y, size_t pixel) {
    constexpr size_t kPairs = (kPixels + 1) / 2;
    const size_t stride = groups * 8;
    const auto* w = static_cast<const int8_t*>(c.weight) + o * stride;
    int32x4_t acc[kPairs][8];
    UNROLL for (size_t b = 0; b < 8; ++b) {
        const int32x2_t bias = vld1_s32(c.bias + o + 2 * b);
        UNROLL for (size_t p = 0; p < kPairs; ++p) acc[p][b] = vcombine_s32(bias, bias);
    }
    for (size_t g = 0; g < groups; ++g, w += 8 * kBlock, x += 8) {
        int8x16_t v[kPairs];
        UNROLL for (size_t p = 0; p < kPairs; ++p)
            v[p] = vcombine_s8(vld1_s8(x + 2 * p * stride), vld1_s8(x + std::min(2 * p + 1, kPixels - 1) * stride));
        UNROLL for (size_t b = 0; b < 8; ++b) {
            const int8x16_t weights = vld1q_s8(w + 16 * b);
            UNROLL for (size_t p = 0; p < kPairs; ++p) acc[p][b] = vmmlaq_s32(acc[p][b], v[p], weights);
        }
    }
    int32x4_t of_pixel[kPixels][4];
    UNROLL for (size_t p = 0; p < kPixels; ++p)
        UNROLL for (size_t b = 0; b < 4; ++b) {
            const int32x4_t first = acc[p / 2][2 * b], second = acc[p / 2][2 * b + 1];
            of_pixel[p][b] = p % 2 == 0 ? vcombine_s32(vget_low_s32(first), vget_low_s32(second))
                                        : vcombine_s32(vget_high_s32(first), vget_high_s32(second));
        }
    store<kRaw, kAll>(c, of_pixel, o, y, pixel);
}

template <bool kRaw, bool kAll>
void column_i8mm(const Pointwise& c, size_t o, const int8_t* x, size_t pixels, void* y) {
    constexpr size_t kPixels = 4;
    const size_t groups = round_up(count(c.inputs), 8) / 8;
    const auto at = [&](size_t p) { return x + p * groups * 8; };
    size_t p = 0;
    for (; p + kPixels <= pixels; p += kPixels) tile_i8mm<kPixels, kRaw, kAll>(c, o, at(p), groups, y, p);
    if (p < pixels && pixels > kPixels)
        tile_i8mm<kPixels, kRaw, kAll>(c, o, at(pixels - kPixels), groups, y, pixels - kPixels);
    else
        for (; p < pixels; ++p) tile_i8mm<1, kRaw, kAll>(c, o, at(p), groups, y, p);
}

template <bool kRaw, typename T>
void run_i8mm(const Pointwise& c, const int8_t* x, size_t pixels, T* y, void* scratch) {
    chunks<8>(c, x, pixels, y, scratch, [&c](const int8_t* from, size_t n, T* to) {
        const size_t outputs = count(c.outputs);
        for (size_t o = 0; o < outputs; o += kBlock)
            (o + kBlock <= outputs ? column_i8mm<kRaw, true> : column_i8mm<kRaw, false>)(c, o, from, n, to);
    });
}

void pointwise_i8mm(const Pointwise& c, const int8_t* x, size_t pixels, int8_t* y, void* scratch) {
    run_i8mm<false>(c, x, pixels, y, scratch);
}

void accumulate_i8mm(const Pointwise& c, const int8_t* x, size_t pixels, int32_t* y, void* scratch) {
    run_i8mm<true>(c, x, pixels, y, scratch);
}

#endif

}  // namespace

const Kernels kNeon = {"neon",       always,       pack_ones,      no_scratch, pointwise_neon, accumulate_neon, rows_neon,
                       pack_nothing, depthwise_neon, add_neon, nullptr, nullptr, nullptr, nullptr, luma_neon,      tensors_neon,
                       filter_neon,  show_neon};
#if POCKETLIC_DOT
const Kernels kDot = {"neon-dot",         has_dot,       pack_quads, scratch_padded<4>, pointwise_dot, accumulate_dot, rows_neon,
                      pack_depthwise_dot, depthwise_dot, add_neon, nullptr, nullptr, nullptr, nullptr, luma_neon,      tensors_neon,
                      filter_neon,        show_neon};
#endif
#if POCKETLIC_I8MM
const Kernels kI8mm = {"neon-i8mm",        has_i8mm,      pack_eights, scratch_padded<8>, pointwise_i8mm, accumulate_i8mm, rows_neon,
                       pack_depthwise_dot, depthwise_dot, add_neon, nullptr, nullptr, nullptr, nullptr, luma_neon,      tensors_neon,
                       filter_neon,  show_neon};
#endif

#if POCKETLIC_DOT

#if defined(__ARM_FEATURE_SHA2)
#define SHA2
#elif defined(__clang__)
#define SHA2 __attribute__((target("sha2")))
#else
#define SHA2 __attribute__((target("arch=armv8-a+crypto")))
#endif

bool has_sha256() {
#if defined(__ARM_FEATURE_SHA2)
    return true;
#elif defined(__linux__)
    return (getauxval(AT_HWCAP) >> 6 & 1) != 0;  // HWCAP_SHA2
#else
    return false;
#endif
}

SHA2 void sha256_processor(uint32_t (&state)[8], const uint8_t* data, size_t blocks) {
    uint32x4_t first = vld1q_u32(state), second = vld1q_u32(state + 4);
    for (; blocks > 0; --blocks, data += 64) {
        const uint32x4_t before[2] = {first, second};
        uint32x4_t w[4];
        UNROLL for (size_t i = 0; i < 4; ++i) w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
        UNROLL for (size_t i = 0; i < 16; ++i) {
            const uint32x4_t sum = vaddq_u32(w[i % 4], vld1q_u32(kSha256Constants + 4 * i)), old = first;
            first = vsha256hq_u32(first, second, sum);
            second = vsha256h2q_u32(second, old, sum);
            w[i % 4] = vsha256su1q_u32(vsha256su0q_u32(w[i % 4], w[(i + 1) % 4]), w[(i + 2) % 4], w[(i + 3) % 4]);
        }
        first = vaddq_u32(first, before[0]);
        second = vaddq_u32(second, before[1]);
    }
    vst1q_u32(state, first);
    vst1q_u32(state + 4, second);
}

#endif

}  // namespace pocketlic

#endif
