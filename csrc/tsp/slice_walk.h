// One trajectory walks its range of kicks.
#pragma once

#include "tsp/slice_moves.h"
#include "tsp/slice_queue.h"

namespace fd::tsp::slice {

template <class Team, class Index>
class Walk {
  public:
    FD_TEAM Walk(const Team& team, const Args& a, int64_t instance, int64_t trajectory,
                 const Storage<Index>& s, const float* points)
        : team_(team),
          a_(a),
          instance_(instance),
          trajectory_(trajectory),
          waiting_(s.waiting),
          points_(points),
          candidates_(static_cast<const Index*>(a.candidates) + instance * a.n * kWidth),
          lengths_{reinterpret_cast<const Vec<float, 2>*>(points)},
          tour_(team, s, a.n, a.log),
          queue_(team, s, a.n, a.ring) {}

    FD_TEAM void run() {
        const int64_t walk = instance_ * a_.trajectories + trajectory_;
        int32_t *order = a_.tours + walk * a_.n, *best = a_.best + walk * a_.n;
        int64_t* state = a_.state + walk * kStateWords;
        const int64_t first = a_.kicks[0], last = a_.kicks[1];
        if ((first != 0 && !accepts(best)) || !accepts(order)) {
            team_.once([&] { state[kLength] = -1; });
            return;
        }
        tour_.copy_from(order);
        int64_t words[kStateWords];
        FD_UNROLL
        for (int i = 0; i < kStateWords; ++i) words[i] = state[i];
        if (first == 0) {
            start(words);
            tour_.copy_to(best);
        } else {
            team_.each(words_of(a_.n), [&](int32_t i) { waiting_[i] = 0; });
        }
        // Copying a best tour is O(n): in large instances not after each kick that found one.
        const int64_t pause = 1 + a_.n / 1024;
        FD_NO_UNROLL
        for (int64_t k = first; k < last; ++k) {
            kick(k, words, best);
            if (words[kLength] < words[kBest] && (k + 1) % pause == 0) {
                tour_.copy_to(best);
                words[kBest] = words[kLength];
            }
        }
        tour_.copy_to(order);
        team_.once([&] {
            FD_UNROLL
            for (int i = 0; i < kStateWords; ++i) state[i] = words[i];
        });
    }

  private:
    // Whether nothing can go astray in memory, or round for ever. Leaves the bits of all cities set.
    FD_TEAM bool accepts(const int32_t* order) const {
        const uint32_t n = static_cast<uint32_t>(a_.n), words = static_cast<uint32_t>(words_of(a_.n));
        team_.each(static_cast<int32_t>(words), [&](int32_t i) { waiting_[i] = 0; });
        const uint32_t bad = team_.ballot([&](int lane) {
            bool bad = false;
            for (uint32_t i = static_cast<uint32_t>(lane); i < n; i += kLanes)
                bad = bad || static_cast<uint32_t>(order[i]) >= n || far(points_[2 * i]) ||
                      far(points_[2 * i + 1]);
            return bad;
        });
        if (bad != 0) return false;
        team_.each(a_.n, [&](int32_t i) { Team::set_bits(waiting_ + order[i] / 32, 1u << order[i] % 32); });
        return team_.sum(static_cast<int32_t>(words), [&](int32_t i) { return count_bits(waiting_[i]); }) ==
               a_.n;
    }
    FD_TEAM static bool far(float x) { return !(x <= kMaxCoordinate && x >= -kMaxCoordinate); }

    FD_TEAM void start(int64_t (&words)[kStateWords]) {
        Total length =
            team_.sum(a_.n, [&](int32_t i) { return lengths_(tour_.at(i), tour_.at(tour_.wrap(i + 1))); });
        queue_.sweep();
        tour_.start_log();
        length -= descend();
        words[kLength] = words[kBest] = words[kFirst] = length;
        words[kAccepted] = words[kRestored] = 0;
    }

    // Looks at every waiting city until none is left; what was gained.
    FD_TEAM Total descend() {
        Total gained = 0;
        FD_NO_UNROLL
        for (City t1 = queue_.next(); t1 >= 0; t1 = queue_.next()) {
            const Move move =
                team_.best([&](int lane) { return move_of(tour_, lengths_, candidates_, t1, lane); });
            if (move.gain <= 0) continue;
            City ends[kPushed];
            cities_of(tour_, t1, move, ends);
            apply(tour_, move, ends);
            queue_.push(ends);
            gained += move.gain;
        }
        return gained;
    }

    FD_TEAM void kick(int64_t k, int64_t (&words)[kStateWords], const int32_t* best) {
        const Draw draw(a_, instance_, trajectory_, k);
        const auto city = [&](int32_t steps) { return tour_.at(tour_.wrap(draw.place + steps)); };
        const City before = city(0), x0 = city(1), x1 = city(draw.end[0]), y0 = city(draw.end[0] + 1),
                   y1 = city(draw.end[1]), z0 = city(draw.end[1] + 1), z1 = city(draw.end[2]),
                   behind = city(draw.end[2] + 1);
        // [x] [y] [z] becomes [z] [y] [x]: four new edges. Two segments that change places are one of the
        // moves, so that the descent would take most of such kicks back at once.
        tour_.start_log();
        tour_.flip(before, x0, z1);
        tour_.flip(before, z1, z0);
        tour_.flip(z1, y1, y0);
        tour_.flip(y1, x1, x0);
        queue_.push({before, x0, x1, y0, y1, z0, z1, behind});
        const Total removed =
            Total{lengths_(before, x0)} + lengths_(x1, y0) + lengths_(y1, z0) + lengths_(z1, behind);
        const Total added =
            Total{lengths_(before, z0)} + lengths_(z1, y0) + lengths_(y1, x0) + lengths_(x1, behind);
        const Total gain = removed - added + descend();
        if (gain >= 0 || static_cast<double>(gain) >= -threshold(k, words[kFirst], draw.exponential)) {
            words[kLength] -= gain;
            ++words[kAccepted];
        } else if (!tour_.undo()) {
            tour_.copy_from(best);
            words[kLength] = words[kBest];
            ++words[kRestored];
        }
    }

    FD_TEAM double threshold(int64_t k, int64_t first, float exponential) const {
        const double mean = static_cast<double>(first) / a_.n;
        return temperature_at(a_, trajectory_, k) * mean * static_cast<double>(exponential);
    }

    const Team& team_;
    const Args& a_;
    const int64_t instance_, trajectory_;
    uint32_t* const waiting_;
    const float* const points_;
    const Index* const candidates_;
    const Lengths lengths_;
    Tour<Team, Index> tour_;
    Queue<Team, Index> queue_;
};

}  // namespace fd::tsp::slice
