// Registers knn for CUDA.
#include <tuple>

#include "common/device.h"
#include "tsp/knn_args.h"
#include "tsp/knn_launch.h"

namespace fd::tsp {
namespace {

template <class T>
void run(const KnnCall& call, City* ids, float* distances) {
    void* stream = current_stream(call.coords);
    const T* coords = static_cast<const T*>(call.coords.data_ptr());
    if (call.points <= kKnnPairs)
        return knn_pairs_cuda<T>(stream, coords, call.batch, call.points, call.k, ids, distances);
    Tensor scratch =
        torch::stable::new_empty(call.coords, {knn_scratch<T>(call.batch, call.points)}, ScalarType::Byte);
    knn_grid_cuda<T>(stream, coords, call.batch, call.points, call.k, ids, distances,
                     static_cast<unsigned char*>(scratch.data_ptr()));
}

std::tuple<Tensor, Tensor> knn(const Tensor& coords, int64_t k) {
    const DeviceGuard guard(coords);
    const KnnCall call(coords, k);
    Tensor ids = call.result(ScalarType::Int), distances = call.result(ScalarType::Float);
    auto* id = static_cast<City*>(ids.data_ptr());
    auto* distance = static_cast<float*>(distances.data_ptr());
    if (!call.empty()) call.wide() ? run<double>(call, id, distance) : run<float>(call, id, distance);
    return {ids, distances};
}

}  // namespace
}  // namespace fd::tsp

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) { m.impl("knn", TORCH_BOX(&fd::tsp::knn)); }
