// How likely an edge is in a short tour, as somebody's model says: a few weighted neighbours of each city.
#pragma once

#include <cstdint>
#include <vector>

#include "tsp/problem.h"

namespace fd::tsp {

// As the caller gives them, in his numbering: [n, width], id -1 = empty slot, weights >= 0. Borrowed.
struct HeatLists {
    const City* city = nullptr;
    const float* weight = nullptr;
    int64_t width = 0;
};

// In the problem's numbering: rows in descending weight, scaled to a largest weight of 1; -1 ends a row.
// Zero weights are dropped. width 0 = no heat at all.
struct Heat {
    City width = 0;
    std::vector<City> city;     // [n, width]
    std::vector<float> weight;  // beside them

    const City* cities_of(City a) const { return city.data() + static_cast<int64_t>(a) * width; }
    float between(City a, City b) const;  // the larger of both directions, 0 where neither row has it
};

Heat arrange_heat(const Problem& problem, const HeatLists& lists);

}  // namespace fd::tsp
