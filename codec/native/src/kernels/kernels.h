// The loops that take the time. Each set of kernels computes the same integers; "portable" defines them.
//
// Activations are int8 [pixel][channel]. What SPEC.md writes as bias + sum(weight * (x - zero point)) is computed as
// (bias - zero point * sum(weight)) + sum(weight * x): the same in 32 bits, and the first term is made once.
#pragma once

#include "../memory.h"

namespace pocketlic {

// Output channels are worked on in blocks of 16; arrays below are padded with zeros to a whole block.
constexpr int32_t kBlock = 16;

struct Pointwise {
    int32_t inputs = 0, outputs = 0;
    const void* weight = nullptr;    // as the kernels' pack() lays it out
    const int32_t* bias = nullptr;   // with the correction above
    const int32_t* shift = nullptr;  // 1 .. 30
    int32_t zero = 0, low = -128;    // y = clamp(((acc + 2^(shift-1)) >> shift) + zero, low, 127)
};

struct Depthwise {
    int32_t channels = 0, kernel = 0;
    const int16_t* weight = nullptr;  // [kernel][kernel][channels]
    const int32_t* bias = nullptr;    // as in the model
    const int32_t* shift = nullptr;
    int32_t zero_in = 0, zero = 0, low = -128;
    const void* packed = nullptr;  // as the kernels' pack_depthwise() lays weights and biases out; null if it does not
};

// Columns of a row of pixels: inputs begin at x0 and end before x1, outputs are first .. end - 1. Where an input is
// missing, the picture has ended.
struct Span {
    int32_t x0, x1, first, end;
};

// Accumulators and what they are multiplied by.
struct Term {
    const int32_t *acc, *scale;
};

// What the post-filter works on: cells of 2x2 pixels, at most kFilterCells in a row. Behind them is room for vectors.
constexpr int32_t kFilterClasses = 384, kFilterWeights = 12;
constexpr int32_t kFilterStride = 16;  // of a class' weights in memory
constexpr int32_t kFilterReach = 6;    // pixels around one that it depends on
constexpr int32_t kFilterCells = 128;
struct alignas(64) LumaRow {  // of pixels: even columns and odd ones, in quarters
    int16_t columns[2][kFilterCells + 64];
};
struct alignas(64) TensorRow {  // of cells: products of the luma's changes, across, both and down, and their sums
    int32_t products[3][kFilterCells + 64];
};
struct alignas(64) ChangeRow {  // of pixels: what is added to all components, and what is taken off
    uint8_t plus[2 * kFilterCells + 64], minus[2 * kFilterCells + 64];
};

// Steps of channels: table[clamp(base + 8 * clamp(log2_step, -64, 64), 0, last)].
struct Steps {
    const int32_t *base, *table;
    int32_t last;
};

// v = ((acc + bias) >> down) << up, where the bias holds what rounds; one of the shifts is 0.
struct Scaling {
    const int32_t *bias, *down, *up;
};

struct Kernels {
    const char* name;
    bool (*supported)();
    // Lays out int8 [outputs][inputs] weights and the bias with its correction, for `pointwise`, or, without a shift,
    // for `accumulate`. Of layers, whose weights are even. False without memory.
    bool (*pack)(Arena& arena, const int8_t* weight, const int32_t* bias, int32_t zero_in, Pointwise& to);
    // Bytes that `pointwise` needs at `scratch`.
    size_t (*scratch)(const Pointwise&);
    void (*pointwise)(const Pointwise&, const int8_t* x, size_t pixels, int8_t* y, void* scratch);
    // The accumulators themselves, int32 [pixels][outputs].
    void (*accumulate)(const Pointwise&, const int8_t* x, size_t pixels, int32_t* y, void* scratch);
    // Table rows: y = clamp((sum of acc * scale of all terms + base) >> 16, 0, last), last < 256.
    void (*rows)(const Term* terms, size_t n_terms, const int64_t* base, size_t count, int32_t last, uint8_t* y);
    // Sets `packed`. False without memory.
    bool (*pack_depthwise)(Arena& arena, Depthwise& to);
    // Rows of outputs, without gaps. rows[dy .. dy + kernel - 1]: the input rows of the dy-th one at column x0, null
    // above and below the picture.
    void (*depthwise)(const Depthwise&, const int8_t* const* rows, int32_t n_rows, const Span&, int8_t* y);
    // y = clamp(a + b + offset, low, 127)
    void (*add)(const int8_t* a, const int8_t* b, int32_t offset, int32_t low, size_t count, int8_t* y);
    // What lies between networks, of n channels, a multiple of 16. Sets may lack these: then all four are null.
    //
    // Symbols -> latents on the coarse grid: y = clamp((mean * 2^bits + symbol * step + 2^bits / 2) >> bits). y may be
    // mean.
    void (*latents)(const int16_t* symbol, const int8_t* mean, const int8_t* log2_step, const Steps&,
                    const uint8_t* bits, size_t n, int8_t* y);
    // y = clamp(symbol * step)
    void (*details)(const int16_t* symbol, const int32_t* step, size_t n, int8_t* y);
    // Sums -> latents in 2^-8 of the coarse grid, as far as they fit, and rounded to that grid.
    void (*project)(const int32_t* acc, const Scaling&, size_t n, int16_t* y, int8_t* coarse);
    // Latents less means, in 2^-8 of the coarse grid -> symbols, in place; 0 where the table index is below `skip`.
    // Without `index`: of details, whose step is steps.base and whose mean is 0.
    void (*quantize)(int16_t* value, const int8_t* mean, const int8_t* log2_step, const Steps& steps,
                     const uint8_t* index, uint8_t skip, size_t n);
    // The post-filter, SPEC.md, section 6.4, row by row. Components are less 128.
    //
    // Luma of 2 * cells pixels. There is room for 3 * 128 bytes behind them.
    void (*luma)(const int8_t* rgb, int32_t cells, LumaRow& y);
    // Structure tensors of a row of cells, smoothed along it. rows: that above, its own two, and that below; they begin
    // kFilterReach columns before the cells.
    void (*tensors)(const LumaRow* const* rows, int32_t cells, TensorRow& y);
    // What the filters of the cells' classes change. tensors: five rows around; rows: two above, its own, two below.
    void (*filter)(const int16_t* filters, const TensorRow* const* tensors, const LumaRow* const* rows, int32_t cells,
                   ChangeRow* y);
    // Pixels as they are shown.
    void (*show)(const int8_t* rgb, const ChangeRow&, size_t pixels, uint8_t* y);
};

// Those this machine can run, fastest first; null behind the last.
const Kernels* kernels(size_t index);

}  // namespace pocketlic
