// How much worse a tour may become by one kick, over a run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace fd::tsp {

// Temperatures in mean edge lengths.
struct Temperatures {
    double hot, cold;

    // `fraction` of the run is over.
    double at(double fraction) const { return hot * std::pow(cold / hot, std::clamp(fraction, 0.0, 1.0)); }
};

// Fitted to measured runs: the more kicks a city gets, the hotter a start pays.
inline Temperatures temperatures_for(double kicks_per_city) {
    const double hot = std::clamp(0.2 * (1 + std::log10(std::max(0.1, kicks_per_city))), 0.05, 1.0);
    return {hot, hot / 10};
}

// Longer segments leave more to repair, and find more: worth it where every city gets several kicks.
inline int32_t segment_for(double kicks_per_city) { return kicks_per_city >= 3 ? 100 : 50; }

}  // namespace fd::tsp
