// All sequential 2-opt and 3-opt moves that start at a city, found through neighbour lists without touching
// the tour, and how they are carried out by reversals.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "tsp/problem.h"
#include "tsp/tour.h"

namespace fd::tsp {

// Cities and lengths side by side: one line of cache a city. A short list goes on with an edge so long that
// no gain survives it, so loops that stop where the gain is used up need no other end.
class Neighbours {
  public:
    struct Slot {
        City city;
        Edge length;
    };

    explicit Neighbours(const Candidates& lists) : width_(lists.width), slots_(lists.city.size()) {
        for (size_t k = 0; k < slots_.size(); ++k) {
            const bool used = lists.city[k] >= 0;
            slots_[k] = {used ? lists.city[k] : 0, used ? lists.length[k] : std::numeric_limits<Edge>::max()};
        }
    }

    City width() const { return width_; }
    const Slot* of(City c) const { return slots_.data() + static_cast<int64_t>(c) * width_; }

  private:
    City width_;
    std::vector<Slot> slots_;
};

// Removed are the edges (t1, t2), (t3, t4) and, except in two_opt, (t5, t6); added (t2, t3), (t4, t5), (t6,
// t1); in two_opt (t4, t1). Seen in the direction in which t2 follows t1, the tour becomes
enum class MoveKind : int32_t {
    none,
    two_opt,        // t1 [t4..t2] t3
    two_flips,      // two_opt, and one more that removes its edge (t4, t1)
    exchange,       // t1 [t6..t3] [t2..t5] t4: segments change places, none is reversed
    both_reversed,  // t1 [t6..t2] [t3..t5] t4
};

struct Move {
    MoveKind kind = MoveKind::none;
    City t1 = 0, t2 = 0, t3 = 0, t4 = 0, t5 = 0, t6 = 0;
    Total gain = 0;

    int cities() const { return kind == MoveKind::none ? 0 : kind == MoveKind::two_opt ? 4 : 6; }
};

// The 2-opt step that removes (a, b) and (c, d) and adds (b, c) and (d, a), for edges of the tour in one
// direction: a, b, .. d, c or mirrored. Reversing the rest mirrors the tour, so the direction is read anew.
inline Flip flip_of(const Tour& tour, City a, City b, City d) {
    return tour.next(a) == b ? Flip{tour.place(b), tour.place(d)} : Flip{tour.place(d), tour.place(b)};
}

// A path of the tour by its ends.
struct Piece {
    City first, last;
};

// Carries out a move as calls of reverse(Flip), which must act on `tour`.
template <class Reverse>
void carry_out(const Tour& tour, const Move& m, const Reverse& reverse) {
    const auto two_opt = [&](City a, City b, City d) { reverse(flip_of(tour, a, b, d)); };
    switch (m.kind) {
        case MoveKind::none:
            break;
        case MoveKind::two_opt:
            two_opt(m.t1, m.t2, m.t4);
            break;
        case MoveKind::two_flips:
            two_opt(m.t1, m.t2, m.t4);
            two_opt(m.t1, m.t4, m.t6);
            break;
        case MoveKind::both_reversed:
            two_opt(m.t1, m.t2, m.t6);
            two_opt(m.t2, m.t5, m.t3);
            break;
        case MoveKind::exchange: {
            // of the three pieces of the cycle any two may change places: not the longest
            const Piece pieces[3] = {{m.t2, m.t5}, {m.t6, m.t3}, {m.t4, m.t1}};
            const bool forward = tour.next(m.t1) == m.t2;
            int longest = 0;
            int32_t length[3];
            for (int k = 0; k < 3; ++k) {
                const int32_t steps = tour.place(pieces[k].last) - tour.place(pieces[k].first);
                length[k] = forward ? steps : -steps;
                if (length[k] < 0) length[k] += tour.size();
                if (length[k] > length[longest]) longest = k;
            }
            const Piece x = pieces[(longest + 1) % 3], y = pieces[(longest + 2) % 3];
            const City before = pieces[longest].last;
            two_opt(before, x.first, y.last);
            two_opt(before, y.last, y.first);
            two_opt(y.last, x.last, x.first);
            break;
        }
    }
}

template <class Distance>
class MoveSearch {
  public:
    // Moves of which every way to carry them out reverses more than `reach` cities are left out.
    MoveSearch(const Problem& problem, const Neighbours& near, const Tour& tour, Distance distance,
               int32_t reach)
        : near_(near),
          tour_(tour),
          distance_(distance),
          fixed_(problem.fixed.empty() ? nullptr : problem.fixed.data()),
          reach_(reach),
          breadth_(std::min<City>(near.width(), kBreadth)) {}

    // A move with a gain that removes an edge at t1, if the neighbour lists know one.
    Move improve(City t1) const {
        Move m = search<true>(t1);
        if (m.kind == MoveKind::none) m = search<false>(t1);
        return m;
    }

  private:
    static constexpr City kBreadth = 5;  // neighbours tried at t5

    template <bool kForward>
    City next(City c) const {
        return kForward ? tour_.next(c) : tour_.previous(c);
    }

    // Steps from a to b in the direction of search.
    template <bool kForward>
    int32_t steps(City a, City b) const {
        const int32_t s = kForward ? tour_.place(b) - tour_.place(a) : tour_.place(a) - tour_.place(b);
        return s < 0 ? s + tour_.size() : s;
    }

    bool fixed(City a, City b) const {
        return fixed_ != nullptr && (fixed_[2 * a] == b || fixed_[2 * a + 1] == b);
    }

    // Whether the move can be carried out by reversals within reach, all but its longest piece being touched.
    bool within_reach(int32_t piece_a, int32_t piece_b) const {
        const int32_t n = tour_.size(), rest = n - piece_a - piece_b;
        return n - std::max({piece_a, piece_b, rest}) <= reach_;
    }

    template <bool kForward>
    Move search(City t1) const {
        const City t2 = next<kForward>(t1);
        if (fixed(t1, t2)) return {};
        const Total g0 = distance_(t1, t2);
        const Neighbours::Slot* near2 = near_.of(t2);
        for (City k = 0; k < near_.width(); ++k) {
            const City t3 = near2[k].city;
            const Total g1 = g0 - near2[k].length;
            if (g1 <= 0) break;
            const City before = next<!kForward>(t3), after = next<kForward>(t3);
            if (before == t2) continue;
            if (!fixed(t3, before)) {
                const Move m = closable<kForward>(t1, t2, t3, before, g1 + distance_(t3, before));
                if (m.kind != MoveKind::none) return m;
            }
            if (!fixed(t3, after)) {
                const Move m = not_closable<kForward>(t1, t2, t3, after, g1 + distance_(t3, after));
                if (m.kind != MoveKind::none) return m;
            }
        }
        return {};
    }

    // t4 precedes t3: the tour may be closed by (t4, t1), or go on from t4.
    template <bool kForward>
    Move closable(City t1, City t2, City t3, City t4, Total g2) const {
        const int32_t piece = steps<kForward>(t2, t4) + 1;
        const Total closed = g2 - distance_(t4, t1);
        if (closed > 0 && within_reach(piece, 0)) return {MoveKind::two_opt, t1, t2, t3, t4, 0, 0, closed};
        const Neighbours::Slot* near4 = near_.of(t4);
        for (City k = 0; k < breadth_; ++k) {
            const City t5 = near4[k].city;
            const Total g3 = g2 - near4[k].length;
            if (g3 <= 0) break;
            // on the path that starts at t4 after the reversal, t6 precedes t5
            const int32_t there = steps<kForward>(t2, t5);
            const bool inside = there < piece;
            const City t6 = inside ? next<kForward>(t5) : next<!kForward>(t5);
            if (t6 == t4 || t5 == t1 || fixed(t5, t6)) continue;
            const Total gain = g3 + distance_(t5, t6) - distance_(t6, t1);
            if (gain <= 0) continue;
            const bool near =
                inside ? within_reach(there + 1, piece - there - 1) : within_reach(piece, there - piece);
            if (near) return {MoveKind::two_flips, t1, t2, t3, t4, t5, t6, gain};
        }
        return {};
    }

    // t4 follows t3: (t2, t3) closes a cycle, which must be cut once more, at t5.
    template <bool kForward>
    Move not_closable(City t1, City t2, City t3, City t4, Total g2) const {
        const int32_t last = steps<kForward>(t2, t3);
        const Neighbours::Slot* near4 = near_.of(t4);
        for (City k = 0; k < breadth_; ++k) {
            const City t5 = near4[k].city;
            const Total g3 = g2 - near4[k].length;
            if (g3 <= 0) break;
            const int32_t there = steps<kForward>(t2, t5);
            if (there >= last) continue;
            const City after = next<kForward>(t5), before = next<!kForward>(t5);
            if (!fixed(t5, after)) {
                const Total gain = g3 + distance_(t5, after) - distance_(after, t1);
                if (gain > 0 && within_reach(there + 1, last - there))
                    return {MoveKind::exchange, t1, t2, t3, t4, t5, after, gain};
            }
            if (t5 != t2 && !fixed(t5, before)) {
                const Total gain = g3 + distance_(t5, before) - distance_(before, t1);
                if (gain > 0 && within_reach(there, last - there + 1))
                    return {MoveKind::both_reversed, t1, t2, t3, t4, t5, before, gain};
            }
        }
        return {};
    }

    const Neighbours& near_;
    const Tour& tour_;
    Distance distance_;
    const City* fixed_;
    int32_t reach_;
    City breadth_;
};

}  // namespace fd::tsp
