// One instance as the searches see it: cities renumbered along a space-filling curve, candidate lists,
// edges that must stay.
#pragma once

#include <cstdint>
#include <vector>

#include "tsp/distance.h"

namespace fd::tsp {

// Candidate neighbours of every city in ascending distance, `width` slots a city; a shorter list ends
// with -1.
struct Candidates {
    City width = 0;
    std::vector<City> city;    // [n, width]
    std::vector<Edge> length;  // [n, width], beside them

    const City* cities_of(City a) const { return city.data() + static_cast<int64_t>(a) * width; }
    const Edge* lengths_of(City a) const { return length.data() + static_cast<int64_t>(a) * width; }
};

struct Problem {
    City n = 0;  // cities, the depot of an open path included
    Metric metric = Metric::euclidean;
    bool open = false;             // city n - 1 is a depot, at distance 0 from all
    double unit = 1;               // what an edge of length 1 is in the caller's units
    std::vector<City> original;    // the caller's number of each city; -1 for the depot
    std::vector<float> unit_xy;    // [2 n], euclidean: points in the unit box
    std::vector<double> input_xy;  // [2 n], the caller's coordinates (GEO: radians); empty for a matrix
    std::vector<Edge> matrix;      // [n, n], explicit_matrix only, without the depot
    float scale = 1;               // of Planar
    Candidates candidates;
    std::vector<City> fixed;  // [2 n] partners of a city along fixed edges, -1 = none; empty = no fixed edges

    bool is_fixed(City a, City b) const {
        return !fixed.empty() && (fixed[2 * a] == b || fixed[2 * a + 1] == b);
    }

    // Calls `visit(distance)` with the distance in its own type, so that the search inlines it.
    template <class Visit>
    decltype(auto) with_distance(const Visit& visit) const {
        const auto maybe_open = [&](auto distance) -> decltype(auto) {
            return open ? visit(WithDepot<decltype(distance)>{distance, n - 1}) : visit(distance);
        };
        switch (metric) {
            case Metric::euclidean:
                return maybe_open(Planar{unit_xy.data(), scale});
            case Metric::explicit_matrix:
                return maybe_open(Matrix{matrix.data(), open ? n - 1 : n});
            default:
                return maybe_open(Rounded{input_xy.data(), metric});
        }
    }
};

}  // namespace fd::tsp
