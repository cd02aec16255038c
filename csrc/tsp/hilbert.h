// Cities along a Hilbert curve: neighbours in the plane become neighbours in memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "tsp/distance.h"
#include "tsp/radix_sort.h"

namespace fd::tsp {

// Place along the curve through the 2^16 x 2^16 grid. From the coarsest bit down: which quadrant, in the
// order in which the curve visits them, and how the curve lies in it (mirrored, turned).
inline uint32_t hilbert_key(uint32_t x, uint32_t y) {
    uint32_t key = 0;
    for (uint32_t side = 1u << 15; side > 0; side >>= 1) {
        const bool right = x & side, up = y & side;
        key = key << 2 | static_cast<uint32_t>(right ? 3 - up : up);
        if (!up) {
            if (right) {
                x = ~x;
                y = ~y;
            }
            const uint32_t t = x;
            x = y;
            y = t;
        }
    }
    return key;
}

// The order of points along the curve; `unit(i, axis)` is in [0, 1]. Points of one grid cell come by
// `before(i, j)`.
template <class Unit, class Before>
std::vector<City> hilbert_order(City n, const Unit& unit, const Before& before) {
    std::vector<uint32_t> keys(n);
    std::vector<City> order(n);
    std::iota(order.begin(), order.end(), 0);
    const auto cell = [](double v) { return static_cast<uint32_t>(v * 65535.0 + 0.5); };
    for (City i = 0; i < n; ++i) keys[i] = hilbert_key(cell(unit(i, 0)), cell(unit(i, 1)));
    radix_sort(keys, order);
    for (City first = 0, last; first < n; first = last) {
        for (last = first + 1; last < n && keys[last] == keys[first];) ++last;
        if (last - first > 1) std::stable_sort(order.begin() + first, order.begin() + last, before);
    }
    return order;
}

}  // namespace fd::tsp
