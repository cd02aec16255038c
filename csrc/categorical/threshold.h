// Top-k, top-p and min-p as one threshold per row: what all backends share.
//
// Each filter is a property of p = softmax(l / T) over the whole vocabulary, and keeps l >= theta:
//   top-k   theta = the k-th largest l
//   top-p   theta = the largest value whose {l >= theta} has mass >= p: the token that crosses p is kept
//   min-p   theta = l_max + T ln(min_p), that is p >= min_p p_max
// The largest theta of the active ones is the row's. Whatever equals it is kept.
//
// *Masses are integers*: mass(l) = round(2^b exp((l - l_max) / T)) with 2^b V <= 2^62. The exponential is a
// polynomial of IEEE operations, in double. So sums are exact and have no order: threads, SIMD levels, CUDA
// and shards of a vocabulary find the same threshold. A mass is off by 2^-(b+1) at most: b is 45 for V =
// 126k.
//
// *Keys* order as logits do, largest first, and are selected by radix (common/radix_select.h).
//
// T = 0 is the limit: all mass on the maximum. A row of -inf has no threshold (-inf).
#pragma once

#include "categorical/categorical.h"
#include "common/radix_select.h"

namespace fd::categorical {

template <class C>
using LogitKey = std::conditional_t<std::is_same_v<C, double>, uint64_t, uint32_t>;

template <class C>
using LogitPasses = RadixPasses<8 * sizeof(C)>;

// Smaller for larger logits; both zeros are one.
template <class C>
FD_HOST_DEVICE LogitKey<C> descending_key(C l) {
    using K = LogitKey<C>;
    constexpr K kSign = K{1} << (8 * sizeof(K) - 1);
    const K bits = bit_cast<K>(l + C(0));
    return bits & kSign ? bits : ~bits ^ kSign;
}

template <class C>
FD_HOST_DEVICE C logit_of(LogitKey<C> key) {
    using K = LogitKey<C>;
    constexpr K kSign = K{1} << (8 * sizeof(K) - 1);
    return bit_cast<C>(static_cast<K>(key & kSign ? key : ~key ^ kSign));
}

// ---- mass

// log2 of the mass of the maximum: masses fit into the 52 bits of a double's fraction, sums below 2^63.
inline int mass_bits(int64_t vocab_size) {
    int log2 = 0;
    while ((int64_t{1} << log2) < vocab_size) ++log2;
    return 62 - log2 < 50 ? 62 - log2 : 50;
}

struct MassScale {
    static constexpr double kFar = -64;

    double top, rate;   // maximum of the row; log2(e) / T
    uint64_t exponent;  // of a double 2^bits, in place

    FD_HOST_DEVICE MassScale(double row_max, double temperature, int bits)
        : top(row_max),
          rate(1.4426950408889634 / temperature),
          exponent(static_cast<uint64_t>(1023 + bits) << 52) {}

    // log2 of mass / 2^bits: 0 for the maximum; what is far below, and NaN, stops at kFar and has no mass.
    FD_HOST_DEVICE double depth(double l) const {
        double y = (l - top) * rate;
        y = l == top ? 0.0 : y;  // T = 0 and infinite logits
        return y > kFar ? y : kFar;
    }
    FD_HOST_DEVICE uint64_t of(double l) const { return at_depth(depth(l)); }

    FD_HOST_DEVICE uint64_t at_depth(double y) const {
        constexpr double kRound = 0x1.8p52;  // adding it rounds to an integer, which the low bits then hold
        const double shifted = y + kRound;
        const double f = y - (shifted - kRound);
        // 2^f on [-1/2, 1/2], minimax, error 2.2e-16
        double p = 7.072585949269223e-09;
        p = fma(p, f, 1.0208690299958306e-07);
        p = fma(p, f, 1.321544258792169e-06);
        p = fma(p, f, 1.5252657260200837e-05);
        p = fma(p, f, 0.0001540353044173605);
        p = fma(p, f, 0.0013333558230164974);
        p = fma(p, f, 0.009618129107606888);
        p = fma(p, f, 0.05550410866444772);
        p = fma(p, f, 0.24022650695910097);
        p = fma(p, f, 0.69314718055995);
        p = fma(p, f, 1.0);
        const double scale = bit_cast<double>((bit_cast<uint64_t>(shifted) << 52) + exponent);
        return bit_cast<uint64_t>(fma(p, scale, 0x1p52)) - bit_cast<uint64_t>(0x1p52);
    }
};

// ceil(p M) of a total mass M < 2^62, p in (0, 1] rounded up to a multiple of 2^-53: in 26- and 31-bit limbs,
// which a signed 64-bit tensor can do as well.
FD_HOST_DEVICE uint64_t mass_target(double top_p, uint64_t total) {
    const double scaled = top_p * 0x1p53;
    uint64_t p = static_cast<uint64_t>(scaled);
    p += static_cast<double>(p) < scaled;
    const uint64_t p_high = p >> 26, p_low = p & ((1u << 26) - 1);
    const uint64_t m_high = total >> 31, m_low = total & ((1u << 31) - 1);
    const uint64_t last = p_low * m_low;
    const uint64_t middle = p_high * m_low + 32 * p_low * m_high + (last >> 26);
    const uint64_t rounded = middle + ((last & ((1u << 26) - 1)) != 0);
    return 16 * p_high * m_high + ((rounded + (1u << 27) - 1) >> 27);
}

// The least C that is not below x.
FD_HOST_DEVICE double round_up_to(double x, double) { return x; }
FD_HOST_DEVICE float round_up_to(double x, float) {
    const float f = static_cast<float>(x);
    return static_cast<double>(f) < x ? logit_of<float>(descending_key(f) - 1) : f;
}

template <class C>
FD_HOST_DEVICE C min_p_threshold(C top, double temperature, double min_p) {
    const double normal = min_p < 0x1p-1022 ? 0x1p-1022 : min_p;  // no logit is so far down
    return round_up_to(fma(temperature, log_exact(normal), static_cast<double>(top)), C(0));
}

// ---- a call

// One number, or one a row (stride 0 or 1); float or double.
struct RowNumber {
    const void* data;  // null: the filter is off
    bool wide;
    int64_t stride;

    FD_HOST_DEVICE double at(int64_t r) const {
        return wide ? static_cast<const double*>(data)[r * stride]
                    : static_cast<double>(static_cast<const float*>(data)[r * stride]);
    }
};

struct ThresholdArgs {
    CategoricalArgs logits;
    const int64_t* top_k;  // null: off
    int64_t top_k_stride;
    RowNumber top_p, min_p;
    int mass_bits;
    bool kept;  // the mass of what is kept is wanted as well
};

// What is active in a row.
struct Filters {
    int64_t k = 0;            // 0: off
    double p = 1, min_p = 0;  // 1, 0: off

    FD_HOST_DEVICE Filters(const ThresholdArgs& a, int64_t r) {
        if (a.top_k != nullptr) {
            k = a.top_k[r * a.top_k_stride];
            if (k < 0 || k >= a.logits.vocab) k = 0;
        }
        if (a.top_p.data != nullptr) p = a.top_p.at(r);
        if (a.min_p.data != nullptr) min_p = a.min_p.at(r);
    }
    FD_HOST_DEVICE bool top_p() const { return p < 1; }
    FD_HOST_DEVICE bool any() const { return k > 0 || top_p() || min_p > 0; }
};

// Row r of the logits; the key is not needed.
template <class T>
FD_HOST_DEVICE Row<T> threshold_row(const CategoricalArgs& a, int64_t r) {
    const int64_t from = a.row_index != nullptr ? a.row_index[r] : r;
    return make_row<T>(a, r, from * a.row_stride, from * a.uncond_row_stride);
}

}  // namespace fd::categorical
