// A tour as an array of cities and each city's place in it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "tsp/distance.h"
#include "tsp/path.h"

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

// Places start .. start + length - 1, cyclically.
struct Range {
    int32_t start, length;
};

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
    City beside(City c, int32_t step) const { return padded_[place_[c] + 1 + step]; }  // step = 1 or -1
    City next(City c) const { return beside(c, 1); }
    City previous(City c) const { return beside(c, -1); }
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

    // The tour becomes the path, closed. Its longest run stays where it is, so the work is what the others
    // hold. Returns the places that changed, and adds the cities that were there to `old`.
    Range rearrange(const Path& path, std::vector<City>& old) {
        const int k = path.longest(), runs = path.size();
        const bool ascending = path.direction() > 0, mirrored = path[k].reversed == ascending;
        const auto lowest = [&](const Run& run) { return ascending ? run.lo : -run.hi; };
        const int32_t stays = path[k].length(), start = lowest(path[k]) + stays;
        const Range range{wrapped(path.base() + start), n_ - stays};
        const size_t offset = old.size();
        old.resize(offset + static_cast<size_t>(range.length));
        City* const kept = old.data() + offset;
        copy_out(range, kept);
        Writer write(*this, range.start);
        for (int j = 1; j < runs; ++j) {
            const Run& run = path[mirrored ? (k - j + runs) % runs : (k + j) % runs];
            const City* const first = kept + wrapped(lowest(run) - start);
            if ((run.reversed == ascending) != mirrored) {
                for (int32_t m = run.length(); m-- > 0;) write(first[m]);
            } else {
                for (int32_t m = 0; m < run.length(); ++m) write(first[m]);
            }
        }
        close();
        return range;
    }

    // Puts back what rearrange found.
    void restore(Range range, const City* old) {
        Writer write(*this, range.start);
        for (int32_t k = 0; k < range.length; ++k) write(old[k]);
        close();
    }

    void copy_out(Range range, City* to) const {
        const int32_t straight = std::min(range.length, n_ - range.start);
        std::copy_n(begin() + range.start, straight, to);
        std::copy_n(begin(), range.length - straight, to + straight);
    }

  private:
    struct Writer {
        City* order;
        int32_t* place_of;
        int32_t n, place;

        Writer(Tour& tour, int32_t start)
            : order(tour.padded_.data() + 1), place_of(tour.place_.data()), n(tour.n_), place(start) {}

        void operator()(City c) {
            order[place] = c;
            place_of[c] = place;
            if (++place == n) place = 0;
        }
    };

    int32_t wrapped(int32_t place) const { return place < 0 ? place + n_ : place >= n_ ? place - n_ : place; }

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
