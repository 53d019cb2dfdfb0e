// The functions of plic.h.
#include "decoder.h"
#include "encoder.h"
#include "sha256.h"
#include "writer.h"

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
    Picture picture(*model, limits);
    Decoder decoder(picture, error);
    plic_status status = decoder.open(data, size);
    if (status != PLIC_OK) return status;
    const Counts counts = picture.counts();
    if (symbols->z_count < counts.z || symbols->y_count < counts.y || symbols->details_count < counts.details)
        return fail(error, PLIC_ERROR_ARGUMENT, "the arrays for symbols are too small");
    status = decoder.decode_z();
    if (status != PLIC_OK) return status;
    std::memcpy(symbols->z, picture.z.data(), picture.z.size());
    SymbolReader reader(picture);
    int32_t *y = symbols->y, *details = symbols->details;
    std::memset(y, 0, static_cast<size_t>(counts.y) * sizeof *y);
    std::memset(details, 0, static_cast<size_t>(counts.details) * sizeof *details);
    for (int32_t band = 0; band < picture.bands() && status == PLIC_OK; ++band) {
        status = decoder.decode_band(band, reader, y, details, error);
        y += picture.band_count(band, model->latents);
        details += picture.band_count(band, model->details);
    }
    return status;
}

plic_status plic_decode(const plic_model* model, const uint8_t* data, size_t size, const plic_limits* limits,
                        uint8_t* pixels, size_t stride, plic_error* error) {
    if (model == nullptr || pixels == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, or nowhere to put pixels");
    Picture picture(*model, limits);
    Decoder decoder(picture, error);
    plic_status status = decoder.open(data, size);
    const plic_info& info = picture.info;
    if (status == PLIC_OK && stride < static_cast<size_t>(info.width) * info.components)
        return fail(error, PLIC_ERROR_ARGUMENT, "a stride below the width");
    if (status == PLIC_OK) status = decoder.decode_z();
    if (status == PLIC_OK)
        status = decoder.decode_pixels(0, static_cast<int32_t>(info.height), {pixels, stride, nullptr, nullptr});
    return status;
}

plic_status plic_decode_rows(const plic_model* model, const uint8_t* data, size_t size, const plic_limits* limits,
                             uint32_t first, uint32_t count, plic_row_sink* sink, void* user, plic_error* error) {
    if (model == nullptr || sink == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, or no receiver of rows");
    Picture picture(*model, limits);
    Decoder decoder(picture, error);
    plic_status status = decoder.open(data, size);
    if (status != PLIC_OK) return status;
    if (first > picture.info.height || count > picture.info.height - first)
        return fail(error, PLIC_ERROR_ARGUMENT, "rows beyond the picture");
    status = decoder.decode_z();
    if (status == PLIC_OK && count > 0)
        status = decoder.decode_pixels(static_cast<int32_t>(first), static_cast<int32_t>(count),
                                       {nullptr, 0, sink, user});
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
    Picture picture(*model, limits);
    Decoder decoder(picture, error);
    plic_status status = decoder.open(data, size);
    if (status == PLIC_OK) status = decoder.decode_z();
    if (status != PLIC_OK) return status;
    const plic_info& info = picture.info;
    Sha256 hash;
    hash.update(reinterpret_cast<const uint8_t*>(picture.z.data()), picture.z.size());
    SymbolReader reader(picture);
    Buffer<int16_t> y, details;
    for (int32_t band = 0; band < picture.bands() && status == PLIC_OK; ++band) {
        const size_t sizes[2] = {picture.band_count(band, model->latents), picture.band_count(band, model->details)};
        if (!y.clear(picture.memory, sizes[0]) || !details.clear(picture.memory, sizes[1]))
            return no_memory(error, picture.memory);
        status = decoder.decode_band(band, reader, y.data(), details.data(), error);
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
        status = decoder.decode_pixels(0, static_cast<int32_t>(info.height), {nullptr, 0, sink, &rows});
    rows.hash.finish(hashes->pixels);
    hashes->memory = picture.memory.peak();
    return status;
}

plic_status plic_encode_symbols(const plic_model* model, const plic_info* info, const plic_limits* limits,
                                const plic_symbols* symbols, uint8_t** file, size_t* file_size, plic_error* error) {
    if (model == nullptr || info == nullptr || symbols == nullptr || symbols->z == nullptr ||
        symbols->y == nullptr || symbols->details == nullptr || file == nullptr || file_size == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, no symbols, or nowhere to put the file");
    *file = nullptr;
    *file_size = 0;
    Picture picture(*model, limits);
    const plic_status status = picture.begin(*info, error);
    if (status != PLIC_OK) return status;
    const Counts counts = picture.counts();
    if (symbols->z_count != counts.z || symbols->y_count != counts.y || symbols->details_count != counts.details)
        return fail(error, PLIC_ERROR_ARGUMENT, "the number of symbols does not fit the picture");
    for (size_t i = 0; i < symbols->y_count; ++i)  // before table indices of details are made from them
        if (symbols->y[i] < -rans::kMaxSymbol || symbols->y[i] > rans::kMaxSymbol)
            return fail(error, PLIC_ERROR_ARGUMENT, "%s", rans::message(rans::Status::bad_symbol));
    std::memcpy(picture.z.data(), symbols->z, symbols->z_count);
    return write_file(picture, symbols->y, symbols->details, file, file_size, error);
}

void plic_release(uint8_t* file) { std::free(file); }

plic_status plic_encode(const plic_model* model, const plic_info* info, const plic_limits* limits,
                        plic_row_source* source, void* user, uint8_t** file, size_t* file_size, plic_error* error) {
    if (model == nullptr || info == nullptr || source == nullptr || file == nullptr || file_size == nullptr)
        return fail(error, PLIC_ERROR_ARGUMENT, "no model, no source of rows, or nowhere to put the file");
    *file = nullptr;
    *file_size = 0;
    Picture picture(*model, limits);
    plic_status status = picture.begin(*info, error);
    if (status != PLIC_OK) return status;
    Encoder encoder(picture, error);
    status = encoder.encode(source, user);
    if (status != PLIC_OK) return status;
    return write_file(picture, encoder.y(), encoder.details(), file, file_size, error);
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
    Memory memory(limits != nullptr ? limits->max_memory : PLIC_DEFAULT_MAX_MEMORY);
    Workspace workspace(memory);
    View in[kMaxEnds], out[kMaxEnds];
    for (uint32_t i = 0; i < network->input_count; ++i)
        // Inputs are only read.
        in[i] = {const_cast<int8_t*>(inputs[i]), {0, 0, h, w}, network->tensors[i].spec.channels};
    for (uint32_t o = 0; o < network->output_count; ++o) {
        const Tensor& t = network->tensors[network->outputs[o]];
        out[o] = {outputs[o], whole(t, height, width), t.spec.channels};
    }
    for (int32_t y = 0; y < h; y += step) {
        for (int32_t x = 0; x < w; x += step) {
            const Region part = {y, x, std::min(y + step, h), std::min(x + step, w)};
            Region wanted[kMaxEnds];
            for (uint32_t o = 0; o < network->output_count; ++o) {
                const Tensor& t = network->tensors[network->outputs[o]];
                wanted[o] = part.scaled(t.numerator, t.denominator);
            }
            if (!run(*network, model->kernels, workspace, h, w, in, wanted, out)) return no_memory(error, memory);
        }
    }
    return PLIC_OK;
}
