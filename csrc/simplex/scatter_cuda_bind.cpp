// Registers for CUDA the gradients of the encodings towards the table.
#include "common/device.h"
#include "simplex/encode_launch.h"
#include "simplex/encode_ops.h"

namespace fd::encoding {
namespace {

struct Backend {
    static Tensor table_gradient(Lattice lattice, const Tensor& x, const Tensor* u, const Tensor& grad,
                                 const LevelLists& lists, int64_t n_entries, int64_t bounds,
                                 int64_t max_level, bool deterministic) {
        const DeviceGuard guard(x);
        STD_TORCH_CHECK(grad.dim() == 2 && !lists.scales.empty(), "grad must be [N, L * F]");
        const int64_t width = grad.size(1), level_count = static_cast<int64_t>(lists.scales.size());
        const EncodeShape shape(x, n_entries, width / level_count, lists, bounds, max_level);
        check_dense_levels(lattice, shape, lists);
        check_gradient(shape, grad);
        check_same_device(grad, x, "grad");
        if (u != nullptr) {
            STD_TORCH_CHECK(same_sizes(*u, x), "u must have the shape of x");
            check_same_device(*u, x, "u");
        }
        const bool wide = x.scalar_type() == ScalarType::Double || grad.scalar_type() == ScalarType::Double;
        const ScalarType type = wide ? ScalarType::Double : ScalarType::Float;
        const Tensor at = as_type(x, type), along = u == nullptr ? at : as_type(*u, type);
        const Tensor upstream = torch::stable::contiguous(grad);
        Tensor table = torch::stable::new_zeros(x, {n_entries, shape.features}, type);
        OptionalTensor sums, largest;
        FixedPoint fixed;
        if (deterministic) {
            sums = torch::stable::new_zeros(x, {n_entries, shape.features}, ScalarType::Long);
            largest = torch::stable::new_zeros(x, {shape.levels}, ScalarType::Long);
            fixed = {static_cast<int64_t*>(sums->data_ptr()), static_cast<uint64_t*>(largest->data_ptr())};
        }
        const CudaShape cuda{lattice,        shape.bounds,      shape.axes,
                             shape.features, shape.used_levels, shape.points};
        const auto run = [&]<class Real>(Real) {
            encode_vjp_table_cuda<Real>(current_stream(x), cuda, levels_of<Real>(lists, shape.axes),
                                        static_cast<const Real*>(at.data_ptr()),
                                        u == nullptr ? nullptr : static_cast<const Real*>(along.data_ptr()),
                                        {upstream.data_ptr(), dtype_of_tensor(upstream, "grad")}, fixed,
                                        static_cast<Real*>(table.data_ptr()));
        };
        wide ? run(double{}) : run(float{});
        return table;
    }
};

}  // namespace
}  // namespace fd::encoding

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    fd::encoding::register_scatter_ops<fd::encoding::Backend>(m);
}
