// The Python module pocketlic.codec._native. All the work is in the headers; here are only the conversions.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdlib>
#include <limits>
#include <memory>

#include "crc32c.h"
#include "rans.h"

namespace nb = nanobind;
namespace rans = pocketlic::rans;
using namespace nb::literals;

template <typename T>
using Array = nb::ndarray<const T, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Symbols = nb::ndarray<int32_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
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
        if (n > (std::numeric_limits<size_t>::max() - rans::kStateBytes) / 6) throw std::bad_alloc();
        const size_t capacity = rans::max_encoded_bytes(n);
        // Written from its end: of the worst case, only the pages that are used become real memory.
        Buffer<uint8_t> buffer(static_cast<uint8_t*>(std::malloc(capacity)), std::free);
        if (!buffer) throw std::bad_alloc();
        uint8_t *end = buffer.get() + capacity, *begin = end;
        rans::Status status;
        {
            nb::gil_scoped_release release;
            status = rans::encode(tables_, symbols.data(), rows.data(), n, end, &begin);
        }
        check(status);
        return nb::bytes(begin, static_cast<size_t>(end - begin));
    }

    Symbols decode(nb::bytes data, Array<uint8_t> rows) const {
        const size_t n = rows.size();
        Buffer<int32_t> out(static_cast<int32_t*>(std::calloc(n > 0 ? n : 1, sizeof(int32_t))), std::free);
        if (!out) throw std::bad_alloc();
        rans::Status status;
        {
            nb::gil_scoped_release release;
            status = rans::decode(tables_, static_cast<const uint8_t*>(data.data()), data.size(), rows.data(), n,
                                  out.get());
        }
        check(status);
        int32_t* p = out.get();
        nb::capsule owner(p, [](void* q) noexcept { std::free(q); });
        out.release();
        return Symbols(p, {n}, owner);
    }

private:
    pocketlic::Memory memory_;  // must outlive the tables
    rans::TableSet tables_;
};

static uint32_t crc32c(nb::bytes data) {
    const auto* p = static_cast<const uint8_t*>(data.data());
    const size_t size = data.size();
    nb::gil_scoped_release release;
    return pocketlic::crc32c(p, size);
}

NB_MODULE(_native, m) {
    m.doc() = "The native core: the entropy coder (rans.h describes the bitstream) and CRC-32C.";
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
        .def("decode", &SymbolCoder::decode, "data"_a, "rows"_a.noconvert(),
             "The symbols, int32[n], that encode(symbols, rows) made data from; rows is uint8[n].\n\n"
             "Raises ValueError if data is not exactly one such stream, or on a row outside the table set.");
    m.def("crc32c", &crc32c, "data"_a, "The CRC-32C (Castagnoli) of data.");
}
