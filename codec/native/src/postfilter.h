// The post-filter: SPEC.md, section 6.4.
#pragma once

#include "network.h"

namespace pocketlic {

// From the components that the synthesis makes to pixels: strip by strip, and row by row in a strip.
class PostFilter {
public:
    // Rows from .. area.y1 - 1 of an area that begins on an even row and column; `out` is column 0 of row `from`, and
    // has 1 or 3 components. rgb: the components less 128 of the area and, with filters, of all within kFilterReach of
    // it that lies in the picture. filters: [class][kFilterStride], or null for none.
    void run(const Kernels& kernels, const int16_t* filters, const View& rgb, int32_t height, int32_t width,
             const Region& area, int32_t from, uint32_t components, uint8_t* out, size_t stride);

private:
    static constexpr int32_t kLumaRows = 16, kTensorRows = 8;  // those in memory, a power of two

    void read_luma(const Kernels& kernels, const View& rgb, int32_t height, int32_t width, const Region& strip,
                   int32_t row);

    LumaRow luma_[kLumaRows];        // the i-th is row strip.y0 - kFilterReach + i
    TensorRow tensors_[kTensorRows]; // the i-th is two rows of cells above the strip's i-th
    ChangeRow changes_[2];
    int8_t rgb_[3 * (2 * kFilterCells + 2 * kFilterReach + 128)];
    uint8_t shown_[3 * 2 * kFilterCells];
};

}  // namespace pocketlic
