#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "tsp/alpha.h"

namespace fd::tsp {
namespace {

// Steps of the ascent fall geometrically, in mean lengths of an edge. Fitted on uniform points, 200 to 10000.
constexpr double kFirstStep = 0.3, kLastStep = 0.005;
constexpr City kCompleteBelow = 64;       // so few cities: the sparse graph has all edges
constexpr City kBoundBelow = 20000;       // no bound is worth more than n^2 / 2 distances beyond
constexpr double kSecondsPerStep = 8e-9;  // one tree has about n log2 n steps
constexpr double kShareOfBudget = 0.05;

double mean_length(const SparseGraph& graph) {
    double sum = 0;
    for (const auto& link : graph.links) sum += link.length > 0 ? link.length : 0;
    return sum / static_cast<double>(graph.links.size());
}

// The least cost less penalties of a 1-tree that may use any edge, by Prim's algorithm in O(n) memory. Edges
// outside of the sparse graph may be longer than all inside, so costs have 64 bits.
template <class Distance>
Total complete_bound(const Problem& problem, const SparseGraph& graph, const std::vector<Cost>& penalty,
                     const Distance& distance) {
    constexpr Total kTaken = Total{1} << 40;  // off the length of a fixed edge
    const City n = graph.tree;
    const auto cost = [&](City a, City b) {
        const Total length = graph.scaled(distance(a, b)) - (problem.is_fixed(a, b) ? kTaken : 0);
        return length + penalty[a] + penalty[b];
    };
    std::vector<Total> reach(n, std::numeric_limits<Total>::max());
    std::vector<City> from(n, 0), outside(n - 1), degree(n, 0), neighbour(n, 0);
    std::iota(outside.begin(), outside.end(), 1);
    Total total = graph.forced * kTaken;
    for (City at = 0; !outside.empty();) {
        size_t best = 0;
        for (size_t i = 0; i < outside.size(); ++i) {
            const City b = outside[i];
            const Total c = cost(at, b);
            if (c < reach[b]) reach[b] = c, from[b] = at;
            if (reach[b] < reach[outside[best]]) best = i;
        }
        at = outside[best];
        outside[best] = outside.back();
        outside.pop_back();
        total += reach[at];
        ++degree[at], ++degree[from[at]];
        neighbour[at] = from[at], neighbour[from[at]] = at;
    }
    Total closing = std::numeric_limits<Total>::min();
    if (graph.open()) {
        std::vector<Total> to_depot(n);
        for (City a = 0; a < n; ++a) to_depot[a] = penalty[a] - (problem.is_fixed(a, n) ? kTaken : 0);
        std::nth_element(to_depot.begin(), to_depot.begin() + 1, to_depot.end());
        closing = to_depot[0] + to_depot[1];
    }
    for (City a = 0; a < n && !graph.open(); ++a) {
        if (degree[a] != 1) continue;
        Total least = std::numeric_limits<Total>::max();
        for (City b = 0; b < n; ++b) {
            if (b != a && b != neighbour[a]) least = std::min(least, cost(a, b));
        }
        closing = std::max(closing, least);
    }
    return std::accumulate(penalty.begin(), penalty.begin() + n, total + closing,
                           [](Total sum, Cost p) { return sum - 2 * Total{p}; });
}

}  // namespace

Total ascend(const SparseGraph& graph, int32_t trees, std::vector<Cost>& penalty) {
    penalty.assign(graph.n, 0);
    OneTree tree(graph);
    Total best = tree.build(penalty);
    std::vector<Cost> trial = penalty;
    std::vector<int32_t> before(graph.tree, 0);
    const double first = kFirstStep * mean_length(graph);
    for (int32_t k = 1; k < trees; ++k) {
        const double step = first * std::pow(kLastStep / kFirstStep, static_cast<double>(k) / trees);
        bool tour = true;
        for (City a = 0; a < graph.tree; ++a) {
            const int32_t excess = tree.degree[a] - 2;
            tour = tour && excess == 0;
            const double moved = trial[a] + step * (0.7 * excess + 0.3 * before[a]);
            trial[a] =
                static_cast<Cost>(std::clamp<double>(std::round(moved), -kPenaltyLimit, kPenaltyLimit));
            before[a] = excess;
        }
        if (tour) break;  // as dear as any penalties can make it
        const Total bound = tree.build(trial);
        if (bound > best) best = bound, penalty = trial;
    }
    return best;
}

// The largest branch between two cities is the last of the merges that brought them together. Where the
// smaller set is linked to the larger one, links get dearer towards the root and no path is longer than log
// n.
std::vector<Cost> link_alphas(const SparseGraph& graph, const OneTree& tree,
                              const std::vector<Cost>& penalty) {
    std::vector<City> up(graph.tree), size(graph.tree, 1);
    std::vector<Cost> dearest(graph.tree, std::numeric_limits<Cost>::max());
    std::iota(up.begin(), up.end(), 0);
    for (const auto& branch : tree.branches) {
        City a = graph.links[branch.link].a, b = graph.links[branch.link].b;
        while (up[a] != a) a = up[a];
        while (up[b] != b) b = up[b];
        if (size[a] > size[b]) std::swap(a, b);
        up[a] = b, size[b] += size[a], dearest[a] = branch.cost;
    }
    std::vector<Cost> alpha;
    alpha.reserve(graph.links.size());
    for (const auto& link : graph.links) {
        Cost replaced = tree.second;
        if (link.a != tree.special && link.b != tree.special) {
            for (City a = link.a, b = link.b; a != b;) {
                City& lower = dearest[a] <= dearest[b] ? a : b;
                replaced = dearest[lower];
                lower = up[lower];
            }
        }
        alpha.push_back(std::max(0, link.length + penalty[link.a] + penalty[link.b] - replaced));
    }
    return alpha;
}

namespace {

// Each city's neighbours by alpha. Of equal ones the nearer comes first: in the tree all have alpha 0.
std::vector<City> nearest_by_alpha(const SparseGraph& graph, const std::vector<Cost>& alpha, City width) {
    struct Offer {
        Cost alpha, length;
        City to;
        bool operator<(const Offer& other) const {
            return std::tie(alpha, length, to) < std::tie(other.alpha, other.length, other.to);
        }
    };
    std::vector<Offer> best(static_cast<size_t>(graph.n) * width, Offer{INT32_MAX, INT32_MAX, -1});
    for (size_t i = 0; i < graph.links.size(); ++i) {
        const auto& [a, b, length] = graph.links[i];
        for (const auto& [from, to] : {std::pair{a, b}, std::pair{b, a}}) {
            Offer offer{alpha[i], length, to};
            Offer* list = &best[static_cast<size_t>(from) * width];
            for (City k = 0; k < width; ++k) {
                if (offer < list[k]) std::swap(offer, list[k]);
            }
        }
    }
    std::vector<City> nearest(best.size());
    std::transform(best.begin(), best.end(), nearest.begin(), [](const Offer& offer) { return offer.to; });
    return nearest;
}

}  // namespace

AlphaResult alpha_nearness(const Problem& problem, const Candidates& near, const AlphaOptions& options) {
    const SparseGraph graph = sparse_graph(problem, near, problem.n <= kCompleteBelow);
    AlphaResult result;
    Total bound = ascend(graph, options.trees, result.penalty);
    OneTree tree(graph);
    tree.build(result.penalty);
    result.width = options.nearest;
    result.nearest = nearest_by_alpha(graph, link_alphas(graph, tree, result.penalty), options.nearest);
    if (options.bound && problem.n <= kBoundBelow) {
        bound = problem.with_distance(
            [&](const auto& distance) { return complete_bound(problem, graph, result.penalty, distance); });
        result.proven = true;
    }
    result.shift = graph.shift;
    result.lower_bound = std::ldexp(static_cast<double>(bound), -graph.shift);
    return result;
}

int32_t worthwhile_trees(City n, double seconds) {
    const double tree = kSecondsPerStep * n * std::log2(n);
    if (seconds < 200 * tree) return 0;
    return static_cast<int32_t>(std::clamp(kShareOfBudget * seconds / tree, 10.0, 50.0));
}

}  // namespace fd::tsp
