// Gradients of the encodings towards the table on the CPU: every point adds weight times upstream gradient to
// the entries that it read.
//
// A level belongs to one thread (or a range of its entries does, when threads are more than levels), which
// takes the points in order. So an entry's sum has one order whatever the number of threads, and nothing is
// locked. Floor: one read and one write of a random entry per vertex.
#include "simplex/encode_blocks.h"

namespace fd::encoding {
namespace {

template <class Real>
void scatter(const Run<Real>& run, const Real* grad, int features, int vertices, int points, uint32_t begin,
             uint32_t end, Real* table) {
    const auto of = [&]<int F>() {
        scatter_points<F, Real>(run.index, run.weight, grad, vertices, points, begin, end, table);
    };
    if constexpr (dtype_of<Real> == DType::f32) {
        static const Leaves& leaves = leaves_of(simd::level());
        leaves.scatter[__builtin_ctz(static_cast<unsigned>(features))](run.index, run.weight, grad, vertices,
                                                                       points, begin, end, table);
    } else {
        with_features(features, of);
    }
}

template <class Real>
void scatter_all(Lattice lattice, const EncodeShape& shape, const LevelLists& lists, const Real* x,
                 const Real* u, const Tensor& grad, Real* table) {
    constexpr int kBlock = 1024;
    const Levels<Real> levels = levels_of<Real>(lists, shape.axes);
    const DType grad_type = dtype_of_tensor(grad, "grad");
    const Wanted wanted = u == nullptr ? Wanted::weights : Wanted::slopes;
    const int threads = static_cast<int>(torch::stable::get_num_threads());
    const int parts = std::max(threads / std::max(shape.used_levels, 1), 1);
    const auto body = [&](int64_t begin, int64_t end) {
        BlockPoints<Real> block(shape, kBlock, u != nullptr);
        const std::unique_ptr<Real[]> columns(new Real[kBlock * static_cast<size_t>(shape.features)]);
        for (int64_t task = begin; task < end; ++task) {
            const int l = static_cast<int>(task / parts), part = static_cast<int>(task % parts);
            const Level<Real>& level = levels.level[l];
            const auto bound = [&](int i) {
                return static_cast<uint32_t>(static_cast<uint64_t>(level.size) * static_cast<uint64_t>(i) /
                                             parts);
            };
            const uint32_t begin_entry = bound(part), end_entry = bound(part + 1);
            Real* rows = table + (level.offset + begin_entry) * shape.features;
            for (int64_t first = 0; first < shape.points; first += kBlock) {
                const int count = static_cast<int>(std::min<int64_t>(kBlock, shape.points - first));
                block.fill(x, u, first, count);
                load_columns<Real>(shape, grad.data_ptr(), grad_type, l, first, count, columns.get());
                for_each_run(lattice, wanted, false, shape, level, block,
                             [&](int g, int groups, int, int vertices, const Run<Real>& run) {
                                 const int points = std::min(groups * kGroup, count - g * kGroup);
                                 scatter<Real>(run, columns.get() + g * kGroup * shape.features,
                                               shape.features, vertices, points, begin_entry, end_entry,
                                               rows);
                             });
            }
        }
    };
    const int64_t tasks = static_cast<int64_t>(shape.used_levels) * parts;
    if (tasks > 0 && shape.points > 0) torch::stable::parallel_for(0, tasks, 1, body);
}

Tensor table_gradient(Lattice lattice, const Tensor& x, const Tensor* u, const Tensor& grad,
                      const LevelLists& lists, int64_t n_entries, int64_t bounds, int64_t max_level) {
    STD_TORCH_CHECK(grad.dim() == 2 && !lists.scales.empty(), "grad must be [N, L * F]");
    const int64_t width = grad.size(1), levels = static_cast<int64_t>(lists.scales.size());
    const EncodeShape shape(x, n_entries, width / levels, lists, bounds, max_level);
    check_dense_levels(lattice, shape, lists);
    check_gradient(shape, grad);
    if (u != nullptr) STD_TORCH_CHECK(same_sizes(*u, x), "u must have the shape of x");
    const bool wide = x.scalar_type() == ScalarType::Double || grad.scalar_type() == ScalarType::Double;
    const ScalarType type = wide ? ScalarType::Double : ScalarType::Float;
    const Tensor at = as_type(x, type), along = u == nullptr ? at : as_type(*u, type);
    const Tensor upstream = torch::stable::contiguous(grad);
    Tensor table = torch::stable::new_zeros(x, {n_entries, shape.features}, type);
    const auto run = [&]<class Real>(Real) {
        scatter_all<Real>(lattice, shape, lists, static_cast<const Real*>(at.data_ptr()),
                          u == nullptr ? nullptr : static_cast<const Real*>(along.data_ptr()), upstream,
                          static_cast<Real*>(table.data_ptr()));
    };
    wide ? run(double{}) : run(float{});
    return table;
}

template <Lattice lattice>
Tensor vjp_table_op(const Tensor& x, const Tensor& grad, const std::vector<double>& scales,
                    const std::vector<double>& shifts, const std::vector<int64_t>& layout, int64_t n_entries,
                    int64_t bounds, int64_t max_level, bool) {
    return table_gradient(lattice, x, nullptr, grad, {scales, shifts, layout}, n_entries, bounds, max_level);
}

template <Lattice lattice>
Tensor vjp_table_u_op(const Tensor& x, const Tensor& u, const Tensor& grad, const std::vector<double>& scales,
                      const std::vector<double>& shifts, const std::vector<int64_t>& layout,
                      int64_t n_entries, int64_t bounds, int64_t max_level, bool) {
    return table_gradient(lattice, x, &u, grad, {scales, shifts, layout}, n_entries, bounds, max_level);
}

}  // namespace
}  // namespace fd::encoding

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    using fd::encoding::Lattice;
    m.impl("simplex_encode_vjp_table", TORCH_BOX(&fd::encoding::vjp_table_op<Lattice::simplex>));
    m.impl("simplex_encode_vjp_table_u", TORCH_BOX(&fd::encoding::vjp_table_u_op<Lattice::simplex>));
    m.impl("grid_encode_vjp_table", TORCH_BOX(&fd::encoding::vjp_table_op<Lattice::grid>));
    m.impl("grid_encode_vjp_table_u", TORCH_BOX(&fd::encoding::vjp_table_u_op<Lattice::grid>));
}
