// gumbel_argmax, gumbel_topk and first_hitting_step_ on the CPU: arguments in, draws of rows, tensors out.
#include <cmath>

#include "categorical/draw_cpu.h"

namespace fd::categorical {

void check_values(CategoricalArgs& a, int64_t rng_rows, std::vector<int64_t>& memory) {
    for (int64_t i = 0; i < (a.rng_per_row ? rng_rows : 1); ++i) {
        const int64_t offset = a.rng[(a.rng_per_row ? 3 * i : 0) + 1];
        FD_CHECK_VALUE(offset >> 32 == 0, "`rng`: the offset must be in [0, 2^32), got ", offset);
    }
    const int64_t rows = a.rows;
    for (int64_t r = 0; r < (a.temperature_stride == 0 ? std::min<int64_t>(rows, 1) : rows); ++r) {
        const float t = a.temperature[r];
        FD_CHECK_VALUE(t >= 0 && std::isfinite(t), "`temperature` must be finite and at least 0, got ", t);
    }
    for (int64_t r = 0; a.row_index != nullptr && r < rows; ++r) {
        FD_CHECK_VALUE(a.row_index[r] >= 0 && a.row_index[r] < a.logit_rows, "`rows` must be in [0, ",
                       a.logit_rows, "), got ", a.row_index[r]);
    }
    if (a.score_temperature != nullptr) {
        for (int64_t r = 0; r < (a.score_stride == 0 ? std::min<int64_t>(rows, 1) : rows); ++r) {
            const float t = a.score_temperature[r];
            FD_CHECK_VALUE(t > 0 && std::isfinite(t), "`score_temperature` must be finite and above 0, got ",
                           t);
        }
    }
    if (a.n_forbidden > 0) {
        memory.assign(a.forbidden, a.forbidden + a.n_forbidden);
        std::sort(memory.begin(), memory.end());
        a.forbidden = memory.data();
        a.forbidden_sorted = true;
    }
}

namespace {

std::tuple<Tensor, Tensor, Tensor> gumbel_argmax(
    const Tensor& logits, const Tensor& temperature, const Tensor& rng, const OptionalTensor& row_ids,
    const OptionalTensor& rows, const OptionalTensor& uncond_logits, const OptionalTensor& cfg_scale,
    const OptionalTensor& bias, const OptionalTensor& suppressed, const OptionalTensor& forbidden,
    const OptionalTensor& threshold, const OptionalTensor& score_temperature, int64_t vocab_start,
    int64_t vocab_size, int64_t stream, int64_t method) {
    CategoricalCall call(
        {logits, temperature, rng, uncond_logits, cfg_scale, bias, suppressed, forbidden, threshold}, row_ids,
        rows, score_temperature, vocab_start, vocab_size, stream, method);
    std::vector<int64_t> sorted;
    CategoricalArgs& a = call.args;
    check_values(a, a.rows, sorted);
    const bool scored = a.score_temperature != nullptr;
    Tensor tokens = torch::stable::new_empty(logits, {a.rows}, ScalarType::Long);
    Tensor z = torch::stable::new_empty(logits, {a.rows}, ScalarType::Double);
    Tensor scores = scored ? torch::stable::new_empty(logits, {a.rows, kScores}, ScalarType::Double)
                           : torch::stable::new_empty(logits, {0}, ScalarType::Double);
    int64_t* token_out = tokens.mutable_data_ptr<int64_t>();
    double* z_out = z.mutable_data_ptr<double>();
    double* score_out = scores.mutable_data_ptr<double>();
    const DrawPlan plan(a);
    with_type(a.dtype, [&]<class T>(T) {
        for_rows(a.rows, plan, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
                const double t = scored ? static_cast<double>(a.score_temperature[r * a.score_stride]) : 0.0;
                const Choice best =
                    draw_one(draw_row<T>(a, r), plan, t, scored ? score_out + kScores * r : nullptr);
                token_out[r] = best.token;
                z_out[r] = best.z;
            }
        });
    });
    return {tokens, z, scores};
}

std::tuple<Tensor, Tensor> gumbel_topk(const Tensor& logits, const Tensor& temperature, const Tensor& rng,
                                       const OptionalTensor& row_ids, const OptionalTensor& rows,
                                       const OptionalTensor& uncond_logits, const OptionalTensor& cfg_scale,
                                       const OptionalTensor& bias, const OptionalTensor& suppressed,
                                       const OptionalTensor& forbidden, const OptionalTensor& threshold,
                                       int64_t vocab_start, int64_t vocab_size, int64_t stream, int64_t k) {
    CategoricalCall call(
        {logits, temperature, rng, uncond_logits, cfg_scale, bias, suppressed, forbidden, threshold}, row_ids,
        rows, std::nullopt, vocab_start, vocab_size, stream, 0);
    std::vector<int64_t> sorted;
    CategoricalArgs& a = call.args;
    check_values(a, a.rows, sorted);
    STD_TORCH_CHECK(k >= 1 && k <= kMaxTopK && k <= a.vocab, "k must be in [1, min(", kMaxTopK, ", V)]");
    Tensor tokens = torch::stable::new_empty(logits, {a.rows, k}, ScalarType::Long);
    Tensor z = torch::stable::new_empty(logits, {a.rows, k}, ScalarType::Double);
    int64_t* token_out = tokens.mutable_data_ptr<int64_t>();
    double* z_out = z.mutable_data_ptr<double>();
    const DrawPlan plan(a);
    with_type(a.dtype, [&]<class T>(T) {
        for_rows(a.rows, plan, [&](int64_t first, int64_t last) {
            std::vector<Choice> best(k);
            for (int64_t r = first; r < last; ++r) {
                draw_many(draw_row<T>(a, r), plan, static_cast<int>(k), best.data());
                for (int64_t i = 0; i < k; ++i) {
                    token_out[r * k + i] = best[i].token;
                    z_out[r * k + i] = best[i].z;
                }
            }
        });
    });
    return {tokens, z};
}

Tensor first_hitting_step_(const Tensor& tokens, const Tensor& logits, const Tensor& positions,
                           const Tensor& temperature, const Tensor& rng, const OptionalTensor& sequence_ids,
                           const OptionalTensor& uncond_logits, const OptionalTensor& cfg_scale,
                           const OptionalTensor& bias, const OptionalTensor& suppressed,
                           const OptionalTensor& forbidden, const OptionalTensor& threshold, int64_t stream,
                           int64_t method) {
    HittingCall call(
        {logits, temperature, rng, uncond_logits, cfg_scale, bias, suppressed, forbidden, threshold}, tokens,
        positions, sequence_ids, stream, method);
    std::vector<int64_t> sorted;
    HittingArgs& a = call.args;
    check_values(a, a.batch, sorted);
    for (int64_t r = 0; r < a.rows; ++r) {
        FD_CHECK_VALUE(a.positions[r] >= -1 && a.positions[r] < a.length, "`positions` must be in [-1, ",
                       a.length, "), got ", a.positions[r]);
    }
    Tensor drawn = torch::stable::new_empty(logits, {a.batch, a.per_sequence}, ScalarType::Long);
    int64_t* out = drawn.mutable_data_ptr<int64_t>();
    const DrawPlan plan(a);
    with_type(a.dtype, [&]<class T>(T) {
        for_rows(a.rows, plan, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
                const int64_t position = a.positions[r];
                if (position < 0) {
                    out[r] = -1;
                    continue;
                }
                const Row<T> row = hitting_row<T>(a, r / a.per_sequence, r % a.per_sequence, position);
                out[r] = draw_one(row, plan, 0.0, nullptr).token;
            }
        });
    });
    for (int64_t r = 0; r < a.rows; ++r) {  // in order: of a position named twice the last draw stays
        if (out[r] >= 0) a.tokens[r / a.per_sequence * a.token_stride + a.positions[r]] = out[r];
    }
    return drawn;
}

}  // namespace
}  // namespace fd::categorical

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    m.impl("gumbel_argmax", TORCH_BOX(&fd::categorical::gumbel_argmax));
    m.impl("gumbel_topk", TORCH_BOX(&fd::categorical::gumbel_topk));
    m.impl("first_hitting_step_", TORCH_BOX(&fd::categorical::first_hitting_step_));
}
