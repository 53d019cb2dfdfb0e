// From pixels to symbols, in passes over the picture:
//
//     pixels -> analysis -> y, in 2^-8 of its grid; symbols of d   a strip of latent rows at a time
//     y, d -> hyper-analysis -> z
//     z -> means -> symbols of y, which take its place             anchors first, then the others
//     symbols of d that their tables skip -> 0                     a band at a time
#pragma once

#include <type_traits>

#include "parameters.h"
#include "table_indices.h"
#include "threads.h"

namespace pocketlic {

class Encoder {
public:
    // What it is given has to outlive it. The picture is prepared.
    Encoder(Picture& picture, plic_error* error)
        : picture_(picture), model_(picture.model), memory_(picture.memory), error_(error) {}

    plic_status encode(plic_row_source* source, void* user);

    // Symbols, as plic_symbols has them, once the picture is encoded; z is the picture's.
    const int16_t* y() const { return y_.data(); }
    const int16_t* details() const { return details_.data(); }

private:
    friend struct Whole;
    // Working memory of one thread.
    struct Worker {
        explicit Worker(Picture& picture)
            : workspace(picture.memory), indices_of(picture), parameters(picture, workspace) {}
        Workspace workspace;
        TableIndices indices_of;
        Parameters parameters;
        Buffer<uint8_t> indices, scratch;
        Buffer<int8_t> features[2];  // the analysis' outputs
        Buffer<int32_t> acc;
    };
    // Pictures' rows as the analysis takes them: padded, three components, int8.
    struct Window {
        Buffer<int8_t> rows;
        Buffer<uint8_t> given;  // one row as the source gives it
        int32_t top = 0, bottom = 0;
    };

    // Threads, so many that they take about half of the memory left.
    int32_t threads() const;
    // y, d and z. What they need besides is released at the end.
    plic_status grids(plic_row_source* source, void* user, const Counts& counts);
    // Makes the window hold these rows. False when the source stops.
    bool fill(Window& window, const Region& need, int32_t width, plic_row_source* source, void* user);
    // One part, in latents: y_ and details_, and both on their grids.
    bool analyse(Worker& worker, const Region& part, const View& pixels, const View* grid);
    // Hands the sums of a projection at each place to take(y, x, sums).
    template <typename Take>
    bool accumulate(Worker& worker, const Projection& p, const View& from, const Region& region, Take take);
    // Hands each output of a projection, in 2^-8 of its grid, to put(y, x, channel, value).
    template <typename Put>
    bool project(Worker& worker, uint32_t output, const Projection& p, const View& from, const Region& region, Put put);
    // y -> symbols: the anchors, or, once those are symbols everywhere, the others.
    plic_status quantize(bool anchors);
    bool quantize_tile(Worker& worker, const Region& tile, bool anchors);
    // indices: those of the region's tables. values(y, x): the latents at one place, in 2^-8 of the coarse grid, that
    // become symbols; wide(y, x): those of the wide channels, or null if they are among the others.
    template <typename Values, typename Wide>
    void quantize_values(const Region& region, bool anchors, const View& means, const View& log2_steps,
                         const uint8_t* indices, Values values, Wide wide) const;
    template <typename T>
    plic_status skip_details(const T* y, T* details);
    // Calls f(part, worker) for the parts of a region, on all threads; says whether all could be done.
    template <typename Function>
    bool for_each_part(const Region& region, int32_t rows, int32_t columns, const Function& f) {
        const int32_t across = (region.width() + columns - 1) / columns;
        const int32_t down = (region.height() + rows - 1) / rows;
        return for_each(workers_.size(), across * down, [&](int32_t i, int32_t worker) {
            const int32_t y = region.y0 + i / across * rows, x = region.x0 + i % across * columns;
            return f({y, x, std::min(y + rows, region.y1), std::min(x + columns, region.x1)}, workers_[worker]);
        });
    }

    static int64_t rounding_shift(int64_t v, int64_t shift) { return (v + (int64_t{1} << (shift - 1))) >> shift; }
    static int8_t coarse(int64_t v) {
        return static_cast<int8_t>(std::clamp<int64_t>(rounding_shift(v, 8), -128, 127));
    }
    // distance / step, rounded half up, where the distance is in 2^-8 of the step's unit.
    static int32_t divide(int64_t distance, int64_t step) {
        const int64_t n = 2 * distance + (step << 8), d = step << 9;
        if (n >= 0 && n < d) return 0;  // as most are, and division is slow
        return static_cast<int32_t>(n >= 0 ? n / d : -((-n + d - 1) / d));
    }

    // The symbol of a detail, which is in 2^-8 of its grid.
    int32_t detail_symbol(size_t channel, int64_t value) const {
        const int64_t bounded = std::clamp<int64_t>(value, -(128 << 8), (128 << 8) - 1);
        return divide(bounded, picture_.step(0, static_cast<size_t>(model_.latents) + channel));
    }

    int16_t* latent(int32_t y, int32_t x) { return y_.data() + index(y, x, picture_.lw, model_.latents); }
    int32_t* wide_values(int32_t y, int32_t x) {
        return wide_.data() + index(y, x, picture_.lw, model_.wide_count);
    }

    Picture& picture_;
    const plic_model& model_;
    Memory& memory_;
    plic_error* error_;
    PerThread<Worker> workers_;
    Buffer<int16_t> y_, details_;  // symbols, and before that y, as far as it fits, in 2^-8 of its coarse grid
    Buffer<int32_t> wide_;         // y of the wide channels, which are finer and need more
};

template <typename Take>
bool Encoder::accumulate(Worker& worker, const Projection& p, const View& from, const Region& region, Take take) {
    const auto outputs = static_cast<size_t>(p.accumulate.outputs);
    if (!worker.acc.reserve(memory_, outputs * static_cast<size_t>(region.width())) ||
        !worker.scratch.reserve(memory_, model_.kernels.scratch(p.accumulate)))
        return false;
    for (int32_t y = region.y0; y < region.y1; ++y) {
        model_.kernels.accumulate(p.accumulate, from.at(y, region.x0), static_cast<size_t>(region.width()),
                                  worker.acc.data(), worker.scratch.data());
        const int32_t* acc = worker.acc.data();
        for (int32_t x = region.x0; x < region.x1; ++x, acc += outputs) take(y, x, acc);
    }
    return true;
}

template <typename Put>
bool Encoder::project(Worker& worker, uint32_t output, const Projection& p, const View& from, const Region& region,
                      Put put) {
    const Network& analysis = model_.networks[kAnalysis];
    const int64_t zero = analysis.tensors[analysis.outputs[output]].spec.zero_point;
    const auto outputs = static_cast<size_t>(p.accumulate.outputs);
    return accumulate(worker, p, from, region, [&](int32_t y, int32_t x, const int32_t* acc) {
        for (size_t c = 0; c < outputs; ++c) {
            const int64_t sum = int64_t{acc[c]} - zero * p.sums[c] + p.bias[c];
            const int32_t shift = p.shift[c];
            put(y, x, c, shift < 0 ? rounding_shift(sum, -shift) : sum * (int64_t{1} << shift));
        }
    });
}

template <typename Values, typename Wide>
void Encoder::quantize_values(const Region& region, bool anchors, const View& means, const View& log2_steps,
                              const uint8_t* indices, Values values, Wide wide) const {
    const auto channels = static_cast<size_t>(model_.latents);
    for (int32_t y = region.y0; y < region.y1; ++y) {
        for (int32_t x = region.x0; x < region.x1; ++x) {
            const int8_t *mean = means.at(y, x), *log2_step = log2_steps.at(y, x);
            const uint8_t* table = indices + index(y - region.y0, x - region.x0, region.width(), model_.latents);
            auto* value = values(y, x);
            const int32_t* next = wide(y, x);
            const auto symbol = [&](size_t c, int64_t coarse_value) {
                const uint8_t bits = model_.fine_bits[c];
                // y is in 2^-8 of the coarse grid: bring it to the channel's own.
                const int64_t bound = int64_t{128} << (8 + bits), scale = 1 << bits;
                const int64_t distance =
                    std::clamp(coarse_value * scale, -bound, bound - 1) - mean[c] * scale * 256;
                const bool skipped = table[c] < model_.tables.skip();
                return static_cast<std::decay_t<decltype(*value)>>(
                    skipped ? 0 : divide(distance, picture_.step(log2_step[c], c)));
            };
            if constexpr (std::is_same_v<std::decay_t<decltype(*value)>, int16_t>) {
                if (model_.kernels.quantize != nullptr && channels % 32 == 0) {
                    const size_t half = channels / 2, begin = is_anchor(y, x, false) == anchors ? 0 : half;
                    const Steps all = picture_.steps(), steps = {all.base + begin, all.table, all.last};
                    model_.kernels.quantize(value + begin, mean + begin, log2_step + begin, steps, table + begin,
                                            static_cast<uint8_t>(model_.tables.skip()), half);
                    for (int32_t i = 0; i < model_.wide_count; ++i) {
                        const size_t c = model_.wide[i];
                        if (c >= begin && c < begin + half) value[c] = symbol(c, next[i]);
                    }
                    continue;
                }
            }
            for (size_t c = 0; c < channels; ++c) {
                const uint8_t bits = model_.fine_bits[c];
                const int64_t coarse_value = bits > 0 && next != nullptr ? *next++ : value[c];
                if (is_anchor(y, x, c >= channels / 2) == anchors) value[c] = symbol(c, coarse_value);
            }
        }
    }
}

}  // namespace pocketlic
