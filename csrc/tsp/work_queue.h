// Cities whose neighbourhood has changed, first in first out, none twice: the don't-look bits of local
// search.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "tsp/distance.h"

namespace fd::tsp {

class WorkQueue {
  public:
    explicit WorkQueue(City n)
        : ring_(std::bit_ceil(static_cast<uint32_t>(n))), waiting_(n, 0), mask_(ring_.size() - 1) {}

    bool empty() const { return head_ == tail_; }

    void push(City c) {
        if (waiting_[c]) return;
        waiting_[c] = 1;
        ring_[tail_++ & mask_] = c;
    }

    City pop() {
        const City c = ring_[head_++ & mask_];
        waiting_[c] = 0;
        return c;
    }

  private:
    std::vector<City> ring_;
    std::vector<uint8_t> waiting_;
    uint64_t mask_, head_ = 0, tail_ = 0;
};

}  // namespace fd::tsp
