#include <algorithm>
#include <utility>

#include "tsp/candidates.h"
#include "tsp/knn_finder.h"

namespace fd::tsp {
namespace {

constexpr City kRanks = 5;  // of each preferred list, and of the nearest

Candidates empty_lists(City n, City width) {
    const size_t size = static_cast<size_t>(n) * width;
    return {width, std::vector<City>(size, -1), std::vector<Edge>(size, 0)};
}

// One city's list while it grows: in ascending length, ties in ascending number, each city once. What comes
// first is nearly in order.
class Row {
  public:
    void add(Edge length, City b) {
        const std::pair next(length, b);
        auto at = found_.end();
        while (at != found_.begin() && at[-1] > next) --at;
        if (at == found_.begin() || at[-1] != next) found_.insert(at, next);
    }

    void store(Candidates& lists, City a) {
        const size_t size = std::min(found_.size(), static_cast<size_t>(lists.width));
        const int64_t row = static_cast<int64_t>(a) * lists.width;
        for (size_t i = 0; i < size; ++i) {
            lists.length[row + i] = found_[i].first;
            lists.city[row + i] = found_[i].second;
        }
        found_.clear();
    }

  private:
    std::vector<std::pair<Edge, City>> found_;
};

// The first copy of each point. Copies are neighbours in the problem's numbering.
std::vector<City> distinct_points(const Problem& problem, City cities) {
    const auto copy = [&](City a) {
        const auto equal = [a](const auto& xy) {
            return xy[2 * a] == xy[2 * a - 2] && xy[2 * a + 1] == xy[2 * a - 1];
        };
        if (problem.metric == Metric::explicit_matrix) return false;
        return problem.metric == Metric::euclidean ? equal(problem.unit_xy) : equal(problem.input_xy);
    };
    std::vector<City> first;
    for (City a = 0; a < cities; ++a) {
        if (a == 0 || !copy(a)) first.push_back(a);
    }
    return first;
}

// Every city has the depot first, the depot a few cities that are spread evenly.
Candidates with_depot(const Candidates& lists, City cities) {
    Candidates wider = empty_lists(cities + 1, lists.width + 1);
    for (City a = 0; a < cities; ++a) {
        const int64_t row = static_cast<int64_t>(a) * wider.width;
        wider.city[row] = cities;
        std::copy_n(lists.cities_of(a), lists.width, &wider.city[row + 1]);
        std::copy_n(lists.lengths_of(a), lists.width, &wider.length[row + 1]);
    }
    const City few = std::min(lists.width, cities);
    for (City i = 0; i < few; ++i) {
        wider.city[static_cast<int64_t>(cities) * wider.width + i] =
            static_cast<City>((2 * int64_t{i} + 1) * cities / (2 * few));
    }
    return wider;
}

// Picks `width` of a city's neighbours.
class Choice {
  public:
    Choice(const Problem& problem, const Candidates& near, City width)
        : problem_(problem), near_(near), width_(width), plane_(problem.metric != Metric::explicit_matrix) {}

    const std::vector<City>& of(City a, std::initializer_list<Preferred> preferred) {
        chosen_.clear();
        const City* nearest = near_.cities_of(a);
        for (City rank = 0; rank < kRanks; ++rank) {
            for (const Preferred& list : preferred) {
                if (rank < list.width) take(a, list.city[static_cast<int64_t>(a) * list.width + rank]);
            }
            if (rank < near_.width) take(a, nearest[rank]);
        }
        if (plane_) take_quadrants(a);
        for (City i = 0; i < near_.width; ++i) take(a, nearest[i]);
        return chosen_;
    }

  private:
    bool take(City a, City b) {
        const bool wanted = b >= 0 && b != a && static_cast<City>(chosen_.size()) < width_ &&
                            !(problem_.open && b == problem_.n - 1) &&
                            std::find(chosen_.begin(), chosen_.end(), b) == chosen_.end();
        if (wanted) chosen_.push_back(b);
        return wanted;
    }

    // Of a quadrant that has no candidate yet, the nearest: clusters need a way out.
    void take_quadrants(City a) {
        bool seen[4] = {};
        for (const City b : chosen_) seen[quadrant(a, b)] = true;
        for (City i = 0; i < near_.width; ++i) {
            const City b = near_.cities_of(a)[i];
            if (b < 0 || (problem_.open && b == problem_.n - 1)) continue;
            if (bool& has = seen[quadrant(a, b)]; !has) has = take(a, b);
        }
    }

    int quadrant(City a, City b) const {
        const std::vector<double>& xy = problem_.input_xy;
        return quadrant_of(xy[2 * b] - xy[2 * a], xy[2 * b + 1] - xy[2 * a + 1]);
    }

    const Problem& problem_;
    const Candidates& near_;
    City width_;
    bool plane_;
    std::vector<City> chosen_;
};

}  // namespace

Candidates neighbour_lists(const Problem& problem, City nearest, City per_quadrant) {
    const City cities = problem.open ? problem.n - 1 : problem.n;
    Candidates lists = empty_lists(cities, std::clamp(cities - 1, 1, nearest + 4 * per_quadrant));
    const std::vector<City> points = distinct_points(problem, cities);
    const auto last_copy = [&](City p) {
        return (p + 1 < static_cast<City>(points.size()) ? points[p + 1] : cities) - 1;
    };
    const std::vector<City> nobody;
    std::vector<City> found;
    Row row;
    problem.with_distance([&](const auto& distance) {
        with_finder(problem, points, nearest, per_quadrant, [&](auto&& finder) {
            for (City p = 0; p < static_cast<City>(points.size()); ++p) {
                finder.find(p, found);
                const City first = points[p], last = last_copy(p);
                for (City a = first; a <= last; ++a) {
                    if (a > first) row.add(0, a - 1);
                    if (a < last) row.add(0, a + 1);
                    // first copies know first ones, last copies last ones: chains lie in either direction
                    for (const City q : a == first || a == last ? found : nobody) {
                        const Edge length = distance(first, points[q]);
                        if (a == first) row.add(length, points[q]);
                        if (a == last) row.add(length, last_copy(q));
                    }
                    row.store(lists, a);
                }
            }
        });
    });
    return problem.open ? with_depot(lists, cities) : lists;
}

Candidates choose_candidates(const Problem& problem, const Candidates& near, City width,
                             std::initializer_list<Preferred> preferred) {
    const City cities = problem.open ? problem.n - 1 : problem.n;
    Candidates lists = empty_lists(cities, std::clamp(cities - 1, 1, width));
    Choice choice(problem, near, lists.width);
    Row row;
    problem.with_distance([&](const auto& distance) {
        for (City a = 0; a < cities; ++a) {
            for (const City b : choice.of(a, preferred)) row.add(distance(a, b), b);
            row.store(lists, a);
        }
    });
    return problem.open ? with_depot(lists, cities) : lists;
}

}  // namespace fd::tsp
