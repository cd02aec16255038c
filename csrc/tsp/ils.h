// Iterated local search: perturb a few consecutive cities, repair by 2-opt and 3-opt moves, keep or undo.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "tsp/problem.h"

namespace fd::tsp {

struct IlsOptions {
    uint64_t seed = 0;
    uint32_t instance = 0, trajectory = 0;
    double time_limit = std::numeric_limits<double>::infinity();  // seconds inside the constructor and run()
    int64_t max_kicks = -1;    // -1 = only the clock counts; otherwise the schedule follows the kicks alone
    int32_t segment = 0;       // longest segment that a kick moves; 0 = chosen from the budget
    double hot = 0, cold = 0;  // temperatures in mean edge lengths; 0 = chosen from the budget
    bool recombine = true;     // where the budget allows it, search many times and combine (evolve.h)
};

struct IlsState {
    int64_t kicks = 0, accepted = 0;
    Total length = 0, best_length = 0, first_local_optimum = 0;
    double elapsed = 0;
    bool finished = false;
};

// Holds a reference to the problem.
class IlsSearch {
  public:
    IlsSearch(const Problem& problem, const IlsOptions& options, const std::vector<City>& start);
    ~IlsSearch();

    // Goes on for at most so many seconds; true when the budget of the options is spent. Where runs end
    // changes nothing in a search limited by kicks.
    bool run(double seconds);

    const IlsState& state() const;
    const std::vector<City>& best();

    class Engine {
      public:
        virtual ~Engine() = default;
        virtual bool run(double seconds) = 0;
        virtual const std::vector<City>& best() = 0;
        IlsState state;
    };

  private:
    std::unique_ptr<Engine> engine_;
};

}  // namespace fd::tsp
