// One solver step said plainly, one element at a time, with nothing of the kernels' code but the names of the
// arguments: docs/architecture.md in C++. Multiply-adds and their order are part of the contract, so results
// are equal to the last bit.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "linear_step/linear_step.h"

namespace fd::linear_step {

inline double load(const void* base, DType type, int64_t i) {
    switch (type) {
        case DType::f16:
            return float(static_cast<const half*>(base)[i]);
        case DType::bf16:
            return float(static_cast<const bfloat16*>(base)[i]);
        case DType::f32:
            return static_cast<const float*>(base)[i];
        default:
            return static_cast<const double*>(base)[i];
    }
}

inline void store(void* base, DType type, int64_t i, double v) {
    switch (type) {
        case DType::f16:
            static_cast<half*>(base)[i] = half(static_cast<float>(v));
            break;
        case DType::bf16:
            static_cast<bfloat16*>(base)[i] = bfloat16(static_cast<float>(v));
            break;
        case DType::f32:
            static_cast<float*>(base)[i] = static_cast<float>(v);
            break;
        default:
            static_cast<double*>(base)[i] = v;
    }
}

// A sum of weighted terms; a zero weight skips its term, whatever that holds.
template <class Acc>
struct Sum {
    Acc total = 0;
    bool started = false;
    void add(Acc weight, Acc term) {
        total = started ? fma(weight, term, total) : weight * term;
        started = true;
    }
};

// Element p of sample b, as plainly as the contract says it.
template <class Acc>
void expected_element(const StepArgs& a, int64_t b, int64_t p) {
    const int64_t step = *a.step, at = b * a.sample + p, n = a.batch * a.sample;
    const bool valid = step >= 0 && step < a.steps;
    const int64_t logical = a.channels <= 1 ? p : p % a.channels * (a.sample / a.channels) + p / a.channels;
    const int64_t head = a.n_hist > 0 && valid ? step * a.n_store % a.n_hist : 0;
    const auto get = [](const void* base, DType type, int64_t i) {
        return base == nullptr ? Acc(NAN) : static_cast<Acc>(load(base, type, i));
    };

    // The coefficients: numbers, and where an element coefficient stands in.
    std::array<Acc, kCoef + kRows> number{};
    std::array<bool, kCoef + kRows> is_elem{}, active{};
    for (int k = 0; k < kCoef; ++k) {
        number[k] =
            valid ? static_cast<Acc>(a.coef[(step * a.coef_batch + (a.coef_batch == 1 ? 0 : b)) * kCoef + k])
                  : Acc(NAN);
    }
    for (int k = 0; k < a.n_elem && valid; ++k) {
        const int64_t row = (a.elem_steps == 1 ? 0 : step) * a.n_elem + k;
        number[a.elem_map[k]] =
            get(a.elem, a.elem_type, row * a.elem_period + logical / a.elem_inner % a.elem_period);
        is_elem[a.elem_map[k]] = true;
    }
    for (int k = 0; k < kCoef + kRows; ++k) active[k] = is_elem[k] || (k < kCoef && number[k] != Acc(0));
    const auto add = [&](Sum<Acc>& sum, int k, Acc term) {
        if (is_elem[k]) {  // an element's own zero skips the term too
            if (number[k] != Acc(0)) sum.total = fma(number[k], term, sum.total);
            sum.started = true;
        } else if (number[k] != Acc(0)) {
            sum.add(number[k], term);
        }
    };
    const bool wanted[kRows] = {true, true, a.n_store >= 1, a.n_store >= 2};
    const auto uses = [&](int r, int column) {
        return wanted[r] && !(r == kA && column == kCorrected) && active[position(r, column)];
    };
    const auto column_used = [&](int column) {
        return uses(kX, column) || uses(kA, column) || uses(kS0, column) || uses(kS1, column);
    };

    // The columns.
    const auto history = [&](int age) {
        const int64_t slot = ((head - 1 - age) % a.n_hist + a.n_hist) % a.n_hist;
        return get(a.history, a.history_type, slot * n + at);
    };
    const auto noise = [&] {
        if (a.rng == nullptr) return get(a.noise, a.noise_type, at);
        const int64_t* r = a.rng_per_sample ? a.rng + 3 * b : a.rng;
        const uint64_t sample = static_cast<uint64_t>(a.rng_per_sample ? r[2] : b);
        float z[4];
        normals_of_block(PhiloxStream(StreamTag::normal, static_cast<uint64_t>(r[0]),
                                      static_cast<uint32_t>(r[1] + step), sample),
                         static_cast<uint64_t>(logical) / 4, z);
        return static_cast<Acc>(z[logical % 4]);
    };
    const Acc x = get(a.x, a.x_type, at);
    Sum<Acc> o, u, m, jump;
    for (int k = 0; k < a.n_outs; ++k) {
        const double* w = a.weights == nullptr
                              ? nullptr
                              : a.weights + (a.weight_steps == 1 ? 0 : step) * 2 * a.weight_batch * a.n_outs;
        const int64_t sample = a.weight_batch == 1 ? 0 : b;
        const bool given = w != nullptr && valid;
        const Acc g = given ? static_cast<Acc>(w[sample * a.n_outs + k]) : Acc(k == 0);
        const Acc e = given ? static_cast<Acc>(w[(a.weight_batch + sample) * a.n_outs + k]) : Acc(0);
        if (g != Acc(0)) o.add(g, get(a.outs[k], a.out_type, at));
        if (e != Acc(0)) jump.add(e, get(a.outs[k], a.out_type, at));
    }
    if (column_used(kOutput)) {
        if (active[kCx]) add(u, kCx, x);
        if (active[kCo]) add(u, kCo, o.total);
        Acc clipped = u.total;
        const Acc scale = a.clip_mode == kClipDynamic ? get(a.clip_scale, a.clip_type, b) : Acc(1);
        const Acc bound = a.clip_mode == kClipDynamic ? scale : number[kClipBound];
        if (a.clip_mode != kClipNone) clipped = clipped < -bound ? -bound : clipped > bound ? bound : clipped;
        clipped = clipped / scale;
        if (active[kDx]) add(m, kDx, x);
        if (active[kDu]) add(m, kDu, clipped);
        if (active[kDh]) add(m, kDh, a.n_hist > 0 ? history(0) : Acc(NAN));
    }

    // The rows, A first.
    Sum<Acc> row[kRows];
    for (const int r : {kA, kX, kS0, kS1}) {
        if (is_elem[kCoef + r]) row[r].add(Acc(1), number[kCoef + r]);
        const auto term = [&](int column, auto&& value) {
            if (uses(r, column)) add(row[r], position(r, column), value());
        };
        term(kState, [&] { return x; });
        term(kAnchor, [&] { return get(a.anchor, a.x_type, at); });
        term(kOutput, [&] { return m.total; });
        term(kNoise, noise);
        for (int age = 0; age < kMaxHistory; ++age) {
            term(kHistory + age, [&] { return age < a.n_hist ? history(age) : Acc(NAN); });
        }
        term(kCorrected, [&] { return row[kA].total; });
        if (r == kX && active[kJump]) add(row[r], kJump, jump.total);
    }

    for (int copy = 0; copy < a.model_copies; ++copy) {
        store(a.model_in, a.out_type, copy * n + at, number[kCin] * row[kX].total);
    }
    store(a.x_next, a.x_type, at, row[kX].total);
    if (a.anchor_mode == kAnchorRow) store(a.anchor_next, a.x_type, at, row[kA].total);
    for (int k = 0; k < a.n_store; ++k) {
        bool written = a.ring == nullptr || is_elem[kCoef + kS0 + k];
        for (int column = 0; column < kColumns; ++column) written = written || uses(kS0 + k, column);
        if (!written) continue;
        if (a.ring == nullptr) {
            store(a.store[k], a.history_type, at, row[kS0 + k].total);
        } else {
            store(a.ring, a.history_type, (head + k) % a.n_hist * n + at, row[kS0 + k].total);
        }
    }
}

inline void expected_step(const StepArgs& a) {
    const bool wide = a.x_type == DType::f64 || (a.n_hist > 0 && a.history_type == DType::f64);
    for (int64_t b = 0; b < a.batch; ++b) {
        for (int64_t p = 0; p < a.sample; ++p)
            wide ? expected_element<double>(a, b, p) : expected_element<float>(a, b, p);
    }
}

}  // namespace fd::linear_step
