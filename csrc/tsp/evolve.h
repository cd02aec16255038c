// Edge assembly crossover on a population of good tours (Nagata and Kobayashi, 2013, with one cycle a child):
// children take edges from two parents and keep nearly all of what these share.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "tsp/problem.h"

namespace fd::tsp {

struct EvolveOptions {
    uint64_t seed = 0;
    uint32_t instance = 0, trajectory = 0;
    double time_limit = std::numeric_limits<double>::infinity();
    int64_t max_generations = -1;
    int32_t children = 30;  // of each pair of neighbours in a generation
    bool greedy = false;
};

class EvolveSearch {
  public:
    EvolveSearch(const Problem& problem, const EvolveOptions& options, const std::vector<std::vector<City>>& tours);
    ~EvolveSearch();

    // Goes on for at most so many seconds; true when nothing is left to combine or the budget is spent.
    bool run(double seconds);

    const std::vector<City>& best() const;
    Total best_length() const;
    int64_t generations() const;
    double mean_length() const;

    class Engine;

  private:
    std::unique_ptr<Engine> engine_;
};

}  // namespace fd::tsp
