// From a file to symbols to pixels: SPEC.md, sections 5 and 6.
//
//     z                            decoded whole, from the first band's stream: 1/64 byte a pixel
//     y, d                         a band of 64 latent rows at a time, each once; those that a strip of tiles needs are kept
//     means, steps, planes, d_hat  a tile of 64 x 64 latents and what it needs around it
//     synthesis                    parts of a tile, small enough for a processor's cache
//     post-filter, pixels          blocks of a tile, smaller still
//
// Bands and tiles are decoded by several threads.
#pragma once

#include "tile.h"

namespace pocketlic {

// Working memory of one thread that reads symbols.
struct SymbolReader {
    explicit SymbolReader(Picture& picture) : indices_of(picture) {}
    TableIndices indices_of;
    Buffer<uint8_t> indices;
};

class Decoder {
public:
    // What it is given has to outlive it.
    Decoder(Picture& picture, plic_error* error)
        : picture_(picture), model_(picture.model), memory_(picture.memory), error_(error), bands_(picture) {}

    // Checks a file and prepares the picture for what it says.
    plic_status open(const uint8_t* data, size_t size);

    // z is what the first band's stream begins with.
    plic_status decode_z();

    // Symbols of a band into y[0 .. band_count of latents) and details[0 .. band_count of details), which hold zeros.
    template <typename T>
    plic_status decode_band(int32_t band, SymbolReader& reader, T* y, T* details, plic_error* error) const;

    // Where pixels go: to `out`, `stride` bytes from row to row; or, without it, strip by strip to the sink.
    struct Target {
        uint8_t* out;
        size_t stride;
        plic_row_sink* sink;
        void* user;
    };
    // Decodes rows first .. first + rows - 1, at least one.
    plic_status decode_pixels(int32_t first, int32_t rows, const Target& target);

private:
    class Schedule;

    rans::Reader stream(int32_t band) const { return {data_ + file_.bands[band].offset, file_.bands[band].size}; }
    static plic_status damaged(rans::Status status, plic_error* error) {
        return fail(error, PLIC_ERROR_FORMAT, "damaged payload: %s", rans::message(status));
    }

    Picture& picture_;
    const plic_model& model_;
    Memory& memory_;
    plic_error* error_;
    const uint8_t* data_ = nullptr;
    Container file_;
    rans::Reader behind_z_;
    Bands bands_;
};

}  // namespace pocketlic
