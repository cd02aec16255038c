// simplex_encode and grid_encode on CUDA, and their derivatives that read the table: features, derivative
// along a direction, gradient of the coordinates.
//
// Bound by the sectors (32 bytes) that gathering entries moves from L2: a vertex costs one, whatever the
// features; of a step along axis 0, whose prime is 1, most ends in the same sector. With e entries a sector
// that is n + 1/e sectors per point and level for the simplex and 2^(n-1) (1 + 1/e) for the cubic grid. At
// some 5.5 TB/s from the L2 of an H100, F = 2 in float16 (e = 8), 16 levels:
//   simplex n = 2: 5.0e9 points/s, 3: 3.4e9, 4: 2.6e9, 8: 1.3e9;  grid n = 2: 4.8e9, 3: 2.4e9, 4: 1.2e9, 8:
//   7e7
// and a fraction of it where a level is larger than L2 (50 MB; 2^19 entries of four bytes are 2 MiB). The
// arithmetic, 100 to 400 instructions per point and level, is below that.
//
// A thread takes a point through the levels that fill one sector of its row of the result: so rows [N, L F]
// reach memory in whole sectors, and all blocks at work read few levels, which stay in L2. The gradient of
// the coordinates has one thread for a point and all levels: nothing is added atomically.
#include <algorithm>

#include "simplex/vertices_cuda.h"

namespace fd::encoding {
namespace {

constexpr int kSector = 32;

template <class Real>
struct EncodeArgs {
    Levels<Real> levels;
    const Real *x, *u;
    FeatureRows<const void> table;
    FeatureRows<void> out;
    int64_t points;
    int features, used_levels, at_once;
    Bounds bounds;
};

// Calls visit(c) for the first of every kAtOnce features.
template <class Features, class Visit>
__device__ __forceinline__ void for_features(int features, const Visit& visit) {
    if constexpr (Features::kAtOnce > 1) {
        visit(0);  // there are no more
    } else {
        FD_NO_UNROLL
        for (int c = 0; c < features; ++c) visit(c);
    }
}

template <Lattice L, int N, class Real, class Features>
__global__ void __launch_bounds__(kThreads, 1) encode(const __grid_constant__ EncodeArgs<Real> a) {
    const int64_t p = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (p >= a.points) return;
    const Point<N, Real> point(a.x, a.u, p, a.bounds);
    const int first = static_cast<int>(blockIdx.y) * a.at_once;
    FD_NO_UNROLL
    for (int l = first; l < min(first + a.at_once, a.levels.count); ++l) {
        const Level<Real>& level = a.levels.level[l];
        const Vertices<L, N, Real> vertices(level, point, a.bounds);
        for_features<Features>(a.features, [&](int c) {
            Real sum[Features::kAtOnce] = {};
            if (l < a.used_levels) {
                with_rows(Features{}, a.table, level.offset, a.features, c, [&](const auto& rows) {
                    vertices.each([&](uint32_t entry, Real weight) {
                        Real row[Features::kAtOnce];
                        rows.load(entry, row);
                        FD_UNROLL
                        for (int i = 0; i < Features::kAtOnce; ++i) sum[i] = fma(weight, row[i], sum[i]);
                    });
                });
            }
            const int64_t at = (p * a.levels.count + l) * a.features + c;
            store_vector<Features::kAtOnce>(a.out, at / Features::kAtOnce, sum);
        });
    }
}

template <class Real>
struct GradientArgs {
    Levels<Real> levels;
    const Real* x;
    FeatureRows<const void> table, grad;
    Real* dx;
    int64_t points;
    int features, used_levels;
    Bounds bounds;
};

template <Lattice L, int N, class Real, class Features>
__global__ void __launch_bounds__(kThreads, 1) gradient(const __grid_constant__ GradientArgs<Real> a) {
    const int64_t p = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (p >= a.points) return;
    const Point<N, Real> point(a.x, nullptr, p, a.bounds);
    Real dx[N] = {};
    FD_NO_UNROLL
    for (int l = 0; l < a.used_levels; ++l) {
        const Level<Real>& level = a.levels.level[l];
        const Vertices<L, N, Real> vertices(level, point, a.bounds);
        const auto dots = [&]<int K>(const uint32_t* entries, Real* values) {
            FD_UNROLL
            for (int k = 0; k < K; ++k) values[k] = Real(0);
            for_features<Features>(a.features, [&](int c) {
                constexpr int kAtOnce = Features::kAtOnce;
                Real upstream[kAtOnce];
                load_vector<kAtOnce>(a.grad, ((p * a.levels.count + l) * a.features + c) / kAtOnce, upstream);
                with_rows(Features{}, a.table, level.offset, a.features, c, [&](const auto& rows) {
                    FD_UNROLL
                    for (int k = 0; k < K; ++k) {
                        Real row[kAtOnce];
                        rows.load(entries[k], row);
                        FD_UNROLL
                        for (int i = 0; i < kAtOnce; ++i) values[k] = fma(upstream[i], row[i], values[k]);
                    }
                });
            });
        };
        vertices.add_gradient(level, dots, dx);
    }
    const bool finite = all_finite<N, Real>(point.x);
    FD_UNROLL
    for (int i = 0; i < N; ++i) a.dx[p * N + i] = passes(point.x[i], a.bounds) || !finite ? dx[i] : Real(0);
}

// Calls visit(Features{}): one access a row for the usual dimensions, types and numbers of features.
template <int N, class Real, class Visit>
void with_features(DType table, int features, bool vectors, const Visit& visit) {
    if constexpr (N >= 2 && N <= 4 && dtype_of<Real> == DType::f32) {
        const bool wide = table == DType::f32;
        if (vectors && features == 2)
            return wide ? visit(FixedFeatures<float, 2>{}) : visit(FixedFeatures<uint16_t, 2>{});
        if (vectors && features == 4)
            return wide ? visit(FixedFeatures<float, 4>{}) : visit(FixedFeatures<uint16_t, 4>{});
    }
    visit(AnyFeatures{});
}

unsigned blocks_of(int64_t points) { return static_cast<unsigned>((points + kThreads - 1) / kThreads); }

}  // namespace

template <class Real>
void encode_cuda(void* stream, const CudaShape& shape, const Levels<Real>& levels, const Real* x,
                 const Real* u, FeatureRows<const void> table, FeatureRows<void> out) {
    const int features = shape.features;
    const int at_once = std::max<int>(kSector / static_cast<int>(features * size_of(out.type)), 1);
    const dim3 grid(blocks_of(shape.points), static_cast<unsigned>((levels.count + at_once - 1) / at_once));
    const EncodeArgs<Real> args{
        levels, x, u, table, out, shape.points, features, shape.used_levels, at_once, shape.bounds};
    const bool vectors = aligned(table, features) && aligned({out.data, out.type}, features);
    with_lattice(shape, [&]<Lattice L, int N>() {
        with_features<N, Real>(table.type, features, vectors, [&]<class Features>(Features) {
            launch(encode<L, N, Real, Features>, grid, kThreads, 0, stream, args);
        });
    });
}

template <class Real>
void encode_vjp_x_cuda(void* stream, const CudaShape& shape, const Levels<Real>& levels, const Real* x,
                       FeatureRows<const void> table, FeatureRows<const void> grad, Real* dx) {
    const GradientArgs<Real> args{
        levels, x, table, grad, dx, shape.points, shape.features, shape.used_levels, shape.bounds};
    const bool vectors = aligned(table, shape.features) && aligned(grad, shape.features);
    with_lattice(shape, [&]<Lattice L, int N>() {
        with_features<N, Real>(table.type, shape.features, vectors, [&]<class Features>(Features) {
            launch(gradient<L, N, Real, Features>, dim3(blocks_of(shape.points)), kThreads, 0, stream, args);
        });
    });
}

#define FD_INSTANTIATE(Real)                                                                                \
    template void encode_cuda<Real>(void*, const CudaShape&, const Levels<Real>&, const Real*, const Real*, \
                                    FeatureRows<const void>, FeatureRows<void>);                            \
    template void encode_vjp_x_cuda<Real>(void*, const CudaShape&, const Levels<Real>&, const Real*,        \
                                          FeatureRows<const void>, FeatureRows<const void>, Real*);
FD_INSTANTIATE(float)
FD_INSTANTIATE(double)

}  // namespace fd::encoding
