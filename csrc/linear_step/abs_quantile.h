// Per-sample quantile of |u|, u = c_x x + c_o sum_k g_k outs_k as in linear_step.h: what the CPU and the CUDA
// kernels share.
//
// The magnitude of an IEEE number orders as its bit pattern does, so selection works on integer keys: NaN
// above infinity above everything finite. The quantile interpolates linearly between ranks k and k + 1 of n
// values, as torch.quantile does.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "linear_step/linear_step.h"

namespace fd::linear_step {

// One call, tensors as raw pointers: x and outs hold `samples` runs of `elements` numbers, all in one order.
struct QuantileArgs {
    int64_t samples, elements;
    const void *x, *outs[kMaxOuts];
    DType x_type, out_type;
    int n_outs;
    const double* coef;  // [steps, coef_batch, 64]
    const int64_t* step;
    int64_t steps, coef_batch;
    const double* weights;  // [weight_steps, 2, weight_batch, n_outs] or null
    int64_t weight_steps, weight_batch;
};

// u's coefficients for one sample; a step outside the table makes everything NaN, as in `load_value`.
template <class Acc>
struct Conversion {
    Acc c_x, c_o, g[kMaxOuts];

    FD_HOST_DEVICE Conversion(const QuantileArgs& a, int64_t b) {
        const int64_t step = *a.step;
        const bool valid = step >= 0 && step < a.steps;
        c_x = c_o = Acc(NAN);
        if (valid) {
            const double* row = a.coef + (step * a.coef_batch + (a.coef_batch == 1 ? 0 : b)) * kCoef;
            c_x = static_cast<Acc>(row[kCx]);
            c_o = static_cast<Acc>(row[kCo]);
        }
        FD_UNROLL
        for (int k = 0; k < kMaxOuts; ++k) {
            g[k] = k < a.n_outs ? Acc(1) : Acc(0);
            if (a.weights == nullptr || k >= a.n_outs || !valid) continue;
            const int64_t at =
                (a.weight_steps == 1 ? 0 : step) * 2 * a.weight_batch + (a.weight_batch == 1 ? 0 : b);
            g[k] = static_cast<Acc>(a.weights[at * a.n_outs + k]);
        }
        if (a.n_outs == 0) c_o = Acc(0);
    }
};

template <class Acc>
using Key = std::conditional_t<std::is_same_v<Acc, double>, uint64_t, uint32_t>;

template <class Acc>
constexpr Key<Acc> kLargestKey = std::numeric_limits<Key<Acc>>::max() >> 1;

template <class Acc>
constexpr Key<Acc> kInfinityKey =
    static_cast<Key<Acc>>(std::is_same_v<Acc, double> ? 0x7ff0000000000000u : 0x7f800000u);

template <class Acc>
FD_HOST_DEVICE Key<Acc> magnitude_key(Acc u) {
    return bit_cast<Key<Acc>>(u) & kLargestKey<Acc>;
}

struct QuantileRank {
    int64_t below;  // 0-based rank k
    double weight;  // of rank k + 1; 0 where there is none
};

// torch.quantile rounds q (n - 1) to the type of the values; so does this, to give its numbers. float32
// cannot number more than 2^24 values (torch refuses them), so from there on it is float64.
inline QuantileRank quantile_rank(double q, int64_t n, bool wide) {
    if (wide || n > int64_t{1} << 24) {
        const double rank = q * static_cast<double>(n - 1), below = std::floor(rank);
        return {static_cast<int64_t>(below), rank - below};
    }
    const float rank = static_cast<float>(q) * static_cast<float>(n - 1), below = std::floor(rank);
    return {static_cast<int64_t>(below), static_cast<double>(rank - below)};
}

// Interpolates from the nearer end, as torch.lerp does; an infinite upper end is the result. Then min(max(v,
// floor), cap).
template <class Acc>
FD_HOST_DEVICE Acc finish_quantile(Key<Acc> low_key, Key<Acc> high_key, double weight, double floor,
                                   double cap) {
    const Acc low = bit_cast<Acc>(low_key), high = bit_cast<Acc>(high_key), w = static_cast<Acc>(weight);
    Acc value = high;
    if (low_key != high_key && high_key != kInfinityKey<Acc>) {
        value = w < Acc(0.5) ? low + w * (high - low) : high - (high - low) * (Acc(1) - w);
    }
    const Acc least = static_cast<Acc>(floor), most = static_cast<Acc>(cap);
    value = value < least ? least : value;
    return value > most ? most : value;
}

}  // namespace fd::linear_step
