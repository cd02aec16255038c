// knn on CUDA: the k nearest of every point, exact, the same bits as on the CPU.
//
// Small instances: all pairs. A block holds 128 queries and streams the points through shared memory in
// tiles; all lanes read one point at a time (a broadcast). A pair is some 8 instructions, of which 5 are
// float64: 128 instances of 1000 points, 1.3e8 pairs, are bound by arithmetic at some 0.1 ms (H100, 33e12
// float64 operations/s; ten times that where float64 is slow). Memory (1 MB in, 10 MB out) is a tenth of it.
//
// Large ones: a grid of about 2 points a cell. Bounds, histogram of cells, prefix sums, scatter: a counting
// sort that reads the points three times, 8 or 16 bytes each, and writes them once as 16- or 32-byte records.
// Then a thread a point, in the order of cells, so that the lanes of a warp read the same few lines: rings of
// cells until the k-th nearest is nearer than all that is left. For k = 10 that is 25 cells, 50 points, of
// which 26 enter the list at some 100 instructions: about 4000 instructions a warp and point. A million
// points are 1.3e8 warp instructions, 0.15 ms; traffic is 24 MB for the sort and 80 MB of results, 0.03 ms
// at 3.3 TB/s: bound by arithmetic, the list's. Results are the same in whatever order atomics place a cell's
// points, since equal distances are ordered by id.
//
// A cell with m points costs m^2: copies and dense clusters in a large box are slow here, but right.
#include <algorithm>

#include "common/launch.h"
#include "tsp/knn_best_cuda.h"
#include "tsp/knn_launch.h"

namespace fd::tsp {
namespace {

constexpr int kThreads = 128;
constexpr int kBlocks = 4;    // of a processor at least: 128 registers, so that lists do not spill
constexpr int kScanned = 16;  // cells a thread sums up
constexpr int kChunk = kThreads * kScanned;  // cells a block sums up
constexpr int kBoundsBlocks = 64;            // an instance
constexpr unsigned kWarp = 0xffffffffu;

int64_t blocks_for(int64_t work, int64_t each) { return (work + each - 1) / each; }

dim3 grid_of(int64_t blocks) { return dim3(static_cast<unsigned>(blocks)); }

// Which instance a block works on, and which part of it.
struct Share {
    int64_t instance, part;

    __device__ explicit Share(int64_t parts) : instance(blockIdx.x / parts), part(blockIdx.x % parts) {}
    __device__ int64_t thread() const { return part * kThreads + threadIdx.x; }
};

template <class T, int L>
__global__ void __launch_bounds__(kThreads, kBlocks)
    all_pairs(const T* __restrict__ coords, int64_t points, int64_t k, int64_t parts,
              int32_t* __restrict__ ids, float* __restrict__ distances) {
    __shared__ Place shared[kThreads];
    Place* tile = shared;
    const Share share(parts);
    const int64_t own = share.thread(), row = (share.instance * points + own) * k;
    const T* xy = coords + share.instance * points * 2;
    const Place at = load_place(xy, own < points ? own : 0);
    const auto scan = [&](Best<L>& best, const auto& after) {
        for (int64_t first = 0; first < points; first += kThreads) {
            __syncthreads();
            if (first + threadIdx.x < points) tile[threadIdx.x] = load_place(xy, first + threadIdx.x);
            __syncthreads();
            const int used = static_cast<int>(points - first < kThreads ? points - first : kThreads);
            for (int j = 0; j < used; ++j) {
                const auto id = static_cast<City>(first + j);
                const double d2 = square(tile[j], at);
                if (id != own && after(d2, id)) best.offer(d2, id);
            }
        }
    };
    in_passes<L>(k, scan, ids + row, distances + row, own < points);
}

// ---- the grid

// A point in the order of cells.
template <class T>
struct alignas(sizeof(T) * 4) Record {
    T x, y;
    City id;
};

// Bits of a double as integers in the same order; NaN comes after everything.
__device__ unsigned long long ordered(double v) {
    const auto bits = static_cast<unsigned long long>(__double_as_longlong(v));
    return bits >> 63 ? ~bits : bits | 1ull << 63;
}
__device__ double from_ordered(unsigned long long key) {
    return __longlong_as_double(static_cast<long long>(key >> 63 ? key & ~(1ull << 63) : ~key));
}

// The parts of the scratch memory; `cells` is a multiple of a chunk, and no grid has more.
template <class T>
struct Workspace {
    Record<T>* records;          // [batch, points]
    unsigned long long* bounds;  // [batch, 4] low x, low y, -high x, -high y, ordered
    Grid* grids;                 // [batch]
    int32_t* first;              // [batch, cells] counts, then starts, then (after the scatter) ends
    int32_t* sums;               // [batch, cells / kChunk]
    int64_t cells, bytes;

    Workspace(unsigned char* place, int64_t batch, int64_t points)
        : cells(blocks_for(points + 8, kChunk) * kChunk) {
        int64_t at = 0;
        const auto take = [&]<class Item>(Item*& item, int64_t count) {
            item = reinterpret_cast<Item*>(place + at);
            at += blocks_for(count * static_cast<int64_t>(sizeof(Item)), 32) * 32;
        };
        take(records, batch * points);
        take(bounds, batch * 4);
        take(grids, batch);
        take(first, batch * cells);
        take(sums, batch * cells / kChunk);
        bytes = at;
    }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    find_bounds(const T* __restrict__ coords, int64_t points, int64_t parts, unsigned long long* bounds) {
    const Share share(parts);
    const T* xy = coords + share.instance * points * 2;
    unsigned long long least[4] = {~0ull, ~0ull, ~0ull, ~0ull};
    for (int64_t i = share.thread(); i < points; i += parts * kThreads) {
        const Place p = load_place(xy, i);
        const double v[4] = {p.x, p.y, -p.x, -p.y};
        if (p.x == p.x) {
            FD_UNROLL
            for (int s = 0; s < 4; ++s) least[s] = min(least[s], ordered(v[s]));
        }
    }
    FD_UNROLL
    for (int s = 0; s < 4; ++s) {
        FD_UNROLL
        for (int lanes = 16; lanes > 0; lanes /= 2) {
            least[s] = min(least[s], __shfl_xor_sync(kWarp, least[s], lanes));
        }
        if (threadIdx.x % 32 == 0) atomicMin(bounds + 4 * share.instance + s, least[s]);
    }
}

__global__ void __launch_bounds__(kThreads)
    make_grids(const unsigned long long* __restrict__ bounds, int64_t batch, int64_t points, Grid* grids) {
    const int64_t b = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (b >= batch) return;
    const unsigned long long* v = bounds + 4 * b;
    const Box box{{from_ordered(v[0]), from_ordered(v[1])}, {-from_ordered(v[2]), -from_ordered(v[3])}};
    grids[b] = Grid::over(box, points);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    count_cells(const T* __restrict__ coords, const Grid* __restrict__ grids, int64_t points, int64_t parts,
                int64_t cells, int32_t* first) {
    const Share share(parts);
    const int64_t i = share.thread();
    if (i >= points) return;
    const Place p = load_place(coords + share.instance * points * 2, i);
    if (p.x == p.x) atomicAdd(first + share.instance * cells + grids[share.instance].cell_of(p.x, p.y), 1);
}

// The sum over the block, for all threads; `slots` has one for each warp.
__device__ int32_t sum_of_block(int32_t value, int32_t* slots) {
    FD_UNROLL
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kWarp, value, lanes);
    __syncthreads();
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
    __syncthreads();
    int32_t sum = 0;
    for (int warp = 0; warp < kThreads / 32; ++warp) sum += slots[warp];
    return sum;
}

using Cells = Vec<int32_t, 4>;  // 16 bytes

__global__ void __launch_bounds__(kThreads) sum_chunks(const int32_t* __restrict__ counts, int32_t* sums) {
    __shared__ int32_t slots[kThreads / 32];
    const auto* own = reinterpret_cast<const Cells*>(counts + static_cast<int64_t>(blockIdx.x) * kChunk);
    int32_t sum = 0;
    for (int i = 0; i < kScanned / 4; ++i) {
        const Cells four = own[i * kThreads + threadIdx.x];
        sum += four.v[0] + four.v[1] + four.v[2] + four.v[3];
    }
    sum = sum_of_block(sum, slots);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Counts to starts, one chunk a block; the chunks before it are added up again by every block, which is few
// reads: 500 for a million points.
__global__ void __launch_bounds__(kThreads)
    scan_chunks(const int32_t* __restrict__ sums, int64_t parts, int32_t* first) {
    __shared__ int32_t slots[kThreads / 32];
    const Share share(parts);
    int32_t before = 0;
    for (int64_t c = threadIdx.x; c < share.part; c += kThreads) before += sums[share.instance * parts + c];
    before = sum_of_block(before, slots);
    auto* own = reinterpret_cast<Cells*>(first + static_cast<int64_t>(blockIdx.x) * kChunk);
    Cells four[kScanned / 4];
    int32_t sum = 0;
    FD_UNROLL
    for (int i = 0; i < kScanned / 4; ++i) {
        four[i] = own[threadIdx.x * (kScanned / 4) + i];
        FD_UNROLL
        for (int j = 0; j < 4; ++j) sum += four[i].v[j];
    }
    int32_t up_to = sum;  // of the warp's lanes up to this one
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    FD_UNROLL
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        const int32_t lower = __shfl_up_sync(kWarp, up_to, lanes);
        if (lane >= lanes) up_to += lower;
    }
    __syncthreads();
    if (lane == 31) slots[warp] = up_to;
    __syncthreads();
    for (int w = 0; w < warp; ++w) before += slots[w];
    int32_t start = before + up_to - sum;
    FD_UNROLL
    for (int i = 0; i < kScanned / 4; ++i) {
        FD_UNROLL
        for (int j = 0; j < 4; ++j) {
            const int32_t count = four[i].v[j];
            four[i].v[j] = start;
            start += count;
        }
        own[threadIdx.x * (kScanned / 4) + i] = four[i];
    }
}

// A point that is not finite is in no cell; its row is written here.
template <class T>
__global__ void __launch_bounds__(kThreads)
    scatter(const T* __restrict__ coords, int64_t points, int64_t parts, int64_t k, Workspace<T> w,
            int32_t* __restrict__ ids, float* __restrict__ distances) {
    const Share share(parts);
    const int64_t i = share.thread(), b = share.instance;
    if (i >= points) return;
    const Place p = load_place(coords + b * points * 2, i);
    if (p.x == p.x) {
        const int32_t to = atomicAdd(w.first + b * w.cells + w.grids[b].cell_of(p.x, p.y), 1);
        w.records[b * points + to] = {static_cast<T>(p.x), static_cast<T>(p.y), static_cast<City>(i)};
        return;
    }
    for (int64_t j = (b * points + i) * k; j < (b * points + i + 1) * k; ++j) {
        ids[j] = -1;
        distances[j] = std::numeric_limits<float>::quiet_NaN();
    }
}

template <class T, int L>
__global__ void __launch_bounds__(kThreads, kBlocks)
    search(int64_t points, int64_t parts, int64_t k, Workspace<T> w, int32_t* __restrict__ ids,
           float* __restrict__ distances) {
    const Share share(parts);
    const Record<T>* __restrict__ records = w.records + share.instance * points;
    const int32_t* __restrict__ ends = w.first + share.instance * w.cells;
    if (share.thread() >= ends[w.cells - 1]) return;
    const Grid grid = w.grids[share.instance];
    const Record<T> own = records[share.thread()];
    const Place at{own.x, own.y};
    const int32_t column = grid.along(at.x, 0), line = grid.along(at.y, 1);
    const auto scan = [&](Best<L>& best, const auto& after) {
        for (int32_t ring = 0;; ++ring) {
            cells_of_ring(grid, column, line, ring, [&](int64_t cell, int64_t last) {
                const int32_t end = ends[last - 1];
                for (int32_t p = cell == 0 ? 0 : ends[cell - 1]; p < end; ++p) {
                    const Record<T> there = records[p];
                    const double d2 = square({there.x, there.y}, at);
                    if (there.id != own.id && after(d2, there.id)) best.offer(d2, there.id);
                }
            });
            const double reach = grid.reach(at.x, at.y, column, line, ring);
            if (reach == Grid::kInfinite || best.d2[L - 1] < reach * reach) return;
        }
    };
    const int64_t row = (share.instance * points + own.id) * k;
    in_passes<L>(k, scan, ids + row, distances + row, true);
}

// Calls run with the length of the list as a type: 8 or 16 in registers, in several passes for more.
template <class Run>
void with_list(int64_t k, const Run& run) {
    k <= 8 ? run(std::integral_constant<int, 8>{}) : run(std::integral_constant<int, 16>{});
}

}  // namespace

template <class T>
void knn_pairs_cuda(void* stream, const T* coords, int64_t batch, int64_t points, int64_t k, int32_t* ids,
                    float* distances) {
    const int64_t parts = blocks_for(points, kThreads);
    with_list(k, [&](auto length) {
        launch(all_pairs<T, length()>, grid_of(batch * parts), kThreads, 0, stream, coords, points, k, parts,
               ids, distances);
    });
}

template <class T>
int64_t knn_scratch(int64_t batch, int64_t points) {
    return Workspace<T>(nullptr, batch, points).bytes;
}

template <class T>
void knn_grid_cuda(void* stream, const T* coords, int64_t batch, int64_t points, int64_t k, int32_t* ids,
                   float* distances, unsigned char* scratch) {
    if (batch == 0) return;
    const Workspace<T> w(scratch, batch, points);
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    FD_CUDA_CHECK(cudaMemsetAsync(w.bounds, 0xff, batch * 4 * sizeof *w.bounds, cuda_stream));
    FD_CUDA_CHECK(cudaMemsetAsync(w.first, 0, batch * w.cells * sizeof *w.first, cuda_stream));
    const int64_t parts = blocks_for(points, kThreads), few = std::min<int64_t>(parts, kBoundsBlocks);
    const int64_t chunks = w.cells / kChunk;
    launch(find_bounds<T>, grid_of(batch * few), kThreads, 0, stream, coords, points, few, w.bounds);
    launch(make_grids, grid_of(blocks_for(batch, kThreads)), kThreads, 0, stream, w.bounds, batch, points,
           w.grids);
    launch(count_cells<T>, grid_of(batch * parts), kThreads, 0, stream, coords, w.grids, points, parts,
           w.cells, w.first);
    launch(sum_chunks, grid_of(batch * chunks), kThreads, 0, stream, w.first, w.sums);
    launch(scan_chunks, grid_of(batch * chunks), kThreads, 0, stream, w.sums, chunks, w.first);
    launch(scatter<T>, grid_of(batch * parts), kThreads, 0, stream, coords, points, parts, k, w, ids,
           distances);
    with_list(k, [&](auto length) {
        launch(search<T, length()>, grid_of(batch * parts), kThreads, 0, stream, points, parts, k, w, ids,
               distances);
    });
}

#define FD_INSTANTIATE(T)                                                                          \
    template void knn_pairs_cuda<T>(void*, const T*, int64_t, int64_t, int64_t, int32_t*, float*); \
    template int64_t knn_scratch<T>(int64_t, int64_t);                                             \
    template void knn_grid_cuda<T>(void*, const T*, int64_t, int64_t, int64_t, int32_t*, float*,   \
                                   unsigned char*);
FD_INSTANTIATE(float)
FD_INSTANTIATE(double)
#undef FD_INSTANTIATE

}  // namespace fd::tsp
