// Kernels for x86-64 processors with AVX2, AVX-VNNI, and AVX-512 with VNNI. portable.cpp chooses; "portable" is the
// oracle.
#include "simd.h"

#if POCKETLIC_X86

#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "../sha256.h"

#define INLINE inline __attribute__((always_inline))
// Without it, GCC keeps arrays of vectors in memory.
#define UNROLL _Pragma("GCC unroll 16")

namespace pocketlic {
namespace {

bool has_avx2() { return __builtin_cpu_supports("avx2") != 0; }

bool has_avx_vnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
}

bool has_avx512_vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
           __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
           __builtin_cpu_supports("avx512vnni") != 0;
}

// In inline assembly below: GCC copies what the intrinsic of a dot product adds to, and then lacks registers.

// ------------------------------------------------------------------------------------------- of all three sets

#define TARGET __attribute__((target("avx2")))

// Four sums, shifted and clamped, each in 64 bits.
TARGET inline __m256i rows4(const Term* terms, size_t n_terms, const int64_t* base, size_t at, __m256i top) {
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

TARGET void rows_avx2(const Term* terms, size_t n_terms, const int64_t* base, size_t n, int32_t last, uint8_t* y) {
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

TARGET inline __m256i bytes32(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

TARGET void add_avx2(const int8_t* a, const int8_t* b, int32_t offset, int32_t low, size_t n, int8_t* y) {
    const __m256i offsets = _mm256_set1_epi16(static_cast<int16_t>(offset));
    const __m128i lows = _mm_set1_epi8(static_cast<int8_t>(low));
    size_t i = 0;
    // The two sums that there are in shipped models: saturation is all that there is to them.
    for (; offset == 0 && low == -128 && i + 32 <= n; i += 32)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), _mm256_adds_epi8(bytes32(a + i), bytes32(b + i)));
    const __m256i flip = _mm256_set1_epi8(-128), ones = _mm256_set1_epi8(-1);
    for (; offset == -128 && low == -128 && i + 32 <= n; i += 32) {
        // Without a sign: a + b - 256 = a - (255 - b) - 1, not below 0.
        const __m256i va = _mm256_xor_si256(bytes32(a + i), flip);
        const __m256i vb = _mm256_xor_si256(_mm256_xor_si256(bytes32(b + i), flip), ones);
        const __m256i sum = _mm256_subs_epu8(_mm256_subs_epu8(va, vb), _mm256_set1_epi8(1));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), _mm256_xor_si256(sum, flip));
    }
    for (; i + 16 <= n; i += 16) {
        const __m256i va = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i)));
        const __m256i vb = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + i)));
        const __m256i sum = _mm256_add_epi16(_mm256_add_epi16(va, vb), offsets);
        const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), _mm_max_epi8(bytes, lows));
    }
    for (; i < n; ++i) y[i] = static_cast<int8_t>(std::clamp(a[i] + b[i] + offset, low, 127));
}

// Four pixels of three bytes -> of four bytes.
TARGET INLINE __m128i quads() { return _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1); }

TARGET void show(const int8_t* rgb, const ChangeRow& change, size_t pixels, uint8_t* y) {
    size_t i = 0;
    for (; i + 16 <= pixels; i += 16) {
        const __m128i plus = _mm_load_si128(reinterpret_cast<const __m128i*>(change.plus + i));
        const __m128i minus = _mm_load_si128(reinterpret_cast<const __m128i*>(change.minus + i));
        // Which pixel each of 48 bytes belongs to.
        const __m128i pixel[3] = {_mm_setr_epi8(0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5),
                                  _mm_setr_epi8(5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10),
                                  _mm_setr_epi8(10, 11, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15)};
        UNROLL for (size_t k = 0; k < 3; ++k) {
            const __m128i v = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rgb + 3 * i + 16 * k)),
                                            _mm_set1_epi8(-128));
            const __m128i sum = _mm_adds_epu8(v, _mm_shuffle_epi8(plus, pixel[k]));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(y + 3 * i + 16 * k),
                             _mm_subs_epu8(sum, _mm_shuffle_epi8(minus, pixel[k])));
        }
    }
    show_from(i, rgb, change, pixels, y);
}

// ------------------------------------------------------------------------------------------ vectors of 32 bytes

#define V(name) _mm256_##name
#define V_BIT(name) _mm256_##name##_si256

// What AVX2 and AVX-VNNI share.
#define VECTORS_OF_32_BYTES                                                                                          \
    using Vector = __m256i;                                                                                          \
    constexpr size_t kBytes = 32, kTileVectors = 2;                                                                  \
    TARGET INLINE Vector load(const void* p) { return _mm256_loadu_si256(static_cast<const Vector*>(p)); }           \
    TARGET INLINE void store(void* p, Vector v) { _mm256_storeu_si256(static_cast<Vector*>(p), v); }                 \
    TARGET INLINE Vector flip(Vector v) { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }                      \
    TARGET INLINE __m128i load_half(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }       \
    TARGET INLINE void store_half(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }             \
    TARGET INLINE __m128i low_half(Vector v) { return _mm256_castsi256_si128(v); }                                   \
    TARGET INLINE __m128i high_half(Vector v) { return _mm256_extracti128_si256(v, 1); }                             \
    TARGET INLINE Vector join(__m128i low, __m128i high) { return _mm256_set_m128i(high, low); }                     \
    TARGET INLINE void store_bytes(void* p, Vector v, size_t n) {                                                    \
        if (n == 32) return store(p, v);                                                                             \
        alignas(32) uint8_t bytes[32];                                                                               \
        store(bytes, v);                                                                                             \
        if (n == 16) return store_half(p, low_half(v));                                                              \
        std::memcpy(p, bytes, n);                                                                                    \
    }                                                                                                                \
    template <size_t kVectors>                                                                                       \
    TARGET INLINE Vector order_dwords(Vector v) {                                                                    \
        return kVectors == 1 ? _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4))             \
                             : _mm256_permute4x64_epi64(v, 0x88);                                                    \
    }                                                                                                                \
    TARGET INLINE Vector widen8(const int8_t* p) {                                                                   \
        return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));                           \
    }                                                                                                                \
    TARGET INLINE Vector widen16(const int16_t* p) { return _mm256_cvtepi16_epi32(load_half(p)); }                   \
    TARGET INLINE __m128i narrow(Vector v) { return _mm_packs_epi32(low_half(v), high_half(v)); }                    \
    TARGET INLINE void store16(int16_t* p, Vector v) { store_half(p, narrow(v)); }                                   \
    TARGET INLINE void store8(int8_t* p, Vector v) {                                                                 \
        _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(narrow(v), narrow(v)));                      \
    }                                                                                                                \
    TARGET INLINE bool all_zero(Vector v) { return _mm256_testz_si256(v, v) != 0; }                                  \
    TARGET INLINE Vector gather(const int32_t* p, Vector index) { return _mm256_i32gather_epi32(p, index, 4); }      \
    TARGET INLINE Vector floor_quotient(Vector n, Vector d) {                                                        \
        return _mm256_cvtps_epi32(_mm256_floor_ps(_mm256_div_ps(_mm256_cvtepi32_ps(n), _mm256_cvtepi32_ps(d))));     \
    }                                                                                                                \
    TARGET INLINE Vector greater(Vector a, Vector b) { return _mm256_cmpgt_epi32(a, b); }                            \
    TARGET INLINE Vector either(Vector mask, Vector a, Vector b) { return _mm256_blendv_epi8(b, a, mask); }          \
    template <int kHalf>                                                                                             \
    TARGET INLINE Vector in_order(Vector low, Vector high) {                                                         \
        return _mm256_permute2x128_si256(low, high, kHalf == 0 ? 0x20 : 0x31);                                       \
    }                                                                                                                \
    TARGET INLINE Vector lanes(const int16_t* p, const int32_t* offsets) {                                           \
        return join(load_half(p + offsets[0]), load_half(p + offsets[8]));                                           \
    }                                                                                                                \
    TARGET INLINE Vector pixels4(const int8_t* p, size_t step) {                                                     \
        return _mm256_shuffle_epi8(join(load_half(p), load_half(p + step)), _mm256_broadcastsi128_si256(quads()));   \
    }

namespace avx2 {

constexpr bool kHalves = true;
constexpr size_t kTilePixels = 5;
VECTORS_OF_32_BYTES

// Halves of weights fit 7 bits, so that two products of theirs fit 16.
TARGET INLINE Vector dot(Vector acc, Vector x, Vector w) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
}

TARGET INLINE Vector dot_any(Vector acc, Vector x, Vector w) {
    const Vector even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0xFF)),
                                          _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
    const Vector odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}

#include "x86_simd.h"

}  // namespace avx2

#undef TARGET

#if POCKETLIC_AVX_VNNI

#define TARGET __attribute__((target("avx2,avxvnni")))

namespace avx_vnni {

constexpr bool kHalves = false;
constexpr size_t kTilePixels = 6;
VECTORS_OF_32_BYTES

TARGET INLINE Vector dot(Vector acc, Vector x, Vector w) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(x), "x"(w));
    return acc;
}
TARGET INLINE Vector dot_any(Vector acc, Vector x, Vector w) { return dot(acc, x, w); }

#include "x86_simd.h"

}  // namespace avx_vnni

#undef TARGET

#endif
#undef V
#undef V_BIT

// ------------------------------------------------------------------------------------------ vectors of 64 bytes

#define TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define V(name) _mm512_##name
#define V_BIT(name) _mm512_##name##_si512

namespace avx512_vnni {

using Vector = __m512i;
constexpr bool kHalves = false;
constexpr size_t kBytes = 64, kTileVectors = 4, kTilePixels = 6;

TARGET INLINE Vector load(const void* p) { return _mm512_loadu_si512(p); }
TARGET INLINE void store(void* p, Vector v) { _mm512_storeu_si512(p, v); }
TARGET INLINE Vector flip(Vector v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
TARGET INLINE __m256i load_half(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
TARGET INLINE void store_half(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
TARGET INLINE __m256i low_half(Vector v) { return _mm512_castsi512_si256(v); }
TARGET INLINE __m256i high_half(Vector v) { return _mm512_extracti64x4_epi64(v, 1); }
TARGET INLINE Vector join(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
TARGET INLINE void store_bytes(void* p, Vector v, size_t n) {
    _mm512_mask_storeu_epi8(p, ~uint64_t{0} >> (64 - n), v);
}
// Of each lane's 16 bytes, 4 * kVectors count.
template <size_t kVectors>
TARGET INLINE Vector order_dwords(Vector v) {
    if (kVectors == 4) return v;
    const Vector order = kVectors == 3   ? _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0, 0, 0, 0)
                         : kVectors == 2 ? _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 0, 0, 0, 0, 0, 0, 0, 0)
                                         : _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_permutexvar_epi32(order, v);
}
TARGET INLINE Vector widen8(const int8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TARGET INLINE Vector widen16(const int16_t* p) { return _mm512_cvtepi16_epi32(load_half(p)); }
TARGET INLINE void store16(int16_t* p, Vector v) { store_half(p, _mm512_cvtsepi32_epi16(v)); }
TARGET INLINE void store8(int8_t* p, Vector v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(v));
}
TARGET INLINE bool all_zero(Vector v) { return _mm512_test_epi32_mask(v, v) == 0; }
TARGET INLINE Vector gather(const int32_t* p, Vector index) { return _mm512_i32gather_epi32(index, p, 4); }
TARGET INLINE Vector floor_quotient(Vector n, Vector d) {
    const __m512 quotient = _mm512_div_ps(_mm512_cvtepi32_ps(n), _mm512_cvtepi32_ps(d));
    return _mm512_cvt_roundps_epi32(quotient, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
TARGET INLINE Vector greater(Vector a, Vector b) { return _mm512_movm_epi32(_mm512_cmpgt_epi32_mask(a, b)); }
TARGET INLINE Vector either(Vector mask, Vector a, Vector b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xCA); }
// What unpacking into halves of lanes has put apart.
template <int kHalf>
TARGET INLINE Vector in_order(Vector low, Vector high) {
    const Vector order = kHalf == 0 ? _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11)
                                    : _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    return _mm512_permutex2var_epi64(low, order, high);
}
// 16 bytes at p + offsets[8 * lane].
TARGET INLINE Vector lanes(const int16_t* p, const int32_t* offsets) {
    const auto at = [=](size_t lane) TARGET {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + offsets[8 * lane]));
    };
    const Vector v = _mm512_inserti32x4(_mm512_castsi128_si512(at(0)), at(1), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(v, at(2), 2), at(3), 3);
}
// Four pixels a lane, at p + step * lane, to four bytes each.
TARGET INLINE Vector pixels4(const int8_t* p, size_t step) {
    const auto at = [=](size_t lane) TARGET {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + step * lane));
    };
    const Vector v = _mm512_inserti32x4(_mm512_castsi128_si512(at(0)), at(1), 1);
    return _mm512_shuffle_epi8(_mm512_inserti32x4(_mm512_inserti32x4(v, at(2), 2), at(3), 3),
                               _mm512_broadcast_i32x4(quads()));
}
TARGET INLINE Vector dot(Vector acc, Vector x, Vector w) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
    return acc;
}
TARGET INLINE Vector dot_any(Vector acc, Vector x, Vector w) { return dot(acc, x, w); }

#include "x86_simd.h"

}  // namespace avx512_vnni

}  // namespace

#define KERNELS(set, name, supported)                                                                                \
    {name,      supported,           set::pack_pointwise, set::scratch, set::pointwise, set::accumulate,             \
     rows_avx2, set::pack_depthwise, set::depthwise,      add_avx2, set::latents, set::details, set::project, set::quantize,      \
     set::luma, set::tensors, set::filter, show}

const Kernels kAvx2 = KERNELS(avx2, "avx2", has_avx2);
#if POCKETLIC_AVX_VNNI
const Kernels kAvxVnni = KERNELS(avx_vnni, "avx-vnni", has_avx_vnni);
#endif
const Kernels kAvx512Vnni = KERNELS(avx512_vnni, "avx512-vnni", has_avx512_vnni);

bool has_sha256() {
    // Not a static of the compiler's, which would need the C++ library to be safe among threads.
    static std::atomic<int> known{-1};
    int has = known.load();
    if (has < 0) {
        unsigned a = 0, b = 0, c = 0, d = 0;
        has = has_avx2() && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b >> 29 & 1) != 0;
        known.store(has);
    }
    return has != 0;
}

__attribute__((target("sha,sse4.1"))) void sha256_processor(uint32_t (&state)[8], const uint8_t* data, size_t blocks) {
    const auto load = [](const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); };
    const __m128i order = _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    // The instructions take the state as a b e f and c d g h, highest first.
    const __m128i badc = _mm_shuffle_epi32(load(state), 0xB1), hgfe = _mm_shuffle_epi32(load(state + 4), 0x1B);
    __m128i first = _mm_alignr_epi8(badc, hgfe, 8), second = _mm_blend_epi16(hgfe, badc, 0xF0);
    for (; blocks > 0; --blocks, data += 64) {
        const __m128i before[2] = {first, second};
        __m128i w[4];
        for (size_t i = 0; i < 4; ++i) w[i] = _mm_shuffle_epi8(load(data + 16 * i), order);
        UNROLL for (size_t i = 0; i < 16; ++i) {
            const __m128i sum = _mm_add_epi32(w[i % 4], load(kSha256Constants + 4 * i));
            second = _mm_sha256rnds2_epu32(second, first, sum);
            first = _mm_sha256rnds2_epu32(first, second, _mm_shuffle_epi32(sum, 0x0E));
            const __m128i last = w[(i + 3) % 4];
            const __m128i next = _mm_add_epi32(_mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]),
                                               _mm_alignr_epi8(last, w[(i + 2) % 4], 4));
            w[i % 4] = _mm_sha256msg2_epu32(next, last);
        }
        first = _mm_add_epi32(first, before[0]);
        second = _mm_add_epi32(second, before[1]);
    }
    const __m128i feba = _mm_shuffle_epi32(first, 0x1B), dchg = _mm_shuffle_epi32(second, 0xB1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

}  // namespace pocketlic

#endif
