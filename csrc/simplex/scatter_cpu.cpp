// Gradients of the encodings towards the table on the CPU: every point adds weight times upstream gradient to
// the entries that it read.
//
// A level belongs to one thread (or a range of its entries does, when threads are more than levels), which
// takes the points in order. So an entry's sum has one order whatever the number of threads, and nothing is
// locked. Floor: one read and one write of a random entry per vertex.
#include "simplex/encode_blocks.h"
#include "simplex/encode_ops.h"

namespace fd::encoding {
namespace {

constexpr int64_t kScatterBytes = 1 << 20;  // upstream gradients of a block of points, all levels
constexpr int kLargestScatter = 16384;

template <class Real>
void scatter(const Run<Real>& run, const Real* grad, int features, int vertices, int points, uint32_t begin,
             uint32_t end, Real* table) {
    const auto of = [&]<int F>() {
        scatter_points<F, Real>(run.index, run.weight, grad, vertices, points, begin, end, table);
    };
    if constexpr (dtype_of<Real> == DType::f32) {
        leaves().scatter[__builtin_ctz(static_cast<unsigned>(features))](run.index, run.weight, grad,
                                                                         vertices, points, begin, end, table);
    } else {
        with_features(features, of);
    }
}

template <class Real>
void scatter_all(Lattice lattice, const EncodeShape& shape, const LevelLists& lists, const Real* x,
                 const Real* u, const Tensor& grad, Real* table) {
    const Levels<Real> levels = levels_of<Real>(lists, shape.axes);
    const DType grad_type = dtype_of_tensor(grad, "grad");
    const Wanted wanted = u == nullptr ? Wanted::weights : Wanted::slopes;
    const int threads = static_cast<int>(torch::stable::get_num_threads());
    const int parts = std::max(threads / std::max(shape.used_levels, 1), 1);
    const int tasks = shape.used_levels * parts, workers = std::min(threads, tasks);
    const int64_t fit = kScatterBytes / static_cast<int64_t>(shape.width() * sizeof(Real));
    const int capacity = static_cast<int>(std::clamp<int64_t>(fit / kGroup * kGroup, 256, kLargestScatter));
    const int stride = capacity + kPadding;
    const auto work = [&](int worker) {
        BlockPoints<Real> block(shape, capacity, u != nullptr);
        const std::unique_ptr<Real[]> columns(new Real[static_cast<size_t>(stride) * shape.width()]);
        for (int64_t first = 0; first < shape.points; first += capacity) {
            const int count = static_cast<int>(std::min<int64_t>(capacity, shape.points - first));
            block.fill(x, u, first, count);
            read_rows<Real>(shape, grad.data_ptr(), grad_type, first, count, stride, columns.get());
            for (int task = worker; task < tasks; task += workers) {
                const int l = task / parts, part = task % parts;
                const Level<Real>& level = levels.level[l];
                const auto bound = [&](int i) {
                    return static_cast<uint32_t>(static_cast<uint64_t>(level.size) *
                                                 static_cast<uint64_t>(i) / parts);
                };
                const uint32_t begin_entry = bound(part), end_entry = bound(part + 1);
                Real* rows = table + (level.offset + begin_entry) * shape.features;
                const Slice slice(table + level.offset * shape.features, shape.features * sizeof(Real),
                                  level.size);
                const Real* column = columns.get() + static_cast<size_t>(l) * stride * shape.features;
                for_each_run(lattice, wanted, false, shape, level, slice, block,
                             [&](const Run<Real>& run, int vertices) {
                                 const int p = run.group * kGroup;
                                 scatter<Real>(run, column + p * shape.features, shape.features, vertices,
                                               std::min(run.groups * kGroup, count - p), begin_entry,
                                               end_entry, rows);
                             });
            }
        }
    };
    if (workers == 1) return work(0);
    torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
        for (int64_t worker = begin; worker < end; ++worker) work(static_cast<int>(worker));
    });
}

struct Backend {
    static Tensor table_gradient(Lattice lattice, const Tensor& x, const Tensor* u, const Tensor& grad,
                                 const LevelLists& lists, int64_t n_entries, int64_t bounds,
                                 int64_t max_level, bool) {
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
};

}  // namespace
}  // namespace fd::encoding

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    fd::encoding::register_scatter_ops<fd::encoding::Backend>(m);
}
