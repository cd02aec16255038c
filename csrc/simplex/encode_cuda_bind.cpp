// Registers for CUDA the operators of the encodings that read the table.
#include "common/device.h"
#include "simplex/encode_launch.h"
#include "simplex/encode_ops.h"

namespace fd::encoding {
namespace {

FeatureRows<const void> rows_of(const Tensor& t, const char* name) {
    return {t.data_ptr(), dtype_of_tensor(t, name)};
}

struct EncodeCall {
    LevelLists lists;
    Tensor table;
    EncodeShape shape;
    CudaShape cuda;
    bool wide;  // in float64

    EncodeCall(Lattice lattice, const Tensor& x, const Tensor& entries, const LevelLists& levels,
               int64_t bounds, int64_t max_level)
        : lists(levels),
          table(torch::stable::contiguous(entries)),
          shape(x, table.dim() == 2 ? table.size(0) : 0, table.dim() == 2 ? table.size(1) : 0, levels, bounds,
                max_level),
          cuda{lattice, shape.bounds, shape.axes, shape.features, shape.used_levels, shape.points},
          wide(x.scalar_type() == ScalarType::Double || table.scalar_type() == ScalarType::Double) {
        check_same_device(table, x, "table");
        check_dense_levels(lattice, shape, lists);
    }

    ScalarType type() const { return wide ? ScalarType::Double : ScalarType::Float; }

    // Calls run(levels, zero) in the type of the arithmetic.
    template <class Run>
    void in_type(const Run& run) const {
        wide ? run(levels_of<double>(lists, shape.axes), double{})
             : run(levels_of<float>(lists, shape.axes), float{});
    }
};

struct Backend {
    static Tensor features(Lattice lattice, const Tensor& x, const Tensor& table, const Tensor* u,
                           const LevelLists& lists, int64_t bounds, int64_t max_level,
                           std::optional<ScalarType> out_dtype) {
        const DeviceGuard guard(x);
        const EncodeCall call(lattice, x, table, lists, bounds, max_level);
        Tensor out = torch::stable::new_empty(x, {call.shape.points, call.shape.width()},
                                              out_dtype.value_or(table.scalar_type()));
        const DType out_type = dtype_of_tensor(out, "out_dtype");
        if (u != nullptr) {
            STD_TORCH_CHECK(same_sizes(*u, x), "u must have the shape of x");
            check_same_device(*u, x, "u");
        }
        const Tensor at = as_type(x, call.type()), along = u == nullptr ? at : as_type(*u, call.type());
        call.in_type([&]<class Real>(const Levels<Real>& levels, Real) {
            encode_cuda<Real>(current_stream(x), call.cuda, levels, static_cast<const Real*>(at.data_ptr()),
                              u == nullptr ? nullptr : static_cast<const Real*>(along.data_ptr()),
                              rows_of(call.table, "table"), {out.data_ptr(), out_type});
        });
        return out;
    }

    static Tensor points_gradient(Lattice lattice, const Tensor& x, const Tensor& table, const Tensor& grad,
                                  const LevelLists& lists, int64_t bounds, int64_t max_level) {
        const DeviceGuard guard(x);
        const EncodeCall call(lattice, x, table, lists, bounds, max_level);
        check_gradient(call.shape, grad);
        check_same_device(grad, x, "grad");
        const Tensor at = as_type(x, call.type()), upstream = torch::stable::contiguous(grad);
        Tensor dx = torch::stable::new_empty(x, {call.shape.points, call.shape.axes}, call.type());
        call.in_type([&]<class Real>(const Levels<Real>& levels, Real) {
            encode_vjp_x_cuda<Real>(current_stream(x), call.cuda, levels,
                                    static_cast<const Real*>(at.data_ptr()), rows_of(call.table, "table"),
                                    rows_of(upstream, "grad"), static_cast<Real*>(dx.data_ptr()));
        });
        return as_type(dx, x.scalar_type());
    }
};

}  // namespace
}  // namespace fd::encoding

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    fd::encoding::register_gather_ops<fd::encoding::Backend>(m);
}
