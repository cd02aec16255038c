// What the CUDA kernels of the encodings share: a point's vertices on a level, and rows of features.
#pragma once

#include "common/launch.h"
#include "simplex/encode_launch.h"
#include "simplex/grid.h"
#include "simplex/simplex.h"

namespace fd::encoding {

constexpr int kThreads = 256;
constexpr int kMaxFeatures = 8;

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

    // Adds to dx what this level contributes; dot(entry) is the product of an entry and the upstream
    // gradient.
    template <class Dot>
    __device__ void add_gradient(const Level<Real>& level, const Dot& dot, Real* dx) const {
        const bool valid = weight_[0] == weight_[0];
        Real c[N + 1];
        FD_UNROLL
        for (int k = 0; k <= N; ++k) {
            const Real value = dot(entry_[k]);
            c[k] = valid ? value : static_cast<Real>(__builtin_nan(""));
        }
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

    template <class Dot>
    __device__ void add_gradient(const Level<Real>& level, const Dot& dot, Real* dx) const {
        // A sum for every 32 vertices, as on the CPU.
        FD_NO_UNROLL
        for (int begin = 0; begin < kCount; begin += 32) {
            Real slope[N] = {};
            FD_NO_UNROLL
            for (int first = begin; first < min(begin + 32, kCount); first += kAtOnce) {
                FD_UNROLL
                for (int k = first; k < first + kAtOnce; ++k) {
                    const Real value = dot(entry(k));
                    FD_UNROLL
                    for (int i = 0; i < N; ++i)
                        slope[i] = fma(value, grid::slope_of<N, Real>(cell_.f, cell_.valid, k, i), slope[i]);
                }
            }
            FD_UNROLL
            for (int i = 0; i < N; ++i) dx[i] = fma(level.scale, slope[i], dx[i]);
        }
    }

  private:
    static constexpr int kCount = grid::vertices(N), kAtOnce = kCount < 8 ? kCount : N < 6 ? 8 : 4;

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

// How rows of features are read and written: any type and number of features, element by element ...
struct AnyFeatures {
    static constexpr int kCapacity = kMaxFeatures;
};

// ... or F of them in one access; two bytes each are float16 or bfloat16.
template <class Storage, int F>
struct FixedFeatures {
    static constexpr int kCapacity = F;
};

template <class T>
struct ElementRows {
    const T* data;
    int features;

    template <class Real>
    __device__ void load(uint32_t row, Real* out) const {
        FD_UNROLL
        for (int c = 0; c < kMaxFeatures; ++c) {
            if (c < features)
                out[c] = static_cast<Real>(detail::widen(data[row * static_cast<uint32_t>(features) + c]));
        }
    }
};

__device__ __forceinline__ float widen_bits(float value, DType) { return value; }
__device__ __forceinline__ float widen_bits(uint16_t bits, DType type) {
    return type == DType::bf16 ? detail::widen(bit_cast<bfloat16>(bits))
                               : detail::widen(bit_cast<half>(bits));
}

template <class Storage, int F>
struct VectorRows {
    const Vec<Storage, F>* data;
    DType type;

    __device__ void load(uint32_t row, float* out) const {
        const Vec<Storage, F> values = data[row];
        FD_UNROLL
        for (int c = 0; c < F; ++c) out[c] = widen_bits(values.v[c], type);
    }
};

// Calls visit(rows) with the rows from `first` on.
template <class Visit, class Storage, int F>
__device__ __forceinline__ void with_rows(FixedFeatures<Storage, F>, const FeatureRows<const void>& table,
                                          int64_t first, int, const Visit& visit) {
    visit(VectorRows<Storage, F>{static_cast<const Vec<Storage, F>*>(table.data) + first, table.type});
}

template <class Visit>
__device__ __forceinline__ void with_rows(AnyFeatures, const FeatureRows<const void>& table, int64_t first,
                                          int features, const Visit& visit) {
    const int64_t at = first * features;
    switch (table.type) {
        case DType::f16:
            return visit(ElementRows<half>{static_cast<const half*>(table.data) + at, features});
        case DType::bf16:
            return visit(ElementRows<bfloat16>{static_cast<const bfloat16*>(table.data) + at, features});
        case DType::f32:
            return visit(ElementRows<float>{static_cast<const float*>(table.data) + at, features});
        default:
            return visit(ElementRows<double>{static_cast<const double*>(table.data) + at, features});
    }
}

template <class T, int F, class Real>
__device__ __forceinline__ void load_vector(const void* data, int64_t row, Real* out) {
    const Vec<T, F> values = static_cast<const Vec<T, F>*>(data)[row];
    FD_UNROLL
    for (int c = 0; c < F; ++c) out[c] = static_cast<Real>(detail::widen(values.v[c]));
}

template <class T, int F, class Real>
__device__ __forceinline__ void store_vector(void* data, int64_t row, const Real* values) {
    Vec<T, F> packed;
    FD_UNROLL
    for (int c = 0; c < F; ++c) detail::narrow(values[c], packed.v[c]);
    static_cast<Vec<T, F>*>(data)[row] = packed;
}

template <class T, class Real>
__device__ __forceinline__ void store_elements(void* data, int64_t row, int features, const Real* values) {
    T* to = static_cast<T*>(data) + row * features;
    FD_UNROLL
    for (int c = 0; c < kMaxFeatures; ++c) {
        if (c < features) detail::narrow(values[c], to[c]);
    }
}

// One row of the upstream gradient.
template <class Storage, int F>
__device__ __forceinline__ void load_row(FixedFeatures<Storage, F>, const FeatureRows<const void>& rows,
                                         int64_t row, int, float* out) {
    switch (rows.type) {
        case DType::f16:
            return load_vector<half, F>(rows.data, row, out);
        case DType::bf16:
            return load_vector<bfloat16, F>(rows.data, row, out);
        case DType::f32:
            return load_vector<float, F>(rows.data, row, out);
        default:
            return load_vector<double, F>(rows.data, row, out);
    }
}

template <class Real>
__device__ __forceinline__ void load_row(AnyFeatures kind, const FeatureRows<const void>& rows, int64_t row,
                                         int features, Real* out) {
    with_rows(kind, rows, row, features, [&](const auto& elements) { elements.load(0, out); });
}

// One row of the result.
template <class Storage, int F>
__device__ __forceinline__ void store_row(FixedFeatures<Storage, F>, const FeatureRows<void>& rows,
                                          int64_t row, int, const float* values) {
    switch (rows.type) {
        case DType::f16:
            return store_vector<half, F>(rows.data, row, values);
        case DType::bf16:
            return store_vector<bfloat16, F>(rows.data, row, values);
        case DType::f32:
            return store_vector<float, F>(rows.data, row, values);
        default:
            return store_vector<double, F>(rows.data, row, values);
    }
}

template <class Real>
__device__ __forceinline__ void store_row(AnyFeatures, const FeatureRows<void>& rows, int64_t row,
                                          int features, const Real* values) {
    switch (rows.type) {
        case DType::f16:
            return store_elements<half>(rows.data, row, features, values);
        case DType::bf16:
            return store_elements<bfloat16>(rows.data, row, features, values);
        case DType::f32:
            return store_elements<float>(rows.data, row, features, values);
        default:
            return store_elements<double>(rows.data, row, features, values);
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
