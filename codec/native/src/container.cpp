#include "container.h"

#include <cstring>

#include "crc32c.h"
#include "model.h"

namespace pocketlic {
namespace {

constexpr uint8_t kMagic[4] = {0xD0, 0x4C, 0x0D, 0x0A};
constexpr uint8_t kGrey = 1, kIcc = 2, kExif = 4;

// Reads front to back and never beyond the end.
class Cursor {
public:
    Cursor(const uint8_t* data, size_t size, plic_error* error) : data_(data), size_(size), error_(error) {}

    bool take(size_t n, const char* what, const uint8_t*& p) {
        if (n > size_ - at_) return truncated(what);
        p = data_ + at_;
        at_ += n;
        return true;
    }

    bool byte(const char* what, uint32_t& value) {
        const uint8_t* p;
        if (!take(1, what, p)) return false;
        value = *p;
        return true;
    }

    bool varint(const char* what, uint64_t& value) {
        value = 0;
        for (unsigned shift = 0; shift < 35; shift += 7) {
            uint32_t b;
            if (!byte(what, b)) return false;
            value |= static_cast<uint64_t>(b & 127) << shift;
            if (b < 128) {
                if (b == 0 && shift > 0) break;
                return true;
            }
        }
        fail(error_, PLIC_ERROR_FORMAT, "the %s holds a malformed number", what);
        return false;
    }

    bool section(const char* what, Section& to) {
        uint64_t length;
        const uint8_t* p;
        if (!varint(what, length)) return false;
        if (length > size_ - at_) return truncated(what);
        to = {at_, static_cast<size_t>(length)};
        return take(to.size, what, p);
    }

    bool metadata(const char* what, size_t& offset, size_t& size) {
        Section s;
        if (!section(what, s)) return false;
        offset = s.offset;
        size = s.size;
        if (size > 0) return true;
        fail(error_, PLIC_ERROR_FORMAT, "the %s is flagged but empty", what);
        return false;
    }

    size_t left() const { return size_ - at_; }

private:
    bool truncated(const char* what) {
        fail(error_, PLIC_ERROR_FORMAT, "the file is truncated in the %s", what);
        return false;
    }

    const uint8_t* data_;
    size_t size_, at_ = 0;
    plic_error* error_;
};

}  // namespace

void describe_grids(plic_info& info) {
    info.hyper_height = (info.height + 63) / 64;
    info.hyper_width = (info.width + 63) / 64;
    info.latent_height = 4 * info.hyper_height;
    info.latent_width = 4 * info.hyper_width;
    info.bands = (info.latent_height + kBandRows - 1) / kBandRows;
}

plic_status read_container(const uint8_t* data, size_t size, uint64_t max_pixels, Container& file,
                           plic_error* error) {
    constexpr plic_status kBad = PLIC_ERROR_FORMAT;
    if (data == nullptr && size > 0) return fail(error, PLIC_ERROR_ARGUMENT, "no file data");
    if (size == 0) return fail(error, kBad, "the file is empty");
    const size_t compared = size < sizeof kMagic ? size : sizeof kMagic;
    if (std::memcmp(data, kMagic, compared) != 0) {
        const bool text = size > sizeof kMagic && ((data[0] == kMagic[0] && data[1] == kMagic[1]) ||
                                                   (data[0] == 'P' && data[1] == 'L'));
        return fail(error, kBad, text ? "not a .plic file, or damaged by a transfer in text mode"
                                      : "not a .plic file");
    }
    plic_info& info = file.info;
    std::memset(&info, 0, sizeof info);
    if (size <= sizeof kMagic) return fail(error, kBad, "the file is truncated in the header");
    info.version = data[sizeof kMagic];
    if (info.version > kVersion)
        return fail(error, kBad, "file version %u is newer than this decoder (%u)", info.version, unsigned{kVersion});
    if (info.version < kVersion) return fail(error, kBad, "there is no file version %u", info.version);
    // The check comes first: what a damaged file says about itself would only mislead.
    constexpr size_t kCheck = ContainerWriter::kCheckBytes;
    if (size < sizeof kMagic + 1 + kCheck) return fail(error, kBad, "the file is truncated in the header");
    size -= kCheck;
    const uint8_t* p = data + size;
    const uint32_t check = static_cast<uint32_t>(p[0] | p[1] << 8 | p[2] << 16) | static_cast<uint32_t>(p[3]) << 24;
    if (crc32c(data, size) != check)
        return fail(error, kBad, "the file is damaged or incomplete (checksum mismatch)");

    Cursor in(data, size, error);
    uint32_t flags, low, high;
    uint64_t width, height;
    static constexpr char kHeader[] = "header";
    if (!in.take(sizeof kMagic + 1, kHeader, p) || !in.byte(kHeader, flags)) return kBad;
    if ((flags & ~uint32_t{kGrey | kIcc | kExif}) != 0)
        return fail(error, kBad, "the header has unknown flags (0x%02x)", flags);
    if (!in.take(sizeof info.model_id, kHeader, p)) return kBad;
    std::memcpy(info.model_id, p, sizeof info.model_id);
    if (!in.varint(kHeader, width) || !in.varint(kHeader, height) || !in.byte(kHeader, low) ||
        !in.byte(kHeader, high))
        return kBad;
    info.quality_hundredths = low | high << 8;
    if (width < 1 || width > kMaxSide || height < 1 || height > kMaxSide)
        return fail(error, kBad, "the header is impossible: %llux%llu pixels are outside 1x1 to %ux%u",
                    static_cast<unsigned long long>(width), static_cast<unsigned long long>(height),
                    unsigned{kMaxSide}, unsigned{kMaxSide});
    if (info.quality_hundredths > kQualities)
        return fail(error, kBad, "the header is impossible: quality %u.%02u is outside 0 to 100",
                    info.quality_hundredths / 100, info.quality_hundredths % 100);
    info.width = static_cast<uint32_t>(width);
    info.height = static_cast<uint32_t>(height);
    info.components = (flags & kGrey) != 0 ? 1 : 3;
    describe_grids(info);
    if (width * height > max_pixels)
        return fail(error, PLIC_ERROR_LIMIT, "the file claims %ux%u pixels, more than the limit of %llu", info.width,
                    info.height, static_cast<unsigned long long>(max_pixels));
    for (uint32_t i = 0; i < info.bands; ++i) {
        if (!in.section("symbols", file.bands[i])) return kBad;
        info.payload_size += file.bands[i].size;
    }
    if ((flags & kIcc) != 0 && !in.metadata("ICC profile", info.icc_offset, info.icc_size)) return kBad;
    if ((flags & kExif) != 0 && !in.metadata("EXIF", info.exif_offset, info.exif_size)) return kBad;
    if (in.left() > 0)
        return fail(error, kBad, "%llu bytes follow the end of the file", static_cast<unsigned long long>(in.left()));
    return PLIC_OK;
}

void ContainerWriter::bytes(const uint8_t* p, size_t n) {
    if (full_ || n > capacity_ - at_) {
        full_ = true;
        return;
    }
    if (n > 0) std::memcpy(data_ + at_, p, n);
    at_ += n;
}

void ContainerWriter::varint(uint64_t v) {
    do {
        const auto b = static_cast<uint8_t>((v & 127) | (v > 127 ? 128 : 0));
        bytes(&b, 1);
        v >>= 7;
    } while (v > 0);
}

void ContainerWriter::check(uint32_t crc) {
    const uint8_t p[kCheckBytes] = {static_cast<uint8_t>(crc), static_cast<uint8_t>(crc >> 8),
                                    static_cast<uint8_t>(crc >> 16), static_cast<uint8_t>(crc >> 24)};
    bytes(p, sizeof p);
}

void ContainerWriter::header(const plic_info& info) {
    const uint8_t fixed[] = {kVersion, static_cast<uint8_t>(info.components == 1 ? kGrey : 0)};
    const uint8_t quality[] = {static_cast<uint8_t>(info.quality_hundredths),
                               static_cast<uint8_t>(info.quality_hundredths >> 8)};
    bytes(kMagic, sizeof kMagic);
    bytes(fixed, sizeof fixed);
    bytes(info.model_id, sizeof info.model_id);
    varint(info.width);
    varint(info.height);
    bytes(quality, sizeof quality);
}

void ContainerWriter::section(const uint8_t* payload, size_t size) {
    varint(size);
    bytes(payload, size);
}

}  // namespace pocketlic

using namespace pocketlic;

plic_status plic_read_info(const uint8_t* data, size_t size, const plic_limits* limits, plic_info* info,
                           plic_error* error) {
    if (info == nullptr) return fail(error, PLIC_ERROR_ARGUMENT, "nowhere to put the information");
    Container file;
    const plic_status status =
        read_container(data, size, limits != nullptr ? limits->max_pixels : PLIC_DEFAULT_MAX_PIXELS, file, error);
    if (status == PLIC_OK) *info = file.info;
    return status;
}
