// How many tours of a population have an edge.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "tsp/distance.h"

namespace fd::tsp {

// Open addressing; edges that no tour has any more keep their slot until the table grows.
class EdgeCounts {
  public:
    explicit EdgeCounts(size_t edges) : slots_(std::bit_ceil(4 * edges)) {}

    int32_t of(City a, City b) const { return slots_[find(key(a, b))].count; }

    void add(City a, City b, int32_t more) { add(key(a, b), more); }

  private:
    struct Slot {
        uint64_t key = 0;
        int32_t count = 0;
    };

    static uint64_t key(City a, City b) {
        return static_cast<uint64_t>(std::min(a, b)) << 32 | static_cast<uint32_t>(std::max(a, b));
    }

    size_t find(uint64_t key) const {
        const size_t mask = slots_.size() - 1;
        size_t at = key * 0x9E3779B97F4A7C15u >> (64 - std::countr_zero(slots_.size()));
        while (slots_[at].key != 0 && slots_[at].key != key) at = (at + 1) & mask;
        return at;
    }

    void add(uint64_t key, int32_t more) {
        Slot* slot = &slots_[find(key)];
        if (slot->key == 0) {
            if (2 * ++used_ > slots_.size()) {
                grow();
                slot = &slots_[find(key)];
            }
            slot->key = key;
        }
        slot->count += more;
    }

    void grow() {
        std::vector<Slot> old(2 * slots_.size());
        old.swap(slots_);
        used_ = 1;
        for (const Slot& slot : old) {
            if (slot.count == 0) continue;
            slots_[find(slot.key)] = slot;
            ++used_;
        }
    }

    std::vector<Slot> slots_;  // key 0 = free: no edge joins city 0 to itself
    size_t used_ = 0;
};

}  // namespace fd::tsp
