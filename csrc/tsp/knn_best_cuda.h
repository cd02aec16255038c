// What a thread of the k-nearest kernels holds: points, and the nearest so far in registers.
#pragma once

#include <climits>
#include <limits>

#include "common/launch.h"
#include "tsp/knn.h"

namespace fd::tsp {

struct alignas(16) Place {
    double x, y;
};

// One aligned load. A point that is not finite is NaN in both, and so are its distances: nearer than nothing.
template <class T>
FD_HOST_DEVICE Place load_place(const T* coords, int64_t point) {
    const auto p = reinterpret_cast<const Vec<T, 2>*>(coords)[point];
    const double x = p.v[0], y = p.v[1];
    const bool usable = x - x == 0 && y - y == 0;
    constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
    return {usable ? x : kNaN, usable ? y : kNaN};
}

FD_HOST_DEVICE double square(const Place& a, const Place& b) {
    const double dx = a.x - b.x, dy = a.y - b.y;
    return dx * dx + dy * dy;
}

// The `wanted` <= L nearest that come after `floor`, in registers: every index is known when compiling. What
// is not wanted stands in front, as if it were nearer than anything, so the worst is always the last one.
template <int L>
struct Best {
    double d2[L];
    City id[L];

    FD_HOST_DEVICE explicit Best(int wanted) {
        FD_UNROLL
        for (int s = 0; s < L; ++s) {
            d2[s] = s < L - wanted ? -1 : std::numeric_limits<double>::infinity();
            id[s] = s < L - wanted ? -1 : INT_MAX;
        }
    }

    FD_HOST_DEVICE void offer(double next, City next_id) {
        if (!closer(next, next_id, d2[L - 1], id[L - 1])) return;
        d2[L - 1] = next;
        id[L - 1] = next_id;
        FD_UNROLL
        for (int s = L - 1; s > 0; --s) {
            const bool swap = closer(d2[s], id[s], d2[s - 1], id[s - 1]);
            const double near = swap ? d2[s] : d2[s - 1], far = swap ? d2[s - 1] : d2[s];
            const City near_id = swap ? id[s] : id[s - 1], far_id = swap ? id[s - 1] : id[s];
            d2[s - 1] = near;
            d2[s] = far;
            id[s - 1] = near_id;
            id[s] = far_id;
        }
    }

    FD_HOST_DEVICE void store(int wanted, int32_t* ids, float* distances) const {
        FD_UNROLL
        for (int s = 0; s < L; ++s) {
            const int at = s - (L - wanted);
            if (at < 0) continue;
            const bool found = id[s] != INT_MAX;
            ids[at] = found ? id[s] : -1;
            distances[at] = found ? static_cast<float>(sqrt(d2[s])) : std::numeric_limits<float>::quiet_NaN();
        }
    }
};

// Calls scan(best, after) once for every L neighbours; `after(d2, id)` says whether a point is still to come.
template <int L, class Scan>
FD_HOST_DEVICE void in_passes(int64_t k, const Scan& scan, int32_t* ids, float* distances, bool stores) {
    double floor = -1;
    City floor_id = -1;
    for (int64_t done = 0; done < k; done += L) {
        const int wanted = static_cast<int>(k - done < L ? k - done : L);
        Best<L> best(wanted);
        scan(best, [=](double d2, City id) { return closer(floor, floor_id, d2, id); });
        if (stores) best.store(wanted, ids + done, distances + done);
        floor = best.d2[L - 1];
        floor_id = best.id[L - 1];
    }
}

}  // namespace fd::tsp
