// One point on one level, for the scalar SIMD level and for float64.
#pragma once

#include "simplex/encode_leaves.h"
#include "simplex/grid.h"
#include "simplex/simplex.h"

namespace fd::encoding {

template <int N, class Real>
inline void coordinates_of(const Points<Real>& points, int p, const Real* from, Real* out) {
    for (int i = 0; i < N; ++i) out[i] = from[i * points.stride + p];
}

inline bool is_valid(const uint16_t* valid, int p) { return (valid[p / kGroup] >> (p % kGroup) & 1) != 0; }

// `index`, `weight` and `axes` of the point, a group apart from vertex to vertex.
template <int N, class Real>
inline void simplex_at(const Level<Real>& level, Bounds bounds, const Points<Real>& points, int p,
                       Wanted wanted, uint32_t* index, Real* weight, uint8_t* axes) {
    Real x[N], u[N], values[N + 1];
    int order[N];
    uint32_t entries[N + 1];
    coordinates_of<N>(points, p, points.x, x);
    Cell<N, Real> cell = simplex::locate<N, Real>(level, x, bounds);
    cell.valid = cell.valid && is_valid(points.valid, p);
    simplex::sort_axes<N, Real>(cell.f, order);
    if (wanted == Wanted::slopes) {
        coordinates_of<N>(points, p, points.u, u);
        simplex::slopes_of<N, Real>(level, u, order, cell.valid, values);
    } else {
        simplex::weights_of<N, Real>(cell.f, cell.valid, values);
    }
    simplex::indices_of<N, Real>(level, cell.v, order, bounds, entries);
    for (int k = 0; k <= N; ++k) {
        index[k * kGroup] = entries[k];
        weight[k * kGroup] = values[k];
    }
    if (axes == nullptr) return;
    for (int k = 0; k < N; ++k) axes[k * kGroup] = static_cast<uint8_t>(order[k]);
}

// Vertices [first, first + count).
template <int N, class Real>
inline void grid_at(const Level<Real>& level, Bounds bounds, const Points<Real>& points, int p, Wanted wanted,
                    int first, int count, uint32_t* index, Real* weight) {
    Real x[N], u[N];
    coordinates_of<N>(points, p, points.x, x);
    Cell<N, Real> cell = grid::locate<N, Real>(level, x, bounds);
    cell.valid = cell.valid && is_valid(points.valid, p);
    if (wanted == Wanted::slopes) coordinates_of<N>(points, p, points.u, u);
    for (int k = 0; k < count; ++k) {
        index[k * kGroup] = grid::index_of<N, Real>(level, cell.v, bounds, first + k);
        if (wanted == Wanted::slopes) {
            Real sum = Real(0);
            for (int i = 0; i < N; ++i)
                sum = fma(u[i], grid::slope_of<N, Real>(cell.f, cell.valid, first + k, i), sum);
            weight[k * kGroup] = level.scale * sum;
        } else {
            weight[k * kGroup] = grid::weight_of<N, Real>(cell.f, cell.valid, first + k);
        }
    }
}

template <class T, class Real>
inline void dots_of(const T* rows, int features, const uint32_t* index, const Real* grad, int vertices,
                    int groups, Real* c) {
    for (int p = 0; p < groups * kGroup; ++p) {
        const int at = p / kGroup * vertices * kGroup + p % kGroup;
        const Real* g = grad + p * features;
        for (int k = 0; k < vertices; ++k) {
            const T* row = rows + static_cast<int64_t>(index[at + k * kGroup]) * features;
            Real sum = Real(0);
            for (int f = 0; f < features; ++f) sum = fma(g[f], static_cast<Real>(detail::widen(row[f])), sum);
            c[at + k * kGroup] = sum;
        }
    }
}

template <int N, class Real>
inline void combine_simplex_at(const Level<Real>& level, const Points<Real>& points, int groups,
                               const Located<Real>& at, const Real* c, Real* dx) {
    constexpr int K = simplex::vertices(N);
    for (int p = 0; p < groups * kGroup; ++p) {
        const int first = p / kGroup * K * kGroup + p % kGroup;
        const bool valid = at.weight[first] == at.weight[first];
        Real values[K], sum[N];
        int axis[N];
        for (int k = 0; k < K; ++k)
            values[k] = valid ? c[first + k * kGroup] : static_cast<Real>(__builtin_nan(""));
        for (int k = 0; k < N; ++k) axis[k] = at.axes[(p / kGroup * N + k) * kGroup + p % kGroup];
        for (int i = 0; i < N; ++i) sum[i] = dx[i * points.stride + p];
        simplex::add_gradient<N, Real>(level, values, axis, sum);
        for (int i = 0; i < N; ++i) dx[i * points.stride + p] = sum[i];
    }
}

template <int N, class Real>
inline void combine_grid_at(const Level<Real>& level, Bounds bounds, const Points<Real>& points, int groups,
                            int first, int count, const Real* c, Real* dx) {
    for (int p = 0; p < groups * kGroup; ++p) {
        Real x[N], slope[N] = {};
        coordinates_of<N>(points, p, points.x, x);
        const Cell<N, Real> cell = grid::locate<N, Real>(level, x, bounds);
        const bool valid = cell.valid && is_valid(points.valid, p);
        for (int k = 0; k < count; ++k) {
            const Real value = c[(p / kGroup * count + k) * kGroup + p % kGroup];
            for (int i = 0; i < N; ++i)
                slope[i] = fma(value, grid::slope_of<N, Real>(cell.f, valid, first + k, i), slope[i]);
        }
        for (int i = 0; i < N; ++i) {
            Real& sum = dx[i * points.stride + p];
            sum = fma(level.scale, slope[i], sum);
        }
    }
}

template <int F, class Real>
inline void scatter_points(const uint32_t* index, const Real* weight, const Real* grad, int vertices,
                           int points, uint32_t begin, uint32_t end, Real* table) {
    for (int p = 0; p < points; ++p) {
        const int at = p / kGroup * vertices * kGroup + p % kGroup;
        const Real* g = grad + p * F;
        if (weight[at] != weight[at]) continue;
        for (int k = 0; k < vertices; ++k) {
            const uint32_t entry = index[at + k * kGroup] - begin;
            if (entry >= end - begin) continue;
            const Real w = weight[at + k * kGroup];
            Real* row = table + static_cast<int64_t>(entry) * F;
            for (int c = 0; c < F; ++c) row[c] = fma(w, g[c], row[c]);
        }
    }
}

}  // namespace fd::encoding
