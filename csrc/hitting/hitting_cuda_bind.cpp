// Registers the hitting operators for CUDA.
#include <tuple>

#include "common/device.h"
#include "hitting/hitting_args.h"
#include "hitting/hitting_launch.h"

namespace fd::hitting {
namespace {

OptionalTensor scratch_of(const Tensor& like, int64_t batch, int64_t length) {
    const int64_t bytes = sort_scratch(batch, length);
    if (bytes == 0) return std::nullopt;
    return torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
}

unsigned char* data_of(OptionalTensor& scratch) {
    return scratch ? static_cast<unsigned char*>(scratch->data_ptr()) : nullptr;
}

std::tuple<Tensor, Tensor, Tensor> first_hitting_times(const Tensor& mask, const Tensor& rng,
                                                       const OptionalTensor& sequence_ids) {
    const DeviceGuard guard(mask);
    const MaskCall call(mask, rng, sequence_ids);
    Tensor order = call.result(ScalarType::Int), u = call.result(ScalarType::Double);
    Tensor count = torch::stable::new_empty(mask, {call.batch}, ScalarType::Int);
    OptionalTensor scratch = scratch_of(mask, call.batch, call.length);
    first_hitting_times_cuda(current_stream(mask), call.data(), call.sequences.view(), call.batch,
                             call.length, order.mutable_data_ptr<int32_t>(), u.mutable_data_ptr<double>(),
                             count.mutable_data_ptr<int32_t>(), data_of(scratch));
    return {order, u, count};
}

Tensor reveal_steps(const Tensor& mask, const Tensor& mask_prob, const Tensor& rng,
                    const OptionalTensor& sequence_ids) {
    const DeviceGuard guard(mask);
    const MaskCall call(mask, rng, sequence_ids);
    const Tensor grid = checked_grid(mask_prob, mask);
    Tensor steps = call.result(ScalarType::Int);
    reveal_steps_cuda(current_stream(mask), call.data(), call.sequences.view(), call.batch, call.length,
                      grid.const_data_ptr<double>(), grid.size(0), steps.mutable_data_ptr<int32_t>());
    return steps;
}

Tensor select_transfer(const Tensor& score, const Tensor& candidate, const Tensor& limit,
                       const OptionalTensor& entropy, int64_t rule, bool residual) {
    const DeviceGuard guard(candidate);
    SelectCall call(score, candidate, limit, entropy, rule, residual);
    const bool sorts = call.selection.rule != Rule::threshold;
    OptionalTensor scratch = scratch_of(candidate, sorts ? call.batch : 0, call.selection.length);
    select_transfer_cuda(current_stream(candidate), call.selection, call.batch,
                         call.chosen.mutable_data_ptr<bool>(), data_of(scratch));
    return call.chosen;
}

Tensor remask_(Tensor tokens, const Tensor& prob, const OptionalTensor& eligible, int64_t mask_id,
               const Tensor& rng, const OptionalTensor& sequence_ids) {
    const DeviceGuard guard(tokens);
    RemaskCall call(tokens, prob, eligible, rng, sequence_ids);
    remask_cuda(current_stream(tokens), call.tokens, call.token_stride, call.prob, call.eligible_data(),
                mask_id, call.sequences.view(), call.batch, call.length,
                call.remasked.mutable_data_ptr<bool>());
    return call.remasked;
}

}  // namespace
}  // namespace fd::hitting

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    m.impl("first_hitting_times", TORCH_BOX(&fd::hitting::first_hitting_times));
    m.impl("reveal_steps", TORCH_BOX(&fd::hitting::reveal_steps));
    m.impl("select_transfer", TORCH_BOX(&fd::hitting::select_transfer));
    m.impl("remask_", TORCH_BOX(&fd::hitting::remask_));
}
