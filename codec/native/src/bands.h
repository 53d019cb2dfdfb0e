// Symbols of y and of details, a band of 64 latent rows at a time.
#pragma once

#include "table_indices.h"

namespace pocketlic {

struct Band {
    Buffer<int16_t> y, details;
};

// Of a picture's bands those that tiles need, each in its place, which later ones take over.
class Bands {
public:
    explicit Bands(const Picture& picture) : picture_(picture) {}

    void keep(int32_t places) { places_ = places; }
    Band& place(int32_t band) { return bands_[band % places_]; }

    // Symbols of all channels at a latent whose band is there.
    const int16_t* y(int32_t row, int32_t column) const {
        return of(row).y.data() + index(row % kRows, column, picture_.lw, picture_.model.latents);
    }
    const int16_t* details(int32_t row, int32_t column) const {
        return of(row).details.data() + index(row % kRows, column, picture_.lw, picture_.model.details);
    }

private:
    static constexpr int32_t kRows = kBandRows;
    const Band& of(int32_t row) const { return bands_[row / kRows % places_]; }

    const Picture& picture_;
    int32_t places_ = 1;
    Band bands_[kMaxBands];
};

}  // namespace pocketlic
