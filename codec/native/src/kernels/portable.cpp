#include <algorithm>
#include <cstring>

#include "../sha256.h"
#include "simd.h"

namespace pocketlic {
namespace {

// What compilers inline into functions for better processors, where they vectorise it anew.
#if defined(__GNUC__)
#define POCKETLIC_INLINE inline __attribute__((always_inline))
#else
#define POCKETLIC_INLINE inline
#endif

// >> of a negative number rounds down: C++20 says so and no compiler has ever done otherwise.
POCKETLIC_INLINE int8_t requantize(int32_t acc, int32_t shift, int32_t zero, int32_t low) {
    const int32_t y = ((acc + (1 << (shift - 1))) >> shift) + zero;
    return static_cast<int8_t>(std::clamp(y, low, 127));
}

bool always() { return true; }

// ---------------------------------------------------------------------------------------------------- portable

// Weights int16 [block][input][16].
bool pack_portable(Arena& arena, const int8_t* weight, const int32_t* bias, int32_t zero_in, Pointwise& to) {
    return pack<int16_t, 1>(arena, weight, bias, zero_in, to);
}

size_t no_scratch(const Pointwise&) { return 0; }

// kPixels pixels by one block of outputs, whose accumulators stay in registers.
template <size_t kPixels>
POCKETLIC_INLINE void accumulate_block(const int16_t* w, const int32_t* bias, const int8_t* x, size_t inputs,
                                       int32_t (&acc)[kPixels][kBlock]) {
    for (size_t p = 0; p < kPixels; ++p)
        for (size_t j = 0; j < kBlock; ++j) acc[p][j] = bias[j];
    for (size_t i = 0; i < inputs; ++i, w += kBlock) {
        for (size_t p = 0; p < kPixels; ++p) {
            const int16_t v = x[p * inputs + i];
            for (size_t j = 0; j < kBlock; ++j) acc[p][j] += v * w[j];
        }
    }
}

template <size_t kPixels, typename Store>
POCKETLIC_INLINE void pointwise_portable(const Pointwise& c, const int8_t* x, size_t pixels, Store store) {
    const auto inputs = static_cast<size_t>(c.inputs), outputs = static_cast<size_t>(c.outputs);
    const auto* weight = static_cast<const int16_t*>(c.weight);
    for (size_t o = 0; o < outputs; o += kBlock, weight += inputs * kBlock) {
        const size_t n = std::min<size_t>(kBlock, outputs - o);
        size_t p = 0;
        for (; p + kPixels <= pixels; p += kPixels) {
            int32_t acc[kPixels][kBlock];
            accumulate_block<kPixels>(weight, c.bias + o, x + p * inputs, inputs, acc);
            for (size_t q = 0; q < kPixels; ++q) store(acc[q], p + q, o, n);
        }
        for (; p < pixels; ++p) {
            int32_t acc[1][kBlock];
            accumulate_block<1>(weight, c.bias + o, x + p * inputs, inputs, acc);
            store(acc[0], p, o, n);
        }
    }
}

template <size_t kPixels>
POCKETLIC_INLINE void pointwise_body(const Pointwise& c, const int8_t* x, size_t pixels, int8_t* y) {
    pointwise_portable<kPixels>(c, x, pixels, [&c, y](const int32_t* acc, size_t pixel, size_t o, size_t n) {
        int8_t out[kBlock];
        for (size_t j = 0; j < kBlock; ++j) out[j] = requantize(acc[j], c.shift[o + j], c.zero, c.low);
        std::memcpy(y + pixel * static_cast<size_t>(c.outputs) + o, out, n);
    });
}

void pointwise_plain(const Pointwise& c, const int8_t* x, size_t pixels, int8_t* y, void*) {
    pointwise_body<2>(c, x, pixels, y);
}

void accumulate_plain(const Pointwise& c, const int8_t* x, size_t pixels, int32_t* y, void*) {
    pointwise_portable<2>(c, x, pixels, [&c, y](const int32_t* acc, size_t pixel, size_t o, size_t n) {
        std::memcpy(y + pixel * static_cast<size_t>(c.outputs) + o, acc, n * sizeof(int32_t));
    });
}

void rows_plain(const Term* terms, size_t n_terms, const int64_t* base, size_t count, int32_t last, uint8_t* y) {
    rows_from(0, terms, n_terms, base, count, last, y);
}

bool pack_nothing(Arena&, Depthwise&) { return true; }

POCKETLIC_INLINE void add_body(const int8_t* a, const int8_t* b, int32_t offset, int32_t low, size_t count,
                               int8_t* y) {
    const auto offset16 = static_cast<int16_t>(offset), low16 = static_cast<int16_t>(low);
    for (size_t i = 0; i < count; ++i) {
        const auto sum = static_cast<int16_t>(a[i] + b[i] + offset16);
        y[i] = static_cast<int8_t>(std::clamp<int16_t>(sum, low16, 127));
    }
}

void add_plain(const int8_t* a, const int8_t* b, int32_t offset, int32_t low, size_t count, int8_t* y) {
    add_body(a, b, offset, low, count, y);
}

constexpr Kernels kPortable = {"portable",     always,
                               pack_portable,  no_scratch,         pointwise_plain, accumulate_plain, rows_plain,
                               pack_nothing,   depthwise_portable, add_plain, nullptr, nullptr, nullptr, nullptr, luma_portable,    tensors_portable,
                               filter_portable, show_portable};

constexpr const Kernels* kAll[] = {
#if POCKETLIC_X86
    &kAvx512Vnni,
#endif
#if POCKETLIC_AVX_VNNI
    &kAvxVnni,
#endif
#if POCKETLIC_X86
    &kAvx2,
#endif
#if POCKETLIC_I8MM
    &kI8mm,
#endif
#if POCKETLIC_DOT
    &kDot,
#endif
#if POCKETLIC_ARM
    &kNeon,
#endif
    &kPortable};

}  // namespace

void depthwise_portable(const Depthwise& c, const int8_t* const* rows, int32_t n_rows, const Span& span, int8_t* y) {
    constexpr size_t kChannels = 64;  // whose sums are made at a time
    const auto channels = static_cast<size_t>(c.channels);
    const int32_t half = c.kernel / 2;
    const auto zero_in = static_cast<int16_t>(c.zero_in);
    for (; n_rows > 0; --n_rows, ++rows) {
        for (int32_t column = span.first; column < span.end; ++column, y += channels) {
            const int32_t begin = std::max(0, span.x0 + half - column);
            const int32_t end = std::min(c.kernel, span.x1 + half - column);
            for (size_t first = 0; first < channels; first += kChannels) {
                const size_t n = std::min(kChannels, channels - first);
                int32_t acc[kChannels];
                std::memcpy(acc, c.bias + first, n * sizeof *acc);
                for (int32_t dy = 0; dy < c.kernel; ++dy) {
                    if (rows[dy] == nullptr) continue;
                    for (int32_t dx = begin; dx < end; ++dx) {
                        const int8_t* x = rows[dy] + static_cast<size_t>(column + dx - half - span.x0) * channels + first;
                        const int16_t* w = c.weight + static_cast<size_t>(dy * c.kernel + dx) * channels + first;
                        for (size_t j = 0; j < n; ++j) acc[j] += static_cast<int16_t>(x[j] - zero_in) * w[j];
                    }
                }
                for (size_t j = 0; j < n; ++j)
                    y[first + j] = requantize(acc[j], c.shift[first + j], c.zero, c.low);
            }
        }
    }
}

namespace {

int16_t narrow(int32_t value) { return static_cast<int16_t>(value); }

// p[0 .. 4] weighted 1, 2, 3, 2, 1.
template <typename At>
POCKETLIC_INLINE int32_t smooth(At p) {
    return p(0) + p(4) + 2 * (p(1) + p(3)) + 3 * p(2);
}

// Of a cell, by the sums of its tensor.
POCKETLIC_INLINE int32_t class_of(int32_t across, int32_t both, int32_t down) {
    const int32_t energy = (across + down) >> 8;
    const int32_t u = across - down, v = 2 * both;
    const int32_t x = (u < 0 ? -u : u) >> 8, y = (v < 0 ? -v : v) >> 8;
    const int32_t more = std::max(x, y), less = std::min(x, y);
    const int32_t length = std::max(more, ((x + y) * 181) >> 8);
    int32_t direction = less * 256 > more * 106 ? 1 : 0;
    direction = x >= y ? direction : 3 - direction;
    direction = u >= 0 ? direction : 7 - direction;
    direction = v >= 0 ? direction : 15 - direction;
    const int32_t strength = (energy >= 182 ? 1 : 0) + (energy >= 729 ? 1 : 0) + (energy >= 2916 ? 1 : 0) +
                             (energy >= 11664 ? 1 : 0) + (energy >= 46656 ? 1 : 0);
    const int32_t straight = (length * 256 >= energy * 120 ? 1 : 0) + (length * 256 >= energy * 205 ? 1 : 0) +
                             (length * 256 >= energy * 246 ? 1 : 0);
    return (strength * 4 + straight) * 16 + direction;
}

}  // namespace

void luma_portable(const int8_t* rgb, int32_t cells, LumaRow& y) {
    for (int32_t k = 0; k < 2 * cells; ++k, rgb += 3)
        y.columns[k % 2][k / 2] = narrow((54 * rgb[0] + 183 * rgb[1] + 19 * rgb[2] + 128 * 256 + 32) >> 6);
}

void tensors_portable(const LumaRow* const* rows, int32_t cells, TensorRow& y) {
    const auto &above = rows[0]->columns, &upper = rows[1]->columns, &lower = rows[2]->columns,
               &below = rows[3]->columns;
    int32_t products[3][kFilterCells + 4];
    for (int32_t k = 0; k < cells + 4; ++k) {
        const int32_t m = k + 1;
        const int16_t across[4] = {narrow(upper[1][m] - upper[1][m - 1]), narrow(upper[0][m + 1] - upper[0][m]),
                                   narrow(lower[1][m] - lower[1][m - 1]), narrow(lower[0][m + 1] - lower[0][m])};
        const int16_t down[4] = {narrow(lower[0][m] - above[0][m]), narrow(lower[1][m] - above[1][m]),
                                 narrow(below[0][m] - upper[0][m]), narrow(below[1][m] - upper[1][m])};
        int32_t a = 0, b = 0, c = 0;
        for (int32_t i = 0; i < 4; ++i) {
            a += across[i] * across[i];
            b += across[i] * down[i];
            c += down[i] * down[i];
        }
        products[0][k] = a;
        products[1][k] = b;
        products[2][k] = c;
    }
    for (int32_t t = 0; t < 3; ++t)
        for (int32_t k = 0; k < cells; ++k)
            y.products[t][k] = smooth([p = products[t] + k](int32_t i) { return p[i]; });
}

// The even or the odd pixels of a row of cells, whose weights are [weight][cell].
template <int32_t kOdd>
void filter_columns(const int16_t (*weights)[kFilterCells], const LumaRow* const* centre, int32_t cells, ChangeRow& y) {
    int16_t changes[kFilterCells];
    const auto at = [centre](int32_t down, int32_t right, int32_t k) -> int32_t {
        const int32_t column = kFilterReach + kOdd + right;
        return centre[down]->columns[column % 2][column / 2 + k];
    };
    for (int32_t k = 0; k < cells; ++k) {
        const int32_t twice = 2 * at(0, 0, k);
        const auto term = [&](int32_t i, int32_t down, int32_t right) -> int32_t {
            return weights[i][k] * narrow(at(down, right, k) + at(-down, -right, k) - twice);
        };
        int32_t sum = 512 + term(0, 0, 1) + term(1, 0, 2);
        sum += term(2, 1, -2) + term(3, 1, -1) + term(4, 1, 0) + term(5, 1, 1) + term(6, 1, 2);
        sum += term(7, 2, -2) + term(8, 2, -1) + term(9, 2, 0) + term(10, 2, 1) + term(11, 2, 2);
        changes[k] = narrow(sum >> 10);
    }
    for (int32_t k = 0; k < cells; ++k) {
        y.plus[2 * k + kOdd] = static_cast<uint8_t>(std::clamp<int16_t>(changes[k], 0, 255));
        y.minus[2 * k + kOdd] = static_cast<uint8_t>(-std::clamp<int16_t>(changes[k], -255, 0));
    }
}

void filter_portable(const int16_t* filters, const TensorRow* const* tensors, const LumaRow* const* rows,
                     int32_t cells, ChangeRow* y) {
    int32_t classes[kFilterCells];
    for (int32_t k = 0; k < cells; ++k) {
        int32_t sums[3];
        for (int32_t t = 0; t < 3; ++t) sums[t] = smooth([=](int32_t i) { return tensors[i]->products[t][k]; });
        classes[k] = class_of(sums[0], sums[1], sums[2]);
    }
    int16_t weights[kFilterWeights][kFilterCells];
    for (int32_t k = 0; k < cells; ++k)
        for (int32_t i = 0; i < kFilterWeights; ++i) weights[i][k] = filters[classes[k] * kFilterStride + i];
    for (int32_t row = 0; row < 2; ++row) {
        filter_columns<0>(weights, rows + 2 + row, cells, y[row]);
        filter_columns<1>(weights, rows + 2 + row, cells, y[row]);
    }
}

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(uint32_t (&state)[8], const uint8_t* data) {
    uint32_t w[64];
    for (size_t i = 0; i < 16; ++i)
        w[i] = static_cast<uint32_t>(data[4 * i]) << 24 | static_cast<uint32_t>(data[4 * i + 1]) << 16 |
               static_cast<uint32_t>(data[4 * i + 2]) << 8 | data[4 * i + 3];
    for (size_t i = 16; i < 64; ++i) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    uint32_t s[8];
    std::memcpy(s, state, sizeof s);
    for (size_t i = 0; i < 64; ++i) {
        const uint32_t t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                            ((s[4] & s[5]) ^ (~s[4] & s[6])) + kSha256Constants[i] + w[i];
        const uint32_t t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
                            ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        for (size_t j = 7; j > 0; --j) s[j] = s[j - 1];
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (size_t i = 0; i < 8; ++i) state[i] += s[i];
}

void sha256_blocks(uint32_t (&state)[8], const uint8_t* data, size_t blocks) {
#if POCKETLIC_X86 || POCKETLIC_DOT
    if (has_sha256()) return sha256_processor(state, data, blocks);
#endif
    for (; blocks > 0; --blocks, data += 64) sha256_block(state, data);
}

const Kernels* kernels(size_t index) {
    for (const Kernels* k : kAll)
        if (k->supported() && index-- == 0) return k;
    return nullptr;
}

}  // namespace pocketlic
