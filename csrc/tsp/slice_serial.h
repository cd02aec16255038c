// A trajectory by the definition, in memory of its own: what the CPU runs and what kernels are compared with.
#pragma once

#include <vector>

#include "tsp/slice_walk.h"

namespace fd::tsp::slice {

template <class Index>
void search_serial(const Args& a, int64_t instance, int64_t trajectory) {
    std::vector<Index> indices(2 * static_cast<size_t>(a.n) + a.ring + 2 * a.log);
    std::vector<uint32_t> waiting(words_of(a.n));
    Index* const order = indices.data();
    const Storage<Index> storage{order, order + a.n, order + 2 * a.n, order + 2 * a.n + a.ring,
                                 waiting.data()};
    const SerialTeam team;
    const float* points = a.points + instance * 2 * a.n;
    Walk<SerialTeam, Index>(team, a, instance, trajectory, storage, points).run();
}

}  // namespace fd::tsp::slice
