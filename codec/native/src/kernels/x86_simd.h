// Kernels for one set of x86-64's vector instructions. x86.cpp includes this once for each set, in a namespace of its
// own, with
//
//     TARGET             the attribute of functions that may use the instructions
//     V(name)            the intrinsic of that name for the set's vectors
//     Vector, kBytes     such a vector, and its size
//     kTileVectors, kTilePixels   a tile of 1x1 convolutions: as many accumulators as registers hold
//     dot                adds products of four unsigned bytes and four signed ones to each sum; where kHalves is true,
//                        of weights' halves: all weights of layers are even
//     dot_any            the same, of any weights
//     load, store, flip, and some more
//
// Activations become unsigned: x + 128. Of n vectors of sums, "packs" leaves lane by lane the first four of each, then
// the second four; weights are laid out so that outputs are in order then.

constexpr size_t kInts = kBytes / 4, kLanes = kBytes / 16;

// The output, of a block of `vectors` vectors, whose sum is element e of vector v.
inline size_t output_of(size_t vectors, size_t v, size_t e) { return 4 * (vectors * (e / 4) + v) + e % 4; }

// ---------------------------------------------------------------------------------------------- 1x1 convolutions

constexpr size_t kTileOutputs = kTileVectors * kInts;

struct Packed {  // of a Pointwise' weight
    size_t groups;          // of four inputs
    const int8_t* weight;   // [block][group][vector][output][4 inputs]
    const int32_t* bias;    // [block][vector][output], with what rounds
    const int32_t* shift;   // as bias
};

bool pack_pointwise(Arena& arena, const int8_t* weight, const int32_t* bias, int32_t zero_in, Pointwise& to) {
    const size_t inputs = count(to.inputs), outputs = count(to.outputs), groups = round_up(inputs, 4) / 4;
    const size_t padded = round_up(outputs, kInts);
    const bool raw = to.shift == nullptr, to_halve = kHalves && !raw;  // accumulators are stored as they are
    auto* packed = arena.make<Packed>(1);
    auto* w = arena.make<int8_t>(uint64_t{padded} * groups * 4);
    auto* b = arena.make<int32_t>(padded);
    auto* s = arena.make<int32_t>(padded);
    if (packed == nullptr || w == nullptr || b == nullptr || s == nullptr) return false;
    *packed = {groups, w, b, s};
    for (size_t first = 0; first < padded; first += kTileOutputs) {
        const size_t vectors = std::min(kTileVectors, (padded - first) / kInts);
        for (size_t v = 0; v < vectors; ++v) {
            for (size_t e = 0; e < kInts; ++e) {
                const size_t o = first + (raw ? v * kInts + e : output_of(vectors, v, e));
                if (o >= outputs) continue;
                const size_t at = first + v * kInts + e;
                int64_t sum = 0;
                for (size_t i = 0; i < inputs; ++i) {
                    const int8_t value = weight[o * inputs + i];
                    sum += value;
                    w[first * groups * 4 + ((i / 4 * vectors + v) * kInts + e) * 4 + i % 4] =
                        static_cast<int8_t>(to_halve ? value / 2 : value);
                }
                int64_t start = bias[o] - (zero_in + 128) * sum;
                if (!raw) start += int64_t{1} << (to.shift[o] - 1);
                // Modulo 2^32: the accumulator, which wraps as well, ends where it should.
                b[at] = static_cast<int32_t>(static_cast<uint32_t>(to_halve ? start >> 1 : start));
                if (!raw) s[at] = to.shift[o] - (to_halve ? 1 : 0);
            }
        }
    }
    to.weight = packed;
    return true;
}

constexpr size_t kChunk = 8 * kTilePixels;  // pixels whose inputs are made unsigned at a time

size_t scratch(const Pointwise& c) { return kChunk * round_up(count(c.inputs), 4) + kBytes; }

template <bool kRaw, size_t kVectors, size_t kPixels>
TARGET INLINE void multiply(const Packed& c, size_t first, const uint8_t* x, Vector (&acc)[kPixels][kVectors]) {
    UNROLL for (size_t v = 0; v < kVectors; ++v) {
        const Vector start = load(c.bias + first + v * kInts);
        UNROLL for (size_t p = 0; p < kPixels; ++p) acc[p][v] = start;
    }
    const size_t stride = c.groups * 4;
    const int8_t* w = c.weight + first * stride;
    for (size_t g = 0; g < c.groups; ++g, x += 4, w += kVectors * kBytes) {
        Vector weights[kVectors];
        UNROLL for (size_t v = 0; v < kVectors; ++v) weights[v] = load(w + v * kBytes);
        UNROLL for (size_t p = 0; p < kPixels; ++p) {
            const Vector value = V(set1_epi32)(load32(x + p * stride));
            UNROLL for (size_t v = 0; v < kVectors; ++v) acc[p][v] = kRaw ? dot_any(acc[p][v], value, weights[v]) : dot(acc[p][v], value, weights[v]);
        }
    }
}

template <size_t kVectors, size_t kPixels>
TARGET void tile(const Pointwise& c, size_t first, const uint8_t* x, int8_t* y) {
    const auto& packed = *static_cast<const Packed*>(c.weight);
    Vector acc[kPixels][kVectors];
    multiply<false>(packed, first, x, acc);
    UNROLL for (size_t v = 0; v < kVectors; ++v) {
        const Vector shift = load(packed.shift + first + v * kInts);
        UNROLL for (size_t p = 0; p < kPixels; ++p) acc[p][v] = V(srav_epi32)(acc[p][v], shift);
    }
    const size_t outputs = count(c.outputs), n = std::min(kVectors * kInts, outputs - first);
    const Vector zero = V(set1_epi16)(static_cast<int16_t>(c.zero)), low = V(set1_epi8)(static_cast<int8_t>(c.low));
    UNROLL for (size_t p = 0; p < kPixels; ++p) {
        constexpr size_t kSecond = kVectors > 1 ? 1 : 0, kThird = kVectors > 2 ? 2 : 0, kLast = kVectors - 1;
        const Vector words = V(adds_epi16)(V(packs_epi32)(acc[p][0], acc[p][kSecond]), zero);
        const Vector more =
            kVectors > 2 ? V(adds_epi16)(V(packs_epi32)(acc[p][kThird], acc[p][kLast]), zero) : words;
        const Vector bytes = V(max_epi8)(V(packs_epi16)(words, more), low);
        store_bytes(y + p * outputs + first, order_dwords<kVectors>(bytes), n);
    }
}

template <size_t kVectors, size_t kPixels>
TARGET void tile(const Pointwise& c, size_t first, const uint8_t* x, int32_t* y) {
    Vector acc[kPixels][kVectors];
    multiply<true>(*static_cast<const Packed*>(c.weight), first, x, acc);
    const size_t outputs = count(c.outputs);
    UNROLL for (size_t p = 0; p < kPixels; ++p)
        UNROLL for (size_t v = 0; v < kVectors; ++v) {
            const size_t o = first + v * kInts;
            store_bytes(y + p * outputs + o, acc[p][v], std::min(kBytes, (outputs - o) * 4));
        }
}

// Pixels that fill no tile are computed one by one or, where there are enough, with some before them once more.
template <size_t kVectors, size_t kPixels, typename T>
TARGET void tiles(const Pointwise& c, size_t first, const uint8_t* x, size_t n, T* y) {
    const size_t stride = round_up(count(c.inputs), 4), outputs = count(c.outputs);
    size_t p = 0;
    for (; p + kPixels <= n; p += kPixels) tile<kVectors, kPixels>(c, first, x + p * stride, y + p * outputs);
    if (p < n && n >= kPixels) {
        p = n - kPixels;
        tile<kVectors, kPixels>(c, first, x + p * stride, y + p * outputs);
        return;
    }
    for (; p < n; ++p) tile<kVectors, 1>(c, first, x + p * stride, y + p * outputs);
}

template <typename T>
TARGET void run(const Pointwise& c, const int8_t* x, size_t pixels, T* y, void* room) {
    const size_t inputs = count(c.inputs), padded = round_up(inputs, 4), outputs = count(c.outputs);
    auto* shifted = static_cast<uint8_t*>(room);
    for (size_t n = 0; pixels > 0; pixels -= n, x += n * inputs, y += n * outputs) {
        n = std::min(kChunk, pixels);
        if (inputs == padded) {
            size_t i = 0;
            for (; i + kBytes <= n * inputs; i += kBytes) store(shifted + i, flip(load(x + i)));
            for (; i < n * inputs; ++i) shifted[i] = static_cast<uint8_t>(x[i] + 128);
        } else {
            for (size_t p = 0; p < n; ++p)
                for (size_t i = 0; i < padded; ++i)
                    shifted[p * padded + i] = static_cast<uint8_t>(i < inputs ? x[p * inputs + i] + 128 : 0);
        }
        size_t first = 0;
        for (; first + kTileOutputs - kInts < outputs; first += kTileOutputs)
            tiles<kTileVectors, kTilePixels>(c, first, shifted, n, y);
        const size_t left = first < outputs ? round_up(outputs - first, kInts) / kInts : 0;
        if (kTileVectors > 3 && left == 3) tiles<3, kTileVectors * kTilePixels / 3>(c, first, shifted, n, y);
        if (kTileVectors > 2 && left == 2) tiles<2, kTileVectors * kTilePixels / 2>(c, first, shifted, n, y);
        if (kTileVectors > 1 && left == 1) tiles<1, kTileVectors * kTilePixels / 2>(c, first, shifted, n, y);
    }
}

void pointwise(const Pointwise& c, const int8_t* x, size_t pixels, int8_t* y, void* room) {
    run(c, x, pixels, y, room);
}

void accumulate(const Pointwise& c, const int8_t* x, size_t pixels, int32_t* y, void* room) {
    run(c, x, pixels, y, room);
}

// --------------------------------------------------------------------------------------- depthwise convolutions
//
// Four rows of inputs are interleaved, so that dot() takes four taps of a column; with two such quads, it makes four
// rows of outputs. Kernels of 1x1 and 3x3 are ones of 5x5 with zeros around. Channels are worked on in blocks, each of
// which is four planes of [column][lane][4 channels][4 rows]; the last block may overlap the one before.

constexpr size_t kDepthwiseChannels = kBytes / 2;
constexpr size_t kPixelBytes = kBytes / 2;  // of one column in a plane
constexpr int32_t kStrip = 64;              // columns of outputs whose planes are made at a time

struct Quads {
    const int8_t* weight;  // [block][plane][dx][row of outputs][first or second quad][kBytes]
    const int32_t *bias, *shift;  // [block][plane][kInts]
};

inline size_t channel_of(const Depthwise& c, size_t block) {
    return std::min(block * kDepthwiseChannels, count(c.channels) - kDepthwiseChannels);
}

bool pack_depthwise(Arena& arena, Depthwise& c) {
    const size_t channels = count(c.channels);
    if (c.kernel > 5 || channels < kDepthwiseChannels) return true;
    const size_t blocks = round_up(channels, kDepthwiseChannels) / kDepthwiseChannels;
    auto* quads = arena.make<Quads>(1);
    auto* w = arena.make<int8_t>(uint64_t{blocks} * 4 * 40 * kBytes);
    auto* b = arena.make<int32_t>(blocks * 4 * kInts);
    auto* s = arena.make<int32_t>(blocks * 4 * kInts);
    if (quads == nullptr || w == nullptr || b == nullptr || s == nullptr) return false;
    *quads = {w, b, s};
    const int32_t edge = (5 - c.kernel) / 2;
    for (size_t at = 0; at < blocks * 4 * kInts; ++at) {
        const size_t plane = at / kInts % 4, e = at % kInts, lanes = kPixelBytes / 16;
        const size_t channel = channel_of(c, at / kInts / 4) + e / 4 % lanes * 16 + plane * 4 + e % 4;
        int64_t sum = 0;
        for (int32_t dx = 0; dx < c.kernel; ++dx) {
            for (int32_t dy = 0; dy < c.kernel; ++dy) {
                const int16_t value = c.weight[count(dy * c.kernel + dx) * channels + channel];
                sum += value;
                for (int32_t row = 0; row < 4; ++row) {
                    const int32_t input = row + dy + edge;  // of the eight that the quads hold
                    const size_t to = (count(dx + edge) * 4 + count(row)) * 2 + count(input / 4);
                    w[(at / kInts * 40 + to) * kBytes + e * 4 + count(input % 4)] =
                        static_cast<int8_t>(kHalves ? value / 2 : value);
                }
            }
        }
        const int64_t start = c.bias[channel] - (c.zero_in + 128) * sum + (int64_t{1} << (c.shift[channel] - 1));
        b[at] = static_cast<int32_t>(static_cast<uint32_t>(kHalves ? start >> 1 : start));
        s[at] = c.shift[channel] - (kHalves ? 1 : 0);
    }
    c.packed = quads;
    return true;
}

using Planes = uint8_t[4][static_cast<size_t>(kStrip + 8) * kPixelBytes];

// Columns first .. first + n - 1 of four rows; what is null or outside 0 .. width - 1 is `pad`.
TARGET void interleave(const int8_t* const* rows, size_t channels, int32_t first, int32_t n, int32_t width, int8_t pad,
                       Planes& planes) {
    const Vector pads = V(set1_epi8)(pad);
    for (int32_t x = 0; x < n; x += 2) {
        const int32_t column = first + x;
        const bool left = column >= 0 && column < width, right = column + 1 >= 0 && column + 1 < width;
        Vector row[4];
        UNROLL for (size_t i = 0; i < 4; ++i) {
            row[i] = pads;
            if (rows[i] != nullptr) {
                const int8_t* at = rows[i] + (left ? static_cast<size_t>(column) * channels : 0);
                row[i] = join(left ? load_half(at) : low_half(pads),
                              right ? load_half(left ? at + channels : at) : low_half(pads));
            }
            row[i] = flip(row[i]);
        }
        const Vector low01 = V(unpacklo_epi8)(row[0], row[1]), high01 = V(unpackhi_epi8)(row[0], row[1]);
        const Vector low23 = V(unpacklo_epi8)(row[2], row[3]), high23 = V(unpackhi_epi8)(row[2], row[3]);
        const size_t to = static_cast<size_t>(x) * kPixelBytes;
        store(planes[0] + to, V(unpacklo_epi16)(low01, low23));
        store(planes[1] + to, V(unpackhi_epi16)(low01, low23));
        store(planes[2] + to, V(unpacklo_epi16)(high01, high23));
        store(planes[3] + to, V(unpackhi_epi16)(high01, high23));
    }
}

// Four columns of four rows, of which `rows` rows and `columns` columns are stored.
TARGET void depthwise_tile(const Depthwise& c, size_t block, const Planes& first, const Planes& second, size_t x,
                           size_t rows, size_t columns, int8_t* y, size_t stride) {
    const auto& quads = *static_cast<const Quads*>(c.packed);
    const Vector zero = V(set1_epi16)(static_cast<int16_t>(c.zero)), lowest = V(set1_epi8)(static_cast<int8_t>(c.low));
    Vector words[2][2][4];  // [half of the planes][pair of columns][row]
    UNROLL for (size_t half = 0; half < 2; ++half) {
        Vector acc[2][2][4];  // [plane][pair][row]
        UNROLL for (size_t k = 0; k < 2; ++k) {
            const size_t plane = 2 * half + k;
            const uint8_t *a = first[plane] + x * kPixelBytes, *b = second[plane] + x * kPixelBytes;
            const int8_t* w = quads.weight + (block * 4 + plane) * 40 * kBytes;
            const Vector start = load(quads.bias + (block * 4 + plane) * kInts);
            UNROLL for (size_t row = 0; row < 4; ++row) acc[k][0][row] = acc[k][1][row] = start;
            UNROLL for (size_t dx = 0; dx < 5; ++dx, a += kPixelBytes, b += kPixelBytes) {
                const Vector a0 = load(a), a1 = load(a + kBytes), b0 = load(b), b1 = load(b + kBytes);
                UNROLL for (size_t row = 0; row < 4; ++row, w += 2 * kBytes) {
                    const Vector wa = load(w), wb = load(w + kBytes);
                    acc[k][0][row] = dot(dot(acc[k][0][row], a0, wa), b0, wb);
                    acc[k][1][row] = dot(dot(acc[k][1][row], a1, wa), b1, wb);
                }
            }
            const Vector shift = load(quads.shift + (block * 4 + plane) * kInts);
            UNROLL for (size_t pair = 0; pair < 2; ++pair)
                UNROLL for (size_t row = 0; row < 4; ++row)
                    acc[k][pair][row] = V(srav_epi32)(acc[k][pair][row], shift);
        }
        UNROLL for (size_t pair = 0; pair < 2; ++pair)
            UNROLL for (size_t row = 0; row < 4; ++row)
                words[half][pair][row] = V(adds_epi16)(V(packs_epi32)(acc[0][pair][row], acc[1][pair][row]), zero);
    }
    const size_t channels = count(c.channels);
    UNROLL for (size_t row = 0; row < 4; ++row) {
        if (row >= rows) break;
        UNROLL for (size_t pair = 0; pair < 2; ++pair) {
            const Vector out = V(max_epi8)(V(packs_epi16)(words[0][pair][row], words[1][pair][row]), lowest);
            int8_t* to = y + row * stride + 2 * pair * channels;
            if (2 * pair < columns) store_half(to, low_half(out));
            if (2 * pair + 1 < columns) store_half(to + channels, high_half(out));
        }
    }
}

TARGET void depthwise(const Depthwise& c, const int8_t* const* rows, int32_t n, const Span& span, int8_t* y) {
    if (c.packed == nullptr) {
        depthwise_portable(c, rows, n, span, y);
        return;
    }
    const size_t channels = count(c.channels), stride = count(span.end - span.first) * channels;
    const size_t blocks = round_up(channels, kDepthwiseChannels) / kDepthwiseChannels;
    alignas(64) Planes quads[2];
    for (int32_t from = span.first; from < span.end; from += kStrip) {
        const int32_t columns = std::min(kStrip, span.end - from);
        for (size_t block = 0; block < blocks; ++block) {
            const size_t channel = channel_of(c, block);
            const auto fill = [&](int32_t quad, Planes& planes) TARGET {
                const int8_t* four[4];
                for (int32_t i = 0; i < 4; ++i) {
                    const int32_t row = 4 * quad + i - 2 + c.kernel / 2;
                    const bool given = row >= 0 && row < n + c.kernel - 1 && rows[row] != nullptr;
                    four[i] = given ? rows[row] + channel : nullptr;
                }
                interleave(four, channels, from - 2 - span.x0, static_cast<int32_t>(round_up(count(columns), 4)) + 4, span.x1 - span.x0,
                           static_cast<int8_t>(c.zero_in), planes);
            };
            fill(0, quads[0]);
            for (int32_t row = 0; row < n; row += 4) {
                const Planes &above = quads[row / 4 % 2], &below = quads[1 - row / 4 % 2];
                fill(row / 4 + 1, quads[1 - row / 4 % 2]);
                for (int32_t x = 0; x < columns; x += 4)
                    depthwise_tile(c, block, above, below, count(x), count(std::min(n - row, 4)),
                                   count(std::min(columns - x, 4)),
                                   y + count(row) * stride + count(from - span.first + x) * channels + channel, stride);
            }
        }
    }
}

// ------------------------------------------------------------------------------------- what lies between networks

TARGET INLINE Vector ints(int32_t v) { return V(set1_epi32)(v); }
TARGET INLINE Vector bounded(Vector v, int32_t low, int32_t high) {
    return V(max_epi32)(V(min_epi32)(v, ints(high)), ints(low));
}

TARGET INLINE Vector steps_of(const int8_t* log2_step, const Steps& steps, size_t c) {
    const Vector finer = V(slli_epi32)(bounded(widen8(log2_step + c), -64, 64), 3);
    return gather(steps.table, bounded(V(add_epi32)(load(steps.base + c), finer), 0, steps.last));
}

TARGET void latents(const int16_t* symbol, const int8_t* mean, const int8_t* log2_step, const Steps& steps,
                    const uint8_t* bits, size_t n, int8_t* y) {
    for (size_t c = 0; c < n; c += kInts) {
        const Vector s = widen16(symbol + c), m = widen8(mean + c);
        if (all_zero(s)) {
            store8(y + c, m);
            continue;
        }
        const Vector b = widen8(reinterpret_cast<const int8_t*>(bits + c));
        const Vector half = V(srli_epi32)(V(sllv_epi32)(ints(1), b), 1);
        const Vector value = V(add_epi32)(V(sllv_epi32)(m, b), V(mullo_epi32)(s, steps_of(log2_step, steps, c)));
        store8(y + c, V(srav_epi32)(V(add_epi32)(value, half), b));
    }
}

TARGET void details(const int16_t* symbol, const int32_t* step, size_t n, int8_t* y) {
    for (size_t c = 0; c < n; c += kInts) store8(y + c, V(mullo_epi32)(widen16(symbol + c), load(step + c)));
}

TARGET void project(const int32_t* acc, const Scaling& scaling, size_t n, int16_t* y, int8_t* coarse) {
    for (size_t c = 0; c < n; c += kInts) {
        const Vector sum = V(srav_epi32)(V(add_epi32)(load(acc + c), load(scaling.bias + c)), load(scaling.down + c));
        // What does not fit 16 bits before it is scaled up does not fit them then.
        const Vector v = V(sllv_epi32)(bounded(sum, INT16_MIN, INT16_MAX), load(scaling.up + c));
        store16(y + c, v);
        store8(coarse + c, V(srai_epi32)(V(add_epi32)(v, ints(128)), 8));
    }
}

// Numerators and denominators are below 2^24 and exact as floats; a quotient that is less than a whole number is less
// by more than rounding takes it up.
TARGET void quantize(int16_t* value, const int8_t* mean, const int8_t* log2_step, const Steps& steps,
                     const uint8_t* index, uint8_t skip, size_t n) {
    for (size_t c = 0; c < n; c += kInts) {
        Vector distance = widen16(value + c), step, kept = ints(-1);
        if (index == nullptr) {
            step = load(steps.base + c);
        } else {
            const Vector table = V_BIT(and)(widen8(reinterpret_cast<const int8_t*>(index + c)), ints(255));
            kept = greater(table, ints(skip - 1));
            step = steps_of(log2_step, steps, c);
            distance = V(sub_epi32)(distance, V(slli_epi32)(widen8(mean + c), 8));
        }
        const Vector n2 = V(add_epi32)(V(slli_epi32)(distance, 1), V(slli_epi32)(step, 8));
        store16(value + c, V_BIT(and)(kept, floor_quotient(n2, V(slli_epi32)(step, 9))));
    }
}

// ---------------------------------------------------------------------------------------------- the post-filter

constexpr size_t kWords = kBytes / 2;

// 2 * kWords pixels at a time. In each lane, packing puts the second vector's pixels behind the first one's.
TARGET void luma(const int8_t* rgb, int32_t cells, LumaRow& y) {
    const Vector start = V(set1_epi32)(128 * 256 + 32), weights = V(set1_epi32)(54 | 183 << 8 | 19 << 16);
    const Vector even = V(set1_epi32)(0xFFFF);
    for (size_t k = 0; k < count(cells); k += kWords, rgb += 6 * kWords) {
        Vector words[2];
        UNROLL for (size_t half = 0; half < 2; ++half) {
            Vector four[2];
            UNROLL for (size_t i = 0; i < 2; ++i)
                four[i] = V(srli_epi32)(dot(start, weights, pixels4(rgb + 24 * half + 12 * i, 48)), 6);
            words[half] = V(packs_epi32)(four[0], four[1]);
        }
        store(y.columns[0] + k, V(packs_epi32)(V_BIT(and)(words[0], even), V_BIT(and)(words[1], even)));
        store(y.columns[1] + k, V(packs_epi32)(V(srli_epi32)(words[0], 16), V(srli_epi32)(words[1], 16)));
    }
}

TARGET INLINE Vector smooth(Vector a, Vector b, Vector c, Vector d, Vector e) {
    const Vector twice = V(add_epi32)(V(add_epi32)(b, d), c);
    return V(add_epi32)(V(add_epi32)(V(add_epi32)(a, e), c), V(add_epi32)(twice, twice));
}

TARGET void tensors(const LumaRow* const* rows, int32_t cells, TensorRow& y) {
    const auto &above = rows[0]->columns, &upper = rows[1]->columns, &lower = rows[2]->columns,
               &below = rows[3]->columns;
    alignas(64) int32_t products[3][kFilterCells + 64];
    for (size_t k = 0; k < count(cells) + 4; k += kWords) {
        const size_t m = k + 1;
        const Vector u0 = load(upper[0] + m), u1 = load(upper[1] + m), l0 = load(lower[0] + m), l1 = load(lower[1] + m);
        const Vector across[4] = {
            V(sub_epi16)(u1, load(upper[1] + m - 1)), V(sub_epi16)(load(upper[0] + m + 1), u0),
            V(sub_epi16)(l1, load(lower[1] + m - 1)), V(sub_epi16)(load(lower[0] + m + 1), l0)};
        const Vector down[4] = {V(sub_epi16)(l0, load(above[0] + m)), V(sub_epi16)(l1, load(above[1] + m)),
                                V(sub_epi16)(load(below[0] + m), u0), V(sub_epi16)(load(below[1] + m), u1)};
        Vector sums[3][2];
        UNROLL for (size_t h = 0; h < 2; ++h) {
            const Vector a = h == 0 ? V(unpacklo_epi16)(across[0], across[1]) : V(unpackhi_epi16)(across[0], across[1]);
            const Vector b = h == 0 ? V(unpacklo_epi16)(across[2], across[3]) : V(unpackhi_epi16)(across[2], across[3]);
            const Vector c = h == 0 ? V(unpacklo_epi16)(down[0], down[1]) : V(unpackhi_epi16)(down[0], down[1]);
            const Vector d = h == 0 ? V(unpacklo_epi16)(down[2], down[3]) : V(unpackhi_epi16)(down[2], down[3]);
            sums[0][h] = V(add_epi32)(V(madd_epi16)(a, a), V(madd_epi16)(b, b));
            sums[1][h] = V(add_epi32)(V(madd_epi16)(a, c), V(madd_epi16)(b, d));
            sums[2][h] = V(add_epi32)(V(madd_epi16)(c, c), V(madd_epi16)(d, d));
        }
        UNROLL for (size_t t = 0; t < 3; ++t) {
            store(products[t] + k, in_order<0>(sums[t][0], sums[t][1]));
            store(products[t] + k + kInts, in_order<1>(sums[t][0], sums[t][1]));
        }
    }
    for (size_t t = 0; t < 3; ++t) {
        const int32_t* p = products[t];
        for (size_t k = 0; k < count(cells); k += kInts, p += kInts)
            store(y.products[t] + k, smooth(load(p), load(p + 1), load(p + 2), load(p + 3), load(p + 4)));
    }
}

// The offsets of the weights of kInts cells' classes.
TARGET INLINE Vector weights_of(const Vector* sums) {
    const Vector zero = ints(0);
    const Vector energy = V(srai_epi32)(V(add_epi32)(sums[0], sums[2]), 8);
    const Vector u = V(sub_epi32)(sums[0], sums[2]), v = V(add_epi32)(sums[1], sums[1]);
    const Vector x = V(srai_epi32)(V(abs_epi32)(u), 8), y = V(srai_epi32)(V(abs_epi32)(v), 8);
    const Vector more = V(max_epi32)(x, y), less = V(min_epi32)(x, y);
    const Vector length =
        V(max_epi32)(more, V(srai_epi32)(V(mullo_epi32)(V(add_epi32)(x, y), ints(181)), 8));
    // Comparisons give -1 where they hold.
    Vector d = V(sub_epi32)(zero, greater(V(slli_epi32)(less, 8), V(mullo_epi32)(more, ints(106))));
    d = either(greater(y, x), V(sub_epi32)(ints(3), d), d);
    d = either(greater(zero, u), V(sub_epi32)(ints(7), d), d);
    d = either(greater(zero, v), V(sub_epi32)(ints(15), d), d);
    Vector steps = zero;
    for (const int32_t bound : {182, 729, 2916, 11664, 46656})
        steps = V(add_epi32)(steps, V(slli_epi32)(greater(energy, ints(bound - 1)), 2));
    const Vector scaled = V(slli_epi32)(length, 8);
    for (const int32_t bound : {120, 205, 246})
        steps = V(add_epi32)(steps, V(sub_epi32)(ints(-1), greater(V(mullo_epi32)(energy, ints(bound)), scaled)));
    return V(slli_epi32)(V(sub_epi32)(d, V(slli_epi32)(steps, 4)), 4);  // 16 to a class
}

TARGET void filter(const int16_t* filters, const TensorRow* const* around, const LumaRow* const* rows, int32_t cells,
                   ChangeRow* y) {
    alignas(64) int32_t offsets[kFilterCells + 64];
    for (size_t k = 0; k < count(cells); k += kInts) {
        Vector sums[3];
        UNROLL for (size_t t = 0; t < 3; ++t)
            sums[t] = smooth(load(around[0]->products[t] + k), load(around[1]->products[t] + k),
                             load(around[2]->products[t] + k), load(around[3]->products[t] + k),
                             load(around[4]->products[t] + k));
        store(offsets + k, weights_of(sums));
    }
    for (size_t k = count(cells); k < round_up(count(cells), kWords); ++k) offsets[k] = 0;
    for (size_t k = 0; k < count(cells); k += kWords) {
        // Pairs of weights of the cells that unpacking puts into the first half, and into the second.
        Vector pairs[2][6];
        UNROLL for (size_t h = 0; h < 2; ++h) {
            Vector first[4], second[4];
            UNROLL for (size_t i = 0; i < 4; ++i) {
                const int32_t* of_lane = offsets + k + 4 * h + i;
                first[i] = lanes(filters, of_lane);
                second[i] = lanes(filters + 8, of_lane);
            }
            const Vector a = V(unpacklo_epi32)(first[0], first[1]), b = V(unpacklo_epi32)(first[2], first[3]);
            const Vector c = V(unpackhi_epi32)(first[0], first[1]), d = V(unpackhi_epi32)(first[2], first[3]);
            const Vector e = V(unpacklo_epi32)(second[0], second[1]), f = V(unpacklo_epi32)(second[2], second[3]);
            pairs[h][0] = V(unpacklo_epi64)(a, b);
            pairs[h][1] = V(unpackhi_epi64)(a, b);
            pairs[h][2] = V(unpacklo_epi64)(c, d);
            pairs[h][3] = V(unpackhi_epi64)(c, d);
            pairs[h][4] = V(unpacklo_epi64)(e, f);
            pairs[h][5] = V(unpackhi_epi64)(e, f);
        }
        for (size_t row = 0; row < 2; ++row) {
            Vector change[2];
            UNROLL for (int32_t odd = 0; odd < 2; ++odd) {
                static constexpr int32_t kDown[12] = {0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2};
                static constexpr int32_t kRight[12] = {1, 2, -2, -1, 0, 1, 2, -2, -1, 0, 1, 2};
                const LumaRow* const* centre = rows + 2 + row;
                const int32_t column = kFilterReach + odd;
                const Vector twice = V(slli_epi16)(load(centre[0]->columns[column % 2] + column / 2 + k), 1);
                Vector sums[2] = {ints(512), ints(512)};
                UNROLL for (size_t pair = 0; pair < 6; ++pair) {
                    Vector bent[2];
                    UNROLL for (size_t i = 0; i < 2; ++i) {
                        const int32_t down = kDown[2 * pair + i], right = kRight[2 * pair + i];
                        const int32_t to = column + right, back = column - right;
                        bent[i] = V(sub_epi16)(V(add_epi16)(load(centre[down]->columns[to % 2] + to / 2 + k),
                                                            load(centre[-down]->columns[back % 2] + back / 2 + k)),
                                               twice);
                    }
                    sums[0] = V(add_epi32)(sums[0], V(madd_epi16)(V(unpacklo_epi16)(bent[0], bent[1]), pairs[0][pair]));
                    sums[1] = V(add_epi32)(sums[1], V(madd_epi16)(V(unpackhi_epi16)(bent[0], bent[1]), pairs[1][pair]));
                }
                change[odd] = V(packs_epi32)(V(srai_epi32)(sums[0], 10), V(srai_epi32)(sums[1], 10));
            }
            const Vector zero = ints(0), most = V(set1_epi16)(255);
            Vector bytes[2];
            UNROLL for (size_t sign = 0; sign < 2; ++sign) {
                UNROLL for (size_t odd = 0; odd < 2; ++odd) change[odd] = sign == 0 ? change[odd] : V(sub_epi16)(zero, change[odd]);
                const Vector e = V(min_epi16)(V(max_epi16)(change[0], zero), most);
                const Vector o = V(min_epi16)(V(max_epi16)(change[1], zero), most);
                bytes[sign] = V_BIT(or)(e, V(slli_epi16)(o, 8));
            }
            store(y[row].plus + 2 * k, bytes[0]);
            store(y[row].minus + 2 * k, bytes[1]);
        }
    }
}
