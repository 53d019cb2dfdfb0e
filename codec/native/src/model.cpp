#include "model.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <new>

#include "json.h"
#include "postfilter.h"
#include "sha256.h"

namespace pocketlic {

const char* const kNetworkNames[kNetworks] = {"analysis", "hyper_analysis", "hyper_synthesis", "context",
                                              "synthesis"};

plic_status fail(plic_error* error, plic_status status, const char* format, ...) {
    if (error != nullptr) {
        error->status = status;
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        for (char* c = error->message; *c != 0; ++c)
            if (*c < ' ' || *c > '~') *c = '?';  // names out of a file may hold anything
    }
    return status;
}

plic_status no_memory(plic_error* error, const Memory& memory) {
    if (memory.refused())
        return fail(error, PLIC_ERROR_LIMIT, "this needs more than the limit of %llu bytes of memory",
                    static_cast<unsigned long long>(memory.limit()));
    return fail(error, PLIC_ERROR_MEMORY, "out of memory");
}

namespace {

constexpr size_t kMaxHeader = size_t{1} << 20;
constexpr uint32_t kMaxArrays = 1024;
constexpr size_t kMaxName = 64;  // bytes of a tensor's or an array's name
constexpr int32_t kMaxChannels = 1 << 16;
constexpr int32_t kMaxFactor = 16;
constexpr int32_t kMaxGrid = 256;  // how much finer or coarser than its inputs a network may get

enum class Element : uint8_t { i8, i16, u16, i32 };

struct Array {
    Json::Text name;
    Element element;
    uint32_t rank;
    int64_t shape[3];
    const uint8_t* data;
    uint64_t begin, end;
    bool used;
};

struct Profile {
    const char* name;
    int32_t multiple, remainder, least, most;
};
constexpr Profile kProfiles[] = {{"cpu", 2, 1, 2, 15}, {"strict", 4, 2, 3, 17}};

uint32_t le32(const uint8_t* p) {
    return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 |
           static_cast<uint32_t>(p[3]) << 24;
}

int32_t signed32(uint32_t v) {
    return v < 0x80000000u ? static_cast<int32_t>(v) : static_cast<int32_t>(v - 0x80000000u) + INT32_MIN;
}

int64_t element_bytes(Element e) { return e == Element::i8 ? 1 : e == Element::i32 ? 4 : 2; }

// Reads the file front to back; each function returns false after it has filled `error`.
class Reader {
public:
    Reader(plic_model& model, const uint8_t* data, size_t size, plic_error* error)
        : model_(model), data_(data), size_(size), error_(error) {}

    bool read() {
        if (size_ < 8 || le32(data_ + 4) != 0 || le32(data_) > size_ - 8) return bad("no safetensors header");
        const size_t length = le32(data_);
        if (length > kMaxHeader) return bad("the header exceeds %u bytes", static_cast<unsigned>(kMaxHeader));
        if (!header_.parse(temporary_, reinterpret_cast<const char*>(data_ + 8), length))
            return bad("the header is not sound JSON");
        if (!arrays(data_ + 8 + length, size_ - 8 - length)) return false;
        const uint32_t metadata = header_.get(0, "__metadata__"), only = header_.first(metadata);
        const Json::Text content = header_.string(header_.get(metadata, "pocketlic"));
        if (content.size == 0) return bad("no description of networks");
        if (header_.next(metadata, header_.value(only)) != Json::kNone)
            return bad("metadata besides the description");
        if (!json_.parse(temporary_, content.data, content.size)) return bad("the description is not sound JSON");
        return description() && tensors() && interfaces();
    }

private:
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    bool bad(const char* format, ...) {
        char text[120];
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        fail(error_, PLIC_ERROR_MODEL, "not a Pocketlic model: %s", text);
        return false;
    }

    bool out_of_memory() {
        no_memory(error_, model_.memory);
        return false;
    }

    // ------------------------------------------------------------------------------------------- safetensors

    bool arrays(const uint8_t* data, size_t size) {
        if (!header_.is(0, Json::Type::object)) return bad("the header is not an object");
        if (!arrays_.allocate(temporary_, kMaxArrays)) return out_of_memory();
        for (uint32_t k = header_.first(0); k != Json::kNone; k = header_.next(0, header_.value(k))) {
            const Json::Text name = header_.string(k);
            if (name == "__metadata__") continue;
            const uint32_t v = header_.value(k);
            if (array_count_ == kMaxArrays) return bad("more than %u arrays", kMaxArrays);
            Array& a = arrays_[array_count_++];
            a.name = name;
            const Json::Text type = header_.string(header_.get(v, "dtype"));
            if (type == "I8") a.element = Element::i8;
            else if (type == "I16") a.element = Element::i16;
            else if (type == "U16") a.element = Element::u16;
            else if (type == "I32") a.element = Element::i32;
            else return bad("array %.*s is of an unknown type", print(name), name.data);
            const uint32_t shape = header_.get(v, "shape"), offsets = header_.get(v, "data_offsets");
            int64_t bytes = element_bytes(a.element);
            for (uint32_t d = header_.first(shape); d != Json::kNone; d = header_.next(shape, d)) {
                if (a.rank == 3 || !header_.integer(d, 0, 1 << 24, a.shape[a.rank]) ||
                    bytes * a.shape[a.rank] > INT32_MAX)
                    return bad("array %.*s is of an impossible shape", print(name), name.data);
                bytes *= a.shape[a.rank++];
            }
            int64_t ends[2] = {0, 0};
            uint32_t n = 0;
            for (uint32_t d = header_.first(offsets); d != Json::kNone; d = header_.next(offsets, d), ++n)
                if (n == 2 || !header_.integer(d, 0, INT32_MAX, ends[n]))
                    return bad("array %.*s has impossible offsets", print(name), name.data);
            if (a.rank == 0 || n != 2 || ends[1] - ends[0] != bytes || static_cast<uint64_t>(ends[1]) > size)
                return bad("array %.*s does not lie in the file", print(name), name.data);
            a.begin = static_cast<uint64_t>(ends[0]);
            a.end = static_cast<uint64_t>(ends[1]);
            a.data = data + a.begin;
        }
        std::sort(arrays_.begin(), arrays_.begin() + array_count_,
                  [](const Array& a, const Array& b) { return a.begin < b.begin; });
        uint64_t end = 0;
        for (uint32_t i = 0; i < array_count_; end = arrays_[i++].end)
            if (arrays_[i].begin != end) return bad("the arrays overlap or leave a gap");
        return end == size || bad("bytes follow the last array");
    }

    // Longer names are cut in messages.
    static int print(Json::Text text) { return static_cast<int>(std::min(text.size, kMaxName)); }

    Array* find(const char* name) {
        for (uint32_t i = 0; i < array_count_; ++i) {
            if (arrays_[i].name == name) {
                arrays_[i].used = true;
                return &arrays_[i];
            }
        }
        return nullptr;
    }

    Array* find(const char* name, Element element, uint32_t rank) {
        Array* a = find(name);
        return a != nullptr && a->element == element && a->rank == rank ? a : nullptr;
    }

    static uint64_t count(const Array& a) {
        return (a.end - a.begin) / static_cast<uint64_t>(element_bytes(a.element));
    }

    // The values of an array of int32, in the machine's own byte order.
    const int32_t* integers(const Array& a) {
        const uint64_t n = count(a);
        auto* to = model_.arena.make<int32_t>(n);
        for (uint64_t i = 0; to != nullptr && i < n; ++i) to[i] = signed32(le32(a.data + 4 * i));
        return to;
    }

    const uint16_t* shorts(const Array& a) {
        const uint64_t n = count(a);
        auto* to = model_.arena.make<uint16_t>(n);
        for (uint64_t i = 0; to != nullptr && i < n; ++i)
            to[i] = static_cast<uint16_t>(a.data[2 * i] | a.data[2 * i + 1] << 8);
        return to;
    }

    // ------------------------------------------------------------------------------------------- description

    bool description() {
        const Json::Text profile = json_.string(json_.get(0, "profile"));
        for (const Profile& p : kProfiles)
            if (profile == p.name) rule_ = &p;
        if (rule_ == nullptr) return bad("unknown profile");
        model_.profile = rule_->name;
        if (!json_.integer(json_.get(0, "skip"), 0, rans::kMaxRows - 1, skip_)) return bad("no sound skip");
        const uint32_t networks = json_.get(0, "networks"), notes = json_.get(0, "notes");
        bool texts = json_.is(notes, Json::Type::object);
        for (uint32_t k = json_.first(notes); k != Json::kNone; k = json_.next(notes, json_.value(k)))
            texts = texts && json_.is(json_.value(k), Json::Type::string);
        if (!texts) return bad("notes are not texts by name");
        uint32_t n = 0;
        for (uint32_t i = 0; i < kNetworks; ++i) {
            const uint32_t node = json_.get(networks, kNetworkNames[i]);
            if (node == Json::kNone) return bad("no network %s", kNetworkNames[i]);
            if (!network(node, kNetworkNames[i], model_.networks[i])) return false;
        }
        for (uint32_t k = json_.first(networks); k != Json::kNone; k = json_.next(networks, json_.value(k))) ++n;
        return n == kNetworks || bad("networks besides the five");
    }

    bool name(uint32_t node, Json::Text& text) {
        text = json_.string(node);
        // Printable ASCII, and no slash: names become parts of arrays' names and of messages.
        for (size_t i = 0; i < text.size; ++i)
            if (text.data[i] <= ' ' || text.data[i] > '~' || text.data[i] == '/') return false;
        return text.size > 0 && text.size <= kMaxName;
    }

    const char* copy(Json::Text text) {
        auto* to = model_.arena.make<char>(text.size + 1);
        if (to != nullptr) std::memcpy(to, text.data, text.size);
        return to;
    }

    bool spec(uint32_t node, Spec& to) {
        int64_t v[3];
        uint32_t n = 0;
        for (uint32_t i = json_.first(node); i != Json::kNone; i = json_.next(node, i), ++n) {
            static constexpr int64_t kLeast[] = {1, -64, -128}, kMost[] = {kMaxChannels, 64, 0};
            if (n == 3 || !json_.integer(i, kLeast[n], kMost[n], v[n])) return false;
        }
        if (n != 3 || (v[2] != 0 && v[2] != -128)) return false;
        to = {static_cast<int32_t>(v[0]), static_cast<int32_t>(v[1]), static_cast<int32_t>(v[2])};
        return true;
    }

    // The tensor of that name among the first `known`.
    static bool resolve(const Network& net, uint32_t known, Json::Text name, uint32_t& index) {
        for (index = 0; index < known; ++index)
            if (name == net.tensors[index].name) return true;
        return false;
    }

    bool network(uint32_t node, const char* network_name, Network& net) {
        const uint32_t inputs = json_.get(node, "inputs"), layers = json_.get(node, "layers");
        const uint32_t outputs = json_.get(node, "outputs");
        net.name = network_name;
        net.input_count = json_.length(inputs);
        net.layer_count = json_.length(layers);
        net.output_count = json_.length(outputs);
        if (net.input_count < 1 || net.input_count > kMaxEnds || net.output_count < 1 ||
            net.output_count > kMaxEnds || net.layer_count < 1 || net.tensor_count() > kMaxTensors)
            return bad("%s: too few or too many tensors", net.name);
        net.tensors = model_.arena.make<Tensor>(net.tensor_count());
        net.layers = model_.arena.make<Layer>(net.layer_count);
        net.outputs = model_.arena.make<uint32_t>(net.output_count);
        if (net.tensors == nullptr || net.layers == nullptr || net.outputs == nullptr) return out_of_memory();

        uint32_t known = 0, ignored;
        Json::Text text;
        for (uint32_t i = json_.first(inputs); i != Json::kNone; i = json_.next(inputs, i), ++known) {
            const uint32_t key = json_.first(i);
            if (json_.length(i) != 2 || !name(key, text) || resolve(net, known, text, ignored))
                return bad("%s: input %u has no sound name", net.name, known);
            Tensor& t = net.tensors[known];
            t.name = copy(text);
            if (t.name == nullptr) return out_of_memory();
            if (!spec(json_.next(i, key), t.spec)) return bad("%s/%s: no sound spec", net.name, t.name);
            t.numerator = t.denominator = 1;
        }
        for (uint32_t i = json_.first(layers); i != Json::kNone; i = json_.next(layers, i), ++known) {
            if (!name(json_.get(i, "name"), text) || resolve(net, known, text, ignored))
                return bad("%s: layer %u has no sound name", net.name, known - net.input_count);
            net.tensors[known].name = copy(text);
            if (net.tensors[known].name == nullptr) return out_of_memory();
            if (!layer(i, net, known)) return false;
        }
        uint32_t n = 0;
        for (uint32_t i = json_.first(outputs); i != Json::kNone; i = json_.next(outputs, i), ++n)
            if (!resolve(net, known, json_.string(i), net.outputs[n])) return bad("%s: unknown output", net.name);
        return slots(net);
    }

    bool layer(uint32_t node, Network& net, uint32_t known) {
        Layer& to = net.layers[known - net.input_count];
        Tensor& out = net.tensors[known];
        static constexpr const char* kKinds[] = {"pointwise", "depthwise", "add",
                                                 "upsample",  "space_to_depth", "depth_to_space"};
        const Json::Text kind = json_.string(json_.get(node, "kind"));
        uint32_t k = 0;
        while (k < 6 && !(kind == kKinds[k])) ++k;
        if (k == 6) return bad("%s/%s: unknown kind", net.name, out.name);
        to.kind = static_cast<Kind>(k);
        const bool moves = to.kind >= Kind::upsample;

        const uint32_t inputs = json_.get(node, "inputs"), relu = json_.get(node, "relu");
        const uint32_t expected = to.kind == Kind::add ? 2 : 1;
        uint32_t n = 0;
        bool sound = true;
        for (uint32_t i = json_.first(inputs); i != Json::kNone; i = json_.next(inputs, i), ++n)
            sound = sound && n < expected && resolve(net, known, json_.string(i), to.inputs[n]);
        if (!sound || n != expected) return bad("%s/%s: no sound inputs", net.name, out.name);
        if (expected == 1) to.inputs[1] = to.inputs[0];
        const Tensor &a = net.tensors[to.inputs[0]], &b = net.tensors[to.inputs[1]];

        int64_t factor;
        if (!json_.integer(json_.get(node, "factor"), 1, moves ? kMaxFactor : 1, factor) ||
            !json_.is(relu, Json::Type::boolean) || (moves && json_.truth(relu)) ||
            !spec(json_.get(node, "spec"), out.spec))
            return bad("%s/%s: no sound factor, relu or spec", net.name, out.name);
        to.factor = static_cast<int32_t>(factor);
        to.relu = json_.truth(relu);

        const bool finer = to.kind == Kind::upsample || to.kind == Kind::depth_to_space;
        out.numerator = a.numerator * (finer ? to.factor : 1);
        out.denominator = a.denominator * (to.kind == Kind::space_to_depth ? to.factor : 1);
        int32_t divisor = out.numerator, rest = out.denominator;
        while (rest != 0) {
            const int32_t r = divisor % rest;
            divisor = rest;
            rest = r;
        }
        out.numerator /= divisor;
        out.denominator /= divisor;
        if (out.numerator > kMaxGrid || out.denominator > kMaxGrid)
            return bad("%s/%s: the grid is too fine or too coarse", net.name, out.name);

        if (to.kind == Kind::pointwise || to.kind == Kind::depthwise) return convolution(net, to, a, out);
        if (to.kind == Kind::add) {
            if (a.spec.channels != out.spec.channels || b.spec.channels != out.spec.channels ||
                a.numerator != b.numerator || a.denominator != b.denominator)
                return bad("%s/%s: a sum needs two inputs of equal shape", net.name, out.name);
            if (a.spec.exponent != out.spec.exponent || b.spec.exponent != out.spec.exponent)
                return bad("%s/%s: a sum needs equal scales", net.name, out.name);
            return true;
        }
        const int32_t square = to.factor * to.factor;
        int32_t channels = a.spec.channels;
        if (to.kind == Kind::space_to_depth) channels *= square;
        if (to.kind == Kind::depth_to_space) channels = channels % square == 0 ? channels / square : 0;
        if (out.spec.channels != channels || out.spec.exponent != a.spec.exponent ||
            out.spec.zero_point != a.spec.zero_point)
            return bad("%s/%s: moving pixels must keep scale and zero point", net.name, out.name);
        return true;
    }

    struct Weights {
        int32_t magnitude, least, bits;  // sum of magnitudes, the least, and all or-ed
    };

    // n of them, at most 65536; inlined, so that those without gaps are looked at by vectors.
    static inline Weights look(const int8_t* weight, int64_t n, int64_t step) {
        Weights all = {0, 0, 0};
        for (int64_t i = 0; i < n; ++i) {
            const int32_t v = weight[i * step];
            all.magnitude += v < 0 ? -v : v;
            all.least = std::min(all.least, v);
            all.bits |= v;
        }
        return all;
    }

    bool convolution(const Network& net, Layer& to, const Tensor& in, const Tensor& out) {
        char text[3 * kMaxName];
        Array* parts[3];
        static constexpr const char* kParts[] = {"weight", "bias", "shift"};
        for (int i = 0; i < 3; ++i) {
            std::snprintf(text, sizeof text, "%s/%s/%s", net.name, out.name, kParts[i]);
            parts[i] = find(text);
        }
        const Array *w = parts[0], *b = parts[1], *s = parts[2];
        const bool pointwise = to.kind == Kind::pointwise;
        const int32_t outputs = out.spec.channels, inputs = in.spec.channels;
        if (w == nullptr || b == nullptr || s == nullptr || w->element != Element::i8 ||
            b->element != Element::i32 || s->element != Element::i8 || w->rank != (pointwise ? 2u : 3u) ||
            b->rank != 1 || s->rank != 1)
            return bad("%s/%s: a convolution needs int8 weights, int32 biases and shifts", net.name, out.name);
        const bool fits = pointwise ? w->shape[0] == outputs && w->shape[1] == inputs
                                    : w->shape[0] == w->shape[1] && w->shape[0] % 2 == 1 &&
                                          w->shape[0] <= kMaxKernel && w->shape[2] == inputs && inputs == outputs;
        if (!fits || b->shape[0] != outputs || s->shape[0] != outputs)
            return bad("%s/%s: weights do not fit the channels", net.name, out.name);

        // Where weight [o][i] lies; of a depthwise convolution, i counts the taps.
        const int64_t taps = pointwise ? inputs : w->shape[0] * w->shape[0];
        const int64_t across = pointwise ? inputs : 1, along = pointwise ? 1 : inputs;
        const auto* weight = reinterpret_cast<const int8_t*>(w->data);
        const int32_t* bias = integers(*b);
        auto* shift = model_.arena.make<int32_t>(static_cast<uint64_t>(outputs + kBlock));
        if (bias == nullptr || shift == nullptr) return out_of_memory();
        const int64_t reach = 128 - in.spec.zero_point;
        for (int32_t o = 0; o < outputs; ++o) {
            shift[o] = reinterpret_cast<const int8_t*>(s->data)[o];
            if (shift[o] < rule_->least || shift[o] > rule_->most)
                return bad("%s/%s: shift %d outside %d..%d", net.name, out.name, static_cast<int>(shift[o]),
                           static_cast<int>(rule_->least), static_cast<int>(rule_->most));
            const int64_t value = bias[o], period = 2 * rule_->remainder;
            const Weights of_output = along == 1 ? look(weight + o * across, taps, 1)
                                                 : look(weight + o * across, taps, along);
            const int64_t worst = (value < 0 ? -value : value) + of_output.magnitude * reach;
            const bool sound = (value % period + period) % period == rule_->remainder &&
                               of_output.least >= -127 && of_output.bits % rule_->multiple == 0;
            if (!sound) return bad("%s/%s: breaks the tie-free rule of its profile", net.name, out.name);
            if (worst + (int64_t{1} << (shift[o] - 1)) > INT32_MAX)
                return bad("%s/%s: an accumulator can exceed 32 bits", net.name, out.name);
        }
        for (int32_t o = outputs; o < outputs + kBlock; ++o) shift[o] = 1;  // what padding uses

        const int32_t zero = out.spec.zero_point, low = to.relu ? zero : -128;
        if (pointwise) {
            Pointwise& c = to.pointwise;
            c.inputs = inputs;
            c.outputs = outputs;
            c.shift = shift;
            c.zero = zero;
            c.low = low;
            return model_.kernels.pack(model_.arena, weight, bias, in.spec.zero_point, c) || out_of_memory();
        }
        Depthwise& c = to.depthwise;
        const uint64_t n = count(*w);
        auto* wider = model_.arena.make<int16_t>(n);
        if (wider == nullptr) return out_of_memory();
        for (uint64_t i = 0; i < n; ++i) wider[i] = weight[i];
        c.channels = outputs;
        c.kernel = static_cast<int32_t>(w->shape[0]);
        c.weight = wider;
        c.bias = bias;
        c.shift = shift;
        c.zero_in = in.spec.zero_point;
        c.zero = zero;
        c.low = low;
        return model_.kernels.pack_depthwise(model_.arena, c) || out_of_memory();
    }

    // Gives each layer's output a place among those that are free while it is needed.
    bool slots(Network& net) {
        uint32_t last[kMaxTensors];
        for (uint32_t t = 0; t < net.tensor_count(); ++t) last[t] = t;
        for (uint32_t i = 0; i < net.layer_count; ++i)
            for (uint32_t input : net.layers[i].inputs) last[input] = net.input_count + i;
        for (uint32_t i = 0; i < net.output_count; ++i) last[net.outputs[i]] = net.tensor_count();
        uint32_t busy[Workspace::kSlots] = {};  // until which tensor, exclusive of the one that is made then
        for (uint32_t t = 0; t < net.input_count; ++t) net.tensors[t].slot = -1;
        for (uint32_t t = net.input_count; t < net.tensor_count(); ++t) {
            int32_t slot = 0;
            while (slot < Workspace::kSlots && busy[slot] >= t) ++slot;
            if (slot == Workspace::kSlots) return bad("%s: too many tensors at a time", net.name);
            busy[slot] = last[t];
            net.tensors[t].slot = slot;
            net.slot_count = std::max(net.slot_count, slot + 1);
        }
        return true;
    }

    // ------------------------------------------------------------------------------------------------ tensors

    bool knots(const char* array_name, int32_t channels, Knots& to) {
        const Array* a = find(array_name, Element::i32, 2);
        if (a == nullptr || a->shape[1] != channels || a->shape[0] != knots_)
            return bad("%s is missing or of a wrong shape", array_name);
        to.values = integers(*a);
        to.count = static_cast<int32_t>(a->shape[0]);
        to.channels = channels;
        return to.values != nullptr || out_of_memory();
    }

    bool vector(const char* array_name, int64_t length, const int32_t*& to) {
        const Array* a = find(array_name, Element::i32, 1);
        if (a == nullptr || a->shape[0] != length) return bad("%s is missing or of a wrong shape", array_name);
        to = integers(*a);
        return to != nullptr || out_of_memory();
    }

    // The part of the row predictor for channels first .. first + channels - 1 out of `total`.
    bool predictor(const Array& weight, const int32_t* scale, const int32_t* bias, int32_t total, int32_t first,
                   int32_t channels, RowPredictor& to) {
        constexpr int32_t kCells = kLatentsPerHyper * kLatentsPerHyper;
        const int32_t outputs = kCells * channels;
        const auto inputs = static_cast<size_t>(model_.hypers);
        auto* s = model_.arena.make<int32_t>(static_cast<uint64_t>(outputs));
        auto* b = model_.arena.make<int32_t>(static_cast<uint64_t>(outputs));
        Buffer<int8_t> w;
        if (s == nullptr || b == nullptr || !w.allocate(temporary_, static_cast<uint64_t>(outputs) * inputs))
            return out_of_memory();
        for (int32_t o = 0; o < outputs; ++o) {
            const auto from = static_cast<size_t>(o / channels * total + first + o % channels);
            s[o] = scale[from];
            b[o] = bias[from];
            std::memcpy(w.data() + static_cast<size_t>(o) * inputs, weight.data + from * inputs, inputs);
        }
        to.scale = s;
        to.bias = b;
        return projection(w.data(), outputs, model_.hypers, to.accumulate);
    }

    // A product with a matrix of weights, without bias.
    bool projection(const int8_t* weight, int32_t outputs, int32_t inputs, Pointwise& to) {
        to.outputs = outputs;
        to.inputs = inputs;
        Buffer<int32_t> zeros;
        return (zeros.allocate(temporary_, static_cast<uint64_t>(outputs)) &&
                model_.kernels.pack(model_.arena, weight, zeros.data(), 0, to)) ||
               out_of_memory();
    }

    // latent_* or detail_*: the encoder's.
    bool encoder_projection(const char* weight, const char* bias, const char* shift, int64_t& outputs,
                            int64_t& inputs, Projection& to) {
        const Array* w = find(weight, Element::i8, 2);
        const Array* s = find(shift, Element::i8, 1);
        if (w == nullptr || s == nullptr || w->shape[0] < 1 || w->shape[0] > kMaxChannels / 4 || w->shape[1] < 1 ||
            s->shape[0] != w->shape[0])
            return bad("%s or %s is missing or of a wrong shape", weight, shift);
        outputs = w->shape[0];
        inputs = w->shape[1];
        for (int64_t i = 0; i < outputs; ++i) {
            const auto v = static_cast<int8_t>(s->data[i]);
            if (v < -31 || v > 16) return bad("%s is outside -31..16", shift);
        }
        auto* sums = model_.arena.make<int32_t>(static_cast<uint64_t>(outputs));
        auto* magnitudes = model_.arena.make<int32_t>(static_cast<uint64_t>(outputs));
        auto* shifts = model_.arena.make<int8_t>(static_cast<uint64_t>(outputs));
        if (sums == nullptr || magnitudes == nullptr || shifts == nullptr) return out_of_memory();
        const auto* values = reinterpret_cast<const int8_t*>(w->data);
        for (int64_t o = 0; o < outputs; ++o) {
            const int8_t* of_output = values + o * inputs;
            magnitudes[o] = look(of_output, inputs, 1).magnitude;
            for (int64_t i = 0; i < inputs; ++i) sums[o] += of_output[i];
        }
        std::memcpy(shifts, s->data, static_cast<size_t>(outputs));
        to.sums = sums;
        to.magnitudes = magnitudes;
        to.shift = shifts;
        return vector(bias, outputs, to.bias) &&
               projection(values, static_cast<int32_t>(outputs), static_cast<int32_t>(inputs), to.accumulate);
    }

    bool tensors() {
        Arena& arena = model_.arena;
        int64_t latents = 0, details = 0;
        if (!encoder_projection("latent_weight", "latent_bias", "latent_shift", latents, latent_features_,
                                model_.to_latents) ||
            !encoder_projection("detail_weight", "detail_bias", "detail_shift", details, detail_features_,
                                model_.to_details))
            return false;
        details *= 4;
        const int64_t total = latents + details, outputs = kLatentsPerHyper * kLatentsPerHyper * total;
        const Array* rows = find("row_weight", Element::i8, 2);
        const Array* more = find("detail_row_weight", Element::i8, 2);
        const Array* magnitude = find("magnitude", Element::i8, 1);
        const Array* prediction = find("hyper_prediction", Element::i8, 2);
        const Array* steps_array = find("step_knots", Element::i32, 2);
        if (rows == nullptr || rows->shape[0] != outputs || rows->shape[1] < 1 || rows->shape[1] > kMaxChannels)
            return bad("row_weight is missing or of a wrong shape");
        if (more == nullptr || more->shape[0] != details || more->shape[1] != latents)
            return bad("detail_row_weight is missing or of a wrong shape");
        if (magnitude == nullptr || magnitude->shape[0] != 128)
            return bad("magnitude is missing or of a wrong shape");
        if (prediction == nullptr || prediction->shape[0] != rows->shape[1] || prediction->shape[1] != 3)
            return bad("hyper_prediction is missing or of a wrong shape");
        if (steps_array == nullptr || steps_array->shape[0] < 2 || kQualities % (steps_array->shape[0] - 1) != 0)
            return bad("step_knots is missing or of a wrong shape");
        knots_ = steps_array->shape[0];
        model_.latents = static_cast<int32_t>(latents);
        model_.details = static_cast<int32_t>(details);
        model_.hypers = static_cast<int32_t>(rows->shape[1]);
        const auto all = static_cast<int32_t>(total);
        const int32_t *exp2, *scale, *bias;
        if (!vector("row_scale", outputs, scale) || !vector("row_bias", outputs, bias) ||
            !vector("detail_row_scale", details, model_.magnitude_scale) ||
            !knots("step_knots", all, model_.step_knots) || !knots("row_knots", all, model_.row_knots) ||
            !knots("hyper_row_knots", model_.hypers, model_.hyper_row_knots) ||
            !knots("hyper_gain_knots", model_.hypers, model_.hyper_gain_knots) || !vector("exp2", 256, exp2) ||
            !predictor(*rows, scale, bias, all, 0, model_.latents, model_.y_rows) ||
            !predictor(*rows, scale, bias, all, model_.latents, model_.details, model_.detail_rows) ||
            !projection(reinterpret_cast<const int8_t*>(more->data), model_.details, model_.latents,
                        model_.magnitude_rows))
            return false;
        const auto weights = 3 * static_cast<uint64_t>(model_.hypers);
        auto* magnitudes = arena.make<int8_t>(128);
        auto* hyper_prediction = arena.make<int8_t>(weights);
        if (magnitudes == nullptr || hyper_prediction == nullptr) return out_of_memory();
        std::memcpy(magnitudes, magnitude->data, 128);
        std::memcpy(hyper_prediction, prediction->data, weights);
        model_.magnitudes = magnitudes;
        model_.hyper_prediction = hyper_prediction;
        for (int64_t i = 0; i < knots_ * model_.hypers; ++i)
            if (model_.hyper_gain_knots.values[i] < -15 * 256 || model_.hyper_gain_knots.values[i] > 15 * 256)
                return bad("hyper_gain_knots exceed 15 octaves");

        for (int i = 0; i < 256; ++i)
            if (exp2[i] < 1 << 16 || exp2[i] >= 1 << 17) return bad("exp2 holds values outside 65536..131071");
        auto* steps = arena.make<int32_t>(kMaxExponent + 1);
        auto* fine_bits = arena.make<uint8_t>(static_cast<uint64_t>(model_.latents));
        if (steps == nullptr || fine_bits == nullptr) return out_of_memory();
        for (int32_t e = 0; e <= kMaxExponent; ++e)
            steps[e] = static_cast<int32_t>(((int64_t{exp2[e & 255]} << (e >> 8)) + (1 << 15)) >> 16);
        model_.steps = steps;
        model_.exp2 = exp2;

        const Array* wide = find("wide", Element::i16, 1);
        if (wide == nullptr) return bad("wide is missing or of a wrong type");
        const uint16_t* channels = shorts(*wide);
        if (channels == nullptr) return out_of_memory();
        model_.wide_count = static_cast<int32_t>(wide->shape[0]);
        for (int32_t i = 0; i < model_.wide_count; ++i) {
            if (channels[i] >= model_.latents || (i > 0 && channels[i] <= channels[i - 1]))
                return bad("wide is not an ascending list of channels");
            fine_bits[channels[i]] = 2;
        }
        model_.wide = channels;
        model_.fine_bits = fine_bits;

        const Array* radius = find("table_radius", Element::u16, 1);
        const Array* freq = find("table_freq", Element::u16, 1);
        if (radius == nullptr || freq == nullptr) return bad("table_radius or table_freq is missing");
        const uint16_t *r = shorts(*radius), *f = shorts(*freq);
        if (r == nullptr || f == nullptr) return out_of_memory();
        const auto n = static_cast<size_t>(radius->shape[0]);
        if (static_cast<size_t>(skip_) >= n) return bad("skip is not below the number of rows");
        const rans::Status status = model_.tables.build(model_.memory, r, n, f, static_cast<size_t>(freq->shape[0]),
                                                        static_cast<uint32_t>(skip_));
        if (status == rans::Status::no_memory) return out_of_memory();
        if (status != rans::Status::ok) return bad("%s", rans::message(status));

        if (find("post_filter") != nullptr) {
            const Array* filters = find("post_filter", Element::i8, 3);
            if (filters == nullptr || filters->shape[0] < 2 || kQualities % (filters->shape[0] - 1) != 0 ||
                filters->shape[1] != kFilterClasses || filters->shape[2] != kFilterWeights)
                return bad("post_filter is of a wrong shape");
            auto* values = arena.make<int32_t>(count(*filters));
            if (values == nullptr) return out_of_memory();
            for (uint64_t i = 0; i < count(*filters); ++i) values[i] = static_cast<int8_t>(filters->data[i]);
            model_.post_filter = {values, static_cast<int32_t>(filters->shape[0]), kFilterClasses * kFilterWeights};
        }

        for (uint32_t i = 0; i < array_count_; ++i)
            if (!arrays_[i].used)
                return bad("array %.*s is unknown", print(arrays_[i].name), arrays_[i].name.data);
        return true;
    }

    // ----------------------------------------------------------------------------------------- the whole model

    struct Output {
        int64_t channels;
        int32_t numerator, denominator;  // cells per cell of the inputs
    };

    bool ends(NetworkIndex index, std::initializer_list<int64_t> inputs, std::initializer_list<Output> outputs,
              int32_t cells) {
        const Network& net = model_.networks[index];
        bool fits = net.input_count == inputs.size() && net.output_count == outputs.size();
        for (uint32_t i = 0; fits && i < net.input_count; ++i)
            fits = net.tensors[i].spec.channels == inputs.begin()[i];
        for (uint32_t i = 0; fits && i < net.output_count; ++i) {
            const Tensor& t = net.tensors[net.outputs[i]];
            const Output& o = outputs.begin()[i];
            fits = t.spec.channels == o.channels && t.numerator == o.numerator && t.denominator == o.denominator;
        }
        // `cells`: inputs are a multiple of this high and wide.
        for (uint32_t t = 0; fits && t < net.tensor_count(); ++t) fits = cells % net.tensors[t].denominator == 0;
        return fits || bad("%s: inputs or outputs do not fit the codec", net.name);
    }

    // The scaling of a projection in 32 bits, if they suffice whatever the picture.
    bool scaling(uint32_t output, Projection& p) {
        const Network& analysis = model_.networks[kAnalysis];
        const int64_t zero = analysis.tensors[analysis.outputs[output]].spec.zero_point;
        const auto n = static_cast<uint64_t>(p.accumulate.outputs);
        int32_t* parts[3];
        for (int32_t*& part : parts)
            if ((part = model_.arena.make<int32_t>(n)) == nullptr) return out_of_memory();
        for (uint64_t o = 0; o < n; ++o) {
            const int32_t down = std::max<int32_t>(-p.shift[o], 0);
            const int64_t bias = p.bias[o] - zero * p.sums[o] + (down > 0 ? int64_t{1} << (down - 1) : 0);
            if ((bias < 0 ? -bias : bias) + int64_t{p.magnitudes[o]} * 128 > INT32_MAX) return true;
            parts[0][o] = static_cast<int32_t>(bias);
            parts[1][o] = down;
            parts[2][o] = std::max<int32_t>(p.shift[o], 0);
        }
        p.scaling = {parts[0], parts[1], parts[2]};
        return true;
    }

    bool interfaces() {
        const int64_t y = model_.latents, d = model_.details, z = model_.hypers;
        const Network& hyper = model_.networks[kHyperSynthesis];
        const int64_t features = hyper.tensors[hyper.outputs[0]].spec.channels;
        return ends(kAnalysis, {3}, {{latent_features_, 1, 16}, {detail_features_, 1, 8}}, kStride) &&
               ends(kHyperAnalysis, {y, d}, {{z, 1, 4}}, kLatentsPerHyper) &&
               ends(kHyperSynthesis, {z}, {{features, 4, 1}, {y, 4, 1}, {y, 4, 1}}, 1) &&
               ends(kContext, {features, y}, {{y, 1, 1}}, kLatentsPerHyper) &&
               ends(kSynthesis, {y + model_.wide_count, d}, {{3, 16, 1}}, kLatentsPerHyper) &&
               scaling(0, model_.to_latents) && scaling(1, model_.to_details);
    }

    plic_model& model_;
    const uint8_t* data_;
    size_t size_;
    plic_error* error_;
    Memory temporary_{uint64_t{1} << 27};
    Json header_, json_;
    Buffer<Array> arrays_;
    uint32_t array_count_ = 0;
    const Profile* rule_ = nullptr;
    int64_t skip_ = 0, knots_ = 0, latent_features_ = 0, detail_features_ = 0;
};

}  // namespace
}  // namespace pocketlic

using namespace pocketlic;

plic_status plic_model_open(const uint8_t* data, size_t size, const plic_options* options, plic_model** model,
                            plic_error* error) {
    if (model == nullptr || (data == nullptr && size > 0))
        return fail(error, PLIC_ERROR_ARGUMENT, "no model data, or nowhere to put the model");
    *model = nullptr;
    plic_error unwanted;
    if (error == nullptr) error = &unwanted;
    const char* wanted = options != nullptr ? options->kernels : nullptr;
    const Kernels* set = nullptr;
    for (size_t i = 0; (set = kernels(i)) != nullptr; ++i)
        if (wanted == nullptr || std::strcmp(set->name, wanted) == 0) break;
    if (set == nullptr) return fail(error, PLIC_ERROR_ARGUMENT, "this machine has no kernels \"%.40s\"", wanted);
    void* place = std::malloc(sizeof(plic_model));
    if (place == nullptr) return fail(error, PLIC_ERROR_MEMORY, "out of memory");
    auto* opened = new (place) plic_model(*set);
    if (options != nullptr) {
        opened->runner = options->runner;
        opened->runner_user = options->user;
        opened->runner_tile = static_cast<int32_t>(std::min<uint32_t>(options->tile, 65536));
    }
    if (!Reader(*opened, data, size, error).read()) {
        plic_model_close(opened);
        return error->status;
    }
    Sha256 hash;
    hash.update(data, size);
    hash.finish(opened->id);
    *model = opened;
    return PLIC_OK;
}

void plic_model_close(plic_model* model) {
    if (model == nullptr) return;
    model->~plic_model();
    std::free(model);
}

void plic_model_describe(const plic_model* model, plic_model_info* info) {
    std::memcpy(info->id, model->id, sizeof info->id);
    info->profile = model->profile;
    info->kernels = model->kernels.name;
    info->latent_channels = static_cast<uint32_t>(model->latents);
    info->detail_channels = static_cast<uint32_t>(model->details);
    info->hyper_channels = static_cast<uint32_t>(model->hypers);
    info->memory = model->memory.peak();
}

const char* plic_kernels(size_t index) {
    const Kernels* set = kernels(index);
    return set != nullptr ? set->name : nullptr;
}
