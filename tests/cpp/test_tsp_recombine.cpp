// Recombination of tours: cycles are what two tours do not share, gains are exact, children are tours and no
// longer than their parents, fixed edges stay; evolutions repeat.
#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "cpp/testing.h"
#include "cpp/tsp_problems.h"
#include "tsp/evolve.h"
#include "tsp/recombine.h"
#include "tsp/recombine_counts.h"
#include "tsp/recombine_cycles.h"
#include "tsp/recombine_pieces.h"

namespace fd::tsp {
namespace {

using Order = std::vector<City>;
using EdgeSet = std::set<std::pair<City, City>>;

std::pair<City, City> edge(City a, City b) { return {std::min(a, b), std::max(a, b)}; }

EdgeSet edges_of(const Order& tour) {
    EdgeSet edges;
    for (size_t i = 0; i < tour.size(); ++i) edges.insert(edge(tour[i], tour[(i + 1) % tour.size()]));
    return edges;
}

Order counted(City n) {
    Order order(n);
    std::iota(order.begin(), order.end(), 0);
    return order;
}

bool is_tour(Order tour) {
    std::sort(tour.begin(), tour.end());
    return tour == counted(static_cast<City>(tour.size()));
}

// A tour that differs from `tour` in some places: reversed and exchanged stretches.
Order disturbed(Order tour, uint32_t seed, int times) {
    std::mt19937 random(seed);
    const auto n = static_cast<uint32_t>(tour.size());
    for (int k = 0; k < times; ++k) {
        const uint32_t at = random() % (n - 12), length = 2 + random() % 5;
        if (k % 2 == 0) {
            std::reverse(tour.begin() + at, tour.begin() + at + length);
        } else {
            std::rotate(tour.begin() + at, tour.begin() + at + length, tour.begin() + at + length + 3);
        }
    }
    return tour;
}

Order searched(const Problem& problem, uint64_t seed, int64_t kicks, const Order& start) {
    IlsOptions options;
    options.seed = seed;
    options.max_kicks = kicks;
    options.recombine = false;
    IlsSearch search(problem, options, start);
    search.run(1e9);
    return search.best();
}

FD_TEST(cycles_are_what_tours_do_not_share) {
    for (uint32_t seed = 0; seed < 40; ++seed) {
        const City n = static_cast<City>(20 + 7 * seed);
        Order a = counted(n), b = disturbed(a, seed, 1 + seed % 30);
        if (seed % 4 == 0) {
            std::mt19937 random(seed);
            std::shuffle(b.begin(), b.end(), random);
        }
        LocalDraws draws(seed);
        AlternatingCycles cycles(n);
        cycles.split(Tour(a), Tour(b), draws);
        EdgeSet edges = edges_of(a);
        const EdgeSet of_b = edges_of(b);
        for (size_t c = 0; c < cycles.size(); ++c) {
            const auto cycle = cycles[c];
            EXPECT(cycle.size() >= 4 && cycle.size() % 2 == 0);
            for (size_t i = 0; i < cycle.size(); i += 2)
                EXPECT(edges.erase(edge(cycle[i], cycle[i + 1])) == 1);
            for (size_t i = 1; i < cycle.size(); i += 2) {
                const auto e = edge(cycle[i], cycle[i + 1 < cycle.size() ? i + 1 : 0]);
                EXPECT(of_b.count(e) == 1 && edges.insert(e).second);
            }
        }
        EXPECT(edges == of_b);
    }
}

FD_TEST(gain_of_a_cycle_is_what_the_tour_loses) {
    int merged = 0, whole = 0;
    for (uint32_t seed = 0; seed < 60; ++seed) {
        const City n = static_cast<City>(30 + 5 * seed);
        Problem problem = random_plane(n, 6, seed, seed % 3 == 0);
        if (seed % 2 == 0) fix(problem, 3, 4), fix(problem, 17, 18);
        Order a = counted(problem.n), b = disturbed(a, seed, 8);
        if (seed % 5 == 0) b = searched(problem, seed, 0, a), a = searched(problem, seed, 20, a);
        if (!keeps_fixed(problem, a) || !keeps_fixed(problem, b)) continue;
        const Neighbours near(problem.candidates);
        problem.with_distance([&](auto distance) {
            Pieces<decltype(distance)> pieces(problem, near, distance);
            AlternatingCycles cycles(problem.n);
            LocalDraws draws(seed);
            const Tour tour(a);
            cycles.split(tour, Tour(b), draws);
            for (size_t c = 0; c < cycles.size(); ++c) {
                if (!pieces.rejoin(tour, cycles[c])) continue;
                Order child;
                pieces.write(child);
                EXPECT(is_tour(child));
                EXPECT(length_of(problem, child) == length_of(problem, a) - pieces.gain);
                EXPECT(keeps_fixed(problem, child));
                EdgeSet edges = edges_of(a);
                for (const auto& [x, y] : pieces.removed) edges.erase(edge(x, y));
                for (const auto& [x, y] : pieces.added) edges.insert(edge(x, y));
                EXPECT(edges == edges_of(child));
                (2 * pieces.removed.size() > cycles[c].size() ? merged : whole)++;
            }
        });
    }
    EXPECT_NOTE(merged > 20 && whole > 200, std::to_string(merged) + " " + std::to_string(whole));
}

FD_TEST(better_halves_of_both_parents) {
    const Problem problem = random_plane(200, 8, 5);
    const Order best = searched(problem, 1, 4000, counted(200));
    Order left = best, right = best;  // each is spoilt in one half
    std::reverse(left.begin() + 20, left.begin() + 24), std::swap(left[60], left[61]);
    std::reverse(right.begin() + 120, right.begin() + 124), std::swap(right[160], right[161]);
    EXPECT(length_of(problem, left) > length_of(problem, best));
    EXPECT(length_of(problem, right) > length_of(problem, best));
    EXPECT(length_of(problem, recombine(problem, {left, right})) <= length_of(problem, best));
}

FD_TEST(same_parents_stay) {
    const Problem problem = random_plane(60, 8, 6);
    const Order tour = disturbed(counted(60), 2, 9);
    Order mirrored(tour.rbegin(), tour.rend());
    std::rotate(mirrored.begin(), mirrored.begin() + 13, mirrored.end());
    EXPECT(recombine(problem, {tour}) == tour);
    EXPECT(recombine(problem, {tour, tour}) == tour);
    EXPECT(edges_of(recombine(problem, {tour, mirrored})) == edges_of(tour));
    EXPECT(testing::throws([&] { recombine(problem, {}); }, "at least one tour"));
}

FD_TEST(never_longer_than_the_better_parent) {
    int better = 0;
    for (uint32_t seed = 0; seed < 30; ++seed) {
        const City n = static_cast<City>(50 + 20 * (seed % 10));
        Problem problem = random_plane(n, 7, seed, seed % 3 == 0);
        if (seed % 2 == 0) fix(problem, 7, 8), fix(problem, 8, 9);
        std::vector<Order> tours;
        for (uint32_t k = 0; k < 4; ++k)
            tours.push_back(searched(problem, 10 * seed + k, 3, counted(problem.n)));
        Total shortest = length_of(problem, tours[0]);
        for (const Order& tour : tours) shortest = std::min(shortest, length_of(problem, tour));
        const Order child = recombine(problem, tours);
        EXPECT(is_tour(child) && keeps_fixed(problem, child));
        EXPECT(length_of(problem, child) <= shortest);
        EXPECT(child == recombine(problem, tours));
        better += length_of(problem, child) < shortest;
    }
    EXPECT_NOTE(better >= 1, std::to_string(better));
}

FD_TEST(counts_of_edges) {
    EdgeCounts counts(4);
    std::map<std::pair<City, City>, int> expected;
    std::mt19937 random(3);
    for (int k = 0; k < 20000; ++k) {
        const City a = static_cast<City>(random() % 60), b = a + 1 + static_cast<City>(random() % 60);
        int& count = expected[{a, b}];
        const int more = count > 0 && random() % 2 ? -1 : 1;
        count += more;
        counts.add(b, a, more);
    }
    for (const auto& [e, count] : expected) EXPECT(counts.of(e.first, e.second) == count);
    EXPECT(counts.of(1000, 2000) == 0);
}

FD_TEST(evolution_repeats_and_finds_more) {
    for (const bool open : {false, true}) {
        Problem problem = random_plane(120, 8, 21, open);
        fix(problem, 40, 41), fix(problem, 3, 4);
        IlsOptions options;
        options.seed = 5;
        options.max_kicks = 120 * 20;
        EXPECT(evolution_pays(problem.n, options));
        const Order start = counted(problem.n);
        IlsSearch whole(problem, options, start), sliced(problem, options, start);
        EXPECT(whole.run(1e9));
        while (!sliced.run(1e-4)) EXPECT(is_tour(sliced.best()));
        EXPECT(whole.best() == sliced.best() && whole.state().kicks == sliced.state().kicks);
        EXPECT(whole.state().kicks == options.max_kicks);
        EXPECT(is_tour(whole.best()) && keeps_fixed(problem, whole.best()));
        EXPECT(length_of(problem, whole.best()) == whole.state().best_length);
        // the best of as many founders is the plain way to spend the kicks
        EXPECT(whole.state().best_length <=
               length_of(problem, searched(problem, 5, options.max_kicks, start)));
        options.trajectory = 1;
        IlsSearch other(problem, options, start);
        other.run(1e9);
        EXPECT(other.state().accepted != whole.state().accepted);
    }
}

}  // namespace
}  // namespace fd::tsp

FD_TEST_MAIN()
