// The levels of a multiresolution encoding, as kernels see them: 32 of them fit into kernel arguments.
//
// `layout` holds six numbers a level: first entry in the table, number of entries, whether it is dense, a, K
// and the hash mask. Dense simplex levels number the vertices by the quotient of a and K (simplex.h), dense
// cubic ones by strides 1, a, a^2, ... (grid.h).
#pragma once

#include <cstdint>

#include "common/portable.h"

namespace fd {

constexpr int kMaxAxes = 8, kMaxLevels = 32, kLayoutNumbers = 6;
enum class Bounds : int { clamp = 0, extend = 1 };
namespace encoding {
enum class Lattice : int { simplex = 0, grid = 1 };
}

template <class Real>
struct Level {
    Real scale, shift[kMaxAxes];
    int64_t offset;
    uint32_t size, mask;
    int32_t a, k;
    bool dense;
};

template <class Real>
struct Levels {
    Level<Real> level[kMaxLevels];
    int count;
};

// The primes of the hash; the first seven are tiny-cuda-nn's.
FD_HOST_DEVICE constexpr uint32_t hash_prime(int axis) {
    constexpr uint32_t primes[kMaxAxes] = {1u,          2654435761u, 805459861u,  3674653429u,
                                           2097192037u, 1434869437u, 2165219737u, 1958374283u};
    return primes[axis];
}

// What locating a point gives: in lattice units, the cell and the place in it.
template <int N, class Real>
struct Cell {
    int32_t v[N];
    Real f[N];
    bool valid;  // finite, and not so far away that the cell's numbers overflow
};

// A coordinate as the lattice sees it; a NaN stays one.
template <class Real>
FD_HOST_DEVICE Real bounded(Real x, Bounds bounds) {
    if (bounds == Bounds::extend) return x;
    return x < Real(0) ? Real(0) : x > Real(1) ? Real(1) : x;
}

// d bounded / dx
template <class Real>
FD_HOST_DEVICE bool passes(Real x, Bounds bounds) {
    return bounds == Bounds::extend || (x >= Real(0) && x <= Real(1));
}

FD_HOST_DEVICE float floor_of(float x) { return __builtin_floorf(x); }
FD_HOST_DEVICE double floor_of(double x) { return __builtin_floor(x); }

// Cell of the lattice coordinates y; `finite` says whether the point's coordinates are.
template <int N, class Real>
FD_HOST_DEVICE Cell<N, Real> cell_of(const Real* y, bool finite) {
    constexpr Real kFar = Real(1 << 30);
    Cell<N, Real> cell;
    cell.valid = finite;
    FD_UNROLL
    for (int i = 0; i < N; ++i) cell.valid = cell.valid && y[i] > -kFar && y[i] < kFar;
    FD_UNROLL
    for (int i = 0; i < N; ++i) {
        const Real whole = cell.valid ? floor_of(y[i]) : Real(0);
        cell.v[i] = static_cast<int32_t>(whole);
        cell.f[i] = y[i] - whole;
    }
    return cell;
}

template <int N, class Real>
FD_HOST_DEVICE bool all_finite(const Real* x) {
    bool finite = true;
    FD_UNROLL
    for (int i = 0; i < N; ++i) finite = finite && x[i] - x[i] == Real(0);
    return finite;
}

FD_HOST_DEVICE int32_t floor_div(int32_t n, int32_t d) { return n / d - (n % d < 0 ? 1 : 0); }

}  // namespace fd
