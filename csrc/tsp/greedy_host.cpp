#include <numeric>

#include "tsp/greedy.h"
#include "tsp/knn_finder.h"
#include "tsp/radix_sort.h"
#include "tsp/union_find.h"

namespace fd::tsp {
namespace {

constexpr City kCurveFrom = 2'000'000;  // more cities than this: sorting their edges would take long
constexpr City kEndsTried = 6;          // nearest ends of paths, of which one may be the own path's other end

// Edges chosen so far: paths, single cities among them.
class Paths {
  public:
    explicit Paths(const Problem& problem)
        : problem_(problem),
          sets_(problem.n),
          link_(2 * static_cast<size_t>(problem.n), -1),
          count_(problem.n) {
        if (problem.fixed.empty()) return;
        for (City a = 0; a < problem.n; ++a) {
            for (int i = 0; i < 2; ++i) {
                if (problem.fixed[2 * a + i] > a) join(a, problem.fixed[2 * a + i]);
            }
        }
    }

    bool is_end(City a) const { return link_[2 * a + 1] < 0; }

    // Adds the edge unless it would close a cycle or be the third one at a city.
    void join(City a, City b) {
        if (!is_end(a) || !is_end(b) || !sets_.unite(a, b)) return;
        link_[2 * a + (link_[2 * a] >= 0)] = b;
        link_[2 * b + (link_[2 * b] >= 0)] = a;
        --count_;
    }

    bool joined(City a, City b) { return sets_.find(a) == sets_.find(b); }

    // Whether one path has all cities; a depot that is nowhere yet goes between its ends.
    bool complete() const { return count_ == (alone_depot() ? 2 : 1); }

    std::vector<City> tour() const {
        City here = 0, before = -1;
        while (here < problem_.n - 1 && !is_end(here)) ++here;
        std::vector<City> tour;
        tour.reserve(problem_.n);
        for (City next; here >= 0; before = here, here = next) {
            tour.push_back(here);
            next = link_[2 * here] == before ? link_[2 * here + 1] : link_[2 * here];
        }
        if (alone_depot() && problem_.n > 1) tour.push_back(problem_.n - 1);
        return tour;
    }

  private:
    bool alone_depot() const { return problem_.open && link_[2 * (problem_.n - 1)] < 0; }

    const Problem& problem_;
    UnionFind sets_;
    std::vector<City> link_;  // [n, 2] neighbours along the paths
    City count_;
};

struct Link {
    City a, b;
};

// Edges to be tried in ascending order of key, ties in the order in which they were added.
struct Offers {
    std::vector<uint32_t> key;
    std::vector<Link> link;

    void add(Edge k, City a, City b) {
        key.push_back(static_cast<uint32_t>(k) ^ 1u << 31);  // of a matrix they may be negative
        link.push_back({a, b});
    }

    void take(Paths& paths) {
        radix_sort(key, link);
        for (const Link& l : link) paths.join(l.a, l.b);
    }
};

void join_candidates(const Problem& problem, const Heat& heat, Paths& paths) {
    const Candidates& lists = problem.candidates;
    const City cities = problem.open ? problem.n - 1 : problem.n;
    Offers offers;
    offers.key.reserve(static_cast<size_t>(cities) * lists.width * 2 / 3);
    offers.link.reserve(offers.key.capacity());
    for (City a = 0; a < cities; ++a) {
        const City* row = lists.cities_of(a);
        for (City i = 0; i < lists.width && row[i] >= 0; ++i) {
            const City b = row[i];
            if (b == problem.n - 1 && problem.open) continue;
            const City* back = lists.cities_of(b);
            if (b < a && std::find(back, back + lists.width, a) != back + lists.width) continue;  // once
            const double length = lists.lengths_of(a)[i];
            offers.add(static_cast<Edge>(length - length * 0.5 * heat.between(a, b)), a, b);
        }
    }
    offers.take(paths);
}

// A round at least halves the number of paths, or nearly: each end has its nearest end of another path.
void join_ends(const Problem& problem, Paths& paths) {
    const City cities = problem.open ? problem.n - 1 : problem.n;
    std::vector<City> ends, found;
    for (City a = 0; a < cities; ++a) {
        if (paths.is_end(a)) ends.push_back(a);
    }
    Offers offers;
    problem.with_distance([&](const auto& distance) {
        with_finder(problem, ends, kEndsTried, 0, [&](auto&& finder) {
            for (City i = 0; i < static_cast<City>(ends.size()); ++i) {
                finder.find(i, found);
                for (const City j : found) {
                    if (!paths.joined(ends[i], ends[j]))
                        offers.add(distance(ends[i], ends[j]), ends[i], ends[j]);
                }
            }
        });
    });
    offers.take(paths);
}

}  // namespace

std::vector<City> greedy_tour(const Problem& problem, const Heat& heat) {
    if (problem.n > kCurveFrom && problem.fixed.empty()) {
        std::vector<City> tour(problem.n);
        std::iota(tour.begin(), tour.end(), 0);
        return tour;
    }
    Paths paths(problem);
    join_candidates(problem, heat, paths);
    while (!paths.complete()) join_ends(problem, paths);
    return paths.tour();
}

}  // namespace fd::tsp
