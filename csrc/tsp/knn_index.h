// Points of the plane, to be asked for neighbours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "tsp/knn_lists.h"
#include "tsp/knn_tree.h"

namespace fd::tsp {

// A grid, or a k-d tree where some cell of the grid would hold many points.
class PlanarIndex {
  public:
    template <class T>
    PlanarIndex(const T* xy, City n) {
        if (n == 0) return;
        const auto x = [xy](City i) { return static_cast<double>(xy[2 * i]); };
        const auto y = [xy](City i) { return static_cast<double>(xy[2 * i + 1]); };
        Box box{{x(0), y(0)}, {x(0), y(0)}};
        for (City i = 1; i < n; ++i) {
            box.low[0] = std::min(box.low[0], x(i));
            box.low[1] = std::min(box.low[1], y(i));
            box.high[0] = std::max(box.high[0], x(i));
            box.high[1] = std::max(box.high[1], y(i));
        }
        grid_ = Grid::over(box, n);
        first_.assign(grid_.size() + 1, 0);
        for (City i = 0; i < n; ++i) ++first_[grid_.cell_of(x(i), y(i))];
        if (*std::max_element(first_.begin(), first_.end()) > kCrowd) {
            first_ = {};
            tree_.emplace(n, [&](City i) { return KdTree<2>::Place{x(i), y(i)}; });
            return;
        }
        City before = 0;
        for (City& count : first_) before += std::exchange(count, before);
        points_.resize(n);
        for (City i = 0; i < n; ++i) points_[first_[grid_.cell_of(x(i), y(i))]++] = {x(i), y(i), i};
        std::copy_backward(first_.begin(), first_.end() - 1, first_.end());
        first_[0] = 0;
    }

    // Shows `list` every point near (x, y) that it needs; of a grid at most `max_ring` rings of cells.
    template <class List>
    void search(double x, double y, List& list, int32_t max_ring = kAllRings) const {
        if (tree_) return tree_->search({x, y}, list);
        const int32_t column = grid_.along(x, 0), row = grid_.along(y, 1);
        constexpr Offsets kEverywhere{{-Grid::kInfinite, -Grid::kInfinite},
                                      {Grid::kInfinite, Grid::kInfinite}};
        for (int32_t ring = 0; ring <= max_ring; ++ring) {
            cells_of_ring(grid_, column, row, ring, [&](int64_t cell, int64_t last) {
                for (City p = first_[cell]; p < first_[last]; ++p) {
                    const double dx = points_[p].x - x, dy = points_[p].y - y;
                    list.see(dx, dy, dx * dx + dy * dy, points_[p].id);
                }
            });
            const double reach = grid_.reach(x, y, column, row, ring);
            if (reach == Grid::kInfinite || !list.needs(kEverywhere, reach * reach, 0)) return;
        }
    }

    // The points in the order in which they lie in memory: asking along it finds the caches warm.
    City id_at(City i) const { return tree_ ? tree_->id_at(i) : points_[i].id; }

  private:
    static constexpr City kCrowd = 32;
    static constexpr int32_t kAllRings = 0x7fffffff;

    struct Point {
        double x, y;
        City id;
    };

    Grid grid_{};
    std::vector<City> first_;  // [cells + 1], where a cell's points begin
    std::vector<Point> points_;
    std::optional<KdTree<2>> tree_;
};

}  // namespace fd::tsp
