#pragma once

#include <limits>
#include <vector>

#include "tsp/problem.h"

namespace fd::tsp {

// Candidate cities and lengths side by side: one line of cache a city. A short list goes on with an edge so
// long that no gain survives it, so loops that stop where the gain is used up need no other end.
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

}  // namespace fd::tsp
