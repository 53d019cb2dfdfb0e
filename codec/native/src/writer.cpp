#include "writer.h"

#include <cstring>

#include "crc32c.h"

namespace pocketlic {
namespace {

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

}  // namespace

template <typename T>
plic_status write_file(Picture& picture, const T* y, const T* details, uint8_t** file, size_t* file_size,
                       plic_error* error) {
    const plic_model& model = picture.model;
    Memory& memory = picture.memory;
    Writer writer(memory);
    TableIndices indices_of(picture);
    Buffer<uint8_t> z_indices, y_indices, detail_indices, coded;
    Buffer<int16_t> z;
    if (!writer.header(picture.info) || !picture.z_indices(z_indices) || !z.allocate(memory, picture.z.size()) ||
        !y_indices.allocate(memory, picture.band_count(0, model.latents)) ||
        !detail_indices.allocate(memory, picture.band_count(0, model.details)))
        return no_memory(error, memory);
    picture.predict_z(
        [&](size_t i, int32_t prediction) { z[i] = static_cast<int16_t>(picture.z[i] - prediction); });
    for (int32_t band = 0; band < picture.bands(); ++band) {
        const int32_t top = band * static_cast<int32_t>(kBandRows), bottom = top + picture.band_rows(band);
        if (!indices_of.of_y(top, bottom, y_indices.data()) ||
            !indices_of.of_details(top, bottom, y, detail_indices.data()))
            return no_memory(error, memory);
        // z, in the first band; y; details.
        const size_t n[3] = {band == 0 ? z.size() : 0, picture.band_count(band, model.latents),
                             picture.band_count(band, model.details)};
        const uint8_t* indices[3] = {z_indices.data(), y_indices.data(), detail_indices.data()};
        size_t all = 0;
        for (int part = 0; part < 3; ++part) {
            size_t count = 0;
            rans::count_coded(model.tables, indices[part], n[part], count);
            all += count;
        }
        if (!coded.reserve(memory, rans::max_encoded_bytes(all))) return no_memory(error, memory);
        rans::Writer stream(model.tables, all, coded.data() + coded.size());
        rans::Status done = stream.put(details, indices[2], n[2]);
        if (done == rans::Status::ok) done = stream.put(y, indices[1], n[1]);
        if (done == rans::Status::ok) done = stream.put(z.data(), indices[0], n[0]);
        if (done != rans::Status::ok) return fail(error, PLIC_ERROR_ARGUMENT, "%s", rans::message(done));
        const uint8_t* begin = stream.finish();
        if (!writer.section(begin, static_cast<size_t>(coded.data() + coded.size() - begin)))
            return no_memory(error, memory);
        y += n[1];
        details += n[2];
    }
    if (!writer.finish()) return no_memory(error, memory);
    *file = static_cast<uint8_t*>(std::malloc(writer.size()));
    if (*file == nullptr) return fail(error, PLIC_ERROR_MEMORY, "out of memory");
    std::memcpy(*file, writer.data(), writer.size());
    *file_size = writer.size();
    return PLIC_OK;
}

template plic_status write_file(Picture&, const int16_t*, const int16_t*, uint8_t**, size_t*, plic_error*);
template plic_status write_file(Picture&, const int32_t*, const int32_t*, uint8_t**, size_t*, plic_error*);

}  // namespace pocketlic
