#include "postfilter.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace pocketlic {
namespace {

int16_t narrow(int32_t value) { return static_cast<int16_t>(value); }

}  // namespace

// Luma in quarters; beyond the picture's border what is nearest.
void PostFilter::read_luma(const View& rgb, int32_t height, int32_t width, const Region& block, int32_t rows,
                           int32_t cells) {
    const int32_t first = block.x0 - kFilterReach, columns = 2 * (cells + kFilterReach);
    const int32_t left = std::max(0, -first), right = std::min(columns, width - first);
    int16_t luma[2 * kHalf];
    for (int32_t i = 0; i < rows; ++i) {
        const int32_t y = block.y0 - kFilterReach + i;
        if (i > 0 && (y <= 0 || y >= height)) {
            std::memcpy(luma_[i], luma_[i - 1], sizeof luma_[i]);
            continue;
        }
        const int8_t* from = rgb.at(std::max(y, 0), first + left);
        for (int32_t j = 0; j < right - left; ++j)
            luma[left + j] =
                narrow((54 * from[3 * j] + 183 * from[3 * j + 1] + 19 * from[3 * j + 2] + 128 * 256 + 32) >> 6);
        std::fill(luma, luma + left, luma[left]);
        std::fill(luma + right, luma + columns, luma[right - 1]);
        for (int32_t k = 0; k < columns / 2; ++k) {
            luma_[i][0][k] = luma[2 * k];
            luma_[i][1][k] = luma[2 * k + 1];
        }
    }
}

// Products of the changes across and down, over the cells of a row, then smoothed along it.
void PostFilter::sum_products(int32_t row, int32_t cells) {
    const auto &above = luma_[2 * row + 1], &upper = luma_[2 * row + 2], &lower = luma_[2 * row + 3],
               &below = luma_[2 * row + 4];
    int32_t products[3][kCells + kSmooth - 1];
    for (int32_t k = 0; k < cells + kSmooth - 1; ++k) {
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
    for (int32_t t = 0; t < 3; ++t) {
        const int32_t* p = products[t];
        int32_t* to = sums_[row][t];
        for (int32_t k = 0; k < cells; ++k) to[k] = p[k] + p[k + 4] + 2 * (p[k + 1] + p[k + 3]) + 3 * p[k + 2];
    }
}

// The weights of a row of cells, by their classes.
void PostFilter::choose(const int16_t* filters, int32_t row, int32_t cells) {
    int32_t tensors[3][kCells], classes[kCells];
    for (int32_t t = 0; t < 3; ++t) {
        const auto* sums = sums_ + row;
        for (int32_t k = 0; k < cells; ++k)
            tensors[t][k] =
                sums[0][t][k] + sums[4][t][k] + 2 * (sums[1][t][k] + sums[3][t][k]) + 3 * sums[2][t][k];
    }
    for (int32_t k = 0; k < cells; ++k) {
        const int32_t energy = (tensors[0][k] + tensors[2][k]) >> 8;
        const int32_t u = tensors[0][k] - tensors[2][k], v = 2 * tensors[1][k];
        const int32_t x = std::abs(u) >> 8, y = std::abs(v) >> 8;
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
        classes[k] = (strength * 4 + straight) * 16 + direction;
    }
    for (int32_t k = 0; k < cells; ++k) {
        const int16_t* weight = filters + classes[k] * kFilterWeights;
        for (int32_t i = 0; i < kFilterWeights; ++i) weights_[i][k] = weight[i];
    }
}

// The even or the odd pixels of a row, whose cells' weights are at hand.
template <int32_t kOdd>
void PostFilter::filter(int32_t row, int32_t cells) {
    const auto* centre = luma_ + row + kFilterReach;
    const auto at = [centre](int32_t down, int32_t right, int32_t k) -> int32_t {
        const int32_t column = kFilterReach + kOdd + right;
        return centre[down][column % 2][column / 2 + k];
    };
    for (int32_t k = 0; k < cells; ++k) {
        const int32_t twice = 2 * at(0, 0, k);
        const auto term = [&](int32_t i, int32_t down, int32_t right) -> int32_t {
            return weights_[i][k] * narrow(at(down, right, k) + at(-down, -right, k) - twice);
        };
        int32_t sum = 512 + term(0, 0, 1) + term(1, 0, 2);
        sum += term(2, 1, -2) + term(3, 1, -1) + term(4, 1, 0) + term(5, 1, 1) + term(6, 1, 2);
        sum += term(7, 2, -2) + term(8, 2, -1) + term(9, 2, 0) + term(10, 2, 1) + term(11, 2, 2);
        filtered_[kOdd][k] = narrow(sum >> 10);
    }
}

const int16_t* PostFilter::changes(const int16_t* filters, const View& rgb, int32_t height, int32_t width,
                                   const Region& block) {
    const int32_t rows = (block.height() + 1) / 2, cells = (block.width() + 1) / 2;
    read_luma(rgb, height, width, block, 2 * (rows + kFilterReach), cells);
    for (int32_t i = 0; i < rows + kSmooth - 1; ++i) sum_products(i, cells);
    for (int32_t i = 0; i < rows; ++i) {
        choose(filters, i, cells);
        for (int32_t y = 2 * i; y < 2 * i + 2; ++y) {
            filter<0>(y, cells);
            filter<1>(y, cells);
            int16_t* to = changes_ + y * kColumns;
            for (int32_t k = 0; k < cells; ++k) {
                to[2 * k] = filtered_[0][k];
                to[2 * k + 1] = filtered_[1][k];
            }
        }
    }
    return changes_;
}

}  // namespace pocketlic
