// One picture that is decoded or encoded: its grids, what its quality says, and z.
//
// Once z is known nothing in it changes, so threads share it.
#pragma once

#include <algorithm>

#include "container.h"
#include "model.h"

namespace pocketlic {

// Elements of a picture's symbols.
struct Counts {
    uint64_t z, y, details;
};

// Elements of a grid, and where a cell of it begins.
constexpr uint64_t count(int32_t height, int32_t width, int32_t channels) {
    return static_cast<uint64_t>(height) * static_cast<uint64_t>(width) * static_cast<uint64_t>(channels);
}
constexpr size_t index(int32_t y, int32_t x, int32_t width, int32_t channels) {
    return (static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)) *
           static_cast<size_t>(channels);
}

// Whether the latents of a half of the channels are anchors there: those whose means come first.
constexpr bool is_anchor(int32_t y, int32_t x, bool second_half) {
    return ((y + x + (second_half ? 1 : 0)) & 1) == 0;
}

// Calls f(i) for each value that is not 0: few are.
template <typename T, typename Function>
void for_nonzero(const T* values, size_t n, Function f) {
    constexpr size_t kRun = 8;
    for (size_t i = 0; i < n; i += kRun) {
        const size_t end = std::min(i + kRun, n);
        T any = 0;
        if (end == i + kRun)
            for (size_t k = 0; k < kRun; ++k) any = static_cast<T>(any | values[i + k]);
        else
            any = 1;
        if (any == 0) continue;
        for (size_t k = i; k < end; ++k)
            if (values[k] != 0) f(k);
    }
}

class Picture {
public:
    Picture(const plic_model& m, const plic_limits* limits);
    Picture(const Picture&) = delete;
    Picture& operator=(const Picture&) = delete;

    const plic_model& model;
    Memory memory;
    plic_info info = {};
    int32_t zh = 0, zw = 0, lh = 0, lw = 0;  // of the grids of z and of latents
    int32_t quality_hundredths = 0;
    int32_t threads = 1;  // at most
    Buffer<int8_t> z;
    Buffer<int16_t> filters;  // the post-filter at the picture's quality; none if the model has none

    // For a picture that is to be encoded: width, height, components and quality of `wanted` count.
    plic_status begin(const plic_info& wanted, plic_error* error);
    // For one whose description is complete.
    plic_status prepare(const plic_info& described, plic_error* error);

    Counts counts() const {
        return {count(zh, zw, model.hypers), count(lh, lw, model.latents), count(lh, lw, model.details)};
    }

    int32_t bands() const { return static_cast<int32_t>(info.bands); }
    int32_t band_rows(int32_t band) const {
        return std::min(lh - band * static_cast<int32_t>(kBandRows), static_cast<int32_t>(kBandRows));
    }
    size_t band_count(int32_t band, int32_t channels) const {
        return static_cast<size_t>(count(band_rows(band), lw, channels));
    }

    // Step of a channel of y, or of details, which come behind.
    int32_t step(int32_t log2_step, size_t channel) const {
        const int32_t finer = std::clamp(log2_step, -64, 64);
        return model.steps[std::clamp(step_base_[channel] + 8 * finer, 0, kMaxExponent)];
    }

    uint64_t max_pixels() const { return max_pixels_; }

    // What `filters` are. False without memory.
    bool choose_filters();

    // Table indices of z.
    bool z_indices(Buffer<uint8_t>& indices);

    // Hands every element of z, in order, to put(index, prediction), by when those before have to be known.
    template <typename Put>
    void predict_z(Put put) {
        const auto hypers = static_cast<size_t>(model.hypers), row = static_cast<size_t>(zw) * hypers;
        for (int32_t y = 0; y < zh; ++y) {
            for (int32_t x = 0; x < zw; ++x) {
                const size_t cell = index(y, x, zw, model.hypers);
                const int8_t* const at = z.data() + cell;
                // Outside, what is nearest stands in: SPEC.md, section 5.
                const int8_t* const left = x > 0 ? at - hypers : y > 0 ? at - row : nullptr;
                const int8_t* const above = y > 0 ? at - row : left;
                const int8_t* const corner = x == 0 ? above : y == 0 ? left : at - row - hypers;
                const int8_t* weight = model.hyper_prediction;
                for (size_t c = 0; c < hypers; ++c, weight += 3) {
                    const int32_t sum =
                        left == nullptr ? 0 : weight[0] * left[c] + weight[1] * above[c] + weight[2] * corner[c];
                    put(cell + c, (sum + 32) >> 6);
                }
            }
        }
    }

    Steps steps() const { return {step_base_.data(), model.steps, kMaxExponent}; }
    // Of details, whose log2_step is 0.
    const int32_t* detail_steps() const { return detail_steps_.data(); }

private:
    uint64_t max_pixels_;
    Buffer<int32_t> detail_steps_;
    Buffer<int32_t> step_base_;  // what quality says about each channel's step
};

}  // namespace pocketlic
