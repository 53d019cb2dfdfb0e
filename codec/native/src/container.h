// The .plic container, version 2: SPEC.md, section 2.
#pragma once

#include "memory.h"
#include "plic.h"

namespace pocketlic {

constexpr uint8_t kVersion = 2;
constexpr uint32_t kMaxSide = 65535;
constexpr uint32_t kBandRows = 64;  // latent rows of a band
constexpr uint32_t kMaxBands = (kMaxSide + 63) / 64 * 4 / kBandRows;

struct Section {
    size_t offset, size;
};

struct Container {
    plic_info info;
    Section bands[kMaxBands];
};

// Fills what follows from info.width, height and components: the sizes of the grids and the number of bands.
void describe_grids(plic_info& info);

plic_status read_container(const uint8_t* data, size_t size, uint64_t max_pixels, Container& file,
                           plic_error* error);

// Writes a container front to back into a buffer of `capacity` bytes; nothing happens once it is full.
class ContainerWriter {
public:
    ContainerWriter(uint8_t* data, size_t capacity) : data_(data), capacity_(capacity) {}
    void header(const plic_info& info);
    void section(const uint8_t* payload, size_t size);
    void check(uint32_t crc);
    bool full() const { return full_; }
    size_t size() const { return at_; }
    static constexpr size_t kHeaderBytes = 22;   // at most
    static constexpr size_t kSectionBytes = 10;  // at most, besides the payload
    static constexpr size_t kCheckBytes = 4;

private:
    void bytes(const uint8_t* p, size_t n);
    void varint(uint64_t v);
    uint8_t* data_;
    size_t capacity_, at_ = 0;
    bool full_ = false;
};

}  // namespace pocketlic
