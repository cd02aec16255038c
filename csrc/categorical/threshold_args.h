// Tensors to pointers for the threshold operators, for both backends.
#pragma once

#include "categorical/categorical_args.h"
#include "categorical/threshold.h"

namespace fd::categorical {

// The tensors that say how logits are processed, as the schemas have them.
struct ThresholdTensors {
    const Tensor& logits;
    const Tensor& temperature;
    const OptionalTensor& rows;
    const OptionalTensor& uncond_logits;
    const OptionalTensor& cfg_scale;
    const OptionalTensor& bias;
    const OptionalTensor& suppressed;
    const OptionalTensor& forbidden;
};

inline RowNumber row_number(const OptionalTensor& t, const Tensor& logits, int64_t rows, const char* name,
                            TensorOwner& owner) {
    RowNumber n{};
    if (!t.has_value()) return n;
    n.wide = t->scalar_type() == ScalarType::Double;
    n.data = n.wide ? static_cast<const void*>(
                          owner.numbers<double>(*t, logits, ScalarType::Double, rows, n.stride, name))
                    : owner.numbers<float>(*t, logits, ScalarType::Float, rows, n.stride, name);
    return n;
}

struct ThresholdCall {
    ThresholdArgs args{};
    TensorOwner owner;

    ThresholdCall(const ThresholdTensors& t, int64_t vocab_size) {
        const Tensor& logits = t.logits;
        STD_TORCH_CHECK(logits.dim() == 2, "logits must be [N, V]");
        CategoricalArgs& a = args.logits;
        a.logit_rows = logits.size(0);
        if (t.rows.has_value()) {
            STD_TORCH_CHECK(t.rows->dim() == 1, "rows must be 1-d");
            a.row_index = owner.data<int64_t>(*t.rows, logits, ScalarType::Long, "rows");
        }
        const OptionalTensor none;
        const CategoricalTensors common{logits,          t.temperature, t.temperature,
                                        t.uncond_logits, t.cfg_scale,   t.bias,
                                        t.suppressed,    t.forbidden,   none};
        bind_common(common, t.rows.has_value() ? t.rows->size(0) : a.logit_rows, a, owner);
        a.row_stride = logits.stride(0);
        if (t.uncond_logits.has_value()) a.uncond_row_stride = t.uncond_logits->stride(0);
        bind_shard(0, vocab_size, a);
        args.mass_bits = mass_bits(vocab_size);
    }

    ThresholdCall(const ThresholdTensors& t, const OptionalTensor& top_k, const OptionalTensor& top_p,
                  const OptionalTensor& min_p, bool kept)
        : ThresholdCall(t, t.logits.size(t.logits.dim() - 1)) {
        const int64_t rows = args.logits.rows;
        if (top_k.has_value())
            args.top_k =
                owner.numbers<int64_t>(*top_k, t.logits, ScalarType::Long, rows, args.top_k_stride, "top_k");
        args.top_p = row_number(top_p, t.logits, rows, "top_p", owner);
        args.min_p = row_number(min_p, t.logits, rows, "min_p", owner);
        args.kept = kept;
    }

    // [rows], in the type that logits are computed in.
    Tensor thresholds(const Tensor& logits) const {
        const bool wide = args.logits.dtype == DType::f64;
        return torch::stable::new_empty(logits, {args.logits.rows},
                                        wide ? ScalarType::Double : ScalarType::Float);
    }
    Tensor shares(const Tensor& logits) const {
        return torch::stable::new_empty(logits, {args.kept ? args.logits.rows : 0}, ScalarType::Double);
    }
};

// One radix pass over a shard of the vocabulary.
struct HistogramCall : ThresholdCall {
    const void* row_max;      // [rows], float or double as the logits' computation
    const int64_t* prefixes;  // [rows, 2] of counts and of masses, -1: not wanted
    int pass;

    HistogramCall(const ThresholdTensors& t, const Tensor& row_max_of_all, const Tensor& prefix,
                  int64_t pass_number, int64_t vocab_size)
        : ThresholdCall(t, vocab_size), pass(static_cast<int>(pass_number)) {
        const int64_t rows = args.logits.rows;
        const bool wide = args.logits.dtype == DType::f64;
        STD_TORCH_CHECK(pass_number >= 0 &&
                            pass_number < (wide ? LogitPasses<double>::kCount : LogitPasses<float>::kCount),
                        "there is no such pass");
        STD_TORCH_CHECK(row_max_of_all.dim() == 1 && row_max_of_all.size(0) == rows, "row_max must be [",
                        rows, "]");
        STD_TORCH_CHECK(prefix.dim() == 2 && prefix.size(0) == rows && prefix.size(1) == 2,
                        "prefix must be [", rows, ", 2]");
        if (wide) {
            row_max = owner.data<double>(row_max_of_all, t.logits, ScalarType::Double, "row_max");
        } else {
            row_max = owner.data<float>(row_max_of_all, t.logits, ScalarType::Float, "row_max");
        }
        prefixes = owner.data<int64_t>(prefix, t.logits, ScalarType::Long, "prefix");
    }

    Tensor result(const Tensor& logits) const {
        return torch::stable::new_zeros(logits, {args.logits.rows, 2, kRadixBins}, ScalarType::Long);
    }
};

}  // namespace fd::categorical
