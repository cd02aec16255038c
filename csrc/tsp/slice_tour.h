// A trajectory's tour: cities by place, places by city, and the log by which reversals are undone.
#pragma once

#include "tsp/slice.h"

namespace fd::tsp::slice {

// The memory of one trajectory, in shared memory or not.
template <class Index>
struct Storage {
    Index *order, *pos;  // [n] each
    Index *ring, *log;   // [Args::ring], [2 Args::log]
    uint32_t* waiting;   // [words_of(n)], a bit for each city
};

FD_HOST_DEVICE int32_t words_of(int32_t n) { return (n + 31) / 32; }

// Integer lengths between points. Both coordinates of a point come in one load; the arithmetic is Planar's.
struct Lengths {
    const Vec<float, 2>* points;

    FD_HOST_DEVICE Edge operator()(City a, City b) const {
        const Vec<float, 2> p = points[a], q = points[b];
        const float pair[4] = {p.v[0], p.v[1], q.v[0], q.v[1]};
        return Planar{pair, 1.0f}(0, 1);
    }
};

template <class Team, class Index>
class Tour {
  public:
    FD_TEAM Tour(const Team& team, const Storage<Index>& s, int32_t n, int32_t capacity)
        : team_(team), order_(s.order), pos_(s.pos), log_(s.log), n_(n), capacity_(capacity) {}

    FD_TEAM int32_t size() const { return n_; }
    FD_TEAM City at(int32_t place) const { return order_[place]; }
    FD_TEAM int32_t place(City c) const { return pos_[c]; }
    FD_TEAM int32_t wrap(int32_t place) const {  // -n <= place < 2 n
        return place < 0 ? place + n_ : place >= n_ ? place - n_ : place;
    }

    FD_TEAM void copy_from(const int32_t* order) {
        team_.each(n_, [&](int32_t i) {
            const int32_t c = order[i];
            order_[i] = static_cast<Index>(c);
            pos_[c] = static_cast<Index>(i);
        });
    }
    FD_TEAM void copy_to(int32_t* order) const {
        team_.each(n_, [&](int32_t i) { order[i] = static_cast<int32_t>(order_[i]); });
    }

    // Turns round the path first .. last, `before` being the neighbour of `first` that is not on it. The
    // shorter side is reversed, which may mirror the tour, so the direction is read anew each time.
    FD_TEAM void flip(City before, City first, City last) {
        const int32_t p = place(first), q = place(last);
        const bool forward = wrap(place(before) + 1) == p;
        int32_t start = forward ? p : q, length = (forward ? q - p : p - q) + 1;
        if (length <= 0) length += n_;
        if (2 * length > n_) {
            start = wrap(start + length);
            length = n_ - length;
        }
        if (length < 2) return;
        if (flips_ < capacity_) {
            team_.once([&] {
                log_[2 * flips_] = static_cast<Index>(start);
                log_[2 * flips_ + 1] = static_cast<Index>(length);
            });
        }
        ++flips_;
        reverse(start, length);
    }

    FD_TEAM void start_log() { flips_ = 0; }
    FD_TEAM bool undo() {  // false, and nothing done, if the log could not hold it all
        if (flips_ > capacity_) return false;
        FD_NO_UNROLL
        while (flips_ > 0) {
            --flips_;
            reverse(static_cast<int32_t>(log_[2 * flips_]), static_cast<int32_t>(log_[2 * flips_ + 1]));
        }
        return true;
    }

  private:
    FD_TEAM void reverse(int32_t start, int32_t length) {
        team_.each(length / 2, [&](int32_t i) {
            const int32_t p = wrap(start + i), q = wrap(start + length - 1 - i);
            const Index a = order_[p], b = order_[q];
            order_[p] = b;
            order_[q] = a;
            pos_[a] = static_cast<Index>(q);
            pos_[b] = static_cast<Index>(p);
        });
    }

    const Team& team_;
    Index *const order_, *const pos_, *const log_;
    const int32_t n_, capacity_;
    int32_t flips_ = 0;
};

}  // namespace fd::tsp::slice
