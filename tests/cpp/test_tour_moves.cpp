// How tours change: runs in a new order against the same done city by city, gains against lengths, undoing,
// the copy of the best tour, and local optima against all 2-opt and 3-opt moves there are.
#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "cpp/testing.h"
#include "cpp/tsp_problems.h"
#include "tsp/journal.h"
#include "tsp/moves.h"

namespace fd::tsp {
namespace {

using Cities = std::vector<City>;
using Random = std::mt19937;

int32_t below(Random& random, int32_t n) { return static_cast<int32_t>(random() % static_cast<uint32_t>(n)); }

Cities shuffled(City n, Random& random) {
    Cities order(n);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    return order;
}

Cities order_of(const Tour& tour) { return {tour.begin(), tour.end()}; }

bool consistent(const Tour& tour) {
    std::set<City> seen;
    for (int32_t i = 0; i < tour.size(); ++i) {
        const City c = tour.at(i), after = tour.at(i + 1 < tour.size() ? i + 1 : 0);
        seen.insert(c);
        if (tour.place(c) != i || tour.next(c) != after || tour.previous(after) != c) return false;
    }
    return static_cast<int32_t>(seen.size()) == tour.size();
}

// The same cycle, wherever it begins and whichever way it goes.
bool same_cycle(const Cities& a, Cities b) {
    std::rotate(b.begin(), std::find(b.begin(), b.end(), a[0]), b.end());
    if (a == b) return true;
    std::reverse(b.begin() + 1, b.end());
    return a == b;
}

Total length(const Problem& problem, const Cities& order) {
    return problem.with_distance([&](const auto& distance) {
        Total sum = distance(order.back(), order.front());
        for (size_t i = 1; i < order.size(); ++i) sum += distance(order[i - 1], order[i]);
        return sum;
    });
}

// A path as a list of cities, changed as `Shape` describes.
Cities reshaped(const Cities& path, Shape shape, int32_t i, int32_t j) {
    const Cities a(path.begin(), path.begin() + i), b(path.begin() + i, path.begin() + j);
    const Cities a_back(a.rbegin(), a.rend()), b_back(b.rbegin(), b.rend());
    Cities out;
    const auto add = [&](const Cities& part) { out.insert(out.end(), part.begin(), part.end()); };
    switch (shape) {
        case Shape::none:
            break;
        case Shape::flip_a:
            add(a_back);
            break;
        case Shape::b_flipped_a:
            add(b), add(a_back);
            break;
        case Shape::flipped_b_a:
            add(b_back), add(a);
            break;
        case Shape::b_a:
            add(b), add(a);
            break;
        case Shape::flip_both:
            add(a_back), add(b_back);
            break;
    }
    add(Cities(path.begin() + j, path.end()));
    return out;
}

FD_TEST(rearranging_is_what_it_says_and_is_undone) {
    Random random(1);
    for (int round = 0; round < 100'000; ++round) {
        const City n = 8 + below(random, 40);
        Tour tour(shuffled(n, random));
        const Cities before = order_of(tour);
        const int32_t base = below(random, n), direction = random() % 2 != 0 ? 1 : -1;
        Path path(base, direction);
        path.add({0, n - 1});
        Cities expected;
        for (int32_t k = 0; k < n; ++k) expected.push_back(tour.at(((base + direction * k) % n + n) % n));
        for (int steps = 1 + below(random, Move::kMostSteps); steps > 0; --steps) {
            const auto shape = static_cast<Shape>(1 + below(random, 5));
            int32_t i = 1 + below(random, n - 2), j = i + 1 + below(random, n - 1 - i);
            if (shape == Shape::flip_a) j = i;
            const Path from = path;
            path.assign(from, shape, i, j, n);
            expected = reshaped(expected, shape, i, j);
        }
        Cities old{-1, -2};  // what others have kept stays
        const Range range = tour.rearrange(path, old);
        EXPECT(consistent(tour));
        EXPECT(same_cycle(expected, order_of(tour)));
        EXPECT(range.length == n - path[path.longest()].length());
        EXPECT(old.size() == 2 + static_cast<size_t>(range.length) && old[0] == -1 && old[1] == -2);
        tour.restore(range, old.data() + 2);
        EXPECT(consistent(tour) && order_of(tour) == before);
    }
}

// Descends from a random tour, checking every move; calls check(tour, move) before each.
template <class Check>
Cities descend(const Problem& problem, Random& random, int32_t reach, const Check& check) {
    return problem.with_distance([&](const auto& distance) {
        const Neighbours near(problem.candidates);
        Tour tour(shuffled(problem.n, random));
        MoveSearch search(problem, near, tour, distance, reach);
        Move move;
        Cities old;
        for (bool better = true; better;) {
            better = false;
            for (City t1 = 0; t1 < problem.n; ++t1) {
                while (search.improve(t1, move)) {
                    better = true;
                    check(tour, move);
                    const Total before = length(problem, order_of(tour));
                    tour.rearrange(move.path, old);
                    EXPECT(consistent(tour));
                    EXPECT(move.gain > 0 && before - length(problem, order_of(tour)) == move.gain);
                }
            }
        }
        return order_of(tour);
    });
}

FD_TEST(gains_are_differences_of_lengths) {
    Random random(2);
    std::set<int> chain_lengths;
    const auto check = [&](const Tour& tour, const Move& move) {
        chain_lengths.insert((move.size - 1) / 4);
        for (int k = 0; k < move.size; k += 2)  // pairs of ends are edges, of which none is left later
            EXPECT(tour.next(move.ends[k]) == move.ends[k + 1] ||
                   tour.previous(move.ends[k]) == move.ends[k + 1]);
    };
    for (uint32_t seed = 0; seed < 40; ++seed) {
        const City n = 8 + below(random, 120);
        descend(random_plane(n, 5, seed), random, n, check);
        descend(random_plane(n, 7, seed, true), random, n + 1, check);
        descend(random_matrix(n, 50, seed), random, n, check);
    }
    EXPECT(chain_lengths.size() >= 6);  // of one step and of many
}

FD_TEST(local_optima_have_no_better_neighbours) {
    Random random(3);
    for (uint32_t seed = 0; seed < 5; ++seed) {
        const City n = 60;
        const Problem problem = random_plane(n, n - 1, seed);
        const Cities order = descend(problem, random, n, [](const Tour&, const Move&) {});
        problem.with_distance([&](const auto& d) {
            const auto at = [&](int32_t i) { return order[i % n]; };
            for (int32_t i = 0; i < n; ++i) {
                for (int32_t j = i + 1; j < n; ++j) {
                    const City a = at(i), a2 = at(i + 1), b = at(j), b2 = at(j + 1);
                    const Total two = Total{d(a, a2)} + d(b, b2);
                    EXPECT(two <= Total{d(a, b)} + d(a2, b2));
                    for (int32_t k = j + 1; k < n; ++k) {
                        const City c = at(k), c2 = at(k + 1);
                        const Total three = two + d(c, c2);
                        EXPECT(three <= Total{d(a, b)} + d(a2, c) + d(b2, c2));
                        EXPECT(three <= Total{d(a, b2)} + d(c, a2) + d(b, c2));
                        EXPECT(three <= Total{d(a, b2)} + d(c, b) + d(a2, c2));
                        EXPECT(three <= Total{d(a, c)} + d(b2, a2) + d(b, c2));
                    }
                }
            }
        });
    }
}

FD_TEST(fixed_edges_stay_and_far_changes_are_left_out) {
    Random random(4);
    for (uint32_t seed = 0; seed < 20; ++seed) {
        const City n = 80, reach = 8 + below(random, 20);
        Problem problem = random_plane(n, 6, seed);
        problem.fixed.assign(2 * n, -1);
        bool any = false;
        const auto check = [&](const Tour& tour, const Move& move) {
            if (!any) {  // some edges of the first tour
                for (City c = 0; c < n; c += 3) {
                    const City to = tour.next(c);
                    if (problem.fixed[2 * c] >= 0 || problem.fixed[2 * to] >= 0) continue;
                    problem.fixed[2 * c] = to, problem.fixed[2 * to] = c;
                }
                any = true;
                return;
            }
            for (int k = 0; k < move.size; k += 2) EXPECT(!problem.is_fixed(move.ends[k], move.ends[k + 1]));
            EXPECT(n - move.path[move.path.longest()].length() <= reach);
        };
        const Cities order = descend(problem, random, reach, check);
        EXPECT(any);
    }
}

FD_TEST(the_journal_undoes_and_remembers) {
    Random random(5);
    for (int round = 0; round < 200; ++round) {
        const City n = 8 + below(random, 300);
        Tour tour(shuffled(n, random));
        Journal journal(tour);
        Cities settled = order_of(tour), best = settled;
        for (int kick = 0; kick < 60; ++kick) {
            for (int changes = below(random, 4); changes > 0; --changes) {
                Path whole(below(random, n), 1), path;
                whole.add({0, n - 1});
                const int32_t i = 1 + below(random, std::min(n - 2, 20));
                path.assign(whole, Shape::b_a, i, i + 1 + below(random, std::min(n - 1 - i, 20)), n);
                journal.rearrange(path);
            }
            if (random() % 2 != 0) {
                journal.undo();
                EXPECT(order_of(tour) == settled);
                continue;
            }
            journal.settle();
            settled = order_of(tour);
            if (random() % 8 == 0) {
                journal.mark_best();
                best = settled;
            }
            EXPECT(journal.best() == best);
        }
    }
}

}  // namespace
}  // namespace fd::tsp

FD_TEST_MAIN()
