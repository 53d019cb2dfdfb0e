#include "runner.h"

#include <algorithm>
#include <cstring>

namespace pocketlic {
namespace {

// Has the model's foreign runner compute regions of the outputs, as `run` does. False when it cannot.
//
// The window that it sees is what `plan` says, so its borders inside the picture do not reach the regions; of a fixed
// size, it is shifted inward at the picture's borders, and what no region depends on may be anything.
bool run_foreign(const plic_model& model, NetworkIndex index, Workspace& workspace, int32_t height, int32_t width,
                 const View* inputs, const Region* wanted, const View* outputs) {
    static constexpr int32_t kPixelsPerCell[kNetworks] = {1, kLatent, kStride, kLatent, kLatent};  // of the inputs
    const Network& network = model.networks[index];
    Region regions[kMaxTensors];
    plan(network, height, width, wanted, regions);
    Region window = {0, 0, 0, 0};
    for (uint32_t i = 0; i < network.input_count; ++i) window.join(regions[i]);
    int32_t align = 1;
    for (uint32_t t = 0; t < network.tensor_count(); ++t) align = std::max(align, network.tensors[t].denominator);
    window = {window.y0 / align * align, window.x0 / align * align, (window.y1 + align - 1) / align * align,
              (window.x1 + align - 1) / align * align};
    if (model.runner_tile > 0) {
        const int32_t side = model.runner_tile / kPixelsPerCell[index];
        if (side < window.height() || side < window.width() || side > height || side > width) return false;
        window.y0 = std::min(window.y0, height - side);
        window.x0 = std::min(window.x0, width - side);
        window.y1 = window.y0 + side;
        window.x1 = window.x0 + side;
    }
    const int8_t* in[kMaxEnds];
    int8_t* made[kMaxEnds];
    const auto buffer = [&](uint32_t end, const Region& region, int32_t channels) -> int8_t* {
        const uint64_t cells = static_cast<uint64_t>(region.height()) * static_cast<uint64_t>(region.width());
        Buffer<int8_t>& place = workspace.ends[end];
        return place.reserve(workspace.memory, cells * static_cast<uint64_t>(channels)) ? place.data() : nullptr;
    };
    for (uint32_t i = 0; i < network.input_count; ++i) {
        const View& from = inputs[i];
        const View to = {buffer(i, window, from.channels), window, from.channels};
        if (to.data == nullptr) return false;
        const int32_t left = std::max(window.x0, from.region.x0), right = std::min(window.x1, from.region.x1);
        for (int32_t y = std::max(window.y0, from.region.y0); y < std::min(window.y1, from.region.y1); ++y)
            std::memcpy(to.at(y, left), from.at(y, left),
                        static_cast<size_t>(right - left) * static_cast<size_t>(from.channels));
        in[i] = to.data;
    }
    for (uint32_t o = 0; o < network.output_count; ++o) {
        const Tensor& t = network.tensors[network.outputs[o]];
        const Region region = window.scaled(t.numerator, t.denominator);
        made[o] = buffer(kMaxEnds + o, region, t.spec.channels);
        if (made[o] == nullptr) return false;
    }
    if (model.runner(model.runner_user, network.name, static_cast<uint32_t>(window.height()),
                     static_cast<uint32_t>(window.width()), in, made) != 0)
        return false;
    for (uint32_t o = 0; o < network.output_count; ++o) {
        const Tensor& t = network.tensors[network.outputs[o]];
        const View from = {made[o], window.scaled(t.numerator, t.denominator), t.spec.channels};
        const size_t bytes = static_cast<size_t>(wanted[o].width()) * static_cast<size_t>(t.spec.channels);
        for (int32_t y = wanted[o].y0; y < wanted[o].y1; ++y)
            std::memcpy(outputs[o].at(y, wanted[o].x0), from.at(y, wanted[o].x0), bytes);
    }
    return true;
}

}  // namespace

bool run(const plic_model& model, NetworkIndex index, Workspace& workspace, int32_t height, int32_t width,
         const View* inputs, const Region* wanted, const View* outputs) {
    const Network& network = model.networks[index];
    return (model.runner != nullptr &&
            run_foreign(model, index, workspace, height, width, inputs, wanted, outputs)) ||
           run(network, model.kernels, workspace, height, width, inputs, wanted, outputs);
}

bool run_parts(const plic_model& model, NetworkIndex index, Workspace& workspace, int32_t height, int32_t width,
               const View* inputs, const Region& region, const View* outputs) {
    const int32_t part = part_of(model);
    for (int32_t y = region.y0; y < region.y1; y += part) {
        for (int32_t x = region.x0; x < region.x1; x += part) {
            Region wanted[kMaxEnds];
            std::fill_n(wanted, model.networks[index].output_count,
                        Region{y, x, std::min(y + part, region.y1), std::min(x + part, region.x1)});
            if (!run(model, index, workspace, height, width, inputs, wanted, outputs)) return false;
        }
    }
    return true;
}

}  // namespace pocketlic
