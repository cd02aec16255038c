// Which cities are still to be looked at, first come, first served.
//
// A bit for each city is the truth, a short ring the order. When the ring overflows (as it does where all
// cities wait) the order is given up, nothing else: cities are then taken from the bits, cyclically by
// number, until none is left.
#pragma once

#include "tsp/slice_tour.h"

namespace fd::tsp::slice {

constexpr int kPushed = 8;  // end points of a kick; a move has fewer and repeats one

template <class Team, class Index>
class Queue {
  public:
    FD_TEAM Queue(const Team& team, const Storage<Index>& s, int32_t n, int32_t capacity)
        : team_(team), ring_(s.ring), waiting_(s.waiting), words_(words_of(n)), capacity_(capacity) {}

    // The bits were set by hand.
    FD_TEAM void sweep() {
        sweeping_ = true;
        cursor_ = 0;
    }

    FD_TEAM void push(const City (&cities)[kPushed]) {
        // what next() cleared is seen: a reversal lies between
        const uint32_t fresh = team_.ballot([&](int lane) {
            if (lane >= kPushed) return false;
            const City own = pick(cities, lane);
            bool first = true;
            FD_UNROLL
            for (int k = 0; k < kPushed; ++k) first = first && !(k < lane && cities[k] == own);
            return first && (waiting_[own / 32] >> own % 32 & 1u) == 0;
        });
        const int32_t count = count_bits(fresh);
        if (size_ + count > capacity_) sweep();
        team_.each(kPushed, [&](int32_t k) {
            if ((fresh >> k & 1u) == 0) return;
            const City c = pick(cities, k);
            Team::set_bits(waiting_ + c / 32, 1u << c % 32);
            const int32_t rank = count_bits(fresh & ((1u << k) - 1));
            if (!sweeping_) ring_[(head_ + size_ + rank) & (capacity_ - 1)] = static_cast<Index>(c);
        });
        size_ = sweeping_ ? 0 : size_ + count;
    }

    FD_TEAM City next() {  // -1: none
        City c = -1;
        if (sweeping_) {
            team_.meet();  // the bit that was cleared last
            c = next_of_bits();
            team_.meet();  // all have read the bits
            sweeping_ = c >= 0;
        } else if (size_ > 0) {
            c = static_cast<City>(ring_[head_]);
            head_ = (head_ + 1) & (capacity_ - 1);
            --size_;
        }
        if (c >= 0) team_.once([&] { waiting_[c / 32] &= ~(1u << c % 32); });
        return c;
    }

  private:
    FD_TEAM static City pick(const City (&cities)[kPushed], int32_t k) {  // without an array in local memory
        City c = cities[0];
        FD_UNROLL
        for (int i = 1; i < kPushed; ++i) c = i == k ? cities[i] : c;
        return c;
    }

    FD_TEAM City next_of_bits() {
        for (int round = 0; round < 2; ++round) {
            for (; cursor_ < words_; cursor_ += kLanes) {
                const uint32_t found = team_.ballot([&](int lane) {
                    const int32_t word = cursor_ + lane;
                    return word < words_ && waiting_[word] != 0;
                });
                if (found == 0) continue;
                cursor_ += lowest_bit(found);
                return cursor_ * 32 + lowest_bit(waiting_[cursor_]);
            }
            cursor_ = 0;
        }
        return -1;
    }

    const Team& team_;
    Index* const ring_;
    uint32_t* const waiting_;
    const int32_t words_, capacity_;
    int32_t head_ = 0, size_ = 0, cursor_ = 0;
    bool sweeping_ = false;
};

}  // namespace fd::tsp::slice
