// Runs a CUDA kernel on the host, one block after another, one fiber per CUDA thread.
//
// A fiber runs until it waits at a barrier or a shuffle or has returned; then the next one
// runs. So code that forgets a barrier, or leans on threads of a warp moving together,
// reads what is not there yet: shared memory starts out as huge numbers. Threads that wait
// at different places, or a barrier that a thread never reaches, end the process.
//
// Not seen here: real races, memory order, bank conflicts, speed, device-only instructions.

#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace host {

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

enum class State { ready, at_barrier, at_shuffle, done };

struct Fiber {
    ucontext_t context;
    Index thread;
    State state;
    int site;          // line of the barrier or shuffle
    unsigned mask;     // lanes of the shuffle
    bool vote;         // for __syncthreads_or
    std::uint64_t given;  // for shuffles
};

constexpr unsigned warp_size = 32;
constexpr std::size_t stack_bytes = 256 * 1024;

inline std::vector<Fiber> fibers;
inline char* stacks;  // not cleared, as most of it is never touched
inline Fiber* current;
inline ucontext_t scheduler;
inline Index block_index, block_size, grid_size;
inline std::vector<char> shared_memory;
inline bool vote_result;
inline long n_barriers;

[[noreturn]] inline void fail(const char* what, int site) {
    std::fprintf(stderr, "cuda_on_host: %s at line %d\n", what, site);
    std::abort();
}

inline void wait(State state, int site) {
    current->state = state;
    current->site = site;
    swapcontext(&current->context, &scheduler);
}

inline void barrier(int site) { wait(State::at_barrier, site); }

inline bool barrier_or(bool vote, int site) {
    current->vote = vote;
    wait(State::at_barrier, site);
    return vote_result;
}

template <class T>
T shuffle_xor(unsigned mask, T value, unsigned lane_mask, int site) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    std::memcpy(&current->given, &value, sizeof(T));
    current->mask = mask;
    wait(State::at_shuffle, site);
    const unsigned partner = current->thread.x ^ lane_mask;
    if (partner / warp_size != current->thread.x / warp_size || partner >= fibers.size() ||
        !(mask >> partner % warp_size & 1)) {
        fail("shuffle with a lane that is not in it", site);
    }
    T result;
    std::memcpy(&result, &fibers[partner].given, sizeof(T));
    wait(State::at_shuffle, site);  // nobody gives again before all have taken
    return result;
}

template <class T>
T atomic_add(T* target, T value) {
    const T old = *target;
    *target += value;
    return old;
}

// Let a warp go on once every lane of its shuffle is there.
inline bool release_shuffles() {
    bool released = false;
    for (std::size_t first = 0; first < fibers.size(); first += warp_size) {
        const std::size_t last = std::min(first + warp_size, fibers.size());
        for (std::size_t i = first; i < last; ++i) {
            if (fibers[i].state != State::at_shuffle) continue;
            const Fiber& leader = fibers[i];
            bool complete = true;
            for (std::size_t j = first; j < last; ++j) {
                if (!(leader.mask >> (j - first) & 1)) continue;
                complete &= fibers[j].state == State::at_shuffle &&
                            fibers[j].site == leader.site && fibers[j].mask == leader.mask;
            }
            if (!complete) continue;
            const unsigned mask = leader.mask;
            for (std::size_t j = first; j < last; ++j) {
                if (mask >> (j - first) & 1) fibers[j].state = State::ready;
            }
            released = true;
        }
    }
    return released;
}

inline void release_barrier() {
    const int site = fibers[0].site;
    vote_result = false;
    for (const Fiber& fiber : fibers) {
        if (fiber.state != State::at_barrier || fiber.site != site) {
            fail("threads of a block are not at the same barrier", fiber.site);
        }
        vote_result |= fiber.vote;
    }
    for (Fiber& fiber : fibers) fiber.state = State::ready;
    ++n_barriers;
}

// Order in which the ready fibers of a round run: forward, reverse or random.
class Schedule {
  public:
    Schedule(const char* name, std::size_t n) : shuffled_(name == std::string_view("random")) {
        for (std::size_t i = 0; i < n; ++i) {
            order_.push_back(name == std::string_view("reverse") ? n - 1 - i : i);
        }
    }

    const std::vector<std::size_t>& next() {
        for (std::size_t i = order_.size(); shuffled_ && i > 1; --i) {
            random_ = random_ * 6364136223846793005u + 1442695040888963407u;  // Knuth's MMIX
            std::swap(order_[i - 1], order_[(random_ >> 33) % i]);
        }
        return order_;
    }

  private:
    bool shuffled_;
    std::vector<std::size_t> order_;
    std::uint64_t random_ = 12345;
};

template <class Body>
Body* running_body;

template <class Body>
void enter() {
    (*running_body<Body>)();
    current->state = State::done;
    swapcontext(&current->context, &scheduler);
}

template <class Body>
void run_block(Body& body, Schedule& schedule) {
    std::memset(shared_memory.data(), 0x7e, shared_memory.size());  // 8e37 as a float
    running_body<Body> = &body;
    for (std::size_t i = 0; i < fibers.size(); ++i) {
        Fiber& fiber = fibers[i];
        fiber.thread = {unsigned(i), 0, 0};
        fiber.state = State::ready;
        fiber.vote = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks + i * stack_bytes;
        fiber.context.uc_stack.ss_size = stack_bytes;
        makecontext(&fiber.context, enter<Body>, 0);
    }
    while (true) {
        std::size_t n_done = 0;
        for (const std::size_t i : schedule.next()) {
            current = &fibers[i];
            if (current->state == State::ready) swapcontext(&scheduler, &current->context);
            n_done += current->state == State::done;
        }
        if (n_done == fibers.size()) return;
        if (!release_shuffles()) release_barrier();
    }
}

// A kernel's arguments, as tests/kernels/cuda_on_host.py writes them: for each one its
// size in bytes and its bytes.
class Arguments {
  public:
    explicit Arguments(const char* path) {
        std::FILE* file = std::fopen(path, "rb");
        std::int64_t size;
        while (std::fread(&size, sizeof size, 1, file) == 1) {
            // own memory for each, so that a sanitizer sees where it ends
            values_.emplace_back(size);
            if (std::fread(values_.back().data(), 1, size, file) != std::size_t(size)) std::abort();
        }
        std::fclose(file);
    }

    template <class T>
    T get(std::size_t i) {
        if constexpr (std::is_pointer_v<T>) {
            return reinterpret_cast<T>(values_.at(i).data());
        } else {
            if (values_.at(i).size() != sizeof(T)) fail("argument has another size", int(i));
            T value;
            std::memcpy(&value, values_[i].data(), sizeof(T));
            return value;
        }
    }

    void save(const char* path) const {
        std::FILE* file = std::fopen(path, "wb");
        for (const auto& value : values_) std::fwrite(value.data(), 1, value.size(), file);
        std::fclose(file);
    }

  private:
    std::vector<std::vector<char>> values_;
};

template <class... P, std::size_t... I>
void launch(void (*kernel)(P...), Arguments& arguments, Schedule& schedule,
            std::index_sequence<I...>) {
    const std::tuple<P...> values{arguments.get<P>(I)...};
    auto body = [&] { std::apply(kernel, values); };
    for (block_index.y = 0; block_index.y < grid_size.y; ++block_index.y) {
        for (block_index.x = 0; block_index.x < grid_size.x; ++block_index.x) {
            run_block(body, schedule);
        }
    }
}

// usage: ARGUMENTS RESULT SCHEDULE GRID_X GRID_Y N_THREADS SHARED_BYTES
// Prints how many barriers all blocks passed together.
template <class... P>
int run(void (*kernel)(P...), char** argv) {
    Arguments arguments(argv[1]);
    grid_size = {unsigned(std::atoi(argv[4])), unsigned(std::atoi(argv[5])), 1};
    block_size = {unsigned(std::atoi(argv[6])), 1, 1};
    shared_memory.resize(std::atoi(argv[7]));
    fibers.resize(block_size.x);
    stacks = static_cast<char*>(std::malloc(fibers.size() * stack_bytes));
    Schedule schedule(argv[3], fibers.size());
    launch(kernel, arguments, schedule, std::index_sequence_for<P...>{});
    arguments.save(argv[2]);
    std::printf("%ld", n_barriers);
    return 0;
}

}  // namespace host

// -- the words of CUDA -------------------------------------------------------------------

struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
using std::max;
using std::min;

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx (host::current->thread)
#define blockIdx host::block_index
#define blockDim host::block_size
#define gridDim host::grid_size
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(host::shared_memory.data())
#define __syncthreads() host::barrier(__LINE__)
#define __syncthreads_or(vote) host::barrier_or(vote, __LINE__)
#define __shfl_xor_sync(mask, value, lane_mask) host::shuffle_xor(mask, value, lane_mask, __LINE__)
#define atomicAdd(target, value) host::atomic_add(target, value)
