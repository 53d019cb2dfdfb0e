// Memory that is counted against a limit. Allocation answers null or false, it never throws.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <type_traits>
#include <utility>

namespace pocketlic {

// The account that allocations are charged to.
class Memory {
public:
    explicit Memory(uint64_t limit = std::numeric_limits<uint64_t>::max()) : limit_(limit) {}
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    // Zeroed bytes, or null: when they would exceed the limit or the system has none.
    void* allocate(uint64_t bytes) {
        if (bytes > std::numeric_limits<size_t>::max()) {
            if (bytes > limit_) refused_ = true;
            return nullptr;
        }
        const auto more = static_cast<size_t>(bytes);
        size_t used = used_.load();
        do {
            if (bytes > limit_ - used) {
                refused_ = true;
                return nullptr;
            }
        } while (!used_.compare_exchange_weak(used, used + more));
        void* p = std::calloc(more > 0 ? more : 1, 1);
        if (p == nullptr) {
            used_ -= more;
            return nullptr;
        }
        used += more;
        for (size_t peak = peak_.load(); peak < used && !peak_.compare_exchange_weak(peak, used);) {
        }
        return p;
    }

    void release(void* p, uint64_t bytes) {
        if (p == nullptr) return;
        std::free(p);
        used_ -= static_cast<size_t>(bytes);
    }

    bool refused() const { return refused_; }  // whether the limit, not the system, was the reason
    uint64_t limit() const { return limit_; }
    uint64_t left() const { return limit_ - used_; }
    uint64_t used() const { return used_; }
    uint64_t peak() const { return peak_; }

private:
    const uint64_t limit_;
    std::atomic<size_t> used_{0}, peak_{0};  // of what a processor does at once: all there is fits
    std::atomic<bool> refused_{false};
};

// An array that owns its memory. It must not outlive the account.
template <typename T>
class Buffer {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

public:
    Buffer() = default;
    ~Buffer() { reset(); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    // n zeroed elements in place of what was there; false leaves it empty.
    bool allocate(Memory& memory, uint64_t n) {
        reset();
        if (n > std::numeric_limits<uint64_t>::max() / sizeof(T)) return false;
        data_ = static_cast<T*>(memory.allocate(n * sizeof(T)));
        if (data_ == nullptr) return false;
        memory_ = &memory;
        size_ = static_cast<size_t>(n);
        return true;
    }

    // At least n elements, of any content.
    bool reserve(Memory& memory, uint64_t n) { return n <= size_ || allocate(memory, n); }

    // n zeroed elements, in the old memory if that has room.
    bool clear(Memory& memory, uint64_t n) {
        if (n > size_) return allocate(memory, n);
        for (size_t i = 0; i < size_; ++i) data_[i] = T{};
        return true;
    }

    void swap(Buffer& other) {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(memory_, other.memory_);
    }

    void reset() {
        if (memory_ != nullptr) memory_->release(data_, uint64_t{size_} * sizeof(T));
        data_ = nullptr;
        memory_ = nullptr;
        size_ = 0;
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }
    T* begin() { return data_; }
    T* end() { return data_ + size_; }

private:
    T* data_ = nullptr;
    size_t size_ = 0;
    Memory* memory_ = nullptr;
};

// Arrays that live and die together, such as the parts of a model.
class Arena {
public:
    explicit Arena(Memory& memory) : memory_(memory) {}
    ~Arena() {
        while (last_ != nullptr) {
            Block* block = last_;
            last_ = block->previous;
            memory_.release(block, block->bytes);
        }
    }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // n zeroed elements or null.
    template <typename T>
    T* make(uint64_t n) {
        static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= alignof(Block));
        if (n > (std::numeric_limits<uint64_t>::max() - sizeof(Block)) / sizeof(T)) return nullptr;
        const uint64_t bytes = sizeof(Block) + n * sizeof(T);
        auto* block = static_cast<Block*>(memory_.allocate(bytes));
        if (block == nullptr) return nullptr;
        block->previous = last_;
        block->bytes = bytes;
        last_ = block;
        return reinterpret_cast<T*>(block + 1);
    }

    Memory& memory() { return memory_; }

private:
    struct alignas(16) Block {
        Block* previous;
        uint64_t bytes;
    };
    Memory& memory_;
    Block* last_ = nullptr;
};

}  // namespace pocketlic
