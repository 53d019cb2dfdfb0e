#include "writer.h"

#include <cstring>

#include "crc32c.h"
#include "threads.h"

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
    Buffer<uint8_t> z_indices;
    Buffer<int16_t> z;
    // Threads take the rows of some bands at a time, then these bands.
    struct Stream {
        Buffer<uint8_t> y_indices, detail_indices, coded;
        const uint8_t* begin = nullptr;
        rans::Status status = rans::Status::ok;
    };
    PerThread<Stream> streams;
    PerThread<TableIndices> indices_of;
    const size_t n_y = picture.band_count(0, model.latents), n_details = picture.band_count(0, model.details);
    const uint64_t band_bytes = n_y + n_details + rans::max_encoded_bytes(n_y + n_details);
    const uint64_t together = std::clamp<uint64_t>(memory.left() / 2 / band_bytes, 1,
                                                   static_cast<uint64_t>(std::min(picture.threads, picture.bands())));
    if (!writer.header(picture.info) || !picture.z_indices(z_indices) || !z.allocate(memory, picture.z.size()) ||
        !streams.make(memory, static_cast<int32_t>(together)) || !indices_of.make(memory, picture.threads, picture))
        return no_memory(error, memory);
    for (int32_t i = 0; i < streams.size(); ++i)
        if (!streams[i].y_indices.allocate(memory, n_y) || !streams[i].detail_indices.allocate(memory, n_details))
            return no_memory(error, memory);
    picture.predict_z(
        [&](size_t i, int32_t prediction) { z[i] = static_cast<int16_t>(picture.z[i] - prediction); });
    for (int32_t first = 0; first < picture.bands(); first += streams.size()) {
        const int32_t bands = std::min(streams.size(), picture.bands() - first);
        const int32_t top = first * static_cast<int32_t>(kBandRows);
        const int32_t rows = (bands - 1) * static_cast<int32_t>(kBandRows) + picture.band_rows(first + bands - 1);
        if (!for_each(picture.threads, rows / kLatentsPerHyper, [&](int32_t i, int32_t worker) {
                const int32_t row = i * kLatentsPerHyper, inside = row % static_cast<int32_t>(kBandRows);
                Stream& to = streams[row / static_cast<int32_t>(kBandRows)];
                const Region region = {top + row, 0, top + row + kLatentsPerHyper, picture.lw};
                return indices_of[worker].of_y(region, &to.y_indices[index(inside, 0, picture.lw, model.latents)]) &&
                       indices_of[worker].of_details(
                           region.y0, region.y1, y + index(region.y0, 0, picture.lw, model.latents),
                           &to.detail_indices[index(inside, 0, picture.lw, model.details)]);
            }))
            return no_memory(error, memory);
        if (!for_each(picture.threads, bands, [&](int32_t i, int32_t) {
                Stream& to = streams[i];
                const int32_t band = first + i, row = band * static_cast<int32_t>(kBandRows);
                // z, in the first band; y; details.
                const size_t n[3] = {band == 0 ? z.size() : 0, picture.band_count(band, model.latents),
                                     picture.band_count(band, model.details)};
                const uint8_t* indices[3] = {z_indices.data(), to.y_indices.data(), to.detail_indices.data()};
                size_t all = 0;
                for (int part = 0; part < 3; ++part) {
                    size_t coded = 0;
                    rans::count_coded(model.tables, indices[part], n[part], coded);
                    all += coded;
                }
                if (!to.coded.reserve(memory, rans::max_encoded_bytes(all))) return false;
                rans::Writer stream(model.tables, all, to.coded.end());
                rans::Status& done = to.status;
                done = stream.put(details + index(row, 0, picture.lw, model.details), indices[2], n[2]);
                if (done == rans::Status::ok)
                    done = stream.put(y + index(row, 0, picture.lw, model.latents), indices[1], n[1]);
                if (done == rans::Status::ok) done = stream.put(z.data(), indices[0], n[0]);
                if (done == rans::Status::ok) to.begin = stream.finish();
                return true;
            }))
            return no_memory(error, memory);
        for (int32_t i = 0; i < bands; ++i) {
            const Stream& made = streams[i];
            if (made.status != rans::Status::ok)
                return fail(error, PLIC_ERROR_ARGUMENT, "%s", rans::message(made.status));
            if (!writer.section(made.begin, static_cast<size_t>(made.coded.data() + made.coded.size() - made.begin)))
                return no_memory(error, memory);
        }
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
