// simplex_encode and grid_encode on the CPU, and their derivatives that read the table: features, derivative
// along a direction, gradient of the coordinates.
#include "simplex/encode_blocks.h"
#include "simplex/encode_ops.h"

namespace fd::encoding {
namespace {

template <class Real>
void gather(const void* slice, DType type, int features, const Run<Real>& run, int vertices, Real* out) {
    out += static_cast<int64_t>(run.group) * kGroup * features;
    const bool fresh = run.vertex == 0;
    if constexpr (dtype_of<Real> == DType::f32) {
        leaves().gather[__builtin_ctz(static_cast<unsigned>(features))][static_cast<int>(type)](
            slice, run.index, run.weight, vertices, run.groups, fresh, out);
    } else {
        if (fresh) std::fill_n(out, run.groups * kGroup * features, Real(0));
        for (int p = 0; p < run.groups * kGroup; ++p) {
            for (int k = 0; k < vertices; ++k) {
                const int at = (p / kGroup * vertices + k) * kGroup + p % kGroup;
                for (int c = 0; c < features; ++c) {
                    const Real entry = widened<Real>(slice, type, int64_t{run.index[at]} * features + c);
                    out[p * features + c] = fma(run.weight[at], entry, out[p * features + c]);
                }
            }
        }
    }
}

struct EncodeCall {
    Lattice lattice;
    EncodeShape shape;
    LevelLists lists;
    const Tensor& x;
    const Tensor& table;
    DType table_type;
};

template <class Real>
void encode(const EncodeCall& call, const Real* x, const Real* u, void* out, DType out_type) {
    const EncodeShape& shape = call.shape;
    const Levels<Real> levels = levels_of<Real>(call.lists, shape.axes);
    const int capacity = block_points<Real>(shape), stride = capacity + kPadding;
    const Wanted wanted = u == nullptr ? Wanted::weights : Wanted::slopes;
    const char* table = static_cast<const char*>(call.table.data_ptr());
    const auto body = [&](int64_t begin, int64_t end) {
        BlockPoints<Real> block(shape, capacity, u != nullptr);
        // zero where a level is not used
        const std::unique_ptr<Real[]> columns(new Real[static_cast<size_t>(stride) * shape.width()]());
        for (int64_t b = begin; b < end; ++b) {
            const int64_t first = b * capacity;
            const int count = static_cast<int>(std::min<int64_t>(capacity, shape.points - first));
            // the only level's features are the rows
            const bool direct = shape.levels == 1 && shape.used_levels == 1 && out_type == dtype_of<Real> &&
                                count % kGroup == 0;
            Real* to = direct ? static_cast<Real*>(out) + first * shape.features : columns.get();
            block.fill(x, u, first, count);
            for (int l = 0; l < shape.used_levels; ++l) {
                const Level<Real>& level = levels.level[l];
                const int64_t row_bytes = shape.features * size_of(call.table_type);
                const Slice slice(table + level.offset * row_bytes, row_bytes, level.size);
                Real* features = to + static_cast<size_t>(l) * stride * shape.features;
                for_each_run(call.lattice, wanted, false, shape, level, slice, block,
                             [&](const Run<Real>& run, int vertices) {
                                 gather<Real>(slice.rows, call.table_type, shape.features, run, vertices,
                                              features);
                             });
            }
            if (!direct) write_rows<Real>(shape, columns.get(), first, count, stride, out_type, out);
        }
    };
    const int64_t blocks = (shape.points + capacity - 1) / capacity;
    if (blocks <= 1) return body(0, blocks);
    torch::stable::parallel_for(0, blocks, 1, body);
}

template <class Real>
void dots(const void* slice, DType type, int features, const Run<Real>& run, const Real* grad, int vertices,
          int groups, Real* c) {
    if constexpr (dtype_of<Real> == DType::f32) {
        leaves().dot[__builtin_ctz(static_cast<unsigned>(features))][static_cast<int>(type)](
            slice, run.index, grad, vertices, groups, c);
    } else {
        const auto of = [&]<class T>(const T* rows) {
            dots_of<T, Real>(rows, features, run.index, grad, vertices, groups, c);
        };
        switch (type) {
            case DType::f16:
                return of(static_cast<const half*>(slice));
            case DType::bf16:
                return of(static_cast<const bfloat16*>(slice));
            case DType::f32:
                return of(static_cast<const float*>(slice));
            default:
                return of(static_cast<const double*>(slice));
        }
    }
}

template <class Real>
void combine(Lattice lattice, int axes, const Level<Real>& level, Bounds bounds, const Points<Real>& points,
             int groups, int first, int count, Run<Real>& run, const Real* c, Real* dx) {
    const Located<Real> at{run.index, run.weight, run.axes};
    if constexpr (dtype_of<Real> == DType::f32) {
        leaves().combine[static_cast<int>(lattice)][axes - 1](level, bounds, points, groups, first, count, at,
                                                              c, dx);
    } else {
        with_axes(axes, [&]<int N>() {
            if (lattice == Lattice::simplex) {
                combine_simplex_at<N, Real>(level, points, groups, at, c, dx);
            } else {
                combine_grid_at<N, Real>(level, bounds, points, groups, first, count, c, dx);
            }
        });
    }
}

// At every vertex c_k = <g, T_k>, and from these the gradient of the coordinates, level after level.
template <class Real>
void gradient(const EncodeCall& call, const Real* x, const Tensor& grad, Real* dx) {
    constexpr int kBlock = 1024, kStride = kBlock + kPadding;
    const EncodeShape& shape = call.shape;
    const Levels<Real> levels = levels_of<Real>(call.lists, shape.axes);
    const DType grad_type = dtype_of_tensor(grad, "grad");
    const char* table = static_cast<const char*>(call.table.data_ptr());
    const bool simplex = call.lattice == Lattice::simplex;
    const auto body = [&](int64_t begin, int64_t end) {
        BlockPoints<Real> block(shape, kBlock, false);
        const std::unique_ptr<Real[]> columns(new Real[kStride * static_cast<size_t>(shape.width())]());
        const std::unique_ptr<Real[]> sums(new Real[kStride * static_cast<size_t>(shape.axes)]);
        alignas(64) Real c[Run<Real>::kSize];
        for (int64_t b = begin; b < end; ++b) {
            const int64_t first = b * kBlock;
            const int count = static_cast<int>(std::min<int64_t>(kBlock, shape.points - first));
            block.fill(x, nullptr, first, count);
            read_rows<Real>(shape, grad.data_ptr(), grad_type, first, count, kStride, columns.get());
            std::fill_n(sums.get(), kStride * static_cast<size_t>(shape.axes), Real(0));
            for (int l = 0; l < shape.used_levels; ++l) {
                const Level<Real>& level = levels.level[l];
                const int64_t row_bytes = shape.features * size_of(call.table_type);
                const Slice slice(table + level.offset * row_bytes, row_bytes, level.size);
                const Real* column = columns.get() + static_cast<size_t>(l) * kStride * shape.features;
                for_each_run(call.lattice, Wanted::weights, simplex, shape, level, slice, block,
                             [&](Run<Real>& run, int vertices) {
                                 const int p = run.group * kGroup;
                                 dots<Real>(slice.rows, call.table_type, shape.features, run,
                                            column + p * shape.features, vertices, run.groups, c);
                                 combine<Real>(call.lattice, shape.axes, level, shape.bounds,
                                               block.from(run.group), run.groups, run.vertex, vertices, run,
                                               c, sums.get() + p);
                             });
            }
            for (int p = 0; p < count; ++p) {
                const Real* at = x + (first + p) * shape.axes;
                bool finite = true;
                for (int i = 0; i < shape.axes; ++i) finite = finite && at[i] - at[i] == Real(0);
                for (int i = 0; i < shape.axes; ++i) {
                    const bool moves = passes(at[i], shape.bounds) || !finite;
                    dx[(first + p) * shape.axes + i] = moves ? sums[i * kStride + p] : Real(0);
                }
            }
        }
    };
    torch::stable::parallel_for(0, (shape.points + kBlock - 1) / kBlock, 1, body);
}

EncodeCall bind(Lattice lattice, const Tensor& x, const Tensor& table, const LevelLists& lists,
                int64_t bounds, int64_t max_level) {
    STD_TORCH_CHECK(table.dim() == 2, "table must be [P, F]");
    const EncodeShape shape(x, table.size(0), table.size(1), lists, bounds, max_level);
    check_dense_levels(lattice, shape, lists);
    return {lattice, shape, lists, x, table, dtype_of_tensor(table, "table")};
}

bool in_float64(const Tensor& x, const Tensor& table) {
    return x.scalar_type() == ScalarType::Double || table.scalar_type() == ScalarType::Double;
}

struct Backend {
    static Tensor features(Lattice lattice, const Tensor& x, const Tensor& table, const Tensor* u,
                           const LevelLists& lists, int64_t bounds, int64_t max_level,
                           std::optional<ScalarType> out_dtype) {
        const Tensor entries = torch::stable::contiguous(table);
        const EncodeCall call = bind(lattice, x, entries, lists, bounds, max_level);
        Tensor out = torch::stable::new_empty(x, {call.shape.points, call.shape.width()},
                                              out_dtype.value_or(table.scalar_type()));
        const DType out_type = dtype_of_tensor(out, "out_dtype");
        if (call.shape.points == 0) return out;
        if (u != nullptr) STD_TORCH_CHECK(same_sizes(*u, x), "u must have the shape of x");
        const auto run = [&]<class Real>(Real, ScalarType type) {
            const Tensor at = as_type(x, type), along = u == nullptr ? at : as_type(*u, type);
            encode<Real>(call, static_cast<const Real*>(at.data_ptr()),
                         u == nullptr ? nullptr : static_cast<const Real*>(along.data_ptr()), out.data_ptr(),
                         out_type);
        };
        in_float64(x, table) ? run(double{}, ScalarType::Double) : run(float{}, ScalarType::Float);
        return out;
    }

    static Tensor points_gradient(Lattice lattice, const Tensor& x, const Tensor& table, const Tensor& grad,
                                  const LevelLists& lists, int64_t bounds, int64_t max_level) {
        const Tensor entries = torch::stable::contiguous(table), upstream = torch::stable::contiguous(grad);
        const EncodeCall call = bind(lattice, x, entries, lists, bounds, max_level);
        check_gradient(call.shape, upstream);
        const ScalarType type = in_float64(x, table) ? ScalarType::Double : ScalarType::Float;
        const Tensor at = as_type(x, type);
        Tensor dx = torch::stable::new_empty(x, {call.shape.points, call.shape.axes}, type);
        if (call.shape.points == 0) return as_type(dx, x.scalar_type());
        if (type == ScalarType::Double) {
            gradient<double>(call, at.const_data_ptr<double>(), upstream, dx.mutable_data_ptr<double>());
        } else {
            gradient<float>(call, at.const_data_ptr<float>(), upstream, dx.mutable_data_ptr<float>());
        }
        return as_type(dx, x.scalar_type());
    }
};

}  // namespace
}  // namespace fd::encoding

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    fd::encoding::register_gather_ops<fd::encoding::Backend>(m);
}
