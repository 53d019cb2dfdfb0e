// From symbols to pixels, a tile of 64 x 64 latents at a time.
#pragma once

#include "bands.h"
#include "parameters.h"
#include "postfilter.h"

namespace pocketlic {

// Working memory of one thread.
class TileDecoder {
public:
    explicit TileDecoder(Picture& picture)
        : picture_(picture), model_(picture.model), workspace_(picture.memory), parameters_(picture, workspace_) {}

    // Rows from .. to - 1 of the picture, as far as they lie in a tile of latents, whose bands are there; target is row
    // `from`. False without memory.
    bool decode(const Region& tile, const Bands& bands, int32_t from, int32_t to, uint8_t* target, size_t stride);

    // The latents whose symbols that needs, and about how many bytes it takes.
    Region needs(const Region& tile, int32_t from, int32_t to) const;
    uint64_t bytes(const Region& tile, int32_t from, int32_t to) const;

private:
    friend struct Whole;
    // Pixels that rows from .. to - 1 of a tile take: the post-filter looks around, from its cells of 2x2 pixels.
    Region shown(const Region& tile, int32_t from, int32_t to) const;
    // Latents that the synthesis of those takes.
    Region inputs_of(const Region& tile, const Region& pixels) const;
    // From column `left` on, as far as the pixels of a tile that `shown` named go.
    bool synthesise(const Region& pixels, const View* inputs, int32_t from, int32_t to, int32_t left, uint8_t* target,
                    size_t stride);
    // An area of pixels, filtered, without rows before `from`; target is that row.
    void show(const View& rgb, const Region& area, int32_t from, uint8_t* target, size_t stride);

    Picture& picture_;
    const plic_model& model_;
    Workspace workspace_;
    Parameters parameters_;
    Buffer<int8_t> planes_, details_, rgb_;
    PostFilter filter_;
};

}  // namespace pocketlic
