// Arguments of the hitting operators, for both backends.
#pragma once

#include "common/check.h"
#include "hitting/hitting.h"

namespace fd::hitting {

constexpr int64_t kMaxLength = 0x7fffffff;  // positions are int32, and so are the blocks of a grid

inline void check_matrix(const Tensor& t, ScalarType type, const char* name) {
    STD_TORCH_CHECK(t.dim() == 2 && t.scalar_type() == type, name, " must be [B, L] of the right dtype");
    STD_TORCH_CHECK(t.size(0) <= kMaxLength && t.size(1) <= kMaxLength, name, " must be below 2^31 each way");
}

// Seeds and ids of a batch of `like`'s first axis.
struct SequencesCall {
    Tensor rng;
    OptionalTensor ids;
    int64_t batch;

    SequencesCall(const Tensor& like, const Tensor& state, const OptionalTensor& sequence_ids)
        : rng(torch::stable::contiguous(state)), batch(like.size(0)) {
        STD_TORCH_CHECK(rng.scalar_type() == ScalarType::Long, "rng must be int64");
        STD_TORCH_CHECK(
            per_sequence() ? rng.size(0) == batch && rng.size(1) == 3 : rng.dim() == 1 && rng.size(0) == 2,
            "rng must be [2] or [B, 3]");
        check_same_device(rng, like, "rng");
        if (!sequence_ids) return;
        STD_TORCH_CHECK(sequence_ids->scalar_type() == ScalarType::Long && sequence_ids->dim() == 1 &&
                            sequence_ids->size(0) == batch,
                        "sequence_ids must be int64 [B]");
        check_same_device(*sequence_ids, like, "sequence_ids");
        ids = torch::stable::contiguous(*sequence_ids);
    }

    bool per_sequence() const { return rng.dim() == 2; }
    Sequences view() const {
        return {rng.const_data_ptr<int64_t>(), ids ? ids->const_data_ptr<int64_t>() : nullptr,
                per_sequence()};
    }
};

struct MaskCall {
    Tensor mask;
    SequencesCall sequences;
    int64_t batch, length;

    MaskCall(const Tensor& m, const Tensor& rng, const OptionalTensor& sequence_ids)
        : mask((check_matrix(m, ScalarType::Bool, "mask"), torch::stable::contiguous(m))),
          sequences(m, rng, sequence_ids),
          batch(m.size(0)),
          length(m.size(1)) {}

    Tensor result(ScalarType dtype) const { return torch::stable::new_empty(mask, {batch, length}, dtype); }
    const bool* data() const { return mask.const_data_ptr<bool>(); }
};

// The grid's mask probabilities, for reveal_steps.
inline Tensor checked_grid(const Tensor& mask_prob, const Tensor& mask) {
    STD_TORCH_CHECK(mask_prob.dim() == 1 && mask_prob.scalar_type() == ScalarType::Double &&
                        mask_prob.size(0) >= 2 && mask_prob.size(0) <= kMaxLength,
                    "mask_prob must be float64 [N + 1], N >= 1");
    check_same_device(mask_prob, mask, "mask_prob");
    return torch::stable::contiguous(mask_prob);
}

// A float32 or float64 matrix in any layout; `columns` may be 1, for all of them.
inline Reals reals_of(const Tensor& t, int64_t rows, int64_t columns, bool one_column, const char* name) {
    STD_TORCH_CHECK(t.scalar_type() == ScalarType::Double || t.scalar_type() == ScalarType::Float, name,
                    " must be float32 or float64");
    const bool spread = one_column && t.dim() == 2 && t.size(1) == 1;
    STD_TORCH_CHECK(t.dim() == 2 && t.size(0) == rows && (t.size(1) == columns || spread), name,
                    " must be [B, L]");
    return {
        t.const_data_ptr(), t.scalar_type() == ScalarType::Double, {t.stride(0), spread ? 0 : t.stride(1)}};
}

struct RemaskCall {
    SequencesCall sequences;
    OptionalTensor eligible;
    Tensor remasked;
    int64_t batch, length;
    int64_t* tokens;
    int64_t token_stride[2];
    Reals prob;

    RemaskCall(Tensor& t, const Tensor& p, const OptionalTensor& allowed, const Tensor& rng,
               const OptionalTensor& sequence_ids)
        : sequences((check_matrix(t, ScalarType::Long, "tokens"), t), rng, sequence_ids),
          remasked(torch::stable::new_empty(t, {t.size(0), t.size(1)}, ScalarType::Bool)),
          batch(t.size(0)),
          length(t.size(1)),
          tokens(t.mutable_data_ptr<int64_t>()),
          token_stride{t.stride(0), t.stride(1)},
          prob(reals_of(p, batch, length, true, "prob")) {
        STD_TORCH_CHECK((batch <= 1 || token_stride[0] != 0) && (length <= 1 || token_stride[1] != 0),
                        "tokens must not be expanded: they are written");
        check_same_device(p, t, "prob");
        if (!allowed) return;
        check_matrix(*allowed, ScalarType::Bool, "eligible");
        STD_TORCH_CHECK(same_sizes(*allowed, t), "eligible must be [B, L] like tokens");
        check_same_device(*allowed, t, "eligible");
        eligible = torch::stable::contiguous(*allowed);
    }

    const bool* eligible_data() const { return eligible ? eligible->const_data_ptr<bool>() : nullptr; }
};

struct SelectCall {
    Tensor candidate, limit, chosen;
    Selection selection;
    int64_t batch;

    SelectCall(const Tensor& values, const Tensor& wanted, const Tensor& bound, const OptionalTensor& entropy,
               int64_t rule, bool residual)
        : candidate((check_matrix(wanted, ScalarType::Bool, "candidate"), torch::stable::contiguous(wanted))),
          limit(torch::stable::contiguous(bound)),
          chosen(torch::stable::new_empty(wanted, {wanted.size(0), wanted.size(1)}, ScalarType::Bool)),
          batch(wanted.size(0)) {
        STD_TORCH_CHECK(rule >= 0 && rule <= 3, "rule must be 0 count, 1 threshold, 2 factor or 3 entropy");
        selection.rule = static_cast<Rule>(rule);
        selection.length = wanted.size(1);
        selection.residual = residual;
        selection.values = reals_of(values, batch, selection.length, false, "score");
        selection.candidate = candidate.const_data_ptr<bool>();
        const ScalarType type = selection.rule == Rule::count ? ScalarType::Long : ScalarType::Double;
        STD_TORCH_CHECK(
            limit.scalar_type() == type && limit.dim() == 1 && (limit.size(0) == 1 || limit.size(0) == batch),
            "limit must be [1] or [B], int64 for a count, else float64");
        selection.limit = limit.const_data_ptr();
        selection.limit_per_sequence = limit.size(0) != 1;
        check_same_device(values, wanted, "score");
        check_same_device(limit, wanted, "limit");
        STD_TORCH_CHECK(entropy.has_value() == (selection.rule == Rule::entropy_bound),
                        "entropy belongs to its rule");
        selection.entropy = selection.values;
        if (!entropy) return;
        selection.entropy = reals_of(*entropy, batch, selection.length, false, "entropy");
        check_same_device(*entropy, wanted, "entropy");
    }
};

}  // namespace fd::hitting
