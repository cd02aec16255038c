// The inner loops of the encodings on the CPU, one table for each SIMD level; all levels give the same bits.
// Locating (which entries, with which weights) knows the dimension, reading the entries does not, so the two
// meet in small buffers in L1 and not in every combination of dimension, features and type.
#pragma once

#include "common/dtype.h"
#include "simplex/levels.h"

namespace fd::encoding {

constexpr int kGroup = 16;           // points that are located together
constexpr int kVerticesAtOnce = 32;  // of a cubic cell; a simplex has nine at most

// What is wanted at the vertices: their weights, or how these change along a direction.
enum class Wanted : int { weights = 0, slopes = 1 };

// Coordinates (and directions) of a run of groups, axis by axis; `valid` has a bit for each point of a group.
template <class Real>
struct Points {
    const Real* x;  // [axes][stride], inside the bounds
    const Real* u;  // likewise, zero where the bounds clamp; null unless slopes are wanted
    const uint16_t* valid;
    int stride;
};

// [groups][vertices][kGroup] each. `axes` (simplex only, may be null): [groups][n][kGroup], the order in
// which the path along the simplex takes them.
template <class Real>
struct Located {
    uint32_t* index;
    Real* weight;
    uint8_t* axes;
};

// By lattice (simplex, grid), wanted and n - 1; by log2 of the features and type (f16, bf16, f32). Points
// that have no cell carry NaN for weights.
struct Leaves {
    // Vertices [first, first + count) of the cells of `groups` groups.
    using Locate = void (*)(const Level<float>& level, Bounds bounds, const Points<float>& points, int groups,
                            int first, int count, const Located<float>& out);
    Locate locate[2][2][kMaxAxes];

    // `groups` whole groups of points axis by axis, inside the bounds; `valid` says which are finite. Null u:
    // no directions.
    using Fill = void (*)(const float* x, const float* u, Bounds bounds, int groups, int stride, float* x_out,
                          float* u_out, uint16_t* valid);
    Fill fill[kMaxAxes];

    // Between columns [levels][stride][F], of whole groups, and rows [points][levels][F].
    using WriteRows = void (*)(const float* columns, int stride, int points, int levels, void* rows);
    WriteRows write_rows[4][3];
    using ReadRows = void (*)(const void* rows, int stride, int points, int levels, float* columns);
    ReadRows read_rows[4][3];

    // out[p][c] += sum_k weight[k][p] table[index[k][p]][c] over groups of points, k in order, one fma each;
    // `fresh`: out begins with 0.
    using Gather = void (*)(const void* table, const uint32_t* index, const float* weight, int vertices,
                            int groups, bool fresh, float* out);
    Gather gather[4][3];

    // c[k][p] = <grad[p], table[index[k][p]]>, features in order.
    using Dot = void (*)(const void* table, const uint32_t* index, const float* grad, int vertices,
                         int groups, float* c);
    Dot dot[4][3];

    // dx[i][p] += the gradient that c means on this level.
    using Combine = void (*)(const Level<float>& level, Bounds bounds, const Points<float>& points,
                             int groups, int first, int count, const Located<float>& at, const float* c,
                             float* dx);
    Combine combine[2][kMaxAxes];

    // table[index[k][p] - begin] += weight[k][p] grad[p] where index < end: point after point, k in order.
    using Scatter = void (*)(const uint32_t* index, const float* weight, const float* grad, int vertices,
                             int points, uint32_t begin, uint32_t end, float* table);
    Scatter scatter[4];
};

const Leaves& leaves_of(simd::Level level);

}  // namespace fd::encoding
