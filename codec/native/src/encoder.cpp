#include "encoder.h"

#include <cstring>

namespace pocketlic {
namespace {

constexpr int32_t kStripRows = 32;  // of latents, that are analysed at a time

}  // namespace

plic_status Encoder::encode(plic_row_source* source, void* user) {
    const Counts counts = picture_.counts();
    if (!y_.allocate(memory_, counts.y) || !details_.allocate(memory_, counts.details) ||
        !wide_.allocate(memory_, count(picture_.lh, picture_.lw, model_.wide_count)))
        return no_memory(error_, memory_);
    plic_status status = grids(source, user, counts);
    if (status == PLIC_OK) status = quantize(true);
    if (status == PLIC_OK) status = quantize(false);
    if (status == PLIC_OK) status = skip_details(y_.data(), details_.data());
    return status;
}

plic_status Encoder::grids(plic_row_source* source, void* user, const Counts& counts) {
    const int32_t height = picture_.lh * kLatent, width = picture_.lw * kLatent;
    const Network& analysis = model_.networks[kAnalysis];
    Buffer<int8_t> coarse_y, coarse_d;
    Window window;
    Region regions[kMaxTensors];
    const auto rows_of = [&](int32_t top) {
        const Region strip = {top, 0, std::min(top + kStripRows, picture_.lh), picture_.lw};
        const Region wanted[2] = {strip, strip.scaled(2, 1)};
        plan(analysis, height, width, wanted, regions);
        return regions[0];
    };
    int32_t most = 0;
    for (int32_t top = 0; top < picture_.lh; top += kStripRows) most = std::max(most, rows_of(top).height());
    if (!coarse_y.allocate(memory_, counts.y) || !coarse_d.allocate(memory_, counts.details) ||
        !window.rows.allocate(memory_, count(most, width, 3)) ||
        !window.given.allocate(memory_, uint64_t{picture_.info.width} * picture_.info.components))
        return no_memory(error_, memory_);
    const Region all = {0, 0, picture_.lh, picture_.lw};
    const View grid[2] = {{coarse_y.data(), all, model_.latents}, {coarse_d.data(), all, model_.details}};
    for (int32_t top = 0; top < picture_.lh; top += kStripRows) {
        const Region need = rows_of(top);
        if (!fill(window, need, width, source, user))
            return fail(error_, PLIC_ERROR_STOPPED, "stopped by the source of rows");
        const View pixels = {window.rows.data(), {window.top, 0, window.bottom, width}, 3};
        const int32_t bottom = std::min(top + kStripRows, picture_.lh);
        const int32_t part = std::min(part_of(model_), kTileColumns);
        for (int32_t y = top; y < bottom; y += part)
            for (int32_t x = 0; x < picture_.lw; x += part)
                if (!analyse({y, x, std::min(y + part, bottom), std::min(x + part, picture_.lw)}, pixels, grid))
                    return no_memory(error_, memory_);
    }
    const View z = {picture_.z.data(), {0, 0, picture_.zh, picture_.zw}, model_.hypers};
    if (!run_parts(model_, kHyperAnalysis, workspace_, picture_.lh, picture_.lw, grid, z.region, &z))
        return no_memory(error_, memory_);
    const auto hypers = static_cast<size_t>(model_.hypers);
    for (size_t i = 0; i < picture_.z.size(); ++i) {
        const int64_t exponent = model_.hyper_gain_knots.at(picture_.quality_hundredths, static_cast<int32_t>(i % hypers));
        const int64_t shift = std::clamp<int64_t>(16 - (exponent >> 8), 1, 40);
        const int64_t product = int64_t{z.data[i]} * model_.exp2[exponent & 255];
        z.data[i] = static_cast<int8_t>(std::clamp<int64_t>(rounding_shift(product, shift), -128, 127));
    }
    return PLIC_OK;
}

bool Encoder::fill(Window& window, const Region& need, int32_t width, plic_row_source* source, void* user) {
    const plic_info& info = picture_.info;
    const size_t row_bytes = static_cast<size_t>(width) * 3;
    const int32_t kept = std::max(window.bottom - need.y0, 0);
    std::memmove(window.rows.data(), window.rows.data() + static_cast<size_t>(need.y0 - window.top) * row_bytes,
                 static_cast<size_t>(kept) * row_bytes);
    window.top = need.y0;
    for (int32_t row = window.top + kept; row < need.y1; ++row) {
        int8_t* to = window.rows.data() + static_cast<size_t>(row - window.top) * row_bytes;
        if (row >= static_cast<int32_t>(info.height)) {
            std::memcpy(to, to - row_bytes, row_bytes);
            continue;
        }
        if (source(user, static_cast<uint32_t>(row), 1, window.given.data()) != 0) return false;
        const uint8_t* from = window.given.data();
        for (uint32_t x = 0; x < static_cast<uint32_t>(width); ++x, to += 3) {
            const uint8_t* pixel = from + size_t{std::min(x, info.width - 1)} * info.components;
            for (size_t c = 0; c < 3; ++c)
                to[c] = static_cast<int8_t>(pixel[info.components == 3 ? c : 0] - 128);
        }
    }
    window.bottom = need.y1;
    return true;
}

bool Encoder::analyse(const Region& part, const View& pixels, const View* grid) {
    const Region wanted[2] = {part, part.scaled(2, 1)};
    const Network& analysis = model_.networks[kAnalysis];
    View made[2];
    for (uint32_t o = 0; o < 2; ++o)
        if (!parameters_.view(features_[o], wanted[o], analysis.tensors[analysis.outputs[o]].spec.channels, made[o]))
            return false;
    if (!run(model_, kAnalysis, workspace_, picture_.lh * kLatent, picture_.lw * kLatent, &pixels, wanted,
             made))
        return false;
    const auto quarter = static_cast<size_t>(model_.details) / 4;
    if (!project(0, model_.to_latents, made[0], wanted[0], [&](int32_t y, int32_t x, size_t c, int64_t value) {
            const size_t at = index(y, x, picture_.lw, model_.latents) + c;
            y_[at] = static_cast<int16_t>(std::clamp<int64_t>(value, INT16_MIN, INT16_MAX));
            if (model_.fine_bits[c] > 0) {
                const uint16_t* end = model_.wide + model_.wide_count;
                const auto nth = std::lower_bound(model_.wide, end, static_cast<uint16_t>(c)) - model_.wide;
                wide_values(y, x)[nth] = static_cast<int32_t>(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX));
            }
            grid[0].data[at] = coarse(value);
        }))
        return false;
    return project(1, model_.to_details, made[1], wanted[1], [&](int32_t y, int32_t x, size_t c, int64_t value) {
        const size_t channel = static_cast<size_t>(y % 2 * 2 + x % 2) * quarter + c;
        const size_t at = index(y / 2, x / 2, picture_.lw, model_.details) + channel;
        details_[at] = static_cast<int16_t>(detail_symbol(channel, value));
        grid[1].data[at] = coarse(value);
    });
}

plic_status Encoder::quantize(bool anchors) {
    Buffer<uint8_t> indices;
    if (!indices.allocate(memory_, picture_.band_count(0, model_.latents))) return no_memory(error_, memory_);
    for (int32_t band = 0; band < picture_.bands(); ++band) {
        const int32_t top = band * static_cast<int32_t>(kBandRows), bottom = top + picture_.band_rows(band);
        if (!indices_of_.of_y(top, bottom, indices.data())) return no_memory(error_, memory_);
        for (int32_t y = top; y < bottom; y += kTileRows)
            for (int32_t x = 0; x < picture_.lw; x += kTileColumns)
                if (!quantize_tile({y, x, std::min(y + kTileRows, bottom), std::min(x + kTileColumns, picture_.lw)},
                                   anchors, top, indices.data()))
                    return no_memory(error_, memory_);
    }
    return PLIC_OK;
}

bool Encoder::quantize_tile(const Region& tile, bool anchors, int32_t top, const uint8_t* indices) {
    const auto symbols = [this](int32_t y, int32_t x) { return latent(y, x); };
    if (!parameters_.hyper(anchors ? tile : parameters_.around(tile)) ||
        (!anchors && !parameters_.context(tile, symbols)))
        return false;
    quantize_values(tile, anchors, anchors ? parameters_.means : parameters_.context_means, parameters_.log2_steps,
                    top, indices, symbols, [this](int32_t y, int32_t x) { return wide_values(y, x); });
    return true;
}

template <typename T>
plic_status Encoder::skip_details(const T* y, T* details) {
    Buffer<uint8_t> indices;
    if (!indices.allocate(memory_, picture_.band_count(0, model_.details))) return no_memory(error_, memory_);
    for (int32_t band = 0; band < picture_.bands(); ++band) {
        const int32_t top = band * static_cast<int32_t>(kBandRows);
        if (!indices_of_.of_details(top, top + picture_.band_rows(band), y, indices.data()))
            return no_memory(error_, memory_);
        const size_t n = picture_.band_count(band, model_.details);
        for (size_t i = 0; i < n; ++i)
            if (indices[i] < model_.tables.skip()) details[i] = 0;
        y += picture_.band_count(band, model_.latents);
        details += n;
    }
    return PLIC_OK;
}

template plic_status Encoder::skip_details(const int16_t*, int16_t*);
template plic_status Encoder::skip_details(const int32_t*, int32_t*);

}  // namespace pocketlic
