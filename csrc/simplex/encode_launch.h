// Launchers of encode_cuda.cu and scatter_cuda.cu, for Real = float and double. Pointers are device memory
// and matrices are contiguous, but rows of features ([.., F] of the table, of the result and of the upstream
// gradient) need only the alignment of their elements.
#pragma once

#include "common/dtype.h"
#include "simplex/levels.h"

namespace fd::encoding {

struct CudaShape {
    Lattice lattice;
    Bounds bounds;
    int axes, features, used_levels;  // levels from `used_levels` on are zero
    int64_t points;
};

// A matrix whose rows hold features of any type; Element is void or const void.
template <class Element>
struct FeatureRows {
    Element* data;
    DType type;
};

// out[N, L F]: the features or, with directions `u`, their derivative along these.
template <class Real>
void encode_cuda(void* stream, const CudaShape& shape, const Levels<Real>& levels, const Real* x,
                 const Real* u, FeatureRows<const void> table, FeatureRows<void> out);

// dx[N, n]
template <class Real>
void encode_vjp_x_cuda(void* stream, const CudaShape& shape, const Levels<Real>& levels, const Real* x,
                       FeatureRows<const void> table, FeatureRows<const void> grad, Real* dx);

// What `deterministic` needs, all zero: sums of the table's shape and the largest addend of each level.
struct FixedPoint {
    int64_t* sums = nullptr;
    uint64_t* largest = nullptr;
};

// Adds to table[P, F], which is zero. With `fixed` the result does not depend on the order of the additions;
// a level with an infinite or NaN addend is then NaN as a whole.
template <class Real>
void encode_vjp_table_cuda(void* stream, const CudaShape& shape, const Levels<Real>& levels, const Real* x,
                           const Real* u, FeatureRows<const void> grad, const FixedPoint& fixed, Real* table);

}  // namespace fd::encoding
