// libFuzzer's way into the native core. The environment variable MODEL names a model file. An input's first byte says
// what the rest is, by its lowest bits:
//
//     0  a .plic file as it stands
//     1  a .plic file whose magic, version, model id and check are put right first, so that damage gets past them
//     2  the payload of the only band of a small picture; the second byte is its quality
//     3  a model file
//
// Whatever is accepted is decoded as well. Sanitizers say what is wrong; so does the process when it aborts.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "container.h"
#include "crc32c.h"
#include "plic.h"

namespace {

using Bytes = std::vector<uint8_t>;

plic_model* model;
plic_model_info facts;

struct Symbols {
    plic_symbols arrays = {};
    ~Symbols() { plic_free_symbols(&arrays); }
};

const plic_limits kLimits = {1 << 16, 1 << 26, 2};

void require(bool condition) {
    if (!condition) std::abort();
}

void append_check(Bytes& file) {
    const uint32_t check = pocketlic::crc32c(file.data(), file.size());
    for (int i = 0; i < 4; ++i) file.push_back(static_cast<uint8_t>(check >> (8 * i)));
}

constexpr uint8_t kMagic[] = {0xD0, 0x4C, 0x0D, 0x0A, pocketlic::kVersion};

// A file of 70 x 50 pixels; the payload is shorter than 2^14 bytes.
Bytes with_payload(unsigned quality, const uint8_t* payload, size_t size) {
    Bytes file(kMagic, kMagic + sizeof kMagic);
    file.push_back(0);
    file.insert(file.end(), facts.id, facts.id + 8);
    const auto length = static_cast<unsigned>(size);
    for (unsigned b : {70u, 50u, quality & 255, quality >> 8, (length & 127) | 128, length >> 7})
        file.push_back(static_cast<uint8_t>(b));
    if (length < 128) {
        file.pop_back();
        file.back() = static_cast<uint8_t>(length);
    }
    file.insert(file.end(), payload, payload + size);
    append_check(file);
    return file;
}

void decode(const Bytes& file) {
    plic_info info;
    plic_error error = {PLIC_OK, ""};
    const plic_status status = plic_read_info(file.data(), file.size(), &kLimits, &info, &error);
    if (status != PLIC_OK) {
        require(error.status == status && error.message[0] != 0);
        return;
    }
    Symbols of;
    plic_symbols& symbols = of.arrays;
    require(plic_allocate_symbols(model, &info, &symbols, &error) == PLIC_OK);
    if (plic_decode_symbols(model, file.data(), file.size(), &kLimits, &symbols, &error) != PLIC_OK) return;

    // What was accepted decodes to pixels, and encodes to a file of the same symbols.
    plic_hashes hashes, again;
    if (plic_hash(model, file.data(), file.size(), &kLimits, &hashes, &error) != PLIC_OK) {
        require(error.status == PLIC_ERROR_LIMIT || error.status == PLIC_ERROR_MODEL);
        return;
    }
    require(hashes.memory <= kLimits.max_memory);
    uint8_t* made = nullptr;
    size_t size = 0;
    require(plic_encode_symbols(model, &info, &kLimits, &symbols, &made, &size, &error) == PLIC_OK);
    require(plic_hash(model, made, size, &kLimits, &again, &error) == PLIC_OK);
    require(std::memcmp(hashes.symbols, again.symbols, sizeof again.symbols) == 0);
    require(std::memcmp(hashes.pixels, again.pixels, sizeof again.pixels) == 0);
    plic_release(made);
}

void open_model(const Bytes& file) {
    plic_model* opened = nullptr;
    plic_error error = {PLIC_OK, ""};
    if (plic_model_open(file.data(), file.size(), nullptr, &opened, &error) != PLIC_OK) {
        require(opened == nullptr && error.message[0] != 0);
        return;
    }
    for (const char* name : {"analysis", "hyper_analysis", "hyper_synthesis", "context", "synthesis"}) {
        plic_tensor tensors[16];
        uint32_t count = 16, inputs = 0;
        if (plic_network(opened, name, 64, 64, tensors, &count, &inputs, &error) != PLIC_OK) continue;
        std::vector<Bytes> arrays;
        std::vector<const int8_t*> in;
        std::vector<int8_t*> out;
        uint64_t elements = 0;
        for (uint32_t i = 0; i < count; ++i)
            elements += uint64_t{tensors[i].height} * tensors[i].width * tensors[i].channels;
        if (elements > 1 << 22) continue;
        for (uint32_t i = 0; i < count; ++i) {
            arrays.emplace_back(size_t{tensors[i].height} * tensors[i].width * tensors[i].channels, uint8_t{77});
            auto* data = reinterpret_cast<int8_t*>(arrays.back().data());
            if (i < inputs) in.push_back(data);
            else out.push_back(data);
        }
        plic_run(opened, name, 64, 64, 0, in.data(), out.data(), &kLimits, &error);
    }
    plic_model_close(opened);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    const char* path = std::getenv("MODEL");
    std::FILE* file = path != nullptr ? std::fopen(path, "rb") : nullptr;
    require(file != nullptr);
    Bytes content(1 << 22);
    content.resize(std::fread(content.data(), 1, content.size(), file));
    std::fclose(file);
    plic_error error;
    require(plic_model_open(content.data(), content.size(), nullptr, &model, &error) == PLIC_OK);
    plic_model_describe(model, &facts);
    // What is made here gets as far as its payload, or all that is fuzzed is the header.
    const Bytes empty = with_payload(0, nullptr, 0);
    Symbols of;
    plic_info info;
    require(plic_read_info(empty.data(), empty.size(), &kLimits, &info, &error) == PLIC_OK);
    require(plic_allocate_symbols(model, &info, &of.arrays, &error) == PLIC_OK);
    require(plic_decode_symbols(model, empty.data(), empty.size(), &kLimits, &of.arrays, &error) != PLIC_OK);
    require(std::strstr(error.message, "damaged payload") != nullptr);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    const int kind = data[0] & 3;
    if (kind == 2) {
        if (size - 2 < 1u << 14) decode(with_payload(data[1] * 39u, data + 2, size - 2));
        return 0;
    }
    Bytes file(data + 1, data + size);
    if (kind == 3) {
        open_model(file);
    } else if (kind == 0 || file.size() < 20) {
        decode(file);
    } else {
        std::memcpy(file.data(), kMagic, sizeof kMagic);
        std::memcpy(file.data() + 6, facts.id, 8);
        file.resize(file.size() - 4);
        append_check(file);
        decode(file);
    }
    return 0;
}
