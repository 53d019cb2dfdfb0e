#include "decoder.h"

#include <cstring>

namespace pocketlic {

plic_status Decoder::open(const uint8_t* data, size_t size, uint64_t max_pixels) {
    data_ = data;
    const plic_status status = read_container(data, size, max_pixels, file_, error_);
    if (status != PLIC_OK) return status;
    if (std::memcmp(file_.info.model_id, model_.id, sizeof file_.info.model_id) != 0) {
        char ids[2][17];
        for (size_t i = 0; i < 16; ++i) {
            static constexpr char kDigits[] = "0123456789abcdef";
            const int shift = i % 2 == 0 ? 4 : 0;
            ids[0][i] = kDigits[file_.info.model_id[i / 2] >> shift & 15];
            ids[1][i] = kDigits[model_.id[i / 2] >> shift & 15];
        }
        ids[0][16] = ids[1][16] = 0;
        return fail(error_, PLIC_ERROR_MISMATCH, "the file was made by model %s, this decoder has %s", ids[0],
                    ids[1]);
    }
    return picture_.prepare(file_.info, error_);
}

plic_status Decoder::decode_z() {
    Buffer<uint8_t> indices;
    Buffer<int16_t> symbols;
    if (!picture_.z_indices(indices) || !symbols.allocate(memory_, indices.size())) return no_memory(error_, memory_);
    behind_z_ = stream(0);
    const rans::Status coded = behind_z_.read(model_.tables, indices.data(), indices.size(), symbols.data());
    if (coded != rans::Status::ok) return damaged(coded);
    bool sound = true;
    picture_.predict_z([&](size_t i, int32_t prediction) {
        const int32_t value = symbols[i] + prediction;
        sound = sound && value >= -128 && value <= 127;
        picture_.z[i] = static_cast<int8_t>(value);
    });
    return sound ? PLIC_OK : fail(error_, PLIC_ERROR_FORMAT, "damaged payload: z outside int8");
}

template <typename T>
plic_status Decoder::decode_band(int32_t band, T* y, T* details) {
    rans::Reader in = band == 0 ? behind_z_ : stream(band);
    const int32_t top = band * static_cast<int32_t>(kBandRows), bottom = top + picture_.band_rows(band);
    const size_t most = picture_.band_count(0, std::max(model_.latents, model_.details));
    if (!indices_.reserve(memory_, most) || !indices_of_.of_y(top, bottom, indices_.data()))
        return no_memory(error_, memory_);
    rans::Status coded =
        in.read(model_.tables, indices_.data(), picture_.band_count(band, model_.latents), y);
    if (coded != rans::Status::ok) return damaged(coded);
    if (!indices_of_.of_details(top, bottom, y, indices_.data())) return no_memory(error_, memory_);
    coded = in.read(model_.tables, indices_.data(), picture_.band_count(band, model_.details), details);
    if (coded == rans::Status::ok) coded = in.finish();
    return coded == rans::Status::ok ? PLIC_OK : damaged(coded);
}

template plic_status Decoder::decode_band(int32_t, int16_t*, int16_t*);
template plic_status Decoder::decode_band(int32_t, int32_t*, int32_t*);

bool Decoder::choose_filters() {
    const Knots& knots = model_.post_filter;
    if (knots.channels == 0) return true;
    if (!filters_.allocate(memory_, uint64_t{kFilterClasses} * kFilterStride)) return false;
    for (int32_t i = 0; i < knots.channels; ++i)
        filters_[static_cast<size_t>(i / kFilterWeights * kFilterStride + i % kFilterWeights)] =
            static_cast<int16_t>(knots.nearest(picture_.quality_hundredths, i));
    return true;
}

plic_status Decoder::decode_pixels(int32_t first, int32_t rows, uint8_t* out, size_t stride,
                                   plic_row_sink* sink, void* user) {
    const plic_info& info = picture_.info;
    const int32_t end = first + rows, latent_end = (end + kLatent - 1) / kLatent;
    const size_t row_bytes = static_cast<size_t>(info.width) * info.components;
    Buffer<uint8_t> strip;
    if (!choose_filters()) return no_memory(error_, memory_);
    if (out == nullptr &&
        !strip.allocate(memory_, uint64_t{row_bytes} * static_cast<uint64_t>(
                                                          std::min(rows, kTileRows * kLatent))))
        return no_memory(error_, memory_);
    for (int32_t top = first / kLatent; top < latent_end; top += kTileRows) {
        const int32_t bottom = std::min(top + kTileRows, latent_end);
        const int32_t from = std::max(first, top * kLatent), to = std::min(end, bottom * kLatent);
        uint8_t* const target =
            out != nullptr ? out + static_cast<size_t>(from - first) * stride : strip.data();
        for (int32_t left = 0; left * kLatent < static_cast<int32_t>(info.width); left += kTileColumns) {
            const int32_t columns = (static_cast<int32_t>(info.width) + kLatent - 1) / kLatent;
            const Region tile = {top, left, bottom, std::min(left + kTileColumns, columns)};
            const plic_status status =
                decode_tile(tile, from, to, target, out != nullptr ? stride : row_bytes);
            if (status != PLIC_OK) return status;
        }
        if (out == nullptr &&
            sink(user, static_cast<uint32_t>(from), static_cast<uint32_t>(to - from), target) != 0)
            return fail(error_, PLIC_ERROR_STOPPED, "stopped by the receiver of rows");
    }
    return PLIC_OK;
}

plic_status Decoder::require_bands(int32_t y0, int32_t y1) {
    const int32_t size = kBandRows, first = y0 / size, last = (y1 - 1) / size;
    if (last - first >= kKeptBands)
        return fail(error_, PLIC_ERROR_MODEL, "not a Pocketlic model: its networks see too far");
    for (int32_t band = first; band <= last; ++band) {
        Band* free = nullptr;
        bool found = false;
        for (Band& b : bands_) {
            found = found || b.number == band;
            if (b.number < first || b.number > last) {
                // One that has memory is better than one that needs it.
                if (free == nullptr || b.y.size() > free->y.size()) free = &b;
            }
        }
        if (found) continue;
        free->number = -1;
        if (!free->y.clear(memory_, picture_.band_count(0, model_.latents)) ||
            !free->details.clear(memory_, picture_.band_count(0, model_.details)))
            return no_memory(error_, memory_);
        const plic_status status = decode_band(band, free->y.data(), free->details.data());
        if (status != PLIC_OK) return status;
        free->number = band;
    }
    return PLIC_OK;
}

plic_status Decoder::decode_tile(const Region& tile, int32_t from, int32_t to, uint8_t* target, size_t stride) {
    const Region pixels = shown(tile, from, to);

    // What the tile needs: planes in `around`; for those, parameters in `wide`.
    Region regions[kMaxTensors];
    plan(model_.networks[kSynthesis], picture_.lh, picture_.lw, &pixels, regions);
    Region around = regions[0];
    around.join(regions[1]);
    around.join(tile);
    const Region wide = parameters_.around(around);
    const plic_status status = require_bands(wide.y0, wide.y1);
    if (status != PLIC_OK) return status;

    const auto symbols = [this](int32_t y, int32_t x) {
        return band_of(y).y.data() + index(y % static_cast<int32_t>(kBandRows), x, picture_.lw, model_.latents);
    };
    const auto details = [this](int32_t y, int32_t x) {
        return band_of(y).details.data() + index(y % static_cast<int32_t>(kBandRows), x, picture_.lw, model_.details);
    };
    View inputs[2];
    if (!parameters_.hyper(wide) || !parameters_.context(around, symbols) ||
        !parameters_.view(planes_, around, model_.latents + model_.wide_count, inputs[0]) ||
        !parameters_.view(details_, around, model_.details, inputs[1]))
        return no_memory(error_, memory_);
    Parameters::latent_values(picture_, around, parameters_.means, parameters_.log2_steps, parameters_.context_means,
                              symbols, details, inputs);
    return synthesise(pixels, inputs, from, to, tile.x0 * kLatent, target, stride);
}

Region Decoder::shown(const Region& tile, int32_t from, int32_t to) const {
    const int32_t reach = filters_.size() > 0 ? kFilterReach : 0;
    const auto height = static_cast<int32_t>(picture_.info.height), width = static_cast<int32_t>(picture_.info.width);
    return {std::max(from / 2 * 2 - reach, 0), std::max(tile.x0 * kLatent - reach, 0),
            std::min(to + reach, height), std::min(tile.x1 * kLatent + reach, width)};
}

plic_status Decoder::synthesise(const Region& pixels, const View* inputs, int32_t from, int32_t to, int32_t left,
                                uint8_t* target, size_t stride) {
    View rgb;
    if (!parameters_.view(rgb_, pixels, 3, rgb)) return no_memory(error_, memory_);
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
            if (!run(model_, kSynthesis, workspace_, picture_.lh, picture_.lw, inputs, &wanted, &rgb))
                return no_memory(error_, memory_);
        }
    }
    const int32_t right = std::min(pixels.x1, left + kTileColumns * kLatent);
    show(rgb, {from / 2 * 2, left, to, right}, from, target, stride);
    return PLIC_OK;
}

void Decoder::show(const View& rgb, const Region& area, int32_t from, uint8_t* target, size_t stride) {
    filter_.run(model_.kernels, filters_.data(), rgb, static_cast<int32_t>(picture_.info.height),
                static_cast<int32_t>(picture_.info.width), area, from, picture_.info.components, target, stride);
}

}  // namespace pocketlic
