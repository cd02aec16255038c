#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "tsp/one_tree.h"
#include "tsp/radix_sort.h"

namespace fd::tsp {
namespace {

constexpr Cost kNoCost = std::numeric_limits<Cost>::max();

// Unsigned numbers in the order of costs.
uint32_t key_of(Cost cost) { return static_cast<uint32_t>(cost) ^ 0x80000000u; }
Cost cost_of(uint32_t key) { return static_cast<Cost>(key ^ 0x80000000u); }

bool lists(const Candidates& near, City a, City b) {
    const City* to = near.cities_of(a);
    return std::find(to, to + near.width, b) != to + near.width;
}

// Every edge that at least one of its ends lists.
void add_candidates(SparseGraph& graph, const Candidates& near) {
    graph.links.reserve(static_cast<size_t>(graph.tree) * near.width);
    for (City a = 0; a < graph.tree; ++a) {
        const City* to = near.cities_of(a);
        for (City k = 0; k < near.width && to[k] >= 0; ++k) {
            const City b = to[k];
            if (b < graph.tree && (a < b || !lists(near, b, a))) graph.links.push_back({a, b, 0});
        }
    }
}

void add_fixed(SparseGraph& graph, const Problem& problem) {
    if (problem.fixed.empty()) return;
    std::vector<uint64_t> known(graph.links.size());
    const auto name = [](City a, City b) {
        return static_cast<uint64_t>(std::min(a, b)) << 32 | std::max(a, b);
    };
    std::transform(graph.links.begin(), graph.links.end(), known.begin(),
                   [&](const SparseGraph::Link& link) { return name(link.a, link.b); });
    std::sort(known.begin(), known.end());
    for (City a = 0; a < problem.n; ++a) {
        for (const City b : {problem.fixed[2 * a], problem.fixed[2 * a + 1]}) {
            if (b <= a) continue;  // none, or seen from the other end
            ++graph.forced;
            if (b >= graph.tree) {
                graph.depot_forced.push_back(a);
            } else if (!std::binary_search(known.begin(), known.end(), name(a, b))) {
                graph.links.push_back({a, b, 0});
            }
        }
    }
}

void connect(SparseGraph& graph) {
    std::vector<City> root(graph.tree);
    std::iota(root.begin(), root.end(), 0);
    const auto find = [&](City a) {
        while (root[a] != a) a = root[a] = root[root[a]];
        return a;
    };
    for (const auto& link : graph.links) root[find(link.a)] = find(link.b);
    for (City a = 0; a + 1 < graph.tree; ++a) {
        if (find(a) == find(a + 1)) continue;
        root[find(a)] = find(a + 1);
        graph.links.push_back({a, a + 1, 0});
    }
}

void measure(SparseGraph& graph, const Problem& problem) {
    problem.with_distance([&](const auto& distance) {
        for (auto& link : graph.links) link.length = distance(link.a, link.b);
    });
    Total longest = 1;
    for (const auto& link : graph.links) longest = std::max<Total>(longest, link.length);
    for (; 2 * longest < kLengthLimit; longest *= 2) ++graph.shift;
    for (; longest >= kLengthLimit; longest /= 2) --graph.shift;
    for (auto& link : graph.links) {
        link.length = static_cast<Cost>(graph.scaled(link.length));
        if (problem.is_fixed(link.a, link.b)) link.length -= kForced;
    }
}

}  // namespace

SparseGraph sparse_graph(const Problem& problem, const Candidates& near, bool complete) {
    SparseGraph graph;
    graph.n = problem.n;
    graph.tree = problem.open ? problem.n - 1 : problem.n;
    if (complete) {
        for (City a = 0; a < graph.tree; ++a)
            for (City b = a + 1; b < graph.tree; ++b) graph.links.push_back({a, b, 0});
    } else {
        add_candidates(graph, near);
    }
    add_fixed(graph, problem);
    connect(graph);
    measure(graph, problem);
    return graph;
}

OneTree::OneTree(const SparseGraph& graph)
    : degree(graph.n),
      graph_(&graph),
      order_(graph.links.size()),
      keys_(graph.links.size()),
      root_(graph.tree),
      leaf_end_(graph.tree) {
    branches.reserve(graph.tree);
    rest_.reserve(graph.links.size());
}

Total OneTree::build(const std::vector<Cost>& penalty) {
    sort_links(penalty);
    Total total = spanning_tree() + (graph_->open() ? join_depot(penalty) : close_leaf());
    for (City a = 0; a < graph_->tree; ++a) total -= 2 * Total{penalty[a]};
    return total + graph_->forced * Total{kForced};
}

void OneTree::sort_links(const std::vector<Cost>& penalty) {
    std::iota(order_.begin(), order_.end(), 0);
    for (size_t i = 0; i < order_.size(); ++i) {
        const auto& link = graph_->links[i];
        keys_[i] = key_of(link.length + penalty[link.a] + penalty[link.b]);
    }
    radix_sort(keys_, order_);
}

// Kruskal's algorithm.
Total OneTree::spanning_tree() {
    std::iota(root_.begin(), root_.end(), 0);
    std::fill(degree.begin(), degree.end(), 0);
    std::fill(leaf_end_.begin(), leaf_end_.end(), 0);
    branches.clear();
    rest_.clear();
    Total total = 0;
    for (size_t i = 0; i < order_.size(); ++i) {
        const auto [a, b, length] = graph_->links[order_[i]];
        const City ra = root(a), rb = root(b);
        if (ra == rb) {
            rest_.push_back(i);
            continue;
        }
        root_[ra] = rb;
        const Cost cost = cost_of(keys_[i]);
        branches.push_back({order_[i], cost});
        total += cost;
        ++degree[a], ++degree[b];
        leaf_end_[a] ^= b, leaf_end_[b] ^= a;
    }
    return total;
}

// A leaf's branch is its cheapest edge, so with the second cheapest it is a special city. The dearest second
// gives the best bound: it belongs to the leaf that meets an edge outside the tree last.
Total OneTree::close_leaf() {
    special = -1;
    City end = -1;
    size_t last = 0;
    for (const size_t i : rest_) {
        const auto& link = graph_->links[order_[i]];
        for (const auto& [a, b] : {std::pair{link.a, link.b}, std::pair{link.b, link.a}}) {
            if (degree[a] != 1 || leaf_end_[a] < 0) continue;
            leaf_end_[a] = ~leaf_end_[a];  // met
            special = a, end = b, last = i;
        }
    }
    if (special < 0) return 0;
    second = cost_of(keys_[last]);
    special_ends[0] = ~leaf_end_[special], special_ends[1] = end;
    ++degree[special], ++degree[end];
    return second;
}

// The depot is its own special city: it takes its two cheapest edges, fixed ones first.
Total OneTree::join_depot(const std::vector<Cost>& penalty) {
    std::pair<Cost, City> nearest{kNoCost, -1}, next = nearest;
    const auto offer = [&](std::pair<Cost, City> edge) {
        if (edge < nearest) std::swap(edge, nearest);
        next = std::min(next, edge);
    };
    for (City a = 0; a < graph_->tree; ++a) {
        const auto& forced = graph_->depot_forced;
        const bool fixed = std::find(forced.begin(), forced.end(), a) != forced.end();
        offer({penalty[a] - (fixed ? kForced : 0), a});
    }
    special = graph_->tree;
    special_ends[0] = nearest.second, special_ends[1] = next.second;
    second = next.first;
    degree[special] = 2;
    ++degree[special_ends[0]], ++degree[special_ends[1]];
    return Total{nearest.first} + next.first;
}

}  // namespace fd::tsp
