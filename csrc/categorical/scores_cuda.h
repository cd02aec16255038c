// Log-probability, entropy, margin, logsumexp and odds residual on CUDA: sums over tiles by one warp each,
// merged in float64 by one warp. The order of additions depends on the vocabulary alone.
#pragma once

#include "categorical/gumbel_launch.h"
#include "categorical/tiles_cuda.h"

namespace fd::categorical {

// Of one tile, with t = (l - most) / temperature.
struct TileSums {
    double most, second, sum, first;  // the two largest l; of exp(t), of t exp(t)
};

__device__ inline double scaled_difference(double a, double b, double temperature) {
    return a == b ? 0.0 : (a - b) / temperature;
}

template <class C>
__device__ void merge_largest(C& most, C& second, C other, C other_second) {
    second = max(max(second, other_second), min(most, other));
    most = max(most, other);
}

template <class C>
__device__ void largest_two_of_warp(C& most, C& second) {
    FD_UNROLL
    for (int d = kWarp / 2; d > 0; d /= 2)
        merge_largest(most, second, __shfl_xor_sync(kAllLanes, most, d),
                      __shfl_xor_sync(kAllLanes, second, d));
}

__device__ inline double sum_of_warp(double x) {
    FD_UNROLL
    for (int d = kWarp / 2; d > 0; d /= 2) x += __shfl_xor_sync(kAllLanes, x, d);
    return x;
}

// Of all logits of the tile but index `without`; for all lanes. Threshold filters are not looked at.
template <class T>
__device__ FD_NOINLINE TileSums sums_of_tile(const Row<T>& whole, const TileSpan& span, int without,
                                             double temperature) {
    using C = Compute<T>;
    const int lane = lane_of_thread();
    const TileRow<T> row(whole, span, lane);
    constexpr int kRun = 8;  // terms that are added in C
    const auto logit = [&](int index) {
        return index < span.last && index != without ? row.unfiltered(span.column + index)
                                                     : kMinusInfinity<C>;
    };
    C most = kMinusInfinity<C>, second = kMinusInfinity<C>;
    FD_NO_UNROLL
    for (int start = span.first + lane; start < span.last; start += kRun * kWarp) {
        C l[kRun];
        FD_UNROLL
        for (int k = 0; k < kRun; ++k) l[k] = logit(start + k * kWarp);
        FD_UNROLL
        for (int k = 0; k < kRun; ++k) merge_largest(most, second, l[k], kMinusInfinity<C>);
    }
    largest_two_of_warp(most, second);
    double sum = 0, first = 0;
    if (most > kMinusInfinity<C>) {
        const C inverse = static_cast<C>(1 / temperature);
        FD_NO_UNROLL
        for (int start = span.first + lane; start < span.last; start += kRun * kWarp) {
            C run_sum = 0, run_first = 0;
            FD_UNROLL
            for (int k = 0; k < kRun; ++k) {
                const C l = logit(start + k * kWarp);
                const C t = l == most ? C(0) : (l - most) * inverse, e = exp(t);
                run_sum += e;
                if (e > 0) run_first = fma(e, t, run_first);
            }
            sum += static_cast<double>(run_sum);
            first += static_cast<double>(run_first);
        }
    }
    return {static_cast<double>(most), static_cast<double>(second), sum_of_warp(sum), sum_of_warp(first)};
}

// One warp; `sums`: of all tiles of the row. `out`: kScoreCount numbers.
template <class T>
__device__ void finish_scores(const Row<T>& row, int64_t vocab, int64_t tiles, const TileSums* sums,
                              int32_t token, double temperature, double* out, int lane) {
    double most = kMinusInfinity<double>, second = kMinusInfinity<double>;
    for (int64_t i = lane; i < tiles; i += kWarp) {
        const TileSums s = sums[i];
        merge_largest(most, second, s.most, s.second);
    }
    largest_two_of_warp(most, second);
    double sum = 0, first = 0;
    for (int64_t i = lane; i < tiles; i += kWarp) {
        const TileSums s = sums[i];
        const double shift = scaled_difference(s.most, most, temperature), scale = exp(shift);
        if (s.sum == 0 || scale == 0) continue;
        sum += s.sum * scale;
        first += (s.first + s.sum * shift) * scale;
    }
    sum = sum_of_warp(sum);
    first = sum_of_warp(first);
    const bool empty = sum == 0;
    const double log_sum = log(sum);
    if (lane == 0) {
        out[1] = empty ? 0.0 : log_sum - first / sum;
        out[2] = second == most ? 0.0 : -expm1((second - most) / temperature) / sum;
        out[3] = empty ? kMinusInfinity<double> : most / temperature + log_sum;
    }
    if (token < 0) {
        if (lane == 0) {
            out[0] = kMinusInfinity<double>;
            out[4] = std::numeric_limits<double>::infinity();
        }
        return;
    }
    // The token's own tile again, without it: 1 - p cancels where p is almost 1.
    const int64_t own = token / kTile - row.vocab_start / kTile;
    const TileSpan span(token / kTile, row.vocab_start, vocab);
    const int64_t column = token - row.vocab_start;
    const TileSums rest = sums_of_tile(row, span, static_cast<int>(column - span.column), temperature);
    const auto chosen = static_cast<double>(any_unfiltered(row, column));
    double residual = 0;
    for (int64_t i = lane; i < tiles; i += kWarp) {
        const TileSums s = i == own ? rest : sums[i];
        if (s.sum > 0) residual += s.sum * exp(scaled_difference(s.most, chosen, temperature));
    }
    residual = sum_of_warp(residual);
    if (lane != 0) return;
    out[0] = residual < 1 ? -log1p(residual) : scaled_difference(chosen, most, temperature) - log_sum;
    out[4] = residual;
}

}  // namespace fd::categorical
