// Neighbours of a problem's cities among some of them, whatever the metric: a finder's find(i, found)
// replaces `found` by places in `cities`, of those near cities[i]. They are candidates: by straight distance
// in the plane also where the metric is not quite that.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "tsp/knn_index.h"
#include "tsp/problem.h"

namespace fd::tsp {

template <class T>
class PlanarFinder {
  public:
    PlanarFinder(const T* xy, const std::vector<City>& cities, City nearest, City per_quadrant)
        : xy_(gather(xy, cities)),
          index_(xy_.data(), static_cast<City>(cities.size())),
          nearest_(nearest),
          quadrants_(std::max<City>(per_quadrant, 1)),
          per_quadrant_(per_quadrant) {}

    void find(City i, std::vector<City>& found) {
        found.clear();
        const double x = xy_[2 * i], y = xy_[2 * i + 1];
        nearest_.restart(i);
        index_.search(x, y, nearest_);
        for (const Neighbour& near : nearest_) found.push_back(near.id);
        if (per_quadrant_ == 0) return;
        quadrants_.restart(i);
        index_.search(x, y, quadrants_, kQuadrantRings);
        quadrants_.for_each([&](const Neighbour& near) { found.push_back(near.id); });
    }

  private:
    // A quadrant that is empty so far out stays empty; those of collinear points would be looked for far
    // away.
    static constexpr int32_t kQuadrantRings = 6;

    static std::vector<T> gather(const T* xy, const std::vector<City>& cities) {
        std::vector<T> places;
        places.reserve(2 * cities.size());
        for (const City a : cities) places.insert(places.end(), {xy[2 * a], xy[2 * a + 1]});
        return places;
    }

    std::vector<T> xy_;
    PlanarIndex index_;
    Nearest nearest_;
    QuadrantLists quadrants_;
    City per_quadrant_;
};

// On the sphere: chords order points as great circles do.
class SphereFinder {
  public:
    SphereFinder(const double* radians, const std::vector<City>& cities, City nearest)
        : places_(gather(radians, cities)),
          tree_(static_cast<City>(places_.size()), [this](City i) { return places_[i]; }),
          nearest_(nearest) {}

    void find(City i, std::vector<City>& found) {
        found.clear();
        nearest_.restart(i);
        tree_.search(places_[i], nearest_);
        for (const Neighbour& near : nearest_) found.push_back(near.id);
    }

  private:
    static std::vector<KdTree<3>::Place> gather(const double* radians, const std::vector<City>& cities) {
        std::vector<KdTree<3>::Place> places;
        for (const City a : cities) {
            const double lat = radians[2 * a], lon = radians[2 * a + 1];
            places.push_back({std::cos(lat) * std::cos(lon), std::cos(lat) * std::sin(lon), std::sin(lat)});
        }
        return places;
    }

    std::vector<KdTree<3>::Place> places_;
    KdTree<3> tree_;
    Nearest nearest_;
};

class RowFinder {
  public:
    RowFinder(const Matrix& matrix, const std::vector<City>& cities, City nearest)
        : matrix_(matrix), cities_(cities), nearest_(nearest) {}

    void find(City i, std::vector<City>& found) {
        found.clear();
        nearest_.restart(i);
        for (City j = 0; j < static_cast<City>(cities_.size()); ++j) {
            nearest_.see(0, 0, matrix_(cities_[i], cities_[j]), j);
        }
        for (const Neighbour& near : nearest_) found.push_back(near.id);
    }

  private:
    Matrix matrix_;
    const std::vector<City>& cities_;
    Nearest nearest_;
};

// Calls use(finder). `cities` must not hold the depot, and outlive the call.
template <class Use>
void with_finder(const Problem& problem, const std::vector<City>& cities, City nearest, City per_quadrant,
                 const Use& use) {
    const City others = std::max<City>(static_cast<City>(cities.size()) - 1, 0);
    const City all = std::min(others, nearest + 4 * per_quadrant);
    nearest = std::min(others, nearest);
    switch (problem.metric) {
        case Metric::euclidean:
            return use(PlanarFinder<float>(problem.unit_xy.data(), cities, nearest, per_quadrant));
        case Metric::geo:
            return use(SphereFinder(problem.input_xy.data(), cities, all));
        case Metric::explicit_matrix:
            return use(
                RowFinder({problem.matrix.data(), problem.open ? problem.n - 1 : problem.n}, cities, all));
        default:
            return use(PlanarFinder<double>(problem.input_xy.data(), cities, nearest, per_quadrant));
    }
}

}  // namespace fd::tsp
