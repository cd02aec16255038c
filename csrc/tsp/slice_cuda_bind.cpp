// Registers tsp_search_slice for CUDA.
#include "common/device.h"
#include "tsp/slice_args.h"
#include "tsp/slice_launch.h"

namespace fd::tsp::slice {
namespace {

void tsp_search_slice(Tensor tours, Tensor best, Tensor state, const Tensor& points, const Tensor& candidates,
                      const Tensor& kicks, const Tensor& temperature, const Tensor& rng, int64_t segment) {
    const DeviceGuard guard(tours);
    const SliceCall call(tours, best, state, points, candidates, kicks, temperature, rng, segment);
    const Args& a = call.args;
    if (call.narrow) {
        STD_TORCH_CHECK(fits_shared(a.n), "tours of ", a.n,
                        " cities do not fit this device's shared memory: give candidates as int32");
        search_shared_cuda(current_stream(tours), a);
        return;
    }
    const int64_t words = scratch_words(a.batch, a.trajectories, a.n);
    Tensor scratch = torch::stable::new_empty(tours, {words}, ScalarType::Int);
    search_global_cuda(current_stream(tours), a, scratch.mutable_data_ptr<int32_t>());
}

}  // namespace
}  // namespace fd::tsp::slice

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    m.impl("tsp_search_slice", TORCH_BOX(&fd::tsp::slice::tsp_search_slice));
}
