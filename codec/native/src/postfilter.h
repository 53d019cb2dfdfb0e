// The post-filter: SPEC.md, section 6.4.
#pragma once

#include "network.h"

namespace pocketlic {

constexpr int32_t kFilterClasses = 384, kFilterWeights = 12;
constexpr int32_t kFilterReach = 6;  // pixels around one that it depends on

// Block by block, in memory of its own. Loops are for a compiler to vectorize: even and odd columns apart, as 16 bits.
class PostFilter {
public:
    static constexpr int32_t kRows = 32, kColumns = 128;  // of a block, at most

    // What is added to the components of each pixel of a block: [row][kColumns].
    //
    // filters: [class][weight]. rgb: the components less 128 of the block and of all within kFilterReach of it that
    // lies in the picture, which has height x width pixels. The block begins on an even row and column.
    const int16_t* changes(const int16_t* filters, const View& rgb, int32_t height, int32_t width,
                           const Region& block);

private:
    static constexpr int32_t kCells = kColumns / 2;
    static constexpr int32_t kSmooth = 5;                       // cells whose weighted sum is taken
    static constexpr int32_t kHalf = kCells + kFilterReach;     // of the columns, even ones or odd ones

    void read_luma(const View& rgb, int32_t height, int32_t width, const Region& block, int32_t rows, int32_t cells);
    void sum_products(int32_t row, int32_t cells);
    void choose(const int16_t* filters, int32_t row, int32_t cells);
    template <int32_t kOdd>
    void filter(int32_t row, int32_t cells);

    int16_t luma_[kRows + 2 * kFilterReach][2][kHalf];          // even columns, odd columns
    int32_t sums_[kRows / 2 + kSmooth - 1][3][kCells];          // smoothed along rows
    int16_t weights_[kFilterWeights][kCells];                   // of a row of cells
    int16_t filtered_[2][kCells];
    int16_t changes_[kRows * kColumns];
};

}  // namespace pocketlic
