// The random numbers of the published search: a stream of 32-bit words for every event, which is one
// simulated action or one random state. An event's words depend on nothing but its number. A state of more
// than 2^18 cities runs into the words of events from 2^32 on, which no run reaches.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/philox_lanes.h"

namespace fd::tsp {

struct EventStream {
    uint64_t seed = 0, row = 0;  // row = (instance << 32) | trajectory

    PhiloxStream of(uint64_t event) const {
        return {StreamTag::tour, seed, static_cast<uint32_t>(event), row};
    }
    static uint64_t first_block(uint64_t event) { return event >> 32 << 16; }
};

// In (0, 1): the centre of a word's cell.
FD_HOST_DEVICE double unit_double(uint32_t word) { return (word + 0.5) * 0x1p-32; }

// The words of one event, one after the other.
class Draws {
  public:
    Draws(const EventStream& stream, uint64_t event)
        : stream_(stream.of(event)), next_block_(EventStream::first_block(event)) {}

    uint32_t word() {
        if (used_ == 4) {
            words_ = stream_.block(next_block_++);
            used_ = 0;
        }
        return words_.w[used_++];
    }

  private:
    PhiloxStream stream_;
    uint64_t next_block_;
    PhiloxWords words_{};
    int used_ = 4;
};

// The same words for actions, made for many events at a time: a 64-bit number first, then numbers in (0, 1).
class ActionDraws {
  public:
    // At most so many numbers in (0, 1) of an event are wanted.
    ActionDraws(const EventStream& stream, int64_t units)
        : stream_(stream), blocks_(static_cast<int>(std::min<int64_t>((units + 5) / 4, kPhiloxChunk))) {}

    template <simd::Level L>
    FD_HOST_DEVICE void begin(uint64_t event) {
        if (event - first_event_ >= static_cast<uint64_t>(events_)) fill<L>(event);
        event_ = event;
        lane_ = static_cast<int>(event - first_event_) * blocks_;
    }

    FD_HOST_DEVICE uint64_t integer() const {
        return static_cast<uint64_t>(chunk_.w[0][lane_]) << 32 | chunk_.w[1][lane_];
    }

    FD_HOST_DEVICE double unit(int k) const {
        if (k + 2 < 4 * blocks_) [[likely]]
            return units_[4 * lane_ + 2 + k];
        return unit_double(
            stream_.of(event_).block(EventStream::first_block(event_) + (k + 2) / 4).w[(k + 2) % 4]);
    }

  private:
    template <simd::Level L>
    FD_HOST_DEVICE void fill(uint64_t event) {
        first_event_ = event;
        events_ = kPhiloxChunk / blocks_;
        PhiloxLanes lanes;
        for (int lane = 0; lane < kPhiloxChunk; ++lane) {
            const uint64_t e = event + lane / blocks_;
            lanes.set(lane, stream_.of(e), EventStream::first_block(e) + lane % blocks_);
        }
        philox_lanes<L>(lanes, chunk_);
        for (int lane = 0; lane < kPhiloxChunk; ++lane) {
            for (int j = 0; j < 4; ++j) units_[4 * lane + j] = unit_double(chunk_.w[j][lane]);
        }
    }

    EventStream stream_;
    int blocks_, events_ = 0, lane_ = 0;
    uint64_t first_event_ = 0, event_ = 0;
    PhiloxChunk chunk_;
    alignas(64) double units_[4 * kPhiloxChunk];
};

}  // namespace fd::tsp
