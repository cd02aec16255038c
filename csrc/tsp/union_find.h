// Sets of cities that only ever grow together.
#pragma once

#include <numeric>
#include <utility>
#include <vector>

#include "tsp/distance.h"

namespace fd::tsp {

class UnionFind {
  public:
    explicit UnionFind(City n) : parent_(n) { std::iota(parent_.begin(), parent_.end(), 0); }

    City find(City a) {
        while (parent_[a] != a) a = parent_[a] = parent_[parent_[a]];
        return a;
    }

    // Whether they were two sets.
    bool unite(City a, City b) {
        a = find(a);
        b = find(b);
        if (a == b) return false;
        if (a > b) std::swap(a, b);
        parent_[b] = a;
        return true;
    }

  private:
    std::vector<City> parent_;
};

}  // namespace fd::tsp
