// Points of every density, for the tests of the tour search.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "tsp/build_problem.h"

namespace fd::tsp {

enum Kind { kUniform, kClustered, kLine, kLattice, kCopies, kEqual, kOutlier, kKinds };

inline std::vector<double> points_of(Kind kind, City n, uint64_t seed = 1) {
    std::mt19937_64 random(seed + 31 * static_cast<uint64_t>(n));
    const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
    std::vector<double> xy;
    for (City i = 0; i < n; ++i) {
        double x = uniform(), y = uniform();
        switch (kind) {
            case kClustered:
                x = static_cast<double>(random() % 4) + 1e-3 * x * x;
                y = static_cast<double>(random() % 4) + 1e-3 * y * y;
                break;
            case kLine:
                y = 3 - 0.5 * x;
                break;
            case kLattice:
                x = i % 17;
                y = i / 17;
                break;
            case kCopies:
                x = static_cast<double>(random() % 3);
                y = static_cast<double>(random() % 2);
                break;
            case kEqual:
                x = y = -0.1;
                break;
            case kOutlier:
                if (i == n / 2) x = 1e7;
                break;
            default:
                break;
        }
        xy.insert(xy.end(), {x, y});
    }
    return xy;
}

inline Problem problem_of(const std::vector<double>& xy, BuildOptions options = {}) {
    options.n = static_cast<int64_t>(xy.size() / 2);
    options.xy = xy.data();
    return build_problem(options);
}

inline std::string name_of(Kind kind, City n) {
    return "kind " + std::to_string(kind) + ", " + std::to_string(n) + " points";
}

}  // namespace fd::tsp
