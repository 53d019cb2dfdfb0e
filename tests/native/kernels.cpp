// Each set of kernels against the portable one, on random shapes and values, extreme ones among them: checkasm's idea.
// Prints the sets that this machine has; exits with 1 where one differs.
#include "kernels/kernels.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

using namespace pocketlic;

namespace {

std::mt19937 random_bits(1);

int32_t between(int32_t low, int32_t high) {  // both included
    return static_cast<int32_t>(low + static_cast<int64_t>(random_bits() % (int64_t{high} - low + 1)));
}

// Values low .. high: anything, the two ends, or small ones.
template <typename T>
std::vector<T> values(size_t n, int32_t low, int32_t high) {
    const int32_t kind = between(0, 2);
    std::vector<T> made(n);
    for (T& v : made)
        v = static_cast<T>(kind == 0   ? between(low, high)
                           : kind == 1 ? (random_bits() & 1 ? low : high)
                                       : std::clamp(between(-3, 3), low, high));
    return made;
}

template <typename T>
bool same(const char* kernel, const Kernels& set, const T* a, const T* b, size_t n) {
    for (size_t i = 0; i < n; ++i)
        if (a[i] != b[i]) {
            std::printf("%s, %s: element %zu of %zu is %lld, not %lld\n", set.name, kernel, i, n,
                        static_cast<long long>(b[i]), static_cast<long long>(a[i]));
            return false;
        }
    return true;
}

int32_t channels() {
    static constexpr int32_t kShipped[] = {3, 32, 48, 64, 88, 100, 152, 160, 192, 352};
    return random_bits() % 3 == 0 ? between(1, 130) : kShipped[random_bits() % 10];
}

// Even weights whose sums, with a bias, stay within 32 bits whatever the inputs.
struct Layer {
    std::vector<int8_t> weight;
    std::vector<int32_t> bias, shift;
    int32_t zero_in, zero, low;
    Layer(size_t outputs, size_t per_output) : weight(values<int8_t>(outputs * per_output, -63, 63)) {
        for (int8_t& w : weight) w = static_cast<int8_t>(2 * w);
        const int32_t room = INT32_MAX - static_cast<int32_t>(126 * 256 * per_output) - (1 << 16);
        bias = values<int32_t>(outputs, -room, room);
        shift = values<int32_t>(outputs + kBlock, 2, 17);
        zero_in = random_bits() & 1 ? -128 : 0;
        zero = random_bits() & 1 ? -128 : 0;
        low = random_bits() & 1 ? -128 : zero;
    }
};

bool check_pointwise(const Kernels& portable, const Kernels& set) {
    const auto inputs = static_cast<size_t>(channels()), outputs = static_cast<size_t>(channels());
    const auto pixels = static_cast<size_t>(between(1, 130));
    const bool raw = random_bits() % 4 == 0;
    Layer layer(outputs, inputs);
    if (raw) layer.weight = values<int8_t>(layer.weight.size(), -127, 127);
    const auto x = values<int8_t>(pixels * inputs, -128, 127);
    std::vector<int8_t> y[2] = {std::vector<int8_t>(pixels * outputs), std::vector<int8_t>(pixels * outputs)};
    std::vector<int32_t> sums[2] = {std::vector<int32_t>(pixels * outputs), std::vector<int32_t>(pixels * outputs)};
    const Kernels* sets[2] = {&portable, &set};
    for (int i = 0; i < 2; ++i) {
        Memory memory;
        Arena arena(memory);
        Pointwise c;
        c.inputs = static_cast<int32_t>(inputs);
        c.outputs = static_cast<int32_t>(outputs);
        c.shift = raw ? nullptr : layer.shift.data();
        c.zero = layer.zero;
        c.low = layer.low;
        if (!sets[i]->pack(arena, layer.weight.data(), layer.bias.data(), layer.zero_in, c)) return false;
        std::vector<uint8_t> scratch(sets[i]->scratch(c));
        if (raw) sets[i]->accumulate(c, x.data(), pixels, sums[i].data(), scratch.data());
        else sets[i]->pointwise(c, x.data(), pixels, y[i].data(), scratch.data());
    }
    return same("pointwise", set, y[0].data(), y[1].data(), y[0].size()) &&
           same("accumulate", set, sums[0].data(), sums[1].data(), sums[0].size());
}

bool check_depthwise(const Kernels& portable, const Kernels& set) {
    static constexpr int32_t kKernels[] = {1, 3, 5, 5, 5, 7};
    const auto n = static_cast<size_t>(channels());
    const int32_t kernel = kKernels[random_bits() % 6], rows = between(1, 9), half = kernel / 2;
    // A window of a picture that may end on both sides.
    const int32_t x0 = between(-3, 5), first = x0 + between(0, half + 1), end = first + between(1, 70);
    const int32_t x1 = end + between(0, half + 1);
    Layer layer(n, static_cast<size_t>(kernel * kernel));
    std::vector<int16_t> weight(layer.weight.begin(), layer.weight.end());
    std::vector<std::vector<int8_t>> lines;
    std::vector<const int8_t*> given;
    for (int32_t i = 0; i < rows + kernel - 1; ++i) {
        lines.push_back(values<int8_t>(static_cast<size_t>(x1 - x0) * n, -128, 127));
        given.push_back(random_bits() % 5 == 0 ? nullptr : lines.back().data());
    }
    const size_t size = static_cast<size_t>(rows) * static_cast<size_t>(end - first) * n;
    std::vector<int8_t> y[2] = {std::vector<int8_t>(size), std::vector<int8_t>(size)};
    const Kernels* sets[2] = {&portable, &set};
    for (int i = 0; i < 2; ++i) {
        Memory memory;
        Arena arena(memory);
        Depthwise c;
        c.channels = static_cast<int32_t>(n);
        c.kernel = kernel;
        c.weight = weight.data();
        c.bias = layer.bias.data();
        c.shift = layer.shift.data();
        c.zero_in = layer.zero_in;
        c.zero = layer.zero;
        c.low = layer.low;
        if (!sets[i]->pack_depthwise(arena, c)) return false;
        sets[i]->depthwise(c, given.data(), rows, {x0, x1, first, end}, y[i].data());
    }
    return same("depthwise", set, y[0].data(), y[1].data(), size);
}

bool check_rest(const Kernels& portable, const Kernels& set) {
    const auto n = static_cast<size_t>(between(1, 300));
    const auto a = values<int8_t>(n, -128, 127), b = values<int8_t>(n, -128, 127);
    static constexpr int32_t kOffsets[] = {0, -128, 128, 256};
    const int32_t offset = kOffsets[random_bits() % 4], low = random_bits() & 1 ? -128 : 0;
    std::vector<int8_t> sums[2] = {std::vector<int8_t>(n), std::vector<int8_t>(n)};
    portable.add(a.data(), b.data(), offset, low, n, sums[0].data());
    set.add(a.data(), b.data(), offset, low, n, sums[1].data());

    std::vector<int32_t> numbers[4];
    for (auto& v : numbers) v = values<int32_t>(n, -(1 << 28), 1 << 28);
    std::vector<int64_t> base(n);
    for (int64_t& v : base) v = int64_t{between(-(1 << 30), 1 << 30)} * (random_bits() & 1 ? 1 << 8 : 1);
    const Term terms[2] = {{numbers[0].data(), numbers[1].data()}, {numbers[2].data(), numbers[3].data()}};
    std::vector<uint8_t> rows[2] = {std::vector<uint8_t>(n), std::vector<uint8_t>(n)};
    const auto used = static_cast<size_t>(between(1, 2));
    const int32_t last = between(1, 255);
    portable.rows(terms, used, base.data(), n, last, rows[0].data());
    set.rows(terms, used, base.data(), n, last, rows[1].data());
    return same("add", set, sums[0].data(), sums[1].data(), n) && same("rows", set, rows[0].data(), rows[1].data(), n);
}

// What lies between networks, against what SPEC.md says: the portable set leaves that to its callers.
bool check_between(const Kernels& set) {
    if (set.latents == nullptr) return true;
    constexpr int32_t kLast = 14 * 256;
    std::vector<int32_t> table(kLast + 1);
    for (int32_t i = 0; i <= kLast; ++i) table[static_cast<size_t>(i)] = std::max(1, (1 << 14) >> (14 - i / 256));
    const auto n = static_cast<size_t>(16 * between(1, 8));
    const auto symbol = values<int16_t>(n, -32767, 32767), value = values<int16_t>(n, -32768, 32767);
    const auto mean = values<int8_t>(n, -128, 127), log2_step = values<int8_t>(n, -128, 127);
    const auto base = values<int32_t>(n, -(1 << 20), 1 << 20), acc = values<int32_t>(n, -(1 << 28), 1 << 28);
    const auto bits = values<uint8_t>(n, 0, 2), index = values<uint8_t>(n, 0, 255);
    const auto bias = values<int32_t>(n, -(1 << 29), 1 << 29), shift = values<int32_t>(n, -31, 16);
    const auto skip = static_cast<uint8_t>(between(0, 63));
    std::vector<int32_t> down(n), up(n), steps(n);
    std::vector<int8_t> y(n), d(n), coarse(n), want_y(n), want_d(n), want_coarse(n);
    std::vector<int16_t> made(n), quantized(value), details(value), want(n), want_quantized(n), want_details(n);
    const auto byte = [](int64_t v) { return static_cast<int8_t>(std::clamp<int64_t>(v, -128, 127)); };
    const auto divide = [](int64_t v, int64_t step) {  // v is in 2^-8 of the step's unit; halves go up
        const int64_t a = 2 * v + (step << 8), b = step << 9;
        return static_cast<int16_t>(a >= 0 ? a / b : -((-a + b - 1) / b));
    };
    for (size_t c = 0; c < n; ++c) {
        down[c] = std::max(-shift[c], 0);
        up[c] = std::max(shift[c], 0);
        steps[c] = table[static_cast<size_t>(std::clamp(base[c] + 8 * std::clamp<int32_t>(log2_step[c], -64, 64), 0, kLast))];
        want_y[c] = byte((int64_t{mean[c]} * (1 << bits[c]) + int64_t{symbol[c]} * steps[c] + (1 << bits[c]) / 2) >> bits[c]);
        want_d[c] = byte(int64_t{symbol[c]} * steps[c]);
        const int64_t scaled = ((int64_t{acc[c]} + bias[c]) >> down[c]) * (int64_t{1} << up[c]);
        want[c] = static_cast<int16_t>(std::clamp<int64_t>(scaled, INT16_MIN, INT16_MAX));
        want_coarse[c] = byte((scaled + 128) >> 8);
        want_quantized[c] = index[c] < skip ? int16_t{0} : divide(value[c] - 256 * mean[c], steps[c]);
        want_details[c] = divide(value[c], steps[c]);
    }
    const Steps of = {base.data(), table.data(), kLast};
    set.latents(symbol.data(), mean.data(), log2_step.data(), of, bits.data(), n, y.data());
    set.details(symbol.data(), steps.data(), n, d.data());
    set.project(acc.data(), {bias.data(), down.data(), up.data()}, n, made.data(), coarse.data());
    set.quantize(quantized.data(), mean.data(), log2_step.data(), of, index.data(), skip, n);
    set.quantize(details.data(), nullptr, nullptr, {steps.data(), nullptr, 0}, nullptr, 0, n);
    return same("latents", set, want_y.data(), y.data(), n) && same("details", set, want_d.data(), d.data(), n) &&
           same("project", set, want.data(), made.data(), n) && same("coarse", set, want_coarse.data(), coarse.data(), n) &&
           same("quantize", set, want_quantized.data(), quantized.data(), n) &&
           same("quantize details", set, want_details.data(), details.data(), n);
}

// Rows of pixels through all of the post-filter.
bool check_filter(const Kernels& portable, const Kernels& set) {
    const int32_t cells = between(1, kFilterCells), around = cells + kFilterReach;
    const auto filters = values<int16_t>(size_t{kFilterClasses} * kFilterStride, -128, 127);
    static LumaRow luma[2][12];
    static TensorRow tensors[2][5];
    static ChangeRow changes[2][2];
    std::vector<std::vector<int8_t>> rgb;
    for (int i = 0; i < 12; ++i) rgb.push_back(values<int8_t>(6 * static_cast<size_t>(around) + 384, -128, 127));
    const auto n = static_cast<size_t>(between(1, 2 * cells));
    std::vector<uint8_t> shown[2] = {std::vector<uint8_t>(3 * n), std::vector<uint8_t>(3 * n)};
    const Kernels* sets[2] = {&portable, &set};
    for (int i = 0; i < 2; ++i) {
        for (size_t row = 0; row < 12; ++row) sets[i]->luma(rgb[row].data(), around, luma[i][row]);
        for (size_t row = 0; row < 5; ++row) {
            // The portable one's rows, so that a fault shows where it is.
            const LumaRow* const rows[4] = {luma[0] + 2 * row, luma[0] + 2 * row + 1, luma[0] + 2 * row + 2,
                                            luma[0] + std::min<size_t>(2 * row + 3, 11)};
            sets[i]->tensors(rows, cells, tensors[i][row]);
        }
        const TensorRow* given[5];
        const LumaRow* rows[6];
        for (size_t k = 0; k < 5; ++k) given[k] = tensors[0] + k;
        for (size_t k = 0; k < 6; ++k) rows[k] = luma[0] + 4 + k;
        sets[i]->filter(filters.data(), given, rows, cells, changes[i]);
        sets[i]->show(rgb[6].data(), changes[0][0], n, shown[i].data());
    }
    bool good = same("show", set, shown[0].data(), shown[1].data(), 3 * n);
    for (size_t row = 0; row < 12; ++row)
        for (size_t odd = 0; odd < 2; ++odd)
            good = good && same("luma", set, luma[0][row].columns[odd], luma[1][row].columns[odd],
                                static_cast<size_t>(around));
    for (size_t row = 0; row < 5; ++row)
        for (size_t t = 0; t < 3; ++t)
            good = good && same("tensors", set, tensors[0][row].products[t], tensors[1][row].products[t],
                                static_cast<size_t>(cells));
    for (size_t row = 0; row < 2; ++row)
        good = good &&
               same("filter, plus", set, changes[0][row].plus, changes[1][row].plus, 2 * static_cast<size_t>(cells)) &&
               same("filter, minus", set, changes[0][row].minus, changes[1][row].minus, 2 * static_cast<size_t>(cells));
    return good;
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
    const Kernels* portable = nullptr;
    for (size_t i = 0; kernels(i) != nullptr; ++i) portable = kernels(i);
    bool good = true;
    for (size_t i = 0; kernels(i) != portable; ++i) {
        const Kernels& set = *kernels(i);
        for (int round = 0; good && round < rounds; ++round)
            good = check_pointwise(*portable, set) && check_depthwise(*portable, set) && check_rest(*portable, set) &&
                   check_filter(*portable, set) && check_between(set);
        std::printf("%s\n", set.name);
    }
    return good ? 0 : 1;
}
