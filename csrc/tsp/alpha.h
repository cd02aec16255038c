// Alpha-nearness (Helsgaun, 2000): by how much the minimum 1-tree grows when an edge must be in it. With
// penalties that turn the tree into almost a tour, the few alpha-nearest neighbours of a city hold the edges
// of short tours better than twice as many nearest ones.
#pragma once

#include <vector>

#include "tsp/one_tree.h"

namespace fd::tsp {

struct AlphaOptions {
    int32_t trees = 50;  // steps of the subgradient ascent
    City nearest = 5;    // alpha-nearest neighbours wanted of a city
    bool bound = true;   // one more tree on all edges makes the estimate of the bound a proof
};

struct AlphaResult {
    City width = 0;
    std::vector<City> nearest;  // [n, width] ascending alpha, -1 ends a list
    std::vector<Cost> penalty;  // [n], in units of 2^-shift
    int shift = 0;              // of lengths in penalties and alpha
    double lower_bound = 0;     // in units of an edge's length
    bool proven = false;        // no tour is shorter; otherwise an estimate, from candidate edges alone
};

// Deterministic. `near` is the neighbourhood (neighbour_lists), whose edges get their alpha.
AlphaResult alpha_nearness(const Problem& problem, const Candidates& near, const AlphaOptions& options);

// alpha of every link of the graph, given its minimum 1-tree under `penalty`.
std::vector<Cost> link_alphas(const SparseGraph& graph, const OneTree& tree,
                              const std::vector<Cost>& penalty);

// Penalties that make the minimum 1-tree as dear as they can in so many trees; returns its cost less theirs.
Total ascend(const SparseGraph& graph, int32_t trees, std::vector<Cost>& penalty);

// How many trees a search of so many seconds should spend: 0 if alpha-nearness cannot pay.
int32_t worthwhile_trees(City n, double seconds);

}  // namespace fd::tsp
