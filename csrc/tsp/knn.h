// Nearest neighbours in the plane: the arithmetic that CPU and CUDA share.
//
// Distances are compared as squares in float64, ties go to the smaller id. Of float32 points the squares are
// exact to a few ulp of float64, so all backends find the same neighbours in the same order.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/portable.h"
#include "tsp/distance.h"

namespace fd::tsp {

FD_HOST_DEVICE bool closer(double d2_a, City a, double d2_b, City b) {
    return d2_a < d2_b || (d2_a == d2_b && a < b);
}

struct Box {
    double low[2], high[2];
};

// A uniform grid of square cells over the points' box.
struct Grid {
    double origin[2];
    double cell, inverse;  // the side of a cell
    double slack;          // what rounding may move a point across the border of a cell, and more
    int32_t cells[2];

    // About two points a cell; a thin box has at most half as many cells along it as there are points, so
    // that cells never outnumber the points by more than 1.5.
    FD_HOST_DEVICE static Grid over(const Box& box, int64_t points) {
        const double width = box.high[0] - box.low[0], height = box.high[1] - box.low[1];
        const double longer = width > height ? width : height, n = static_cast<double>(points);
        const double fair = sqrt(width) * sqrt(height) * sqrt(2 / n), thin = 2 * longer / n;
        const double cell = fair > thin ? fair : thin;
        Grid grid{{box.low[0], box.low[1]}, 1, 0, 0, {1, 1}};
        // one cell for points that are all equal, or so far apart that differences overflow
        if (!(cell > 0 && 1 / cell < kHuge && longer < kHuge)) return grid;
        grid.cell = cell;
        grid.inverse = 1 / cell;
        grid.slack = 1e-12 * longer;
        grid.cells[0] = static_cast<int32_t>(width / cell) + 1;
        grid.cells[1] = static_cast<int32_t>(height / cell) + 1;
        return grid;
    }

    FD_HOST_DEVICE int64_t size() const { return static_cast<int64_t>(cells[0]) * cells[1]; }

    FD_HOST_DEVICE int32_t along(double v, int axis) const {
        const double at = (v - origin[axis]) * inverse;
        if (!(at > 0)) return 0;
        return at < cells[axis] ? static_cast<int32_t>(at) : cells[axis] - 1;
    }

    FD_HOST_DEVICE int64_t cell_of(double x, double y) const {
        return static_cast<int64_t>(along(y, 1)) * cells[0] + along(x, 0);
    }

    // How far every point is at least that lies in no cell within `ring` cells of that of (x, y); infinite
    // when there are no such cells.
    FD_HOST_DEVICE double reach(double x, double y, int32_t column, int32_t row, int32_t ring) const {
        const double u = x - origin[0], v = y - origin[1];
        double least = kInfinite;
        const auto border = [&](double distance) { least = distance < least ? distance : least; };
        if (column - ring > 0) border(u - (column - ring) * cell);
        if (column + ring + 1 < cells[0]) border((column + ring + 1) * cell - u);
        if (row - ring > 0) border(v - (row - ring) * cell);
        if (row + ring + 1 < cells[1]) border((row + ring + 1) * cell - v);
        least -= slack;
        return least > 0 ? least : 0;
    }

    static constexpr double kInfinite = std::numeric_limits<double>::infinity();
    static constexpr double kHuge = 1e300;
};

// Calls visit(first cell, last cell + 1) for the runs of neighbouring cells that make up one ring.
template <class Visit>
FD_HOST_DEVICE void cells_of_ring(const Grid& grid, int32_t column, int32_t row, int32_t ring,
                                  const Visit& visit) {
    const int32_t left = column - ring, right = column + ring;
    const int32_t first = left > 0 ? left : 0, last = right < grid.cells[0] ? right : grid.cells[0] - 1;
    const int32_t bottom = row - ring > 0 ? row - ring : 0;
    const int32_t top = row + ring < grid.cells[1] ? row + ring : grid.cells[1] - 1;
    for (int32_t r = bottom; r <= top; ++r) {
        const int64_t start = static_cast<int64_t>(r) * grid.cells[0];
        if (r == row - ring || r == row + ring) {
            visit(start + first, start + last + 1);
            continue;
        }
        if (left >= 0) visit(start + left, start + left + 1);
        if (right < grid.cells[0]) visit(start + right, start + right + 1);
    }
}

}  // namespace fd::tsp
