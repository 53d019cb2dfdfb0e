// Integer networks, computed region by region.
//
// A caller asks for a region of the outputs. Each layer, from the last to the first, then says which region of its
// inputs that needs, cut off at the picture's border; a depthwise convolution sees zeros only beyond that border. So
// the results for a region do not depend on what else is computed, and a picture may be cut in any way.
#pragma once

#include "kernels/kernels.h"
#include "memory.h"

namespace pocketlic {

enum class Kind : uint8_t { pointwise, depthwise, add, upsample, space_to_depth, depth_to_space };

struct Spec {
    int32_t channels, exponent, zero_point;
};

struct Tensor {
    const char* name;
    Spec spec;
    int32_t numerator, denominator;  // of its height to that of the inputs
    int32_t slot;                    // of the workspace, where it lives; -1 for inputs
};

struct Layer {
    Kind kind;
    bool relu;
    int32_t factor;
    uint32_t inputs[2];  // tensors; both the same where there is one
    Pointwise pointwise;
    Depthwise depthwise;
};

struct Network {
    const char* name;
    uint32_t input_count, layer_count, output_count;
    int32_t slot_count;
    Tensor* tensors;    // the inputs, then the output of each layer
    Layer* layers;
    uint32_t* outputs;  // tensors
    uint32_t tensor_count() const { return input_count + layer_count; }
};

constexpr uint32_t kMaxTensors = 256;
constexpr uint32_t kMaxEnds = 8;  // inputs, and outputs, of a network
constexpr int32_t kMaxKernel = 31;

// Cells y0 .. y1 - 1, x0 .. x1 - 1.
struct Region {
    int32_t y0, x0, y1, x1;
    bool empty() const { return y0 >= y1 || x0 >= x1; }
    int32_t height() const { return y1 - y0; }
    int32_t width() const { return x1 - x0; }
    bool contains(const Region& r) const {
        return r.empty() || (y0 <= r.y0 && x0 <= r.x0 && r.y1 <= y1 && r.x1 <= x1);
    }
    void join(const Region& r);
    Region scaled(int32_t numerator, int32_t denominator) const {  // must divide
        return {y0 / denominator * numerator, x0 / denominator * numerator, y1 / denominator * numerator,
                x1 / denominator * numerator};
    }
};

// A region of a tensor in memory, without gaps.
struct View {
    int8_t* data;
    Region region;
    int32_t channels;
    int8_t* at(int32_t y, int32_t x) const {
        return data + (static_cast<size_t>(y - region.y0) * static_cast<size_t>(region.width()) +
                       static_cast<size_t>(x - region.x0)) *
                          static_cast<size_t>(channels);
    }
};

// What one thread needs to run networks; grows as needed and is reused.
struct Workspace {
    explicit Workspace(Memory& account) : memory(account) {}
    static constexpr int32_t kSlots = 32;
    Memory& memory;
    Buffer<int8_t> slots[kSlots], kept;
    Buffer<uint8_t> scratch;
    Buffer<int8_t> ends[2 * kMaxEnds];  // what a foreign runner takes and makes
};

// Regions of all tensors that these regions of the outputs need. height, width: the picture's, in cells of an input.
void plan(const Network& network, int32_t height, int32_t width, const Region* outputs, Region* regions);

// Computes regions of the outputs, into `outputs` that cover them, from inputs that cover what `plan` says. False
// without memory.
bool run(const Network& network, const Kernels& kernels, Workspace& workspace, int32_t height, int32_t width,
         const View* inputs, const Region* wanted, const View* outputs);

}  // namespace pocketlic
