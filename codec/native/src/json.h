// A reader of JSON texts from strangers: bounded in memory (25 times the text), depth and keys, no recursion.
// Integers of up to 18 digits are values; other numbers are only checked for syntax.
#pragma once

#include <cstring>

#include "memory.h"

namespace pocketlic {

class Json {
public:
    enum class Type : uint8_t { null, boolean, integer, number, string, array, object };
    static constexpr uint32_t kNone = 0xFFFFFFFF;

    struct Text {
        const char* data;
        size_t size;
        bool operator==(const char* other) const {
            return std::strlen(other) == size && std::memcmp(data, other, size) == 0;
        }
        bool operator==(Text other) const {
            return other.size == size && (size == 0 || std::memcmp(data, other.data, size) == 0);
        }
    };

    // The whole of text[0 .. size) must be one value. False on bad syntax, on a key that an object has twice, on
    // more than 16 levels or 1024 keys of one object, or without memory. The text is not needed afterwards.
    bool parse(Memory& memory, const char* text, size_t size) {
        if (size >= kNone / 2) return false;
        at_ = text;
        end_ = text + size;
        // Each value but the outermost follows one of these characters.
        uint64_t bound = 1;
        for (const char* c = at_; c != end_; ++c)
            if (*c == '{' || *c == '[' || *c == ',' || *c == ':') ++bound;
        if (!nodes_.allocate(memory, bound) || !strings_.allocate(memory, size)) return false;
        count_ = 0;
        used_ = 0;
        uint32_t open[kDepth];
        size_t depth = 0;
        do {
            // Invariant: here a value begins.
            space();
            if (count_ == nodes_.size()) return false;
            const uint32_t index = count_++;
            Node& node = nodes_[index];
            node.end = count_;
            if (at_ == end_) return false;
            const char c = *at_;
            bool opened = false;
            if (c == '{' || c == '[') {
                ++at_;
                node.type = c == '{' ? Type::object : Type::array;
                space();
                if (at_ != end_ && *at_ == (c == '{' ? '}' : ']')) {
                    ++at_;
                } else {
                    if (depth == kDepth) return false;
                    open[depth++] = index;
                    opened = true;
                }
            } else if (!scalar(node, c)) {
                return false;
            }
            if (opened) {
                if (nodes_[open[depth - 1]].type == Type::object && !key(open[depth - 1])) return false;
                continue;
            }
            // A value has ended: close what it ends, then go on with the next element.
            bool next = false;
            while (depth > 0 && !next) {
                Node& parent = nodes_[open[depth - 1]];
                const bool object = parent.type == Type::object;
                space();
                if (at_ == end_) return false;
                const char d = *at_++;
                if (d == ',') {
                    if (object && !key(open[depth - 1])) return false;
                    next = true;
                } else if (d == (object ? '}' : ']')) {
                    parent.end = count_;
                    --depth;
                } else {
                    return false;
                }
            }
        } while (depth > 0);
        space();
        return at_ == end_;
    }

    // Nodes are numbered; 0 is the outermost. All of these accept kNone and answer kNone, false or an empty text.
    bool is(uint32_t node, Type type) const { return node != kNone && nodes_[node].type == type; }
    bool truth(uint32_t node) const { return is(node, Type::boolean) && nodes_[node].value != 0; }
    Text string(uint32_t node) const {
        if (!is(node, Type::string)) return {"", 0};
        return {strings_.data() + static_cast<size_t>(nodes_[node].value), nodes_[node].length};
    }
    bool integer(uint32_t node, int64_t least, int64_t most, int64_t& value) const {
        if (!is(node, Type::integer)) return false;
        value = nodes_[node].value;
        return least <= value && value <= most;
    }
    // The first element of an array or the first key of an object, and the one after; a key's value is next(key).
    uint32_t first(uint32_t node) const {
        if (!is(node, Type::array) && !is(node, Type::object)) return kNone;
        return nodes_[node].end > node + 1 ? node + 1 : kNone;
    }
    uint32_t next(uint32_t parent, uint32_t child) const {
        const uint32_t after = nodes_[child].end;
        return after < nodes_[parent].end ? after : kNone;
    }
    uint32_t value(uint32_t key) const { return nodes_[key].end; }
    uint32_t get(uint32_t object, const char* name) const {
        if (!is(object, Type::object)) return kNone;
        for (uint32_t k = first(object); k != kNone; k = next(object, value(k)))
            if (string(k) == name) return value(k);
        return kNone;
    }
    uint32_t length(uint32_t array) const {
        uint32_t n = 0;
        for (uint32_t i = first(array); i != kNone; i = next(array, i)) ++n;
        return n;
    }

private:
    static constexpr size_t kDepth = 16;
    static constexpr int kMaxKeys = 1024;  // the search for doubles takes quadratic time

    struct Node {
        int64_t value;    // of integers and booleans; where a string begins
        uint32_t length;  // of a string
        uint32_t end;     // the number of the first node behind it
        Type type;
    };

    void space() {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }

    bool literal(const char* word) {
        const size_t n = std::strlen(word);
        if (static_cast<size_t>(end_ - at_) < n || std::memcmp(at_, word, n) != 0) return false;
        at_ += n;
        return true;
    }

    bool scalar(Node& node, char c) {
        if (c == '"') return read_string(node);
        if (c == 't' || c == 'f') {
            node.type = Type::boolean;
            node.value = c == 't';
            return literal(c == 't' ? "true" : "false");
        }
        if (c == 'n') {
            node.type = Type::null;
            return literal("null");
        }
        return number(node);
    }

    bool digits(int64_t& value, int& count) {
        count = 0;
        value = 0;
        for (; at_ != end_ && *at_ >= '0' && *at_ <= '9'; ++at_, ++count)
            if (count < 18) value = 10 * value + (*at_ - '0');
        return count > 0;
    }

    bool number(Node& node) {
        const bool negative = *at_ == '-';
        at_ += negative;
        const char* start = at_;
        int count, ignored;
        int64_t fraction;
        if (!digits(node.value, count) || (count > 1 && *start == '0')) return false;
        node.type = count <= 18 ? Type::integer : Type::number;
        if (negative) node.value = -node.value;
        if (at_ != end_ && *at_ == '.') {
            ++at_;
            node.type = Type::number;
            if (!digits(fraction, ignored)) return false;
        }
        if (at_ != end_ && (*at_ == 'e' || *at_ == 'E')) {
            ++at_;
            node.type = Type::number;
            if (at_ != end_ && (*at_ == '+' || *at_ == '-')) ++at_;
            if (!digits(fraction, ignored)) return false;
        }
        return true;
    }

    bool hex(uint32_t& unit) {
        unit = 0;
        if (end_ - at_ < 4) return false;
        for (int i = 0; i < 4; ++i) {
            const char c = *at_++;
            uint32_t digit;
            if (c >= '0' && c <= '9') digit = static_cast<uint32_t>(c - '0');
            else if (c >= 'a' && c <= 'f') digit = static_cast<uint32_t>(c - 'a') + 10;
            else if (c >= 'A' && c <= 'F') digit = static_cast<uint32_t>(c - 'A') + 10;
            else return false;
            unit = unit << 4 | digit;
        }
        return true;
    }

    void put(uint32_t byte) { strings_[used_++] = static_cast<char>(static_cast<unsigned char>(byte)); }

    // Text shrinks when it is unescaped (six characters become at most three), so `strings_` holds all of it.
    bool read_string(Node& node) {
        node.type = Type::string;
        node.value = static_cast<int64_t>(used_);
        ++at_;
        while (at_ != end_ && *at_ != '"') {
            const char c = *at_++;
            if (static_cast<unsigned char>(c) < 0x20) return false;
            if (c != '\\') {
                put(static_cast<unsigned char>(c));
                continue;
            }
            if (at_ == end_) return false;
            const char e = *at_++;
            static constexpr char kFrom[] = "\"\\/bfnrt", kTo[] = "\"\\/\b\f\n\r\t";
            if (e != 'u') {
                const void* found = std::memchr(kFrom, e, 8);
                if (found == nullptr) return false;
                put(static_cast<unsigned char>(kTo[static_cast<const char*>(found) - kFrom]));
                continue;
            }
            uint32_t code;
            if (!hex(code)) return false;
            if (code >= 0xD800 && code < 0xDC00 && end_ - at_ >= 6 && at_[0] == '\\' && at_[1] == 'u') {
                const char* back = at_;
                uint32_t low;
                at_ += 2;
                if (!hex(low)) return false;
                if (low >= 0xDC00 && low < 0xE000) code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                else at_ = back;
            }
            if (code < 0x80) {
                put(code);
            } else if (code < 0x800) {
                put(0xC0 | code >> 6);
                put(0x80 | (code & 63));
            } else {
                if (code < 0x10000) {
                    put(0xE0 | code >> 12);
                } else {
                    put(0xF0 | code >> 18);
                    put(0x80 | (code >> 12 & 63));
                }
                put(0x80 | (code >> 6 & 63));
                put(0x80 | (code & 63));
            }
        }
        if (at_ == end_) return false;
        ++at_;
        node.length = static_cast<uint32_t>(used_ - static_cast<size_t>(node.value));
        return true;
    }

    // Reads `"name" :` and checks that the object has no such key yet.
    bool key(uint32_t object) {
        space();
        if (at_ == end_ || *at_ != '"' || count_ == nodes_.size()) return false;
        const uint32_t index = count_++;
        if (!read_string(nodes_[index])) return false;
        nodes_[index].end = count_;
        const Text name = string(index);
        int others = 0;
        for (uint32_t k = object + 1; k < index; k = nodes_[value(k)].end)
            if (string(k) == name || ++others == kMaxKeys) return false;
        space();
        if (at_ == end_ || *at_ != ':') return false;
        ++at_;
        return true;
    }

    const char* at_ = nullptr;
    const char* end_ = nullptr;
    Buffer<Node> nodes_;
    Buffer<char> strings_;
    uint32_t count_ = 0;
    size_t used_ = 0;
};

}  // namespace pocketlic
