#include <algorithm>
#include <limits>
#include <utility>

#include "tsp/build_problem.h"
#include "tsp/mcts_edges.h"

namespace fd::tsp {
namespace {

constexpr double kWeightOfHeat = 100;   // W = 100 H
constexpr double kSmallestHeat = 1e-4;  // of a candidate chosen by heat
constexpr City kNearestInstead = 10;    // candidates of a city without heat, at most

using HeatRow = std::vector<std::pair<City, double>>;

// (H + H^T) / 2 in the problem's numbering, every row in ascending order of cities.
std::vector<HeatRow> symmetric_rows(const Problem& problem, const HeatLists& heat) {
    std::vector<HeatRow> rows(problem.n);
    if (heat.width == 0) return rows;
    const std::vector<City> number = problem_numbers(problem);
    const City cities = problem.open ? problem.n - 1 : problem.n;
    for (City caller = 0; caller < cities; ++caller) {
        for (int64_t k = caller * heat.width; k < (caller + 1) * heat.width; ++k) {
            const City other = heat.city[k];
            if (other < 0 || other == caller || !(heat.weight[k] > 0)) continue;
            rows[number[caller]].emplace_back(number[other], heat.weight[k] / 2.0);
            rows[number[other]].emplace_back(number[caller], heat.weight[k] / 2.0);
        }
    }
    for (HeatRow& row : rows) {
        std::sort(row.begin(), row.end());
        size_t kept = 0;
        for (size_t k = 0; k < row.size(); ++k) {
            if (kept > 0 && row[kept - 1].first == row[k].first) {
                row[kept - 1].second += row[k].second;
            } else {
                row[kept++] = row[k];
            }
        }
        row.resize(kept);
    }
    return rows;
}

double heat_of(const HeatRow& row, City city) {
    const auto at = std::lower_bound(row.begin(), row.end(), std::pair<City, double>{city, 0});
    return at != row.end() && at->first == city ? at->second : 0;
}

// The hottest of a row. Ties go to the caller's smaller number.
std::vector<City> hottest(const Problem& problem, HeatRow row, City most) {
    const auto first =
        std::remove_if(row.begin(), row.end(), [](const auto& e) { return e.second < kSmallestHeat; });
    row.erase(first, row.end());
    std::sort(row.begin(), row.end(), [&](const auto& a, const auto& b) {
        return a.second != b.second ? a.second > b.second
                                    : problem.original[a.first] < problem.original[b.first];
    });
    std::vector<City> cities;
    for (size_t k = 0; k < std::min(row.size(), static_cast<size_t>(most)); ++k)
        cities.push_back(row[k].first);
    return cities;
}

std::vector<City> used(const Candidates& lists, City a) {
    const City *first = lists.cities_of(a), *last = first + lists.width;
    return {first, std::find(first, last, -1)};
}

}  // namespace

MctsEdges::MctsEdges(const Problem& problem, const HeatLists& heat, City most, bool by_heat, bool count_tries)
    : rows_(problem.n), sum_(problem.n) {
    const std::vector<HeatRow> hot = symmetric_rows(problem, heat);
    const City depot = problem.open ? problem.n - 1 : -1;
    most = std::min(most, problem.n - 1);
    const bool any_cold = std::any_of(hot.begin(), hot.end(), [](const HeatRow& row) { return row.empty(); });
    Candidates near;
    if (!by_heat) near = neighbour_lists(problem, most, 0);
    if (by_heat && any_cold) near = neighbour_lists(problem, std::min(most, kNearestInstead), 0);

    for (City a = 0; a < problem.n; ++a) {
        std::vector<City> cities = by_heat ? hottest(problem, hot[a], most) : used(near, a);
        if (by_heat && cities.empty() && near.width > 0) {
            cities = used(near, a);
            if (a != depot) ++rows_without_heat_;
        } else if (by_heat && depot >= 0) {
            cities.push_back(depot);
        }
        for (const auto& [city, h] : hot[a]) sum_[a] += kWeightOfHeat * h;
        rows_[a].first = static_cast<int64_t>(city_.size());
        rows_[a].count = static_cast<City>(cities.size());
        rows_[a].groups = std::max(1, (rows_[a].count + kGroup - 1) / kGroup);
        most_groups_ = std::max(most_groups_, rows_[a].groups);
        for (const City b : cities) {
            city_.push_back(b);
            // Heat knows nothing of a depot: as likely as any edge.
            weight_.push_back(b == depot ? sum_[a] / (problem.n - 1) : kWeightOfHeat * heat_of(hot[a], b));
        }
        city_.resize(rows_[a].first + rows_[a].groups * kGroup, -1);
        weight_.resize(city_.size());
        merit_.resize(city_.size(), -std::numeric_limits<double>::infinity());
        set_merits(a);
    }

    length_.resize(city_.size());
    mirror_.resize(city_.size());
    problem.with_distance([&](const auto& distance) {
        for (City a = 0; a < problem.n; ++a) {
            for (int64_t slot = rows_[a].first; slot < rows_[a].first + rows_[a].count; ++slot)
                length_[slot] = distance(a, city_[slot]);
        }
    });
    for (City a = 0; a < problem.n; ++a) {
        for (int64_t slot = rows_[a].first; slot < rows_[a].first + rows_[a].count; ++slot)
            mirror_[slot] = find(city_[slot], a);
    }
    if (count_tries) {
        tries_.assign(city_.size(), 0);
        novelty_.assign(city_.size(), 1.0);
    }
}

}  // namespace fd::tsp
