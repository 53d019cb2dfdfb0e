#include "encoder.h"

#include <cstring>

namespace pocketlic {
namespace {

constexpr int32_t kStripRows = 32;  // of latents, that are analysed at a time
constexpr int32_t kHyperPart = 16;  // cells of z that a thread computes at a time

}  // namespace

plic_status Encoder::encode(plic_row_source* source, void* user) {
    const Counts counts = picture_.counts();
    if (!y_.allocate(memory_, counts.y) || !details_.allocate(memory_, counts.details) ||
        !wide_.allocate(memory_, count(picture_.lh, picture_.lw, model_.wide_count)) ||
        !workers_.make(memory_, threads(), picture_))
        return no_memory(error_, memory_);
    plic_status status = grids(source, user, counts);
    if (status == PLIC_OK) status = quantize(true);
    if (status == PLIC_OK) status = quantize(false);
    if (status == PLIC_OK) status = skip_details(y_.data(), details_.data());
    return status;
}

int32_t Encoder::threads() const {
    const Network& analysis = model_.networks[kAnalysis];
    const Region part = {0, 0, std::min(kStripRows, picture_.lh), std::min(kStripRows, picture_.lw)};
    const Region wanted[2] = {part, part.scaled(2, 1)};
    Region regions[kMaxTensors];
    plan(analysis, picture_.lh * kLatent, picture_.lw * kLatent, wanted, regions);
    uint64_t bytes = count(kTileRows, kTileColumns, 8 * model_.latents);
    for (uint32_t t = 0; t < analysis.tensor_count(); ++t)
        bytes += count(regions[t].height(), regions[t].width(), analysis.tensors[t].spec.channels);
    const auto most = static_cast<uint64_t>(picture_.threads);
    return static_cast<int32_t>(std::clamp<uint64_t>(memory_.left() / 2 / bytes, 1, most));
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
        const int32_t side = std::min(part_of(model_), kTileColumns);
        const bool done = for_each_part({top, 0, bottom, picture_.lw}, side, side, [&](const Region& part, Worker& w) {
            return analyse(w, part, pixels, grid);
        });
        if (!done) return no_memory(error_, memory_);
    }
    const View z = {picture_.z.data(), {0, 0, picture_.zh, picture_.zw}, model_.hypers};
    if (!for_each_part(z.region, kHyperPart, kHyperPart, [&](const Region& part, Worker& w) {
            return run_parts(model_, kHyperAnalysis, w.workspace, picture_.lh, picture_.lw, grid, part, &z);
        }))
        return no_memory(error_, memory_);
    const auto hypers = static_cast<size_t>(model_.hypers);
    for (size_t i = 0; i < picture_.z.size(); ++i) {
        const auto channel = static_cast<int32_t>(i % hypers);
        const int64_t exponent = model_.hyper_gain_knots.at(picture_.quality_hundredths, channel);
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

bool Encoder::analyse(Worker& worker, const Region& part, const View& pixels, const View* grid) {
    const Region wanted[2] = {part, part.scaled(2, 1)};
    const Network& analysis = model_.networks[kAnalysis];
    View made[2];
    for (uint32_t o = 0; o < 2; ++o)
        if (!worker.parameters.view(worker.features[o], wanted[o],
                                    analysis.tensors[analysis.outputs[o]].spec.channels, made[o]))
            return false;
    if (!run(model_, kAnalysis, worker.workspace, picture_.lh * kLatent, picture_.lw * kLatent, &pixels, wanted, made))
        return false;
    const auto quarter = static_cast<size_t>(model_.details) / 4;
    const Kernels& kernels = model_.kernels;
    const Scaling &latents = model_.to_latents.scaling, &details = model_.to_details.scaling;
    if (kernels.project != nullptr && latents.bias != nullptr && details.bias != nullptr && model_.latents % 16 == 0 &&
        quarter % 16 == 0) {
        const auto take_latents = [&](int32_t y, int32_t x, const int32_t* acc) {
            const size_t at = index(y, x, picture_.lw, model_.latents);
            kernels.project(acc, latents, static_cast<size_t>(model_.latents), &y_[at], grid[0].data + at);
            for (int32_t i = 0; i < model_.wide_count; ++i) {
                const size_t c = model_.wide[i];
                const int64_t value =
                    int64_t{(acc[c] + latents.bias[c]) >> latents.down[c]} * (int64_t{1} << latents.up[c]);
                wide_values(y, x)[i] = static_cast<int32_t>(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX));
            }
        };
        const auto take_details = [&](int32_t y, int32_t x, const int32_t* acc) {
            const size_t first = static_cast<size_t>(y % 2 * 2 + x % 2) * quarter;
            const size_t at = index(y / 2, x / 2, picture_.lw, model_.details) + first;
            kernels.project(acc, details, quarter, &details_[at], grid[1].data + at);
            kernels.quantize(&details_[at], nullptr, nullptr, {picture_.detail_steps() + first, nullptr, 0}, nullptr, 0,
                             quarter);
        };
        return accumulate(worker, model_.to_latents, made[0], wanted[0], take_latents) &&
               accumulate(worker, model_.to_details, made[1], wanted[1], take_details);
    }
    if (!project(worker, 0, model_.to_latents, made[0], wanted[0], [&](int32_t y, int32_t x, size_t c, int64_t value) {
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
    const auto put = [&](int32_t y, int32_t x, size_t c, int64_t value) {
        const size_t channel = static_cast<size_t>(y % 2 * 2 + x % 2) * quarter + c;
        const size_t at = index(y / 2, x / 2, picture_.lw, model_.details) + channel;
        details_[at] = static_cast<int16_t>(detail_symbol(channel, value));
        grid[1].data[at] = coarse(value);
    };
    return project(worker, 1, model_.to_details, made[1], wanted[1], put);
}

plic_status Encoder::quantize(bool anchors) {
    const Region all = {0, 0, picture_.lh, picture_.lw};
    return for_each_part(all, kTileRows, kTileColumns, [&](const Region& tile, Worker& w) {
        return quantize_tile(w, tile, anchors);
    }) ? PLIC_OK : no_memory(error_, memory_);
}

bool Encoder::quantize_tile(Worker& worker, const Region& tile, bool anchors) {
    Parameters& parameters = worker.parameters;
    const auto symbols = [this](int32_t y, int32_t x) { return latent(y, x); };
    if (!worker.indices.reserve(memory_, count(tile.height(), tile.width(), model_.latents)) ||
        !worker.indices_of.of_y(tile, worker.indices.data()) ||
        !parameters.hyper(anchors ? tile : parameters.around(tile)) ||
        (!anchors && !parameters.context(tile, symbols)))
        return false;
    // Threads meet here in y_: what is no anchor is written while others read what is.
    quantize_values(tile, anchors, anchors ? parameters.means : parameters.context_means, parameters.log2_steps,
                    worker.indices.data(), symbols, [this](int32_t y, int32_t x) { return wide_values(y, x); });
    return true;
}

template <typename T>
plic_status Encoder::skip_details(const T* y, T* details) {
    const Region all = {0, 0, picture_.lh, picture_.lw};
    return for_each_part(all, kLatentsPerHyper, picture_.lw, [&](const Region& rows, Worker& w) {
        const size_t n = static_cast<size_t>(count(rows.height(), rows.width(), model_.details));
        if (!w.indices.reserve(memory_, n) ||
            !w.indices_of.of_details(rows.y0, rows.y1, y + index(rows.y0, 0, picture_.lw, model_.latents),
                                     w.indices.data()))
            return false;
        T* const detail = details + index(rows.y0, 0, picture_.lw, model_.details);
        for (size_t i = 0; i < n; ++i)
            if (w.indices[i] < model_.tables.skip()) detail[i] = 0;
        return true;
    }) ? PLIC_OK : no_memory(error_, memory_);
}

template plic_status Encoder::skip_details(const int16_t*, int16_t*);
template plic_status Encoder::skip_details(const int32_t*, int32_t*);

}  // namespace pocketlic
