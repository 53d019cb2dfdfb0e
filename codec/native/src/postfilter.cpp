#include "postfilter.h"

#include <algorithm>
#include <cstring>

namespace pocketlic {

// Beyond the picture's border stands what is nearest.
void PostFilter::read_luma(const Kernels& kernels, const View& rgb, int32_t height, int32_t width,
                           const Region& strip, int32_t row) {
    LumaRow& to = luma_[row % kLumaRows];
    const int32_t y = strip.y0 - kFilterReach + row;
    if (row > 0 && (y <= 0 || y >= height)) {
        to = luma_[(row - 1) % kLumaRows];
        return;
    }
    const int32_t cells = (strip.width() + 1) / 2 + kFilterReach;
    const int32_t first = strip.x0 - kFilterReach;
    const int32_t left = std::max(0, -first), right = std::min(2 * cells, width - first);
    std::memcpy(rgb_ + 3 * left, rgb.at(std::max(y, 0), first + left), 3 * static_cast<size_t>(right - left));
    for (int32_t x = 0; x < left; ++x) std::memcpy(rgb_ + 3 * x, rgb_ + 3 * left, 3);
    for (int32_t x = right; x < 2 * cells; ++x) std::memcpy(rgb_ + 3 * x, rgb_ + 3 * (right - 1), 3);
    kernels.luma(rgb_, cells, to);
}

void PostFilter::run(const Kernels& kernels, const int16_t* filters, const View& rgb, int32_t height, int32_t width,
                     const Region& area, int32_t from, uint32_t components, uint8_t* out, size_t stride) {
    if (filters == nullptr) std::memset(changes_, 0, sizeof changes_);
    for (int32_t x = area.x0; x < area.x1; x += 2 * kFilterCells) {
        const Region strip = {area.y0, x, area.y1, std::min(x + 2 * kFilterCells, area.x1)};
        const int32_t cells = (strip.width() + 1) / 2;
        int32_t rows = 0, tensors = 0;  // that were made
        for (int32_t i = 0; 2 * i < strip.height(); ++i) {
            if (filters != nullptr) {
                const TensorRow* around[5];
                const LumaRow* luma[6];
                for (; tensors < i + 5; ++tensors) {
                    for (; rows < 2 * tensors + 5; ++rows) read_luma(kernels, rgb, height, width, strip, rows);
                    for (int32_t k = 0; k < 4; ++k) luma[k] = luma_ + (2 * tensors + 1 + k) % kLumaRows;
                    kernels.tensors(luma, cells, tensors_[tensors % kTensorRows]);
                }
                for (int32_t k = 0; k < 5; ++k) around[k] = tensors_ + (i + k) % kTensorRows;
                for (int32_t k = 0; k < 6; ++k) luma[k] = luma_ + (2 * i + kFilterReach - 2 + k) % kLumaRows;
                kernels.filter(filters, around, luma, cells, changes_);
            }
            for (int32_t y = std::max(2 * i, from - strip.y0); y < std::min(2 * i + 2, strip.height()); ++y) {
                const auto n = static_cast<size_t>(strip.width());
                uint8_t* to = out + static_cast<size_t>(strip.y0 + y - from) * stride + static_cast<size_t>(x) * components;
                kernels.show(rgb.at(strip.y0 + y, x), changes_[y % 2], n, components == 3 ? to : shown_);
                if (components == 3) continue;
                for (size_t k = 0; k < n; ++k)
                    to[k] = static_cast<uint8_t>((shown_[3 * k] + 2 * shown_[3 * k + 1] + shown_[3 * k + 2] + 2) >> 2);
            }
        }
    }
}

}  // namespace pocketlic
