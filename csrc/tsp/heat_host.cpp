#include <algorithm>
#include <utility>

#include "tsp/build_problem.h"
#include "tsp/heat.h"

namespace fd::tsp {

float Heat::between(City a, City b) const {
    const auto one_way = [this](City from, City to) {
        const City* row = cities_of(from);
        const City* end = row + width;
        const City* place = std::find(row, end, to);
        return place == end ? 0.0f : weight[static_cast<int64_t>(from) * width + (place - row)];
    };
    return width == 0 ? 0.0f : std::max(one_way(a, b), one_way(b, a));
}

Heat arrange_heat(const Problem& problem, const HeatLists& lists) {
    Heat heat;
    if (lists.width == 0) return heat;
    heat.width = static_cast<City>(lists.width);
    heat.city.assign(static_cast<size_t>(problem.n) * lists.width, -1);
    heat.weight.assign(heat.city.size(), 0);
    const std::vector<City> number = problem_numbers(problem);
    std::vector<std::pair<float, City>> row;
    for (City a = 0; a < problem.n; ++a) {
        if (problem.original[a] < 0) continue;  // the depot
        row.clear();
        for (int64_t i = 0; i < lists.width; ++i) {
            const int64_t at = problem.original[a] * lists.width + i;
            if (lists.city[at] >= 0 && lists.weight[at] > 0 && number[lists.city[at]] != a)
                row.emplace_back(-lists.weight[at], number[lists.city[at]]);
        }
        std::sort(row.begin(), row.end());
        for (size_t i = 0; i < row.size(); ++i) {
            heat.city[a * lists.width + i] = row[i].second;
            heat.weight[a * lists.width + i] = row[i].first / row[0].first;
        }
    }
    return heat;
}

}  // namespace fd::tsp
