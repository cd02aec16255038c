// Heat-guided search by sampled k-opt moves ("Monte Carlo tree search"): Fu, Qiu, Zha, arXiv 2012.10658, with
// the parameters of arXiv 2411.09238.
//
//   state <- random, by the weights W; 2-opt descent
//   repeat: up to param_h * n actions; the first with a gain is applied and its edges are rewarded;
//           if none has: state <- another random one; 2-opt descent
//
// The decisions are the published ones. What is different: distances are integers; sampling is exact; where
// no candidate is left, a random state jumps to the nearest unvisited city; rows of equal weights have W /
// mean = 1.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "tsp/heat.h"
#include "tsp/problem.h"

namespace fd::tsp {

struct MctsOptions {
    uint64_t seed = 0;
    uint32_t instance = 0, trajectory = 0;
    double time_limit = std::numeric_limits<double>::infinity();  // seconds inside the constructor and run()
    int64_t max_actions = -1;                                     // -1 = only the clock counts
    double alpha = 1, beta = 10, param_h = 10;
    City max_candidates = 1000;
    bool candidates_from_heatmap = true;
    int32_t max_depth = 10;
    bool exact_ucb = false;  // ln(M + 1) anew for every action; otherwise for every 256th
};

struct MctsState {
    int64_t actions = 0, accepted = 0, restarts = 0, rows_without_heat = 0;
    Total length = 0, best_length = 0, first_local_optimum = 0;
    double elapsed = 0;
    bool finished = false;
};

// Holds a reference to the problem; the heat is read by the constructor only. Needs 5 cities.
class MctsSearch {
  public:
    // Begins with the tour `start`, or with a random one if that is empty.
    MctsSearch(const Problem& problem, const HeatLists& heat, const MctsOptions& options,
               const std::vector<City>& start);
    ~MctsSearch();

    // Goes on for at most so many seconds; true when the budget of the options is spent. Where runs end
    // changes nothing in a search limited by actions.
    bool run(double seconds);

    const MctsState& state() const;
    std::vector<City> best() const;

    class Engine;

  private:
    std::unique_ptr<Engine> engine_;
};

}  // namespace fd::tsp
