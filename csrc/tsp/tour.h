// A tour as an array of cities and each city's place in it, and a log of reversals from which it can be
// undone or followed by a copy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "tsp/distance.h"

namespace fd::tsp {

// The places first..last, cyclically, in reverse order.
struct Flip {
    int32_t first, last;
};

// A cyclic tour is the same tour when the rest is reversed instead: the shorter side is the cheaper one. Ties
// stay, so that a flip is its own inverse.
inline Flip shorter_side(Flip flip, int32_t n) {
    int32_t length = flip.last - flip.first + 1;
    if (length <= 0) length += n;
    if (2 * length <= n) return flip;
    return {flip.last + 1 == n ? 0 : flip.last + 1, flip.first == 0 ? n - 1 : flip.first - 1};
}

// Calls swap(i, j) for every pair of places that the flip exchanges.
template <class Swap>
inline void for_each_swap(Flip flip, int32_t n, const Swap& swap) {
    int32_t i = flip.first, j = flip.last;
    if (i > j) {  // across the end of the array
        int32_t pairs = (j - i + 1 + n) / 2;
        for (; pairs > 0 && i > j; --pairs) {
            swap(i, j);
            if (++i == n) i = 0;
            if (--j < 0) j = n - 1;
        }
        if (pairs == 0) return;
    }
    for (; i < j; ++i, --j) swap(i, j);
}

class Tour {
  public:
    explicit Tour(const std::vector<City>& order)
        : n_(static_cast<int32_t>(order.size())), padded_(order.size() + 2), place_(order.size()) {
        std::copy(order.begin(), order.end(), padded_.begin() + 1);
        for (int32_t i = 0; i < n_; ++i) place_[order[i]] = i;
        close();
    }

    int32_t size() const { return n_; }
    City at(int32_t place) const { return padded_[place + 1]; }
    int32_t place(City c) const { return place_[c]; }
    City next(City c) const { return padded_[place_[c] + 2]; }
    City previous(City c) const { return padded_[place_[c]]; }
    const City* begin() const { return padded_.data() + 1; }
    const City* end() const { return begin() + n_; }

    // Reverses the path from place `first` forward to place `last`, or the rest of the tour.
    void reverse(Flip flip) {
        City* order = padded_.data() + 1;
        int32_t* place = place_.data();
        for_each_swap(shorter_side(flip, n_), n_, [=](int32_t i, int32_t j) {
            const City a = order[i], b = order[j];
            order[i] = b, place[b] = i;
            order[j] = a, place[a] = j;
        });
        close();
    }

  private:
    // One more city at both ends: neighbours without a question about the array's end.
    void close() {
        padded_[0] = padded_[n_];
        padded_[n_ + 1] = padded_[1];
    }

    int32_t n_;
    std::vector<City> padded_;
    std::vector<int32_t> place_;
};

}  // namespace fd::tsp
