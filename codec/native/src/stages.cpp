#include "stages.h"

#include "decoder.h"
#include "encoder.h"

namespace pocketlic {

static constexpr plic_limits kNoLimits = {UINT64_MAX, UINT64_MAX, 1};

// A picture whose networks a caller runs: what stages.h offers, in terms of the classes above.
struct Whole {
    const plic_model& model;
    plic_error* error;
    Picture picture;
    TileDecoder decoder;
    Encoder encoder;
    Encoder::Worker worker;

    Whole(const plic_model& m, plic_error* e)
        : model(m), error(e), picture(m, &kNoLimits), decoder(picture), encoder(picture, e), worker(picture) {}

    plic_status prepare(const plic_info& info) { return picture.begin(info, error); }

    Region all() const { return {0, 0, picture.lh, picture.lw}; }
    // Some of them are only read.
    View grid(const int8_t* data, int32_t channels) const { return {const_cast<int8_t*>(data), all(), channels}; }

    void anchor_values(const Hyper& hyper, const int32_t* y, int8_t* anchors) const {
        const View means = grid(hyper.means, model.latents), log2_steps = grid(hyper.log2_steps, model.latents);
        Parameters::anchor_values(picture, all(), means, log2_steps, [&](int32_t i, int32_t j) { return y + index(i, j, model.latents); },
                              grid(anchors, model.latents));
    }

    void synthesis_inputs(const Hyper& hyper, const int8_t* context, const int32_t* y, const int32_t* details,
                          int8_t* planes, int8_t* d_hat) const {
        const View parts[2] = {grid(planes, model.latents + model.wide_count), grid(d_hat, model.details)};
        Parameters::latent_values(
            picture, all(), grid(hyper.means, model.latents), grid(hyper.log2_steps, model.latents), grid(context, model.latents),
            [&](int32_t i, int32_t j) { return y + index(i, j, model.latents); },
            [&](int32_t i, int32_t j) { return details + index(i, j, model.details); }, parts);
    }

    bool choose_filters() { return picture.choose_filters(); }

    void show(const int8_t* pixels, uint8_t* out) {
        const plic_info& info = picture.info;
        const auto height = static_cast<int32_t>(info.height), width = static_cast<int32_t>(info.width);
        const View rgb = {const_cast<int8_t*>(pixels), {0, 0, height, width}, 3};
        decoder.show(rgb, {0, 0, height, width}, 0, out, static_cast<size_t>(info.width) * info.components);
    }

    bool project(const int8_t* features, const int8_t* fine, int32_t* y, int32_t* details, int8_t* coarse_y,
                 int8_t* coarse_d) {
        const Network& analysis = model.networks[kAnalysis];
        const auto channels = [&](uint32_t o) { return analysis.tensors[analysis.outputs[o]].spec.channels; };
        const Region halves = all().scaled(2, 1);
        const View from[2] = {grid(features, channels(0)), {const_cast<int8_t*>(fine), halves, channels(1)}};
        const auto quarter = static_cast<size_t>(model.details) / 4;
        return encoder.project(worker, 0, model.to_latents, from[0], all(),
                               [&](int32_t i, int32_t j, size_t c, int64_t value) {
                                   const size_t at = index(i, j, model.latents) + c;
                                   y[at] = static_cast<int32_t>(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX));
                                   coarse_y[at] = Encoder::coarse(value);
                               }) &&
               encoder.project(worker, 1, model.to_details, from[1], halves,
                               [&](int32_t i, int32_t j, size_t c, int64_t value) {
                                   const size_t channel = static_cast<size_t>(i % 2 * 2 + j % 2) * quarter + c;
                                   const size_t at = index(i / 2, j / 2, model.details) + channel;
                                   details[at] = encoder.detail_symbol(channel, value);
                                   coarse_d[at] = Encoder::coarse(value);
                               });
    }

    plic_status quantize(bool anchors, const int8_t* z, const Hyper& hyper, int32_t* y) {
        std::memcpy(picture.z.data(), z, picture.z.size());
        Buffer<uint8_t> rows;
        for (int32_t band = 0; band < static_cast<int32_t>(picture.info.bands); ++band) {
            const int32_t top = band * static_cast<int32_t>(kBandRows);
            if (!rows.allocate(picture.memory, picture.band_count(0, model.latents)) ||
                !worker.indices_of.of_y({top, 0, top + picture.band_rows(band), picture.lw}, rows.data()))
                return no_memory(error, picture.memory);
            encoder.quantize_values({top, 0, top + picture.band_rows(band), picture.lw}, anchors,
                                    grid(hyper.means, model.latents), grid(hyper.log2_steps, model.latents),
                                    rows.data(),
                                    [&](int32_t i, int32_t j) { return y + index(i, j, model.latents); },
                                    [](int32_t, int32_t) { return static_cast<const int32_t*>(nullptr); });
        }
        return PLIC_OK;
    }

    plic_status skip_details(const int32_t* y, int32_t* details) {
        if (!encoder.workers_.make(picture.memory, 1, picture)) return no_memory(error, picture.memory);
        return encoder.skip_details(y, details); }

private:
    size_t index(int32_t y, int32_t x, int32_t channels) const {
        return pocketlic::index(y, x, picture.lw, channels);
    }
};

plic_status anchor_values(const plic_model& model, const plic_info& info, const Hyper& hyper, const int32_t* y,
                          int8_t* anchors, plic_error* error) {
    Whole whole(model, error);
    const plic_status status = whole.prepare(info);
    if (status == PLIC_OK) whole.anchor_values(hyper, y, anchors);
    return status;
}

plic_status synthesis_inputs(const plic_model& model, const plic_info& info, const Hyper& hyper,
                             const int8_t* context, const int32_t* y, const int32_t* details, int8_t* planes,
                             int8_t* d_hat, plic_error* error) {
    Whole whole(model, error);
    const plic_status status = whole.prepare(info);
    if (status == PLIC_OK) whole.synthesis_inputs(hyper, context, y, details, planes, d_hat);
    return status;
}

plic_status show(const plic_model& model, const plic_info& info, const int8_t* pixels, uint8_t* out,
                 plic_error* error) {
    Whole whole(model, error);
    const plic_status status = whole.prepare(info);
    if (status != PLIC_OK) return status;
    if (!whole.choose_filters()) return no_memory(error, whole.picture.memory);
    whole.show(pixels, out);
    return PLIC_OK;
}

plic_status project(const plic_model& model, const plic_info& info, const int8_t* features, const int8_t* fine,
                    int32_t* y, int32_t* details, int8_t* coarse_y, int8_t* coarse_d, plic_error* error) {
    Whole whole(model, error);
    const plic_status status = whole.prepare(info);
    if (status != PLIC_OK) return status;
    return whole.project(features, fine, y, details, coarse_y, coarse_d) ? PLIC_OK
                                                                         : no_memory(error, whole.picture.memory);
}

plic_status quantize_anchors(const plic_model& model, const plic_info& info, const int8_t* z, const Hyper& hyper,
                             int32_t* y, int8_t* anchors, plic_error* error) {
    Whole whole(model, error);
    plic_status status = whole.prepare(info);
    if (status == PLIC_OK) status = whole.quantize(true, z, hyper, y);
    if (status == PLIC_OK) whole.anchor_values(hyper, y, anchors);
    return status;
}

plic_status quantize_others(const plic_model& model, const plic_info& info, const int8_t* z, const Hyper& context,
                            int32_t* y, int32_t* details, plic_error* error) {
    Whole whole(model, error);
    plic_status status = whole.prepare(info);
    if (status == PLIC_OK) status = whole.quantize(false, z, context, y);
    return status == PLIC_OK ? whole.skip_details(y, details) : status;
}

}  // namespace pocketlic
