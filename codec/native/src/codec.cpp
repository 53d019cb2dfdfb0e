// From file to symbols to pixels, from pixels to symbols, and from symbols to a file: SPEC.md, sections 5 and 6.
//
//     z                            decoded whole, from the first band's stream: 1/64 byte a pixel
//     y, d                         a band of 64 latent rows at a time; the bands that a row of tiles needs are kept
//     means, steps, planes, d_hat  a tile of 32 x 64 latents and what it needs around it
//     synthesis                    parts of a tile, small enough for a processor's cache
//     post-filter, pixels          blocks of a tile, smaller still
#include <algorithm>
#include <cstring>

#include "container.h"
#include "crc32c.h"
#include "model.h"
#include "postfilter.h"
#include "sha256.h"
#include "stages.h"

namespace pocketlic {
namespace {

constexpr int32_t kTileRows = 32, kTileColumns = 64;  // latents
constexpr int32_t kPart = 16;                         // latents: what networks compute at a time
constexpr int32_t kKeptBands = 8;
constexpr int32_t kRowCells = 16;    // cells of z whose rows are predicted at a time
constexpr size_t kRowLatents = 64;   // latents whose magnitudes are summed at a time: those of kRowCells
constexpr size_t kCells = kLatentsPerHyper * kLatentsPerHyper;  // latents of a cell of z

bool is_anchor(int32_t y, int32_t x, bool second_half) { return ((y + x + (second_half ? 1 : 0)) & 1) == 0; }

// Has the model's foreign runner compute regions of the outputs, as `run` does. False when it cannot.
//
// The window that it sees is what `plan` says, so its borders inside the picture do not reach the regions; of a fixed
// size, it is shifted inward at the picture's borders, and what no region depends on may be anything.
bool run_foreign(const plic_model& model, NetworkIndex index, Workspace& workspace, int32_t height, int32_t width,
                 const View* inputs, const Region* wanted, View* outputs) {
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
        outputs[o] = {made[o], region, t.spec.channels};
    }
    return model.runner(model.runner_user, network.name, static_cast<uint32_t>(window.height()),
                                static_cast<uint32_t>(window.width()), in, made) == 0;
}

bool run(const plic_model& model, NetworkIndex index, Workspace& workspace, int32_t height, int32_t width,
         const View* inputs, const Region* wanted, View* outputs) {
    const Network& network = model.networks[index];
    return (model.runner != nullptr &&
            run_foreign(model, index, workspace, height, width, inputs, wanted, outputs)) ||
           run(network, model.kernels, workspace, height, width, inputs, wanted, outputs);
}

// Runs a network, all of whose outputs have one grid, on a region of them, part by part, into `outputs`, which
// cover it.
bool run_parts(const plic_model& model, NetworkIndex index, Workspace& workspace, int32_t height, int32_t width,
               const View* inputs, const Region& region, const View* outputs) {
    const Network& network = model.networks[index];
    for (int32_t y = region.y0; y < region.y1; y += kPart) {
        for (int32_t x = region.x0; x < region.x1; x += kPart) {
            const Region wanted = {y, x, std::min(y + kPart, region.y1), std::min(x + kPart, region.x1)};
            Region all[kMaxEnds];
            View made[kMaxEnds];
            std::fill_n(all, network.output_count, wanted);
            if (!run(model, index, workspace, height, width, inputs, all, made)) return false;
            for (uint32_t o = 0; o < network.output_count; ++o) {
                const size_t bytes = static_cast<size_t>(wanted.width()) * static_cast<size_t>(made[o].channels);
                for (int32_t row = wanted.y0; row < wanted.y1; ++row)
                    std::memcpy(outputs[o].at(row, x), made[o].at(row, x), bytes);
            }
        }
    }
    return true;
}

// Calls f(i) for each value that is not 0: few are.
template <typename T, typename Function>
void for_nonzero(const T* values, size_t n, Function f) {
    constexpr size_t kRun = 8;
    for (size_t i = 0; i < n; i += kRun) {
        const size_t end = std::min(i + kRun, n);
        T any = 0;
        if (end == i + kRun)
            for (size_t k = 0; k < kRun; ++k) any = static_cast<T>(any | values[i + k]);
        else
            any = 1;
        if (any == 0) continue;
        for (size_t k = i; k < end; ++k)
            if (values[k] != 0) f(k);
    }
}

// Elements of a picture's symbols.
struct Counts {
    uint64_t z, y, details;
};

// One call's state.
class Decoder {
public:
    Decoder(const plic_model& model, uint64_t max_memory, plic_error* error)
        : memory(max_memory), model_(model), error_(error), workspace_(memory) {}

    Memory memory;
    Container file;

    Counts counts() const {
        return {count(zh_, zw_, model_.hypers), count(lh_, lw_, model_.latents), count(lh_, lw_, model_.details)};
    }

    plic_status open(const uint8_t* data, size_t size, uint64_t max_pixels) {
        data_ = data;
        const plic_status status = read_container(data, size, max_pixels, file, error_);
        if (status != PLIC_OK) return status;
        if (std::memcmp(file.info.model_id, model_.id, sizeof file.info.model_id) != 0) {
            char ids[2][17];
            for (size_t i = 0; i < 16; ++i) {
                static constexpr char kDigits[] = "0123456789abcdef";
                const int shift = i % 2 == 0 ? 4 : 0;
                ids[0][i] = kDigits[file.info.model_id[i / 2] >> shift & 15];
                ids[1][i] = kDigits[model_.id[i / 2] >> shift & 15];
            }
            ids[0][16] = ids[1][16] = 0;
            return fail(error_, PLIC_ERROR_MISMATCH, "the file was made by model %s, this decoder has %s", ids[0],
                        ids[1]);
        }
        return prepare();
    }

    // Makes ready for what file.info says.
    plic_status prepare() {
        const plic_info& info = file.info;
        zh_ = static_cast<int32_t>(info.hyper_height);
        zw_ = static_cast<int32_t>(info.hyper_width);
        lh_ = static_cast<int32_t>(info.latent_height);
        lw_ = static_cast<int32_t>(info.latent_width);
        quality_ = static_cast<int32_t>(info.quality_hundredths);
        const auto latents = static_cast<uint64_t>(model_.latents), details = static_cast<uint64_t>(model_.details);
        const uint64_t widest = std::max(latents, details);
        if (!z_.allocate(memory, count(zh_, zw_, model_.hypers)) || !row_base_.allocate(memory, kCells * widest) ||
            !row_acc_.allocate(memory, kCells * widest * kRowCells) ||
            !magnitude_acc_.allocate(memory, details * kRowLatents) ||
            !magnitudes_.allocate(memory, latents * kRowLatents) ||
            !step_base_.allocate(memory, latents + details) ||
            !scratch_.allocate(memory, std::max({model_.kernels.scratch(model_.y_rows.accumulate),
                                                 model_.kernels.scratch(model_.detail_rows.accumulate),
                                                 model_.kernels.scratch(model_.magnitude_rows)})))
            return no_memory(error_, memory);
        for (int32_t c = 0; c < model_.latents + model_.details; ++c)
            step_base_[static_cast<size_t>(c)] =
                static_cast<int32_t>(std::clamp<int64_t>(model_.step_knots.at(quality_, c), -(1 << 20), 1 << 20));
        return PLIC_OK;
    }

    // The post-filter at the picture's quality: what `shown` and `show` need.
    bool choose_filters() {
        const Knots& knots = model_.post_filter;
        if (!filters_.allocate(memory, static_cast<uint64_t>(knots.channels))) return false;
        for (int32_t i = 0; i < knots.channels; ++i)
            filters_[static_cast<size_t>(i)] = static_cast<int16_t>(knots.nearest(quality_, i));
        return true;
    }

    int8_t* z() { return z_.data(); }
    size_t z_count() const { return z_.size(); }

    plic_status hyper_rows(Buffer<uint8_t>& rows) {
        if (!rows.allocate(memory, z_.size())) return no_memory(error_, memory);
        const auto hypers = static_cast<size_t>(model_.hypers);
        for (size_t c = 0; c < hypers; ++c) {
            const int64_t row = (model_.hyper_row_knots.at(quality_, static_cast<int32_t>(c)) + (1 << 15)) >> 16;
            // z is never skipped, whatever its row.
            rows[c] = static_cast<uint8_t>(std::clamp<int64_t>(row, model_.tables.skip(),
                                                               static_cast<int64_t>(model_.tables.row_count()) - 1));
        }
        for (size_t i = hypers; i < rows.size(); ++i) rows[i] = rows[i - hypers];
        return PLIC_OK;
    }

    // z is what the first band's stream begins with.
    plic_status decode_z() {
        Buffer<uint8_t> rows;
        Buffer<int16_t> symbols;
        const plic_status status = hyper_rows(rows);
        if (status != PLIC_OK) return status;
        if (!symbols.allocate(memory, z_.size())) return no_memory(error_, memory);
        behind_z_ = stream(0);
        const rans::Status coded = behind_z_.read(model_.tables, rows.data(), rows.size(), symbols.data());
        if (coded != rans::Status::ok) return damaged(coded);
        bool sound = true;
        hyper_predictions([&](size_t i, int32_t prediction) {
            const int32_t value = symbols[i] + prediction;
            sound = sound && value >= -128 && value <= 127;
            z_[i] = static_cast<int8_t>(value);
        });
        return sound ? PLIC_OK : fail(error_, PLIC_ERROR_FORMAT, "damaged payload: z outside int8");
    }

    // What is coded of z.
    plic_status z_differences(Buffer<int16_t>& differences) {
        if (!differences.allocate(memory, z_.size())) return no_memory(error_, memory);
        hyper_predictions([&](size_t i, int32_t prediction) {
            differences[i] = static_cast<int16_t>(z_[i] - prediction);
        });
        return PLIC_OK;
    }

    int32_t band_rows(int32_t band) const {
        return std::min(lh_ - band * static_cast<int32_t>(kBandRows), static_cast<int32_t>(kBandRows));
    }

    size_t band_count(int32_t band, int32_t channels) const {
        return static_cast<size_t>(count(band_rows(band), lw_, channels));
    }

    // Table rows of a band of y, [row][column][channel], from z.
    plic_status y_rows(int32_t band, Buffer<uint8_t>& rows) {
        // Room for those of details too, which often take their place.
        if (!rows.reserve(memory, band_count(0, std::max(model_.latents, model_.details))))
            return no_memory(error_, memory);
        predict(band, model_.y_rows, 0, model_.latents, rows.data(), [](size_t) { return nullptr; });
        return PLIC_OK;
    }

    // Table rows of a band of details, from z and the symbols of y.
    template <typename T>
    plic_status detail_rows(int32_t band, const T* y, Buffer<uint8_t>& rows) {
        const auto n = static_cast<size_t>(model_.details), latents = static_cast<size_t>(model_.latents);
        if (!rows.reserve(memory, band_count(0, model_.details))) return no_memory(error_, memory);
        size_t known = 0, end = 0;  // the latents whose sums are in magnitude_acc_
        const auto all = static_cast<size_t>(count(band_rows(band), lw_, 1));
        predict(band, model_.detail_rows, model_.latents, model_.details, rows.data(), [&](size_t latent) {
            if (latent < known || latent >= end) {
                known = latent;
                end = std::min(latent + kRowLatents, all);
                const T* symbol = y + known * latents;
                const int8_t* table = model_.magnitudes;
                int8_t* to = magnitudes_.data();
                const size_t all_channels = (end - known) * latents;
                for (size_t i = 0; i < all_channels; ++i)
                    to[i] = static_cast<int8_t>(std::min<T>(static_cast<T>(symbol[i] < 0 ? -symbol[i] : symbol[i]), 127));
                for (size_t i = 0; i < all_channels; ++i) to[i] = table[to[i]];
                model_.kernels.accumulate(model_.magnitude_rows, to, end - known, magnitude_acc_.data(),
                                          scratch_.data());
            }
            return magnitude_acc_.data() + (latent - known) * n;
        });
        return PLIC_OK;
    }

    // Symbols of a band into y[0 .. band_count of latents) and details[0 .. band_count of details), which hold zeros.
    template <typename T>
    plic_status decode_band(int32_t band, T* y, T* details) {
        rans::Reader in = band == 0 ? behind_z_ : stream(band);
        plic_status status = y_rows(band, rows_);
        if (status != PLIC_OK) return status;
        rans::Status coded = in.read(model_.tables, rows_.data(), band_count(band, model_.latents), y);
        if (coded != rans::Status::ok) return damaged(coded);
        status = detail_rows(band, y, rows_);
        if (status != PLIC_OK) return status;
        coded = in.read(model_.tables, rows_.data(), band_count(band, model_.details), details);
        if (coded == rans::Status::ok) coded = in.finish();
        return coded == rans::Status::ok ? PLIC_OK : damaged(coded);
    }

    // Decodes rows first .. first + rows - 1. Their pixels go to out, `stride` bytes from row to row; or, without
    // `out`, strip by strip to the sink.
    plic_status decode_pixels(int32_t first, int32_t rows, uint8_t* out, size_t stride, plic_row_sink* sink,
                              void* user) {
        const plic_info& info = file.info;
        const int32_t end = first + rows, latent_end = (end + kLatent - 1) / kLatent;
        const size_t row_bytes = static_cast<size_t>(info.width) * info.components;
        Buffer<uint8_t> strip;
        if (!choose_filters()) return no_memory(error_, memory);
        if (out == nullptr &&
            !strip.allocate(memory, uint64_t{row_bytes} * static_cast<uint64_t>(
                                                              std::min(rows, kTileRows * kLatent))))
            return no_memory(error_, memory);
        for (int32_t top = first / kLatent; top < latent_end; top += kTileRows) {
            const int32_t bottom = std::min(top + kTileRows, latent_end);
            const int32_t from = std::max(first, top * kLatent), to = std::min(end, bottom * kLatent);
            uint8_t* const target =
                out != nullptr ? out + static_cast<size_t>(from - first) * stride : strip.data();
            for (int32_t left = 0; left * kLatent < static_cast<int32_t>(info.width); left += kTileColumns) {
                const int32_t columns = (static_cast<int32_t>(info.width) + kLatent - 1) / kLatent;
                const Region tile = {top, left, bottom, std::min(left + kTileColumns, columns)};
                const plic_status status =
                    decode_tile(tile, from, to, target, out != nullptr ? stride : row_bytes);
                if (status != PLIC_OK) return status;
            }
            if (out == nullptr &&
                sink(user, static_cast<uint32_t>(from), static_cast<uint32_t>(to - from), target) != 0)
                return fail(error_, PLIC_ERROR_STOPPED, "stopped by the receiver of rows");
        }
        return PLIC_OK;
    }

private:
    friend class Encoder;
    friend struct Whole;
    struct Band {
        int32_t number = -1;
        Buffer<int16_t> y, details;
    };

    static uint64_t count(int32_t height, int32_t width, int32_t channels) {
        return static_cast<uint64_t>(height) * static_cast<uint64_t>(width) * static_cast<uint64_t>(channels);
    }
    static size_t index(int32_t y, int32_t x, int32_t width, int32_t channels) {
        return (static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)) *
               static_cast<size_t>(channels);
    }

    // Hands every element of z, in order, to put(index, prediction), by when those before have to be known.
    template <typename Put>
    void hyper_predictions(Put put) {
        const auto hypers = static_cast<size_t>(model_.hypers), row = static_cast<size_t>(zw_) * hypers;
        for (int32_t y = 0; y < zh_; ++y) {
            for (int32_t x = 0; x < zw_; ++x) {
                const size_t cell = index(y, x, zw_, model_.hypers);
                const int8_t* const at = z_.data() + cell;
                // Outside, what is nearest stands in: SPEC.md, section 5.
                const int8_t* const left = x > 0 ? at - hypers : y > 0 ? at - row : nullptr;
                const int8_t* const above = y > 0 ? at - row : left;
                const int8_t* const corner = x == 0 ? above : y == 0 ? left : at - row - hypers;
                const int8_t* weight = model_.hyper_prediction;
                for (size_t c = 0; c < hypers; ++c, weight += 3) {
                    const int32_t sum =
                        left == nullptr ? 0 : weight[0] * left[c] + weight[1] * above[c] + weight[2] * corner[c];
                    put(cell + c, (sum + 32) >> 6);
                }
            }
        }
    }

    rans::Reader stream(int32_t band) const { return {data_ + file.bands[band].offset, file.bands[band].size}; }

    // Rows of a band of one kind of symbol. more(i): accumulators of the i-th latent that are added with
    // magnitude_scale, or null.
    template <typename More>
    void predict(int32_t band, const RowPredictor& predictor, int32_t first, int32_t channels, uint8_t* rows,
                 More more) {
        const auto last = static_cast<int32_t>(model_.tables.row_count()) - 1;
        const auto depth = static_cast<size_t>(channels);
        const int32_t height = band_rows(band);
        for (size_t c = 0; c < depth; ++c) {
            const int64_t knot = model_.row_knots.at(quality_, first + static_cast<int32_t>(c)) + (1 << 15);
            for (size_t i = c; i < kCells * depth; i += depth) row_base_[i] = predictor.bias[i] + knot;
        }
        for (int32_t y = 0; y < height; y += kLatentsPerHyper) {
            const int32_t zy = (band * static_cast<int32_t>(kBandRows) + y) / kLatentsPerHyper;
            for (int32_t x = 0; x < zw_; x += kRowCells) {
                const int32_t cells = std::min(kRowCells, zw_ - x);
                model_.kernels.accumulate(predictor.accumulate, z_.data() + index(zy, x, zw_, model_.hypers),
                                          static_cast<size_t>(cells), row_acc_.data(), scratch_.data());
                // In the order of rows, so that more() is asked for one run of latents after the other.
                for (int32_t dy = 0; dy < kLatentsPerHyper; ++dy) {
                    for (int32_t column = 0; column < cells * kLatentsPerHyper; ++column) {
                        const int32_t cell = column / kLatentsPerHyper;
                        const int32_t of_cell = dy * kLatentsPerHyper + column % kLatentsPerHyper;
                        const auto part = static_cast<size_t>(of_cell) * depth;
                        const size_t to = index(y + dy, x * kLatentsPerHyper + column, lw_, channels);
                        const int32_t* added = more(to / depth);
                        const Term terms[2] = {
                            {row_acc_.data() + static_cast<size_t>(cell) * kCells * depth + part,
                             predictor.scale + part},
                            {added, model_.magnitude_scale}};
                        model_.kernels.rows(terms, added != nullptr ? 2 : 1, row_base_.data() + part, depth, last,
                                            rows + to);
                    }
                }
            }
        }
    }

    plic_status damaged(rans::Status status) {
        return fail(error_, PLIC_ERROR_FORMAT, "damaged payload: %s", rans::message(status));
    }

    // Makes sure that the bands of these latent rows are at hand.
    plic_status require_bands(int32_t y0, int32_t y1) {
        const int32_t size = kBandRows, first = y0 / size, last = (y1 - 1) / size;
        if (last - first >= kKeptBands)
            return fail(error_, PLIC_ERROR_MODEL, "not a Pocketlic model: its networks see too far");
        for (int32_t band = first; band <= last; ++band) {
            Band* free = nullptr;
            bool found = false;
            for (Band& b : bands_) {
                found = found || b.number == band;
                if (b.number < first || b.number > last) {
                    // One that has memory is better than one that needs it.
                    if (free == nullptr || b.y.size() > free->y.size()) free = &b;
                }
            }
            if (found) continue;
            free->number = -1;
            if (!free->y.clear(memory, band_count(0, model_.latents)) ||
                !free->details.clear(memory, band_count(0, model_.details)))
                return no_memory(error_, memory);
            const plic_status status = decode_band(band, free->y.data(), free->details.data());
            if (status != PLIC_OK) return status;
            free->number = band;
        }
        return PLIC_OK;
    }

    // Symbols of all channels at one latent, of a band at hand.
    const Band& band_of(int32_t y) const {
        const Band* band = bands_;
        while (band->number != y / static_cast<int32_t>(kBandRows)) ++band;
        return *band;
    }
    const int16_t* symbols(int32_t y, int32_t x) const {
        return band_of(y).y.data() + index(y % static_cast<int32_t>(kBandRows), x, lw_, model_.latents);
    }
    const int16_t* details(int32_t y, int32_t x) const {
        return band_of(y).details.data() + index(y % static_cast<int32_t>(kBandRows), x, lw_, model_.details);
    }

    bool view(Buffer<int8_t>& buffer, const Region& region, int32_t channels, View& to) {
        if (!buffer.reserve(memory, count(region.height(), region.width(), channels))) return false;
        to = {buffer.data(), region, channels};
        return true;
    }

    int32_t step(int32_t log2_step, size_t channel) const {
        const int32_t finer = std::clamp(log2_step, -64, 64);
        return model_.steps[std::clamp(step_base_[channel] + 8 * finer, 0, kMaxExponent)];
    }

    // floor(y_hat / 2^bits + 1/2), clamped
    static int32_t coarse(int32_t y_hat, uint8_t bits) {
        return std::clamp((y_hat + ((1 << bits) >> 1)) >> bits, -128, 127);
    }

    // The anchors' latents on the coarse grid, 0 elsewhere. made: what the hyper-synthesis says; symbols(y, x): those
    // of a latent.
    template <typename Symbols>
    void anchor_values(const Region& region, const View* made, Symbols symbols, const View& anchors) const {
        const auto channels = static_cast<size_t>(model_.latents);
        for (int32_t y = region.y0; y < region.y1; ++y) {
            for (int32_t x = region.x0; x < region.x1; ++x) {
                const auto* symbol = symbols(y, x);
                const int8_t *mean = made[1].at(y, x), *log2_step = made[2].at(y, x);
                int8_t* anchor = anchors.at(y, x);
                // One half of the channels are anchors here, the others 0.
                const size_t half = channels / 2;
                const bool first_half = is_anchor(y, x, false);
                const size_t begin = first_half ? 0 : half, end = first_half ? half : channels;
                std::memset(anchor, 0, channels);
                // Without a symbol, the mean itself.
                std::memcpy(anchor + begin, mean + begin, end - begin);
                for_nonzero(symbol + begin, end - begin, [&](size_t i) {
                    const size_t c = begin + i;
                    const uint8_t bits = model_.fine_bits[c];
                    const int32_t y_hat = mean[c] * (1 << bits) + symbol[c] * step(log2_step[c], c);
                    anchor[c] = static_cast<int8_t>(coarse(y_hat, bits));
                });
            }
        }
    }

    // The synthesis' inputs. means: the context's; symbols(y, x), details(y, x): those of a latent.
    template <typename Symbols, typename Details>
    void latent_values(const Region& region, const View* made, const View& means, Symbols symbols, Details details,
                       const View* parts) const {
        const auto channels = static_cast<size_t>(model_.latents);
        for (int32_t y = region.y0; y < region.y1; ++y) {
            for (int32_t x = region.x0; x < region.x1; ++x) {
                const auto* symbol = symbols(y, x);
                const int8_t* log2_step = made[2].at(y, x);
                int8_t *plane = parts[0].at(y, x), *fine = plane + channels;
                // One half of the channels are anchors here. Without a symbol, the mean itself.
                const size_t half = channels / 2;
                const bool first_half = is_anchor(y, x, false);
                std::memcpy(plane, (first_half ? made[1] : means).at(y, x), half);
                std::memcpy(plane + half, (first_half ? means : made[1]).at(y, x) + half, channels - half);
                std::memset(fine, 0, static_cast<size_t>(model_.wide_count));
                for_nonzero(symbol, channels, [&](size_t c) {
                    const uint8_t bits = model_.fine_bits[c];
                    const int32_t y_hat = plane[c] * (1 << bits) + symbol[c] * step(log2_step[c], c);
                    const int32_t value = coarse(y_hat, bits);
                    plane[c] = static_cast<int8_t>(value);
                    if (bits > 0) {
                        const auto rank = std::lower_bound(model_.wide, model_.wide + model_.wide_count, c) - model_.wide;
                        fine[rank] = static_cast<int8_t>(std::clamp(y_hat - 4 * value, -128, 127));
                    }
                });
                const auto* detail = details(y, x);
                int8_t* d_hat = parts[1].at(y, x);
                const auto n = static_cast<size_t>(model_.details);
                std::memset(d_hat, 0, n);
                for_nonzero(detail, n, [&](size_t c) {
                    d_hat[c] = static_cast<int8_t>(std::clamp(detail[c] * step(0, channels + c), -128, 127));
                });
            }
        }
    }

    // Rows from .. to - 1 of the picture, as far as they lie in a tile of latents; target is row `from`.
    plic_status decode_tile(const Region& tile, int32_t from, int32_t to, uint8_t* target, size_t stride) {
        const Network& synthesis = model_.networks[kSynthesis];
        const Network& context = model_.networks[kContext];
        const Network& hyper = model_.networks[kHyperSynthesis];
        const int32_t latents = model_.latents;
        const Region pixels = shown(tile, from, to);

        // What the tile needs: planes in `around`; for those, features and anchors in `wide`.
        Region regions[kMaxTensors];
        plan(synthesis, lh_, lw_, &pixels, regions);
        Region around = regions[0];
        around.join(regions[1]);
        around.join(tile);
        plan(context, lh_, lw_, &around, regions);
        Region wide = around;
        wide.join(regions[0]);
        wide.join(regions[1]);
        const plic_status status = require_bands(wide.y0, wide.y1);
        if (status != PLIC_OK) return status;

        View made[3], anchors, means, parts[2];
        const int32_t features = hyper.tensors[hyper.outputs[0]].spec.channels;
        if (!view(features_, wide, features, made[0]) || !view(means_, wide, latents, made[1]) ||
            !view(log2_steps_, wide, latents, made[2]) || !view(anchors_, wide, latents, anchors) ||
            !view(context_, around, latents, means) ||
            !view(planes_, around, latents + model_.wide_count, parts[0]) ||
            !view(details_, around, model_.details, parts[1]))
            return no_memory(error_, memory);
        const View z = {z_.data(), {0, 0, zh_, zw_}, model_.hypers};
        if (!run_parts(model_, kHyperSynthesis, workspace_, zh_, zw_, &z, wide, made))
            return no_memory(error_, memory);

        anchor_values(wide, made, [this](int32_t y, int32_t x) { return symbols(y, x); }, anchors);
        const View inputs[2] = {made[0], anchors};
        if (!run_parts(model_, kContext, workspace_, lh_, lw_, inputs, around, &means))
            return no_memory(error_, memory);

        latent_values(
            around, made, means, [this](int32_t y, int32_t x) { return symbols(y, x); },
            [this](int32_t y, int32_t x) { return details(y, x); }, parts);
        return synthesise(pixels, parts, from, to, tile.x0 * kLatent, target, stride);
    }

    // Pixels that rows from .. to - 1 of a tile take: the post-filter looks around, from its cells of 2x2 pixels.
    Region shown(const Region& tile, int32_t from, int32_t to) const {
        const int32_t reach = filters_.size() > 0 ? kFilterReach : 0;
        const auto height = static_cast<int32_t>(file.info.height), width = static_cast<int32_t>(file.info.width);
        return {std::max(from / 2 * 2 - reach, 0), std::max(tile.x0 * kLatent - reach, 0),
                std::min(to + reach, height), std::min(tile.x1 * kLatent + reach, width)};
    }

    // Rows from .. to - 1 of the picture, from column `left` on, as far as the pixels of a tile that `shown` named go.
    plic_status synthesise(const Region& pixels, const View* inputs, int32_t from, int32_t to, int32_t left,
                           uint8_t* target, size_t stride) {
        View rgb;
        if (!view(rgb_, pixels, 3, rgb)) return no_memory(error_, memory);
        // As many parts as there would be without what lies around.
        const auto parts = [](int32_t side) {
            constexpr int32_t kSide = kPart * kLatent, kAround = 2 * kFilterReach;
            return side <= kSide + kAround ? 1 : (side - kAround + kSide - 1) / kSide;
        };
        const int32_t rows = parts(pixels.height()), columns = parts(pixels.width());
        const auto bound = [](int32_t begin, int32_t end, int32_t i, int32_t n) {
            return i == 0 ? begin : i == n ? end : (begin + (end - begin) / n * i) / kLatent * kLatent;
        };
        for (int32_t i = 0; i < rows; ++i) {
            for (int32_t j = 0; j < columns; ++j) {
                const Region wanted = {
                    bound(pixels.y0, pixels.y1, i, rows), bound(pixels.x0, pixels.x1, j, columns),
                    bound(pixels.y0, pixels.y1, i + 1, rows), bound(pixels.x0, pixels.x1, j + 1, columns)};
                View made;
                if (!run(model_, kSynthesis, workspace_, lh_, lw_, inputs, &wanted, &made))
                    return no_memory(error_, memory);
                for (int32_t y = wanted.y0; y < wanted.y1; ++y)
                    std::memcpy(rgb.at(y, wanted.x0), made.at(y, wanted.x0), 3 * static_cast<size_t>(wanted.width()));
            }
        }
        const int32_t right = std::min(pixels.x1, left + kTileColumns * kLatent);
        for (int32_t y = from / 2 * 2; y < to; y += PostFilter::kRows)
            for (int32_t x = left; x < right; x += PostFilter::kColumns)
                show(rgb, {y, x, std::min(y + PostFilter::kRows, to), std::min(x + PostFilter::kColumns, right)}, from,
                     target, stride);
        return PLIC_OK;
    }

    // A block of pixels, filtered, without rows before `from`; target is that row.
    void show(const View& rgb, const Region& block, int32_t from, uint8_t* target, size_t stride) {
        const size_t components = file.info.components;
        const int16_t* changes = nullptr;
        if (filters_.size() > 0)
            changes = filter_.changes(filters_.data(), rgb, static_cast<int32_t>(file.info.height),
                                      static_cast<int32_t>(file.info.width), block);
        for (int32_t y = std::max(block.y0, from); y < block.y1; ++y) {
            const int8_t* in = rgb.at(y, block.x0);
            uint8_t* out = target + static_cast<size_t>(y - from) * stride + static_cast<size_t>(block.x0) * components;
            const int32_t width = block.width();
            int16_t offsets[3 * PostFilter::kColumns];
            uint8_t grey[3 * PostFilter::kColumns];
            for (int32_t x = 0; x < width; ++x) {
                const int32_t change = changes != nullptr ? changes[(y - block.y0) * PostFilter::kColumns + x] : 0;
                for (int32_t c = 0; c < 3; ++c) offsets[3 * x + c] = static_cast<int16_t>(128 + change);
            }
            uint8_t* const to = components == 3 ? out : grey;
            for (int32_t i = 0; i < 3 * width; ++i)
                to[i] = static_cast<uint8_t>(std::clamp(in[i] + offsets[i], 0, 255));
            if (components == 1)
                for (int32_t x = 0; x < width; ++x)
                    out[x] = static_cast<uint8_t>((grey[3 * x] + 2 * grey[3 * x + 1] + grey[3 * x + 2] + 2) >> 2);
        }
    }

    const plic_model& model_;
    plic_error* error_;
    const uint8_t* data_ = nullptr;
    int32_t zh_ = 0, zw_ = 0, lh_ = 0, lw_ = 0, quality_ = 0;
    rans::Reader behind_z_;
    Buffer<int8_t> z_;
    Buffer<int64_t> row_base_;   // what is added to the scaled accumulators
    Buffer<int32_t> step_base_;  // what quality says about each channel's step
    Buffer<int32_t> row_acc_, magnitude_acc_;
    Buffer<int8_t> magnitudes_;
    Buffer<uint8_t> scratch_, rows_;
    Band bands_[kKeptBands];
    Buffer<int8_t> features_, means_, log2_steps_, anchors_, context_, planes_, details_, rgb_;
    Buffer<int16_t> filters_;  // at the picture's quality; none if the model has none
    PostFilter filter_;
    Workspace workspace_;
};

// From pixels to symbols, in passes over the picture:
//
//     pixels -> analysis -> y, in 2^-8 of its grid; symbols of d   a strip of latent rows at a time
//     y, d -> hyper-analysis -> z
//     z -> means -> symbols of y, which take its place             anchors first, then the others
//     symbols of d that their rows skip -> 0                       a band at a time
class Encoder {
public:
    Encoder(const plic_model& model, Decoder& coder, plic_error* error)
        : model_(model), coder_(coder), memory_(coder.memory), error_(error) {}

    plic_status encode(plic_row_source* source, void* user) {
        const Counts counts = coder_.counts();
        if (!y_.allocate(memory_, counts.y) || !details_.allocate(memory_, counts.details) ||
            !wide_.allocate(memory_, Decoder::count(coder_.lh_, coder_.lw_, model_.wide_count)))
            return no_memory(error_, memory_);
        plic_status status = grids(source, user, counts);
        if (status == PLIC_OK) status = quantize(true);
        if (status == PLIC_OK) status = quantize(false);
        if (status == PLIC_OK) status = skip_details();
        return status;
    }

    // As plic_symbols, but smaller.
    struct Symbols {
        const int8_t* z;
        const int16_t *y, *details;
        size_t z_count, y_count, details_count;
    };
    Symbols symbols() {
        return {coder_.z(), y_.data(), details_.data(), coder_.z_count(), y_.size(), details_.size()};
    }

private:
    friend struct Whole;
    // Pictures' rows as the analysis takes them: padded, three components, int8.
    struct Window {
        Buffer<int8_t> rows;
        Buffer<uint8_t> given;  // one row as the source gives it
        int32_t top = 0, bottom = 0;
    };

    // y, d and z. What they need besides is released at the end.
    plic_status grids(plic_row_source* source, void* user, const Counts& counts) {
        const int32_t height = coder_.lh_ * kLatent, width = coder_.lw_ * kLatent;
        const Network& analysis = model_.networks[kAnalysis];
        Buffer<int8_t> coarse_y, coarse_d;
        Window window;
        Region regions[kMaxTensors];
        const auto rows_of = [&](int32_t top) {
            const Region strip = {top, 0, std::min(top + kTileRows, coder_.lh_), coder_.lw_};
            const Region wanted[2] = {strip, strip.scaled(2, 1)};
            plan(analysis, height, width, wanted, regions);
            return regions[0];
        };
        int32_t most = 0;
        for (int32_t top = 0; top < coder_.lh_; top += kTileRows) most = std::max(most, rows_of(top).height());
        if (!coarse_y.allocate(memory_, counts.y) || !coarse_d.allocate(memory_, counts.details) ||
            !window.rows.allocate(memory_, Decoder::count(most, width, 3)) ||
            !window.given.allocate(memory_, uint64_t{coder_.file.info.width} * coder_.file.info.components))
            return no_memory(error_, memory_);
        const Region all = {0, 0, coder_.lh_, coder_.lw_};
        const View grid[2] = {{coarse_y.data(), all, model_.latents}, {coarse_d.data(), all, model_.details}};
        for (int32_t top = 0; top < coder_.lh_; top += kTileRows) {
            const Region need = rows_of(top);
            if (!fill(window, need, width, source, user))
                return fail(error_, PLIC_ERROR_STOPPED, "stopped by the source of rows");
            const View pixels = {window.rows.data(), {window.top, 0, window.bottom, width}, 3};
            const int32_t bottom = std::min(top + kTileRows, coder_.lh_);
            for (int32_t y = top; y < bottom; y += kPart)
                for (int32_t x = 0; x < coder_.lw_; x += kPart)
                    if (!analyse({y, x, std::min(y + kPart, bottom), std::min(x + kPart, coder_.lw_)}, pixels, grid))
                        return no_memory(error_, memory_);
        }
        const View z = {coder_.z(), {0, 0, coder_.zh_, coder_.zw_}, model_.hypers};
        if (!run_parts(model_, kHyperAnalysis, coder_.workspace_, coder_.lh_, coder_.lw_, grid, z.region, &z))
            return no_memory(error_, memory_);
        const auto hypers = static_cast<size_t>(model_.hypers);
        for (size_t i = 0; i < coder_.z_count(); ++i) {
            const int64_t exponent = model_.hyper_gain_knots.at(coder_.quality_, static_cast<int32_t>(i % hypers));
            const int64_t shift = std::clamp<int64_t>(16 - (exponent >> 8), 1, 40);
            const int64_t product = int64_t{z.data[i]} * model_.exp2[exponent & 255];
            z.data[i] = static_cast<int8_t>(std::clamp<int64_t>(rounding_shift(product, shift), -128, 127));
        }
        return PLIC_OK;
    }

    // Makes the window hold these rows. False when the source stops.
    bool fill(Window& window, const Region& need, int32_t width, plic_row_source* source, void* user) {
        const plic_info& info = coder_.file.info;
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
        return divide(bounded, coder_.step(0, static_cast<size_t>(model_.latents) + channel));
    }

    // One part, in latents: y_ and details_, and both on their grids.
    bool analyse(const Region& part, const View& pixels, const View* grid) {
        const Region wanted[2] = {part, part.scaled(2, 1)};
        View made[2];
        if (!run(model_, kAnalysis, coder_.workspace_, coder_.lh_ * kLatent, coder_.lw_ * kLatent, &pixels, wanted,
                 made))
            return false;
        const auto quarter = static_cast<size_t>(model_.details) / 4;
        if (!project(0, model_.to_latents, made[0], wanted[0], [&](int32_t y, int32_t x, size_t c, int64_t value) {
                const size_t at = Decoder::index(y, x, coder_.lw_, model_.latents) + c;
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
            const size_t at = Decoder::index(y / 2, x / 2, coder_.lw_, model_.details) + channel;
            details_[at] = static_cast<int16_t>(detail_symbol(channel, value));
            grid[1].data[at] = coarse(value);
        });
    }

    // Hands each output of a projection, in 2^-8 of its grid, to put(y, x, channel, value).
    template <typename Put>
    bool project(uint32_t output, const Projection& p, const View& from, const Region& region, Put put) {
        const Network& analysis = model_.networks[kAnalysis];
        const int64_t zero = analysis.tensors[analysis.outputs[output]].spec.zero_point;
        const auto outputs = static_cast<size_t>(p.accumulate.outputs);
        if (!acc_.reserve(memory_, outputs * static_cast<size_t>(region.width())) ||
            !scratch_.reserve(memory_, model_.kernels.scratch(p.accumulate)))
            return false;
        for (int32_t y = region.y0; y < region.y1; ++y) {
            model_.kernels.accumulate(p.accumulate, from.at(y, region.x0), static_cast<size_t>(region.width()),
                                      acc_.data(), scratch_.data());
            const int32_t* acc = acc_.data();
            for (int32_t x = region.x0; x < region.x1; ++x, acc += outputs) {
                for (size_t c = 0; c < outputs; ++c) {
                    const int64_t sum = int64_t{acc[c]} - zero * p.sums[c] + p.bias[c];
                    const int32_t shift = p.shift[c];
                    put(y, x, c, shift < 0 ? rounding_shift(sum, -shift) : sum * (int64_t{1} << shift));
                }
            }
        }
        return true;
    }

    // y -> symbols: the anchors, or, once those are symbols everywhere, the others.
    plic_status quantize(bool anchors) {
        Buffer<uint8_t> rows;
        for (int32_t band = 0; band < static_cast<int32_t>(coder_.file.info.bands); ++band) {
            const plic_status status = coder_.y_rows(band, rows);
            if (status != PLIC_OK) return status;
            const int32_t top = band * static_cast<int32_t>(kBandRows), bottom = top + coder_.band_rows(band);
            for (int32_t y = top; y < bottom; y += kTileRows)
                for (int32_t x = 0; x < coder_.lw_; x += kTileColumns)
                    if (!quantize_tile({y, x, std::min(y + kTileRows, bottom), std::min(x + kTileColumns, coder_.lw_)},
                                       anchors, top, rows.data()))
                        return no_memory(error_, memory_);
        }
        return PLIC_OK;
    }

    // rows: table rows of y from latent row `top` on.
    bool quantize_tile(const Region& tile, bool anchors, int32_t top, const uint8_t* rows) {
        const Network& hyper = model_.networks[kHyperSynthesis];
        const Network& context = model_.networks[kContext];
        Region wide = tile;
        if (!anchors) {
            Region regions[kMaxTensors];
            plan(context, coder_.lh_, coder_.lw_, &tile, regions);
            wide.join(regions[0]);
            wide.join(regions[1]);
        }
        View made[3], known, means;
        const int32_t features = hyper.tensors[hyper.outputs[0]].spec.channels;
        if (!coder_.view(coder_.features_, wide, features, made[0]) ||
            !coder_.view(coder_.means_, wide, model_.latents, made[1]) ||
            !coder_.view(coder_.log2_steps_, wide, model_.latents, made[2]) ||
            !coder_.view(coder_.anchors_, wide, model_.latents, known) ||
            !coder_.view(coder_.context_, tile, model_.latents, means))
            return false;
        const View z = {coder_.z(), {0, 0, coder_.zh_, coder_.zw_}, model_.hypers};
        if (!run_parts(model_, kHyperSynthesis, coder_.workspace_, coder_.zh_, coder_.zw_, &z, wide, made))
            return false;
        if (!anchors) {
            coder_.anchor_values(wide, made, [this](int32_t y, int32_t x) { return latent(y, x); }, known);
            const View inputs[2] = {made[0], known};
            if (!run_parts(model_, kContext, coder_.workspace_, coder_.lh_, coder_.lw_, inputs, tile, &means))
                return false;
        }
        quantize_values(
            tile, anchors, anchors ? made[1] : means, made[2], top, rows,
            [this](int32_t y, int32_t x) { return latent(y, x); },
            [this](int32_t y, int32_t x) { return wide_values(y, x); });
        return true;
    }

    // values(y, x): the latents at one place, in 2^-8 of the coarse grid, that become symbols; wide(y, x): those of the
    // wide channels, or null if they are among the others.
    template <typename Values, typename Wide>
    void quantize_values(const Region& region, bool anchors, const View& means, const View& log2_steps, int32_t top,
                         const uint8_t* rows, Values values, Wide wide) const {
        const auto channels = static_cast<size_t>(model_.latents);
        for (int32_t y = region.y0; y < region.y1; ++y) {
            for (int32_t x = region.x0; x < region.x1; ++x) {
                const int8_t *mean = means.at(y, x), *log2_step = log2_steps.at(y, x);
                const uint8_t* row = rows + Decoder::index(y - top, x, coder_.lw_, model_.latents);
                auto* value = values(y, x);
                const int32_t* next = wide(y, x);
                for (size_t c = 0; c < channels; ++c) {
                    const uint8_t bits = model_.fine_bits[c];
                    const int64_t coarse_value = bits > 0 && next != nullptr ? *next++ : value[c];
                    if (is_anchor(y, x, c >= channels / 2) != anchors) continue;
                    // y is in 2^-8 of the coarse grid: bring it to the channel's own.
                    const int64_t bound = int64_t{128} << (8 + bits), scale = 1 << bits;
                    const int64_t distance =
                        std::clamp(coarse_value * scale, -bound, bound - 1) - mean[c] * scale * 256;
                    const bool skipped = row[c] < model_.tables.skip();
                    value[c] = static_cast<std::decay_t<decltype(*value)>>(
                        skipped ? 0 : divide(distance, coder_.step(log2_step[c], c)));
                }
            }
        }
    }

    plic_status skip_details() { return skip_details(y_.data(), details_.data()); }

    template <typename T>
    plic_status skip_details(const T* y, T* details) {
        Buffer<uint8_t> rows;
        for (int32_t band = 0; band < static_cast<int32_t>(coder_.file.info.bands); ++band) {
            const plic_status status = coder_.detail_rows(band, y, rows);
            if (status != PLIC_OK) return status;
            const size_t n = coder_.band_count(band, model_.details);
            for (size_t i = 0; i < n; ++i)
                if (rows[i] < model_.tables.skip()) details[i] = 0;
            y += coder_.band_count(band, model_.latents);
            details += n;
        }
        return PLIC_OK;
    }

    int16_t* latent(int32_t y, int32_t x) { return y_.data() + Decoder::index(y, x, coder_.lw_, model_.latents); }
    int32_t* wide_values(int32_t y, int32_t x) {
        return wide_.data() + Decoder::index(y, x, coder_.lw_, model_.wide_count);
    }

    const plic_model& model_;
    Decoder& coder_;
    Memory& memory_;
    plic_error* error_;
    Buffer<int16_t> y_, details_;  // symbols, and before that y, as far as it fits, in 2^-8 of its coarse grid
    Buffer<int32_t> wide_;         // y of the wide channels, which are finer and need more
    Buffer<int32_t> acc_;
    Buffer<uint8_t> scratch_;
};

// A picture whose networks a caller runs: what stages.h offers, in terms of the classes above.
struct Whole {
    const plic_model& model;
    plic_error* error;
    Decoder decoder;
    Encoder encoder;

    Whole(const plic_model& m, plic_error* e)
        : model(m), error(e), decoder(m, UINT64_MAX, e), encoder(m, decoder, e) {}

    Region all() const { return {0, 0, decoder.lh_, decoder.lw_}; }
    // Some of them are only read.
    View grid(const int8_t* data, int32_t channels) const { return {const_cast<int8_t*>(data), all(), channels}; }

    void anchor_values(const Hyper& hyper, const int32_t* y, int8_t* anchors) const {
        const View made[3] = {{}, grid(hyper.means, model.latents), grid(hyper.log2_steps, model.latents)};
        decoder.anchor_values(all(), made, [&](int32_t i, int32_t j) { return y + index(i, j, model.latents); },
                              grid(anchors, model.latents));
    }

    void synthesis_inputs(const Hyper& hyper, const int8_t* context, const int32_t* y, const int32_t* details,
                          int8_t* planes, int8_t* d_hat) const {
        const View made[3] = {{}, grid(hyper.means, model.latents), grid(hyper.log2_steps, model.latents)};
        const View parts[2] = {grid(planes, model.latents + model.wide_count), grid(d_hat, model.details)};
        decoder.latent_values(
            all(), made, grid(context, model.latents),
            [&](int32_t i, int32_t j) { return y + index(i, j, model.latents); },
            [&](int32_t i, int32_t j) { return details + index(i, j, model.details); }, parts);
    }

    void show(const int8_t* pixels, uint8_t* out) {
        const plic_info& info = decoder.file.info;
        const auto height = static_cast<int32_t>(info.height), width = static_cast<int32_t>(info.width);
        const View rgb = {const_cast<int8_t*>(pixels), {0, 0, height, width}, 3};
        for (int32_t y = 0; y < height; y += PostFilter::kRows)
            for (int32_t x = 0; x < width; x += PostFilter::kColumns)
                decoder.show(rgb, {y, x, std::min(y + PostFilter::kRows, height), std::min(x + PostFilter::kColumns, width)},
                             0, out, static_cast<size_t>(info.width) * info.components);
    }

    bool project(const int8_t* features, const int8_t* fine, int32_t* y, int32_t* details, int8_t* coarse_y,
                 int8_t* coarse_d) {
        const Network& analysis = model.networks[kAnalysis];
        const auto channels = [&](uint32_t o) { return analysis.tensors[analysis.outputs[o]].spec.channels; };
        const Region halves = all().scaled(2, 1);
        const View from[2] = {grid(features, channels(0)), {const_cast<int8_t*>(fine), halves, channels(1)}};
        const auto quarter = static_cast<size_t>(model.details) / 4;
        return encoder.project(0, model.to_latents, from[0], all(),
                               [&](int32_t i, int32_t j, size_t c, int64_t value) {
                                   const size_t at = index(i, j, model.latents) + c;
                                   y[at] = static_cast<int32_t>(std::clamp<int64_t>(value, INT32_MIN, INT32_MAX));
                                   coarse_y[at] = Encoder::coarse(value);
                               }) &&
               encoder.project(1, model.to_details, from[1], halves,
                               [&](int32_t i, int32_t j, size_t c, int64_t value) {
                                   const size_t channel = static_cast<size_t>(i % 2 * 2 + j % 2) * quarter + c;
                                   const size_t at = index(i / 2, j / 2, model.details) + channel;
                                   details[at] = encoder.detail_symbol(channel, value);
                                   coarse_d[at] = Encoder::coarse(value);
                               });
    }

    plic_status quantize(bool anchors, const int8_t* z, const Hyper& hyper, int32_t* y) {
        std::memcpy(decoder.z(), z, decoder.z_count());
        Buffer<uint8_t> rows;
        for (int32_t band = 0; band < static_cast<int32_t>(decoder.file.info.bands); ++band) {
            const plic_status status = decoder.y_rows(band, rows);
            if (status != PLIC_OK) return status;
            const int32_t top = band * static_cast<int32_t>(kBandRows);
            encoder.quantize_values({top, 0, top + decoder.band_rows(band), decoder.lw_}, anchors,
                                    grid(hyper.means, model.latents), grid(hyper.log2_steps, model.latents), top,
                                    rows.data(),
                                    [&](int32_t i, int32_t j) { return y + index(i, j, model.latents); },
                                    [](int32_t, int32_t) { return static_cast<const int32_t*>(nullptr); });
        }
        return PLIC_OK;
    }

    plic_status skip_details(const int32_t* y, int32_t* details) { return encoder.skip_details(y, details); }

private:
    size_t index(int32_t y, int32_t x, int32_t channels) const {
        return Decoder::index(y, x, decoder.lw_, channels);
    }
};

uint64_t max_pixels(const plic_limits* limits) {
    return limits != nullptr ? limits->max_pixels : PLIC_DEFAULT_MAX_PIXELS;
}
uint64_t max_memory(const plic_limits* limits) {
    return limits != nullptr ? limits->max_memory : PLIC_DEFAULT_MAX_MEMORY;
}

}  // namespace
}  // namespace pocketlic

using namespace pocketlic;

plic_status plic_allocate_symbols(const plic_model* model, const plic_info* info, plic_symbols* symbols,
                                  plic_error* error) {
    if (model == nullptr || info == nullptr || symbols == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, no file, or nowhere to put symbols");
    const uint64_t cells = uint64_t{info->hyper_height} * info->hyper_width;
    const uint64_t latents = uint64_t{info->latent_height} * info->latent_width;
    const uint64_t counts[3] = {cells * static_cast<uint64_t>(model->hypers),
                                latents * static_cast<uint64_t>(model->latents),
                                latents * static_cast<uint64_t>(model->details)};
    *symbols = {nullptr, nullptr, nullptr, static_cast<size_t>(counts[0]), static_cast<size_t>(counts[1]),
                static_cast<size_t>(counts[2])};
    if (std::max({counts[0], counts[1], counts[2]}) <= SIZE_MAX / sizeof(int32_t)) {
        symbols->z = static_cast<int8_t*>(std::malloc(symbols->z_count));
        symbols->y = static_cast<int32_t*>(std::malloc(symbols->y_count * sizeof(int32_t)));
        symbols->details = static_cast<int32_t*>(std::malloc(symbols->details_count * sizeof(int32_t)));
    }
    if (symbols->z != nullptr && symbols->y != nullptr && symbols->details != nullptr) return PLIC_OK;
    plic_free_symbols(symbols);
    return fail(error, PLIC_ERROR_MEMORY, "out of memory");
}

void plic_free_symbols(plic_symbols* symbols) {
    std::free(symbols->z);
    std::free(symbols->y);
    std::free(symbols->details);
    symbols->z = nullptr;
    symbols->y = symbols->details = nullptr;
}

plic_status plic_decode_symbols(const plic_model* model, const uint8_t* data, size_t size, const plic_limits* limits,
                                const plic_symbols* symbols, plic_error* error) {
    if (model == nullptr || symbols == nullptr || symbols->z == nullptr || symbols->y == nullptr ||
        symbols->details == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, or nowhere to put symbols");
    Decoder decoder(*model, max_memory(limits), error);
    plic_status status = decoder.open(data, size, max_pixels(limits));
    if (status != PLIC_OK) return status;
    const Counts counts = decoder.counts();
    if (symbols->z_count < counts.z || symbols->y_count < counts.y || symbols->details_count < counts.details)
        return fail(error, PLIC_ERROR_ARGUMENT, "the arrays for symbols are too small");
    status = decoder.decode_z();
    if (status != PLIC_OK) return status;
    std::memcpy(symbols->z, decoder.z(), decoder.z_count());
    int32_t *y = symbols->y, *details = symbols->details;
    std::memset(y, 0, static_cast<size_t>(counts.y) * sizeof *y);
    std::memset(details, 0, static_cast<size_t>(counts.details) * sizeof *details);
    const auto bands = static_cast<int32_t>(decoder.file.info.bands);
    for (int32_t band = 0; band < bands && status == PLIC_OK; ++band) {
        status = decoder.decode_band(band, y, details);
        y += decoder.band_count(band, model->latents);
        details += decoder.band_count(band, model->details);
    }
    return status;
}

plic_status plic_decode(const plic_model* model, const uint8_t* data, size_t size, const plic_limits* limits,
                        uint8_t* pixels, size_t stride, plic_error* error) {
    if (model == nullptr || pixels == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, or nowhere to put pixels");
    Decoder decoder(*model, max_memory(limits), error);
    plic_status status = decoder.open(data, size, max_pixels(limits));
    const plic_info& info = decoder.file.info;
    if (status == PLIC_OK && stride < static_cast<size_t>(info.width) * info.components)
        return fail(error, PLIC_ERROR_ARGUMENT, "a stride below the width");
    if (status == PLIC_OK) status = decoder.decode_z();
    if (status == PLIC_OK)
        status = decoder.decode_pixels(0, static_cast<int32_t>(info.height), pixels, stride, nullptr, nullptr);
    return status;
}

plic_status plic_decode_rows(const plic_model* model, const uint8_t* data, size_t size, const plic_limits* limits,
                             uint32_t first, uint32_t count, plic_row_sink* sink, void* user, plic_error* error) {
    if (model == nullptr || sink == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, or no receiver of rows");
    Decoder decoder(*model, max_memory(limits), error);
    plic_status status = decoder.open(data, size, max_pixels(limits));
    if (status != PLIC_OK) return status;
    if (first > decoder.file.info.height || count > decoder.file.info.height - first)
        return fail(error, PLIC_ERROR_ARGUMENT, "rows beyond the picture");
    status = decoder.decode_z();
    if (status == PLIC_OK && count > 0)
        status = decoder.decode_pixels(static_cast<int32_t>(first), static_cast<int32_t>(count), nullptr, 0, sink,
                                       user);
    return status;
}

// As little-endian 16-bit values.
static void update(Sha256& hash, const int16_t* values, size_t n) {
    for (size_t i = 0; i < n;) {
        uint8_t bytes[1024];
        size_t filled = 0;
        for (; i < n && filled < sizeof bytes; ++i) {
            const auto v = static_cast<uint16_t>(values[i]);
            bytes[filled++] = static_cast<uint8_t>(v);
            bytes[filled++] = static_cast<uint8_t>(v >> 8);
        }
        hash.update(bytes, filled);
    }
}

plic_status plic_hash(const plic_model* model, const uint8_t* data, size_t size, const plic_limits* limits,
                      plic_hashes* hashes, plic_error* error) {
    if (model == nullptr || hashes == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, or nowhere to put hashes");
    Decoder decoder(*model, max_memory(limits), error);
    plic_status status = decoder.open(data, size, max_pixels(limits));
    if (status == PLIC_OK) status = decoder.decode_z();
    if (status != PLIC_OK) return status;
    const plic_info& info = decoder.file.info;
    Sha256 hash;
    hash.update(reinterpret_cast<const uint8_t*>(decoder.z()), decoder.z_count());
    Buffer<int16_t> y, details;
    for (int32_t band = 0; band < static_cast<int32_t>(info.bands) && status == PLIC_OK; ++band) {
        const size_t sizes[2] = {decoder.band_count(band, model->latents), decoder.band_count(band, model->details)};
        if (!y.clear(decoder.memory, sizes[0]) || !details.clear(decoder.memory, sizes[1]))
            return no_memory(error, decoder.memory);
        status = decoder.decode_band(band, y.data(), details.data());
        if (status != PLIC_OK) return status;
        update(hash, y.data(), sizes[0]);
        update(hash, details.data(), sizes[1]);
    }
    y.reset();
    details.reset();
    hash.finish(hashes->symbols);
    struct Rows {
        Sha256 hash;
        size_t bytes;
    } rows;
    rows.bytes = static_cast<size_t>(info.width) * info.components;
    const auto sink = [](void* user, uint32_t, uint32_t n, const uint8_t* pixels) {
        auto* to = static_cast<Rows*>(user);
        to->hash.update(pixels, n * to->bytes);
        return 0;
    };
    if (status == PLIC_OK)
        status = decoder.decode_pixels(0, static_cast<int32_t>(info.height), nullptr, 0, sink, &rows);
    rows.hash.finish(hashes->pixels);
    hashes->memory = decoder.memory.peak();
    return status;
}

// A file that grows section by section.
class Writer {
public:
    explicit Writer(Memory& memory) : memory_(memory) {}
    bool header(const plic_info& info) {
        ContainerWriter to(nullptr, 0);
        if (!room(ContainerWriter::kHeaderBytes, to)) return false;
        to.header(info);
        size_ += to.size();
        return true;
    }
    bool section(const uint8_t* payload, size_t size) {
        ContainerWriter to(nullptr, 0);
        if (!room(size + ContainerWriter::kSectionBytes, to)) return false;
        to.section(payload, size);
        size_ += to.size();
        return true;
    }
    bool finish() {
        ContainerWriter to(nullptr, 0);
        if (!room(0, to)) return false;
        to.check(crc32c(out_.data(), size_));
        size_ += to.size();
        return true;
    }
    const uint8_t* data() const { return out_.data(); }
    size_t size() const { return size_; }

private:
    // A writer of the next `bytes`, and of the check.
    bool room(uint64_t bytes, ContainerWriter& to) {
        const uint64_t wanted = size_ + bytes + ContainerWriter::kCheckBytes;
        if (out_.size() < wanted) {
            Buffer<uint8_t> more;
            if (!more.allocate(memory_, wanted + wanted / 2)) return false;
            if (size_ > 0) std::memcpy(more.data(), out_.data(), size_);
            out_.swap(more);
        }
        to = {out_.data() + size_, out_.size() - size_};
        return true;
    }
    Memory& memory_;
    Buffer<uint8_t> out_;
    size_t size_ = 0;
};

// Makes a coder ready for a picture that is to be encoded.
static plic_status prepare(const plic_model& model, const plic_info& info, const plic_limits* limits, Decoder& coder,
                           plic_error* error) {
    if (info.width < 1 || info.width > kMaxSide || info.height < 1 || info.height > kMaxSide ||
        (info.components != 1 && info.components != 3) || info.quality_hundredths > kQualities)
        return fail(error, PLIC_ERROR_ARGUMENT, "size, components or quality are out of range");
    if (uint64_t{info.width} * info.height > max_pixels(limits))
        return fail(error, PLIC_ERROR_LIMIT, "the picture exceeds the limit on pixels");
    plic_info& to = coder.file.info;
    std::memset(&to, 0, sizeof to);
    to.width = info.width;
    to.height = info.height;
    to.components = info.components;
    to.quality_hundredths = info.quality_hundredths;
    std::memcpy(to.model_id, model.id, sizeof to.model_id);
    describe_grids(to);
    return coder.prepare();
}

// Symbols: plic_symbols, or with smaller elements.
template <typename Symbols>
static plic_status encode_symbols(const plic_model* model, const plic_info* info, const plic_limits* limits,
                                  const Symbols* symbols, uint8_t** file, size_t* file_size, plic_error* error) {
    Decoder coder(*model, max_memory(limits), error);
    plic_status status = prepare(*model, *info, limits, coder, error);
    if (status != PLIC_OK) return status;
    const plic_info& to = coder.file.info;
    const Counts counts = coder.counts();
    if (symbols->z_count != counts.z || symbols->y_count != counts.y || symbols->details_count != counts.details)
        return fail(error, PLIC_ERROR_ARGUMENT, "the number of symbols does not fit the picture");
    for (size_t i = 0; i < symbols->y_count; ++i)  // before rows of details are made from them
        if (symbols->y[i] < -rans::kMaxSymbol || symbols->y[i] > rans::kMaxSymbol)
            return fail(error, PLIC_ERROR_ARGUMENT, "%s", rans::message(rans::Status::bad_symbol));
    std::memcpy(coder.z(), symbols->z, symbols->z_count);

    Writer writer(coder.memory);
    if (!writer.header(to)) return no_memory(error, coder.memory);
    Buffer<uint8_t> z_rows, y_rows, detail_rows, coded;
    Buffer<int16_t> z;
    status = coder.hyper_rows(z_rows);
    if (status == PLIC_OK) status = coder.z_differences(z);
    const auto *y = symbols->y, *details = symbols->details;
    for (int32_t band = 0; band < static_cast<int32_t>(to.bands) && status == PLIC_OK; ++band) {
        // z, in the first band; y; details.
        const size_t n[3] = {band == 0 ? symbols->z_count : 0, coder.band_count(band, model->latents),
                             coder.band_count(band, model->details)};
        status = coder.y_rows(band, y_rows);
        if (status == PLIC_OK) status = coder.detail_rows(band, y, detail_rows);
        if (status != PLIC_OK) break;
        const uint8_t* rows[3] = {z_rows.data(), y_rows.data(), detail_rows.data()};
        size_t all = 0;
        for (int part = 0; part < 3; ++part) {
            size_t count = 0;
            rans::count_coded(model->tables, rows[part], n[part], count);
            all += count;
        }
        const uint64_t most = rans::max_encoded_bytes(all);
        if (!coded.reserve(coder.memory, most)) return no_memory(error, coder.memory);
        rans::Writer stream(model->tables, all, coded.data() + coded.size());
        rans::Status done = stream.put(details, rows[2], n[2]);
        if (done == rans::Status::ok) done = stream.put(y, rows[1], n[1]);
        if (done == rans::Status::ok) done = stream.put(z.data(), rows[0], n[0]);
        if (done != rans::Status::ok) return fail(error, PLIC_ERROR_ARGUMENT, "%s", rans::message(done));
        const uint8_t* begin = stream.finish();
        if (!writer.section(begin, static_cast<size_t>(coded.data() + coded.size() - begin)))
            return no_memory(error, coder.memory);
        y += n[1];
        details += n[2];
    }
    if (status != PLIC_OK) return status;
    if (!writer.finish()) return no_memory(error, coder.memory);
    *file = static_cast<uint8_t*>(std::malloc(writer.size()));
    if (*file == nullptr) return fail(error, PLIC_ERROR_MEMORY, "out of memory");
    std::memcpy(*file, writer.data(), writer.size());
    *file_size = writer.size();
    return PLIC_OK;
}

plic_status plic_encode_symbols(const plic_model* model, const plic_info* info, const plic_limits* limits,
                                const plic_symbols* symbols, uint8_t** file, size_t* file_size, plic_error* error) {
    if (model == nullptr || info == nullptr || symbols == nullptr || symbols->z == nullptr ||
        symbols->y == nullptr || symbols->details == nullptr || file == nullptr || file_size == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, no symbols, or nowhere to put the file");
    *file = nullptr;
    *file_size = 0;
    return encode_symbols(model, info, limits, symbols, file, file_size, error);
}

void plic_release(uint8_t* file) { std::free(file); }

plic_status plic_encode(const plic_model* model, const plic_info* info, const plic_limits* limits,
                        plic_row_source* source, void* user, uint8_t** file, size_t* file_size, plic_error* error) {
    if (model == nullptr || info == nullptr || source == nullptr || file == nullptr || file_size == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, no source of rows, or nowhere to put the file");
    *file = nullptr;
    *file_size = 0;
    Decoder coder(*model, max_memory(limits), error);
    plic_status status = prepare(*model, *info, limits, coder, error);
    if (status != PLIC_OK) return status;
    Encoder encoder(*model, coder, error);
    status = encoder.encode(source, user);
    if (status != PLIC_OK) return status;
    const Encoder::Symbols symbols = encoder.symbols();
    const plic_limits left = {max_pixels(limits), max_memory(limits) - coder.memory.used()};
    return encode_symbols(model, info, &left, &symbols, file, file_size, error);
}

static const Network* find_network(const plic_model* model, const char* name) {
    for (const Network& network : model->networks)
        if (std::strcmp(network.name, name) == 0) return &network;
    return nullptr;
}

// Whether a network runs on inputs of that size.
static plic_status fits(const Network* network, uint32_t height, uint32_t width, plic_error* error) {
    if (network == nullptr) return fail(error, PLIC_ERROR_ARGUMENT, "the model has no such network");
    if (height < 1 || height > 65536 || width < 1 || width > 65536)
        return fail(error, PLIC_ERROR_ARGUMENT, "the inputs' size is outside 1x1 to 65536x65536");
    for (uint32_t t = 0; t < network->tensor_count(); ++t) {
        const auto d = static_cast<uint32_t>(network->tensors[t].denominator);
        if (height % d != 0 || width % d != 0)
            return fail(error, PLIC_ERROR_ARGUMENT, "%s: the inputs' size must be a multiple of %u", network->name, d);
    }
    return PLIC_OK;
}

static Region whole(const Tensor& t, uint32_t height, uint32_t width) {
    return {0, 0, static_cast<int32_t>(height) / t.denominator * t.numerator,
            static_cast<int32_t>(width) / t.denominator * t.numerator};
}

plic_status plic_network(const plic_model* model, const char* name, uint32_t height, uint32_t width,
                         plic_tensor* tensors, uint32_t* count, uint32_t* inputs, plic_error* error) {
    if (model == nullptr || name == nullptr || tensors == nullptr || count == nullptr || inputs == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model or name, or nowhere to put the answer");
    const Network* network = find_network(model, name);
    const plic_status status = fits(network, height, width, error);
    if (status != PLIC_OK) return status;
    const uint32_t room = *count;
    *inputs = network->input_count;
    *count = network->input_count + network->output_count;
    for (uint32_t i = 0; i < *count && i < room; ++i) {
        const Tensor& t = network->tensors[i < *inputs ? i : network->outputs[i - *inputs]];
        const Region r = whole(t, height, width);
        tensors[i] = {t.name, static_cast<uint32_t>(r.y1), static_cast<uint32_t>(r.x1),
                      static_cast<uint32_t>(t.spec.channels)};
    }
    return PLIC_OK;
}

plic_status plic_run(const plic_model* model, const char* name, uint32_t height, uint32_t width, uint32_t tile,
                     const int8_t* const* inputs, int8_t* const* outputs, const plic_limits* limits,
                     plic_error* error) {
    if (model == nullptr || name == nullptr || inputs == nullptr || outputs == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, name, inputs or outputs");
    const Network* network = find_network(model, name);
    const plic_status status = fits(network, height, width, error);
    if (status != PLIC_OK) return status;
    int32_t align = 1;
    for (uint32_t t = 0; t < network->tensor_count(); ++t) align = std::max(align, network->tensors[t].denominator);
    const auto h = static_cast<int32_t>(height), w = static_cast<int32_t>(width);
    int32_t step = tile > 0 && tile < 65536 ? static_cast<int32_t>(tile) : std::max(h, w);
    if (tile > 0)
        for (uint32_t t = 0; t < network->tensor_count(); ++t)
            if (step % network->tensors[t].denominator != 0)
                return fail(error, PLIC_ERROR_ARGUMENT, "%s: a tile must be a multiple of %d", name,
                            static_cast<int>(align));
    Memory memory(max_memory(limits));
    Workspace workspace(memory);
    View in[kMaxEnds], made[kMaxEnds];
    for (uint32_t i = 0; i < network->input_count; ++i)
        // Inputs are only read.
        in[i] = {const_cast<int8_t*>(inputs[i]), {0, 0, h, w}, network->tensors[i].spec.channels};
    for (int32_t y = 0; y < h; y += step) {
        for (int32_t x = 0; x < w; x += step) {
            const Region part = {y, x, std::min(y + step, h), std::min(x + step, w)};
            Region wanted[kMaxEnds];
            for (uint32_t o = 0; o < network->output_count; ++o) {
                const Tensor& t = network->tensors[network->outputs[o]];
                wanted[o] = part.scaled(t.numerator, t.denominator);
            }
            if (!run(*network, model->kernels, workspace, h, w, in, wanted, made)) return no_memory(error, memory);
            for (uint32_t o = 0; o < network->output_count; ++o) {
                const View to = {outputs[o], whole(network->tensors[network->outputs[o]], height, width),
                                 made[o].channels};
                const Region& r = wanted[o];
                for (int32_t row = r.y0; row < r.y1; ++row)
                    std::memcpy(to.at(row, r.x0), made[o].at(row, r.x0),
                                static_cast<size_t>(r.width()) * static_cast<size_t>(to.channels));
            }
        }
    }
    return PLIC_OK;
}

namespace pocketlic {

static constexpr plic_limits kNoLimits = {UINT64_MAX, UINT64_MAX};

plic_status anchor_values(const plic_model& model, const plic_info& info, const Hyper& hyper, const int32_t* y,
                          int8_t* anchors, plic_error* error) {
    Whole whole(model, error);
    const plic_status status = prepare(model, info, &kNoLimits, whole.decoder, error);
    if (status == PLIC_OK) whole.anchor_values(hyper, y, anchors);
    return status;
}

plic_status synthesis_inputs(const plic_model& model, const plic_info& info, const Hyper& hyper,
                             const int8_t* context, const int32_t* y, const int32_t* details, int8_t* planes,
                             int8_t* d_hat, plic_error* error) {
    Whole whole(model, error);
    const plic_status status = prepare(model, info, &kNoLimits, whole.decoder, error);
    if (status == PLIC_OK) whole.synthesis_inputs(hyper, context, y, details, planes, d_hat);
    return status;
}

plic_status show(const plic_model& model, const plic_info& info, const int8_t* pixels, uint8_t* out,
                 plic_error* error) {
    Whole whole(model, error);
    const plic_status status = prepare(model, info, &kNoLimits, whole.decoder, error);
    if (status != PLIC_OK) return status;
    if (!whole.decoder.choose_filters()) return no_memory(error, whole.decoder.memory);
    whole.show(pixels, out);
    return PLIC_OK;
}

plic_status project(const plic_model& model, const plic_info& info, const int8_t* features, const int8_t* fine,
                    int32_t* y, int32_t* details, int8_t* coarse_y, int8_t* coarse_d, plic_error* error) {
    Whole whole(model, error);
    const plic_status status = prepare(model, info, &kNoLimits, whole.decoder, error);
    if (status != PLIC_OK) return status;
    return whole.project(features, fine, y, details, coarse_y, coarse_d) ? PLIC_OK
                                                                         : no_memory(error, whole.decoder.memory);
}

plic_status quantize_anchors(const plic_model& model, const plic_info& info, const int8_t* z, const Hyper& hyper,
                             int32_t* y, int8_t* anchors, plic_error* error) {
    Whole whole(model, error);
    plic_status status = prepare(model, info, &kNoLimits, whole.decoder, error);
    if (status == PLIC_OK) status = whole.quantize(true, z, hyper, y);
    if (status == PLIC_OK) whole.anchor_values(hyper, y, anchors);
    return status;
}

plic_status quantize_others(const plic_model& model, const plic_info& info, const int8_t* z, const Hyper& context,
                            int32_t* y, int32_t* details, plic_error* error) {
    Whole whole(model, error);
    plic_status status = prepare(model, info, &kNoLimits, whole.decoder, error);
    if (status == PLIC_OK) status = whole.quantize(false, z, context, y);
    return status == PLIC_OK ? whole.skip_details(y, details) : status;
}

}  // namespace pocketlic
