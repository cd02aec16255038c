// What the published search knows about edges: weights W, made of the heat and raised by rewards, and how
// often an edge was tried, Q (arXiv 2012.10658, section "MCTS").
//
// W and Q are read only for edges from a city to its candidates, and as a row's mean weight. So they are kept
// for candidates, with the sums of whole rows beside them: nothing else of the n x n matrices is ever needed.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tsp/candidates.h"
#include "tsp/heat.h"
#include "tsp/mcts_choice.h"
#include "tsp/problem.h"

namespace fd::tsp {

class MctsEdges {
  public:
    // Candidates: at most `most` a city, by heat (from 1e-4 up, descending) or by length. `count_tries`:
    // whether Q is kept; it is of no use without exploration.
    MctsEdges(const Problem& problem, const HeatLists& heat, City most, bool by_heat, bool count_tries);

    struct Row {
        int64_t first;  // slot of the first candidate
        City count;
        int32_t groups;  // of slots that hold them, the rest of which is not used: see CandidateRow
    };

    const Row& row(City a) const { return rows_[a]; }
    const City* cities(const Row& row) const { return city_.data() + row.first; }
    const double* weights(const Row& row) const { return weight_.data() + row.first; }
    City city(int64_t slot) const { return city_[slot]; }
    Edge length(int64_t slot) const { return length_[slot]; }

    CandidateRow potentials(const Row& row, double exploration) const {
        return {cities(row), merit_.data() + row.first, novelty_.data() + row.first, row.groups, exploration};
    }

    void try_edge(int64_t slot) {
        count(slot);
        if (mirror_[slot] >= 0) count(mirror_[slot]);
    }
    void try_edge(City a, City b) {
        if (const int64_t slot = find(a, b); slot >= 0) count(slot);
        if (const int64_t slot = find(b, a); slot >= 0) count(slot);
    }
    void reward(City a, City b, double amount) {
        add(a, find(a, b), amount);
        add(b, find(b, a), amount);
    }

    int32_t most_groups() const { return most_groups_; }
    // Cities that had no heat to choose candidates by, and got the nearest.
    int64_t rows_without_heat() const { return rows_without_heat_; }

  private:
    // -1 if b is no candidate of a.
    int64_t find(City a, City b) const {
        const Row& row = rows_[a];
        for (int64_t slot = row.first; slot < row.first + row.count; ++slot) {
            if (city_[slot] == b) return slot;
        }
        return -1;
    }
    void count(int64_t slot) { novelty_[slot] = 1 / std::sqrt(++tries_[slot] + 1.0); }
    void add(City a, int64_t slot, double amount) {
        if (slot >= 0) weight_[slot] += amount;
        sum_[a] += amount;
        set_merits(a);
    }
    // In a row that is zero, all are equal: W / mean W = 1.
    void set_merits(City a) {
        const double scale = sum_[a] > 0 ? (static_cast<double>(rows_.size()) - 1) / sum_[a] : 0;
        for (int64_t slot = rows_[a].first; slot < rows_[a].first + rows_[a].count; ++slot)
            merit_[slot] = scale > 0 ? weight_[slot] * scale : 1;
    }

    int32_t most_groups_ = 0;
    int64_t rows_without_heat_ = 0;
    std::vector<Row> rows_;
    std::vector<double> sum_;  // of W over a whole row
    // By slot: the candidates of city 0, of city 1, ...
    std::vector<City> city_;
    std::vector<Edge> length_;
    std::vector<double> weight_, merit_, novelty_;
    std::vector<uint32_t> tries_;
    std::vector<int64_t> mirror_;  // slot of the same edge in the other city's row, or -1
};

}  // namespace fd::tsp
