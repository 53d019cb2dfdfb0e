// What hyper-synthesis and context say about latents: their means and steps; and latents of their symbols, by those.
#pragma once

#include <cstring>
#include <type_traits>

#include "picture.h"
#include "runner.h"

namespace pocketlic {

constexpr int32_t kTileRows = 64, kTileColumns = 64;  // latents

// Working memory of one thread.
class Parameters {
public:
    Parameters(Picture& picture, Workspace& workspace) : picture_(picture), workspace_(workspace) {}

    View features, means, log2_steps;  // of `hyper`
    View anchors, context_means;       // of `context`; those are the means of what is no anchor

    // What `context` on that region needs of `hyper`.
    Region around(const Region& region) const;

    // False without memory, as are those below.
    bool hyper(const Region& region);
    // symbols(y, x): those of y at a latent.
    template <typename Symbols>
    bool context(const Region& region, Symbols symbols) {
        if (!view(anchors_, features.region, picture_.model.latents, anchors)) return false;
        anchor_values(picture_, features.region, means, log2_steps, symbols, anchors);
        return run_context(region);
    }

    // A buffer as a view of a region.
    bool view(Buffer<int8_t>& buffer, const Region& region, int32_t channels, View& to) const {
        if (!buffer.reserve(picture_.memory, count(region.height(), region.width(), channels))) return false;
        to = {buffer.data(), region, channels};
        return true;
    }

    // The anchors' latents on the coarse grid, 0 elsewhere.
    template <typename Symbols>
    static void anchor_values(const Picture& picture, const Region& region, const View& means, const View& log2_steps,
                              Symbols symbols, const View& anchors);

    // The synthesis' inputs. symbols(y, x), details(y, x): those of a latent.
    template <typename Symbols, typename Details>
    static void latent_values(const Picture& picture, const Region& region, const View& means, const View& log2_steps,
                              const View& context_means, Symbols symbols, Details details, const View* inputs);

private:
    bool run_context(const Region& region);

    // floor(y_hat / 2^bits + 1/2), clamped
    static int32_t coarse(int32_t y_hat, uint8_t bits) {
        return std::clamp((y_hat + ((1 << bits) >> 1)) >> bits, -128, 127);
    }

    Picture& picture_;
    Workspace& workspace_;
    Buffer<int8_t> features_, means_, log2_steps_, anchors_, context_means_;
};

template <typename Symbols>
void Parameters::anchor_values(const Picture& picture, const Region& region, const View& means,
                               const View& log2_steps, Symbols symbols, const View& anchors) {
    const plic_model& model = picture.model;
    const auto channels = static_cast<size_t>(model.latents);
    for (int32_t y = region.y0; y < region.y1; ++y) {
        for (int32_t x = region.x0; x < region.x1; ++x) {
            const auto* symbol = symbols(y, x);
            const int8_t *mean = means.at(y, x), *log2_step = log2_steps.at(y, x);
            int8_t* anchor = anchors.at(y, x);
            // One half of the channels are anchors here, the others 0.
            const size_t half = channels / 2;
            const bool first_half = is_anchor(y, x, false);
            const size_t begin = first_half ? 0 : half, end = first_half ? half : channels;
            std::memset(anchor, 0, channels);
            if constexpr (std::is_same_v<std::decay_t<decltype(*symbol)>, int16_t>) {
                if (model.kernels.latents != nullptr && channels % 32 == 0) {
                    const Steps all = picture.steps(), steps = {all.base + begin, all.table, all.last};
                    model.kernels.latents(symbol + begin, mean + begin, log2_step + begin, steps,
                                          model.fine_bits + begin, half, anchor + begin);
                    continue;
                }
            }
            // Without a symbol, the mean itself.
            std::memcpy(anchor + begin, mean + begin, end - begin);
            for_nonzero(symbol + begin, end - begin, [&](size_t i) {
                const size_t c = begin + i;
                const uint8_t bits = model.fine_bits[c];
                const int32_t y_hat = mean[c] * (1 << bits) + symbol[c] * picture.step(log2_step[c], c);
                anchor[c] = static_cast<int8_t>(coarse(y_hat, bits));
            });
        }
    }
}

template <typename Symbols, typename Details>
void Parameters::latent_values(const Picture& picture, const Region& region, const View& means,
                               const View& log2_steps, const View& context_means, Symbols symbols, Details details,
                               const View* inputs) {
    const plic_model& model = picture.model;
    const auto channels = static_cast<size_t>(model.latents);
    for (int32_t y = region.y0; y < region.y1; ++y) {
        for (int32_t x = region.x0; x < region.x1; ++x) {
            const auto* symbol = symbols(y, x);
            const int8_t* log2_step = log2_steps.at(y, x);
            int8_t *plane = inputs[0].at(y, x), *fine = plane + channels;
            // One half of the channels are anchors here. Without a symbol, the mean itself.
            const size_t half = channels / 2;
            const bool first_half = is_anchor(y, x, false);
            std::memcpy(plane, (first_half ? means : context_means).at(y, x), half);
            std::memcpy(plane + half, (first_half ? context_means : means).at(y, x) + half, channels - half);
            std::memset(fine, 0, static_cast<size_t>(model.wide_count));
            const auto* detail = details(y, x);
            int8_t* d_hat = inputs[1].at(y, x);
            const auto n = static_cast<size_t>(model.details);
            if constexpr (std::is_same_v<std::decay_t<decltype(*symbol)>, int16_t>) {
                if (model.kernels.latents != nullptr && channels % 16 == 0 && n % 16 == 0) {
                    for (int32_t i = 0; i < model.wide_count; ++i) {
                        const size_t c = model.wide[i];
                        if (symbol[c] == 0) continue;
                        const uint8_t bits = model.fine_bits[c];
                        const int32_t y_hat = plane[c] * (1 << bits) + symbol[c] * picture.step(log2_step[c], c);
                        fine[i] = static_cast<int8_t>(std::clamp(y_hat - 4 * coarse(y_hat, bits), -128, 127));
                    }
                    model.kernels.latents(symbol, plane, log2_step, picture.steps(), model.fine_bits, channels, plane);
                    model.kernels.details(detail, picture.detail_steps(), n, d_hat);
                    continue;
                }
            }
            for_nonzero(symbol, channels, [&](size_t c) {
                const uint8_t bits = model.fine_bits[c];
                const int32_t y_hat = plane[c] * (1 << bits) + symbol[c] * picture.step(log2_step[c], c);
                const int32_t value = coarse(y_hat, bits);
                plane[c] = static_cast<int8_t>(value);
                if (bits > 0) {
                    const auto rank = std::lower_bound(model.wide, model.wide + model.wide_count, c) - model.wide;
                    fine[rank] = static_cast<int8_t>(std::clamp(y_hat - 4 * value, -128, 127));
                }
            });
            std::memset(d_hat, 0, n);
            for_nonzero(detail, n, [&](size_t c) {
                d_hat[c] = static_cast<int8_t>(std::clamp(detail[c] * picture.step(0, channels + c), -128, 127));
            });
        }
    }
}

}  // namespace pocketlic
