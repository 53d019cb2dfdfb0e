#include "tile.h"

#include <cstring>

namespace pocketlic {

bool TileDecoder::decode(const Region& tile, const Bands& bands, int32_t from, int32_t to, uint8_t* target,
                         size_t stride) {
    const Region pixels = shown(tile, from, to);

    const Region around = inputs_of(tile, pixels), wide = parameters_.around(around);
    const auto symbols = [&bands](int32_t y, int32_t x) { return bands.y(y, x); };
    const auto details = [&bands](int32_t y, int32_t x) { return bands.details(y, x); };
    View inputs[2];
    if (!parameters_.hyper(wide) || !parameters_.context(around, symbols) ||
        !parameters_.view(planes_, around, model_.latents + model_.wide_count, inputs[0]) ||
        !parameters_.view(details_, around, model_.details, inputs[1]))
        return false;
    Parameters::latent_values(picture_, around, parameters_.means, parameters_.log2_steps, parameters_.context_means,
                              symbols, details, inputs);
    return synthesise(pixels, inputs, from, to, tile.x0 * kLatent, target, stride);
}

Region TileDecoder::inputs_of(const Region& tile, const Region& pixels) const {
    Region regions[kMaxTensors];
    plan(model_.networks[kSynthesis], picture_.lh, picture_.lw, &pixels, regions);
    Region around = regions[0];
    around.join(regions[1]);
    around.join(tile);
    return around;
}

Region TileDecoder::needs(const Region& tile, int32_t from, int32_t to) const {
    return parameters_.around(inputs_of(tile, shown(tile, from, to)));
}

uint64_t TileDecoder::bytes(const Region& tile, int32_t from, int32_t to) const {
    const Region pixels = shown(tile, from, to), around = inputs_of(tile, pixels), wide = parameters_.around(around);
    const Network& hyper = model_.networks[kHyperSynthesis];
    const int32_t features = hyper.tensors[hyper.outputs[0]].spec.channels;
    const int32_t parameters = features + 4 * model_.latents;
    const int32_t inputs = model_.latents + model_.wide_count + model_.details;
    const auto cells = [](const Region& r, int32_t channels) { return count(r.height(), r.width(), channels); };
    uint64_t networks = 0;  // all tensors of 256 x 256 pixels: slots, for some rows of a tile, take less
    const Network& synthesis = model_.networks[kSynthesis];
    constexpr int32_t kSide = 256;
    const Region part = {pixels.y0, pixels.x0, std::min(pixels.y0 + kSide, pixels.y1),
                         std::min(pixels.x0 + kSide, pixels.x1)};
    Region regions[kMaxTensors];
    plan(synthesis, picture_.lh, picture_.lw, &part, regions);
    for (uint32_t t = 0; t < synthesis.tensor_count(); ++t)
        networks += cells(regions[t], synthesis.tensors[t].spec.channels);
    return cells(wide, parameters) + cells(around, inputs) + cells(pixels, 3) + networks;
}

Region TileDecoder::shown(const Region& tile, int32_t from, int32_t to) const {
    const int32_t reach = picture_.filters.size() > 0 ? kFilterReach : 0;
    const auto height = static_cast<int32_t>(picture_.info.height), width = static_cast<int32_t>(picture_.info.width);
    return {std::max(from / 2 * 2 - reach, 0), std::max(tile.x0 * kLatent - reach, 0),
            std::min(to + reach, height), std::min(tile.x1 * kLatent + reach, width)};
}

bool TileDecoder::synthesise(const Region& pixels, const View* inputs, int32_t from, int32_t to, int32_t left,
                             uint8_t* target, size_t stride) {
    View rgb;
    if (!parameters_.view(rgb_, pixels, 3, rgb)) return false;
    // As many parts as there would be without what lies around.
    const auto parts = [part = part_of(model_) * kLatent](int32_t side) {
        constexpr int32_t kAround = 2 * kFilterReach;
        return side <= part + kAround ? 1 : (side - kAround + part - 1) / part;
    };
    const int32_t rows = parts(pixels.height()), columns = parts(pixels.width());
    const auto bound = [](int32_t begin, int32_t end, int32_t i, int32_t n) {
        return i == 0 ? begin : i == n ? end : (begin + (end - begin) / n * i) / kLatent * kLatent;
    };
    for (int32_t i = 0; i < rows; ++i) {
        for (int32_t j = 0; j < columns; ++j) {
            const Region wanted = {
                bound(pixels.y0, pixels.y1, i, rows), bound(pixels.x0, pixels.x1, j, columns),
                bound(pixels.y0, pixels.y1, i + 1, rows), bound(pixels.x0, pixels.x1, j + 1, columns)};
            if (!run(model_, kSynthesis, workspace_, picture_.lh, picture_.lw, inputs, &wanted, &rgb)) return false;
        }
    }
    const int32_t right = std::min(pixels.x1, left + kTileColumns * kLatent);
    show(rgb, {from / 2 * 2, left, to, right}, from, target, stride);
    return true;
}

void TileDecoder::show(const View& rgb, const Region& area, int32_t from, uint8_t* target, size_t stride) {
    filter_.run(model_.kernels, picture_.filters.data(), rgb, static_cast<int32_t>(picture_.info.height),
                static_cast<int32_t>(picture_.info.width), area, from, picture_.info.components, target, stride);
}

}  // namespace pocketlic
