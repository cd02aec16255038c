// Tour search on CUDA: a warp a trajectory, blocks of warps that work on one instance, one launch a slice.
//
// Shared memory, bytes: 8 n for the points, once a block if that leaves at least half as many warps to a
// multiprocessor; 4 n + n / 8 + 512 a warp (order and places in uint16, the waiting bits, ring, log). With
// the 227 KiB of sm_90: n = 1000 takes 8000 + 4640 a warp, n = 10000 80000 + 41760, three warps; the limit is
// 55000 cities, 39000 on sm_80 (163 KiB), 24000 on sm_86 and 89 (99 KiB). Beyond, order, places and bits are
// in global memory as int32.
//
// What bounds it is latency, not traffic. To look at a city is a chain of some 12 dependent loads before and
// 5 x 4 in the loop over t5, about 30 cycles each in shared memory, and 5 x 2 IEEE square roots: 1000 to 1500
// cycles by an otherwise idle multiprocessor. A kick looks at 30 to 40 cities and makes some 15 reversals of
// a few steps: 25 to 35 us at 1.7 GHz. Twenty warps (96 registers a thread) are five a scheduler, which
// issues about every third cycle for one of them, so they nearly overlap: 20 kicks in 35 to 70 us on each
// multiprocessor, 40 to 75 million a second on 132. Candidates are the only global reads: 16 bytes a city,
// from L1. These figures are estimates; none was measured on a device.
//
// Blocks share nothing, and lanes meet at __syncwarp() wherever one reads what another wrote.
#include <algorithm>

#include "common/launch.h"
#include "tsp/slice_launch.h"
#include "tsp/slice_walk.h"

namespace fd::tsp::slice {
namespace {

constexpr int kMaxWarps = 10;
constexpr int kResident = 20;  // warps a multiprocessor holds at 96 registers a thread
constexpr unsigned kAll = 0xffffffffu;

struct WarpTeam {
    int lane = static_cast<int>(threadIdx.x) % kLanes;

    template <class F>
    __device__ __forceinline__ void each(int32_t n, const F& f) const {
        __syncwarp();
        FD_NO_UNROLL
        for (int32_t i = lane; i < n; i += kLanes) f(i);
        __syncwarp();
    }
    template <class F>
    __device__ __forceinline__ void once(const F& f) const {
        if (lane == 0) f();
    }
    __device__ __forceinline__ void meet() const { __syncwarp(); }
    template <class F>
    __device__ __forceinline__ uint32_t ballot(const F& f) const {
        return __ballot_sync(kAll, f(lane));
    }
    template <class F>
    __device__ __forceinline__ Total sum(int32_t n, const F& f) const {
        __syncwarp();
        Total total = 0;
        FD_NO_UNROLL
        for (int32_t i = lane; i < n; i += kLanes) total += f(i);
        FD_UNROLL
        for (int d = kLanes / 2; d > 0; d /= 2) total += __shfl_xor_sync(kAll, total, d);
        return total;
    }
    template <class F>
    __device__ __forceinline__ Move best(const F& f) const {
        Move move = f(lane);
        const Edge top = __reduce_max_sync(kAll, move.gain);
        const unsigned winners = __ballot_sync(kAll, move.gain == top);
        move.lane = lowest_bit(winners);
        move.gain = top;
        move.kind = static_cast<Kind>(__shfl_sync(kAll, static_cast<int>(move.kind), move.lane));
        move.rank3 = __shfl_sync(kAll, move.rank3, move.lane);
        move.rank5 = __shfl_sync(kAll, move.rank5, move.lane);
        return move;
    }
    __device__ __forceinline__ static void set_bits(uint32_t* word, uint32_t bits) { atomicOr(word, bits); }
};

FD_HOST_DEVICE int64_t aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }

FD_HOST_DEVICE int64_t point_bytes(int32_t n) { return aligned(int64_t{n} * 2 * sizeof(float)); }

// A warp's part of shared memory.
template <class Index>
FD_HOST_DEVICE int64_t warp_bytes(const Args& a) {
    const int64_t queue = (a.ring + 2 * a.log) * static_cast<int64_t>(sizeof(Index));
    const bool whole = sizeof(Index) == sizeof(uint16_t);
    const int64_t tour =
        words_of(a.n) * static_cast<int64_t>(sizeof(uint32_t)) + int64_t{a.n} * 2 * sizeof(Index);
    return aligned(queue + (whole ? tour : 0));
}

template <class Index>
__device__ Storage<Index> storage_at(const Args& a, unsigned char* shared, int32_t* scratch, int64_t walk) {
    Storage<Index> s;
    if constexpr (sizeof(Index) == sizeof(uint16_t)) {
        s.waiting = reinterpret_cast<uint32_t*>(shared);
        s.ring = reinterpret_cast<Index*>(s.waiting + words_of(a.n));
        s.order = s.ring + a.ring + 2 * a.log;
        s.pos = s.order + a.n;
    } else {
        s.ring = reinterpret_cast<Index*>(shared);
        s.order = scratch + walk * (2 * int64_t{a.n} + words_of(a.n));
        s.pos = s.order + a.n;
        s.waiting = reinterpret_cast<uint32_t*>(s.pos + a.n);
    }
    s.log = s.ring + a.ring;
    return s;
}

// Blocks of the largest size on a multiprocessor. 96 registers are few for places of 32 bits: those kernels,
// bound by global memory, get more rather than spill.
template <class Index>
constexpr int blocks_of() {
    return sizeof(Index) == sizeof(uint16_t) ? kResident / kMaxWarps : 1;
}

// A block holds some trajectories of one instance, `groups` blocks all of them.
template <class Index, bool kSharedPoints>
__global__ void __launch_bounds__(kMaxWarps* kLanes, blocks_of<Index>())
    search(const __grid_constant__ Args a, int32_t groups, int32_t* scratch) {
    const int64_t instance = blockIdx.x / groups;
    const int warp = static_cast<int>(threadIdx.x) / kLanes, warps = static_cast<int>(blockDim.x) / kLanes;
    const int64_t trajectory = static_cast<int64_t>(blockIdx.x % groups) * warps + warp;
    const float* points = a.points + instance * 2 * a.n;
    unsigned char* shared = dynamic_shared<unsigned char>();
    if constexpr (kSharedPoints) {
        auto* own = reinterpret_cast<float*>(shared);
        for (int32_t i = static_cast<int32_t>(threadIdx.x); i < 2 * a.n;
             i += static_cast<int32_t>(blockDim.x))
            own[i] = points[i];
        __syncthreads();
        points = own;
        shared += point_bytes(a.n);
    }
    if (trajectory >= a.trajectories) return;
    const auto s = storage_at<Index>(a, shared + warp * warp_bytes<Index>(a), scratch,
                                     instance * a.trajectories + trajectory);
    const WarpTeam team;
    Walk<WarpTeam, Index>(team, a, instance, trajectory, s, points).run();
}

int64_t shared_limit() {
    int device = 0, bytes = 0;
    FD_CUDA_CHECK(cudaGetDevice(&device));
    FD_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    return bytes;
}

// How many warps a block has: as many as fill a multiprocessor, and of equals the fewest.
struct Shape {
    int warps = 0, resident = 0;
    int64_t bytes = 0;

    Shape(int64_t trajectories, int64_t common, int64_t each, int64_t limit) {
        for (int w = 1; w <= std::min<int64_t>(kMaxWarps, trajectories); ++w) {
            const int64_t needed = common + w * each;
            if (needed > limit) break;
            constexpr int64_t kReserved = 1024;  // of the system, in each block
            const auto blocks = static_cast<int>((limit + kReserved) / (needed + kReserved));
            const int fill = std::min(kResident, w * blocks);
            if (fill > resident) {
                warps = w;
                resident = fill;
                bytes = needed;
            }
        }
    }
};

template <class Index, bool kSharedPoints>
void launch_search(void* stream, const Args& a, const Shape& shape, int32_t* scratch) {
    if (a.batch == 0 || a.trajectories == 0) return;
    const int64_t groups = (a.trajectories + shape.warps - 1) / shape.warps;
    launch(search<Index, kSharedPoints>, dim3(static_cast<unsigned>(a.batch * groups)),
           dim3(static_cast<unsigned>(shape.warps * kLanes)), static_cast<size_t>(shape.bytes), stream, a,
           static_cast<int32_t>(groups), scratch);
}

}  // namespace

bool fits_shared(int32_t n) {
    Args a{};
    a.n = n;
    return n < 0xffff && warp_bytes<uint16_t>(a) <= shared_limit();
}

int64_t scratch_words(int64_t batch, int64_t trajectories, int32_t n) {
    return batch * trajectories * (2 * int64_t{n} + words_of(n));
}

void search_shared_cuda(void* stream, const Args& a) {
    const int64_t limit = shared_limit(), each = warp_bytes<uint16_t>(a);
    const Shape with(a.trajectories, point_bytes(a.n), each, limit), without(a.trajectories, 0, each, limit);
    if (2 * with.resident >= without.resident) {
        launch_search<uint16_t, true>(stream, a, with, nullptr);
    } else {
        launch_search<uint16_t, false>(stream, a, without, nullptr);
    }
}

void search_global_cuda(void* stream, const Args& a, int32_t* scratch) {
    const Shape shape(a.trajectories, 0, warp_bytes<int32_t>(a), shared_limit());
    launch_search<int32_t, false>(stream, a, shape, scratch);
}

}  // namespace fd::tsp::slice
