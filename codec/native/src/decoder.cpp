#include "decoder.h"

#include <cstring>

#include "threads.h"

namespace pocketlic {
namespace {

constexpr int32_t kReadRows = 8;  // latent rows whose table indices are made at a time: a few stay in the cache

}  // namespace

plic_status Decoder::open(const uint8_t* data, size_t size) {
    data_ = data;
    const plic_status status = read_container(data, size, picture_.max_pixels(), file_, error_);
    if (status != PLIC_OK) return status;
    if (std::memcmp(file_.info.model_id, model_.id, sizeof file_.info.model_id) != 0) {
        char ids[2][17];
        for (size_t i = 0; i < 16; ++i) {
            static constexpr char kDigits[] = "0123456789abcdef";
            const int shift = i % 2 == 0 ? 4 : 0;
            ids[0][i] = kDigits[file_.info.model_id[i / 2] >> shift & 15];
            ids[1][i] = kDigits[model_.id[i / 2] >> shift & 15];
        }
        ids[0][16] = ids[1][16] = 0;
        return fail(error_, PLIC_ERROR_MISMATCH, "the file was made by model %s, this decoder has %s", ids[0],
                    ids[1]);
    }
    return picture_.prepare(file_.info, error_);
}

plic_status Decoder::decode_z() {
    Buffer<uint8_t> indices;
    Buffer<int16_t> symbols;
    if (!picture_.z_indices(indices) || !symbols.allocate(memory_, indices.size())) return no_memory(error_, memory_);
    behind_z_ = stream(0);
    const rans::Status coded = behind_z_.read(model_.tables, indices.data(), indices.size(), symbols.data());
    if (coded != rans::Status::ok) return damaged(coded, error_);
    bool sound = true;
    picture_.predict_z([&](size_t i, int32_t prediction) {
        const int32_t value = symbols[i] + prediction;
        sound = sound && value >= -128 && value <= 127;
        picture_.z[i] = static_cast<int8_t>(value);
    });
    return sound ? PLIC_OK : fail(error_, PLIC_ERROR_FORMAT, "damaged payload: z outside int8");
}

template <typename T>
plic_status Decoder::decode_band(int32_t band, SymbolReader& reader, T* y, T* details, plic_error* error) const {
    rans::Reader in = band == 0 ? behind_z_ : stream(band);
    const int32_t top = band * static_cast<int32_t>(kBandRows), bottom = top + picture_.band_rows(band);
    const auto per_row = [&](int32_t channels) { return static_cast<size_t>(count(1, picture_.lw, channels)); };
    const size_t latents = per_row(model_.latents), channels = per_row(model_.details);
    uint8_t* indices = nullptr;
    if (reader.indices.reserve(memory_, std::max(latents, channels) * kReadRows)) indices = reader.indices.data();
    rans::Status coded = rans::Status::ok;
    T* symbols = y;
    for (int32_t row = top; row < bottom; row += kReadRows) {
        const int32_t end = std::min(row + kReadRows, bottom);
        const size_t n = static_cast<size_t>(end - row) * latents;
        if (indices == nullptr || !reader.indices_of.of_y({row, 0, end, picture_.lw}, indices)) return no_memory(error, memory_);
        coded = in.read(model_.tables, indices, n, symbols);
        if (coded != rans::Status::ok) return damaged(coded, error);
        symbols += n;
    }
    for (int32_t row = top; row < bottom; row += kReadRows) {
        const int32_t end = std::min(row + kReadRows, bottom);
        const size_t n = static_cast<size_t>(end - row) * channels;
        if (!reader.indices_of.of_details(row, end, y, indices)) return no_memory(error, memory_);
        coded = in.read(model_.tables, indices, n, details);
        if (coded != rans::Status::ok) return damaged(coded, error);
        y += static_cast<size_t>(end - row) * latents;
        details += n;
    }
    coded = in.finish();
    return coded == rans::Status::ok ? PLIC_OK : damaged(coded, error);
}

template plic_status Decoder::decode_band(int32_t, SymbolReader&, int16_t*, int16_t*, plic_error*) const;
template plic_status Decoder::decode_band(int32_t, SymbolReader&, int32_t*, int32_t*, plic_error*) const;

// What there is to do for some rows of pixels, in an order in which nothing waits for what comes later.
//
// A task is a band that is read, or a tile of a strip; its strip's bands come before. With several threads some bands
// are read ahead, and some strips wait for the receiver of rows, whom only the caller's thread calls.
class Decoder::Schedule {
public:
    Schedule(Decoder& decoder, int32_t first, int32_t rows, const Target& target)
        : decoder_(decoder), picture_(decoder.picture_), first_(first), end_(first + rows), target_(target) {}

    plic_status run() {
        const plic_status status = plan();
        if (status != PLIC_OK) return status;
        run_threads(threads_, [this](int32_t worker) { work(worker); });
        if (failed_ < task_count_ && decoder_.error_ != nullptr) *decoder_.error_ = error_;
        return failed_ < task_count_ ? error_.status : PLIC_OK;
    }

private:
    struct Task {
        int32_t strip, column;  // column -1: the band `strip`
    };
    // Of its rows of pixels, and the bands that it needs.
    struct Strip {
        int32_t from, to, first_band, last_band, tiles_left;
    };

    Region tile(int32_t strip, int32_t column) const {
        const int32_t top = first_ / kLatent + strip * kTileRows, left = column * kTileColumns;
        return {top, left, std::min(top + kTileRows, (end_ + kLatent - 1) / kLatent),
                std::min(left + kTileColumns, latent_columns())};
    }
    int32_t latent_columns() const { return (static_cast<int32_t>(picture_.info.width) + kLatent - 1) / kLatent; }

    plic_status plan() {
        Memory& memory = picture_.memory;
        const int32_t latent_rows = (end_ + kLatent - 1) / kLatent - first_ / kLatent;
        strip_count_ = (latent_rows + kTileRows - 1) / kTileRows;
        columns_ = (latent_columns() + kTileColumns - 1) / kTileColumns;
        const int32_t all = strip_count_ * columns_ + picture_.bands();
        if (!picture_.choose_filters() || !strips_.allocate(memory, static_cast<uint64_t>(strip_count_)) ||
            !tasks_.allocate(memory, static_cast<uint64_t>(all)) ||
            !read_.allocate(memory, static_cast<uint64_t>(picture_.bands())))
            return no_memory(decoder_.error_, memory);
        int32_t together = 0;
        uint64_t tile_bytes = 0;
        {
            const TileDecoder tiles(picture_);
            for (int32_t s = 0; s < strip_count_; ++s) {
                const Region first = tile(s, 0);
                Strip& strip = strip_of(s);
                strip.from = std::max(first_, first.y0 * kLatent);
                strip.to = std::min(end_, first.y1 * kLatent);
                const Region needs = tiles.needs(first, strip.from, strip.to);
                strip.first_band = needs.y0 / static_cast<int32_t>(kBandRows);
                strip.last_band = (needs.y1 - 1) / static_cast<int32_t>(kBandRows);
                strip.tiles_left = columns_;
                together = std::max(together, strip.last_band - strip.first_band + 1);
                tile_bytes = std::max(tile_bytes, tiles.bytes(first, strip.from, strip.to));
            }
        }
        if (together > kMostTogether)
            return fail(decoder_.error_, PLIC_ERROR_MODEL, "not a Pocketlic model: its networks see too far");
        tile_bytes += kReadRows * count(1, picture_.lw, std::max(picture_.model.latents, picture_.model.details));
        share_memory(together, tile_bytes);
        decoder_.bands_.keep(places_);
        if (target_.out == nullptr && !rows_.allocate(memory, strip_bytes() * static_cast<uint64_t>(rows_kept_)))
            return no_memory(decoder_.error_, memory);
        int32_t band = strip_of(0).first_band;
        for (int32_t s = 0; s < strip_count_; ++s) {
            const int32_t ahead = std::min(strip_of(s).last_band + places_ - together,
                                           strip_of(strip_count_ - 1).last_band);
            for (; band <= ahead; ++band) task(task_count_++) = {band, -1};
            for (int32_t column = 0; column < columns_; ++column) task(task_count_++) = {s, column};
        }
        failed_ = task_count_;
        return PLIC_OK;
    }

    // Threads, bands and strips, so many that what they take is no more than half of what is left beside what one
    // thread needs.
    void share_memory(int32_t together, uint64_t tile_bytes) {
        const uint64_t band = sizeof(int16_t) * (picture_.band_count(0, picture_.model.latents) +
                                                 picture_.band_count(0, picture_.model.details));
        const uint64_t strip = target_.out == nullptr ? strip_bytes() : 0;
        const uint64_t least = static_cast<uint64_t>(together) * band + strip + tile_bytes;
        uint64_t left = picture_.memory.left();
        left = left > least ? (left - least) / 2 : 0;
        threads_ = places_ = rows_kept_ = 1;
        places_ = together;
        for (; threads_ < std::min(picture_.threads, strip_count_ * columns_); ++threads_) {
            const int32_t places = std::min(together + threads_, picture_.bands());
            const uint64_t more = static_cast<uint64_t>(places - places_) * band + strip + tile_bytes;
            if (more > left) break;
            left -= more;
            places_ = places;
            rows_kept_ = std::min(rows_kept_ + 1, strip_count_);
        }
    }

    void work(int32_t worker) {
        TileDecoder tiles(picture_);
        SymbolReader reader(picture_);
        mutex_.lock();
        while (next_ < task_count_ && failed_ == task_count_) {
            const int32_t number = next_++;
            const Task& t = task(number);
            while (!ready(t) && failed_ == task_count_)
                if (worker != 0 || !deliver()) changed_.wait(mutex_);
            if (!ready(t)) break;
            mutex_.unlock();
            plic_error error = {PLIC_OK, ""};
            do_task(t, tiles, reader, &error);
            mutex_.lock();
            if (error.status != PLIC_OK) fail_at(number, error);
            else if (t.column < 0) read_[static_cast<size_t>(t.strip)] = true;
            else --strip_of(t.strip).tiles_left;
            changed_.notify_all();
            if (worker == 0) deliver();
        }
        while (worker == 0 && delivered_ < strip_count_ && failed_ == task_count_)
            if (!deliver()) changed_.wait(mutex_);
        mutex_.unlock();
    }

    // Of the first task that fails, whichever threads there are: all before have begun, and end.
    void fail_at(int32_t number, const plic_error& error) {
        if (number >= failed_) return;
        failed_ = number;
        error_ = error;
    }

    bool ready(const Task& t) const {
        if (t.column < 0) {
            // Strips that need what is in its place come before.
            for (int32_t s = delivered_; s < strip_count_ && strip_of(s).first_band <= t.strip - places_; ++s)
                if (strip_of(s).tiles_left > 0) return false;
            return true;
        }
        const Strip& strip = strip_of(t.strip);
        for (int32_t band = strip.first_band; band <= strip.last_band; ++band)
            if (!read_[static_cast<size_t>(band)]) return false;
        return target_.out != nullptr || t.strip < delivered_ + rows_kept_;
    }

    void do_task(const Task& t, TileDecoder& tiles, SymbolReader& reader, plic_error* error) {
        Memory& memory = picture_.memory;
        if (t.column < 0) {
            Band& band = decoder_.bands_.place(t.strip);
            if (!band.y.clear(memory, picture_.band_count(0, picture_.model.latents)) ||
                !band.details.clear(memory, picture_.band_count(0, picture_.model.details)))
                no_memory(error, memory);
            else
                decoder_.decode_band(t.strip, reader, band.y.data(), band.details.data(), error);
            return;
        }
        const Strip& strip = strip_of(t.strip);
        uint8_t* const to = target_.out != nullptr
                                ? target_.out + static_cast<size_t>(strip.from - first_) * target_.stride
                                : rows_of(t.strip);
        if (!tiles.decode(tile(t.strip, t.column), decoder_.bands_, strip.from, strip.to, to,
                          target_.out != nullptr ? target_.stride : row_bytes()))
            no_memory(error, memory);
    }

    // Hands on the next strip, if all of it is there. Called, and left, with the lock held.
    bool deliver() {
        if (delivered_ == strip_count_ || strip_of(delivered_).tiles_left > 0) return false;
        const Strip& strip = strip_of(delivered_);
        if (target_.out == nullptr) {
            mutex_.unlock();
            const int answer = target_.sink(target_.user, static_cast<uint32_t>(strip.from),
                                            static_cast<uint32_t>(strip.to - strip.from), rows_of(delivered_));
            mutex_.lock();
            if (answer != 0) {
                plic_error error;
                fail(&error, PLIC_ERROR_STOPPED, "stopped by the receiver of rows");
                fail_at(-1, error);
            }
        }
        ++delivered_;
        changed_.notify_all();
        return true;
    }

    size_t row_bytes() const { return static_cast<size_t>(picture_.info.width) * picture_.info.components; }
    uint64_t strip_bytes() const {
        return uint64_t{row_bytes()} * static_cast<uint64_t>(std::min(end_ - first_, kTileRows * kLatent));
    }
    uint8_t* rows_of(int32_t strip) {
        return rows_.data() + static_cast<size_t>(strip_bytes()) * static_cast<size_t>(strip % rows_kept_);
    }
    Task& task(int32_t i) { return tasks_[static_cast<size_t>(i)]; }
    Strip& strip_of(int32_t i) { return strips_[static_cast<size_t>(i)]; }
    const Strip& strip_of(int32_t i) const { return strips_[static_cast<size_t>(i)]; }

    static constexpr int32_t kMostTogether = 8;  // bands that a strip needs

    Decoder& decoder_;
    Picture& picture_;
    const int32_t first_, end_;
    const Target target_;
    int32_t strip_count_ = 0, columns_ = 0, task_count_ = 0;
    int32_t threads_ = 1, places_ = 1, rows_kept_ = 1;  // rows_kept_: strips of them
    Buffer<Task> tasks_;
    Buffer<uint8_t> rows_;

    Mutex mutex_;  // of what follows
    Condition changed_;
    Buffer<Strip> strips_;
    Buffer<bool> read_;  // bands
    int32_t next_ = 0, delivered_ = 0, failed_ = 0;
    plic_error error_ = {PLIC_OK, ""};
};

plic_status Decoder::decode_pixels(int32_t first, int32_t rows, const Target& target) {
    Schedule schedule(*this, first, rows, target);
    return schedule.run();
}

}  // namespace pocketlic
