// One simulated action: a chain of sampled steps from a removed edge, up to the first that can be closed with
// a gain.
#pragma once

#include <cstdint>
#include <vector>

#include "tsp/mcts_choice.h"
#include "tsp/mcts_draws.h"
#include "tsp/mcts_edges.h"
#include "tsp/mcts_path.h"
#include "tsp/mcts_tour.h"

namespace fd::tsp {

struct MctsStep {
    City from, to, end;  // the edge (from, to) is added; the new open end
};

// What chains look at.
template <class Distance>
struct Surroundings {
    const Problem& problem;
    const std::vector<City>& numbers;  // the problem's number of each of the caller's cities
    const DirectedTour& tour;
    MctsEdges& edges;
    Distance distance;
    int32_t max_depth;
    double exploration;  // alpha sqrt(ln(M + 1))
};

class MctsChain {
  public:
    MctsChain(const EventStream& stream, int32_t n, int32_t max_depth, int32_t most_groups)
        : draws_(stream, max_depth),
          path_(n, max_depth),
          steps_(max_depth),
          sums_(static_cast<size_t>(most_groups) * kGroup),
          allowed_(most_groups) {}

    bool running() const { return running_; }
    Total gain() const { return gain_; }  // of a chain that has ended; 0 without success
    City first() const { return first_; }
    int32_t length() const { return taken_; }
    const MctsStep& step_at(int32_t k) const { return steps_[k]; }

    template <simd::Level L, class Distance>
    FD_HOST_DEVICE void begin(uint64_t event, const Surroundings<Distance>& s) {
        draws_.begin<L>(event);
        first_ = s.numbers[static_cast<unsigned __int128>(draws_.integer()) * s.numbers.size() >> 64];
        open_ = s.tour.cut_after(first_, path_);
        end_ = s.tour.at(open_.place);
        open_gain_ = s.distance(first_, end_);
        taken_ = 0;
        gain_ = 0;
        running_ = !s.problem.is_fixed(first_, end_);
    }

    template <simd::Level L, bool kExplore, class Distance>
    FD_HOST_DEVICE void step(const Surroundings<Distance>& s) {
        const auto& row = s.edges.row(end_);
        const Excluded excluded{first_, s.tour.at(open_.second),
                                s.problem.fixed.empty() ? nullptr : allow(row, s)};
        const City k = choose<L, kExplore>(s.edges.potentials(row, s.exploration), excluded,
                                           draws_.unit(taken_), sums_.data());
        if (k < 0) {
            running_ = false;
            return;
        }
        const int64_t slot = row.first + k;
        if constexpr (kExplore) s.edges.try_edge(slot);
        const City to = s.edges.city(slot);
        open_ = path_.step<L>(s.tour.place(to));
        const City end = s.tour.at(open_.place);
        steps_[taken_++] = {end_, to, end};
        open_gain_ += s.distance(to, end) - s.edges.length(slot);
        end_ = end;
        const Total gain = open_gain_ - s.distance(end, first_);
        if (gain > 0) gain_ = gain;
        running_ = gain <= 0 && taken_ < s.max_depth;
    }

  private:
    // Which candidates have an edge before them that may be removed.
    template <class Distance>
    const uint8_t* allow(const MctsEdges::Row& row, const Surroundings<Distance>& s) {
        std::fill_n(allowed_.begin(), row.groups, uint8_t{0});
        const City* city = s.edges.cities(row);
        for (City k = 0; k < row.count; ++k) {
            const bool movable = city[k] != end_ &&
                                 !s.problem.is_fixed(city[k], s.tour.at(path_.before(s.tour.place(city[k]))));
            allowed_[k / kGroup] |= movable << k % kGroup;
        }
        return allowed_.data();
    }

    ActionDraws draws_;
    CutPath path_;
    std::vector<MctsStep> steps_;
    std::vector<double> sums_;      // scratch of choose()
    std::vector<uint8_t> allowed_;  // scratch, only with fixed edges
    OpenEnd open_{};
    City first_ = 0, end_ = 0;
    int32_t taken_ = 0;
    Total open_gain_ = 0, gain_ = 0;
    bool running_ = false;
};

}  // namespace fd::tsp
