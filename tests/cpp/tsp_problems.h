// Small problems, made by hand: random points and matrices, lattices, all neighbours by brute force.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include "tsp/problem.h"

namespace fd::tsp {

inline void list_candidates(Problem& problem, City width) {
    Candidates& lists = problem.candidates;
    const City n = problem.open ? problem.n - 1 : problem.n;
    lists.width = width;
    lists.city.assign(static_cast<size_t>(problem.n) * width, -1);
    lists.length.assign(lists.city.size(), 0);
    problem.with_distance([&](const auto& distance) {
        for (City a = 0; a < n; ++a) {
            std::vector<std::pair<Edge, City>> near;
            for (City b = 0; b < n; ++b) {
                if (b != a) near.push_back({distance(a, b), b});
            }
            std::sort(near.begin(), near.end());
            for (City k = 0; k < std::min<City>(width, n - 1); ++k) {
                lists.length[a * width + k] = near[k].first;
                lists.city[a * width + k] = near[k].second;
            }
        }
    });
}

inline void number_as_given(Problem& problem, City n, bool open) {
    problem.open = open;
    problem.n = n + open;
    problem.original.resize(problem.n, -1);
    for (City a = 0; a < n; ++a) problem.original[a] = a;
}

inline Problem random_plane(City n, City width, uint32_t seed, bool open = false) {
    Problem problem;
    number_as_given(problem, n, open);
    problem.scale = 1 << 24;
    problem.unit = 1 / problem.scale;
    std::mt19937 random(seed);
    for (City a = 0; a < 2 * n; ++a) problem.unit_xy.push_back(static_cast<float>(random() % 65536) / 65536);
    list_candidates(problem, width);
    return problem;
}

inline Problem random_matrix(City n, Edge largest, uint32_t seed) {
    Problem problem;
    number_as_given(problem, n, false);
    problem.metric = Metric::explicit_matrix;
    problem.matrix.resize(static_cast<size_t>(n) * n);
    std::mt19937 random(seed);
    for (City a = 0; a < n; ++a) {
        for (City b = 0; b < a; ++b)
            problem.matrix[a * n + b] = problem.matrix[b * n + a] = static_cast<Edge>(random() % largest);
    }
    list_candidates(problem, 7);
    return problem;
}

// side x side points at distance 1; an even side has tours of side^2.
inline Problem lattice(City side) {
    Problem problem;
    number_as_given(problem, side * side, false);
    problem.metric = Metric::euc_2d;
    for (City a = 0; a < side * side; ++a) {
        problem.input_xy.push_back(a / side);
        problem.input_xy.push_back(a % side);
    }
    list_candidates(problem, 8);
    return problem;
}

inline void fix(Problem& problem, City a, City b) {
    problem.fixed.resize(2 * problem.n, -1);
    for (const auto& [from, to] : {std::pair{a, b}, std::pair{b, a}}) {
        City* partners = &problem.fixed[2 * from];
        (partners[0] < 0 ? partners[0] : partners[1]) = to;
    }
}

inline Total length_of(const Problem& problem, const std::vector<City>& tour) {
    return problem.with_distance([&](const auto& distance) {
        Total total = distance(tour.back(), tour.front());
        for (size_t i = 1; i < tour.size(); ++i) total += distance(tour[i - 1], tour[i]);
        return total;
    });
}

inline bool keeps_fixed(const Problem& problem, const std::vector<City>& tour) {
    size_t fixed = 0, kept = 0;
    for (const City partner : problem.fixed) fixed += partner >= 0;
    for (size_t i = 0; i < tour.size(); ++i) kept += problem.is_fixed(tour[i], tour[(i + 1) % tour.size()]);
    return 2 * kept == fixed;
}

// Dynamic programming over subsets (Held and Karp, 1962): n <= 13 or so.
inline Total optimal_length(const Problem& problem) {
    const City n = problem.n, last = n - 1;  // starts and ends at the last city
    const auto fixed_ends = [&](City a) {
        return problem.fixed.empty() ? 0 : (problem.fixed[2 * a] >= 0) + (problem.fixed[2 * a + 1] >= 0);
    };
    // What a fixed edge is rewarded with: then the best tour has them all.
    const Total reward = Total{1} << 45;
    Total rewards = 0;
    for (City a = 0; a < n; ++a) rewards += reward * fixed_ends(a) / 2;
    std::vector<Total> best((size_t{1} << last) * last, Total{1} << 60);
    Total optimum = Total{1} << 60;
    problem.with_distance([&](const auto& distance) {
        const auto cost = [&](City a, City b) {
            return distance(a, b) - (problem.is_fixed(a, b) ? reward : 0);
        };
        for (uint32_t set = 1; set < 1u << last; ++set) {
            for (City a = 0; a < last; ++a) {
                if (!(set >> a & 1)) continue;
                Total& here = best[set * last + a];
                const uint32_t before = set ^ (1u << a);
                if (before == 0) here = cost(last, a);
                for (City b = 0; b < last; ++b) {
                    if (before >> b & 1) here = std::min(here, best[before * last + b] + cost(b, a));
                }
                if (set == (1u << last) - 1) optimum = std::min(optimum, here + cost(a, last));
            }
        }
    });
    return optimum + rewards;
}

}  // namespace fd::tsp
