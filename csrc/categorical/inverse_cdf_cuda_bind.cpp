// Registers inverse_cdf for CUDA.
#include "categorical/inverse_cdf_args.h"
#include "categorical/inverse_cdf_launch.h"
#include "common/device.h"

namespace fd::categorical {
namespace {

Tensor inverse_cdf(const Tensor& probs, const Tensor& rng, const OptionalTensor& row_ids) {
    const DeviceGuard guard(probs);
    const InverseCdfCall call(probs, rng, row_ids);
    Tensor out = call.result(probs);
    Tensor sums = torch::stable::new_empty(probs, {call.args.rows, call.args.tiles()}, ScalarType::Double);
    inverse_cdf_cuda(current_stream(probs), call.args, static_cast<double*>(sums.data_ptr()),
                     static_cast<int64_t*>(out.data_ptr()));
    return out;
}

}  // namespace
}  // namespace fd::categorical

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    m.impl("inverse_cdf", TORCH_BOX(&fd::categorical::inverse_cdf));
}
