// One draw per row from probabilities as they are given, by inversion: what the backends share.
//
// x = u (p_0 + .. + p_{V-1}), u uniform of 128 bits; the token is the first v with p_0 + .. + p_v > x. Sums
// are float64 in a fixed shape, so the token depends on no thread, SIMD level or device:
//   chunk   64 consecutive numbers, halved and added (i to i + 32, then + 16, ...)
//   tile    its 64 chunk sums, likewise
//   row     tile after tile
// The search descends: tile, chunk, number, adding one after another from what stands before. Where rounding
// leaves x above all sums of a level, the last one that is not zero is taken. A number of probability zero is
// never drawn.
#pragma once

#include "categorical/categorical.h"

namespace fd::categorical {

constexpr int kChunk = 64, kChunks = 64;
constexpr int64_t kSumTile = int64_t{kChunk} * kChunks;

struct InverseCdfArgs {
    DType dtype;
    const void* probs;
    int64_t rows, vocab, row_stride;
    const int64_t *row_ids, *rng;
    bool rng_per_row;

    FD_HOST_DEVICE int64_t tiles() const { return (vocab + kSumTile - 1) / kSumTile; }

    // In (0, 1).
    FD_HOST_DEVICE double uniform_of_row(int64_t r) const {
        const int64_t* state = rng_per_row ? rng + 3 * r : rng;
        const int64_t id = row_ids != nullptr ? row_ids[r] : rng_per_row ? state[2] : r;
        const RowKey key{static_cast<uint64_t>(state[0]), static_cast<uint64_t>(id),
                         static_cast<uint32_t>(state[1])};
        const PhiloxWords p = key.words(StreamTag::inverse_cdf, 0);
        return uniform(p.w[3] & 0xffffu, p);  // the tail does not use this half
    }
};

// NaN for what is no probability: it spoils the sums, and the row has no token.
template <class T>
FD_HOST_DEVICE double probability(T p) {
    const double wide = static_cast<double>(fd::detail::widen(p));
    return wide >= 0 ? wide : std::numeric_limits<double>::quiet_NaN();
}

// Sums that can be drawn from: of some positive, finite numbers.
FD_HOST_DEVICE bool is_mass(double total) {
    return total > 0 && total < std::numeric_limits<double>::infinity();
}

// One level of the search: sums come in order, until `found`.
struct Search {
    double x, before = 0;
    int64_t place = -1;  // of the sum that passes x, or of the last one that is not zero
    double before_place = 0;
    bool found = false;

    FD_HOST_DEVICE void offer(double sum, int64_t at) {
        if (found || !(sum > 0)) return;
        place = at;
        before_place = before;
        before += sum;
        found = before > x;
    }
};

}  // namespace fd::categorical
