// inverse_cdf on CUDA: tile sums by one warp a tile, then the search by one warp a row.
//
// Roofline. The numbers are read once, and one tile a second time: 2 bytes for a bf16 probability, 0.6 ps at
// 3.3 TB/s (H100). A number costs a conversion, a comparison and one float64 addition; a chunk of 64 five
// shuffles more. So memory is the bound, given enough tiles: one row of 126464 has 31 warps' work and is
// bound by latency, some 10 us. Scratch memory is one float64 for 4096 numbers.
#include <algorithm>

#include "categorical/inverse_cdf_launch.h"
#include "common/launch.h"

namespace fd::categorical {
namespace {

constexpr int kThreads = 128, kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

// Lane i of a warp holds numbers i and i + 32 of 64.
struct Pair {
    double low, high;

    // All lanes get number i.
    __device__ double at(int i) const { return __shfl_sync(kAll, i < kWarp ? low : high, i % kWarp); }
    // Lane 0 gets the sum; halves are added.
    __device__ double sum() const {
        double a = low + high;
        FD_UNROLL
        for (int h = kWarp / 2; h > 0; h /= 2) a += __shfl_down_sync(kAll, a, h);
        return a;
    }
};

template <class T>
__device__ Pair load_chunk(const T* p, int64_t at, int64_t n, int lane) {
    const int64_t low = at + lane, high = low + kWarp;
    return {low < n ? probability(p[low]) : 0.0, high < n ? probability(p[high]) : 0.0};
}

// Chunk sums of a tile.
template <class T>
__device__ Pair chunk_sums(const T* p, int64_t first, int64_t n, int lane) {
    Pair own{0, 0};
    constexpr int kAhead = 4;  // loads under way together
    for (int c = 0; c < kChunks; c += kAhead) {
        Pair chunks[kAhead];
        FD_UNROLL
        for (int k = 0; k < kAhead; ++k) chunks[k] = load_chunk(p, first + (c + k) * kChunk, n, lane);
        FD_UNROLL
        for (int k = 0; k < kAhead; ++k) {
            const double sum = __shfl_sync(kAll, chunks[k].sum(), 0);
            if ((c + k) % kWarp == lane) (c + k < kWarp ? own.low : own.high) = sum;
        }
    }
    return own;
}

template <class T>
__global__ void __launch_bounds__(kThreads) tile_sums(InverseCdfArgs a, double* sums) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int64_t warps = int64_t{gridDim.x} * (kThreads / kWarp), tiles = a.tiles();
    for (int64_t unit = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp; unit < a.rows * tiles;
         unit += warps) {
        const T* p = static_cast<const T*>(a.probs) + unit / tiles * a.row_stride;
        const double sum = chunk_sums(p, unit % tiles * kSumTile, a.vocab, lane).sum();
        if (lane == 0) sums[unit] = sum;
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads) search(InverseCdfArgs a, const double* all_sums, int64_t* out) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int64_t warps = int64_t{gridDim.x} * (kThreads / kWarp), tiles = a.tiles();
    for (int64_t r = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp; r < a.rows; r += warps) {
        const T* p = static_cast<const T*>(a.probs) + r * a.row_stride;
        const double* sums = all_sums + r * tiles;
        // Every lane does the same, on numbers that one of them has loaded.
        double total = 0;
        for (int64_t first = 0; first < tiles; first += kWarp) {
            const double own = first + lane < tiles ? sums[first + lane] : 0.0;
            for (int i = 0; i < kWarp; ++i) total += __shfl_sync(kAll, own, i);
        }
        int64_t token_place = -1;
        if (is_mass(total)) {
            Search tile{a.uniform_of_row(r) * total};
            for (int64_t first = 0; first < tiles; first += kWarp) {
                const double own = first + lane < tiles ? sums[first + lane] : 0.0;
                for (int i = 0; i < kWarp; ++i) tile.offer(__shfl_sync(kAll, own, i), first + i);
            }
            Search chunk{tile.x, tile.before_place};
            const Pair chunks = chunk_sums(p, tile.place * kSumTile, a.vocab, lane);
            for (int c = 0; c < kChunks; ++c) chunk.offer(chunks.at(c), tile.place * kSumTile + c * kChunk);
            Search token{tile.x, chunk.before_place};
            const Pair numbers = load_chunk(p, chunk.place, a.vocab, lane);
            for (int i = 0; i < kChunk; ++i) token.offer(numbers.at(i), chunk.place + i);
            token_place = token.place;
        }
        if (lane == 0) out[r] = token_place;
    }
}

template <class T>
void launch_draws(void* stream, const InverseCdfArgs& a, double* sums, int64_t* out) {
    launch(tile_sums<T>, stride_grid(a.rows * a.tiles() * kWarp, kThreads, 16), kThreads, 0, stream, a, sums);
    launch(search<T>, stride_grid(a.rows * kWarp, kThreads, 16), kThreads, 0, stream, a, sums, out);
}

}  // namespace

void inverse_cdf_cuda(void* stream, const InverseCdfArgs& a, double* sums, int64_t* out) {
    switch (a.dtype) {
        case DType::f16:
            return launch_draws<half>(stream, a, sums, out);
        case DType::bf16:
            return launch_draws<bfloat16>(stream, a, sums, out);
        case DType::f32:
            return launch_draws<float>(stream, a, sums, out);
        case DType::f64:
            return launch_draws<double>(stream, a, sums, out);
    }
}

}  // namespace fd::categorical
