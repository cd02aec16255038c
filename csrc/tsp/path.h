// What becomes of a tour when a few of its edges are exchanged, while it is not touched: runs of its steps in
// a new order.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "tsp/distance.h"

namespace fd::tsp {

// Steps lo..hi of a walk around the tour, perhaps taken backwards.
struct Run {
    int32_t lo, hi;
    bool reversed = false;

    int32_t length() const { return hi - lo + 1; }
    int32_t last() const { return reversed ? lo : hi; }
    bool holds(int32_t step) const {
        return static_cast<uint32_t>(step - lo) <= static_cast<uint32_t>(hi - lo);
    }
    Run backwards() const { return {lo, hi, !reversed}; }
};

// How a step of a move exchanges two or three edges of the path A B C, cut before its places i and j. A prime
// means backwards.
enum class Shape : int32_t {
    none,
    flip_a,       // A' C: 2-opt, i == j
    b_flipped_a,  // B A' C
    flipped_b_a,  // B' A C
    b_a,          // B A C: segments change places
    flip_both,    // A' B' C
};

// All cities, as runs of steps: step k is the city k places after place `base` of the tour, before it if
// `direction` is -1.
class Path {
  public:
    static constexpr int kMostRuns = 20;

    Path() = default;
    Path(int32_t base, int32_t direction) : base_(base), direction_(direction) {}

    int32_t base() const { return base_; }
    int32_t direction() const { return direction_; }
    int size() const { return size_; }
    const Run& operator[](int k) const { return runs_[k]; }
    int32_t begin(int k) const { return begin_[k]; }  // place of a run on the path

    void add(Run run) {
        begin_[size_] = size_ > 0 ? begin_[size_ - 1] + runs_[size_ - 1].length() : 0;
        runs_[size_++] = run;
    }

    int run_with(int32_t step) const {
        int k = 0;
        while (!runs_[k].holds(step)) ++k;
        return k;
    }

    int longest() const {
        int k = 0;
        for (int j = 1; j < size_; ++j)
            if (runs_[j].length() > runs_[k].length()) k = j;
        return k;
    }

    // Becomes what the step makes of another path of n cities.
    void assign(const Path& from, Shape shape, int32_t i, int32_t j, int32_t n) {
        base_ = from.base_, direction_ = from.direction_, size_ = 0;
        switch (shape) {
            case Shape::none:
                break;
            case Shape::flip_a:
                append_backwards(from, 0, i);
                break;
            case Shape::b_flipped_a:
                append(from, i, j);
                append_backwards(from, 0, i);
                break;
            case Shape::flipped_b_a:
                append_backwards(from, i, j);
                append(from, 0, i);
                break;
            case Shape::b_a:
                append(from, i, j);
                append(from, 0, i);
                break;
            case Shape::flip_both:
                append_backwards(from, 0, i);
                append_backwards(from, i, j);
                break;
        }
        append(from, j, n);
    }

  private:
    // The part from place p up to before place q.
    void append(const Path& from, int32_t p, int32_t q) {
        for (int k = 0; k < from.size_; ++k) {
            const Run run = from.part(k, p, q);
            if (run.length() > 0) add(run);
        }
    }
    void append_backwards(const Path& from, int32_t p, int32_t q) {
        for (int k = from.size_; k-- > 0;) {
            const Run run = from.part(k, p, q);
            if (run.length() > 0) add(run.backwards());
        }
    }

    // What of run k lies between.
    Run part(int k, int32_t p, int32_t q) const {
        Run run = runs_[k];
        const int32_t front = std::max(0, p - begin_[k]), back = std::max(0, begin_[k] + run.length() - q);
        run.lo += run.reversed ? back : front;
        run.hi -= run.reversed ? front : back;
        return run;
    }

    int32_t base_ = 0, direction_ = 1;
    int size_ = 0;
    std::array<Run, kMostRuns> runs_;
    std::array<int32_t, kMostRuns> begin_;
};

}  // namespace fd::tsp
