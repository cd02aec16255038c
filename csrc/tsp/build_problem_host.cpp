#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "tsp/build_problem.h"
#include "tsp/candidates.h"
#include "tsp/hilbert.h"
#include "tsp/union_find.h"

namespace fd::tsp {
namespace {

constexpr int64_t kFineFrom = 100'000;  // more cities than this get finer units: their edges are short
constexpr int64_t kMostCities = 1 << 30;

[[noreturn]] void refuse(const std::string& text) { throw std::invalid_argument(text); }

struct UnitBox {
    double low[2], side = 0;  // of the square around all points

    UnitBox(const double* xy, City n) : low{xy[0], xy[1]} {
        double high[2] = {xy[0], xy[1]};
        for (City i = 0; i < n; ++i) {
            for (int axis = 0; axis < 2; ++axis) {
                low[axis] = std::min(low[axis], xy[2 * i + axis]);
                high[axis] = std::max(high[axis], xy[2 * i + axis]);
            }
        }
        side = std::max(high[0] - low[0], high[1] - low[1]);
        if (!std::isfinite(side)) refuse("coordinates differ by more than float64 can hold");
    }

    // In [0, 1]; 0 for points that are all equal.
    double unit(double v, int axis) const { return side > 0 ? (v - low[axis]) / side : 0; }
};

void place_points(const BuildOptions& options, Problem& problem) {
    const City n = static_cast<City>(options.n);
    std::vector<double> radians;
    const double* xy = options.xy;
    if (options.metric == Metric::geo) {
        radians.resize(2 * static_cast<size_t>(n));
        std::transform(xy, xy + radians.size(), radians.begin(), geo_radians);
        xy = radians.data();
    }
    const UnitBox box(xy, n);
    const bool euclidean = options.metric == Metric::euclidean;
    std::vector<float> unit(2 * static_cast<size_t>(n));
    for (City i = 0; i < 2 * n; ++i) unit[i] = static_cast<float>(box.unit(xy[i], i % 2));
    // copies of a point become neighbours: by what the distance reads
    const auto before = [&](City a, City b) {
        const auto less = [a, b](const auto* v) {
            return v[2 * a] != v[2 * b] ? v[2 * a] < v[2 * b] : v[2 * a + 1] < v[2 * b + 1];
        };
        return euclidean ? less(unit.data()) : less(xy);
    };
    problem.original = hilbert_order(n, [&](City i, int axis) { return unit[2 * i + axis]; }, before);
    problem.input_xy.resize(2 * static_cast<size_t>(n));
    if (euclidean) {
        problem.unit_xy.resize(problem.input_xy.size());
        problem.scale = static_cast<float>(n > kFineFrom ? 1 << 26 : 1 << 24);
        problem.unit = box.side / problem.scale;
    }
    for (City a = 0; a < n; ++a) {
        const City i = problem.original[a];
        for (int axis = 0; axis < 2; ++axis) {
            problem.input_xy[2 * a + axis] = xy[2 * i + axis];
            if (euclidean) problem.unit_xy[2 * a + axis] = unit[2 * i + axis];
        }
    }
}

std::string edge_text(const City* edge) {
    return "fixed edge (" + std::to_string(edge[0]) + ", " + std::to_string(edge[1]) + ")";
}

void place_fixed(const BuildOptions& options, Problem& problem) {
    if (options.fixed_count == 0) return;
    const std::vector<City> number = problem_numbers(problem);
    problem.fixed.assign(2 * static_cast<size_t>(problem.n), -1);
    UnionFind paths(problem.n);
    City edges = 0;
    const auto attach = [&](City a, City b) {
        City* slots = &problem.fixed[2 * a];
        if (slots[0] >= 0 && slots[1] >= 0) return false;
        slots[slots[0] >= 0] = b;
        return true;
    };
    for (int64_t i = 0; i < options.fixed_count; ++i) {
        const City* edge = options.fixed + 2 * i;
        for (int end = 0; end < 2; ++end) {
            if (edge[end] < 0 || edge[end] >= problem.n)
                refuse(edge_text(edge) + " names a city outside of 0 .. " + std::to_string(problem.n - 1));
        }
        if (edge[0] == edge[1]) refuse(edge_text(edge) + " joins a city to itself");
        const City a = number[edge[0]], b = number[edge[1]];
        if (problem.is_fixed(a, b)) continue;
        ++edges;
        if (!paths.unite(a, b) && edges < problem.n)
            refuse(edge_text(edge) + " closes a cycle that leaves cities out");
        if (!attach(a, b) || !attach(b, a)) refuse(edge_text(edge) + " is a third one at one of its cities");
    }
}

}  // namespace

std::vector<City> problem_numbers(const Problem& problem) {
    std::vector<City> number(problem.n);
    for (City a = 0; a < problem.n; ++a)
        number[problem.original[a] < 0 ? problem.n - 1 : problem.original[a]] = a;
    return number;
}

Problem build_problem(const BuildOptions& options) {
    if (options.n < 1 || options.n > kMostCities) refuse("a problem has 1 to 2^30 cities");
    if (options.candidates < 1) refuse("candidates must be at least 1");
    Problem problem;
    problem.metric = options.metric;
    problem.open = options.open;
    problem.n = static_cast<City>(options.n + options.open);
    if (options.metric == Metric::explicit_matrix) {
        problem.matrix.assign(options.matrix, options.matrix + options.n * options.n);
        problem.original.resize(options.n);
        std::iota(problem.original.begin(), problem.original.end(), 0);
    } else {
        place_points(options, problem);
    }
    if (options.open) problem.original.push_back(-1);
    place_fixed(options, problem);
    const Heat heat = arrange_heat(problem, options.heat);
    problem.candidates = choose_candidates(problem, neighbour_lists(problem), options.candidates,
                                           {{heat.city.data(), heat.width}});
    return problem;
}

}  // namespace fd::tsp
