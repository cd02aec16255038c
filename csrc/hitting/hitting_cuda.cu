// The hitting operators on CUDA. They save launches (10 to 20 small torch kernels each), not bandwidth: at
// B = 32, L = 1024 all data is under a megabyte and a launch costs more than its traffic.
//
//   first_hitting_times, select_transfer (count, factor, entropy bound): one block a sequence; candidates are
//     gathered and sorted bitonically. 1024 candidates are 55 exchanges, 10 of which cross warps and cost a
//     block barrier; some 3 us of latency. Up to 8192 positions the entries (12 bytes) are in shared memory,
//     beyond that in a scratch tensor, which one block sorts out of L2: right, not fast (65536: 136
//     exchanges of 32 pairs a thread, order of a millisecond; it runs once a sampling run).
//   select_transfer (threshold): one pass and a block-wide maximum, no sort.
//   reveal_steps, remask_: a thread a position; one Philox (60 integer instructions) and a dozen of loads
//     that hit L1 (the grid), 5 to 30 bytes of traffic. Bound by arithmetic above some 1e6 positions, by the
//     launch below.
//
// The entropy rule adds up in the order of the ranks, one thread, and stops at the first candidate that
// does not fit: the sum then has one value on every device. Nothing waits for the host.
#include <algorithm>
#include <climits>

#include "common/launch.h"
#include "hitting/hitting_launch.h"

namespace fd::hitting {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxThreads = 1024;
constexpr int64_t kSharedLength = 8192;  // 96 KiB, which every architecture since 8.0 has
constexpr int64_t kMaxSorting = 32;      // blocks with a part of the scratch memory
constexpr int kEntryBytes = sizeof(uint64_t) + sizeof(int32_t);
constexpr unsigned kWarp = 0xffffffffu;

int64_t power_of_two(int64_t n) {
    int64_t power = 1;
    while (power < n) power *= 2;
    return power;
}

// What a block sorts: structure of arrays in shared memory, or in the block's part of the scratch memory.
struct Entries {
    uint64_t* key;
    int32_t* position;

    __device__ Entries(unsigned char* scratch, int64_t capacity) {
        key = scratch == nullptr ? dynamic_shared<uint64_t>()
                                 : reinterpret_cast<uint64_t*>(scratch + blockIdx.x * capacity * kEntryBytes);
        position = reinterpret_cast<int32_t*>(key + capacity);
    }

    __device__ Ranked get(int64_t i) const { return {key[i], position[i]}; }
    __device__ void set(int64_t i, const Ranked& entry) const {
        key[i] = entry.key;
        position[i] = entry.position;
    }
};

// Gathers the positions that are wanted, in any order; returns how many. It begins with a barrier, so what
// the entries held before has been read by all; the caller's next barrier must come before the next call.
template <class KeyOf>
__device__ int64_t gather(const bool* wanted, int64_t length, const Entries& entries, const KeyOf& key_of) {
    __shared__ int gathered;
    if (threadIdx.x == 0) gathered = 0;
    __syncthreads();
    const unsigned lane = threadIdx.x % 32;
    for (int64_t start = 0; start < length; start += blockDim.x) {
        const int64_t place = start + threadIdx.x;
        const bool taken = place < length && wanted[place];
        const unsigned lanes = __ballot_sync(kWarp, taken);
        int first = 0;
        if (lane == 0 && lanes != 0) first = atomicAdd(&gathered, __popc(lanes));
        first = __shfl_sync(kWarp, first, 0);
        if (taken) {
            const auto position = static_cast<int32_t>(place);
            entries.set(first + __popc(lanes & ((1u << lane) - 1)), {key_of(position), position});
        }
    }
    __syncthreads();
    return gathered;
}

// Bitonic: segments of `size` are sorted alternately up and down, then merged. While pairs are at most 32
// apart a warp's 32 pairs are its own 64 entries, and a warp barrier will do.
__device__ void sort(const Entries& entries, int64_t n) {
    int64_t padded = 1;
    while (padded < n) padded *= 2;
    for (int64_t i = n + threadIdx.x; i < padded; i += blockDim.x) entries.set(i, {0, INT_MAX});
    __syncthreads();
    for (int64_t size = 2; size <= padded; size *= 2) {
        for (int64_t stride = size / 2; stride > 0; stride /= 2) {
            for (int64_t pair = threadIdx.x; pair < padded / 2; pair += blockDim.x) {
                const int64_t low = 2 * pair - (pair & (stride - 1)), high = low + stride;
                const Ranked a = entries.get(low), b = entries.get(high);
                const bool best_first = (low & size) == 0;
                if (best_first ? before(b, a) : before(a, b)) {
                    entries.set(low, b);
                    entries.set(high, a);
                }
            }
            const int64_t next = stride > 1 ? stride / 2 : size;
            if (stride > 32 || next > 32) {
                __syncthreads();
            } else {
                __syncwarp();
            }
        }
    }
    __syncthreads();
}

__global__ void __launch_bounds__(kMaxThreads)
    hitting_times(const bool* __restrict__ mask, Sequences sequences, int64_t batch, int64_t length,
                  int64_t capacity, unsigned char* scratch, int32_t* __restrict__ order,
                  double* __restrict__ u, int32_t* __restrict__ count) {
    const Entries entries(scratch, capacity);
    for (int64_t b = blockIdx.x; b < batch; b += gridDim.x) {
        const PhiloxStream stream = sequences.stream(kHitTag, b);
        const int64_t n = gather(mask + b * length, length, entries, [&](int32_t position) {
            return bits_at(stream, static_cast<uint32_t>(position));
        });
        sort(entries, n);
        for (int64_t i = threadIdx.x; i < length; i += blockDim.x) {
            order[b * length + i] = i < n ? entries.position[i] : -1;
            u[b * length + i] = i < n ? hit_uniform(entries.key[i]) : 0.0;
        }
        if (threadIdx.x == 0) count[b] = static_cast<int32_t>(n);
    }
}

// The best of the block's candidates, for all threads.
__device__ Ranked best_of_block(Ranked best) {
    __shared__ uint64_t keys[kMaxThreads / 32];
    __shared__ int32_t positions[kMaxThreads / 32];
    FD_UNROLL
    for (int distance = 16; distance > 0; distance /= 2) {
        const Ranked other{__shfl_xor_sync(kWarp, best.key, distance),
                           __shfl_xor_sync(kWarp, best.position, distance)};
        if (before(other, best)) best = other;
    }
    if (threadIdx.x % 32 == 0) {
        keys[threadIdx.x / 32] = best.key;
        positions[threadIdx.x / 32] = best.position;
    }
    __syncthreads();
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) {
        const Ranked other{keys[warp], positions[warp]};
        if (before(other, best)) best = other;
    }
    return best;
}

__global__ void __launch_bounds__(kMaxThreads) select_threshold(Selection s, bool* __restrict__ chosen) {
    const int64_t b = blockIdx.x;
    const double threshold = s.bound(b);
    Ranked best{0, INT_MAX};
    for (int64_t place = threadIdx.x; place < s.length; place += blockDim.x) {
        const bool candidate = s.candidate[b * s.length + place];
        chosen[b * s.length + place] = candidate && s.meets_threshold(b, place, threshold);
        if (!candidate) continue;
        const Ranked own{s.key(b, place), static_cast<int32_t>(place)};
        if (before(own, best)) best = own;
    }
    best = best_of_block(best);  // its barrier also orders the stores
    if (threadIdx.x == 0 && best.position != INT_MAX) chosen[b * s.length + best.position] = true;
}

// How many of n > 0 sorted candidates are committed; for all threads.
__device__ int64_t prefix_length(const Selection& s, int64_t b, const Entries& entries, int64_t n) {
    __shared__ int longest;
    if (s.rule == Rule::count) return min(s.count(b), n);
    if (threadIdx.x == 0) {
        longest = 1;
        if (s.rule == Rule::entropy_bound) {
            EntropyGap gap;
            int taken = 0;
            while (taken < n && gap.add(s.entropy.at(b, entries.position[taken]), s.bound(b))) ++taken;
            longest = max(taken, 1);
        }
    }
    __syncthreads();
    if (s.rule == Rule::factor) {
        int own = 1;
        for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
            if (s.meets_factor(b, entries.position[i], i + 1, s.bound(b))) own = static_cast<int>(i + 1);
        }
        if (own > 1) atomicMax(&longest, own);
        __syncthreads();
    }
    return longest;
}

__global__ void __launch_bounds__(kMaxThreads)
    select_ranked(Selection s, int64_t batch, int64_t capacity, unsigned char* scratch,
                  bool* __restrict__ chosen) {
    const Entries entries(scratch, capacity);
    for (int64_t b = blockIdx.x; b < batch; b += gridDim.x) {
        bool* out = chosen + b * s.length;
        for (int64_t i = threadIdx.x; i < s.length; i += blockDim.x) out[i] = false;
        const int64_t n = gather(s.candidate + b * s.length, s.length, entries,
                                 [&](int32_t position) { return s.key(b, position); });
        sort(entries, n);
        const int64_t taken = n > 0 ? prefix_length(s, b, entries, n) : 0;
        for (int64_t i = threadIdx.x; i < taken; i += blockDim.x) out[entries.position[i]] = true;
    }
}

__global__ void __launch_bounds__(kThreads)
    reveal(const bool* __restrict__ mask, Sequences sequences, int64_t batch, int64_t length,
           const double* __restrict__ mask_prob, int32_t points, int32_t* __restrict__ steps) {
    const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < batch * length;
         i += stride) {
        int32_t step = -1;
        if (mask[i]) {
            const PhiloxStream stream = sequences.stream(kHitTag, i / length);
            step = reveal_step(bits_at(stream, static_cast<uint32_t>(i % length)), mask_prob, points);
        }
        steps[i] = step;
    }
}

__global__ void __launch_bounds__(kThreads)
    remask(int64_t* __restrict__ tokens, int64_t row_stride, int64_t column_stride, Reals prob,
           const bool* __restrict__ eligible, int64_t mask_id, Sequences sequences, int64_t batch,
           int64_t length, bool* __restrict__ remasked) {
    const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < batch * length;
         i += stride) {
        const int64_t b = i / length, position = i % length;
        int64_t* token = tokens + b * row_stride + position * column_stride;
        const bool allowed = (eligible == nullptr || eligible[i]) && *token != mask_id;
        const bool masks =
            allowed && happens(bits_at(sequences.stream(kRemaskTag, b), static_cast<uint32_t>(position)),
                               prob.at(b, position));
        if (masks) *token = mask_id;
        remasked[i] = masks;
    }
}

int sorting_threads(int64_t length) {
    return static_cast<int>(std::clamp<int64_t>(power_of_two(length) / 2, 32, kMaxThreads));
}

int64_t sorting_blocks(int64_t batch) { return std::min(batch, kMaxSorting); }

// In shared memory a block sorts one sequence, else as many as there are for each part of the scratch memory.
dim3 sorting_grid(int64_t batch, const unsigned char* scratch) {
    return dim3(static_cast<unsigned>(scratch == nullptr ? batch : sorting_blocks(batch)));
}

size_t shared_bytes(int64_t length, const unsigned char* scratch) {
    return scratch != nullptr ? 0 : static_cast<size_t>(power_of_two(length) * kEntryBytes);
}

}  // namespace

int64_t sort_scratch(int64_t batch, int64_t length) {
    if (length <= kSharedLength) return 0;
    return sorting_blocks(batch) * power_of_two(length) * kEntryBytes;
}

void first_hitting_times_cuda(void* stream, const bool* mask, const Sequences& sequences, int64_t batch,
                              int64_t length, int32_t* order, double* u, int32_t* count,
                              unsigned char* scratch) {
    launch(hitting_times, sorting_grid(batch, scratch), sorting_threads(length),
           shared_bytes(length, scratch), stream, mask, sequences, batch, length, power_of_two(length),
           scratch, order, u, count);
}

void reveal_steps_cuda(void* stream, const bool* mask, const Sequences& sequences, int64_t batch,
                       int64_t length, const double* mask_prob, int64_t points, int32_t* steps) {
    launch(reveal, stride_grid(batch * length, kThreads, 8), kThreads, 0, stream, mask, sequences, batch,
           length, mask_prob, points, steps);
}

void select_transfer_cuda(void* stream, const Selection& s, int64_t batch, bool* chosen,
                          unsigned char* scratch) {
    if (s.length == 0) return;
    if (s.rule == Rule::threshold) {
        const dim3 grid(static_cast<unsigned>(batch));
        return launch(select_threshold, grid, sorting_threads(s.length), 0, stream, s, chosen);
    }
    launch(select_ranked, sorting_grid(batch, scratch), sorting_threads(s.length),
           shared_bytes(s.length, scratch), stream, s, batch, power_of_two(s.length), scratch, chosen);
}

void remask_cuda(void* stream, int64_t* tokens, const int64_t token_stride[2], const Reals& prob,
                 const bool* eligible, int64_t mask_id, const Sequences& sequences, int64_t batch,
                 int64_t length, bool* remasked) {
    launch(remask, stride_grid(batch * length, kThreads, 8), kThreads, 0, stream, tokens, token_stride[0],
           token_stride[1], prob, eligible, mask_id, sequences, batch, length, remasked);
}

}  // namespace fd::hitting
