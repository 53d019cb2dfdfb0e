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

size_t count(int32_t n) { return static_cast<size_t>(n); }
constexpr int32_t round_up(int32_t n, int32_t factor) { return (n + factor - 1) / factor * factor; }

Region outward(const Region& r, int32_t factor) {
    return {r.y0 / factor * factor, r.x0 / factor * factor, round_up(r.y1, factor), round_up(r.x1, factor)};
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

void run_add(const Kernels& kernels, int32_t offset, int32_t low, const View& a, const View& b, const View& y) {
    const bool whole = a.region.x0 == y.region.x0 && a.region.x1 == y.region.x1 && b.region.x0 == y.region.x0 &&
                       b.region.x1 == y.region.x1;
    const int32_t step = whole ? y.region.height() : 1, x0 = y.region.x0;
    const size_t n = count(step) * count(y.region.width()) * count(y.channels);
    for (int32_t row = y.region.y0; row < y.region.y1; row += step)
        kernels.add(a.at(row, x0), b.at(row, x0), offset, low, n, y.at(row, x0));
}

// Short runs of bytes, for which calling memcpy takes longer than copying.
inline void copy_run(int8_t* to, const int8_t* from, size_t n) {
    constexpr size_t kPixels = 12, kVector = 16;
    if (n == kPixels) {
        std::memcpy(to, from, kPixels);
    } else if (n % kVector == 0) {
        for (size_t i = 0; i < n; i += kVector) std::memcpy(to + i, from + i, kVector);
    } else {
        std::memcpy(to, from, n);
    }
}

// The regions of these three are whole multiples of the factor: see `plan`.
void run_upsample(int32_t factor, const View& x, const View& y) {
    const auto channels = static_cast<size_t>(x.channels), f = static_cast<size_t>(factor);
    for (int32_t row = y.region.y0; row < y.region.y1; row += factor) {
        int8_t* const first = y.at(row, y.region.x0);
        int8_t* to = first;
        const int8_t* from = x.at(row / factor, y.region.x0 / factor);
        for (int32_t column = y.region.x0; column < y.region.x1; column += factor, from += channels)
            for (size_t i = 0; i < f; ++i, to += channels) copy_run(to, from, channels);
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
                copy_run(to, from, run);
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
            copy_run(to, from, run);
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

namespace {

// Makes regions of a network's outputs some rows at a time, so that processors' caches still hold what the next layer
// needs. Each layer keeps those rows that a later step needs again.
class Pass {
public:
    Pass(const Network& network, const Kernels& kernels, Workspace& workspace, int32_t height, int32_t width)
        : network_(network), kernels_(kernels), workspace_(workspace), height_(height), width_(width) {}

    bool run(const View* inputs, const Region* wanted, const View* outputs) {
        wanted_ = wanted;
        plan(network_, height_, width_, wanted, regions_);
        int64_t first = height_, last = 0;  // in rows of the inputs
        for (uint32_t o = 0; o < network_.output_count; ++o) {
            const Tensor& t = tensor(network_.outputs[o]);
            if (wanted[o].empty()) continue;
            first = std::min(first, int64_t{wanted[o].y0} * t.denominator / t.numerator);
            last = std::max(last, (int64_t{wanted[o].y1} * t.denominator + t.numerator - 1) / t.numerator);
        }
        const int32_t rows = step_rows();
        first = first / rows * rows;
        // Once to see how many rows there are at a time, and once to make them.
        start();
        for (int64_t row = first; row < last; row += rows) {
            aim(row + rows);
            for (Rows& r : rows_) r.most = std::max(r.most, r.until - r.top);
            settle();
            for (Rows& r : rows_) r.kept = r.kept || r.top < r.done;
        }
        if (!allocate()) return false;
        for (uint32_t i = 0; i < network_.input_count; ++i) views_[i] = inputs[i];
        start();
        for (int64_t row = first; row < last; row += rows) {
            aim(row + rows);
            for (uint32_t i = 0; i < network_.layer_count; ++i) make(i);
            for (uint32_t o = 0; o < network_.output_count; ++o) copy(network_.outputs[o], wanted[o], outputs[o]);
            settle();
        }
        return true;
    }

private:
    // Rows top .. done - 1 of a tensor are in memory, and those up to `until` after the step.
    struct Rows {
        int32_t top, done, until;
        int32_t most;    // in memory at a time
        bool kept;       // from one step to the next
        int8_t* memory;
    };

    static constexpr int64_t kStepBytes = 1 << 18;  // of all tensors in a step, about
    static constexpr int32_t kDepthwiseRows = 4;    // what kernels make at a time

    const Tensor& tensor(uint32_t t) const { return network_.tensors[t]; }
    uint64_t row_bytes(uint32_t t) const {
        return static_cast<uint64_t>(regions_[t].width()) * static_cast<uint64_t>(tensor(t).spec.channels);
    }

    // Rows of the inputs that a step goes on by.
    int32_t step_rows() const {
        int32_t align = 1;
        for (uint32_t t = 0; t < network_.tensor_count(); ++t) align = std::max(align, tensor(t).denominator);
        int64_t bytes = 1;
        for (uint32_t t = network_.input_count; t < network_.tensor_count(); ++t)
            bytes += static_cast<int64_t>(row_bytes(t)) * align * tensor(t).numerator / tensor(t).denominator;
        return align * static_cast<int32_t>(std::clamp<int64_t>(kStepBytes / bytes, 1, 64));
    }

    void start() {
        for (uint32_t t = 0; t < network_.tensor_count(); ++t)
            rows_[t].top = rows_[t].done = rows_[t].until = regions_[t].y0;
    }

    // Which rows each tensor has after a step to that row of the inputs.
    void aim(int64_t row) {
        for (uint32_t o = 0; o < network_.output_count; ++o) {
            const Tensor& t = tensor(network_.outputs[o]);
            const int64_t end = (row * t.numerator + t.denominator - 1) / t.denominator;
            reach(network_.outputs[o], static_cast<int32_t>(std::min<int64_t>(end, wanted_[o].y1)));
        }
        for (uint32_t i = network_.layer_count; i-- > 0;) {
            const Layer& layer = network_.layers[i];
            const uint32_t t = network_.input_count + i;
            Rows& y = rows_[t];
            if (y.until <= y.done) continue;
            int32_t need = y.until;
            switch (layer.kind) {
                case Kind::pointwise:
                case Kind::add:
                    break;
                case Kind::depthwise:
                    reach(t, regions_[t].y0 + round_up(y.until - regions_[t].y0, kDepthwiseRows));
                    need = y.until + layer.depthwise.kernel / 2;
                    break;
                case Kind::upsample:
                case Kind::depth_to_space:
                    y.until = round_up(y.until, layer.factor);
                    need = y.until / layer.factor;
                    break;
                case Kind::space_to_depth:
                    need = y.until * layer.factor;
                    break;
            }
            reach(layer.inputs[0], need);
            reach(layer.inputs[1], need);
        }
    }

    void reach(uint32_t t, int32_t row) { rows_[t].until = std::max(rows_[t].until, std::min(row, regions_[t].y1)); }

    // Ends a step: what no later one needs is let go.
    void settle() {
        for (uint32_t t = 0; t < network_.tensor_count(); ++t) rows_[t].top = rows_[t].done = rows_[t].until;
        for (uint32_t i = 0; i < network_.layer_count; ++i) {
            const Layer& layer = network_.layers[i];
            const uint32_t t = network_.input_count + i;
            int32_t need = rows_[t].done;
            if (need >= regions_[t].y1) continue;
            if (layer.kind == Kind::depthwise) need -= layer.depthwise.kernel / 2;
            if (layer.kind == Kind::upsample || layer.kind == Kind::depth_to_space) need /= layer.factor;
            if (layer.kind == Kind::space_to_depth) need *= layer.factor;
            for (uint32_t input : layer.inputs)
                rows_[input].top = std::max(std::min(rows_[input].top, need), regions_[input].y0);
        }
    }

    // What is kept has a place of its own; others share what slots there are.
    bool allocate() {
        uint64_t kept = 0, slots[Workspace::kSlots] = {};
        for (uint32_t t = network_.input_count; t < network_.tensor_count(); ++t) {
            const uint64_t bytes = static_cast<uint64_t>(rows_[t].most) * row_bytes(t);
            uint64_t& slot = slots[tensor(t).slot];
            if (rows_[t].kept) kept += bytes; else slot = std::max(slot, bytes);
        }
        if (!workspace_.kept.reserve(workspace_.memory, kept)) return false;
        for (int32_t i = 0; i < network_.slot_count; ++i)
            if (!workspace_.slots[i].reserve(workspace_.memory, slots[i])) return false;
        int8_t* next = workspace_.kept.data();
        for (uint32_t t = network_.input_count; t < network_.tensor_count(); ++t) {
            rows_[t].memory = rows_[t].kept ? next : workspace_.slots[tensor(t).slot].data();
            if (rows_[t].kept) next += static_cast<uint64_t>(rows_[t].most) * row_bytes(t);
            views_[t] = {rows_[t].memory, regions_[t], tensor(t).spec.channels};
        }
        return true;
    }

    // A layer's rows of this step.
    void make(uint32_t i) {
        const Layer& layer = network_.layers[i];
        const uint32_t t = network_.input_count + i;
        const Rows& r = rows_[t];
        View& all = views_[t];
        if (r.kept && r.top > all.region.y0)
            std::memmove(r.memory, all.at(r.top, all.region.x0), count(r.done - r.top) * row_bytes(t));
        all.region.y0 = r.top;
        all.region.y1 = r.until;
        if (r.until <= r.done || all.region.empty()) return;
        const View y = {all.at(r.done, all.region.x0), {r.done, all.region.x0, r.until, all.region.x1}, all.channels};
        const View& x = views_[layer.inputs[0]];
        const Tensor& source = tensor(layer.inputs[0]);
        switch (layer.kind) {
            case Kind::pointwise:
                run_pointwise(layer, kernels_, x, y, workspace_.scratch.data());
                break;
            case Kind::depthwise:
                run_depthwise(layer, kernels_, height_ / source.denominator * source.numerator, x, y);
                break;
            case Kind::add: {
                const int32_t zero = tensor(t).spec.zero_point;
                const int32_t offset =
                    zero - source.spec.zero_point - tensor(layer.inputs[1]).spec.zero_point;
                run_add(kernels_, offset, layer.relu ? zero : -128, x, views_[layer.inputs[1]], y);
                break;
            }
            case Kind::upsample: run_upsample(layer.factor, x, y); break;
            case Kind::space_to_depth: run_space_to_depth(layer.factor, x, y); break;
            case Kind::depth_to_space: run_depth_to_space(layer.factor, x, y); break;
        }
    }

    // The rows of an output that this step has made.
    void copy(uint32_t t, const Region& wanted, const View& to) const {
        const size_t bytes = count(wanted.width()) * count(to.channels);
        const int32_t end = std::min(rows_[t].until, wanted.y1);
        for (int32_t y = std::max(rows_[t].done, wanted.y0); y < end; ++y)
            std::memcpy(to.at(y, wanted.x0), views_[t].at(y, wanted.x0), bytes);
    }

    const Network& network_;
    const Kernels& kernels_;
    Workspace& workspace_;
    const int32_t height_, width_;
    const Region* wanted_ = nullptr;
    Region regions_[kMaxTensors];
    Rows rows_[kMaxTensors] = {};
    View views_[kMaxTensors];
};

}  // namespace

bool run(const Network& network, const Kernels& kernels, Workspace& workspace, int32_t height, int32_t width,
         const View* inputs, const Region* wanted, const View* outputs) {
    for (uint32_t i = 0; i < network.layer_count; ++i)
        if (network.layers[i].kind == Kind::pointwise &&
            !workspace.scratch.reserve(workspace.memory, kernels.scratch(network.layers[i].pointwise)))
            return false;
    return Pass(network, kernels, workspace, height, width).run(inputs, wanted, outputs);
}

}  // namespace pocketlic
