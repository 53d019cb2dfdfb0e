// From a file to symbols to pixels: SPEC.md, sections 5 and 6.
//
//     z                            decoded whole, from the first band's stream: 1/64 byte a pixel
//     y, d                         a band of 64 latent rows at a time; the bands that a row of tiles needs are kept
//     means, steps, planes, d_hat  a tile of 32 x 64 latents and what it needs around it
//     synthesis                    parts of a tile, small enough for a processor's cache
//     post-filter, pixels          blocks of a tile, smaller still
#pragma once

#include "parameters.h"
#include "postfilter.h"
#include "table_indices.h"

namespace pocketlic {

class Decoder {
public:
    // What it is given has to outlive it.
    Decoder(Picture& picture, plic_error* error)
        : picture_(picture), model_(picture.model), memory_(picture.memory), error_(error), workspace_(memory_),
          indices_of_(picture), parameters_(picture, workspace_) {}

    // Checks a file and prepares the picture for what it says.
    plic_status open(const uint8_t* data, size_t size, uint64_t max_pixels);

    // z is what the first band's stream begins with.
    plic_status decode_z();

    // Symbols of a band into y[0 .. band_count of latents) and details[0 .. band_count of details), which hold zeros.
    template <typename T>
    plic_status decode_band(int32_t band, T* y, T* details);

    // Decodes rows first .. first + rows - 1. Their pixels go to out, `stride` bytes from row to row; or, without
    // `out`, strip by strip to the sink.
    plic_status decode_pixels(int32_t first, int32_t rows, uint8_t* out, size_t stride, plic_row_sink* sink,
                              void* user);

private:
    friend struct Whole;
    struct Band {
        int32_t number = -1;
        Buffer<int16_t> y, details;
    };
    static constexpr int32_t kKeptBands = 8;

    rans::Reader stream(int32_t band) const { return {data_ + file_.bands[band].offset, file_.bands[band].size}; }
    plic_status damaged(rans::Status status) {
        return fail(error_, PLIC_ERROR_FORMAT, "damaged payload: %s", rans::message(status));
    }

    // Makes sure that the bands of these latent rows are at hand.
    plic_status require_bands(int32_t y0, int32_t y1);
    const Band& band_of(int32_t y) const {
        const Band* band = bands_;
        while (band->number != y / static_cast<int32_t>(kBandRows)) ++band;
        return *band;
    }

    // The post-filter at the picture's quality: what `shown` and `show` need.
    bool choose_filters();
    // Pixels that rows from .. to - 1 of a tile take: the post-filter looks around, from its cells of 2x2 pixels.
    Region shown(const Region& tile, int32_t from, int32_t to) const;
    // Rows from .. to - 1 of the picture, as far as they lie in a tile of latents; target is row `from`.
    plic_status decode_tile(const Region& tile, int32_t from, int32_t to, uint8_t* target, size_t stride);
    // The same from column `left` on, as far as the pixels of a tile that `shown` named go.
    plic_status synthesise(const Region& pixels, const View* inputs, int32_t from, int32_t to, int32_t left,
                           uint8_t* target, size_t stride);
    // An area of pixels, filtered, without rows before `from`; target is that row.
    void show(const View& rgb, const Region& area, int32_t from, uint8_t* target, size_t stride);

    Picture& picture_;
    const plic_model& model_;
    Memory& memory_;
    plic_error* error_;
    const uint8_t* data_ = nullptr;
    Container file_;
    rans::Reader behind_z_;
    Workspace workspace_;
    TableIndices indices_of_;
    Parameters parameters_;
    Buffer<uint8_t> indices_;
    Band bands_[kKeptBands];
    Buffer<int8_t> planes_, details_, rgb_;
    Buffer<int16_t> filters_;  // at the picture's quality; none if the model has none
    PostFilter filter_;
};

}  // namespace pocketlic
