// Random tours by the weights of edges: from a city to an unvisited candidate with probability ~ exp(W), to
// the nearest unvisited city when no candidate is left.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "tsp/mcts_draws.h"
#include "tsp/mcts_edges.h"
#include "tsp/nearest_unvisited.h"

namespace fd::tsp {

// One tour at a time, in as many calls as the clock wants. Starts at the caller's city 0; a depot comes last.
class RandomState {
  public:
    RandomState(const Problem& problem, const MctsEdges& edges, City first)
        : problem_(problem),
          edges_(edges),
          cities_(problem.open ? problem.n - 1 : problem.n),
          first_(start_of(problem, first)),
          sums_(static_cast<size_t>(edges.most_groups()) * kGroup) {
        if (!problem.input_xy.empty()) near_.emplace(problem.input_xy.data(), cities_);
    }

    void begin(const Draws& draws) {
        draws_ = draws;
        order_.clear();
        order_.reserve(problem_.n);
        closed_.assign(problem_.n, 0);
        if (near_) near_->reset();
        for (City c = 0; c < cities_; ++c) {
            if (inside_a_fixed_path(problem_, c)) close(c);
        }
        visit(first_);
    }

    // Up to so many more cities; true when the tour is complete.
    template <class Distance>
    bool extend(int32_t cities, const Distance& distance) {
        while (cities-- > 0 && static_cast<City>(order_.size()) < cities_) visit(next(distance));
        if (static_cast<City>(order_.size()) == cities_ && problem_.open) order_.push_back(problem_.n - 1);
        return static_cast<City>(order_.size()) == problem_.n;
    }

    const std::vector<City>& order() const { return order_; }

  private:
    static City partner(const Problem& problem, City c, int which) {
        return problem.fixed.empty() ? -1 : problem.fixed[2 * c + which];
    }
    static bool inside_a_fixed_path(const Problem& problem, City c) {
        return partner(problem, c, 0) >= 0 && partner(problem, c, 1) >= 0;
    }

    // Where a tour may begin that is to be closed by the edge back, or by the depot: at a fixed partner of
    // the depot, or at an end of the fixed path that `first` is in.
    static City start_of(const Problem& problem, City first) {
        if (problem.open && partner(problem, problem.n - 1, 0) >= 0)
            return partner(problem, problem.n - 1, 0);
        City before = -1, here = first;
        while (inside_a_fixed_path(problem, here)) {
            const City next = partner(problem, here, partner(problem, here, 0) == before ? 1 : 0);
            before = here, here = next;
            if (here == first) break;  // everything is fixed
        }
        return here;
    }

    // No longer to be jumped or drawn to.
    void close(City c) {
        if (closed_[c]) return;
        closed_[c] = 1;
        if (near_) near_->visit(c);
    }

    void visit(City c) {
        close(c);
        order_.push_back(c);
    }

    // The other end of a fixed edge that the tour has just reached.
    City forced() const {
        const City here = order_.back(), before = order_.size() > 1 ? order_[order_.size() - 2] : -1;
        for (int which = 0; which < 2; ++which) {
            const City c = partner(problem_, here, which);
            if (c >= 0 && c < cities_ && c != before && c != first_) return c;
        }
        return -1;
    }

    template <class Distance>
    City next(const Distance& distance) {
        const City here = order_.back();
        const double u = unit_double(draws_.word());  // in any case: a word for every place of the tour
        if (const City c = forced(); c >= 0) return c;
        const auto& row = edges_.row(here);
        const City* city = edges_.cities(row);
        const double* weight = edges_.weights(row);
        const auto open = [&](City k) { return city[k] < cities_ && !closed_[city[k]]; };
        double largest = -1, total = 0;
        for (City k = 0; k < row.count; ++k) {
            if (open(k)) largest = std::max(largest, weight[k]);
        }
        if (largest < 0) return jump(here, distance);
        for (City k = 0; k < row.count; ++k) {
            if (open(k)) total += std::exp(weight[k] - largest);
            sums_[k] = total;
        }
        return city[std::upper_bound(sums_.begin(), sums_.begin() + row.count, u * total) - sums_.begin()];
    }

    template <class Distance>
    City jump(City here, const Distance& distance) {
        if (near_) return near_->from(here);
        City best = -1;
        for (City c = 0; c < cities_; ++c) {
            if (!closed_[c] && (best < 0 || distance(here, c) < distance(here, best))) best = c;
        }
        return best;
    }

    const Problem& problem_;
    const MctsEdges& edges_;
    const City cities_;  // without the depot
    const City first_;
    std::optional<NearestUnvisited> near_;
    Draws draws_{{}, 0};
    std::vector<City> order_;
    std::vector<uint8_t> closed_;
    std::vector<double> sums_;
};

}  // namespace fd::tsp
