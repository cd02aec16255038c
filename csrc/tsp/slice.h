// Tour search for many trajectories at once: what the arguments of `tsp_search_slice` mean, and who computes.
//
// A trajectory is an annealed iterated local search on one instance: a double bridge of three short
// segments, descent by 2-opt and 3-opt moves through candidate lists, acceptance by a threshold. A slice is a
// range of kicks. Kick k draws from a Philox counter of its own and temperatures are a function of k, so two
// slices in a row are the one long slice, bit for bit, however time was cut.
//
// A team of 32 lanes walks one trajectory: a warp, or (SerialTeam, the definition) a loop over lanes. All
// code between the two is the same text, all sums are integers, and what is float rounds alike everywhere.
#pragma once

#include <cstdint>

#include "common/philox.h"
#include "common/portable.h"
#include "tsp/distance.h"

// Under nvcc only warps run the code of a team, so there it is device code.
#if defined(__CUDACC__)
#define FD_TEAM __device__ __forceinline__
#else
#define FD_TEAM inline
#endif

namespace fd::tsp::slice {

constexpr int kLanes = 32;
constexpr int kWidth = 8;    // candidates of a city
constexpr int kBreadth = 5;  // of them, tried for the third new edge of a move
constexpr int32_t kMinCities = 8;
constexpr int32_t kRing = 128;             // a queue's places; more go the long way (slice_queue.h)
constexpr int32_t kLog = 64;               // reversals that a kick may be undone by
constexpr float kMaxCoordinate = 0x1p26f;  // three edges of that size still are an int32

// What a trajectory carries from slice to slice beside its tours.
enum StateWord : int32_t {
    kLength,    // of the current tour; -1: the trajectory was refused (below)
    kBest,      // of the best tour
    kFirst,     // of the first local optimum, the measure of temperatures
    kAccepted,  // kicks
    kRestored,  // kicks too large for the log, which fell back to the best tour
    kStateWords
};

// Arrays as raw memory, row-major. A trajectory whose tour (from kick 1 on also the best one) is no
// permutation, or whose points are not within +-kMaxCoordinate, is refused: only its length becomes -1.
// Candidates outside of 0..n-1 end a list.
struct Args {
    int32_t* tours;          // [batch, trajectories, n], mutated
    int32_t* best;           // likewise
    int64_t* state;          // [batch, trajectories, kStateWords], mutated; kick 0 starts it
    const float* points;     // [batch, n, 2], in units of the integer length
    const void* candidates;  // [batch, n, kWidth] uint16 or int32, ascending in distance
    const int64_t* kicks;    // first, last (exclusive); begin and end of the span of the temperatures
    const double*
        temperature;     // [trajectories, knots] evenly on the span, in mean edges of the first optimum
    const int64_t* rng;  // seed, number of the first instance
    int64_t batch, trajectories;
    int32_t n, knots;
    int32_t segment;                   // the most cities of each of a kick's segments, 6 segment <= n
    int32_t ring = kRing, log = kLog;  // powers of two; smaller ones are for tests
};

// A found move in the frame of its lane (slice_moves.h).
enum class Kind : int32_t { none, two_opt, two_flips, exchange, both_reversed };
struct Move {
    Edge gain = 0;
    Kind kind = Kind::none;
    int32_t rank3 = 0, rank5 = 0;
    int lane = 0;
};

FD_HOST_DEVICE int count_bits(uint32_t word) {
#if defined(__CUDA_ARCH__)
    return __popc(word);
#else
    return __builtin_popcount(word);
#endif
}

FD_HOST_DEVICE int lowest_bit(uint32_t word) {  // word != 0
#if defined(__CUDA_ARCH__)
    return __ffs(static_cast<int>(word)) - 1;
#else
    return __builtin_ctz(word);
#endif
}

// The lanes one after another.
struct SerialTeam {
    // f(0) .. f(n - 1), which must not depend on one another; all that was written before is seen, and after
    // it what f wrote.
    template <class F>
    void each(int32_t n, const F& f) const {
        for (int32_t i = 0; i < n; ++i) f(i);
    }
    // One lane writes; the others see it after the next each() or meet().
    template <class F>
    void once(const F& f) const {
        f();
    }
    void meet() const {}
    template <class F>
    uint32_t ballot(const F& f) const {
        uint32_t votes = 0;
        for (int lane = 0; lane < kLanes; ++lane) votes |= static_cast<uint32_t>(f(lane)) << lane;
        return votes;
    }
    template <class F>
    Total sum(int32_t n, const F& f) const {
        Total total = 0;
        for (int32_t i = 0; i < n; ++i) total += f(i);
        return total;
    }
    // The lane's move with the largest gain, of equal ones the lowest lane's.
    template <class F>
    Move best(const F& f) const {
        Move best = f(0);
        for (int lane = 1; lane < kLanes; ++lane) {
            Move move = f(lane);
            move.lane = lane;
            if (move.gain > best.gain) best = move;
        }
        return best;
    }
    static void set_bits(uint32_t* word, uint32_t bits) { *word |= bits; }
};

// What kick number `kick` draws.
struct Draw {
    int32_t place;      // the kick is behind this place of the tour
    int32_t end[3];     // of the segments that change places, counted from there; each 1..segment long
    float exponential;  // of the acceptance threshold, standard

    FD_HOST_DEVICE Draw(const Args& a, int64_t instance, int64_t trajectory, int64_t kick) {
        const uint64_t row =
            static_cast<uint64_t>(a.rng[1] + instance) << 32 | static_cast<uint64_t>(trajectory);
        const PhiloxStream stream(StreamTag::tour, static_cast<uint64_t>(a.rng[0]),
                                  static_cast<uint32_t>(kick), row);
        const PhiloxWords words = stream.block(static_cast<uint64_t>(kick) >> 32 << 16);
        const auto length = [&](uint32_t half) {
            return static_cast<int32_t>(half * static_cast<uint32_t>(a.segment) >> 16) + 1;
        };
        place = static_cast<int32_t>(static_cast<uint64_t>(words.w[0]) * static_cast<uint32_t>(a.n) >> 32);
        end[0] = length(words.w[1] & 0xffffu);
        end[1] = end[0] + length(words.w[1] >> 16);
        end[2] = end[1] + length(words.w[3] >> 16);
        exponential = -log_unit(unit_interval(words.w[2]));
    }
};

// Piecewise linear in the kick.
FD_HOST_DEVICE double temperature_at(const Args& a, int64_t trajectory, int64_t kick) {
    const double* knots = a.temperature + trajectory * a.knots;
    const int64_t begin = a.kicks[2], end = a.kicks[3];
    const int32_t pieces = a.knots - 1;
    if (kick <= begin || end <= begin) return knots[0];
    if (kick >= end) return knots[pieces];
    const double x = static_cast<double>(kick - begin) / static_cast<double>(end - begin) * pieces;
    const int32_t piece = static_cast<int32_t>(x) < pieces ? static_cast<int32_t>(x) : pieces - 1;
    return knots[piece] + (x - piece) * (knots[piece + 1] - knots[piece]);
}

}  // namespace fd::tsp::slice
