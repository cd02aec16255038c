// Registers the threshold operators for CUDA.
#include "categorical/threshold_args.h"
#include "categorical/threshold_launch.h"
#include "common/device.h"

namespace fd::categorical {
namespace {

std::tuple<Tensor, Tensor> sampling_threshold(const Tensor& logits, const Tensor& temperature,
                                              const OptionalTensor& rows, const OptionalTensor& uncond_logits,
                                              const OptionalTensor& cfg_scale, const OptionalTensor& bias,
                                              const OptionalTensor& suppressed,
                                              const OptionalTensor& forbidden, const OptionalTensor& top_k,
                                              const OptionalTensor& top_p, const OptionalTensor& min_p,
                                              bool kept) {
    const DeviceGuard guard(logits);
    const ThresholdCall call(
        {logits, temperature, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden}, top_k, top_p,
        min_p, kept);
    Tensor out = call.thresholds(logits), shares = call.shares(logits);
    sampling_threshold_cuda(current_stream(logits), call.args, out.data_ptr(),
                            static_cast<double*>(shares.data_ptr()));
    return {out, shares};
}

Tensor threshold_histogram(const Tensor& logits, const Tensor& temperature, const OptionalTensor& rows,
                           const OptionalTensor& uncond_logits, const OptionalTensor& cfg_scale,
                           const OptionalTensor& bias, const OptionalTensor& suppressed,
                           const OptionalTensor& forbidden, const Tensor& row_max, const Tensor& prefix,
                           int64_t pass, int64_t vocab_size) {
    const DeviceGuard guard(logits);
    const HistogramCall call(
        {logits, temperature, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden}, row_max, prefix,
        pass, vocab_size);
    Tensor out = call.result(logits);
    threshold_histogram_cuda(current_stream(logits), call.args, call.row_max, call.prefixes, call.pass,
                             static_cast<int64_t*>(out.data_ptr()));
    return out;
}

}  // namespace
}  // namespace fd::categorical

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    m.impl("sampling_threshold", TORCH_BOX(&fd::categorical::sampling_threshold));
    m.impl("threshold_histogram", TORCH_BOX(&fd::categorical::threshold_histogram));
}
