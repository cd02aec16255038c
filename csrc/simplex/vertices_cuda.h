// What the CUDA kernels of the encodings share: a point's vertices on a level, and rows of features.
#pragma once

#include <algorithm>
#include <type_traits>

#include "common/launch.h"
#include "simplex/encode_launch.h"
#include "simplex/grid.h"
#include "simplex/simplex.h"

namespace fd::encoding {

// Kernels ask for one block a multiprocessor at least: without, the compiler spills to reach its own aim.
constexpr int kThreads = 256;

// A point's coordinates and its direction (null for none), zero where the bounds clamp.
template <int N, class Real>
struct Point {
    Real x[N], u[N];
    bool moves;

    __device__ Point(const Real* __restrict__ from, const Real* __restrict__ along, int64_t p, Bounds bounds)
        : moves(along != nullptr) {
        FD_UNROLL
        for (int i = 0; i < N; ++i) x[i] = from[p * N + i];
        FD_UNROLL
        for (int i = 0; i < N; ++i) u[i] = moves && passes(x[i], bounds) ? along[p * N + i] : Real(0);
    }
};

// each(visit) calls visit(entry, weight) for every vertex, in order; for a point with a direction the weights
// are their derivatives along it. They are NaN for a point without a cell.
template <Lattice L, int N, class Real>
class Vertices;

template <int N, class Real>
class Vertices<Lattice::simplex, N, Real> {
  public:
    __device__ Vertices(const Level<Real>& level, const Point<N, Real>& point, Bounds bounds) {
        Cell<N, Real> cell = simplex::locate<N, Real>(level, point.x, bounds);
        simplex::sort_axes<N, Real>(cell.f, order_);
        if (point.moves) {
            simplex::slopes_of<N, Real>(level, point.u, order_, cell.valid, weight_);
        } else {
            simplex::weights_of<N, Real>(cell.f, cell.valid, weight_);
        }
        simplex::indices_of<N, Real>(level, cell.v, order_, bounds, entry_);
    }

    template <class Visit>
    __device__ void each(const Visit& visit) const {
        FD_UNROLL
        for (int k = 0; k <= N; ++k) visit(entry_[k], weight_[k]);
    }

    // Adds to dx what this level contributes. dots.template operator()<K>(entry, value) gives for K entries
    // the products with the upstream gradient.
    template <class Dots>
    __device__ void add_gradient(const Level<Real>& level, const Dots& dots, Real* dx) const {
        const bool valid = weight_[0] == weight_[0];
        Real c[N + 1];
        dots.template operator()<N + 1>(entry_, c);
        FD_UNROLL
        for (int k = 0; k <= N; ++k) c[k] = valid ? c[k] : static_cast<Real>(__builtin_nan(""));
        simplex::add_gradient<N, Real>(level, c, order_, dx);
    }

  private:
    uint32_t entry_[N + 1];
    Real weight_[N + 1];
    int order_[N];
};

template <int N, class Real>
class Vertices<Lattice::grid, N, Real> {
  public:
    __device__ Vertices(const Level<Real>& level, const Point<N, Real>& point, Bounds bounds)
        : level_(level),
          point_(point),
          cell_(grid::locate<N, Real>(level, point.x, bounds)),
          bounds_(bounds) {}

    template <class Visit>
    __device__ void each(const Visit& visit) const {
        FD_NO_UNROLL
        for (int first = 0; first < kCount; first += kAtOnce) {
            FD_UNROLL
            for (int k = 0; k < kAtOnce; ++k) visit(entry(first + k), weight(first + k));
        }
    }

    template <class Dots>
    __device__ void add_gradient(const Level<Real>& level, const Dots& dots, Real* dx) const {
        FD_NO_UNROLL
        for (int begin = 0; begin < kCount; begin += kSummed) {
            Real slope[N] = {};
            FD_NO_UNROLL
            for (int first = begin; first < min(begin + kSummed, kCount); first += kAtOnce) {
                uint32_t entries[kAtOnce];
                Real c[kAtOnce];
                FD_UNROLL
                for (int k = 0; k < kAtOnce; ++k) entries[k] = entry(first + k);
                dots.template operator()<kAtOnce>(entries, c);
                FD_UNROLL
                for (int k = 0; k < kAtOnce; ++k) {
                    FD_UNROLL
                    for (int i = 0; i < N; ++i)
                        slope[i] =
                            fma(c[k], grid::slope_of<N, Real>(cell_.f, cell_.valid, first + k, i), slope[i]);
                }
            }
            FD_UNROLL
            for (int i = 0; i < N; ++i) dx[i] = fma(level.scale, slope[i], dx[i]);
        }
    }

  private:
    static constexpr int kCount = grid::vertices(N), kAtOnce = std::min(kCount, 8);
    static constexpr int kSummed = 32;  // vertices, as on the CPU: sums round alike

    __device__ uint32_t entry(int k) const { return grid::index_of<N, Real>(level_, cell_.v, bounds_, k); }

    __device__ Real weight(int k) const {
        if (!point_.moves) return grid::weight_of<N, Real>(cell_.f, cell_.valid, k);
        Real sum = Real(0);
        FD_UNROLL
        for (int i = 0; i < N; ++i)
            sum = fma(point_.u[i], grid::slope_of<N, Real>(cell_.f, cell_.valid, k, i), sum);
        return level_.scale * sum;
    }

    const Level<Real>& level_;
    const Point<N, Real>& point_;
    const Cell<N, Real> cell_;
    const Bounds bounds_;
};

// How rows of features are read and written: F of them in one access, where two bytes each are float16 or
// bfloat16 ...
template <class Storage, int F>
struct FixedFeatures {
    static constexpr int kAtOnce = F;
};

// ... or any number of any type, one by one: small kernels for everything else.
struct AnyFeatures {
    static constexpr int kAtOnce = 1;
};

__device__ __forceinline__ float widened(float value, DType) { return value; }
__device__ __forceinline__ float widened(uint16_t bits, DType type) {
    return type == DType::bf16 ? detail::widen(bit_cast<bfloat16>(bits))
                               : detail::widen(bit_cast<half>(bits));
}

// Features [c, c + kAtOnce) of the rows of a level.
template <class Storage, int F>
struct VectorRows {
    const Vec<Storage, F>* data;
    DType type;

    __device__ void load(uint32_t row, float* out) const {
        const Vec<Storage, F> values = data[row];
        FD_UNROLL
        for (int c = 0; c < F; ++c) out[c] = widened(values.v[c], type);
    }
};

template <class T>
struct ElementRows {
    const T* data;
    uint32_t features;

    template <class Real>
    __device__ void load(uint32_t row, Real* out) const {
        *out = static_cast<Real>(detail::widen(data[row * features]));
    }
};

// Calls visit(rows), rows counted from `first` on.
template <class Storage, int F, class Visit>
__device__ __forceinline__ void with_rows(FixedFeatures<Storage, F>, const FeatureRows<const void>& table,
                                          int64_t first, int, int, const Visit& visit) {
    visit(VectorRows<Storage, F>{static_cast<const Vec<Storage, F>*>(table.data) + first, table.type});
}

template <class Visit>
__device__ __forceinline__ void with_rows(AnyFeatures, const FeatureRows<const void>& table, int64_t first,
                                          int features, int c, const Visit& visit) {
    const int64_t at = first * features + c;
    const auto count = static_cast<uint32_t>(features);
    switch (table.type) {
        case DType::f16:
            return visit(ElementRows<half>{static_cast<const half*>(table.data) + at, count});
        case DType::bf16:
            return visit(ElementRows<bfloat16>{static_cast<const bfloat16*>(table.data) + at, count});
        case DType::f32:
            return visit(ElementRows<float>{static_cast<const float*>(table.data) + at, count});
        default:
            return visit(ElementRows<double>{static_cast<const double*>(table.data) + at, count});
    }
}

// F elements from number F * at on, in one access.
template <int F, class Real>
__device__ __forceinline__ void load_vector(const FeatureRows<const void>& rows, int64_t at, Real* out) {
    const auto load = [&](const auto* vectors) {
        const auto values = vectors[at];
        FD_UNROLL
        for (int c = 0; c < F; ++c) out[c] = static_cast<Real>(detail::widen(values.v[c]));
    };
    switch (rows.type) {
        case DType::f16:
            return load(static_cast<const Vec<half, F>*>(rows.data));
        case DType::bf16:
            return load(static_cast<const Vec<bfloat16, F>*>(rows.data));
        case DType::f32:
            return load(static_cast<const Vec<float, F>*>(rows.data));
        default:
            return load(static_cast<const Vec<double, F>*>(rows.data));
    }
}

template <int F, class Real>
__device__ __forceinline__ void store_vector(const FeatureRows<void>& rows, int64_t at, const Real* values) {
    const auto store = [&](auto* vectors) {
        auto& to = vectors[at];
        std::remove_reference_t<decltype(to)> packed;
        FD_UNROLL
        for (int c = 0; c < F; ++c) detail::narrow(values[c], packed.v[c]);
        to = packed;
    };
    switch (rows.type) {
        case DType::f16:
            return store(static_cast<Vec<half, F>*>(rows.data));
        case DType::bf16:
            return store(static_cast<Vec<bfloat16, F>*>(rows.data));
        case DType::f32:
            return store(static_cast<Vec<float, F>*>(rows.data));
        default:
            return store(static_cast<Vec<double, F>*>(rows.data));
    }
}

inline bool aligned(const FeatureRows<const void>& rows, int features) {
    return reinterpret_cast<uintptr_t>(rows.data) % static_cast<uintptr_t>(features * size_of(rows.type)) ==
           0;
}

// Calls visit.template operator()<L, N>().
template <class Visit>
void with_lattice(const CudaShape& shape, const Visit& visit) {
    const auto of = [&]<Lattice L>() {
        switch (shape.axes) {
            case 1:
                return visit.template operator()<L, 1>();
            case 2:
                return visit.template operator()<L, 2>();
            case 3:
                return visit.template operator()<L, 3>();
            case 4:
                return visit.template operator()<L, 4>();
            case 5:
                return visit.template operator()<L, 5>();
            case 6:
                return visit.template operator()<L, 6>();
            case 7:
                return visit.template operator()<L, 7>();
            default:
                return visit.template operator()<L, 8>();
        }
    };
    shape.lattice == Lattice::simplex ? of.template operator()<Lattice::simplex>()
                                      : of.template operator()<Lattice::grid>();
}

}  // namespace fd::encoding
