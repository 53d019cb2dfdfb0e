// The Python module pocketlic.codec._native. All the work is in the headers; here are only the conversions.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "crc32c.h"
#include "plic.h"
#include "rans.h"
#include "stages.h"

namespace nb = nanobind;
namespace rans = pocketlic::rans;
using namespace nb::literals;

template <typename T>
using Array = nb::ndarray<const T, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Symbols = nb::ndarray<int32_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Grid = nb::ndarray<const T, nb::numpy, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Pixels = nb::ndarray<const uint8_t, nb::numpy, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<int32_t, nb::numpy, nb::ndim<3>, nb::c_contig, nb::device::cpu>;  // written to
template <typename T>
using Buffer = std::unique_ptr<T, decltype(&std::free)>;

static void check(rans::Status status) {
    if (status != rans::Status::ok) throw nb::value_error(rans::message(status));
}

class SymbolCoder {
public:
    SymbolCoder(Array<uint16_t> radius, Array<uint16_t> freq, uint32_t skip) {
        check(tables_.build(memory_, radius.data(), radius.size(), freq.data(), freq.size(), skip));
    }

    nb::bytes encode(Array<int32_t> symbols, Array<uint8_t> rows) const {
        const size_t n = rows.size();
        if (symbols.size() != n) throw nb::value_error("there are not as many symbols as rows");
        size_t coded = 0;
        check(rans::count_coded(tables_, rows.data(), n, coded));
        const uint64_t capacity = rans::max_encoded_bytes(coded);
        if (capacity > std::numeric_limits<size_t>::max()) throw std::bad_alloc();
        // Written from its end: of the worst case, only the pages that are used become real memory.
        Buffer<uint8_t> buffer(static_cast<uint8_t*>(std::malloc(static_cast<size_t>(capacity))), std::free);
        if (!buffer) throw std::bad_alloc();
        uint8_t *end = buffer.get() + capacity, *begin = end;
        rans::Status status;
        {
            nb::gil_scoped_release release;
            rans::Writer writer(tables_, coded, end);
            status = writer.put(symbols.data(), rows.data(), n);
            if (status == rans::Status::ok) begin = writer.finish();
        }
        check(status);
        return nb::bytes(begin, static_cast<size_t>(end - begin));
    }

    const rans::TableSet& tables() const { return tables_; }

private:
    pocketlic::Memory memory_;  // must outlive the tables
    rans::TableSet tables_;
};

class SymbolReader {
public:
    SymbolReader(const SymbolCoder& coder, nb::bytes data)
        : tables_(coder.tables()), data_(data), reader_(static_cast<const uint8_t*>(data.data()), data.size()) {}

    Symbols read(Array<uint8_t> rows) {
        const size_t n = rows.size();
        Buffer<int32_t> out(static_cast<int32_t*>(std::calloc(n > 0 ? n : 1, sizeof(int32_t))), std::free);
        if (!out) throw std::bad_alloc();
        if (broken_) check(rans::Status::corrupt);
        rans::Reader reader = reader_;  // other threads may use this object while the lock is released
        rans::Status status;
        {
            nb::gil_scoped_release release;
            status = reader.read(tables_, rows.data(), n, out.get());
        }
        broken_ = status != rans::Status::ok;
        check(status);
        reader_ = reader;
        int32_t* p = out.get();
        nb::capsule owner(p, [](void* q) noexcept { std::free(q); });
        out.release();
        return Symbols(p, {n}, owner);
    }

    void finish() const { check(broken_ ? rans::Status::corrupt : reader_.finish()); }

private:
    const rans::TableSet& tables_;
    nb::bytes data_;  // keeps what reader_ points at
    rans::Reader reader_;
    bool broken_ = false;
};

// Raises what the rest of the package raises for the same reason.
static void check(plic_status status, const plic_error& error) {
    if (status == PLIC_OK) return;
    if (status == PLIC_ERROR_ARGUMENT) throw nb::value_error(error.message);
    if (status == PLIC_ERROR_MEMORY) throw std::bad_alloc();
    const bool model = status == PLIC_ERROR_MODEL;
    const nb::object type = nb::module_::import_(model ? "pocketlic.quantization.errors" : "pocketlic.codec.errors")
                                .attr(model ? "ModelError" : "FormatError");
    PyErr_SetString(type.ptr(), error.message);
    throw nb::python_error();
}

static const uint8_t* bytes_of(const nb::bytes& data) { return static_cast<const uint8_t*>(data.data()); }

// A NumPy array of malloc'ed memory.
template <typename T>
class Owned {
public:
    explicit Owned(size_t n) : data_(static_cast<T*>(std::malloc(n > 0 ? n * sizeof(T) : 1)), std::free) {
        if (!data_) throw std::bad_alloc();
    }
    T* data() { return data_.get(); }
    nb::object array(std::initializer_list<size_t> shape) {
        T* p = data_.release();
        nb::capsule owner(p, [](void* q) noexcept { std::free(q); });
        return nb::cast(nb::ndarray<T, nb::numpy>(p, shape, owner));
    }

private:
    Buffer<T> data_;
};

class NativeDecoder {
public:
    NativeDecoder(nb::bytes model, std::optional<std::string> kernels, nb::object runner)
        : runner_(std::move(runner)) {
        plic_options options = {};
        options.kernels = kernels ? kernels->c_str() : nullptr;
        if (!runner_.is_none()) {
            options.runner = run_foreign;
            options.user = this;
        }
        plic_error error;
        plic_model* opened = nullptr;
        check(plic_model_open(bytes_of(model), model.size(), &options, &opened, &error), error);
        model_.reset(opened);
        plic_model_describe(opened, &facts_);
    }

    nb::bytes model_id() const { return nb::bytes(facts_.id, sizeof facts_.id); }
    const char* profile() const { return facts_.profile; }
    const char* kernels() const { return facts_.kernels; }

    nb::object decode(nb::bytes data, uint64_t max_pixels, uint64_t max_memory, uint32_t threads) const {
        const plic_limits limits = {max_pixels, max_memory, threads};
        const plic_info info = read_info(data, limits);
        const size_t row = size_t{info.width} * info.components;
        Owned<uint8_t> pixels(row * info.height);
        plic_error error;
        plic_status status;
        {
            nb::gil_scoped_release release;
            status = plic_decode(model_.get(), bytes_of(data), data.size(), &limits, pixels.data(), row, &error);
        }
        check_runner();
        check(status, error);
        if (info.components == 1) return pixels.array({info.height, info.width});
        return pixels.array({info.height, info.width, info.components});
    }

    nb::bytes encode(Pixels pixels, uint32_t quality_hundredths, uint64_t max_pixels, uint64_t max_memory,
                     uint32_t threads) const {
        if (pixels.ndim() != 2 && (pixels.ndim() != 3 || pixels.shape(2) != 3))
            throw nb::value_error("a picture is uint8 [H, W, 3] or [H, W]");
        if (pixels.shape(0) > UINT32_MAX || pixels.shape(1) > UINT32_MAX) throw nb::value_error("too large a picture");
        plic_info info = {};
        info.height = static_cast<uint32_t>(pixels.shape(0));
        info.width = static_cast<uint32_t>(pixels.shape(1));
        info.components = pixels.ndim() == 2 ? 1 : 3;
        info.quality_hundredths = quality_hundredths;
        struct Source {
            const uint8_t* data;
            size_t row;
        } source = {pixels.data(), size_t{info.width} * info.components};
        const auto give = [](void* user, uint32_t first, uint32_t rows, uint8_t* to) {
            const auto* from = static_cast<const Source*>(user);
            std::memcpy(to, from->data + first * from->row, rows * from->row);
            return 0;
        };
        const plic_limits limits = {max_pixels, max_memory, threads};
        uint8_t* file = nullptr;
        size_t size = 0;
        plic_error error;
        plic_status status;
        {
            nb::gil_scoped_release release;
            status = plic_encode(model_.get(), &info, &limits, give, &source, &file, &size, &error);
        }
        std::unique_ptr<uint8_t, decltype(&plic_release)> owner(file, plic_release);
        check_runner();
        check(status, error);
        return nb::bytes(file, size);
    }

    nb::object decode_rows(nb::bytes data, uint32_t first, uint32_t count, uint64_t max_pixels,
                           uint64_t max_memory, uint32_t threads) const {
        const plic_limits limits = {max_pixels, max_memory, threads};
        const plic_info info = read_info(data, limits);
        if (first > info.height || count > info.height - first) throw nb::value_error("rows beyond the picture");
        const size_t row = size_t{info.width} * info.components;
        Owned<uint8_t> pixels(row * count);
        struct Target {
            uint8_t* at;
            size_t row;
        } target = {pixels.data(), row};
        const auto sink = [](void* user, uint32_t, uint32_t rows, const uint8_t* from) {
            auto* to = static_cast<Target*>(user);
            std::memcpy(to->at, from, rows * to->row);
            to->at += rows * to->row;
            return 0;
        };
        plic_error error;
        plic_status status;
        {
            nb::gil_scoped_release release;
            status = plic_decode_rows(model_.get(), bytes_of(data), data.size(), &limits, first, count, sink, &target,
                                      &error);
        }
        check_runner();
        check(status, error);
        if (info.components == 1) return pixels.array({count, info.width});
        return pixels.array({count, info.width, info.components});
    }

    nb::tuple symbols(nb::bytes data, uint64_t max_pixels, uint64_t max_memory, uint32_t threads) const {
        const plic_limits limits = {max_pixels, max_memory, threads};
        const plic_info i = read_info(data, limits);
        const size_t latents = size_t{i.latent_height} * i.latent_width;
        plic_symbols s = {nullptr, nullptr, nullptr, size_t{i.hyper_height} * i.hyper_width * facts_.hyper_channels,
                          latents * facts_.latent_channels, latents * facts_.detail_channels};
        Owned<int8_t> z(s.z_count);
        Owned<int32_t> y(s.y_count), details(s.details_count);
        s.z = z.data();
        s.y = y.data();
        s.details = details.data();
        plic_error error;
        plic_status status;
        {
            nb::gil_scoped_release release;
            status = plic_decode_symbols(model_.get(), bytes_of(data), data.size(), &limits, &s, &error);
        }
        check(status, error);
        return nb::make_tuple(z.array({i.hyper_height, i.hyper_width, facts_.hyper_channels}),
                              y.array({i.latent_height, i.latent_width, facts_.latent_channels}),
                              details.array({i.latent_height, i.latent_width, facts_.detail_channels}));
    }

    nb::bytes encode_symbols(Grid<int8_t> z, Grid<int32_t> y, Grid<int32_t> details, uint32_t width, uint32_t height,
                             bool grey, uint32_t quality_hundredths) const {
        plic_info info = {};
        info.width = width;
        info.height = height;
        info.components = grey ? 1 : 3;
        info.quality_hundredths = quality_hundredths;
        // Only read.
        const plic_symbols s = {const_cast<int8_t*>(z.data()), const_cast<int32_t*>(y.data()),
                                const_cast<int32_t*>(details.data()), z.size(), y.size(), details.size()};
        uint8_t* file = nullptr;
        size_t size = 0;
        plic_error error;
        plic_status status;
        {
            nb::gil_scoped_release release;
            const plic_limits limits = {std::numeric_limits<uint64_t>::max(), std::numeric_limits<uint64_t>::max(), 0};
            status = plic_encode_symbols(model_.get(), &info, &limits, &s, &file, &size, &error);
        }
        check(status, error);
        std::unique_ptr<uint8_t, decltype(&plic_release)> owner(file, plic_release);
        return nb::bytes(file, size);
    }

    nb::tuple hash(nb::bytes data, uint64_t max_pixels, uint64_t max_memory, uint32_t threads) const {
        const plic_limits limits = {max_pixels, max_memory, threads};
        plic_hashes hashes;
        plic_error error;
        plic_status status;
        {
            nb::gil_scoped_release release;
            status = plic_hash(model_.get(), bytes_of(data), data.size(), &limits, &hashes, &error);
        }
        check_runner();
        check(status, error);
        return nb::make_tuple(nb::bytes(hashes.symbols, sizeof hashes.symbols),
                              nb::bytes(hashes.pixels, sizeof hashes.pixels), hashes.memory);
    }

    nb::dict run(const std::string& network, std::vector<Grid<int8_t>> inputs, uint32_t tile) const {
        plic_tensor tensors[16];
        uint32_t count = 16, input_count = 0;
        plic_error error;
        const auto side = [&](size_t axis) {
            if (inputs.empty() || inputs[0].shape(axis) > 65536) return uint32_t{0};
            return static_cast<uint32_t>(inputs[0].shape(axis));
        };
        const uint32_t height = side(0), width = side(1);
        check(plic_network(model_.get(), network.c_str(), height, width, tensors, &count, &input_count, &error),
              error);
        if (inputs.size() != input_count) throw nb::value_error("the network has another number of inputs");
        std::vector<const int8_t*> in;
        for (uint32_t i = 0; i < input_count; ++i) {
            const auto& x = inputs[i];
            if (x.shape(0) != height || x.shape(1) != width || x.shape(2) != tensors[i].channels)
                throw nb::value_error("an input is of a wrong shape");
            in.push_back(x.data());
        }
        std::vector<Owned<int8_t>> made;
        std::vector<int8_t*> out;
        for (uint32_t i = input_count; i < count; ++i) {
            made.emplace_back(size_t{tensors[i].height} * tensors[i].width * tensors[i].channels);
            out.push_back(made.back().data());
        }
        plic_status status;
        {
            nb::gil_scoped_release release;
            status = plic_run(model_.get(), network.c_str(), height, width, tile, in.data(), out.data(), nullptr,
                              &error);
        }
        check(status, error);
        nb::dict result;
        for (uint32_t i = input_count; i < count; ++i)
            result[tensors[i].name] =
                made[i - input_count].array({tensors[i].height, tensors[i].width, tensors[i].channels});
        return result;
    }

    // What stages.h says, for pictures whose latents have the shape of y. Quality is in hundredths.

    nb::object anchor_values(uint32_t quality, Grid<int8_t> means, Grid<int8_t> log2_steps, Grid<int32_t> y) const {
        const Latents at(quality, y.shape(0), y.shape(1));
        for (const auto& grid : {means, log2_steps}) at.require(grid, facts_.latent_channels);
        at.require(y, facts_.latent_channels);
        require_symbols(y);
        Owned<int8_t> anchors(y.size());
        at.call([&](plic_error* error) {
            return pocketlic::anchor_values(*model_, at.info, {means.data(), log2_steps.data()}, y.data(),
                                            anchors.data(), error);
        });
        return anchors.array({y.shape(0), y.shape(1), y.shape(2)});
    }

    nb::tuple synthesis_inputs(uint32_t quality, Grid<int8_t> means, Grid<int8_t> log2_steps, Grid<int8_t> context,
                               Grid<int32_t> y, Grid<int32_t> details) const {
        const Latents at(quality, y.shape(0), y.shape(1));
        for (const auto& grid : {means, log2_steps, context}) at.require(grid, facts_.latent_channels);
        at.require(y, facts_.latent_channels);
        at.require(details, facts_.detail_channels);
        require_symbols(y);
        require_symbols(details);
        const size_t planes = tensors("synthesis", at.height, at.width)[0].channels;
        Owned<int8_t> coarse(at.count(planes)), d_hat(details.size());
        at.call([&](plic_error* error) {
            return pocketlic::synthesis_inputs(*model_, at.info, {means.data(), log2_steps.data()}, context.data(),
                                               y.data(), details.data(), coarse.data(), d_hat.data(), error);
        });
        return nb::make_tuple(coarse.array({at.height, at.width, planes}),
                              d_hat.array({at.height, at.width, facts_.detail_channels}));
    }

    nb::object show(uint32_t quality, Grid<int8_t> pixels) const {
        if (pixels.shape(2) != 3 || pixels.size() == 0 || pixels.shape(0) > 65535 || pixels.shape(1) > 65535)
            throw nb::value_error("an array is of a wrong shape");
        plic_info info = {};
        info.height = static_cast<uint32_t>(pixels.shape(0));
        info.width = static_cast<uint32_t>(pixels.shape(1));
        info.components = 3;
        info.quality_hundredths = quality;
        Owned<uint8_t> shown(pixels.size());
        plic_error error;
        plic_status status;
        {
            nb::gil_scoped_release release;
            status = pocketlic::show(*model_, info, pixels.data(), shown.data(), &error);
        }
        check(status, error);
        return shown.array({pixels.shape(0), pixels.shape(1), pixels.shape(2)});
    }

    nb::tuple project(uint32_t quality, Grid<int8_t> features, Grid<int8_t> fine) const {
        const Latents at(quality, features.shape(0), features.shape(1));
        const std::vector<plic_tensor> made = tensors("analysis", 16 * at.height, 16 * at.width);
        at.require(features, made[1].channels);
        if (fine.shape(0) != 2 * at.height || fine.shape(1) != 2 * at.width || fine.shape(2) != made[2].channels)
            throw nb::value_error("an array is of a wrong shape");
        const size_t counts[2] = {at.count(facts_.latent_channels), at.count(facts_.detail_channels)};
        Owned<int32_t> y(counts[0]), details(counts[1]);
        Owned<int8_t> coarse_y(counts[0]), coarse_d(counts[1]);
        at.call([&](plic_error* error) {
            return pocketlic::project(*model_, at.info, features.data(), fine.data(), y.data(), details.data(),
                                      coarse_y.data(), coarse_d.data(), error);
        });
        return nb::make_tuple(y.array({at.height, at.width, facts_.latent_channels}),
                              details.array({at.height, at.width, facts_.detail_channels}),
                              coarse_y.array({at.height, at.width, facts_.latent_channels}),
                              coarse_d.array({at.height, at.width, facts_.detail_channels}));
    }

    nb::object quantize_anchors(uint32_t quality, Grid<int8_t> z, Grid<int8_t> means, Grid<int8_t> log2_steps,
                                Values y) const {
        const Latents at(quality, y.shape(0), y.shape(1));
        at.require_hyper(z, facts_.hyper_channels);
        for (const auto& grid : {means, log2_steps}) at.require(grid, facts_.latent_channels);
        at.require(y, facts_.latent_channels);
        Owned<int8_t> anchors(y.size());
        at.call([&](plic_error* error) {
            return pocketlic::quantize_anchors(*model_, at.info, z.data(), {means.data(), log2_steps.data()}, y.data(),
                                               anchors.data(), error);
        });
        return anchors.array({y.shape(0), y.shape(1), y.shape(2)});
    }

    void quantize_others(uint32_t quality, Grid<int8_t> z, Grid<int8_t> context, Grid<int8_t> log2_steps, Values y,
                         Values details) const {
        const Latents at(quality, y.shape(0), y.shape(1));
        at.require_hyper(z, facts_.hyper_channels);
        for (const auto& grid : {context, log2_steps}) at.require(grid, facts_.latent_channels);
        at.require(y, facts_.latent_channels);
        at.require(details, facts_.detail_channels);
        at.call([&](plic_error* error) {
            return pocketlic::quantize_others(*model_, at.info, z.data(), {context.data(), log2_steps.data()}, y.data(),
                                              details.data(), error);
        });
    }

    // For the garbage collector: the runner may refer to what refers to this.
    static int traverse(PyObject* self, visitproc visit, void* arg) {
        Py_VISIT(Py_TYPE(self));
        if (nb::inst_ready(self)) Py_VISIT(nb::inst_ptr<NativeDecoder>(self)->runner_.ptr());
        return 0;
    }
    static int clear(PyObject* self) {
        nb::inst_ptr<NativeDecoder>(self)->runner_.reset();
        return 0;
    }

private:
    // Has the Python function run a network: (name, inputs) -> outputs, in their order. What it raises is raised when
    // the core returns.
    static int run_foreign(void* user, const char* name, uint32_t height, uint32_t width, const int8_t* const* inputs,
                           int8_t* const* outputs) {
        nb::gil_scoped_acquire acquire;
        if (failure) return 0;
        const auto* self = static_cast<const NativeDecoder*>(user);
        try {
            uint32_t count = 0;
            const std::vector<plic_tensor> all = self->tensors(name, height, width, &count);
            nb::list in;
            for (uint32_t i = 0; i < count; ++i)
                in.append(nb::cast(nb::ndarray<nb::numpy, const int8_t>(
                    inputs[i], {size_t{height}, size_t{width}, size_t{all[i].channels}}, nb::handle())));
            const nb::object made = self->runner_(name, in);
            for (size_t o = 0; count + o < all.size(); ++o) {
                const auto array = nb::cast<Grid<int8_t>>(made[o]);
                const plic_tensor& t = all[count + o];
                if (array.shape(0) != t.height || array.shape(1) != t.width || array.shape(2) != t.channels)
                    throw nb::value_error("the runner's output is of a wrong shape");
                std::memcpy(outputs[o], array.data(), array.size());
            }
        } catch (...) {
            failure = std::current_exception();
        }
        return 0;  // not to have the core do what the runner should
    }

    static void check_runner() {
        if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
    }

    // The grid of latents of a picture, whatever its exact size.
    struct Latents {
        Latents(uint32_t quality, size_t h, size_t w) : height(h), width(w) {
            if (h < 1 || w < 1 || h % 4 != 0 || w % 4 != 0 || h > 4096 || w > 4096)
                throw nb::value_error("a grid of latents has 4 to 4096 rows and columns, a multiple of 4");
            info.height = static_cast<uint32_t>(16 * h - 1);
            info.width = static_cast<uint32_t>(16 * w - 1);
            info.components = 3;
            info.quality_hundredths = quality;
        }
        size_t count(size_t channels) const { return height * width * channels; }
        template <typename Array>
        void require(const Array& grid, size_t channels) const {
            if (grid.shape(0) != height || grid.shape(1) != width || grid.shape(2) != channels)
                throw nb::value_error("an array is of a wrong shape");
        }
        void require_hyper(const Grid<int8_t>& z, size_t channels) const {
            if (4 * z.shape(0) != height || 4 * z.shape(1) != width || z.shape(2) != channels)
                throw nb::value_error("an array is of a wrong shape");
        }
        template <typename Function>
        void call(Function function) const {
            plic_error error;
            plic_status status;
            {
                nb::gil_scoped_release release;
                status = function(&error);
            }
            check(status, error);
        }
        size_t height, width;
        plic_info info = {};
    };

    static void require_symbols(const Grid<int32_t>& values) {
        const int32_t* p = values.data();
        const size_t n = values.size();
        int32_t least = 0, most = 0;
        for (size_t i = 0; i < n; ++i) {
            least = std::min(least, p[i]);
            most = std::max(most, p[i]);
        }
        if (least < -rans::kMaxSymbol || most > rans::kMaxSymbol)
            throw nb::value_error(rans::message(rans::Status::bad_symbol));
    }

    // Inputs, then outputs, of a network.
    std::vector<plic_tensor> tensors(const char* network, size_t height, size_t width,
                                     uint32_t* input_count = nullptr) const {
        std::vector<plic_tensor> all(16);
        uint32_t count = 16, inputs = 0;
        plic_error error;
        check(plic_network(model_.get(), network, static_cast<uint32_t>(height), static_cast<uint32_t>(width),
                           all.data(), &count, &inputs, &error),
              error);
        all.resize(count);
        if (input_count != nullptr) *input_count = inputs;
        return all;
    }

    plic_info read_info(const nb::bytes& data, const plic_limits& limits) const {
        plic_info info;
        plic_error error;
        check(plic_read_info(bytes_of(data), data.size(), &limits, &info, &error), error);
        return info;
    }

    static thread_local inline std::exception_ptr failure;  // of the runner, in this thread's call
    nb::object runner_;
    std::unique_ptr<plic_model, decltype(&plic_model_close)> model_{nullptr, plic_model_close};
    plic_model_info facts_;
};

static std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    while (const char* name = plic_kernels(names.size())) names.push_back(name);
    return names;
}

static uint32_t crc32c(nb::bytes data) {
    const auto* p = static_cast<const uint8_t*>(data.data());
    const size_t size = data.size();
    nb::gil_scoped_release release;
    return pocketlic::crc32c(p, size);
}

NB_MODULE(_native, m) {
    m.doc() = "The native core: decoder, entropy coder (rans.h describes the bitstream) and CRC-32C.";
    nb::class_<SymbolCoder>(m, "SymbolCoder",
                            "Codes integers with a fixed set of probability tables (rANS, 16-bit probabilities).\n\n"
                            "Safe to share between threads; the interpreter lock is released while coding.")
        .def(nb::init<Array<uint16_t>, Array<uint16_t>, uint32_t>(), "radius"_a.noconvert(), "freq"_a.noconvert(),
             "skip"_a = 0,
             "radius: uint16[R], 1 <= R <= 256: row i codes -radius[i] .. radius[i] directly, others by an escape.\n"
             "freq: uint16[sum(2 * radius + 2)]: row after row, each in the order -radius .. radius, escape, each\n"
             "frequency at least 1, each row summing to 65536.\n"
             "skip: symbols whose row index is below it are 0 and cost nothing.\n\n"
             "Raises ValueError if the table set breaks a rule, TypeError on other dtypes or strided arrays.")
        .def("encode", &SymbolCoder::encode, "symbols"_a.noconvert(), "rows"_a.noconvert(),
             "The stream of symbols (int32[n], magnitudes up to 32767) coded with the tables rows (uint8[n]).\n\n"
             "Raises ValueError on a row outside the table set, a symbol out of range, or a symbol that is not 0\n"
             "in a skipped row.")
        .def("decode",
             [](const SymbolCoder& coder, nb::bytes data, Array<uint8_t> rows) {
                 SymbolReader reader(coder, data);
                 Symbols symbols = reader.read(rows);
                 reader.finish();
                 return symbols;
             },
             "data"_a, "rows"_a.noconvert(),
             "The symbols, int32[n], that encode(symbols, rows) made data from; rows is uint8[n].\n\n"
             "Raises ValueError if data is not exactly one such stream, or on a row outside the table set.")
        .def("reader", [](const SymbolCoder& coder, nb::bytes data) { return new SymbolReader(coder, data); },
             "data"_a, nb::keep_alive<0, 1>(), "What decodes a stream that `encode` made, in parts.");
    nb::class_<SymbolReader>(m, "SymbolReader", "Decodes one stream in parts, whose rows may depend on what came before.")
        .def("read", &SymbolReader::read, "rows"_a.noconvert(),
             "The next symbols, int32[n], coded with the tables rows (uint8[n]).\n\n"
             "Raises ValueError if the stream ends too early or is corrupt, or on a row outside the table set.")
        .def("finish", &SymbolReader::finish,
             "Raises ValueError unless all symbols have been read and data was exactly one stream.");
    const uint64_t pixels = PLIC_DEFAULT_MAX_PIXELS, memory = PLIC_DEFAULT_MAX_MEMORY;
    static PyType_Slot collected[] = {{Py_tp_traverse, reinterpret_cast<void*>(NativeDecoder::traverse)},
                                      {Py_tp_clear, reinterpret_cast<void*>(NativeDecoder::clear)},
                                      {0, nullptr}};
    nb::class_<NativeDecoder>(m, "NativeDecoder", nb::type_slots(collected),
                              "Decodes .plic files of one model without any runtime, to the bits of the reference.\n\n"
                              "Safe to share between threads; the interpreter lock is released while decoding.\n"
                              "max_pixels: what a file may claim. max_memory: bytes a call takes at most, its result\n"
                              "apart. threads: that a call takes at most, 0 for as many as there are cores.\n"
                              "Methods that take a file raise FormatError when it is damaged, of another model, or\n"
                              "exceeds a limit.")
        .def(nb::init<nb::bytes, std::optional<std::string>, nb::object>(), "model"_a, "kernels"_a = nb::none(),
             "runner"_a = nb::none(),
             "model: a model file. kernels: one of `kernels()`, by default the fastest; the results are equal.\n"
             "runner: runs networks in place of the core: called with a network's name and its inputs, int8 [H, W, C],\n"
             "which live until it returns, it gives the outputs in their order. It is called by the caller's thread,\n"
             "for tiles of 1024x1024 pixels and what lies around them; what it raises is raised.\n\n"
             "Raises ModelError if the file is not a sound model, ValueError on kernels this machine lacks.")
        .def_prop_ro("model_id", &NativeDecoder::model_id, "SHA-256 of the model file.")
        .def_prop_ro("profile", &NativeDecoder::profile)
        .def_prop_ro("kernels", &NativeDecoder::kernels)
        .def("decode", &NativeDecoder::decode, "data"_a, "max_pixels"_a = pixels, "max_memory"_a = memory, "threads"_a = 0,
             "Pixels, uint8 [H, W, 3] RGB or [H, W] grey.",
             nb::sig("def decode(self, data: bytes, max_pixels: int = ..., max_memory: int = ..., threads: int = 0) -> "
                     "numpy.typing.NDArray[numpy.uint8]"))
        .def("encode", &NativeDecoder::encode, "pixels"_a.noconvert(), "quality_hundredths"_a, "max_pixels"_a = pixels,
             "max_memory"_a = memory, "threads"_a = 0,
             "The file of uint8 [H, W, 3] RGB or [H, W] grey: the reference encoder's bytes at effort 0.\n\n"
             "Raises ValueError on another array or quality, FormatError when it exceeds a limit.",
             nb::sig("def encode(self, pixels: numpy.typing.NDArray[numpy.uint8], quality_hundredths: int, "
                     "max_pixels: int = ..., max_memory: int = ..., threads: int = 0) -> bytes"))
        .def("decode_rows", &NativeDecoder::decode_rows, "data"_a, "first"_a, "count"_a, "max_pixels"_a = pixels,
             "max_memory"_a = memory, "threads"_a = 0, "Pixels of rows first .. first + count - 1 only.",
             nb::sig("def decode_rows(self, data: bytes, first: int, count: int, max_pixels: int = ..., "
                     "max_memory: int = ..., threads: int = 0) -> numpy.typing.NDArray[numpy.uint8]"))
        .def("symbols", &NativeDecoder::symbols, "data"_a, "max_pixels"_a = pixels, "max_memory"_a = memory, "threads"_a = 0,
             "z int8 [h, w, hyper], y and details int32 [4h, 4w, latents].",
             nb::sig("def symbols(self, data: bytes, max_pixels: int = ..., max_memory: int = ..., threads: int = 0) -> "
                     "tuple[numpy.typing.NDArray[numpy.int8], numpy.typing.NDArray[numpy.int32], "
                     "numpy.typing.NDArray[numpy.int32]]"))
        .def("encode_symbols", &NativeDecoder::encode_symbols, "z"_a.noconvert(), "y"_a.noconvert(),
             "details"_a.noconvert(), "width"_a, "height"_a, "grey"_a, "quality_hundredths"_a,
             "The file of symbols as `symbols` gives them. Raises ValueError if they do not fit.")
        .def("anchor_values", &NativeDecoder::anchor_values, "quality"_a, "means"_a.noconvert(),
             "log2_steps"_a.noconvert(), "y"_a.noconvert(),
             "The context's second input: latents of the anchors on the coarse grid, int8 [h, w, latents].\n\n"
             "quality: in hundredths. means, log2_steps: of the hyper-synthesis. y: symbols, int32. Like the\n"
             "methods below, it raises ValueError on arrays that do not fit.",
             nb::sig("def anchor_values(self, quality: int, means: numpy.typing.NDArray[numpy.int8], "
                     "log2_steps: numpy.typing.NDArray[numpy.int8], y: numpy.typing.NDArray[numpy.int32]) -> "
                     "numpy.typing.NDArray[numpy.int8]"))
        .def("synthesis_inputs", &NativeDecoder::synthesis_inputs, "quality"_a, "means"_a.noconvert(),
             "log2_steps"_a.noconvert(), "context"_a.noconvert(), "y"_a.noconvert(), "details"_a.noconvert(),
             "The synthesis' inputs, int8 [h, w, planes] and [h, w, details]. context: the context's means.",
             nb::sig("def synthesis_inputs(self, quality: int, means: numpy.typing.NDArray[numpy.int8], "
                     "log2_steps: numpy.typing.NDArray[numpy.int8], context: numpy.typing.NDArray[numpy.int8], "
                     "y: numpy.typing.NDArray[numpy.int32], details: numpy.typing.NDArray[numpy.int32]) -> "
                     "tuple[numpy.typing.NDArray[numpy.int8], numpy.typing.NDArray[numpy.int8]]"))
        .def("show", &NativeDecoder::show, "quality"_a, "pixels"_a.noconvert(),
             "Pixels of a picture, uint8 [H, W, 3]: the synthesis' output, cut to its size, plus 128 and filtered.",
             nb::sig("def show(self, quality: int, pixels: numpy.typing.NDArray[numpy.int8]) -> "
                     "numpy.typing.NDArray[numpy.uint8]"))
        .def("project", &NativeDecoder::project, "quality"_a, "features"_a.noconvert(), "fine"_a.noconvert(),
             "Of the analysis' outputs: y int32 [h, w, latents] in 2**-8 of the coarse grid, symbols of the details\n"
             "int32 [h, w, details], and both on their grids, int8.",
             nb::sig("def project(self, quality: int, features: numpy.typing.NDArray[numpy.int8], "
                     "fine: numpy.typing.NDArray[numpy.int8]) -> tuple[numpy.typing.NDArray[numpy.int32], "
                     "numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int8], "
                     "numpy.typing.NDArray[numpy.int8]]"))
        .def("quantize_anchors", &NativeDecoder::quantize_anchors, "quality"_a, "z"_a.noconvert(),
             "means"_a.noconvert(), "log2_steps"_a.noconvert(), "y"_a.noconvert(),
             "Makes the anchors in y of `project` symbols, in place; what `anchor_values` says of them.",
             nb::sig("def quantize_anchors(self, quality: int, z: numpy.typing.NDArray[numpy.int8], "
                     "means: numpy.typing.NDArray[numpy.int8], log2_steps: numpy.typing.NDArray[numpy.int8], "
                     "y: numpy.typing.NDArray[numpy.int32]) -> numpy.typing.NDArray[numpy.int8]"))
        .def("quantize_others", &NativeDecoder::quantize_others, "quality"_a, "z"_a.noconvert(),
             "context"_a.noconvert(), "log2_steps"_a.noconvert(), "y"_a.noconvert(), "details"_a.noconvert(),
             "Makes the others symbols, in place, and symbols of details that are not coded 0.",
             nb::sig("def quantize_others(self, quality: int, z: numpy.typing.NDArray[numpy.int8], "
                     "context: numpy.typing.NDArray[numpy.int8], log2_steps: numpy.typing.NDArray[numpy.int8], "
                     "y: numpy.typing.NDArray[numpy.int32], details: numpy.typing.NDArray[numpy.int32]) -> None"))
        .def("hash", &NativeDecoder::hash, "data"_a, "max_pixels"_a = pixels, "max_memory"_a = memory, "threads"_a = 0,
             "SHA-256 of the symbols (SPEC.md, section 7), SHA-256 of the pixels, and the most bytes it took.",
             nb::sig("def hash(self, data: bytes, max_pixels: int = ..., max_memory: int = ..., threads: int = 0) -> "
                     "tuple[bytes, bytes, int]"))
        .def("run", &NativeDecoder::run, "network"_a, "inputs"_a, "tile"_a = 0,
             "Outputs by name of a network of the model, on int8 [H, W, C] inputs.\n\n"
             "tile: cells that are computed at a time in each direction, 0 for all; the outputs are the same.\n"
             "Raises ValueError on inputs that do not fit.",
             nb::sig("def run(self, network: str, inputs: collections.abc.Sequence[numpy.typing.NDArray[numpy.int8]], "
                     "tile: int = 0) -> dict[str, numpy.typing.NDArray[numpy.int8]]"));
    m.def("kernels", &kernel_names, "Names of the kernels that this machine can run, fastest first.");
    m.def("crc32c", &crc32c, "data"_a, "The CRC-32C (Castagnoli) of data.");
}
