// gumbel_topk on CUDA: a block of threads a row keeps the k largest z in shared memory.
//
// Chunks of 1024 logits: each thread looks at four, draws those whose bound reaches the k-th largest z known
// so far, and appends what is larger. When the memory (2048 or 4096 entries) fills up, or has grown enough to
// make the bar worth raising, it is sorted bitonically and cut to k.
//
// Roofline (H100). 2 bytes a bf16 logit, loaded one by one; some 40 instructions (block16: a Philox call for
// 16 logits, element: for 4): 0.7e12 logits/s, half of what memory gives. Few rows are bound by latency: the
// chunks of a row follow one another, 1 us each, and about ln(V / 1024) + 2 of them end in a sort of 10 us.
// It draws k (1 + ln(V / k)) noises a row.
#include <algorithm>
#include <climits>

#include "categorical/gumbel_launch.h"
#include "categorical/search_cuda.h"

namespace fd::categorical {
namespace {

constexpr int kThreads = kStride;
constexpr int kEach = 4;                  // logits of a thread in a chunk
constexpr int kChunk = kThreads * kEach;  // a quarter of a tile
constexpr int kEnough = 64;               // entries that make sorting worth it
constexpr int kEntryBytes = sizeof(double) + sizeof(int32_t);

struct TopKJob {
    CategoricalArgs args;
    int k, capacity;
    int64_t* tokens;
    double* z;
};

struct Entries {
    double* z;
    int32_t* token;

    __device__ bool before(int a, int b) const {
        return z[a] > z[b] || (z[a] == z[b] && token[a] < token[b]);
    }
    __device__ void set(int i, double value, int32_t which) const {
        z[i] = value;
        token[i] = which;
    }
    __device__ void swap(int a, int b) const {
        const double value = z[a];
        const int32_t which = token[a];
        set(a, z[b], token[b]);
        set(b, value, which);
    }
};

// Bitonic, best first. All threads of the block; n entries have been written before a barrier.
__device__ void sort(const Entries& entries, int n) {
    int padded = 1;
    while (padded < n) padded *= 2;
    const int thread = static_cast<int>(threadIdx.x);
    for (int i = n + thread; i < padded; i += kThreads) entries.set(i, kMinusInfinity<double>, INT_MAX);
    __syncthreads();
    for (int size = 2; size <= padded; size *= 2) {
        for (int stride = size / 2; stride > 0; stride /= 2) {
            for (int pair = thread; pair < padded / 2; pair += kThreads) {
                const int low = 2 * pair - (pair & (stride - 1)), high = low + stride;
                const bool best_first = (low & size) == 0;
                if (best_first ? entries.before(high, low) : entries.before(low, high))
                    entries.swap(low, high);
            }
            __syncthreads();
        }
    }
}

// What a row has, shared by its threads.
struct Kept {
    int count;       // entries
    double worst_z;  // of the k-th best; -inf while there are fewer
    int32_t worst_token;
};

// z of the four logits that a thread has in a chunk; -inf where they cannot matter.
template <class T>
class Chunk {
  public:
    __device__ Chunk(const Row<T>& row, const TileRow<T>& here, const TileSpan& span, Stream stream,
                     int quarter)
        : row_(row), stream_(stream), first_(quarter * kChunk) {
        FD_UNROLL
        for (int e = 0; e < kEach; ++e) {
            const int index = index_of(e);
            l_[e] = span.holds(index)
                        ? static_cast<double>(row.filtered(here.unfiltered(span.column + index)))
                        : kMinusInfinity<double>;
        }
    }

    // Index in the tile: places of one block, or neighbours.
    __device__ int index_of(int e) const {
        const int thread = static_cast<int>(threadIdx.x);
        return first_ + (stream_ == Stream::block16 ? kStride * e + thread : kEach * thread + e);
    }

    template <class Offer>
    __device__ void offer_all(const Bound& bound, int64_t tile, float bar, const Offer& offer) const {
        const uint32_t start = static_cast<uint32_t>(tile) * kTile;
        const bool blocks = stream_ == Stream::block16;
        const uint32_t v0 = start + static_cast<uint32_t>(index_of(0)), block = block_of(v0);
        const PhiloxWords words = blocks ? row_.key.words(StreamTag::block_prefix, block >> 3)
                                         : row_.key.words(StreamTag::element_prefix, v0 >> 3);
        FD_UNROLL
        for (int e = 0; e < kEach; ++e) {
            if (l_[e] == kMinusInfinity<double>) continue;
            const uint32_t v = start + static_cast<uint32_t>(index_of(e));
            const uint32_t prefix = half_of(words, (blocks ? block : v) & 7);
            const int32_t steps = blocks ? block_steps(prefix) : element_steps(prefix);
            if (!(bound.of(steps, bound_logit(l_[e])) >= bar)) continue;
            double z = l_[e];
            if (row_.temperature != 0) {
                z = blocks ? block_z(row_.key, bound, row_.temperature, block, place_of(v), l_[e], bar)
                           : element_z(row_.key, row_.temperature, v, prefix, l_[e]);
            }
            offer(z, static_cast<int32_t>(v));
        }
    }

  private:
    const Row<T>& row_;
    const Stream stream_;
    const int first_;
    double l_[kEach];
};

template <class T>
__global__ void __launch_bounds__(kThreads, 2) topk(TopKJob job) {
    __shared__ Row<T> row;
    __shared__ bool exists;
    __shared__ Kept kept;
    const CategoricalArgs& a = job.args;
    double* memory = dynamic_shared<double>();
    const Entries entries{memory, reinterpret_cast<int32_t*>(memory + job.capacity)};
    const int thread = static_cast<int>(threadIdx.x), lane = lane_of_thread();
    const auto trim = [&] {  // between barriers
        const int count = kept.count;
        sort(entries, count);
        if (thread == 0 && count >= job.k) {
            kept.count = job.k;
            kept.worst_z = entries.z[job.k - 1];
            kept.worst_token = entries.token[job.k - 1];
        }
        __syncthreads();
    };
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        if (thread == 0) {
            exists = a.row_index == nullptr || (a.row_index[r] >= 0 && a.row_index[r] < a.logit_rows);
            if (exists) row = draw_row<T>(a, r);
            kept.count = 0;
            kept.worst_z = kMinusInfinity<double>;
            kept.worst_token = INT_MAX;
        }
        __syncthreads();
        const int64_t first = a.vocab_start / kTile, last = (a.vocab_start + a.vocab - 1) / kTile + 1;
        const Bound bound(exists ? row.temperature : 0.0);
        for (int64_t tile = first; exists && tile < last; ++tile) {
            const TileSpan span(tile, a.vocab_start, a.vocab);
            const TileRow<T> here(row, span, lane);
            for (int quarter = span.first / kChunk; quarter * kChunk < span.last; ++quarter) {
                const Choice worst{kept.worst_z, kept.worst_token};
                Chunk<T>(row, here, span, a.stream, quarter)
                    .offer_all(bound, tile, bound.threshold(worst.z), [&](double z, int32_t token) {
                        if (worst.loses_to(z, token)) {
                            const int at = atomicAdd(&kept.count, 1);
                            entries.set(at, z, token);
                        }
                    });
                __syncthreads();
                const bool full = kept.count > job.capacity - kChunk || kept.count >= 2 * job.k + kEnough;
                if (__syncthreads_or(full)) trim();  // a barrier too: all have read the count
            }
        }
        trim();
        for (int i = thread; i < job.k; i += kThreads) {
            const bool filled = i < kept.count;
            job.tokens[r * job.k + i] = filled ? entries.token[i] : -1;
            job.z[r * job.k + i] = filled ? entries.z[i] : kMinusInfinity<double>;
        }
        __syncthreads();  // everything has been read
    }
}

template <class T>
void launch_topk(void* stream, const TopKJob& job) {
    const dim3 grid(static_cast<unsigned>(std::min<int64_t>(job.args.rows, INT_MAX)));
    // a little more than what is used: above 48 KiB shared memory has to be asked for
    launch(topk<T>, grid, kThreads, static_cast<size_t>(job.capacity * kEntryBytes + 16), stream, job);
}

}  // namespace

void topk_cuda(void* stream, const CategoricalArgs& args, int k, int64_t* tokens, double* z) {
    const TopKJob job{args, k, k <= kChunk / 4 ? 2 * kChunk : 4 * kChunk, tokens, z};
    switch (args.dtype) {
        case DType::f16:
            return launch_topk<half>(stream, job);
        case DType::bf16:
            return launch_topk<bfloat16>(stream, job);
        case DType::f32:
            return launch_topk<float>(stream, job);
        case DType::f64:
            return launch_topk<double>(stream, job);
    }
}

}  // namespace fd::categorical
