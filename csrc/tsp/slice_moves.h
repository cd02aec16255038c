// The moves that a team tries at a city t1, found through candidate lists without touching the tour.
//
// A lane is one way to begin: t2 is the city behind or before t1 (bit 4 of the lane), t3 one of the eight
// candidates of t2 (bits 1-3), and of the edges at t3 the one to the city between t2 and t3 is removed, or
// the other (bit 0). Removed are (t1, t2), (t3, t4) and, except in two_opt, (t5, t6); added (t2, t3), (t4,
// t5) and (t6, t1), in two_opt (t4, t1). With ranks counted from t2 away from t1, so that t2 has rank 0 and
// t1 rank n - 1, both directions read the same:
//
//   bit 0 = 0: t4 = rank3 - 1. two_opt closes there: t1 [t4..t2] t3. Else t5 is behind t3 (t6 = rank5 - 1)
//              or inside (t6 = rank5 + 1): two_flips, a second 2-opt step that removes the edge (t4, t1).
//   bit 0 = 1: t4 = rank3 + 1, and t5 must be on t2..t3.
//              exchange, t6 = rank5 + 1:      t1 [t6..t3] [t2..t5] t4
//              both_reversed, t6 = rank5 - 1: t1 [t6..t2] [t3..t5] t4
#pragma once

#include "tsp/slice_queue.h"

namespace fd::tsp::slice {

// Ranks from t2 on.
template <class T>
struct Frame {
    const T& tour;
    int32_t origin, sign;

    FD_TEAM Frame(const T& of, City t1, int lane) : tour(of), sign(lane < kLanes / 2 ? 1 : -1) {
        origin = tour.wrap(tour.place(t1) + sign);
    }
    FD_TEAM City at(int32_t rank) const { return tour.at(tour.wrap(origin + sign * rank)); }
    FD_TEAM int32_t rank(City c) const {
        const int32_t steps = sign * (tour.place(c) - origin);
        return steps < 0 ? steps + tour.size() : steps;
    }
};

template <class Index>
struct Row {
    Index v[kWidth];
};

// One 128-bit load, or two.
template <class Index>
FD_TEAM Row<Index> row_of(const Index* candidates, City c) {
    constexpr int kGroup = 16 / sizeof(Index);
    const auto* groups =
        reinterpret_cast<const Vec<Index, kGroup>*>(candidates + static_cast<int64_t>(c) * kWidth);
    Row<Index> row;
    FD_UNROLL
    for (int g = 0; g < kWidth / kGroup; ++g) {
        const Vec<Index, kGroup> group = groups[g];
        FD_UNROLL
        for (int k = 0; k < kGroup; ++k) row.v[g * kGroup + k] = group.v[k];
    }
    return row;
}

// The best move of a lane, without its number. Sums of edges fit 32 bits: Args::points.
template <class T, class Index>
FD_TEAM Move move_of(const T& tour, const Lengths& d, const Index* candidates, City t1, int lane) {
    const auto n = static_cast<uint32_t>(tour.size());
    const bool closable = (lane & 1) == 0;
    const Frame<T> frame(tour, t1, lane);
    const City t2 = frame.at(0);
    Move best;
    const auto t3 = static_cast<uint32_t>(candidates[static_cast<int64_t>(t2) * kWidth + (lane >> 1 & 7)]);
    if (t3 >= n) return best;
    const Edge g1 = d(t1, t2) - d(t2, static_cast<City>(t3));
    if (g1 <= 0) return best;  // which excludes t3 = t1
    const int32_t rank3 = frame.rank(static_cast<City>(t3));
    if (closable && rank3 < 2) return best;
    const City t4 = frame.at(closable ? rank3 - 1 : rank3 + 1);
    const Edge g2 = g1 + d(static_cast<City>(t3), t4);
    const auto offer = [&](Edge gain, Kind kind, int32_t rank5) {
        if (gain <= best.gain) return;
        best.gain = gain;
        best.kind = kind;
        best.rank3 = rank3;
        best.rank5 = rank5;
    };
    if (closable) offer(g2 - d(t4, t1), Kind::two_opt, 0);
    const Row<Index> near = row_of(candidates, t4);
    FD_UNROLL
    for (int k = 0; k < kBreadth; ++k) {
        if (static_cast<uint32_t>(near.v[k]) >= n) break;
        const City t5 = static_cast<City>(near.v[k]);
        const Edge g3 = g2 - d(t4, t5);
        if (g3 <= 0) break;
        const int32_t rank5 = frame.rank(t5);
        const bool inside = rank5 < rank3;
        // t5 = t4 is in nobody's list, but memory and sums rely on it. With t5 = t1, t3 or t4's neighbour on
        // the tour of the first step nothing is gained over two_opt, which came first.
        if (closable ? rank5 == rank3 - 1 : !inside) continue;
        const City t6 = frame.at(inside ? rank5 + 1 : rank5 - 1);
        offer(g3 + d(t5, t6) - d(t6, t1), closable ? Kind::two_flips : Kind::exchange, rank5);
        if (closable || rank5 == 0) continue;
        const City other = frame.at(rank5 - 1);
        offer(g3 + d(t5, other) - d(other, t1), Kind::both_reversed, rank5);
    }
    return best;
}

// The cities t1 .. t6 of a move; what it does not have is t1.
template <class T>
FD_TEAM void cities_of(const T& tour, City t1, const Move& m, City (&t)[kPushed]) {
    const Frame<T> frame(tour, t1, m.lane);
    const bool closable = m.kind == Kind::two_opt || m.kind == Kind::two_flips;
    t[0] = t[4] = t[5] = t[6] = t[7] = t1;
    t[1] = frame.at(0);
    t[2] = frame.at(m.rank3);
    t[3] = frame.at(closable ? m.rank3 - 1 : m.rank3 + 1);
    if (m.kind == Kind::two_opt) return;
    const bool after = m.kind == Kind::exchange || (closable && m.rank5 < m.rank3);
    t[4] = frame.at(m.rank5);
    t[5] = frame.at(after ? m.rank5 + 1 : m.rank5 - 1);
}

// before [x0 .. x1] [y0 .. y1] becomes before [y0 .. y1] [x0 .. x1].
template <class T>
FD_TEAM void exchange(T& tour, City before, City x0, City x1, City y0, City y1) {
    tour.flip(before, x0, y1);
    tour.flip(before, y1, y0);
    tour.flip(y1, x1, x0);
}

// Carries a move out.
template <class T>
FD_TEAM void apply(T& tour, const Move& m, const City (&t)[kPushed]) {
    if (m.kind == Kind::exchange) {
        // of the three pieces of the cycle any two may change places: not the longest
        const int32_t a = m.rank5 + 1, b = m.rank3 - m.rank5, c = tour.size() - m.rank3 - 1;
        if (c >= a && c >= b) {
            exchange(tour, t[0], t[1], t[4], t[5], t[2]);
        } else if (a >= b) {
            exchange(tour, t[4], t[5], t[2], t[3], t[0]);
        } else {
            exchange(tour, t[2], t[3], t[0], t[1], t[4]);
        }
        return;
    }
    if (m.kind == Kind::both_reversed) {
        tour.flip(t[0], t[1], t[5]);
        tour.flip(t[1], t[4], t[2]);
        return;
    }
    tour.flip(t[0], t[1], t[3]);
    if (m.kind == Kind::two_flips) tour.flip(t[0], t[3], t[5]);
}

}  // namespace fd::tsp::slice
