#include "network.h"

#include <algorithm>
#include <cstring>

namespace pocketlic {

void Region::join(const Region& r) {
    if (r.empty()) return;
    if (empty()) {
        *this = r;
        return;
    }
    y0 = std::min(y0, r.y0);
    x0 = std::min(x0, r.x0);
    y1 = std::max(y1, r.y1);
    x1 = std::max(x1, r.x1);
}

namespace {

constexpr int32_t round_up(int32_t n, int32_t factor) { return (n + factor - 1) / factor * factor; }

Region outward(const Region& r, int32_t factor) {
    return {r.y0 / factor * factor, r.x0 / factor * factor, round_up(r.y1, factor), round_up(r.x1, factor)};
}

int8_t* allocate(Workspace& workspace, const Tensor& tensor, const Region& region) {
    const uint64_t bytes = static_cast<uint64_t>(region.height()) * static_cast<uint64_t>(region.width()) *
                           static_cast<uint64_t>(tensor.spec.channels);
    Buffer<int8_t>& slot = workspace.slots[tensor.slot];
    return slot.reserve(workspace.memory, bytes) ? slot.data() : nullptr;
}

void run_pointwise(const Layer& layer, const Kernels& kernels, const View& x, const View& y, void* scratch) {
    // Rows without a gap between them are as good as one long row.
    const bool whole = x.region.x0 == y.region.x0 && x.region.x1 == y.region.x1;
    const int32_t step = whole ? y.region.height() : 1;
    const auto pixels = static_cast<size_t>(step) * static_cast<size_t>(y.region.width());
    for (int32_t row = y.region.y0; row < y.region.y1; row += step)
        kernels.pointwise(layer.pointwise, x.at(row, y.region.x0), pixels, y.at(row, y.region.x0), scratch);
}

void run_depthwise(const Layer& layer, const Kernels& kernels, int32_t height, const View& x, const View& y) {
    constexpr int32_t kRows = 8;  // at a time
    const int32_t k = layer.depthwise.kernel;
    const Span span = {x.region.x0, x.region.x1, y.region.x0, y.region.x1};
    const int8_t* rows[kRows + kMaxKernel];
    for (int32_t row = y.region.y0; row < y.region.y1; row += kRows) {
        const int32_t n = std::min(kRows, y.region.y1 - row);
        for (int32_t i = 0; i < n + k - 1; ++i) {
            const int32_t source = row + i - k / 2;
            rows[i] = source >= 0 && source < height ? x.at(source, x.region.x0) : nullptr;
        }
        kernels.depthwise(layer.depthwise, rows, n, span, y.at(row, y.region.x0));
    }
}

void run_add(const Layer& layer, const Kernels& kernels, int32_t offset, int32_t low, const View& a, const View& b,
             const View& y) {
    (void)layer;
    const bool whole = a.region.x0 == y.region.x0 && a.region.x1 == y.region.x1 && b.region.x0 == y.region.x0 &&
                       b.region.x1 == y.region.x1;
    const int32_t step = whole ? y.region.height() : 1, x0 = y.region.x0;
    const auto count = static_cast<size_t>(step) * static_cast<size_t>(y.region.width()) *
                       static_cast<size_t>(y.channels);
    for (int32_t row = y.region.y0; row < y.region.y1; row += step)
        kernels.add(a.at(row, x0), b.at(row, x0), offset, low, count, y.at(row, x0));
}

// The regions of these three are whole multiples of the factor: see `plan`.
void run_upsample(int32_t factor, const View& x, const View& y) {
    const auto channels = static_cast<size_t>(x.channels), f = static_cast<size_t>(factor);
    for (int32_t row = y.region.y0; row < y.region.y1; row += factor) {
        int8_t* const first = y.at(row, y.region.x0);
        int8_t* to = first;
        const int8_t* from = x.at(row / factor, y.region.x0 / factor);
        for (int32_t column = y.region.x0; column < y.region.x1; column += factor, from += channels)
            for (size_t i = 0; i < f; ++i, to += channels) std::memcpy(to, from, channels);
        const auto bytes = static_cast<size_t>(to - first);
        for (size_t i = 1; i < f; ++i) std::memcpy(first + i * bytes, first, bytes);
    }
}

void run_space_to_depth(int32_t factor, const View& x, const View& y) {
    const size_t run = static_cast<size_t>(factor) * static_cast<size_t>(x.channels);
    for (int32_t row = y.region.y0; row < y.region.y1; ++row) {
        for (int32_t dy = 0; dy < factor; ++dy) {
            const int8_t* from = x.at(row * factor + dy, y.region.x0 * factor);
            int8_t* to = y.at(row, y.region.x0) + static_cast<size_t>(dy) * run;
            for (int32_t column = y.region.x0; column < y.region.x1; ++column) {
                std::memcpy(to, from, run);
                from += run;
                to += y.channels;
            }
        }
    }
}

void run_depth_to_space(int32_t factor, const View& x, const View& y) {
    const size_t run = static_cast<size_t>(factor) * static_cast<size_t>(y.channels);
    for (int32_t row = y.region.y0; row < y.region.y1; ++row) {
        const int8_t* from =
            x.at(row / factor, y.region.x0 / factor) + static_cast<size_t>(row % factor) * run;
        int8_t* to = y.at(row, y.region.x0);
        for (int32_t column = y.region.x0; column < y.region.x1; column += factor) {
            std::memcpy(to, from, run);
            from += x.channels;
            to += run;
        }
    }
}

}  // namespace

void plan(const Network& network, int32_t height, int32_t width, const Region* outputs, Region* regions) {
    for (uint32_t t = 0; t < network.tensor_count(); ++t) regions[t] = {0, 0, 0, 0};
    for (uint32_t i = 0; i < network.output_count; ++i) regions[network.outputs[i]].join(outputs[i]);
    for (uint32_t i = network.layer_count; i-- > 0;) {
        const Layer& layer = network.layers[i];
        Region& y = regions[network.input_count + i];
        if (y.empty()) continue;
        Region need = y;
        switch (layer.kind) {
            case Kind::pointwise:
            case Kind::add:
                break;
            case Kind::depthwise: {
                const Tensor& t = network.tensors[layer.inputs[0]];
                const int32_t half = layer.depthwise.kernel / 2;
                need = {std::max(y.y0 - half, 0), std::max(y.x0 - half, 0),
                        std::min(y.y1 + half, height / t.denominator * t.numerator),
                        std::min(y.x1 + half, width / t.denominator * t.numerator)};
                break;
            }
            case Kind::upsample:
            case Kind::depth_to_space:
                y = outward(y, layer.factor);
                need = y.scaled(1, layer.factor);
                break;
            case Kind::space_to_depth:
                need = y.scaled(layer.factor, 1);
                break;
        }
        regions[layer.inputs[0]].join(need);
        regions[layer.inputs[1]].join(need);
    }
}

bool run(const Network& network, const Kernels& kernels, Workspace& workspace, int32_t height, int32_t width,
         const View* inputs, const Region* wanted, View* outputs) {
    Region regions[kMaxTensors];
    View views[kMaxTensors];
    plan(network, height, width, wanted, regions);
    for (uint32_t i = 0; i < network.input_count; ++i) views[i] = inputs[i];
    for (uint32_t i = 0; i < network.layer_count; ++i) {
        const Layer& layer = network.layers[i];
        const uint32_t t = network.input_count + i;
        const Tensor& tensor = network.tensors[t];
        if (regions[t].empty()) {
            views[t] = {nullptr, regions[t], tensor.spec.channels};
            continue;
        }
        const View y = views[t] = {allocate(workspace, tensor, regions[t]), regions[t], tensor.spec.channels};
        if (y.data == nullptr) return false;
        const View x = views[layer.inputs[0]];
        const Tensor& source = network.tensors[layer.inputs[0]];
        switch (layer.kind) {
            case Kind::pointwise:
                if (!workspace.scratch.reserve(workspace.memory, kernels.scratch(layer.pointwise))) return false;
                run_pointwise(layer, kernels, x, y, workspace.scratch.data());
                break;
            case Kind::depthwise:
                run_depthwise(layer, kernels, height / source.denominator * source.numerator, x, y);
                break;
            case Kind::add: {
                const int32_t zero = tensor.spec.zero_point;
                const int32_t offset =
                    zero - source.spec.zero_point - network.tensors[layer.inputs[1]].spec.zero_point;
                run_add(layer, kernels, offset, layer.relu ? zero : -128, x, views[layer.inputs[1]], y);
                break;
            }
            case Kind::upsample: run_upsample(layer.factor, x, y); break;
            case Kind::space_to_depth: run_space_to_depth(layer.factor, x, y); break;
            case Kind::depth_to_space: run_depth_to_space(layer.factor, x, y); break;
        }
    }
    for (uint32_t i = 0; i < network.output_count; ++i) outputs[i] = views[network.outputs[i]];
    return true;
}

}  // namespace pocketlic
