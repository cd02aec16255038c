// Minimum 1-trees of a sparse graph whose cities carry penalties: spanning trees with one more edge at one
// special city. Every tour is a 1-tree, so the cheapest of them bounds all tours from below.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "tsp/problem.h"

namespace fd::tsp {

// Costs are lengths plus the penalties of both ends. Lengths are brought to 2^26 .. 2^27 by a power of two:
// with penalties they fit 32 bits, and penalties are fine enough for metrics of small integers. Rounding is
// downwards, so that bounds stay bounds.
using Cost = int32_t;
constexpr Total kLengthLimit = Total{1} << 27;
constexpr Cost kPenaltyLimit = Cost{1} << 27;
// Taken off the length of an edge that must be in the tree: more than any two costs differ by.
constexpr Cost kForced = Cost{1} << 29;

struct SparseGraph {
    struct Link {
        City a, b;
        Cost length;
    };
    City n = 0;     // cities of the problem
    City tree = 0;  // cities in the tree: all but a depot, which is at distance 0 from every other
    int shift = 0;  // lengths are the problem's times 2^shift
    int64_t forced = 0;
    std::vector<Link> links;  // every edge once, connected
    std::vector<City> depot_forced;

    bool open() const { return tree < n; }
    Total scaled(Total length) const { return shift >= 0 ? length << shift : length >> -shift; }
};

// Edges of the neighbour lists, or all edges; fixed edges; and what connects the
// pieces: cities are numbered along a space-filling curve, so that neighbours in number are not far apart.
SparseGraph sparse_graph(const Problem& problem, const Candidates& near, bool complete);

class OneTree {
  public:
    explicit OneTree(const SparseGraph& graph);

    // The cost of the minimum 1-tree less twice the penalties: no tour in this graph is shorter.
    Total build(const std::vector<Cost>& penalty);

    struct Branch {
        int32_t link;
        Cost cost;
    };
    std::vector<Branch> branches;  // of the spanning tree, in ascending order of cost
    std::vector<int32_t> degree;   // [n], the special city's extra edge included
    City special = -1;             // -1: no leaf has a second edge, and the spanning tree stands alone
    City special_ends[2]{};        // neighbours of the special city
    Cost second = 0;               // the dearer of its two edges

  private:
    void sort_links(const std::vector<Cost>& penalty);
    Total spanning_tree();
    Total close_leaf();
    Total join_depot(const std::vector<Cost>& penalty);
    City root(City a) {
        while (root_[a] != a) a = root_[a] = root_[root_[a]];
        return a;
    }

    const SparseGraph* graph_;
    std::vector<int32_t> order_;  // links by cost
    std::vector<uint32_t> keys_;  // their costs
    std::vector<size_t> rest_;    // places in the order of links that are no branches
    std::vector<City> root_;
    // Exclusive or of a city's neighbours in the tree: at a leaf, the only one; complemented once the leaf
    // has met an edge outside the tree.
    std::vector<City> leaf_end_;
};

}  // namespace fd::tsp
