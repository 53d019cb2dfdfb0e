// A model file, checked and laid out for decoding. SPEC.md, section 3.
#pragma once

#include "network.h"
#include "plic.h"
#include "rans.h"

namespace pocketlic {

// Fills *error, if there is one, and returns the status.
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
plic_status fail(plic_error* error, plic_status status, const char* format, ...);

// What an allocation that answered null means.
plic_status no_memory(plic_error* error, const Memory& memory);

enum NetworkIndex { kAnalysis, kHyperAnalysis, kHyperSynthesis, kContext, kSynthesis, kNetworks };
extern const char* const kNetworkNames[kNetworks];

constexpr int32_t kStride = 64;        // pixels per cell of z; pictures are padded to a multiple
constexpr int32_t kLatent = 16;        // pixels per cell of y
constexpr int32_t kLatentsPerHyper = kStride / kLatent;
constexpr int32_t kMaxExponent = 14 * 256;  // of a step, in 2^-8 octaves
constexpr int32_t kQualities = 10000;

// Values of each channel at several qualities, which are evenly spaced.
struct Knots {
    const int32_t* values = nullptr;  // [count][channels]
    int32_t count = 0, channels = 0;
    // At a quality in hundredths, rounded down.
    int64_t at(int32_t quality, int32_t channel) const { return value(quality, channel, 0); }
    // The same to the nearest, halves up.
    int64_t nearest(int32_t quality, int32_t channel) const {
        return value(quality, channel, kQualities / (count - 1) / 2);
    }

private:
    int64_t value(int32_t quality, int32_t channel, int64_t more) const {
        const int32_t spacing = kQualities / (count - 1);
        const int32_t index = quality / spacing < count - 2 ? quality / spacing : count - 2;
        const int64_t part = quality - index * spacing;
        const int32_t* low = values + static_cast<size_t>(index) * static_cast<size_t>(channels) + channel;
        const int64_t sum = int64_t{low[0]} * (spacing - part) + int64_t{low[channels]} * part + more;
        return sum >= 0 ? sum / spacing : -((-sum + spacing - 1) / spacing);
    }
};

// z -> rows of one kind of symbol. Outputs are (dy, dx, channel) of the 4 x 4 latents of a cell.
struct RowPredictor {
    Pointwise accumulate;
    const int32_t* scale = nullptr;
    const int32_t* bias = nullptr;
};

// The end of the analysis of one kind of symbol: (sum(weight * x) - zero point * sums + bias) * 2^shift is the latent
// in 2^-8 of its grid.
struct Projection {
    Pointwise accumulate;
    const int32_t *bias = nullptr, *sums = nullptr;
    const int8_t* shift = nullptr;
    const int32_t* magnitudes = nullptr;  // sums of the weights' magnitudes
    Scaling scaling = {};                 // the same in 32 bits; null where those may not suffice
};

}  // namespace pocketlic

struct plic_model {
    explicit plic_model(const pocketlic::Kernels& k) : arena(memory), kernels(k) {}
    pocketlic::Memory memory;
    pocketlic::Arena arena;
    const pocketlic::Kernels& kernels;
    uint8_t id[32] = {};
    const char* profile = "";
    plic_runner* runner = nullptr;
    void* runner_user = nullptr;
    int32_t runner_tile = 0;  // pixels
    pocketlic::Network networks[pocketlic::kNetworks] = {};
    int32_t latents = 0, details = 0, hypers = 0;  // channels of y, of d folded, and of z
    pocketlic::RowPredictor y_rows, detail_rows;
    pocketlic::Pointwise magnitude_rows;  // magnitudes of y -> accumulators that add to the rows of d
    const int32_t* magnitude_scale = nullptr;
    const int8_t* magnitudes = nullptr;  // [128]
    pocketlic::Knots step_knots, row_knots, hyper_row_knots;
    const int8_t* hyper_prediction = nullptr;  // [hypers][3]
    pocketlic::Projection to_latents, to_details;  // to_details: of one cell at 1/8, a quarter of `details` channels
    pocketlic::Knots hyper_gain_knots;
    const int32_t* exp2 = nullptr;   // [256]
    const int32_t* steps = nullptr;  // [kMaxExponent + 1]: 2^(i/256), rounded, from the table exp2
    const uint16_t* wide = nullptr;  // ascending
    int32_t wide_count = 0;
    const uint8_t* fine_bits = nullptr;  // [latents]: 2 for wide channels, 0 for others
    pocketlic::Knots post_filter;  // by kFilterClasses x kFilterWeights; without values where there is none
    pocketlic::rans::TableSet tables;
};
