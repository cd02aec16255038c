// Gradients of the encodings towards the table on CUDA: every point adds weight times upstream gradient to
// the entries that it read.
//
// Bound by atomic additions in L2, one for each vertex: two or four features go as one vector from sm_90 on,
// else one by one. If L2 adds to half as many sectors as it reads, 86 a nanosecond on an H100, that is, with
// 16 levels, 1.3e9 points/s for the simplex in three dimensions and 6.7e8 for the cubic grid. Coarse levels,
// where many points meet in few entries, are summed in shared memory and flushed once a block.
//
// Deterministic: addends become integers, whose sum knows no order. A first pass finds the largest addend of
// a level, which sets the unit so that no sum overflows: 2^-38 of it for 2^20 points with 8 vertices. Costs a
// second look at every point, and additions of 8 bytes for each feature.
#include <algorithm>

#include "simplex/vertices_cuda.h"

namespace fd::encoding {
namespace {

constexpr int kSector = 32;
constexpr int64_t kSharedBytes = 48 * 1024;
constexpr int64_t kCoarse = 32, kFlush = 8;  // addends an entry: of a level in shared memory, of each block
constexpr int kBlocksPerProcessor = 16;
constexpr uint64_t kInfinity = 0x7ff0000000000000u;  // bits of a double

enum class Mode { add, fixed, largest };

// Levels that one launch works on.
struct LevelList {
    uint8_t level[kMaxLevels];
    int count;
};

template <class Real>
struct ScatterArgs {
    Levels<Real> levels;
    LevelList list;
    const Real *x, *u;
    FeatureRows<const void> grad;
    Real* table;
    FixedPoint fixed;
    int64_t points, addends;
    int features, at_once;
    Bounds bounds;
    bool shared;  // the level is summed in shared memory; at_once is 1
};

__device__ __forceinline__ double power_of_two(int e) {
    return bit_cast<double>(static_cast<uint64_t>(1023 + e) << 52);
}

// The integers of a level are multiples of 2^-exponent; 2^62 bounds their sums.
__device__ __forceinline__ int exponent_of(uint64_t largest, int64_t addends) {
    const int bits = 64 - __clzll(addends), above = static_cast<int>(largest >> 52) - 1022;
    return min(62 - bits - above, 1000);
}

__device__ __forceinline__ void add(float* to, float value) { atomicAdd(to, value); }
__device__ __forceinline__ void add(double* to, double value) { atomicAdd(to, value); }
__device__ __forceinline__ void add(int64_t* to, int64_t value) {
    atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}

// to[i] += addend[i], in global memory.
template <int V, class Total>
__device__ __forceinline__ void add_vector(Total* to, const Total* addend) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    constexpr bool kVectors = std::is_same_v<Total, float>;
#else
    constexpr bool kVectors = false;
#endif
    if constexpr (kVectors && V == 2) {
        atomicAdd(reinterpret_cast<float2*>(to), make_float2(addend[0], addend[1]));
    } else if constexpr (kVectors && V == 4) {
        atomicAdd(reinterpret_cast<float4*>(to), make_float4(addend[0], addend[1], addend[2], addend[3]));
    } else {
        FD_UNROLL
        for (int i = 0; i < V; ++i) add(to + i, addend[i]);
    }
}

// What a kernel of each mode adds up: reals, or integers of a level's unit.
template <Mode M, class Real>
using Sum = std::conditional_t<M == Mode::add, Real, int64_t>;

template <Mode M, class Real>
__device__ __forceinline__ Sum<M, Real>* sums_of(const ScatterArgs<Real>& a) {
    if constexpr (M == Mode::add) {
        return a.table;
    } else {
        return a.fixed.sums;
    }
}

template <Mode M, Lattice L, int N, class Real>
__global__ void __launch_bounds__(kThreads, 1) scatter(const __grid_constant__ ScatterArgs<Real> a) {
    using Total = Sum<M, Real>;
    Total* const local = dynamic_shared<Total>();
    const int begin = static_cast<int>(blockIdx.y) * a.at_once, end = min(begin + a.at_once, a.list.count);
    const auto size = static_cast<int64_t>(a.levels.level[a.list.level[begin]].size) * a.features;
    if (a.shared) {
        for (int64_t i = threadIdx.x; i < size; i += kThreads) local[i] = Total(0);
        __syncthreads();
    }
    uint64_t largest = 0;
    const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
    for (int64_t p = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; p < a.points; p += stride) {
        const Point<N, Real> point(a.x, a.u, p, a.bounds);
        FD_NO_UNROLL
        for (int at = begin; at < end; ++at) {
            const int l = a.list.level[at];
            const Level<Real>& level = a.levels.level[l];
            const Vertices<L, N, Real> vertices(level, point, a.bounds);
            Total* const sums = sums_of<M>(a) + level.offset * a.features;
            double unit = 1;
            if constexpr (M == Mode::fixed) unit = power_of_two(exponent_of(a.fixed.largest[l], a.addends));
            // V features of all vertices
            const auto scatter_features = [&]<int V>(int c) {
                Real upstream[V];
                FD_UNROLL
                for (int i = 0; i < V; ++i)
                    load_vector<1>(a.grad, (p * a.levels.count + l) * a.features + c + i, upstream + i);
                vertices.each([&](uint32_t entry, Real weight) {
                    if (!(weight == weight)) return;  // a point without a cell
                    const int64_t at = int64_t{entry} * a.features + c;
                    Total addend[V];
                    FD_UNROLL
                    for (int i = 0; i < V; ++i) {
                        if constexpr (M == Mode::add) {
                            addend[i] = weight * upstream[i];
                        } else {
                            const double exact =
                                static_cast<double>(weight) * static_cast<double>(upstream[i]);
                            const uint64_t magnitude = bit_cast<uint64_t>(exact) & ~(uint64_t{1} << 63);
                            if constexpr (M == Mode::largest) largest = max(largest, magnitude);
                            addend[i] = __double2ll_rn(exact * unit);
                        }
                    }
                    if constexpr (M == Mode::largest) return;
                    if (!a.shared) return add_vector<V>(sums + at, addend);
                    FD_UNROLL
                    for (int i = 0; i < V; ++i) add(local + at + i, addend[i]);
                });
            };
            if constexpr (M != Mode::add) {
                FD_NO_UNROLL
                for (int c = 0; c < a.features; ++c) scatter_features.template operator()<1>(c);
            } else if (a.features == 2) {
                scatter_features.template operator()<2>(0);
            } else if (a.features >= 4) {
                FD_NO_UNROLL
                for (int c = 0; c < a.features; c += 4) scatter_features.template operator()<4>(c);
            } else {
                scatter_features.template operator()<1>(0);
            }
        }
    }
    if constexpr (M == Mode::largest) {
        FD_UNROLL
        for (int d = 16; d > 0; d /= 2) largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, d));
        if (threadIdx.x % 32 == 0)
            atomicMax(reinterpret_cast<unsigned long long*>(a.fixed.largest + a.list.level[begin]),
                      static_cast<unsigned long long>(largest));
    } else if (a.shared) {
        __syncthreads();
        Total* const to = sums_of<M>(a) + a.levels.level[a.list.level[begin]].offset * a.features;
        for (int64_t i = threadIdx.x; i < size; i += kThreads) {
            if (local[i] != Total(0)) add(to + i, local[i]);
        }
    }
}

template <class Real>
__global__ void __launch_bounds__(kThreads, 1) resolve(const __grid_constant__ ScatterArgs<Real> a) {
    const int l = a.list.level[blockIdx.y];
    const Level<Real>& level = a.levels.level[l];
    const uint64_t largest = a.fixed.largest[l];
    const double unit = power_of_two(-exponent_of(largest, a.addends));
    const int64_t first = level.offset * a.features, size = int64_t{level.size} * a.features;
    const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < size; i += stride) {
        const double sum = static_cast<double>(a.fixed.sums[first + i]) * unit;
        a.table[first + i] =
            largest >= kInfinity ? static_cast<Real>(__builtin_nan("")) : static_cast<Real>(sum);
    }
}

// Levels that are summed in shared memory: small, and with many addends for each entry.
template <Mode M, class Real>
bool is_coarse(const ScatterArgs<Real>& args, const Level<Real>& level) {
    const int64_t bytes = int64_t{level.size} * args.features * static_cast<int64_t>(sizeof(Sum<M, Real>));
    return M != Mode::largest && bytes <= kSharedBytes && args.addends >= kCoarse * level.size;
}

template <Mode M, class Real>
void launch_scatter(void* stream, const CudaShape& shape, const ScatterArgs<Real>& args) {
    const int row_bytes = static_cast<int>(args.features * size_of(args.grad.type));
    ScatterArgs<Real> coarse = args, fine = args;
    coarse.list.count = fine.list.count = 0;
    coarse.shared = true;
    coarse.at_once = 1;
    fine.at_once = M == Mode::largest ? 1 : std::max(kSector / row_bytes, 1);
    int64_t largest = 1;
    for (int i = 0; i < args.list.count; ++i) {
        const uint8_t l = args.list.level[i];
        const Level<Real>& level = args.levels.level[l];
        LevelList& list = is_coarse<M>(args, level) ? coarse.list : fine.list;
        list.level[list.count++] = l;
        if (&list == &coarse.list) largest = std::max<int64_t>(largest, level.size);
    }
    with_lattice(shape, [&]<Lattice L, int N>() {
        if (coarse.list.count > 0) {
            dim3 grid = stride_grid(args.points, kThreads, 2);
            grid.x = static_cast<unsigned>(std::min<int64_t>(grid.x, args.addends / (kFlush * largest)));
            grid.y = static_cast<unsigned>(coarse.list.count);
            const size_t bytes = static_cast<size_t>(largest * args.features) * sizeof(Sum<M, Real>);
            launch(scatter<M, L, N, Real>, grid, kThreads, bytes, stream, coarse);
        }
        if (fine.list.count > 0) {
            dim3 grid = stride_grid(args.points, kThreads, kBlocksPerProcessor);
            grid.y = static_cast<unsigned>((fine.list.count + fine.at_once - 1) / fine.at_once);
            launch(scatter<M, L, N, Real>, grid, kThreads, 0, stream, fine);
        }
    });
}

}  // namespace

template <class Real>
void encode_vjp_table_cuda(void* stream, const CudaShape& shape, const Levels<Real>& levels, const Real* x,
                           const Real* u, FeatureRows<const void> grad, const FixedPoint& fixed,
                           Real* table) {
    if (shape.points == 0 || shape.used_levels == 0) return;
    const int n = shape.axes;
    const int vertices = shape.lattice == Lattice::simplex ? simplex::vertices(n) : grid::vertices(n);
    ScatterArgs<Real> args{levels,
                           {},
                           x,
                           u,
                           grad,
                           table,
                           fixed,
                           shape.points,
                           shape.points * vertices,
                           shape.features,
                           1,
                           shape.bounds,
                           false};
    int64_t entries = 0;
    for (int l = 0; l < shape.used_levels; ++l) {
        args.list.level[args.list.count++] = static_cast<uint8_t>(l);
        entries = std::max<int64_t>(entries, levels.level[l].size);
    }
    if (fixed.sums == nullptr) return launch_scatter<Mode::add, Real>(stream, shape, args);
    launch_scatter<Mode::largest, Real>(stream, shape, args);
    launch_scatter<Mode::fixed, Real>(stream, shape, args);
    dim3 grid = stride_grid(entries * shape.features, kThreads, kBlocksPerProcessor);
    grid.y = static_cast<unsigned>(shape.used_levels);
    launch(resolve<Real>, grid, kThreads, 0, stream, args);
}

template void encode_vjp_table_cuda<float>(void*, const CudaShape&, const Levels<float>&, const float*,
                                           const float*, FeatureRows<const void>, const FixedPoint&, float*);
template void encode_vjp_table_cuda<double>(void*, const CudaShape&, const Levels<double>&, const double*,
                                            const double*, FeatureRows<const void>, const FixedPoint&,
                                            double*);

}  // namespace fd::encoding
