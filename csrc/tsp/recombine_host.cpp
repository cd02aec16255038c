#include <algorithm>
#include <stdexcept>

#include "tsp/recombine.h"
#include "tsp/recombine_cycles.h"
#include "tsp/recombine_pieces.h"

namespace fd::tsp {
namespace {

// Whether a merge has not yet taken one of the cycle's edges out of the tour.
bool still_there(const Tour& tour, std::span<const City> cycle) {
    for (size_t i = 0; i < cycle.size(); i += 2) {
        if (tour.next(cycle[i]) != cycle[i + 1] && tour.previous(cycle[i]) != cycle[i + 1]) return false;
    }
    return true;
}

template <class Distance>
std::vector<City> recombine_with(const Problem& problem, std::vector<std::vector<City>> tours,
                                 Distance distance) {
    const auto length = [&](const std::vector<City>& tour) {
        Total sum = distance(tour.back(), tour.front());
        for (size_t i = 1; i < tour.size(); ++i) sum += distance(tour[i - 1], tour[i]);
        return sum;
    };
    std::stable_sort(tours.begin(), tours.end(),
                     [&](const auto& a, const auto& b) { return length(a) < length(b); });
    const Neighbours near(problem.candidates);
    Pieces<Distance> pieces(problem, near, distance);
    AlternatingCycles cycles(problem.n);
    LocalDraws draws(0);  // how tours split is a matter of luck; the same luck every time
    std::vector<City> child = tours.front();
    Tour best(child);
    for (size_t k = 1; k < tours.size(); ++k) {
        const Tour other(tours[k]);
        for (bool better = true; better;) {
            better = false;
            cycles.split(best, other, draws);
            for (size_t c = 0; c < cycles.size(); ++c) {
                if (!still_there(best, cycles[c]) || !pieces.rejoin(best, cycles[c]) || pieces.gain <= 0)
                    continue;
                pieces.write(child);
                best = Tour(child);
                better = true;
            }
        }
    }
    return child;
}

}  // namespace

std::vector<City> recombine(const Problem& problem, const std::vector<std::vector<City>>& tours) {
    if (tours.empty()) throw std::invalid_argument("recombine needs at least one tour");
    return problem.with_distance([&](auto distance) { return recombine_with(problem, tours, distance); });
}

}  // namespace fd::tsp
