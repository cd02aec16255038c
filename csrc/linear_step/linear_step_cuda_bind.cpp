// Tensors to the CUDA launcher. Values of coefficients stay on the device: a step outside the table, a
// missing tensor with a weight, a wrong element position show as NaN there, where the CPU can raise.
#include "common/device.h"
#include "linear_step/linear_step_args.h"
#include "linear_step/linear_step_launch.h"

namespace fd::linear_step {
namespace {

std::vector<Tensor> solver_step(const Tensor& x, const std::vector<Tensor>& outs,
                                const OptionalTensor& anchor, const OptionalTensor& history,
                                const Tensor& coef, const Tensor& step, const OptionalTensor& weights,
                                const OptionalTensor& elem, const OptionalTensor& elem_map,
                                const OptionalTensor& clip_scale, const OptionalTensor& noise,
                                const OptionalTensor& rng, int64_t n_store, int64_t clip_mode,
                                int64_t anchor_mode) {
    const DeviceGuard guard(x);
    Call call = bind_inputs(x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise,
                            rng, n_store, clip_mode, anchor_mode);
    std::vector<Tensor> results = allocate_outputs(call, x, history);
    solver_step_cuda(current_stream(x), call.args);
    return results;
}

void solver_step_(const Tensor& x, const std::vector<Tensor>& outs, Tensor x_out,
                  const OptionalTensor& anchor, const OptionalTensor& history, const OptionalTensor& model_in,
                  const Tensor& coef, const Tensor& step, const OptionalTensor& weights,
                  const OptionalTensor& elem, const OptionalTensor& elem_map,
                  const OptionalTensor& clip_scale, const OptionalTensor& noise, const OptionalTensor& rng,
                  int64_t n_store, int64_t clip_mode, int64_t anchor_mode) {
    const DeviceGuard guard(x);
    Call call = bind_inputs(x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise,
                            rng, n_store, clip_mode, anchor_mode);
    bind_outputs(call, x, x_out, anchor, history, model_in);
    solver_step_cuda(current_stream(x), call.args);
}

}  // namespace
}  // namespace fd::linear_step

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    m.impl("solver_step", TORCH_BOX(&fd::linear_step::solver_step));
    m.impl("solver_step_", TORCH_BOX(&fd::linear_step::solver_step_));
}
