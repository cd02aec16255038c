// A population of tours from short searches, combined by edge assembly crossover (Nagata and Kobayashi,
// 2013): children take edges from two parents, keep what these share, and are chosen by what they gain for
// the variety they cost.
#pragma once

#include <memory>
#include <vector>

#include "tsp/ils.h"

namespace fd::tsp {

// Whether so much budget makes a population that beats one long search.
bool evolution_pays(City n, const IlsOptions& options);

// One iteration is a kick of the short searches, or kChildrenPerKick children.
constexpr int32_t kChildrenPerKick = 8;

std::unique_ptr<IlsSearch::Engine> make_evolution(const Problem& problem, const IlsOptions& options,
                                                  const std::vector<City>& start);

}  // namespace fd::tsp
