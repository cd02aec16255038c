// What two tours A and B do not share, split into closed walks whose edges come from A and B in turn
// (AB-cycles; Nagata and Kobayashi, 2013). Taking a walk's A-edges out of A and putting its B-edges in leaves
// two edges at every city.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tsp/tour.h"

namespace fd::tsp {

// Expands one Philox block into a stream (SplitMix64, Steele et al. 2014).
class LocalDraws {
  public:
    explicit LocalDraws(uint64_t state) : state_(state) {}
    uint64_t word() {
        uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    // Uniform in 0 .. range - 1, up to a bias of range / 2^32.
    uint32_t below(size_t range) { return static_cast<uint32_t>((word() >> 32) * range >> 32); }
    template <class T>
    void shuffle(std::vector<T>& items) {
        for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
    }

  private:
    uint64_t state_;
};

class AlternatingCycles {
  public:
    explicit AlternatingCycles(City n)
        : left_{std::vector<Ends>(n), std::vector<Ends>(n)}, seen_(n, {-1, -1}) {}

    void split(const Tour& a, const Tour& b, LocalDraws& draws) {
        first_.assign(1, 0);
        cities_.clear();
        start_.clear();
        for (City c = 0; c < a.size(); ++c) {
            const City in_a[2] = {a.previous(c), a.next(c)}, in_b[2] = {b.previous(c), b.next(c)};
            Ends& of_a = left_[0][c] = {};
            Ends& of_b = left_[1][c] = {};
            for (int k = 0; k < 2; ++k) {
                if (in_a[k] != in_b[0] && in_a[k] != in_b[1]) of_a.to[of_a.count++] = in_a[k];
                if (in_b[k] != in_a[0] && in_b[k] != in_a[1]) of_b.to[of_b.count++] = in_b[k];
            }
            if (of_a.count > 0) start_.push_back(c);
        }
        draws.shuffle(start_);
        for (const City c : start_) {
            while (left_[0][c].count > 0) walk(c, draws);
        }
    }

    size_t size() const { return first_.size() - 1; }

    // v0 v1 v2 ..: A-edges (v0, v1), (v2, v3), ..; B-edges (v1, v2), .., (last, v0).
    std::span<const City> operator[](size_t i) const {
        return {cities_.data() + first_[i], cities_.data() + first_[i + 1]};
    }

  private:
    struct Ends {
        City to[2];
        int32_t count = 0;
    };
    struct Seen {
        int32_t at[2];  // place on the walk from which the city was left by an edge of A, of B
    };

    void drop(Ends& ends, City to) {
        if (ends.to[0] == to) ends.to[0] = ends.to[1];
        --ends.count;
    }

    // A random walk that hands out a cycle whenever it meets itself. It cannot get stuck: every arrival
    // leaves an edge of the other tour to go on by.
    void walk(City start, LocalDraws& draws) {
        walk_.assign(1, start);
        seen_[start].at[0] = 0;
        for (;;) {
            const City here = walk_.back();
            const int from = static_cast<int>(walk_.size() - 1) & 1;
            Ends& ends = left_[from][here];
            const City to = ends.to[ends.count == 2 ? draws.word() & 1 : 0];
            drop(ends, to);
            drop(left_[from][to], here);
            int32_t& seen = seen_[to].at[1 - from];
            if (seen < 0) {
                seen = static_cast<int32_t>(walk_.size());
                walk_.push_back(to);
                continue;
            }
            hand_out(seen);
            if (walk_.size() > 1) continue;
            seen_[start].at[0] = -1;
            return;
        }
    }

    void hand_out(int32_t begin) {
        const int32_t shift = begin & 1;  // the first edge is A's
        cities_.insert(cities_.end(), walk_.begin() + begin + shift, walk_.end());
        if (shift == 1) cities_.push_back(walk_[begin]);
        first_.push_back(cities_.size());
        for (auto i = walk_.size(); i-- > static_cast<size_t>(begin) + 1;) seen_[walk_[i]].at[i & 1] = -1;
        walk_.resize(begin + 1);
    }

    std::vector<Ends> left_[2];  // edges of A alone and of B alone that are in no cycle yet
    std::vector<Seen> seen_;
    std::vector<City> start_, walk_, cities_;
    std::vector<size_t> first_;
};

}  // namespace fd::tsp
