// Draws of rows on the CPU, for the operators that need them.
#pragma once

#include <algorithm>

#include "categorical/categorical_args.h"

namespace fd::categorical {

constexpr int kScores = 5;                    // logprob, entropy, margin, logsumexp, residual
constexpr int64_t kGrainLogits = 16 * kTile;  // logits that a thread takes at least

// What is drawn: the same for all rows of a call.
struct DrawPlan {
    Stream stream;
    bool full;      // every noise is computed
    int64_t vocab;  // columns
    bool split;     // threads share a row, not rows

    explicit DrawPlan(const CategoricalArgs& a)
        : stream(a.stream),
          full(a.full),
          vocab(a.vocab),
          split(a.rows < torch::stable::get_num_threads() && a.vocab > kGrainLogits) {}
};

// argmax_v z_v. Where `scores` are asked for they are those of softmax(l / score_temperature), l without its
// threshold: logprob and residual of the chosen token, -inf and inf without one. No mass at all has entropy
// and margin 0, logsumexp -inf.
template <class T>
Choice draw_one(const Row<T>& row, const DrawPlan& plan, double score_temperature, double* scores);

// The k largest z, descending; Choice{} where fewer are finite.
template <class T>
void draw_many(const Row<T>& row, const DrawPlan& plan, int k, Choice* out);

// Calls f(first, last) on runs of rows, in threads unless these share each row.
template <class F>
void for_rows(int64_t rows, const DrawPlan& plan, const F& f) {
    if (plan.split) return f(0, rows);
    torch::stable::parallel_for(0, rows, std::max<int64_t>(1, kGrainLogits / plan.vocab), f);
}

// Calls f(T{}) with the type of the logits.
template <class F>
void with_type(DType type, const F& f) {
    switch (type) {
        case DType::f16:
            return f(half{});
        case DType::bf16:
            return f(bfloat16{});
        case DType::f32:
            return f(float{});
        case DType::f64:
            return f(double{});
    }
}

// On the CPU values are looked at before anything runs; forbidden tokens are sorted into `memory`.
void check_values(CategoricalArgs& args, int64_t rng_rows, std::vector<int64_t>& memory);

}  // namespace fd::categorical
