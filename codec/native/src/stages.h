// What lies between the networks, for callers that run those themselves, each on the whole picture:
//
//     decode   plic_decode_symbols -> z, y, d; hyper-synthesis(z) -> features, means, log2 steps
//              anchor_values -> context(features, anchors) -> means of the others
//              synthesis_inputs -> synthesis(planes, d_hat) -> show -> pixels
//     encode   analysis(pixels) -> project -> hyper-analysis(coarse y, coarse d) -> z -> hyper-synthesis
//              quantize_anchors -> context -> quantize_others -> plic_encode_symbols
//
// Arrays are [row][column][channel] and have the counts that `info` implies, which the caller checks.
#pragma once

#include "plic.h"

namespace pocketlic {

// Outputs of the hyper-synthesis; or, for what is no anchor, means of the context and the same steps.
struct Hyper {
    const int8_t *means, *log2_steps;
};

// Latents of the anchors on the coarse grid, 0 elsewhere.
plic_status anchor_values(const plic_model& model, const plic_info& info, const Hyper& hyper, const int32_t* y,
                          int8_t* anchors, plic_error* error);

// context: means of what is no anchor.
plic_status synthesis_inputs(const plic_model& model, const plic_info& info, const Hyper& hyper,
                             const int8_t* context, const int32_t* y, const int32_t* details, int8_t* planes,
                             int8_t* d_hat, plic_error* error);

// The synthesis' output, cut to the picture's size [height][width][3] -> pixels as decoding gives them.
plic_status show(const plic_model& model, const plic_info& info, const int8_t* pixels, uint8_t* out,
                 plic_error* error);

// The analysis' outputs -> y in 2^-8 of the coarse grid, symbols of d, and both on their grids.
plic_status project(const plic_model& model, const plic_info& info, const int8_t* features, const int8_t* fine,
                    int32_t* y, int32_t* details, int8_t* coarse_y, int8_t* coarse_d, plic_error* error);

// y -> symbols where the anchors are; and their values.
plic_status quantize_anchors(const plic_model& model, const plic_info& info, const int8_t* z, const Hyper& hyper,
                             int32_t* y, int8_t* anchors, plic_error* error);

// y -> symbols where the others are, whose means are the context's; 0 for those of d that their rows skip.
plic_status quantize_others(const plic_model& model, const plic_info& info, const int8_t* z, const Hyper& context,
                            int32_t* y, int32_t* details, plic_error* error);

}  // namespace pocketlic
