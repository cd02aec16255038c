// Problems as they are built: numbering, lengths, candidate lists, fixed edges, heat; and greedy tours.
#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "cpp/testing.h"
#include "cpp/tsp_points.h"
#include "cpp/tsp_problems.h"
#include "tsp/candidates.h"
#include "tsp/greedy.h"
#include "tsp/knn_lists.h"
#include "tsp/union_find.h"

namespace fd::tsp {
namespace {

const Metric kPlanar[] = {Metric::euclidean, Metric::euc_2d, Metric::ceil_2d,
                          Metric::man_2d,    Metric::max_2d, Metric::att};

bool permutation(std::vector<City> cities, City n) {
    std::sort(cities.begin(), cities.end());
    std::vector<City> want(n);
    std::iota(want.begin(), want.end(), 0);
    return cities == want;
}

// Lists in ascending length, each city once, -1 at the end; lengths are the metric's.
bool well_formed(const Problem& problem, const Candidates& lists) {
    return problem.with_distance([&](const auto& distance) {
        for (City a = 0; a < problem.n; ++a) {
            const City* row = lists.cities_of(a);
            const Edge* length = lists.lengths_of(a);
            std::set<City> seen{a};
            for (City i = 0; i < lists.width && row[i] >= 0; ++i) {
                if (row[i] >= problem.n || !seen.insert(row[i]).second) return false;
                if (length[i] != distance(a, row[i]) || (i > 0 && length[i] < length[i - 1])) return false;
            }
            const City* end = std::find(row, row + lists.width, -1);
            if (!std::all_of(end, row + lists.width, [](City b) { return b == -1; })) return false;
        }
        return static_cast<int64_t>(lists.city.size()) == int64_t{problem.n} * lists.width;
    });
}

// Whether lists, taken both ways, connect everything.
bool connected(const Problem& problem, const Candidates& lists) {
    UnionFind sets(problem.n);
    City parts = problem.n;
    for (City a = 0; a < problem.n; ++a) {
        for (City i = 0; i < lists.width && lists.cities_of(a)[i] >= 0; ++i)
            parts -= sets.unite(a, lists.cities_of(a)[i]);
    }
    return parts == 1;
}

FD_TEST(numbering_and_lists) {
    for (const Metric metric : kPlanar) {
        for (int kind = 0; kind < kKinds; ++kind) {
            for (const City n : {1, 2, 3, 8, 300}) {
                for (const bool open : {false, true}) {
                    const auto xy = points_of(static_cast<Kind>(kind), n);
                    BuildOptions options;
                    options.metric = metric;
                    options.open = open;
                    options.candidates = 6;
                    const Problem problem = problem_of(xy, options);
                    const std::string note = name_of(static_cast<Kind>(kind), n);
                    std::vector<City> original = problem.original;
                    EXPECT_NOTE(!open || original.back() == -1, note);
                    if (open) original.back() = n;
                    EXPECT_NOTE(problem.n == n + open && permutation(original, problem.n), note);
                    bool same = true;
                    for (City i = 0; i < 2 * n; ++i)
                        same = same && problem.input_xy[i] == xy[2 * original[i / 2] + i % 2];
                    EXPECT_NOTE(same, note);
                    const std::vector<City> numbers = problem_numbers(problem);
                    for (City a = 0; a < problem.n; ++a) EXPECT_NOTE(numbers[original[a]] == a, note);
                    EXPECT_NOTE(well_formed(problem, problem.candidates), note);
                    EXPECT_NOTE(well_formed(problem, neighbour_lists(problem)), note);
                    EXPECT_NOTE(problem.candidates.width == std::clamp(n - 1, 1, 6) + open, note);
                }
            }
        }
    }
}

FD_TEST(euclidean_units) {
    const auto xy = points_of(kUniform, 200);
    const Problem problem = problem_of(xy);
    problem.with_distance([&](const auto& distance) {
        for (City a = 1; a < problem.n; ++a) {
            const double* p = &problem.input_xy[2 * a];
            const double real = std::hypot(p[0] - p[-2], p[1] - p[-1]);
            EXPECT(std::fabs(distance(a, a - 1) * problem.unit - real) < 3e-7);
        }
    });
    EXPECT(problem_of(points_of(kEqual, 9)).unit == 0);
    EXPECT(fd::testing::throws([] { problem_of({-1.7e308, 0, 1.7e308, 0}); }, "differ by more than float64"));
}

// Without heat: the five nearest, the nearest of each quadrant they leave out, then the next nearest.
FD_TEST(choice_of_candidates) {
    const Problem problem = problem_of(points_of(kUniform, 400));
    const Candidates near = neighbour_lists(problem);
    for (City a = 0; a < problem.n; ++a) {
        const City* row = problem.candidates.cities_of(a);
        const std::set<City> chosen(row, row + problem.candidates.width);
        for (int i = 0; i < 5; ++i) EXPECT(chosen.count(near.cities_of(a)[i]) == 1);
        const auto quadrants = [&](const City* cities, City count) {
            std::set<int> found;
            for (City i = 0; i < count && cities[i] >= 0; ++i) {
                const double *p = &problem.input_xy[2 * a], *q = &problem.input_xy[2 * cities[i]];
                found.insert(quadrant_of(q[0] - p[0], q[1] - p[1]));
            }
            return found;
        };
        EXPECT(quadrants(row, problem.candidates.width) == quadrants(near.cities_of(a), near.width));
    }
}

FD_TEST(copies_do_not_cut_points_off) {
    // three of the six points so near one another that a cell of the curve holds them all
    const double places[6][2] = {{0, 0}, {97, 5}, {30, 90}, {50, 50}, {50.0001, 50}, {50, 50.0001}};
    const int copies[6] = {100, 1, 2, 300, 70, 71};
    std::vector<double> xy;
    for (int i = 0; i < 300; ++i) {  // mixed
        for (int p = 0; p < 6; ++p) {
            if (i < copies[p]) xy.insert(xy.end(), places[p], places[p] + 2);
        }
    }
    for (const Metric metric : kPlanar) {
        BuildOptions options;
        options.metric = metric;
        const Problem problem = problem_of(xy, options);
        EXPECT(well_formed(problem, problem.candidates) && connected(problem, problem.candidates));
        const auto same = [&](City a, City b) {
            const double *p = &problem.input_xy[2 * a], *q = &problem.input_xy[2 * b];
            return p[0] == q[0] && p[1] == q[1];
        };
        int points = 0;
        for (City a = 0; a < problem.n; ++a) {
            const bool first = a == 0 || !same(a, a - 1), last = a + 1 == problem.n || !same(a, a + 1);
            const City* row = problem.candidates.cities_of(a);
            const City* end = std::find(row, row + problem.candidates.width, -1);
            points += first;
            // chains: ends know ends of the same side, what is between them nothing else
            EXPECT(first || std::count(row, end, a - 1) == 1);
            EXPECT(last || std::count(row, end, a + 1) == 1);
            for (const City* b = row; b < end; ++b) {
                if (same(a, *b)) continue;
                const bool to_first = *b == 0 || !same(*b, *b - 1),
                           to_last = *b + 1 == problem.n || !same(*b, *b + 1);
                EXPECT((first && to_first) || (last && to_last));
            }
            if (first || last) EXPECT(std::any_of(row, end, [&](City b) { return !same(a, b); }));
        }
        EXPECT(points == 6);
        // greedy tours walk over all copies of a point in a row: between six points there are six edges
        const auto tour = greedy_tour(problem);
        const City steps = problem.with_distance([&](const auto& distance) {
            City count = distance(tour.back(), tour.front()) > 0;
            for (size_t i = 1; i < tour.size(); ++i) count += distance(tour[i - 1], tour[i]) > 0;
            return count;
        });
        EXPECT_NOTE(permutation(tour, problem.n) && steps <= 6, std::to_string(steps));
    }
}

FD_TEST(clusters_are_connected) {
    for (const Kind kind : {kUniform, kClustered, kLine, kCopies, kOutlier}) {
        const Problem problem = problem_of(points_of(kind, 500));
        EXPECT_NOTE(connected(problem, neighbour_lists(problem)), name_of(kind, 500));
    }
}

FD_TEST(spheres) {
    std::mt19937_64 random(4);
    std::vector<double> xy;
    for (City i = 0; i < 300; ++i) {  // all around, more of them near a pole and the line where dates change
        const double u = static_cast<double>(random() % 10000) / 10000,
                     v = static_cast<double>(random() % 10000) / 10000;
        xy.insert(xy.end(), {i % 3 == 0 ? 85 + 4 * u : 170 * u - 85,
                             i % 3 == 1 ? (v < 0.5 ? 179 : -179) : 358 * v - 179});
    }
    BuildOptions options;
    options.metric = Metric::geo;
    const Problem problem = problem_of(xy, options);
    EXPECT(well_formed(problem, problem.candidates));
    problem.with_distance([&](const auto& distance) {
        for (City a = 0; a < problem.n; ++a) {
            std::vector<Edge> all;
            for (City b = 0; b < problem.n; ++b) {
                if (b != a) all.push_back(distance(a, b));
            }
            std::sort(all.begin(), all.end());
            for (int i = 0; i < 5; ++i) EXPECT(problem.candidates.lengths_of(a)[i] == all[i]);
        }
    });
    EXPECT(permutation(greedy_tour(problem), problem.n));
}

FD_TEST(matrices) {
    const Problem random = random_matrix(60, 1000, 7);
    BuildOptions options;
    options.n = random.n;
    options.matrix = random.matrix.data();
    options.metric = Metric::explicit_matrix;
    options.candidates = 9;
    for (const bool open : {false, true}) {
        options.open = open;
        const Problem problem = build_problem(options);
        EXPECT(well_formed(problem, problem.candidates) && permutation(greedy_tour(problem), problem.n));
        for (City a = 0; a < 60; ++a) {
            std::vector<Edge> row;
            for (City b = 0; b < 60; ++b) {
                if (b != a) row.push_back(problem.matrix[a * 60 + b]);
            }
            std::sort(row.begin(), row.end());
            EXPECT(std::equal(row.begin(), row.begin() + 9, problem.candidates.lengths_of(a) + open));
        }
    }
}

FD_TEST(negative_lengths) {
    Problem random = random_matrix(30, 1000, 8);
    for (Edge& length : random.matrix) length -= 500;
    for (City a = 0; a < 30; ++a) random.matrix[a * 31] = 0;
    list_candidates(random, 29);  // positive ones too
    const auto tour = greedy_tour(random);
    const Edge least = *std::min_element(random.matrix.begin(), random.matrix.end());
    const Matrix distance{random.matrix.data(), 30};
    bool has_least = false;
    for (City i = 0; i < 30; ++i) has_least |= distance(tour[i], tour[(i + 1) % 30]) == least;
    EXPECT(least < 0 && has_least && length_of(random, tour) < 30 * -300);
}

FD_TEST(depot) {
    BuildOptions options;
    options.open = true;
    const Problem problem = problem_of(points_of(kUniform, 100), options);
    for (City a = 0; a < 100; ++a) EXPECT(problem.candidates.cities_of(a)[0] == 100);
    const City* row = problem.candidates.cities_of(100);
    EXPECT(std::count(row, row + problem.candidates.width, -1) == 1);  // 8 of 9
    const auto tour = greedy_tour(problem);
    EXPECT(permutation(tour, 101));
    // greedy matching without the depot, less the edge that closes it
    const Problem closed = problem_of(points_of(kUniform, 100));
    auto path = greedy_tour(closed);
    const Total last =
        closed.with_distance([&](const auto& d) { return Total{d(path.front(), path.back())}; });
    EXPECT(length_of(problem, tour) == length_of(closed, path) - last);
}

FD_TEST(fixed_edges) {
    const auto xy = points_of(kUniform, 50);
    const auto with = [&](std::vector<City> edges, bool open = false) {
        BuildOptions options;
        options.fixed = edges.data();
        options.fixed_count = static_cast<int64_t>(edges.size() / 2);
        options.open = open;
        return problem_of(xy, options);
    };
    const Problem problem = with({3, 40, 40, 7, 9, 3, 3, 40, 21, 22});
    const auto number = problem_numbers(problem);
    for (const auto& [a, b] : {std::pair{3, 40}, {40, 7}, {9, 3}, {21, 22}})
        EXPECT(problem.is_fixed(number[a], number[b]) && problem.is_fixed(number[b], number[a]));
    EXPECT(std::count_if(problem.fixed.begin(), problem.fixed.end(), [](City a) { return a >= 0; }) == 8);
    for (const auto& p : {problem, with({0, 50, 4, 5, 5, 6}, true), with({50, 0, 50, 1, 1, 2}, true)}) {
        const auto tour = greedy_tour(p);
        EXPECT(permutation(tour, p.n) && keeps_fixed(p, tour));
    }
    std::vector<City> all;
    for (City a = 0; a < 50; ++a) all.insert(all.end(), {a, (a + 1) % 50});
    EXPECT(keeps_fixed(with(all), greedy_tour(with(all))));  // the whole tour is given

    const auto refuses = [&](std::vector<City> edges, const char* text) {
        return fd::testing::throws([&] { with(edges); }, text);
    };
    EXPECT(refuses({1, 50}, "fixed edge (1, 50) names a city outside of 0 .. 49"));
    EXPECT(refuses({-1, 2}, "names a city outside"));
    EXPECT(refuses({4, 4}, "joins a city to itself"));
    EXPECT(refuses({1, 2, 1, 3, 1, 4}, "fixed edge (1, 4) is a third one"));
    EXPECT(refuses({1, 2, 2, 3, 3, 1}, "fixed edge (3, 1) closes a cycle"));
}

FD_TEST(heat) {
    const City n = 40, width = 4;
    std::vector<City> ids;
    std::vector<float> weights;
    for (City a = 0; a < n; ++a) {  // far cities, an empty slot, a zero, the city itself
        const City own[] = {(a + 20) % n, -1, a % 2 == 0 ? (a + 7) % n : a, (a + 13) % n};
        const float weight[] = {0.5f, 9, 7, a % 3 == 0 ? 0.0f : 2.0f};
        ids.insert(ids.end(), own, own + width);
        weights.insert(weights.end(), weight, weight + width);
    }
    BuildOptions options;
    options.heat = {ids.data(), weights.data(), width};
    options.candidates = 9;
    const Problem problem = problem_of(points_of(kUniform, n), options);
    const Heat arranged = arrange_heat(problem, options.heat);
    const auto number = problem_numbers(problem);
    for (City i = 0; i < n; ++i) {
        const City a = number[i];
        std::vector<std::pair<float, City>> want{{0.5f, number[(i + 20) % n]}};
        if (i % 2 == 0) want.push_back({7, number[(i + 7) % n]});
        if (i % 3 != 0) want.push_back({2, number[(i + 13) % n]});
        std::sort(want.rbegin(), want.rend());
        for (City s = 0; s < width; ++s) {
            const bool given = s < static_cast<City>(want.size());
            EXPECT(arranged.cities_of(a)[s] == (given ? want[s].second : -1));
            EXPECT(arranged.weight[a * width + s] == (given ? want[s].first / want[0].first : 0));
            const City* row = problem.candidates.cities_of(a);
            EXPECT(!given || std::count(row, row + problem.candidates.width, want[s].second) == 1);
        }
        EXPECT(arranged.between(a, want[0].second) == 1 && arranged.between(want[0].second, a) == 1);
    }
}

// Where all edges are candidates: the definition, on every edge in order.
FD_TEST(greedy_is_greedy) {
    const City n = 40;
    for (const bool warm : {false, true}) {
        std::vector<City> ids;
        std::vector<float> weights;
        for (City a = 0; a < n; ++a) {
            ids.insert(ids.end(), {(a + 11) % n, (a + 5) % n});
            weights.insert(weights.end(), {1, 0.9f});
        }
        BuildOptions options;
        options.candidates = n - 1;
        if (warm) options.heat = {ids.data(), weights.data(), 2};
        Problem problem = problem_of(points_of(kUniform, n), options);
        list_candidates(problem, n - 1);
        const Heat given = arrange_heat(problem, options.heat);
        std::vector<std::pair<double, std::pair<City, City>>> edges;
        problem.with_distance([&](const auto& distance) {
            for (City a = 0; a < n; ++a) {
                for (City b = 0; b < a; ++b)
                    edges.push_back(
                        {std::floor(distance(a, b) * (1 - 0.5 * double{given.between(a, b)})), {a, b}});
            }
        });
        std::sort(edges.begin(), edges.end());
        UnionFind paths(n);
        std::vector<int> degree(n);
        std::set<std::pair<City, City>> want;
        for (const auto& [key, edge] : edges) {
            const auto [a, b] = edge;
            if (degree[a] < 2 && degree[b] < 2 && paths.unite(a, b)) {
                ++degree[a];
                ++degree[b];
                want.insert({a, b});
            }
        }
        const auto tour = greedy_tour(problem, given);
        std::set<std::pair<City, City>> got;
        for (City i = 1; i < n; ++i) got.insert(std::minmax(tour[i - 1], tour[i], std::greater<City>()));
        EXPECT(got == want);
    }
}

FD_TEST(greedy_tours) {
    for (int kind = 0; kind < kKinds; ++kind) {
        for (const City n : {1, 2, 3, 4, 7, 60, 3000}) {
            for (const bool open : {false, true}) {
                BuildOptions options;
                options.open = open;
                options.candidates = n == 60 ? 1 : 8;  // many paths are left to be joined
                const Problem problem = problem_of(points_of(static_cast<Kind>(kind), n), options);
                EXPECT_NOTE(permutation(greedy_tour(problem), problem.n),
                            name_of(static_cast<Kind>(kind), n));
            }
        }
    }
    const Problem problem = problem_of(points_of(kUniform, 20'000));
    const double length = static_cast<double>(length_of(problem, greedy_tour(problem))) * problem.unit;
    EXPECT(length < 1.2 * 0.7124 * std::sqrt(20'000));  // 14 to 18 % above the shortest
}

}  // namespace
}  // namespace fd::tsp

FD_TEST_MAIN()
