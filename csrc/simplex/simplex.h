// Simplex-grid encoding ("Efficient Encoding of Graphics Primitives with Simplex-based Structures", 2023):
// the lattice of one level, for all backends.
//
// A point x becomes z = s x + o, then y = z + F (z_1 + .. + z_n): skewed, the simplices that tile space are
// those of the unit cubes cut along their main diagonals. With v = floor(y), f = y - v sorted downwards
// (permutation p), the vertices are V_0 = v, V_k = V_(k-1) + e_p(k), with weights 1 - f_(1), f_(1) - f_(2),
// .., f_(n): n + 1 table entries instead of the 2^n of a cubic grid.
//
// Every operation is written out, so that all backends agree bit for bit.
#pragma once

#include "simplex/levels.h"

namespace fd::simplex {

// (sqrt(n + 1) - 1) / n
template <class Real>
FD_HOST_DEVICE constexpr Real skew(int n) {
    constexpr double values[kMaxAxes] = {
        0.41421356237309504880, 0.36602540378443864676, 0.33333333333333333333, 0.30901699437494742410,
        0.28989794855663561964, 0.27429188517743176508, 0.26120387496374144251, 0.25};
    return static_cast<Real>(values[n - 1]);
}

constexpr int vertices(int n) { return n + 1; }

template <int N, class Real>
FD_HOST_DEVICE Cell<N, Real> locate(const Level<Real>& level, const Real* x, Bounds bounds) {
    Real y[N], sum = Real(0);
    FD_UNROLL
    for (int i = 0; i < N; ++i) {
        y[i] = fma(level.scale, bounded(x[i], bounds), level.shift[i]);
        sum = i == 0 ? y[0] : sum + y[i];
    }
    FD_UNROLL
    for (int i = 0; i < N; ++i) y[i] = fma(skew<Real>(N), sum, y[i]);
    return cell_of<N, Real>(y, all_finite<N, Real>(x));
}

// The comparators (i, j), i < j, that sort N numbers, in order: sorting networks of the smallest known size.
// `Visit` is called as visit(i, j) and leaves the larger at i; a strict comparison keeps ties as they are.
template <int N, class Visit>
FD_HOST_DEVICE void sorting_network(Visit visit) {
    if constexpr (N == 2) {
        visit(0, 1);
    } else if constexpr (N == 3) {
        visit(0, 1), visit(1, 2), visit(0, 1);
    } else if constexpr (N == 4) {
        visit(0, 1), visit(2, 3), visit(0, 2), visit(1, 3), visit(1, 2);
    } else if constexpr (N == 5) {
        visit(0, 3), visit(1, 4), visit(0, 2), visit(1, 3), visit(0, 1);
        visit(2, 4), visit(1, 2), visit(3, 4), visit(2, 3);
    } else if constexpr (N == 6) {
        visit(0, 5), visit(1, 3), visit(2, 4), visit(1, 2), visit(3, 4), visit(0, 3);
        visit(2, 5), visit(0, 1), visit(2, 3), visit(4, 5), visit(1, 2), visit(3, 4);
    } else if constexpr (N == 7) {
        visit(0, 6), visit(2, 3), visit(4, 5), visit(0, 2), visit(1, 4), visit(3, 6);
        visit(0, 1), visit(2, 5), visit(3, 4), visit(1, 2), visit(4, 6), visit(2, 3);
        visit(4, 5), visit(1, 2), visit(3, 4), visit(5, 6);
    } else if constexpr (N == 8) {
        visit(0, 2), visit(1, 3), visit(4, 6), visit(5, 7), visit(0, 4), visit(1, 5), visit(2, 6);
        visit(3, 7), visit(0, 1), visit(2, 3), visit(4, 5), visit(6, 7), visit(2, 4), visit(3, 5);
        visit(1, 4), visit(3, 6), visit(1, 2), visit(3, 4), visit(5, 6);
    }
}

// axis[k] = p(k + 1), and f sorted downwards.
template <int N, class Real>
FD_HOST_DEVICE void sort_axes(Real* f, int* axis) {
    FD_UNROLL
    for (int i = 0; i < N; ++i) axis[i] = i;
    sorting_network<N>([&](int i, int j) {
        if (f[j] > f[i]) {
            const Real g = f[i];
            const int b = axis[i];
            f[i] = f[j], axis[i] = axis[j];
            f[j] = g, axis[j] = b;
        }
    });
}

// w_k from the sorted f; NaN for a point that has no cell.
template <int N, class Real>
FD_HOST_DEVICE void weights_of(const Real* sorted, bool valid, Real* w) {
    w[0] = Real(1) - sorted[0];
    FD_UNROLL
    for (int k = 1; k < N; ++k) w[k] = sorted[k - 1] - sorted[k];
    w[N] = sorted[N - 1];
    FD_UNROLL
    for (int k = 0; k <= N; ++k) w[k] = valid ? w[k] : static_cast<Real>(__builtin_nan(""));
}

// beta_k: the derivative of w along the direction u, whose coordinates are zero where the bounds clamp.
template <int N, class Real>
FD_HOST_DEVICE void slopes_of(const Level<Real>& level, const Real* u, const int* axis, bool valid,
                              Real* beta) {
    Real sum = u[0], along[N];
    FD_UNROLL
    for (int i = 1; i < N; ++i) sum = sum + u[i];
    FD_UNROLL
    for (int k = 0; k < N; ++k) {
        along[k] = u[0];
        FD_UNROLL
        for (int i = 1; i < N; ++i) {
            const Real other = u[i];
            if (axis[k] == i) along[k] = other;
        }
    }
    beta[0] = -(level.scale * fma(skew<Real>(N), sum, along[0]));
    FD_UNROLL
    for (int k = 1; k < N; ++k) beta[k] = level.scale * (along[k - 1] - along[k]);
    beta[N] = level.scale * fma(skew<Real>(N), sum, along[N - 1]);
    FD_UNROLL
    for (int k = 0; k <= N; ++k) beta[k] = valid ? beta[k] : static_cast<Real>(__builtin_nan(""));
}

// Number of a vertex of a dense level: the quotient of Z^n by a I + K 1 1^T, which no two vertices of the
// simplices that meet the unit cube share, and which continues periodically outside.
template <int N>
struct DenseNumber {
    int32_t a, k, last, digit[N];  // digit[i] < a for i < N - 1, last < a + N k

    FD_HOST_DEVICE DenseNumber(const int32_t* v, int32_t a_, int32_t k_, Bounds bounds) : a(a_), k(k_) {
        int32_t wraps = 0;
        FD_UNROLL
        for (int i = 0; i < N - 1; ++i) {
            const int32_t e = v[i] - v[N - 1];
            const int32_t turns = bounds == Bounds::extend ? floor_div(e, a) : -(e < 0 ? 1 : 0);
            digit[i] = e - a * turns;
            wraps += turns;
        }
        if (bounds == Bounds::extend) {
            // |k wraps| may pass 2^31 far outside
            const int64_t exact = static_cast<int64_t>(v[N - 1]) - static_cast<int64_t>(k) * wraps;
            const int64_t rest = exact % (a + N * k);
            last = static_cast<int32_t>(rest);
        } else {
            last = v[N - 1] - k * wraps;
        }
        reduce_last();
    }

    // To the next vertex along an axis.
    FD_HOST_DEVICE void step(int axis) {
        FD_UNROLL
        for (int i = 0; i < N - 1; ++i) {
            digit[i] += axis == N - 1 ? -1 : axis == i ? 1 : 0;
            const int32_t turns = digit[i] < 0 ? -1 : digit[i] >= a ? 1 : 0;
            digit[i] -= a * turns;
            last -= k * turns;
        }
        last += axis == N - 1 ? 1 : 0;
        reduce_last();
    }

    FD_HOST_DEVICE uint32_t value() const {
        uint32_t index = static_cast<uint32_t>(last);
        FD_UNROLL
        for (int i = N - 2; i >= 0; --i)
            index = index * static_cast<uint32_t>(a) + static_cast<uint32_t>(digit[i]);
        return index;
    }

  private:
    FD_HOST_DEVICE void reduce_last() {
        const int32_t m = a + N * k;
        last = last < 0 ? last + m : last;
        last = last >= m ? last - m : last;
    }
};

// Entries of all vertices, relative to the level's first.
template <int N, class Real>
FD_HOST_DEVICE void indices_of(const Level<Real>& level, const int32_t* v, const int* axis, Bounds bounds,
                               uint32_t* index) {
    if (level.dense) {
        DenseNumber<N> number(v, level.a, level.k, bounds);
        index[0] = number.value();
        FD_UNROLL
        for (int k = 0; k < N; ++k) {
            number.step(axis[k]);
            index[k + 1] = number.value();
        }
        return;
    }
    uint32_t hash = 0, step[N];
    FD_UNROLL
    for (int i = 0; i < N; ++i) {
        const uint32_t product = static_cast<uint32_t>(v[i]) * hash_prime(i);
        step[i] = product ^ (product + hash_prime(i));
        hash ^= product;
    }
    index[0] = hash & level.mask;
    FD_UNROLL
    for (int k = 0; k < N; ++k) {
        FD_UNROLL
        for (int i = 0; i < N; ++i) hash ^= step[i] & (axis[k] == i ? ~0u : 0u);
        index[k + 1] = hash & level.mask;
    }
}

// dL/dx of one level from c_k = <g, T_k>, added to dx; the bounds' mask is applied by the caller.
template <int N, class Real>
FD_HOST_DEVICE void add_gradient(const Level<Real>& level, const Real* c, const int* axis, Real* dx) {
    const Real common = skew<Real>(N) * (c[N] - c[0]);
    FD_UNROLL
    for (int k = 0; k < N; ++k) {
        const Real slope = level.scale * ((c[k + 1] - c[k]) + common);
        FD_UNROLL
        for (int i = 0; i < N; ++i) dx[i] = axis[k] == i ? dx[i] + slope : dx[i];
    }
}

}  // namespace fd::simplex
