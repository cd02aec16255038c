// Registers abs_quantile for CUDA.
#include "common/device.h"
#include "linear_step/abs_quantile_args.h"
#include "linear_step/abs_quantile_launch.h"

namespace fd::linear_step {
namespace {

Tensor abs_quantile(const Tensor& x, const std::vector<Tensor>& outs, const Tensor& coef, const Tensor& step,
                    const OptionalTensor& weights, double q, double floor, double cap) {
    const DeviceGuard guard(x);
    const QuantileCall call(x, outs, coef, step, weights, q, floor, cap);
    Tensor out = call.result(x);
    const int64_t words = quantile_scratch(call.args, call.wide);
    const Tensor scratch = torch::stable::new_zeros(x, {words}, ScalarType::Long);
    abs_quantile_cuda(current_stream(x), call.args, call.rank, call.wide, floor, cap, out.data_ptr(),
                      words == 0 ? nullptr : static_cast<unsigned long long*>(scratch.data_ptr()));
    return out;
}

}  // namespace
}  // namespace fd::linear_step

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    m.impl("abs_quantile", TORCH_BOX(&fd::linear_step::abs_quantile));
}
