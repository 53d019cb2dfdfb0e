// Which probability table codes each symbol of y and of details: SPEC.md, section 5. No network is involved.
#pragma once

#include "picture.h"

namespace pocketlic {

// Working memory of one thread.
class TableIndices {
public:
    explicit TableIndices(Picture& picture) : picture_(picture), model_(picture.model) {}

    // Of y, [row][column][channel], in a region of latents, which begins and ends with cells of z. From z. False without
    // memory.
    bool of_y(const Region& region, uint8_t* indices);

    // Of details in latent rows top .. bottom - 1, from z and from the symbols of y in these rows, of which y is the first.
    template <typename T>
    bool of_details(int32_t top, int32_t bottom, const T* y, uint8_t* indices);

private:
    bool allocate();
    template <typename More>
    void predict(const Region& region, const RowPredictor& predictor, int32_t first, int32_t channels,
                 uint8_t* indices, More more);

    Picture& picture_;
    const plic_model& model_;
    Buffer<int64_t> base_;  // what is added to the scaled accumulators
    Buffer<int32_t> acc_, magnitude_acc_;
    Buffer<int8_t> magnitudes_;
    Buffer<uint8_t> scratch_;
};

}  // namespace pocketlic
