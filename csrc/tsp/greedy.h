// A start tour: edges in the order of their lengths, as far as they make paths.
#pragma once

#include <vector>

#include "tsp/heat.h"
#include "tsp/problem.h"

namespace fd::tsp {

// Candidate edges by length * (1 - heat / 2), then ends of paths with the nearest ends of others, until one
// path is left. Holds every fixed edge. Above 2e6 cities the space-filling curve, which is the numbering.
std::vector<City> greedy_tour(const Problem& problem, const Heat& heat = {});

}  // namespace fd::tsp
