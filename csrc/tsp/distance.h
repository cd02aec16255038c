// Lengths of edges, always integers: sums of gains are exact and "better" is a comparison with zero. Sums of
// float32 gains drift, and a search that accepts what only rounding made better never ends.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/portable.h"

namespace fd::tsp {

using City = int32_t;
using Edge = int32_t;   // the length of one edge
using Total = int64_t;  // sums of them

// TSPLIB's names. `euclidean` is the real-valued distance, of which the search sees multiples of 1 / scale.
enum class Metric : int32_t { euclidean, euc_2d, ceil_2d, man_2d, max_2d, att, geo, explicit_matrix };

// Real-valued Euclidean distance: float32 points in the unit box, in units of 1 / scale.
struct Planar {
    const float* xy;  // [2 n]
    float scale;

    FD_HOST_DEVICE Edge operator()(City a, City b) const {
        const float dx = xy[2 * a] - xy[2 * b], dy = xy[2 * a + 1] - xy[2 * b + 1];
        return static_cast<Edge>(sqrtf(dx * dx + dy * dy) * scale);
    }
};

// The integer metrics of TSPLIB, on the file's own coordinates. GEO expects x = latitude and y = longitude
// in radians, which `geo_radians` makes.
struct Rounded {
    const double* xy;  // [2 n]
    Metric metric;

    Edge operator()(City a, City b) const {
        const double dx = std::fabs(xy[2 * a] - xy[2 * b]), dy = std::fabs(xy[2 * a + 1] - xy[2 * b + 1]);
        switch (metric) {
            case Metric::euc_2d:
                return nearest(std::sqrt(dx * dx + dy * dy));
            case Metric::ceil_2d:
                return static_cast<Edge>(std::ceil(std::sqrt(dx * dx + dy * dy)));
            case Metric::man_2d:
                return nearest(dx + dy);
            case Metric::max_2d: {
                const Edge ex = nearest(dx), ey = nearest(dy);
                return ex > ey ? ex : ey;
            }
            case Metric::att: {
                const double r = std::sqrt((dx * dx + dy * dy) / 10);
                const Edge t = nearest(r);
                return t < r ? t + 1 : t;
            }
            default:
                return geo(a, b);
        }
    }

  private:
    static Edge nearest(double v) { return static_cast<Edge>(std::floor(v + 0.5)); }

    Edge geo(City a, City b) const {
        if (a == b) return 0;
        const double q1 = std::cos(xy[2 * a + 1] - xy[2 * b + 1]);
        const double q2 = std::cos(xy[2 * a] - xy[2 * b]), q3 = std::cos(xy[2 * a] + xy[2 * b]);
        return static_cast<Edge>(6378.388 * std::acos(0.5 * ((1 + q1) * q2 - (1 - q1) * q3)) + 1);
    }
};

// Degrees.minutes, as TSPLIB writes them, in radians. Its formulas use this value of pi.
inline double geo_radians(double v) {
    const double degrees = std::trunc(v);
    return 3.141592 * (degrees + 5 * (v - degrees) / 3) / 180;
}

struct Matrix {
    const Edge* lengths;  // [n, n], symmetric
    int64_t n;

    Edge operator()(City a, City b) const { return lengths[a * n + b]; }
};

// One more city, `depot` = n, at distance 0 from every other: a tour through it is an open path.
template <class Distance>
struct WithDepot {
    Distance distance;
    City depot;

    Edge operator()(City a, City b) const { return a == depot || b == depot ? 0 : distance(a, b); }
};

}  // namespace fd::tsp
