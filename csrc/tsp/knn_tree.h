// k-d tree over points of any density: median split of the wider side, leaves of at most 8 points.
#pragma once

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "tsp/knn_lists.h"

namespace fd::tsp {

template <int D>
class KdTree {
  public:
    using Place = std::array<double, D>;

    // `place(i)` is the Place of point i.
    template <class PlaceOf>
    KdTree(City n, const PlaceOf& place) : points_(n) {
        for (City i = 0; i < n; ++i) points_[i] = {place(i), i};
        size_t leaves = 1;
        for (City widest = n; widest > kLeaf; widest -= widest / 2) leaves *= 2;
        nodes_.resize(2 * leaves - 1);
        if (n > 0) build(0, 0, n);
    }

    // Shows `list` every point near `at` that it needs.
    template <class List>
    void search(const Place& at, List& list) const {
        if (!points_.empty()) descend(0, 0, static_cast<City>(points_.size()), at, list, approach(0, at));
    }

    City id_at(City i) const { return points_[i].id; }

  private:
    static constexpr City kLeaf = 8;

    struct Point {
        Place at;
        City id;
    };
    struct Node {  // of the points below it
        Place low, high;
        City least;  // id: among points that are equally far a smaller one counts
    };
    struct Approach {
        Offsets box;
        double d2;
    };

    // The children of node i are 2 i + 1 and 2 i + 2; a range of points goes with each.
    void build(size_t node, City first, City last) {
        Node& here = nodes_[node];
        here = {points_[first].at, points_[first].at, points_[first].id};
        for (City i = first; i < last; ++i) {
            for (int d = 0; d < D; ++d) {
                here.low[d] = std::min(here.low[d], points_[i].at[d]);
                here.high[d] = std::max(here.high[d], points_[i].at[d]);
            }
            here.least = std::min(here.least, points_[i].id);
        }
        if (last - first <= kLeaf) return;
        int axis = 0;
        for (int d = 1; d < D; ++d) {
            if (here.high[d] - here.low[d] > here.high[axis] - here.low[axis]) axis = d;
        }
        const City middle = first + (last - first) / 2;
        // equal points are split by id, so that `least` prunes among them
        std::nth_element(points_.begin() + first, points_.begin() + middle, points_.begin() + last,
                         [axis](const Point& a, const Point& b) {
                             return a.at[axis] != b.at[axis] ? a.at[axis] < b.at[axis] : a.id < b.id;
                         });
        build(2 * node + 1, first, middle);
        build(2 * node + 2, middle, last);
    }

    Approach approach(size_t node, const Place& at) const {
        const Node& there = nodes_[node];
        Approach a{};
        for (int d = 0; d < D; ++d) {
            const double low = there.low[d] - at[d], high = there.high[d] - at[d];
            const double gap = low > 0 ? low : high < 0 ? high : 0;
            a.d2 += gap * gap;
            if (d < 2) {
                a.box.low[d] = low;
                a.box.high[d] = high;
            }
        }
        return a;
    }

    template <class List>
    void descend(size_t node, City first, City last, const Place& at, List& list, const Approach& way) const {
        if (!list.needs(way.box, way.d2, nodes_[node].least)) return;
        if (last - first <= kLeaf) {
            for (City i = first; i < last; ++i) {
                double d2 = 0;
                for (int d = 0; d < D; ++d) {
                    const double delta = points_[i].at[d] - at[d];
                    d2 += delta * delta;
                }
                list.see(points_[i].at[0] - at[0], points_[i].at[1] - at[1], d2, points_[i].id);
            }
            return;
        }
        const City middle = first + (last - first) / 2;
        const size_t left = 2 * node + 1, right = left + 1;
        const Approach to_left = approach(left, at), to_right = approach(right, at);
        if (closer(to_right.d2, nodes_[right].least, to_left.d2, nodes_[left].least)) {
            descend(right, middle, last, at, list, to_right);
            descend(left, first, middle, at, list, to_left);
        } else {
            descend(left, first, middle, at, list, to_left);
            descend(right, middle, last, at, list, to_right);
        }
    }

    std::vector<Point> points_;
    std::vector<Node> nodes_;
};

}  // namespace fd::tsp
