// Chains of sequential 3-opt steps (Lin and Kernighan, 1973; with a 3-opt step as Helsgaun, 2000), found
// through neighbour lists without touching the tour.
//
// A chain removes the edge (t1, t2), which leaves a path from t2 to t1. A step joins the path's open end to
// t3, cuts beside t3 at t4, joins t4 to t5 and cuts beside t5 at t6, the new open end. Joining t4 or t6 to t1
// closes the tour. What is gained before closing stays positive. Of all steps that close with a gain the best
// is taken; if there is none, the chain goes on from the step that leaves most. Edges that a chain has added
// are never cut.
#pragma once

#include <cstdint>
#include <vector>

#include "tsp/neighbours.h"
#include "tsp/path.h"
#include "tsp/problem.h"
#include "tsp/tour.h"

namespace fd::tsp {

struct Step {
    Shape shape = Shape::none;
    int32_t i = 0, j = 0;
    City t3 = 0, t4 = 0, t5 = -1, t6 = -1;  // a 2-opt step ends with t4
    Total gain = 0;                         // before closing; of a closing step: in all

    City end() const { return t6 >= 0 ? t6 : t4; }
};

// A change of the tour with a gain.
struct Move {
    static constexpr int kMostSteps = 8;

    Total gain = 0;
    Path path;
    int size = 0;
    City ends[2 + 4 * kMostSteps];  // of all removed edges

    void end_at(City a, City b) { ends[size++] = a, ends[size++] = b; }
};

template <class Distance>
class MoveSearch {
  public:
    // Moves that change more than `reach` places are left out.
    MoveSearch(const Problem& problem, const Neighbours& near, const Tour& tour, Distance distance,
               int32_t reach)
        : near_(near),
          tour_(tour),
          distance_(distance),
          fixed_(problem.fixed.empty() ? nullptr : problem.fixed.data()),
          reach_(reach) {}

    // Looks for a move that removes an edge at t1.
    bool improve(City t1, Move& move) { return chain<1>(t1, move) || chain<-1>(t1, move); }

  private:
    static_assert(2 * Move::kMostSteps + 1 <= Path::kMostRuns);

    // Where a city is on the path.
    struct Where {
        int32_t place;
        int32_t ahead;     // 1 if the path goes along the array there, else -1
        bool first, last;  // of its run: the edge before, or after, is an added one
    };

    // The path that the removal of one edge leaves.
    template <int32_t kDirection>
    struct Whole {
        const Tour& tour;
        int32_t base;

        Where operator()(City c) const {
            const int32_t s = step(tour, c, base, kDirection);
            return {s, kDirection, s == 0, s == tour.size() - 1};
        }
    };

    // The path that some steps have made.
    struct Rejoined {
        const Tour& tour;
        const Path& path;

        Where operator()(City c) const {
            const int32_t s = step(tour, c, path.base(), path.direction());
            const int k = path.run_with(s);
            const Run& run = path[k];
            const int32_t inside = run.reversed ? run.hi - s : s - run.lo;
            return {path.begin(k) + inside, run.reversed ? -path.direction() : path.direction(), inside == 0,
                    s == run.last()};
        }
    };

    static int32_t step(const Tour& tour, City c, int32_t base, int32_t direction) {
        const int32_t s = direction > 0 ? tour.place(c) - base : base - tour.place(c);
        return s < 0 ? s + tour.size() : s;
    }

    bool fixed(City a, City b) const {
        return fixed_ != nullptr && (fixed_[2 * a] == b || fixed_[2 * a + 1] == b);
    }

    template <int32_t kDirection>
    bool chain(City t1, Move& move) {
        const City t2 = tour_.beside(t1, kDirection);
        if (fixed(t1, t2)) return false;
        const int32_t base = tour_.place(t2), n = tour_.size();
        bool closed = choose(Whole<kDirection>{tour_, base}, t1, t2, distance_(t1, t2), steps_[0]);
        if (steps_[0].shape == Shape::none) return false;
        Path path(base, kDirection);
        path.add({0, n - 1});
        int k = 0;
        for (;; ++k) {
            const Step& now = steps_[k];
            if (!closed && (k + 1 == Move::kMostSteps || now.gain <= near_.of(now.end())[0].length))
                return false;
            const Path before = path;
            path.assign(before, now.shape, now.i, now.j, n);
            if (closed) break;
            closed = choose(Rejoined{tour_, path}, t1, now.end(), now.gain, steps_[k + 1]);
            if (steps_[k + 1].shape == Shape::none) return false;
        }
        if (n - path[path.longest()].length() > reach_) return false;
        move.gain = steps_[k].gain;
        move.path = path;
        move.size = 0;
        move.end_at(t1, t2);
        for (int m = 0; m <= k; ++m) {
            move.end_at(steps_[m].t3, steps_[m].t4);
            if (steps_[m].t6 >= 0) move.end_at(steps_[m].t5, steps_[m].t6);
        }
        return true;
    }

    // What a chain may do next.
    struct Choice {
        Step& step;
        City t1;
        Total closing = 0, open = 0;

        void offer(Total open_gain, Total closed_gain, const Step& offered) {
            if (closed_gain > closing) {
                closing = closed_gain;
                step = offered;
                step.gain = closed_gain;
            } else if (closing == 0 && open_gain > open) {
                open = open_gain;
                step = offered;
                step.gain = open_gain;
            }
        }
    };

    // True if the step that it finds closes with a gain.
    template <class View>
    bool choose(const View& where, City t1, City t2, Total open, Step& step) const {
        step.shape = Shape::none;
        Choice choice{step, t1};
        const Neighbours::Slot* near2 = near_.of(t2);
        for (City k = 0; k < near_.width(); ++k) {
            const City t3 = near2[k].city;
            const Total g1 = open - near2[k].length;
            if (g1 <= 0) break;
            const Where at3 = where(t3);
            if (at3.place == 1 && !at3.first) continue;  // (t2, t3) is in the tour
            if (!at3.first) {
                const City t4 = tour_.beside(t3, -at3.ahead);
                if (!fixed(t3, t4)) cut_before(where, t3, t4, at3.place, g1 + distance_(t3, t4), choice);
            }
            if (!at3.last) {
                const City t4 = tour_.beside(t3, at3.ahead);
                if (!fixed(t3, t4)) cut_after(where, t3, t4, at3.place, g1 + distance_(t3, t4), choice);
            }
        }
        return choice.closing > 0;
    }

    // t4 precedes t3: t4 is the new open end, and the path up to it is reversed.
    template <class View>
    void cut_before(const View& where, City t3, City t4, int32_t place3, Total g2, Choice& choice) const {
        choice.offer(0, g2 - distance_(t4, choice.t1), {Shape::flip_a, place3, place3, t3, t4});
        const Neighbours::Slot* near4 = near_.of(t4);
        for (City k = 0; k < near_.width(); ++k) {
            const City t5 = near4[k].city;
            const Total g3 = g2 - near4[k].length;
            if (g3 <= 0) break;
            const Where at5 = where(t5);
            const bool before = at5.place < place3;
            if (before ? at5.last : at5.first) continue;
            const City t6 = tour_.beside(t5, before ? at5.ahead : -at5.ahead);
            if (t6 == t4 || fixed(t5, t6)) continue;
            const Total g4 = g3 + distance_(t5, t6);
            choice.offer(g4, g4 - distance_(t6, choice.t1),
                         before ? Step{Shape::b_flipped_a, at5.place + 1, place3, t3, t4, t5, t6}
                                : Step{Shape::flipped_b_a, place3, at5.place, t3, t4, t5, t6});
        }
    }

    // t4 follows t3: joining the open end and t3 closes a cycle, which is cut again at t5.
    template <class View>
    void cut_after(const View& where, City t3, City t4, int32_t place3, Total g2, Choice& choice) const {
        const Neighbours::Slot* near4 = near_.of(t4);
        for (City k = 0; k < near_.width(); ++k) {
            const City t5 = near4[k].city;
            const Total g3 = g2 - near4[k].length;
            if (g3 <= 0) break;
            const Where at5 = where(t5);
            if (at5.place >= place3) continue;
            for (const bool after : {true, false}) {
                if (after ? at5.last : at5.first) continue;
                const City t6 = tour_.beside(t5, after ? at5.ahead : -at5.ahead);
                if (fixed(t5, t6)) continue;
                const Total g4 = g3 + distance_(t5, t6);
                choice.offer(g4, g4 - distance_(t6, choice.t1),
                             after ? Step{Shape::b_a, at5.place + 1, place3 + 1, t3, t4, t5, t6}
                                   : Step{Shape::flip_both, at5.place, place3 + 1, t3, t4, t5, t6});
            }
        }
    }

    const Neighbours& near_;
    const Tour& tour_;
    Distance distance_;
    const City* fixed_;
    int32_t reach_;
    Step steps_[Move::kMostSteps];
};

}  // namespace fd::tsp
