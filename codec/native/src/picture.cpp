#include "picture.h"

#include <cstring>

#include "threads.h"

namespace pocketlic {

Picture::Picture(const plic_model& m, const plic_limits* limits)
    : model(m),
      memory(limits != nullptr ? limits->max_memory : PLIC_DEFAULT_MAX_MEMORY),
      max_pixels_(limits != nullptr ? limits->max_pixels : PLIC_DEFAULT_MAX_PIXELS) {
    const uint32_t wanted = limits != nullptr ? limits->threads : 0;
    // A runner is called by the caller's thread only.
    if (model.runner == nullptr)
        threads = wanted == 0 ? std::clamp(core_count(), 1, kMaxThreads)
                              : static_cast<int32_t>(std::min(wanted, static_cast<uint32_t>(kMaxThreads)));
}

plic_status Picture::prepare(const plic_info& described, plic_error* error) {
    info = described;
    zh = static_cast<int32_t>(info.hyper_height);
    zw = static_cast<int32_t>(info.hyper_width);
    lh = static_cast<int32_t>(info.latent_height);
    lw = static_cast<int32_t>(info.latent_width);
    quality_hundredths = static_cast<int32_t>(info.quality_hundredths);
    const int32_t channels = model.latents + model.details;
    if (!z.allocate(memory, count(zh, zw, model.hypers)) ||
        !step_base_.allocate(memory, static_cast<uint64_t>(channels)) ||
        !detail_steps_.allocate(memory, static_cast<uint64_t>(model.details)))
        return no_memory(error, memory);
    for (int32_t c = 0; c < channels; ++c)
        step_base_[static_cast<size_t>(c)] = static_cast<int32_t>(
            std::clamp<int64_t>(model.step_knots.at(quality_hundredths, c), -(1 << 20), 1 << 20));
    for (int32_t c = 0; c < model.details; ++c)
        detail_steps_[static_cast<size_t>(c)] = step(0, static_cast<size_t>(model.latents + c));
    return PLIC_OK;
}

plic_status Picture::begin(const plic_info& wanted, plic_error* error) {
    if (wanted.width < 1 || wanted.width > kMaxSide || wanted.height < 1 || wanted.height > kMaxSide ||
        (wanted.components != 1 && wanted.components != 3) || wanted.quality_hundredths > kQualities)
        return fail(error, PLIC_ERROR_ARGUMENT, "size, components or quality are out of range");
    if (uint64_t{wanted.width} * wanted.height > max_pixels_)
        return fail(error, PLIC_ERROR_LIMIT, "the picture exceeds the limit on pixels");
    plic_info to = {};
    to.width = wanted.width;
    to.height = wanted.height;
    to.components = wanted.components;
    to.quality_hundredths = wanted.quality_hundredths;
    std::memcpy(to.model_id, model.id, sizeof to.model_id);
    describe_grids(to);
    return prepare(to, error);
}

bool Picture::choose_filters() {
    const Knots& knots = model.post_filter;
    if (knots.channels == 0) return true;
    if (!filters.allocate(memory, uint64_t{kFilterClasses} * kFilterStride)) return false;
    for (int32_t i = 0; i < knots.channels; ++i)
        filters[static_cast<size_t>(i / kFilterWeights * kFilterStride + i % kFilterWeights)] =
            static_cast<int16_t>(knots.nearest(quality_hundredths, i));
    return true;
}

bool Picture::z_indices(Buffer<uint8_t>& indices) {
    if (!indices.allocate(memory, z.size())) return false;
    const auto hypers = static_cast<size_t>(model.hypers);
    for (size_t c = 0; c < hypers; ++c) {
        const int64_t knot = model.hyper_row_knots.at(quality_hundredths, static_cast<int32_t>(c));
        // z is never skipped, whatever its table.
        indices[c] = static_cast<uint8_t>(std::clamp<int64_t>(
            (knot + (1 << 15)) >> 16, model.tables.skip(), static_cast<int64_t>(model.tables.row_count()) - 1));
    }
    for (size_t i = hypers; i < indices.size(); ++i) indices[i] = indices[i - hypers];
    return true;
}

}  // namespace pocketlic
