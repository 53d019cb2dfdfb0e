#include "table_indices.h"

namespace pocketlic {
namespace {

constexpr int32_t kCellsAtATime = 16;                           // of z
constexpr size_t kMagnitudes = kCellsAtATime * kLatentsPerHyper;  // latents whose magnitudes are summed at a time
constexpr size_t kCellLatents = kLatentsPerHyper * kLatentsPerHyper;

}  // namespace

bool TableIndices::allocate() {
    const auto latents = static_cast<uint64_t>(model_.latents), details = static_cast<uint64_t>(model_.details);
    const uint64_t widest = std::max(latents, details);
    Memory& memory = picture_.memory;
    return base_.reserve(memory, kCellLatents * widest) &&
           acc_.reserve(memory, kCellLatents * widest * kCellsAtATime) &&
           magnitude_acc_.reserve(memory, details * kMagnitudes) &&
           magnitudes_.reserve(memory, latents * kMagnitudes) &&
           scratch_.reserve(memory, std::max({model_.kernels.scratch(model_.y_rows.accumulate),
                                              model_.kernels.scratch(model_.detail_rows.accumulate),
                                              model_.kernels.scratch(model_.magnitude_rows)}));
}

bool TableIndices::of_y(const Region& region, uint8_t* indices) {
    if (!allocate()) return false;
    predict(region, model_.y_rows, 0, model_.latents, indices, [](size_t) { return nullptr; });
    return true;
}

template <typename T>
bool TableIndices::of_details(int32_t top, int32_t bottom, const T* y, uint8_t* indices) {
    if (!allocate()) return false;
    const auto n = static_cast<size_t>(model_.details), latents = static_cast<size_t>(model_.latents);
    size_t known = 0, end = 0;  // the latents whose sums are in magnitude_acc_
    const auto all = static_cast<size_t>(count(bottom - top, picture_.lw, 1));
    predict({top, 0, bottom, picture_.lw}, model_.detail_rows, model_.latents, model_.details, indices, [&](size_t latent) {
        if (latent < known || latent >= end) {
            known = latent;
            end = std::min(latent + kMagnitudes, all);
            const T* symbol = y + known * latents;
            const int8_t* table = model_.magnitudes;
            int8_t* to = magnitudes_.data();
            const size_t channels = (end - known) * latents;
            for (size_t i = 0; i < channels; ++i)
                to[i] = static_cast<int8_t>(std::min<T>(static_cast<T>(symbol[i] < 0 ? -symbol[i] : symbol[i]), 127));
            for (size_t i = 0; i < channels; ++i) to[i] = table[to[i]];
            model_.kernels.accumulate(model_.magnitude_rows, to, end - known, magnitude_acc_.data(), scratch_.data());
        }
        return magnitude_acc_.data() + (latent - known) * n;
    });
    return true;
}

template bool TableIndices::of_details(int32_t, int32_t, const int16_t*, uint8_t*);
template bool TableIndices::of_details(int32_t, int32_t, const int32_t*, uint8_t*);

// more(i): accumulators of the i-th latent that are added with magnitude_scale, or null.
template <typename More>
void TableIndices::predict(const Region& region, const RowPredictor& predictor, int32_t first, int32_t channels,
                           uint8_t* indices, More more) {
    const auto last = static_cast<int32_t>(model_.tables.row_count()) - 1;
    const auto depth = static_cast<size_t>(channels);
    for (size_t c = 0; c < depth; ++c) {
        const int64_t knot =
            model_.row_knots.at(picture_.quality_hundredths, first + static_cast<int32_t>(c)) + (1 << 15);
        for (size_t i = c; i < kCellLatents * depth; i += depth) base_[i] = predictor.bias[i] + knot;
    }
    const int32_t left = region.x0 / kLatentsPerHyper, right = region.x1 / kLatentsPerHyper;  // in cells of z
    for (int32_t y = region.y0; y < region.y1; y += kLatentsPerHyper) {
        for (int32_t x = left; x < right; x += kCellsAtATime) {
            const int32_t cells = std::min(kCellsAtATime, right - x);
            const int8_t* z = picture_.z.data() + index(y / kLatentsPerHyper, x, picture_.zw, model_.hypers);
            model_.kernels.accumulate(predictor.accumulate, z, static_cast<size_t>(cells), acc_.data(),
                                      scratch_.data());
            // Row by row, so that more() is asked for one run of latents after the other.
            for (int32_t dy = 0; dy < kLatentsPerHyper; ++dy) {
                for (int32_t column = 0; column < cells * kLatentsPerHyper; ++column) {
                    const int32_t cell = column / kLatentsPerHyper;
                    const int32_t of_cell = dy * kLatentsPerHyper + column % kLatentsPerHyper;
                    const auto part = static_cast<size_t>(of_cell) * depth;
                    const size_t to = index(y - region.y0 + dy, (x - left) * kLatentsPerHyper + column, region.width(),
                                            channels);
                    const int32_t* added = more(to / depth);
                    const Term terms[2] = {{acc_.data() + static_cast<size_t>(cell) * kCellLatents * depth + part,
                                            predictor.scale + part},
                                           {added, model_.magnitude_scale}};
                    model_.kernels.rows(terms, added != nullptr ? 2 : 1, base_.data() + part, depth, last,
                                        indices + to);
                }
            }
        }
    }
}

}  // namespace pocketlic
