// Exact categorical draws: arguments, and the logits of a row as they are processed.
//
// l = logit; l = fma(w + 1, c - u, u) with guidance; + bias; suppressed and forbidden tokens, and NaN: -inf;
// below the row's threshold: -inf. In float32, float64 for float64 logits. noise.h has the draw.
#pragma once

#include "categorical/noise.h"

namespace fd::categorical {

// Raw operator arguments, checked by categorical_args.h. A stride of 0 repeats the only row or number.
struct CategoricalArgs {
    DType dtype;
    int64_t rows, vocab;              // output rows; columns of this tensor
    int64_t vocab_start, vocab_size;  // its first global index; global indices in all
    const void *logits, *uncond;      // uncond: null, or logits of the same type
    int64_t row_stride, uncond_row_stride;
    int64_t logit_rows;        // rows of `logits`
    const int64_t* row_index;  // null, or the row of logits of every output row
    const int64_t* row_ids;    // null, or keys of the output rows
    const int64_t* rng;        // (seed, offset), or (seed, offset, id) of every output row (sequence)
    bool rng_per_row;
    const float *cfg_scale, *temperature, *score_temperature;  // first and last may be null
    int64_t cfg_stride, temperature_stride, score_stride;
    const void* threshold;  // null, float, or double for float64 logits
    int64_t threshold_stride;
    const float* bias;
    const bool* suppressed;
    int64_t bias_stride, suppressed_stride;
    const int64_t* forbidden;  // global indices
    int64_t n_forbidden;
    bool forbidden_sorted;
    Stream stream;
    bool full;  // every noise is computed
};

// First-hitting step: output row b k + j draws position positions[b, j] of sequence b.
struct HittingArgs : CategoricalArgs {
    int64_t* tokens;  // [batch, length], last axis dense
    int64_t batch, length, per_sequence, token_stride;
    const int32_t* positions;  // [batch, per_sequence] dense
    const int64_t* sequence_ids;
    int64_t batch_stride, uncond_batch_stride;
    bool gathered;  // row j of logits belongs to positions[:, j], else row = position
};

template <class T>
struct Row {
    using C = Compute<T>;

    const T *logits, *uncond;
    const float* bias;
    const bool* suppressed;
    const int64_t* forbidden;
    int64_t n_forbidden, vocab_start;
    bool forbidden_sorted;
    C guidance;   // w + 1
    C threshold;  // -inf: none
    double temperature;
    RowKey key;

    FD_HOST_DEVICE bool is_forbidden(int64_t v) const {
        if (!forbidden_sorted) {
            for (int64_t i = 0; i < n_forbidden; ++i) {
                if (forbidden[i] == v) return true;
            }
            return false;
        }
        int64_t low = 0, high = n_forbidden;
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (forbidden[middle] < v) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low < n_forbidden && forbidden[low] == v;
    }

    // l of local column j but for the threshold; NaN is -inf.
    FD_HOST_DEVICE C unfiltered(int64_t j) const {
        C l = static_cast<C>(fd::detail::widen(logits[j]));
        if (uncond != nullptr) {
            const C u = static_cast<C>(fd::detail::widen(uncond[j]));
            l = fma(guidance, l - u, u);
        }
        if (bias != nullptr) l += static_cast<C>(bias[j]);
        if (suppressed != nullptr && suppressed[j]) return kMinusInfinity<C>;
        if (n_forbidden > 0 && is_forbidden(vocab_start + j)) return kMinusInfinity<C>;
        return l == l ? l : kMinusInfinity<C>;
    }

    FD_HOST_DEVICE C filtered(C l) const { return l < threshold ? kMinusInfinity<C> : l; }
    FD_HOST_DEVICE C at(int64_t j) const { return filtered(unfiltered(j)); }

    // Nothing but a conversion stands between the tensor and l.
    FD_HOST_DEVICE bool plain() const {
        return uncond == nullptr && bias == nullptr && suppressed == nullptr && n_forbidden == 0;
    }
};

// Output row r, whose logits start at these offsets. The key is left to the caller.
template <class T>
FD_HOST_DEVICE Row<T> make_row(const CategoricalArgs& a, int64_t r, int64_t offset, int64_t uncond_offset) {
    using C = Compute<T>;
    Row<T> row{};
    row.logits = static_cast<const T*>(a.logits) + offset;
    if (a.uncond != nullptr) {
        const float w = a.cfg_scale[r * a.cfg_stride];
        row.guidance = static_cast<C>(w) + C(1);
        // Without guidance l is c bit for bit.
        row.uncond = w == 0.0f ? nullptr : static_cast<const T*>(a.uncond) + uncond_offset;
    }
    if (a.bias != nullptr) row.bias = a.bias + r * a.bias_stride;
    if (a.suppressed != nullptr) row.suppressed = a.suppressed + r * a.suppressed_stride;
    row.forbidden = a.forbidden;
    row.n_forbidden = a.n_forbidden;
    row.forbidden_sorted = a.forbidden_sorted;
    row.vocab_start = a.vocab_start;
    row.threshold = a.threshold == nullptr ? kMinusInfinity<C>
                                           : static_cast<const C*>(a.threshold)[r * a.threshold_stride];
    row.temperature = static_cast<double>(a.temperature[r * a.temperature_stride]);
    return row;
}

FD_HOST_DEVICE RowKey row_key(const CategoricalArgs& a, int64_t r) {
    const int64_t* state = a.rng_per_row ? a.rng + 3 * r : a.rng;
    const int64_t id = a.row_ids != nullptr ? a.row_ids[r] : a.rng_per_row ? state[2] : r;
    return {static_cast<uint64_t>(state[0]), static_cast<uint64_t>(id), static_cast<uint32_t>(state[1])};
}

// Output row r of gumbel_argmax and gumbel_topk; row_index[r] must be in range.
template <class T>
FD_HOST_DEVICE Row<T> draw_row(const CategoricalArgs& a, int64_t r) {
    const int64_t from = a.row_index != nullptr ? a.row_index[r] : r;
    Row<T> row = make_row<T>(a, r, from * a.row_stride, from * a.uncond_row_stride);
    row.key = row_key(a, r);
    return row;
}

// Row (b, j) of a first-hitting step, `position` in [0, length).
template <class T>
FD_HOST_DEVICE Row<T> hitting_row(const HittingArgs& a, int64_t b, int64_t j, int64_t position) {
    const int64_t m = a.gathered ? j : position;
    Row<T> row = make_row<T>(a, b * a.per_sequence + j, b * a.batch_stride + m * a.row_stride,
                             b * a.uncond_batch_stride + m * a.uncond_row_stride);
    const int64_t* state = a.rng_per_row ? a.rng + 3 * b : a.rng;
    const int64_t id = a.sequence_ids != nullptr ? a.sequence_ids[b] : a.rng_per_row ? state[2] : b;
    row.key = {static_cast<uint64_t>(state[0]),
               static_cast<uint64_t>(id) << 32 | static_cast<uint64_t>(position),
               static_cast<uint32_t>(state[1])};
    return row;
}

// z of local column j with its noise computed for it alone: the definition.
template <class T>
FD_HOST_DEVICE double perturbed_at(const Row<T>& row, Stream stream, int64_t j) {
    const double l = static_cast<double>(row.at(j));
    if (row.temperature == 0) return l;
    return perturbed(row.temperature, noise_at(stream, row.key, static_cast<uint32_t>(row.vocab_start + j)),
                     l);
}

}  // namespace fd::categorical
