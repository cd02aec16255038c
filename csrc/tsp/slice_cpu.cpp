// tsp_search_slice on the CPU. Trajectories are independent, so how they fall on threads changes nothing.
//
// It runs the kernels' algorithm lane by lane, for tests and for trying out what will run on a GPU; the
// search made for processors is IlsSearch.
#include "tsp/slice_args.h"
#include "tsp/slice_serial.h"

namespace fd::tsp::slice {
namespace {

void tsp_search_slice(Tensor tours, Tensor best, Tensor state, const Tensor& points, const Tensor& candidates,
                      const Tensor& kicks, const Tensor& temperature, const Tensor& rng, int64_t segment) {
    const SliceCall call(tours, best, state, points, candidates, kicks, temperature, rng, segment);
    const Args& a = call.args;
    torch::stable::parallel_for(0, a.batch * a.trajectories, 1, [&](int64_t begin, int64_t end) {
        for (int64_t walk = begin; walk < end; ++walk) {
            const int64_t instance = walk / a.trajectories, trajectory = walk % a.trajectories;
            call.narrow ? search_serial<uint16_t>(a, instance, trajectory)
                        : search_serial<int32_t>(a, instance, trajectory);
        }
    });
}

}  // namespace
}  // namespace fd::tsp::slice

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    m.impl("tsp_search_slice", TORCH_BOX(&fd::tsp::slice::tsp_search_slice));
}
