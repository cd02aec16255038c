// simplex_encode and grid_encode on the CPU, and their derivatives that read the table: features, derivative
// along a direction, gradient of the coordinates.
#include "simplex/encode_blocks.h"

namespace fd::encoding {
namespace {

// A level's features of every point of a block, [points][F], are what a leaf writes; a row of the result
// takes them from all levels.
template <class Real>
void write_rows(const EncodeShape& shape, const Real* scratch, int stride, int count, int64_t first,
                void* out, DType type) {
    const auto write = [&]<class T>(T* rows) {
        with_features(shape.features, [&]<int F>() {
            for (int p = 0; p < count; ++p) {
                T* row = rows + (first + p) * shape.levels * F;
                const Real* from = scratch + p * F;
                for (int l = 0; l < shape.levels; ++l, from += stride * F, row += F) {
                    for (int c = 0; c < F; ++c) detail::narrow(from[c], row[c]);
                }
            }
        });
    };
    switch (type) {
        case DType::f16:
            return write(static_cast<half*>(out));
        case DType::bf16:
            return write(static_cast<bfloat16*>(out));
        case DType::f32:
            return write(static_cast<float*>(out));
        default:
            return write(static_cast<double*>(out));
    }
}

template <class Real>
void gather(const void* slice, DType type, int features, const Run<Real>& run, int vertices, int groups,
            Real* out) {
    if constexpr (dtype_of<Real> == DType::f32) {
        static const Leaves& leaves = leaves_of(simd::level());
        leaves.gather[__builtin_ctz(static_cast<unsigned>(features))][static_cast<int>(type)](
            slice, run.index, run.weight, vertices, groups, out);
    } else {
        for (int p = 0; p < groups * kGroup; ++p) {
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
    const int capacity = block_points<Real>(shape);
    const Wanted wanted = u == nullptr ? Wanted::weights : Wanted::slopes;
    const char* table = static_cast<const char*>(call.table.data_ptr());
    const auto body = [&](int64_t begin, int64_t end) {
        BlockPoints<Real> block(shape, capacity, u != nullptr);
        const std::unique_ptr<Real[]> scratch(new Real[static_cast<size_t>(capacity) * shape.width()]);
        for (int64_t b = begin; b < end; ++b) {
            const int64_t first = b * capacity;
            const int count = static_cast<int>(std::min<int64_t>(capacity, shape.points - first));
            block.fill(x, u, first, count);
            std::fill_n(scratch.get(), static_cast<size_t>(capacity) * shape.width(), Real(0));
            for (int l = 0; l < shape.used_levels; ++l) {
                const Level<Real>& level = levels.level[l];
                const void* slice = table + level.offset * shape.features * size_of(call.table_type);
                Real* features = scratch.get() + static_cast<size_t>(l) * capacity * shape.features;
                for_each_run(call.lattice, wanted, false, shape, level, block,
                             [&](int g, int groups, int, int vertices, const Run<Real>& run) {
                                 gather<Real>(slice, call.table_type, shape.features, run, vertices, groups,
                                              features + g * kGroup * shape.features);
                             });
            }
            write_rows<Real>(shape, scratch.get(), capacity, count, first, out, out_type);
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
        static const Leaves& leaves = leaves_of(simd::level());
        leaves.dot[__builtin_ctz(static_cast<unsigned>(features))][static_cast<int>(type)](
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
        static const Leaves& leaves = leaves_of(simd::level());
        leaves.combine[static_cast<int>(lattice)][axes - 1](level, bounds, points, groups, first, count, at,
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
    constexpr int kBlock = 1024;
    const EncodeShape& shape = call.shape;
    const Levels<Real> levels = levels_of<Real>(call.lists, shape.axes);
    const DType grad_type = dtype_of_tensor(grad, "grad");
    const char* table = static_cast<const char*>(call.table.data_ptr());
    const bool simplex = call.lattice == Lattice::simplex;
    const auto body = [&](int64_t begin, int64_t end) {
        BlockPoints<Real> block(shape, kBlock, false);
        const std::unique_ptr<Real[]> columns(new Real[kBlock * static_cast<size_t>(shape.features)]());
        const std::unique_ptr<Real[]> sums(new Real[kBlock * static_cast<size_t>(shape.axes)]);
        alignas(64) Real c[Run<Real>::kSize];
        for (int64_t b = begin; b < end; ++b) {
            const int64_t first = b * kBlock;
            const int count = static_cast<int>(std::min<int64_t>(kBlock, shape.points - first));
            block.fill(x, nullptr, first, count);
            std::fill_n(sums.get(), kBlock * static_cast<size_t>(shape.axes), Real(0));
            for (int l = 0; l < shape.used_levels; ++l) {
                const Level<Real>& level = levels.level[l];
                const void* slice = table + level.offset * shape.features * size_of(call.table_type);
                load_columns<Real>(shape, grad.data_ptr(), grad_type, l, first, count, columns.get());
                for_each_run(call.lattice, Wanted::weights, simplex, shape, level, block,
                             [&](int g, int groups, int vertex, int vertices, Run<Real>& run) {
                                 dots<Real>(slice, call.table_type, shape.features, run,
                                            columns.get() + g * kGroup * shape.features, vertices, groups, c);
                                 combine<Real>(call.lattice, shape.axes, level, shape.bounds, block.from(g),
                                               groups, vertex, vertices, run, c, sums.get() + g * kGroup);
                             });
            }
            for (int p = 0; p < count; ++p) {
                const Real* at = x + (first + p) * shape.axes;
                bool finite = true;
                for (int i = 0; i < shape.axes; ++i) finite = finite && at[i] - at[i] == Real(0);
                for (int i = 0; i < shape.axes; ++i) {
                    const bool moves = passes(at[i], shape.bounds) || !finite;
                    dx[(first + p) * shape.axes + i] = moves ? sums[i * kBlock + p] : Real(0);
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

Tensor features(Lattice lattice, const Tensor& x, const Tensor& table, const Tensor* u,
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

template <Lattice lattice>
Tensor encode_op(const Tensor& x, const Tensor& table, const std::vector<double>& scales,
                 const std::vector<double>& shifts, const std::vector<int64_t>& layout, int64_t bounds,
                 int64_t max_level, bool, std::optional<ScalarType> out_dtype) {
    return features(lattice, x, table, nullptr, {scales, shifts, layout}, bounds, max_level, out_dtype);
}

template <Lattice lattice>
Tensor jvp_op(const Tensor& x, const Tensor& table, const Tensor& u, const std::vector<double>& scales,
              const std::vector<double>& shifts, const std::vector<int64_t>& layout, int64_t bounds,
              int64_t max_level, bool, std::optional<ScalarType> out_dtype) {
    return features(lattice, x, table, &u, {scales, shifts, layout}, bounds, max_level, out_dtype);
}

template <Lattice lattice>
Tensor vjp_x_op(const Tensor& x, const Tensor& table, const Tensor& grad, const std::vector<double>& scales,
                const std::vector<double>& shifts, const std::vector<int64_t>& layout, int64_t bounds,
                int64_t max_level, bool) {
    const LevelLists lists{scales, shifts, layout};
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

}  // namespace
}  // namespace fd::encoding

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    using fd::encoding::Lattice;
    m.impl("simplex_encode", TORCH_BOX(&fd::encoding::encode_op<Lattice::simplex>));
    m.impl("simplex_encode_jvp", TORCH_BOX(&fd::encoding::jvp_op<Lattice::simplex>));
    m.impl("simplex_encode_vjp_x", TORCH_BOX(&fd::encoding::vjp_x_op<Lattice::simplex>));
    m.impl("grid_encode", TORCH_BOX(&fd::encoding::encode_op<Lattice::grid>));
    m.impl("grid_encode_jvp", TORCH_BOX(&fd::encoding::jvp_op<Lattice::grid>));
    m.impl("grid_encode_vjp_x", TORCH_BOX(&fd::encoding::vjp_x_op<Lattice::grid>));
}
