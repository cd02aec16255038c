// One solver step as weighted sums of a few tensors: the arithmetic that every backend shares.
//
//   o = sum_k g_k outs_k                       guided model output           j = sum_k e_k outs_k
//   u = c_x x + c_o o                          converted (to x0, eps, ...)
//   m = d_x x + d_u clip(u) + d_h h_0          the model's term
//   A, X, S0, S1 = weighted sums of x, anchor, m, z, h_0 .. h_7, then A, then (X only) j
//
// A row's terms are accumulated with fma in exactly this order; a zero weight skips its tensor. `step_tile`
// is written over tiles: hundreds of elements in L1 on a CPU, one 16-byte vector in registers on a GPU. What
// differs, loads and stores, is the Io type's. See ops.cpp for the operators and docs/architecture.md for the
// coefficient vector.
#pragma once

#include <limits>

#include "common/dtype.h"
#include "common/philox.h"

namespace fd::linear_step {

constexpr int kCoef = 64, kRows = 4, kColumns = 13, kMaxHistory = 8, kMaxOuts = 4;

enum RowIndex { kX, kA, kS0, kS1 };
enum ColumnIndex { kState, kAnchor, kOutput, kNoise, kCorrected, kHistory };
// Entries of the coefficient vector; kCoef + r stands for an additive bias of row r.
enum Position {
    kCx = 1,
    kCo = 2,
    kDx = 3,
    kDu = 4,
    kClipBound = 5,
    kDh = 6,
    kJump = 7,
    kFirstRow = 8,
    kCin = 60
};
enum ClipMode { kClipNone, kClipStatic, kClipDynamic };
enum AnchorMode { kAnchorSame, kAnchorKeep, kAnchorRow };

FD_HOST_DEVICE constexpr int position(int row, int column) { return kFirstRow + kColumns * row + column; }

// One call, as raw pointers. Tensors are dense [batch, sample]; `channels` > 1 says that a sample is stored
// channels-last.
struct StepArgs {
    int64_t batch, sample, channels;
    const void *x, *outs[kMaxOuts], *anchor, *history, *noise;
    void *x_next, *anchor_next, *store[2], *model_in;  // store: null when the ring itself is written
    void* ring;                                        // in-place form: the history, else null
    DType x_type, out_type, history_type, noise_type;
    int n_outs, n_hist, n_store, clip_mode, anchor_mode, model_copies;

    const double* coef;  // [steps, coef_batch, 64]
    const int64_t* step;
    int64_t steps, coef_batch;
    const double* weights;  // [weight_steps, 2, weight_batch, n_outs] or null
    int64_t weight_steps, weight_batch;
    const void* elem;  // [elem_steps, n_elem, elem_period] or null; element e of a sample reads (e /
                       // elem_inner) % elem_period
    DType elem_type;
    int64_t elem_steps, elem_period, elem_inner;
    int n_elem;
    const int64_t* elem_map;
    const void* clip_scale;  // [batch] float or double
    DType clip_type;
    const int64_t* rng;  // [2] or, when rng_per_sample, [batch, 3]
    bool rng_per_sample;

    // Whether every sample has the same numbers and nothing depends on the place inside a sample.
    bool uniform() const {
        return coef_batch == 1 && (weights == nullptr || weight_batch == 1) && elem == nullptr &&
               rng == nullptr && clip_mode != kClipDynamic;
    }
};

// The row of numbers that holds for one sample, in the accumulation type, with what follows from it.
template <class Acc>
struct Coefficients {
    Acc value[kCoef], g[kMaxOuts], e[kMaxOuts], clip_scale;
    uint32_t used[kRows];  // bit c: column c has a weight in this row
    uint32_t columns;      // bit c: in any row
    int8_t elem_of[kCoef + kRows];
    int head;
    uint64_t seed, row;
    uint32_t offset;
    bool valid;  // the step index lies inside the table

    FD_HOST_DEVICE bool stores(int k) const { return used[kS0 + k] != 0 || elem_of[kCoef + kS0 + k] >= 0; }
    FD_HOST_DEVICE bool column_used(int column) const { return (columns >> column & 1u) != 0; }
    FD_HOST_DEVICE bool active(int k) const { return value[k] != Acc(0) || elem_of[k] >= 0; }
};

// Number k of the vector for sample b; a step outside the table makes everything NaN instead of reading
// foreign memory.
template <class Acc>
FD_HOST_DEVICE void load_value(const StepArgs& a, int64_t b, int k, Coefficients<Acc>& c) {
    const int64_t step = *a.step;
    c.elem_of[k] = -1;
    if (k < kRows) c.elem_of[kCoef + k] = -1;
    c.value[k] = std::numeric_limits<Acc>::quiet_NaN();
    if (step >= 0 && step < a.steps) {
        c.value[k] =
            static_cast<Acc>(a.coef[(step * a.coef_batch + (a.coef_batch == 1 ? 0 : b)) * kCoef + k]);
    }
}

// What is not a number of the vector: weights, ring head, noise keys. One thread does it.
template <class Acc>
FD_HOST_DEVICE void load_rest(const StepArgs& a, int64_t b, Coefficients<Acc>& c) {
    const int64_t step = *a.step;
    c.valid = step >= 0 && step < a.steps;
    for (int k = 0; k < kMaxOuts; ++k) {
        c.g[k] = k == 0 ? Acc(1) : Acc(0);
        c.e[k] = Acc(0);
        if (a.weights != nullptr && k < a.n_outs && c.valid) {
            const double* w = a.weights + (a.weight_steps == 1 ? 0 : step) * 2 * a.weight_batch * a.n_outs;
            const int64_t sample = a.weight_batch == 1 ? 0 : b;
            c.g[k] = static_cast<Acc>(w[sample * a.n_outs + k]);
            c.e[k] = static_cast<Acc>(w[(a.weight_batch + sample) * a.n_outs + k]);
        }
    }
    for (int k = 0; k < a.n_elem && c.valid; ++k) {
        const int64_t where = a.elem_map[k];
        if (where >= 0 && where < kCoef + kRows) c.elem_of[where] = static_cast<int8_t>(k);
    }
    c.clip_scale = Acc(1);
    if (a.clip_mode == kClipDynamic) {
        c.clip_scale = a.clip_type == DType::f64
                           ? static_cast<Acc>(static_cast<const double*>(a.clip_scale)[b])
                           : static_cast<Acc>(static_cast<const float*>(a.clip_scale)[b]);
    }
    c.head = a.n_hist > 0 && c.valid ? static_cast<int>(step * a.n_store % a.n_hist) : 0;
    if (a.rng != nullptr) {
        const int64_t* r = a.rng_per_sample ? a.rng + 3 * b : a.rng;
        c.seed = static_cast<uint64_t>(r[0]);
        c.offset = static_cast<uint32_t>(r[1] + step);
        c.row = a.rng_per_sample ? static_cast<uint64_t>(r[2]) : static_cast<uint64_t>(b);
    }
}

// Which columns row r reads. Rows that nobody asked for read nothing.
template <class Acc>
FD_HOST_DEVICE uint32_t used_columns(const StepArgs& a, const Coefficients<Acc>& c, int r) {
    const bool wanted = r == kX || (r == kA && a.anchor_mode == kAnchorRow) || (r == kS0 && a.n_store >= 1) ||
                        (r == kS1 && a.n_store >= 2);
    uint32_t bits = 0;
    for (int column = 0; column < kColumns; ++column) {
        const bool own_result = r == kA && column == kCorrected;
        if (wanted && !own_result && c.active(position(r, column))) bits |= 1u << column;
    }
    return bits;
}

template <class Acc>
FD_HOST_DEVICE void find_used_columns(const StepArgs& a, Coefficients<Acc>& c) {
    c.columns = 0;
    for (int r = 0; r < kRows; ++r) {
        c.used[r] = used_columns(a, c, r);
        c.columns |= c.used[r];
    }
}

FD_HOST_DEVICE int ring_slot(int head, int age, int length) { return (head + 2 * length - 1 - age) % length; }

// Logical row-major index of storage place p inside a sample.
FD_HOST_DEVICE int64_t logical_index(const StepArgs& a, int64_t p) {
    return a.channels <= 1 ? p : p % a.channels * (a.sample / a.channels) + p / a.channels;
}

template <class Acc>
FD_HOST_DEVICE Acc clamp(Acc v, Acc bound) {
    return v < -bound ? -bound : v > bound ? bound : v;  // a NaN stays a NaN
}

// What a backend provides: `Io::Tile` (a run of elements), `Io::Sum` (a weighted sum that grows by `add` and
// is read by `tile`; after `settle` it no longer depends on the tensors), loads and stores. The functions
// below say which terms, in which order.

// Weighted terms whose weight is a number or, where an element coefficient replaces it, a tensor.
template <bool Elem, class Acc, class Io>
FD_HOST_DEVICE void add_term(const Coefficients<Acc>& c, Io& io, int k, const typename Io::Tile& term,
                             typename Io::Sum& sum) {
    if constexpr (Elem) {
        if (c.elem_of[k] >= 0) {
            sum.add(io.load_elem(c.elem_of[k]), term);
            return;
        }
    }
    if (c.value[k] != Acc(0)) sum.add(c.value[k], term);
}

// Guided output, conversion, clipping: the model's term m, and the direct guidance term j.
template <bool Elem, class Acc, class Io>
FD_HOST_DEVICE void model_term(const StepArgs& a, const Coefficients<Acc>& c, Io& io,
                               const typename Io::Tile& x, const typename Io::Tile& newest,
                               typename Io::Sum& m, typename Io::Sum& jump) {
    const bool wants_m = c.column_used(kOutput);
    typename Io::Sum o = io.sum(), u = io.sum();
    FD_NO_UNROLL
    for (int k = 0; k < a.n_outs; ++k) {
        const bool into_o = wants_m && c.active(kCo) && c.g[k] != Acc(0),
                   into_jump = c.active(kJump) && c.e[k] != Acc(0);
        if (!(into_o || into_jump)) continue;
        const typename Io::Tile out = io.load_out(k);
        if (into_o) o.add(c.g[k], out);
        if (into_jump) jump.add(c.e[k], out);
    }
    if (!wants_m) return;
    if (c.active(kCx)) add_term<Elem>(c, io, kCx, x, u);
    if (c.active(kCo)) add_term<Elem>(c, io, kCo, o.tile(), u);
    typename Io::Tile clipped = u.tile();
    if (a.clip_mode == kClipStatic) {
        clipped = io.map(clipped, [&](Acc v) { return clamp(v, c.value[kClipBound]); });
    } else if (a.clip_mode == kClipDynamic) {
        clipped = io.map(clipped, [&](Acc v) { return clamp(v, c.clip_scale) / c.clip_scale; });
    }
    if (c.active(kDx)) add_term<Elem>(c, io, kDx, x, m);
    add_term<Elem>(c, io, kDu, clipped, m);
    if (c.active(kDh)) add_term<Elem>(c, io, kDh, newest, m);
}

// All rows of one tile: loads what the weights ask for, writes what the call asks for. Without AllRows only X
// and S0 exist, which is all that most solvers need and halves the registers.
template <bool Elem, bool AllRows, class Acc, class Io>
FD_HOST_DEVICE void step_tile(const StepArgs& a, const Coefficients<Acc>& c, Io& io) {
    const bool wants_m = c.column_used(kOutput);
    typename Io::Tile x{}, newest{};
    if (c.column_used(kState) || (wants_m && (c.active(kCx) || c.active(kDx)))) x = io.load_x();
    if (c.column_used(kHistory) || (wants_m && c.active(kDh))) newest = io.load_history(0);

    typename Io::Sum m = io.sum(), jump = io.sum();
    model_term<Elem>(a, c, io, x, newest, m, jump);

    typename Io::Sum row[kRows] = {io.sum(), io.sum(), io.sum(), io.sum()};
    if constexpr (Elem) {
        FD_UNROLL
        for (int r = 0; r < kRows; ++r) {
            if ((AllRows || r == kX || r == kS0) && c.elem_of[kCoef + r] >= 0) {
                row[r].add(Acc(1), io.load_elem(c.elem_of[kCoef + r]));
                row[r].settle();
            }
        }
    }
    const auto add_column = [&](int column, const typename Io::Tile& term) __attribute__((always_inline)) {
        FD_UNROLL
        for (int r = 0; r < kRows; ++r) {
            if ((AllRows || r == kX || r == kS0) && (c.used[r] >> column & 1u) != 0)
                add_term<Elem>(c, io, position(r, column), term, row[r]);
        }
    };
    if (c.column_used(kState)) add_column(kState, x);
    if (c.column_used(kAnchor)) add_column(kAnchor, io.load_anchor());
    if (wants_m) add_column(kOutput, m.tile());
    if (c.column_used(kNoise)) add_column(kNoise, io.load_noise());
    if (c.column_used(kHistory)) add_column(kHistory, newest);
    FD_NO_UNROLL
    for (int age = 1; c.columns >> (kHistory + age) != 0; ++age) {
        if (c.column_used(kHistory + age)) add_column(kHistory + age, io.load_history(age));
    }
    if (c.column_used(kCorrected)) {
        add_column(kCorrected, AllRows && a.anchor_mode == kAnchorRow ? row[kA].tile() : io.missing());
    }
    if (c.active(kJump)) add_term<Elem>(c, io, kJump, jump.tile(), row[kX]);

    if (a.model_in != nullptr) {
        typename Io::Sum scaled = io.sum();
        scaled.add(c.value[kCin], row[kX].tile());
        io.store_model_in(scaled);
    }
    io.store_x(row[kX]);
    // In place, the anchor and S1 are about to overwrite what the later rows may still read.
    if constexpr (AllRows) {
        if (a.n_store == 2 || (a.n_store == 1 && a.anchor_mode == kAnchorRow)) row[kS0].settle();
        if (a.n_store == 2 && a.anchor_mode == kAnchorRow) row[kS1].settle();
        if (a.anchor_mode == kAnchorRow) io.store_anchor(row[kA]);
        if (a.n_store == 2 && (a.ring == nullptr || c.stores(1))) io.store_history(1, row[kS1]);
    }
    if (a.n_store >= 1 && (a.ring == nullptr || c.stores(0))) io.store_history(0, row[kS0]);
}

}  // namespace fd::linear_step
