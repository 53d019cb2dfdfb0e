// Threads of one call, which end with it. Without POSIX threads, or with POCKETLIC_NO_THREADS, the caller's alone.
//
// Not the C++ library's: the core links without one, and a thread that cannot be had is no error here.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>

#include "memory.h"

#if !defined(POCKETLIC_NO_THREADS) && !defined(_MSC_VER) && (!defined(__wasm__) || defined(_REENTRANT))
#define POCKETLIC_THREADS 1
#include <pthread.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#elif defined(_WIN32)
#include <windows.h>
#endif
#endif

namespace pocketlic {

constexpr int32_t kMaxThreads = 64;

#ifdef POCKETLIC_THREADS

class Mutex {
public:
    Mutex() { pthread_mutex_init(&mutex_, nullptr); }
    ~Mutex() { pthread_mutex_destroy(&mutex_); }
    Mutex(const Mutex&) = delete;
    Mutex& operator=(const Mutex&) = delete;
    void lock() { pthread_mutex_lock(&mutex_); }
    void unlock() { pthread_mutex_unlock(&mutex_); }

private:
    friend class Condition;
    pthread_mutex_t mutex_;
};

class Condition {
public:
    Condition() { pthread_cond_init(&condition_, nullptr); }
    ~Condition() { pthread_cond_destroy(&condition_); }
    Condition(const Condition&) = delete;
    Condition& operator=(const Condition&) = delete;
    void wait(Mutex& mutex) { pthread_cond_wait(&condition_, &mutex.mutex_); }
    void notify_all() { pthread_cond_broadcast(&condition_); }

private:
    pthread_cond_t condition_;
};

// The cores that this process may use.
inline int32_t core_count() {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
#if defined(_WIN32)
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return static_cast<int32_t>(info.dwNumberOfProcessors);
#else
    return static_cast<int32_t>(sysconf(_SC_NPROCESSORS_ONLN));
#endif
}

// Calls f(worker) on `workers` threads, 0 being the caller's, and waits until all have returned. There may be fewer, so
// that what there is to do has to be taken, not assigned.
template <typename Function>
void run_threads(int32_t workers, const Function& f) {
    struct Start {
        const Function* f;
        int32_t worker;
        pthread_t thread;
    } starts[kMaxThreads];
    int32_t started = 1;
    for (; started < workers && started < kMaxThreads; ++started) {
        starts[started] = {&f, started, {}};
        const auto enter = [](void* start) -> void* {
            (*static_cast<Start*>(start)->f)(static_cast<Start*>(start)->worker);
            return nullptr;
        };
        if (pthread_create(&starts[started].thread, nullptr, enter, &starts[started]) != 0) break;
    }
    f(0);
    for (int32_t i = 1; i < started; ++i) pthread_join(starts[i].thread, nullptr);
}

#else

struct Mutex {
    void lock() {}
    void unlock() {}
};
struct Condition {
    void wait(Mutex&) {}
    void notify_all() {}
};
inline int32_t core_count() { return 1; }
template <typename Function>
void run_threads(int32_t, const Function& f) {
    f(0);
}

#endif

// Calls f(i, worker) once for each i below `count`, in any order. It says whether it could; after a false no more are
// begun, and so is the answer.
template <typename Function>
bool for_each(int32_t workers, int32_t count, const Function& f) {
    std::atomic<int32_t> next{0};
    std::atomic<bool> good{true};
    run_threads(workers < count ? workers : count, [&](int32_t worker) {
        for (int32_t i; good.load() && (i = next.fetch_add(1)) < count;)
            if (!f(i, worker)) good.store(false);
    });
    return good.load();
}

// An object for each of some threads. It must not outlive the account.
template <typename T>
class PerThread {
public:
    PerThread() = default;
    ~PerThread() {
        for (int32_t i = 0; i < size_; ++i) at(i)->~T();
    }
    PerThread(const PerThread&) = delete;
    PerThread& operator=(const PerThread&) = delete;

    // All made of the same arguments; false without memory. To be called once.
    template <typename... Arguments>
    bool make(Memory& memory, int32_t size, Arguments&... arguments) {
        static_assert(alignof(T) <= alignof(std::max_align_t));
        if (!room_.allocate(memory, sizeof(T) * static_cast<uint64_t>(size))) return false;
        for (; size_ < size; ++size_) new (room_.data() + sizeof(T) * static_cast<size_t>(size_)) T(arguments...);
        return true;
    }
    int32_t size() const { return size_; }
    T& operator[](int32_t i) { return *at(i); }

private:
    T* at(int32_t i) { return std::launder(reinterpret_cast<T*>(room_.data() + sizeof(T) * static_cast<size_t>(i))); }
    Buffer<uint8_t> room_;
    int32_t size_ = 0;
};

}  // namespace pocketlic
