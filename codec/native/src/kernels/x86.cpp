// Kernels for x86-64 processors with AVX2, and with AVX-512 and VNNI. portable.cpp chooses; "portable" is the oracle.
#include "simd.h"

#if POCKETLIC_X86

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#define AVX2 __attribute__((target("avx2")))
#define VNNI __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")))

namespace pocketlic {
namespace {

constexpr size_t kChunk = 48;  // pixels whose inputs are laid out for the inner loops at a time

bool has_avx2() { return __builtin_cpu_supports("avx2") != 0; }
bool has_vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
           __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
}

bool pack_pairs(Arena& arena, const int8_t* weight, const int32_t* bias, int32_t zero_in, Pointwise& to) {
    return pack<int16_t, 2>(arena, weight, bias, zero_in, to);
}

// Activations become unsigned: x + 128.
bool pack_quads(Arena& arena, const int8_t* weight, const int32_t* bias, int32_t zero_in, Pointwise& to) {
    return pack<int8_t, 4>(arena, weight, bias, zero_in + 128, to);
}

// ------------------------------------------------------------------------------------------------------- AVX2

size_t scratch_pairs(const Pointwise& c) { return kChunk * round_up(count(c.inputs), 2) * sizeof(int16_t) + 32; }

// Eight outputs of one pixel.
AVX2 inline __m256i requantize(__m256i acc, const Pointwise& c, size_t o) {
    const __m256i shift = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(c.shift + o));
    const __m256i one = _mm256_set1_epi32(1);
    const __m256i half = _mm256_sllv_epi32(one, _mm256_sub_epi32(shift, one));
    const __m256i scaled = _mm256_srav_epi32(_mm256_add_epi32(acc, half), shift);
    const __m256i y = _mm256_add_epi32(scaled, _mm256_set1_epi32(c.zero));
    return _mm256_min_epi32(_mm256_max_epi32(y, _mm256_set1_epi32(c.low)), _mm256_set1_epi32(127));
}

template <size_t kPixels, bool kRaw>
AVX2 inline void tile_pairs(const Pointwise& c, const int16_t* w, const int16_t* x, size_t groups, size_t o, size_t n,
                            void* y, size_t pixel) {
    __m256i acc[kPixels][2];
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t h = 0; h < 2; ++h)
            acc[p][h] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(c.bias + o + 8 * h));
    for (size_t g = 0; g < groups; ++g, w += 2 * kBlock) {
        const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
        const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 16));
        for (size_t p = 0; p < kPixels; ++p) {
            const __m256i v = _mm256_set1_epi32(load32(x + (p * groups + g) * 2));
            acc[p][0] = _mm256_add_epi32(acc[p][0], _mm256_madd_epi16(v, w0));
            acc[p][1] = _mm256_add_epi32(acc[p][1], _mm256_madd_epi16(v, w1));
        }
    }
    for (size_t p = 0; p < kPixels; ++p) {
        const size_t at = (pixel + p) * count(c.outputs) + o;
        if (kRaw) {
            alignas(32) int32_t out[kBlock];
            int32_t* to = n == kBlock ? static_cast<int32_t*>(y) + at : out;
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), acc[p][0]);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), acc[p][1]);
            if (n < kBlock) std::memcpy(static_cast<int32_t*>(y) + at, out, n * sizeof(int32_t));
            continue;
        }
        const __m256i words = _mm256_permute4x64_epi64(
            _mm256_packs_epi32(requantize(acc[p][0], c, o), requantize(acc[p][1], c, o + 8)), 0xD8);
        const __m128i bytes =
            _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        int8_t* to = static_cast<int8_t*>(y) + at;
        if (n == kBlock) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
        } else {
            alignas(16) int8_t out[kBlock];
            _mm_store_si128(reinterpret_cast<__m128i*>(out), bytes);
            std::memcpy(to, out, n);
        }
    }
}

template <bool kRaw>
AVX2 void run_pairs(const Pointwise& c, const int8_t* x, size_t pixels, void* y, void* scratch) {
    const size_t inputs = count(c.inputs), groups = round_up(inputs, 2) / 2, outputs = count(c.outputs);
    auto* wide = static_cast<int16_t*>(scratch);
    for (size_t first = 0; first < pixels; first += kChunk) {
        const size_t n = std::min(kChunk, pixels - first);
        const int8_t* from = x + first * inputs;
        if (inputs % 2 == 0) {
            size_t i = 0;
            for (; i + 16 <= n * inputs; i += 16)
                _mm256_storeu_si256(
                    reinterpret_cast<__m256i*>(wide + i),
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
            for (; i < n * inputs; ++i) wide[i] = from[i];
        } else {
            for (size_t p = 0; p < n; ++p) {
                for (size_t i = 0; i < inputs; ++i) wide[p * 2 * groups + i] = from[p * inputs + i];
                wide[p * 2 * groups + inputs] = 0;
            }
        }
        const auto* w = static_cast<const int16_t*>(c.weight);
        for (size_t o = 0; o < outputs; o += kBlock, w += groups * 2 * kBlock) {
            const size_t m = std::min<size_t>(kBlock, outputs - o);
            size_t p = 0;
            for (; p + 4 <= n; p += 4) tile_pairs<4, kRaw>(c, w, wide + p * 2 * groups, groups, o, m, y, first + p);
            for (; p < n; ++p) tile_pairs<1, kRaw>(c, w, wide + p * 2 * groups, groups, o, m, y, first + p);
        }
    }
}

void pointwise_pairs(const Pointwise& c, const int8_t* x, size_t pixels, int8_t* y, void* scratch) {
    run_pairs<false>(c, x, pixels, y, scratch);
}

void accumulate_pairs(const Pointwise& c, const int8_t* x, size_t pixels, int32_t* y, void* scratch) {
    run_pairs<true>(c, x, pixels, y, scratch);
}

// Four sums, shifted and clamped, each in 64 bits.
AVX2 inline __m256i rows4(const Term* terms, size_t n_terms, const int64_t* base, size_t at, __m256i top) {
    __m256i sum = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(base + at));
    for (size_t t = 0; t < n_terms; ++t) {
        const auto* acc = reinterpret_cast<const __m128i*>(terms[t].acc + at);
        const auto* scale = reinterpret_cast<const __m128i*>(terms[t].scale + at);
        sum = _mm256_add_epi64(sum, _mm256_mul_epi32(_mm256_cvtepi32_epi64(_mm_loadu_si128(acc)),
                                                     _mm256_cvtepi32_epi64(_mm_loadu_si128(scale))));
    }
    sum = _mm256_andnot_si256(_mm256_cmpgt_epi64(_mm256_setzero_si256(), sum), sum);
    return _mm256_srli_epi64(_mm256_blendv_epi8(sum, top, _mm256_cmpgt_epi64(sum, top)), 16);
}

AVX2 void rows_avx2(const Term* terms, size_t n_terms, const int64_t* base, size_t n, int32_t last, uint8_t* y) {
    const __m256i top = _mm256_set1_epi64x(int64_t{last} << 16);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i low = rows4(terms, n_terms, base, i, top), high = rows4(terms, n_terms, base, i + 4, top);
        // Their lowest bytes, in the order 0 1 4 5 2 3 6 7; then four pairs in each half.
        const __m256i words = _mm256_packus_epi32(_mm256_packus_epi32(low, high), _mm256_setzero_si256());
        const __m128i pairs = _mm_unpacklo_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(y + i), _mm_packus_epi16(pairs, pairs));
    }
    rows_from(i, terms, n_terms, base, n, last, y);
}

// Eight channels of one pixel; x * w fits 16 bits because |x| <= 255 and |w| <= 127.
AVX2 inline __m256i tap(__m256i acc, const int8_t* x, const int16_t* w, __m128i zero_in) {
    const __m128i v = _mm_sub_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))), zero_in);
    const __m128i product = _mm_mullo_epi16(v, _mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
    return _mm256_add_epi32(acc, _mm256_cvtepi16_epi32(product));
}

AVX2 inline void store8(__m256i y, int8_t* to) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
}

template <size_t kVectors>
AVX2 inline void depthwise_channels(const Depthwise& c, const Pointwise& store, const int8_t* const* rows, int32_t x0,
                                    int32_t column, int32_t begin, int32_t end, size_t at, int8_t* y) {
    const size_t channels = count(c.channels);
    const __m128i zero_in = _mm_set1_epi16(static_cast<int16_t>(c.zero_in));
    __m256i acc[kVectors];
    for (size_t v = 0; v < kVectors; ++v)
        acc[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(c.bias + at + 8 * v));
    for (int32_t dy = 0; dy < c.kernel; ++dy) {
        if (rows[dy] == nullptr) continue;
        const int8_t* x = rows[dy] + count(column + begin - c.kernel / 2 - x0) * channels + at;
        const int16_t* w = c.weight + count(dy * c.kernel + begin) * channels + at;
        for (int32_t dx = begin; dx < end; ++dx, x += channels, w += channels)
            for (size_t v = 0; v < kVectors; ++v) acc[v] = tap(acc[v], x + 8 * v, w + 8 * v, zero_in);
    }
    for (size_t v = 0; v < kVectors; ++v) store8(requantize(acc[v], store, at + 8 * v), y + at + 8 * v);
}

AVX2 void depthwise_avx2(const Depthwise& c, const int8_t* const* rows, int32_t x0, int32_t width, int32_t first,
                         int32_t end, int8_t* y, int32_t*) {
    const size_t channels = count(c.channels);
    const int32_t half = c.kernel / 2;
    Pointwise store;  // what `requantize` looks at
    store.shift = c.shift;
    store.zero = c.zero;
    store.low = c.low;
    for (int32_t column = first; column < end; ++column, y += channels) {
        const int32_t from = std::max(0, half - column), to = std::min(c.kernel, width + half - column);
        size_t at = 0;
        for (; at + 32 <= channels; at += 32) depthwise_channels<4>(c, store, rows, x0, column, from, to, at, y);
        for (; at + 8 <= channels; at += 8) depthwise_channels<1>(c, store, rows, x0, column, from, to, at, y);
        for (; at < channels; ++at) y[at] = depthwise_one(c, rows, x0, column, from, to, at);
    }
}

AVX2 void add_avx2(const int8_t* a, const int8_t* b, int32_t offset, int32_t low, size_t n, int8_t* y) {
    const __m256i offsets = _mm256_set1_epi16(static_cast<int16_t>(offset));
    const __m128i lows = _mm_set1_epi8(static_cast<int8_t>(low));
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i va = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i)));
        const __m256i vb = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i)));
        const __m256i sum = _mm256_add_epi16(_mm256_add_epi16(va, vb), offsets);
        const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), _mm_max_epi8(bytes, lows));
    }
    for (; i < n; ++i) y[i] = static_cast<int8_t>(std::clamp(a[i] + b[i] + offset, low, 127));
}

// ---------------------------------------------------------------------------------------------- AVX-512 and VNNI

size_t scratch_quads(const Pointwise& c) { return kChunk * round_up(count(c.inputs), 4) + 64; }

template <size_t kBlocks, size_t kPixels, bool kRaw>
VNNI inline void tile_quads(const Pointwise& c, const int8_t* w, const uint8_t* x, size_t groups, size_t o, void* y,
                            size_t pixel) {
    const size_t block_bytes = groups * 4 * kBlock;
    __m512i acc[kPixels][kBlocks];
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t b = 0; b < kBlocks; ++b) acc[p][b] = _mm512_loadu_si512(c.bias + o + kBlock * b);
    for (size_t g = 0; g < groups; ++g, w += 4 * kBlock) {
        __m512i wide[kBlocks];
        for (size_t b = 0; b < kBlocks; ++b) wide[b] = _mm512_loadu_si512(w + b * block_bytes);
        for (size_t p = 0; p < kPixels; ++p) {
            const __m512i v = _mm512_set1_epi32(load32(x + (p * groups + g) * 4));
            for (size_t b = 0; b < kBlocks; ++b) acc[p][b] = _mm512_dpbusd_epi32(acc[p][b], v, wide[b]);
        }
    }
    const size_t outputs = count(c.outputs);
    for (size_t b = 0; b < kBlocks; ++b) {
        const size_t at = o + kBlock * b, n = std::min<size_t>(kBlock, outputs - at);
        const auto mask = static_cast<__mmask16>((1u << n) - 1);
        if (kRaw) {
            for (size_t p = 0; p < kPixels; ++p)
                _mm512_mask_storeu_epi32(static_cast<int32_t*>(y) + (pixel + p) * outputs + at, mask, acc[p][b]);
            continue;
        }
        const __m512i shift = _mm512_loadu_si512(c.shift + at), one = _mm512_set1_epi32(1);
        const __m512i half = _mm512_sllv_epi32(one, _mm512_sub_epi32(shift, one));
        const __m512i zero = _mm512_set1_epi32(c.zero), low = _mm512_set1_epi32(c.low);
        for (size_t p = 0; p < kPixels; ++p) {
            __m512i v = _mm512_srav_epi32(_mm512_add_epi32(acc[p][b], half), shift);
            v = _mm512_max_epi32(_mm512_add_epi32(v, zero), low);
            _mm_mask_storeu_epi8(static_cast<int8_t*>(y) + (pixel + p) * outputs + at, mask,
                                 _mm512_cvtsepi32_epi8(v));
        }
    }
}

template <size_t kBlocks, size_t kPixels, bool kRaw>
VNNI void columns_quads(const Pointwise& c, const uint8_t* x, size_t n, size_t groups, size_t o, void* y,
                        size_t first) {
    const auto* w = static_cast<const int8_t*>(c.weight) + o * groups * 4;
    size_t p = 0;
    for (; p + kPixels <= n; p += kPixels)
        tile_quads<kBlocks, kPixels, kRaw>(c, w, x + p * groups * 4, groups, o, y, first + p);
    for (; p < n; ++p) tile_quads<kBlocks, 1, kRaw>(c, w, x + p * groups * 4, groups, o, y, first + p);
}

template <bool kRaw>
VNNI void run_quads(const Pointwise& c, const int8_t* x, size_t pixels, void* y, void* scratch) {
    const size_t inputs = count(c.inputs), groups = round_up(inputs, 4) / 4, all = blocks(c);
    auto* shifted = static_cast<uint8_t*>(scratch);
    for (size_t first = 0; first < pixels; first += kChunk) {
        const size_t n = std::min(kChunk, pixels - first);
        const int8_t* from = x + first * inputs;
        if (inputs % 4 == 0) {
            size_t i = 0;
            for (; i + 64 <= n * inputs; i += 64)
                _mm512_storeu_si512(shifted + i, _mm512_xor_si512(_mm512_loadu_si512(from + i),
                                                                  _mm512_set1_epi8(static_cast<char>(-128))));
            for (; i < n * inputs; ++i) shifted[i] = static_cast<uint8_t>(from[i] + 128);
        } else {
            for (size_t p = 0; p < n; ++p) {
                uint8_t* to = shifted + p * groups * 4;
                for (size_t i = 0; i < groups * 4; ++i)
                    to[i] = static_cast<uint8_t>(i < inputs ? from[p * inputs + i] + 128 : 0);
            }
        }
        size_t b = 0;
        for (; b + 4 <= all; b += 4) columns_quads<4, 6, kRaw>(c, shifted, n, groups, b * kBlock, y, first);
        if (all - b == 3) columns_quads<3, 8, kRaw>(c, shifted, n, groups, b * kBlock, y, first);
        if (all - b == 2) columns_quads<2, 12, kRaw>(c, shifted, n, groups, b * kBlock, y, first);
        if (all - b == 1) columns_quads<1, 16, kRaw>(c, shifted, n, groups, b * kBlock, y, first);
    }
}

void pointwise_quads(const Pointwise& c, const int8_t* x, size_t pixels, int8_t* y, void* scratch) {
    run_quads<false>(c, x, pixels, y, scratch);
}

void accumulate_quads(const Pointwise& c, const int8_t* x, size_t pixels, int32_t* y, void* scratch) {
    run_quads<true>(c, x, pixels, y, scratch);
}

}  // namespace

const Kernels kAvx2 = {"avx2",           has_avx2,  pack_pairs,     scratch_pairs, pointwise_pairs,
                       accumulate_pairs, rows_avx2, depthwise_avx2, add_avx2};
const Kernels kVnni = {"avx512-vnni",    has_vnni,  pack_quads,     scratch_quads, pointwise_quads,
                       accumulate_quads, rows_avx2, depthwise_avx2, add_avx2};

}  // namespace pocketlic

#endif
