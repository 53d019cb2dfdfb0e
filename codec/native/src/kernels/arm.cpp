// Kernels for Arm processors with NEON, of 64 bits and of 32, and with the dot product of Armv8.2. portable.cpp chooses;
// "portable" is the oracle.
#include "simd.h"

#if POCKETLIC_ARM

#include <arm_neon.h>

#include <algorithm>
#include <cstring>

#if defined(__ARM_FEATURE_DOTPROD)
#define DOT
#elif defined(__clang__)
#define DOT __attribute__((target("dotprod")))
#else
#define DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

#if POCKETLIC_DOT && defined(__linux__)
#include <sys/auxv.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace pocketlic {
namespace {

bool always() { return true; }

// Four outputs of one pixel; the instruction rounds halves up.
INLINE int32x4_t scaled(int32x4_t acc, const int32_t* shift, int32_t zero) {
    return vaddq_s32(vrshlq_s32(acc, vnegq_s32(vld1q_s32(shift))), vdupq_n_s32(zero));
}

INLINE int16x8_t narrow(int32x4_t low, int32x4_t high) { return vcombine_s16(vqmovn_s32(low), vqmovn_s32(high)); }

// One pixel's block of outputs, the first n of which count.
template <bool kRaw>
INLINE void store(const Pointwise& c, const int32x4_t (&acc)[4], size_t o, void* y, size_t pixel) {
    const size_t outputs = count(c.outputs), n = std::min<size_t>(kBlock, outputs - o);
    if (kRaw) {
        int32_t out[kBlock];
        int32_t* const at = static_cast<int32_t*>(y) + pixel * outputs + o;
        for (size_t b = 0; b < 4; ++b) vst1q_s32((n == kBlock ? at : out) + 4 * b, acc[b]);
        if (n < kBlock) std::memcpy(at, out, n * sizeof *out);
        return;
    }
    int32x4_t v[4];
    for (size_t b = 0; b < 4; ++b) v[b] = scaled(acc[b], c.shift + o + 4 * b, c.zero);
    const int8x16_t all = vcombine_s8(vqmovn_s16(narrow(v[0], v[1])), vqmovn_s16(narrow(v[2], v[3])));
    int8_t out[kBlock];
    int8_t* const at = static_cast<int8_t*>(y) + pixel * outputs + o;
    vst1q_s8(n == kBlock ? at : out, vmaxq_s8(all, vdupq_n_s8(static_cast<int8_t>(c.low))));
    if (n < kBlock) std::memcpy(at, out, n);
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

template <size_t kPixels, bool kRaw>
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
    for (size_t p = 0; p < kPixels; ++p) store<kRaw>(c, acc[p], o, y, pixel + p);
}

template <bool kRaw>
void run_neon(const Pointwise& c, const int8_t* x, size_t pixels, void* y) {
    const size_t inputs = count(c.inputs), outputs = count(c.outputs);
    for (size_t o = 0; o < outputs; o += kBlock) {
        size_t p = 0;
        for (; p + kNeonPixels <= pixels; p += kNeonPixels) tile_neon<kNeonPixels, kRaw>(c, o, x + p * inputs, y, p);
        for (; p < pixels; ++p) tile_neon<1, kRaw>(c, o, x + p * inputs, y, p);
    }
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
    for (; i + 8 <= n; i += 8) {
        const int16x8_t sum = vaddq_s16(vaddl_s8(vld1_s8(a + i), vld1_s8(b + i)), offsets);
        vst1_s8(y + i, vmax_s8(vqmovn_s16(sum), lows));
    }
    for (; i < n; ++i) y[i] = static_cast<int8_t>(std::clamp(a[i] + b[i] + offset, low, 127));
}

// ------------------------------------------------------------------------------------------------- dot product

#if POCKETLIC_DOT

constexpr size_t kChunk = 48;  // pixels whose inputs are padded at a time
constexpr size_t kDotPixels = 6;

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

size_t scratch_dot(const Pointwise& c) { return kChunk * round_up(count(c.inputs), 4); }

// x: pixels of `groups` times four inputs
template <size_t kPixels, bool kRaw>
DOT void tile_dot(const Pointwise& c, size_t o, const int8_t* x, size_t groups, void* y, size_t pixel) {
    const auto* w = static_cast<const int8_t*>(c.weight) + o * groups * 4;
    int32x4_t acc[kPixels][4];
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t b = 0; b < 4; ++b) acc[p][b] = vld1q_s32(c.bias + o + 4 * b);
    for (size_t g = 0; g < groups; ++g, w += 4 * kBlock) {
        int8x16_t weights[4];
        for (size_t b = 0; b < 4; ++b) weights[b] = vld1q_s8(w + 16 * b);
        for (size_t p = 0; p < kPixels; ++p) {
            const int8x16_t v = vreinterpretq_s8_s32(vdupq_n_s32(load32(x + (p * groups + g) * 4)));
            for (size_t b = 0; b < 4; ++b) acc[p][b] = vdotq_s32(acc[p][b], weights[b], v);
        }
    }
    for (size_t p = 0; p < kPixels; ++p) store<kRaw>(c, acc[p], o, y, pixel + p);
}

template <bool kRaw>
void run_dot(const Pointwise& c, const int8_t* x, size_t pixels, void* y, void* scratch) {
    const size_t inputs = count(c.inputs), groups = round_up(inputs, 4) / 4, outputs = count(c.outputs);
    for (size_t first = 0; first < pixels; first += kChunk) {
        const size_t n = std::min(kChunk, pixels - first);
        const int8_t* from = x + first * inputs;
        if (inputs % 4 != 0) {
            auto* to = static_cast<int8_t*>(scratch);
            std::memset(to, 0, n * groups * 4);
            for (size_t p = 0; p < n; ++p) std::memcpy(to + p * groups * 4, from + p * inputs, inputs);
            from = to;
        }
        for (size_t o = 0; o < outputs; o += kBlock) {
            size_t p = 0;
            for (; p + kDotPixels <= n; p += kDotPixels)
                tile_dot<kDotPixels, kRaw>(c, o, from + p * groups * 4, groups, y, first + p);
            for (; p < n; ++p) tile_dot<1, kRaw>(c, o, from + p * groups * 4, groups, y, first + p);
        }
    }
}

void pointwise_dot(const Pointwise& c, const int8_t* x, size_t pixels, int8_t* y, void* scratch) {
    run_dot<false>(c, x, pixels, y, scratch);
}

void accumulate_dot(const Pointwise& c, const int8_t* x, size_t pixels, int32_t* y, void* scratch) {
    run_dot<true>(c, x, pixels, y, scratch);
}

#endif

}  // namespace

const Kernels kNeon = {"neon",          always,    pack_ones,      no_scratch, pointwise_neon,
                       accumulate_neon, rows_neon, pack_nothing, depthwise_neon, add_neon,
    luma_portable, tensors_portable, filter_portable, show_portable};
#if POCKETLIC_DOT
const Kernels kDot = {"neon-dot",     has_dot,   pack_quads,     scratch_dot, pointwise_dot,
                      accumulate_dot, rows_neon, pack_nothing, depthwise_neon, add_neon,
    luma_portable, tensors_portable, filter_portable, show_portable};
#endif

}  // namespace pocketlic

#endif
