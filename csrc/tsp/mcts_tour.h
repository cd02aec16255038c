// A tour with a direction of its own: the search looks at successors, so which side of a reversal is cheaper
// to carry out must not decide which way the tour goes.
#pragma once

#include <vector>

#include "tsp/mcts_path.h"
#include "tsp/tour.h"

namespace fd::tsp {

class DirectedTour {
  public:
    explicit DirectedTour(const std::vector<City>& order) : tour_(order) {}

    int32_t size() const { return tour_.size(); }
    City next(City c) const { return mirrored_ ? tour_.previous(c) : tour_.next(c); }
    City at(int32_t place) const { return tour_.at(place); }
    int32_t place(City c) const { return tour_.place(c); }

    // Reverses the path that leads from a forward to b. Returns the number of cities that moved.
    int32_t reverse(City a, City b) {
        const Flip path = mirrored_ ? Flip{place(b), place(a)} : Flip{place(a), place(b)};
        const Flip cheap = shorter_side(path, size());
        if (cheap.first != path.first) mirrored_ = !mirrored_;
        tour_.reverse(cheap);
        return (cheap.last - cheap.first + size()) % size() + 1;
    }

    // The path from s(a) round to a.
    OpenEnd cut_after(City a, CutPath& path) const { return path.cut(place(next(a)), mirrored_); }

    // From `first` on.
    std::vector<City> order(City first) const {
        std::vector<City> cities(size());
        for (City& c : cities) c = first, first = next(first);
        return cities;
    }

  private:
    Tour tour_;
    bool mirrored_ = false;
};

}  // namespace fd::tsp
