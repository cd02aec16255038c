// When positions of a masked sequence are revealed, which of them are committed, which masked again: the
// arithmetic that all devices share.
//
// Every position has 64 random bits of its own per draw: words 0 and 1 of the Philox counter
// (tag << 28, position, sequence id, draw). Hit keys are tag 6, remasking is tag 7. A position of the larger
// hit key is revealed earlier; as a number the key is U in (0, 1), and the position is revealed at the time t
// with mask_prob(t) = mask_prob(1) U. Sorting the keys gives order and times of all hits, with exactly the
// law of the recursion that draws one hit after another.
#pragma once

#include "common/philox.h"

namespace fd::hitting {

constexpr StreamTag kHitTag = static_cast<StreamTag>(6), kRemaskTag = static_cast<StreamTag>(7);

// Which stream each sequence of a batch reads.
struct Sequences {
    const int64_t* rng;  // (seed, draw), or that and a sequence id for each sequence
    const int64_t* ids;  // or null
    bool rng_per_sequence;

    // At position 0; the others differ in the low half of the row.
    FD_HOST_DEVICE PhiloxStream stream(StreamTag tag, int64_t b) const {
        const int64_t* r = rng_per_sequence ? rng + 3 * b : rng;
        const int64_t id = ids != nullptr ? ids[b] : rng_per_sequence ? r[2] : b;
        return {tag, static_cast<uint64_t>(r[0]), static_cast<uint32_t>(r[1]),
                static_cast<uint64_t>(id) << 32};
    }
};

FD_HOST_DEVICE uint64_t bits_at(PhiloxStream stream, uint32_t position) {
    stream.row_low = position;
    const PhiloxWords p = stream.block(0);
    return static_cast<uint64_t>(p.w[0]) << 32 | p.w[1];
}

FD_HOST_DEVICE int leading_zeros(uint64_t n) {  // n > 0
#if defined(__CUDA_ARCH__)
    return __clzll(static_cast<long long>(n));
#else
    return __builtin_clzll(n);
#endif
}

// n 2^-64 to 53 significant bits at every scale, never 0 nor 1: the lowest bit of the significand says that
// something follows. Exact; monotone in n.
FD_HOST_DEVICE double hit_uniform(uint64_t n) {
    if (n == 0) return 0x1p-65;
    const int zeros = leading_zeros(n);
    const uint64_t significand = (n << zeros) >> 11 | 1;
    return static_cast<double>(static_cast<int64_t>(significand)) *
           bit_cast<double>(static_cast<uint64_t>(1023 - 53 - zeros) << 52);
}

// The step i of the grid in which a key is hit: mask_prob[i] > mask_prob[0] U >= mask_prob[i + 1];
// points - 1 if the last mask probability is still above it.
FD_HOST_DEVICE int32_t reveal_step(uint64_t key, const double* mask_prob, int32_t points) {
    const double hit = mask_prob[0] * hit_uniform(key);
    int32_t above = 0;  // mask_prob[0] is: U < 1, also after rounding
    for (int32_t size = points; size > 1;) {
        const int32_t half = size / 2;
        above = mask_prob[above + half] > hit ? above + half : above;
        size -= half;
    }
    return above;
}

// True with probability p, to 2^-64; never for NaN.
FD_HOST_DEVICE bool happens(uint64_t bits, double p) {
    if (!(p > 0)) return false;
    return p >= 1 || bits < static_cast<uint64_t>(p * 0x1p64);
}

// A matrix of float or double, read as double.
struct Reals {
    const void* data;
    bool wide;
    int64_t stride[2];

    FD_HOST_DEVICE double at(int64_t row, int64_t column) const {
        const int64_t place = row * stride[0] + column * stride[1];
        return wide ? static_cast<const double*>(data)[place]
                    : static_cast<double>(static_cast<const float*>(data)[place]);
    }
};

// ---- which candidates are committed

enum class Rule : int { count = 0, threshold = 1, factor = 2, entropy_bound = 3 };

// A candidate and what decides its rank; larger keys come first, then smaller positions.
struct Ranked {
    uint64_t key;
    int32_t position;
};

FD_HOST_DEVICE bool before(const Ranked& a, const Ranked& b) {
    return a.key > b.key || (a.key == b.key && a.position < b.position);
}

struct Selection {
    Reals values;  // scores, larger is better; or residuals r >= 0 of confidences 1 / (1 + r)
    Reals entropy;
    const bool* candidate;
    const void* limit;  // int64 for a count, double otherwise; one, or one for each sequence
    int64_t length;
    Rule rule;
    bool residual, limit_per_sequence;

    FD_HOST_DEVICE int64_t count(int64_t b) const {
        const int64_t n = static_cast<const int64_t*>(limit)[limit_per_sequence ? b : 0];
        return n > 0 ? n : 0;
    }
    FD_HOST_DEVICE double bound(int64_t b) const {
        return static_cast<const double*>(limit)[limit_per_sequence ? b : 0];
    }

    // Doubles in their order as integers; NaN below all, zeros equal.
    FD_HOST_DEVICE uint64_t key(int64_t b, int64_t position) const {
        const double value = values.at(b, position);
        if (value != value) return 0;
        const uint64_t bits = bit_cast<uint64_t>((residual ? -value : value) + 0.0);
        return bits >> 63 != 0 ? ~bits : bits | uint64_t{1} << 63;
    }

    // 1 - confidence. A residual keeps its precision where the confidence would round to 1.
    FD_HOST_DEVICE double shortfall(int64_t b, int64_t position) const {
        const double value = values.at(b, position);
        return residual ? 1 / (1 + 1 / value) : 1 - value;
    }

    // As torch compares: the threshold in the type of the scores.
    FD_HOST_DEVICE bool meets_threshold(int64_t b, int64_t position, double threshold) const {
        if (residual) return shortfall(b, position) <= 1 - threshold;
        const double value = values.at(b, position);
        return value >= (values.wide ? threshold : static_cast<double>(static_cast<float>(threshold)));
    }

    // Whether the first n candidates, the last of which is at `position`, may be committed together.
    FD_HOST_DEVICE bool meets_factor(int64_t b, int64_t position, int64_t n, double factor) const {
        return static_cast<double>(n + 1) * shortfall(b, position) < factor;
    }
};

// sum - max over the entropies of a growing prefix, in the order of the ranks.
struct EntropyGap {
    double sum = 0, max = 0;
    bool empty = true;

    FD_HOST_DEVICE bool add(double entropy, double bound) {
        sum += entropy;
        max = empty || entropy > max ? entropy : max;
        empty = false;
        return sum - max <= bound;
    }
};

}  // namespace fd::hitting
