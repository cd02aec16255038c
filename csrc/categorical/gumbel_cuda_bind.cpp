// Registers gumbel_argmax, gumbel_topk and first_hitting_step_ for CUDA. Numbers on the device are not looked
// at here: nothing waits for it.
#include <tuple>

#include "categorical/categorical_args.h"
#include "categorical/gumbel_launch.h"
#include "common/device.h"

namespace fd::categorical {
namespace {

// Zeroed on the current stream where parts of rows count themselves.
Tensor workspace_of(const Tensor& like, const DrawSplit& split, int64_t rows) {
    const int64_t words = (split.workspace_bytes(rows) + 7) / 8;
    return split.tickets(rows) > 0 ? torch::stable::new_zeros(like, {words}, ScalarType::Long)
                                   : torch::stable::new_empty(like, {words}, ScalarType::Long);
}

std::tuple<Tensor, Tensor, Tensor> gumbel_argmax(
    const Tensor& logits, const Tensor& temperature, const Tensor& rng, const OptionalTensor& row_ids,
    const OptionalTensor& rows, const OptionalTensor& uncond_logits, const OptionalTensor& cfg_scale,
    const OptionalTensor& bias, const OptionalTensor& suppressed, const OptionalTensor& forbidden,
    const OptionalTensor& threshold, const OptionalTensor& score_temperature, int64_t vocab_start,
    int64_t vocab_size, int64_t stream, int64_t method) {
    const DeviceGuard guard(logits);
    const CategoricalCall call(
        {logits, temperature, rng, uncond_logits, cfg_scale, bias, suppressed, forbidden, threshold}, row_ids,
        rows, score_temperature, vocab_start, vocab_size, stream, method);
    const CategoricalArgs& a = call.args;
    const bool scored = a.score_temperature != nullptr;
    Tensor tokens = torch::stable::new_empty(logits, {a.rows}, ScalarType::Long);
    Tensor z = torch::stable::new_empty(logits, {a.rows}, ScalarType::Double);
    Tensor scores = scored ? torch::stable::new_empty(logits, {a.rows, kScoreCount}, ScalarType::Double)
                           : torch::stable::new_empty(logits, {0}, ScalarType::Double);
    const DrawSplit split(a, scored);
    const Tensor workspace = workspace_of(logits, split, a.rows);
    draw_cuda(current_stream(logits), a, split, workspace.data_ptr(),
              {tokens.mutable_data_ptr<int64_t>(), z.mutable_data_ptr<double>(),
               scored ? scores.mutable_data_ptr<double>() : nullptr});
    return {tokens, z, scores};
}

std::tuple<Tensor, Tensor> gumbel_topk(const Tensor& logits, const Tensor& temperature, const Tensor& rng,
                                       const OptionalTensor& row_ids, const OptionalTensor& rows,
                                       const OptionalTensor& uncond_logits, const OptionalTensor& cfg_scale,
                                       const OptionalTensor& bias, const OptionalTensor& suppressed,
                                       const OptionalTensor& forbidden, const OptionalTensor& threshold,
                                       int64_t vocab_start, int64_t vocab_size, int64_t stream, int64_t k) {
    const DeviceGuard guard(logits);
    const CategoricalCall call(
        {logits, temperature, rng, uncond_logits, cfg_scale, bias, suppressed, forbidden, threshold}, row_ids,
        rows, std::nullopt, vocab_start, vocab_size, stream, 0);
    const CategoricalArgs& a = call.args;
    STD_TORCH_CHECK(k >= 1 && k <= kMaxTopK && k <= a.vocab, "k must be in [1, min(", kMaxTopK, ", V)]");
    Tensor tokens = torch::stable::new_empty(logits, {a.rows, k}, ScalarType::Long);
    Tensor z = torch::stable::new_empty(logits, {a.rows, k}, ScalarType::Double);
    topk_cuda(current_stream(logits), a, static_cast<int>(k), tokens.mutable_data_ptr<int64_t>(),
              z.mutable_data_ptr<double>());
    return {tokens, z};
}

Tensor first_hitting_step_(const Tensor& tokens, const Tensor& logits, const Tensor& positions,
                           const Tensor& temperature, const Tensor& rng, const OptionalTensor& sequence_ids,
                           const OptionalTensor& uncond_logits, const OptionalTensor& cfg_scale,
                           const OptionalTensor& bias, const OptionalTensor& suppressed,
                           const OptionalTensor& forbidden, const OptionalTensor& threshold, int64_t stream,
                           int64_t method) {
    const DeviceGuard guard(logits);
    const HittingCall call(
        {logits, temperature, rng, uncond_logits, cfg_scale, bias, suppressed, forbidden, threshold}, tokens,
        positions, sequence_ids, stream, method);
    const HittingArgs& a = call.args;
    Tensor drawn = torch::stable::new_empty(logits, {a.batch, a.per_sequence}, ScalarType::Long);
    const DrawSplit split(a, false);
    const Tensor workspace = workspace_of(logits, split, a.rows);
    hitting_step_cuda(current_stream(logits), a, split, workspace.data_ptr(),
                      drawn.mutable_data_ptr<int64_t>());
    return drawn;
}

}  // namespace
}  // namespace fd::categorical

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    m.impl("gumbel_argmax", TORCH_BOX(&fd::categorical::gumbel_argmax));
    m.impl("gumbel_topk", TORCH_BOX(&fd::categorical::gumbel_topk));
    m.impl("first_hitting_step_", TORCH_BOX(&fd::categorical::first_hitting_step_));
}
