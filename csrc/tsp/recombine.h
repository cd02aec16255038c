// The better parts of several tours in one.
#pragma once

#include <vector>

#include "tsp/problem.h"

namespace fd::tsp {

// The shortest of the tours, with every part of the others that makes it shorter: wherever the tours differ
// (alternating cycles), the better choice is taken by itself, as partition crossover does, and what falls
// apart is merged again if it still pays. Deterministic; never longer than the shortest tour.
std::vector<City> recombine(const Problem& problem, const std::vector<std::vector<City>>& tours);

}  // namespace fd::tsp
