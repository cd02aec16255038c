// CUDA's language, as far as our kernels use it, for the host compiler: `g++ -x c++ kernel.cu` runs on the
// processor.
//
// The threads of a block are fibers on one operating-system thread, blocks run one after another. A fiber
// runs until it meets a barrier, a shuffle or a vote, and goes on when everybody who takes part has arrived.
// The sanitizers are told about fibers and barriers, so they see exactly the ordering that CUDA guarantees:
// see README.md for what they find and what not.
//
// Only what kernels need is here. It is as strict as CUDA's rules (types, masks, who has to arrive), so that
// what runs here also compiles with nvcc; add an intrinsic when a kernel first needs it.
#pragma once

#if defined(__CUDACC__)
#error "this header replaces the CUDA toolkit's; put its folder on the include path of the emulation only"
#endif
#if !defined(FD_CUDA_EMULATION)
#error "compile with -DFD_CUDA_EMULATION=1"
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "cuda_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __shared__ static  // blocks run one after another, so one copy serves
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// Those of the running fiber.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
constexpr int warpSize = 32;

namespace fd::emulation {

using Where = std::source_location;

// Runs `kernel()` once for each thread. Throws std::runtime_error for a configuration that no GPU takes, for
// a launch inside a kernel, and when threads wait for one another for ever; rethrows what a thread threw.
//
// FASTDIFF_OPS_EMULATION_SEED=n > 0 (read at each launch) runs blocks and threads in an order of its own.
void run_body(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* closure);
template <class F>
void run(dim3 grid, dim3 block, size_t shared_bytes, const F& kernel) {
    run_body(grid, block, shared_bytes, [](const void* f) { (*static_cast<const F*>(f))(); }, &kernel);
}

// A fresh heap block of the launch's exact size for each block, filled with 0xCD.
void* dynamic_shared_memory();

struct Votes {
    int yes, all;
};
// Returns when every thread of the block has come to this very line.
Votes block_barrier(const char* name, bool vote, Where where);

// A warp primitive: waits until all lanes of `mask` are at the same primitive, then holds what each of them
// brought.
class Exchange {
  public:
    Exchange(const char* name, unsigned mask, const void* value, size_t size, Where where);
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;
    ~Exchange();

    int lane() const { return lane_; }
    unsigned lanes() const { return lanes_; }  // of the mask, as far as the block has them
    // A lane that takes no part gives 0xCDCD...: CUDA leaves it undefined.
    template <class T>
    T from(int lane) const {
        const uint64_t wide = bits(lane);
        T value;
        std::memcpy(&value, &wide, sizeof value);
        return value;
    }
    template <class F>
    void each(F&& visit) const {
        for (int lane = 0; lane < warpSize; ++lane) {
            if (lanes_ >> lane & 1u) visit(lane);
        }
    }

  private:
    uint64_t bits(int lane) const;

    void* meeting_;
    int lane_;
    unsigned lanes_;
};

unsigned active_mask(Where where);
[[noreturn]] void trap(Where where);

template <class T, class... Allowed>
concept OneOf = (std::is_same_v<T, Allowed> || ...);
template <class T>
concept Shuffled = OneOf<T, int, unsigned, long, unsigned long, long long, unsigned long long, float, double>;

}  // namespace fd::emulation

#define FD_WHERE ::fd::emulation::Where where = ::fd::emulation::Where::current()

// ---- barriers

inline void __syncthreads(FD_WHERE) { fd::emulation::block_barrier("__syncthreads", false, where); }
inline int __syncthreads_count(int predicate, FD_WHERE) {
    return fd::emulation::block_barrier("__syncthreads_count", predicate != 0, where).yes;
}
inline int __syncthreads_and(int predicate, FD_WHERE) {
    const auto votes = fd::emulation::block_barrier("__syncthreads_and", predicate != 0, where);
    return votes.yes == votes.all;
}
inline int __syncthreads_or(int predicate, FD_WHERE) {
    return fd::emulation::block_barrier("__syncthreads_or", predicate != 0, where).yes > 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, FD_WHERE) {
    fd::emulation::Exchange("__syncwarp", mask, nullptr, 0, where);
}
// All memory is coherent here, and ThreadSanitizer does not know fences: a kernel that relies on one is
// reported.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// ---- shuffles; a width below 32 splits the warp into segments

template <fd::emulation::Shuffled T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, FD_WHERE) {
    const fd::emulation::Exchange warp("__shfl_sync", mask, &value, sizeof value, where);
    return warp.template from<T>((warp.lane() & ~(width - 1)) + (source & (width - 1)));
}
template <fd::emulation::Shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, FD_WHERE) {
    const fd::emulation::Exchange warp("__shfl_up_sync", mask, &value, sizeof value, where);
    const int source = warp.lane() - static_cast<int>(delta);
    return warp.template from<T>(source < (warp.lane() & ~(width - 1)) ? warp.lane() : source);
}
template <fd::emulation::Shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, FD_WHERE) {
    const fd::emulation::Exchange warp("__shfl_down_sync", mask, &value, sizeof value, where);
    const int source = warp.lane() + static_cast<int>(delta);
    return warp.template from<T>(source > (warp.lane() | (width - 1)) ? warp.lane() : source);
}
template <fd::emulation::Shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize, FD_WHERE) {
    const fd::emulation::Exchange warp("__shfl_xor_sync", mask, &value, sizeof value, where);
    const int source = warp.lane() ^ lanes;
    return warp.template from<T>(source > (warp.lane() | (width - 1)) ? warp.lane() : source);
}

// ---- votes, matches, reductions

inline unsigned __activemask(FD_WHERE) { return fd::emulation::active_mask(where); }

inline unsigned __ballot_sync(unsigned mask, int predicate, FD_WHERE) {
    const int vote = predicate != 0;
    const fd::emulation::Exchange warp("__ballot_sync", mask, &vote, sizeof vote, where);
    unsigned result = 0;
    warp.each([&](int lane) { result |= static_cast<unsigned>(warp.from<int>(lane)) << lane; });
    return result;
}
inline int __any_sync(unsigned mask, int predicate, FD_WHERE) {
    const int vote = predicate != 0;
    const fd::emulation::Exchange warp("__any_sync", mask, &vote, sizeof vote, where);
    int result = 0;
    warp.each([&](int lane) { result |= warp.from<int>(lane); });
    return result;
}
inline int __all_sync(unsigned mask, int predicate, FD_WHERE) {
    const int vote = predicate != 0;
    const fd::emulation::Exchange warp("__all_sync", mask, &vote, sizeof vote, where);
    int result = 1;
    warp.each([&](int lane) { result &= warp.from<int>(lane); });
    return result;
}
template <fd::emulation::Shuffled T>
unsigned __match_any_sync(unsigned mask, T value, FD_WHERE) {
    const fd::emulation::Exchange warp("__match_any_sync", mask, &value, sizeof value, where);
    unsigned result = 0;
    warp.each([&](int lane) {
        const T other = warp.template from<T>(lane);
        result |= static_cast<unsigned>(std::memcmp(&other, &value, sizeof value) == 0) << lane;
    });
    return result;
}
template <fd::emulation::Shuffled T>
unsigned __match_all_sync(unsigned mask, T value, int* all_equal, FD_WHERE) {
    const fd::emulation::Exchange warp("__match_all_sync", mask, &value, sizeof value, where);
    *all_equal = 1;
    warp.each([&](int lane) {
        const T other = warp.template from<T>(lane);
        *all_equal &= std::memcmp(&other, &value, sizeof value) == 0;
    });
    return *all_equal ? mask : 0u;
}

namespace fd::emulation {
template <class T, class F>
T reduce(const char* name, unsigned mask, T value, F&& combine, Where where) {
    const Exchange warp(name, mask, &value, sizeof value, where);
    bool first = true;
    T result{};
    warp.each([&](int lane) {
        result = first ? warp.from<T>(lane) : combine(result, warp.from<T>(lane));
        first = false;
    });
    return result;
}
}  // namespace fd::emulation

#define FD_WARP_REDUCTION(name, types, expression)                                                       \
    template <class T>                                                                                   \
        requires types                                                                                   \
    T name(unsigned mask, T value, FD_WHERE) {                                                           \
        return fd::emulation::reduce(#name, mask, value, [](T a, T b) { return T(expression); }, where); \
    }
#define FD_INT_OR_UNSIGNED fd::emulation::OneOf<T, int, unsigned>
#define FD_UNSIGNED fd::emulation::OneOf<T, unsigned>
FD_WARP_REDUCTION(__reduce_add_sync, FD_INT_OR_UNSIGNED, static_cast<unsigned>(a) + static_cast<unsigned>(b))
FD_WARP_REDUCTION(__reduce_min_sync, FD_INT_OR_UNSIGNED, a < b ? a : b)
FD_WARP_REDUCTION(__reduce_max_sync, FD_INT_OR_UNSIGNED, a > b ? a : b)
FD_WARP_REDUCTION(__reduce_and_sync, FD_UNSIGNED, a& b)
FD_WARP_REDUCTION(__reduce_or_sync, FD_UNSIGNED, a | b)
FD_WARP_REDUCTION(__reduce_xor_sync, FD_UNSIGNED, a ^ b)
#undef FD_WARP_REDUCTION
#undef FD_INT_OR_UNSIGNED
#undef FD_UNSIGNED

inline void __trap(FD_WHERE) { fd::emulation::trap(where); }

#include "cuda_intrinsics.h"
