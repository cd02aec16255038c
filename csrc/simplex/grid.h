// Cubic-grid encoding (Instant-NGP, arXiv 2201.05989): the lattice of one level, for all backends. The peer
// of the simplex grid: 2^n table entries with multilinear weights.
//
// Vertex number k of a cell is v + (bits of k); its weight is the product over the axes, in order, of f_i
// where bit i is set and 1 - f_i where it is not.
#pragma once

#include "simplex/levels.h"

namespace fd::grid {

constexpr int vertices(int n) { return 1 << n; }

template <int N, class Real>
FD_HOST_DEVICE Cell<N, Real> locate(const Level<Real>& level, const Real* x, Bounds bounds) {
    Real y[N];
    FD_UNROLL
    for (int i = 0; i < N; ++i) y[i] = fma(level.scale, bounded(x[i], bounds), level.shift[i]);
    return cell_of<N, Real>(y, all_finite<N, Real>(x));
}

template <int N, class Real>
FD_HOST_DEVICE Real weight_of(const Real* f, bool valid, int k) {
    Real w = (k & 1) != 0 ? f[0] : Real(1) - f[0];
    FD_UNROLL
    for (int i = 1; i < N; ++i) w = w * ((k >> i & 1) != 0 ? f[i] : Real(1) - f[i]);
    return valid ? w : static_cast<Real>(__builtin_nan(""));
}

// The derivative of weight k along axis `along`, without the level's scale.
template <int N, class Real>
FD_HOST_DEVICE Real slope_of(const Real* f, bool valid, int k, int along) {
    Real w = (k >> along & 1) != 0 ? Real(1) : Real(-1);
    FD_UNROLL
    for (int i = 0; i < N; ++i) {
        const Real factor = (k >> i & 1) != 0 ? f[i] : Real(1) - f[i];
        w = i == along ? w : w * factor;
    }
    return valid ? w : static_cast<Real>(__builtin_nan(""));
}

// Entry of a vertex, relative to the level's first. Dense: strides 1, a, a^2, ..; a vertex past the last row
// continues in the next one, as in tiny-cuda-nn, and outside the cube the grid repeats.
template <int N, class Real>
FD_HOST_DEVICE uint32_t index_of(const Level<Real>& level, const int32_t* v, Bounds bounds, int k) {
    uint32_t index = 0;
    if (level.dense) {
        uint32_t stride = 1;
        FD_UNROLL
        for (int i = 0; i < N; ++i) {
            int32_t at = v[i] + (k >> i & 1);
            if (bounds == Bounds::extend) at -= level.a * floor_div(at, level.a);
            index += static_cast<uint32_t>(at) * stride;
            stride *= static_cast<uint32_t>(level.a);
        }
        return index >= level.size ? index - level.size : index;
    }
    FD_UNROLL
    for (int i = 0; i < N; ++i) index ^= (static_cast<uint32_t>(v[i]) + (k >> i & 1)) * hash_prime(i);
    return index & level.mask;
}

}  // namespace fd::grid
