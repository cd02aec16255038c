// The encoding kernels in exact-size blocks against a loop over points, levels and vertices with the shared
// functions: the same bits wherever nothing is added atomically.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "cpp/testing.h"
#include "simplex/encode_launch.h"
#include "simplex/grid.h"
#include "simplex/simplex.h"

namespace fd::encoding {
namespace {

constexpr int kLevels = 5, kUsed = 4;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// A matrix of any type in a block of its exact size; `skip` elements in front make it misaligned.
struct Rows {
    DType type;
    int64_t count, skip;
    std::shared_ptr<char[]> memory;

    Rows(DType type_, int64_t count_, int64_t skip_ = 0)
        : type(type_), count(count_), skip(skip_), memory(new char[bytes(count_ + skip_)]()) {}

    size_t bytes(int64_t elements) const { return static_cast<size_t>(elements * size_of(type)); }
    void* data() const { return memory.get() + bytes(skip); }

    template <class Visit>
    auto typed(const Visit& visit) const {
        switch (type) {
            case DType::f16:
                return visit(static_cast<half*>(data()));
            case DType::bf16:
                return visit(static_cast<bfloat16*>(data()));
            case DType::f32:
                return visit(static_cast<float*>(data()));
            default:
                return visit(static_cast<double*>(data()));
        }
    }
    double get(int64_t i) const {
        return typed([i](const auto* p) { return static_cast<double>(detail::widen(p[i])); });
    }
    template <class Real>
    void set(int64_t i, Real value) {
        typed([&](auto* p) { detail::narrow(value, p[i]); });
    }
};

template <class Real>
struct Vertex {
    int64_t entry;  // in the whole table
    Real weight;
};

template <class Real>
struct Problem {
    CudaShape shape;
    Levels<Real> levels{};
    int64_t entries = 0;
    std::vector<Real> x, u;
    Rows table, grad;

    // Of a dense level, two hashed ones, a hashed one beyond shared memory, and one that is not used.
    Problem(Lattice lattice, int n, int features, Bounds bounds, int64_t points, DType table_type,
            DType grad_type, int64_t skip = 0)
        : shape{lattice, bounds, n, features, kUsed, points},
          table(table_type, make_levels() * features, skip),
          grad(grad_type, points * kLevels * features, skip) {
        std::mt19937 random(static_cast<unsigned>(n * 8 + features));
        std::uniform_real_distribution<double> place(bounds == Bounds::clamp ? -0.2 : -3.0,
                                                     bounds == Bounds::clamp ? 1.2 : 4.0);
        std::normal_distribution<double> normal;
        for (int64_t i = 0; i < points * n; ++i) x.push_back(static_cast<Real>(place(random)));
        for (int64_t i = 0; i < points * n; ++i) u.push_back(static_cast<Real>(normal(random)));
        for (int64_t i = 0; i < table.count; ++i) table.set(i, static_cast<Real>(normal(random)));
        for (int64_t i = 0; i < grad.count; ++i) grad.set(i, static_cast<Real>(normal(random)));
        const double odd[] = {kNaN, -std::numeric_limits<double>::infinity(), 1e30};
        for (int64_t p = 0; p < std::min<int64_t>(points, 3); ++p) {
            x[static_cast<size_t>(p * n + p % n)] = static_cast<Real>(odd[p]);
            if (p == 2 && bounds == Bounds::clamp) continue;  // an ordinary point
            for (int i = 0; i < kLevels * features; ++i)
                grad.set(p * kLevels * features + i, static_cast<Real>(kNaN));
        }
    }

    int64_t make_levels() {
        const int n = shape.axes;
        levels.count = kLevels;
        for (int l = 0; l < kLevels; ++l) {
            Level<Real>& level = levels.level[l];
            level.scale = static_cast<Real>(1.7 * (l + 1));
            for (int i = 0; i < n; ++i) level.shift[i] = static_cast<Real>(0.3 * i + 0.1 * l);
            level.offset = entries;
            level.size = l == 3 ? 1u << 13 : 8;  // 8: summed in shared memory where n > 2
            level.mask = level.size - 1;
            level.dense = l == 0;
            if (level.dense) {
                const bool simplex = shape.lattice == Lattice::simplex;
                level.a = simplex ? 6 : 7;
                level.k = simplex ? static_cast<int32_t>(std::ceil(level.a * simplex::skew<double>(n))) : 0;
                double size = level.a + n * level.k;
                for (int i = 1; i < n; ++i) size *= level.a;
                // in many dimensions a dense level of this scale is too large for a test
                if (size > 40000) level.dense = false;
                if (level.dense) level.size = static_cast<uint32_t>(size);
            }
            entries += level.size;
        }
        return entries;
    }

    template <int N>
    std::vector<Vertex<Real>> vertices(const Real* at, const Real* along, int l) const {
        const Level<Real>& level = levels.level[l];
        Real moves[N];
        for (int i = 0; i < N; ++i)
            moves[i] = along != nullptr && passes(at[i], shape.bounds) ? along[i] : Real(0);
        std::vector<Vertex<Real>> found;
        if (shape.lattice == Lattice::simplex) {
            Cell<N, Real> cell = simplex::locate<N, Real>(level, at, shape.bounds);
            int order[N];
            Real weight[N + 1];
            uint32_t index[N + 1];
            simplex::sort_axes<N, Real>(cell.f, order);
            simplex::weights_of<N, Real>(cell.f, cell.valid, weight);
            if (along != nullptr) simplex::slopes_of<N, Real>(level, moves, order, cell.valid, weight);
            simplex::indices_of<N, Real>(level, cell.v, order, shape.bounds, index);
            for (int k = 0; k <= N; ++k) found.push_back({level.offset + index[k], weight[k]});
            return found;
        }
        const Cell<N, Real> cell = grid::locate<N, Real>(level, at, shape.bounds);
        for (int k = 0; k < 1 << N; ++k) {
            Real weight = grid::weight_of<N, Real>(cell.f, cell.valid, k);
            if (along != nullptr) {
                weight = 0;
                for (int i = 0; i < N; ++i)
                    weight = fma(moves[i], grid::slope_of<N, Real>(cell.f, cell.valid, k, i), weight);
                weight = level.scale * weight;
            }
            found.push_back({level.offset + grid::index_of<N, Real>(level, cell.v, shape.bounds, k), weight});
        }
        return found;
    }

    // visit(p, l, vertices) for all points and levels in use
    template <int N, class Visit>
    void each(bool slopes, const Visit& visit) const {
        for (int64_t p = 0; p < shape.points; ++p) {
            for (int l = 0; l < kUsed; ++l)
                visit(p, l, vertices<N>(&x[p * N], slopes ? &u[p * N] : nullptr, l));
        }
    }

    int64_t column(int64_t p, int l, int c) const { return (p * kLevels + l) * shape.features + c; }
};

// E and J, in the type `out`.
template <int N, class Real>
bool features_equal(const Problem<Real>& problem, bool slopes, DType out_type) {
    const int features = problem.shape.features;
    Rows out(out_type, problem.grad.count), expected(out_type, problem.grad.count);
    problem.template each<N>(slopes, [&](int64_t p, int l, const auto& vertices) {
        for (int c = 0; c < features; ++c) {
            Real sum = 0;
            for (const auto& v : vertices)
                sum = fma(v.weight, static_cast<Real>(problem.table.get(v.entry * features + c)), sum);
            expected.set(problem.column(p, l, c), sum);
        }
    });
    for (int64_t i = 0; i < out.count; ++i) out.set(i, Real(7));
    encode_cuda<Real>(nullptr, problem.shape, problem.levels, problem.x.data(),
                      slopes ? problem.u.data() : nullptr, {problem.table.data(), problem.table.type},
                      {out.data(), out.type});
    bool equal = true;
    for (int64_t i = 0; i < out.count; ++i) equal = equal && same(out.get(i), expected.get(i));
    return equal;
}

// V: every derivative is J along an axis times the upstream gradient, up to rounding.
template <int N, class Real>
bool gradient_close(Problem<Real> problem) {
    const int features = problem.shape.features;
    std::vector<double> expected(problem.x.size(), 0.0), size(problem.x.size(), 1.0);
    for (int i = 0; i < N; ++i) {
        for (size_t j = 0; j < problem.u.size(); ++j) problem.u[j] = static_cast<int>(j % N) == i ? 1 : 0;
        problem.template each<N>(true, [&](int64_t p, int l, const auto& vertices) {
            for (const auto& v : vertices) {
                for (int c = 0; c < features; ++c) {
                    const double term = v.weight * problem.table.get(v.entry * features + c) *
                                        problem.grad.get(problem.column(p, l, c));
                    expected[p * N + i] += term;
                    size[p * N + i] += std::abs(term);
                }
            }
        });
    }
    const std::unique_ptr<Real[]> dx(new Real[problem.x.size()]);
    encode_vjp_x_cuda<Real>(nullptr, problem.shape, problem.levels, problem.x.data(),
                            {problem.table.data(), problem.table.type},
                            {problem.grad.data(), problem.grad.type}, dx.get());
    bool close = true;
    for (size_t i = 0; i < expected.size(); ++i) {
        const double bound = 8 * std::numeric_limits<Real>::epsilon() * size[i];
        close =
            close && (std::isnan(expected[i]) ? std::isnan(dx[i]) : std::abs(dx[i] - expected[i]) <= bound);
    }
    return close;
}

template <class Real>
std::vector<Real> table_gradient(const Problem<Real>& problem, bool slopes, bool deterministic) {
    const size_t count = static_cast<size_t>(problem.table.count);
    std::vector<Real> table(count, Real(0));
    std::vector<int64_t> sums(deterministic ? count : 0, 0);
    std::vector<uint64_t> largest(deterministic ? kUsed : 0, 0);
    encode_vjp_table_cuda<Real>(
        nullptr, problem.shape, problem.levels, problem.x.data(), slopes ? problem.u.data() : nullptr,
        {problem.grad.data(), problem.grad.type},
        {deterministic ? sums.data() : nullptr, deterministic ? largest.data() : nullptr}, table.data());
    return table;
}

// S and S'. Sums of integers are compared bit for bit, so they are the same in every order of blocks.
template <int N, class Real>
bool table_gradient_right(const Problem<Real>& problem, bool slopes, bool deterministic) {
    const int features = problem.shape.features;
    const auto each_addend = [&](const std::function<void(int, int64_t, double)>& visit) {
        problem.template each<N>(slopes, [&](int64_t p, int l, const auto& vertices) {
            for (const auto& v : vertices) {
                if (std::isnan(v.weight)) continue;
                for (int c = 0; c < features; ++c)
                    visit(l, v.entry * features + c,
                          static_cast<double>(v.weight) * problem.grad.get(problem.column(p, l, c)));
            }
        });
    };
    const size_t count = static_cast<size_t>(problem.table.count);
    std::vector<double> sum(count, 0), size(count, 0), largest(kUsed, 0);
    std::vector<int64_t> integer(count, 0);
    std::vector<int> exponent(kUsed), level_of(count, 0);
    each_addend([&](int l, int64_t i, double addend) {
        sum[i] += addend;
        size[i] += std::abs(addend);
        largest[l] = std::max(largest[l], std::abs(addend));
    });
    const bool simplex = problem.shape.lattice == Lattice::simplex;
    const auto addends = static_cast<uint64_t>(problem.shape.points * (simplex ? N + 1 : 1 << N));
    for (int l = 0; l < kUsed; ++l)
        exponent[l] = 62 - (std::ilogb(static_cast<double>(addends)) + 1) - (std::ilogb(largest[l]) + 1);
    each_addend([&](int l, int64_t i, double addend) {
        integer[i] += std::llrint(std::ldexp(addend, exponent[l]));
        level_of[i] = l;
    });
    const std::vector<Real> table = table_gradient(problem, slopes, deterministic);
    bool right = true;
    for (size_t i = 0; i < count; ++i) {
        if (deterministic) {
            const auto exact =
                static_cast<Real>(std::ldexp(static_cast<double>(integer[i]), -exponent[level_of[i]]));
            right = right && table[i] == exact;
        }
        const double bound = (deterministic ? 2 : 8) * std::numeric_limits<Real>::epsilon() * size[i];
        right = right && std::abs(table[i] - sum[i]) <= bound + 1e-9 * deterministic;
    }
    return right;
}

template <int N, class Real>
void check(Lattice lattice, int features, Bounds bounds, int64_t points, DType table, DType grad, DType out,
           int64_t skip = 0) {
    const Problem<Real> problem(lattice, N, features, bounds, points, table, grad, skip);
    const std::string note = std::to_string(static_cast<int>(lattice)) + ", n = " + std::to_string(N) +
                             ", F = " + std::to_string(features) + ", types " +
                             std::to_string(static_cast<int>(table)) + std::to_string(static_cast<int>(grad));
    for (const bool slopes : {false, true}) {
        EXPECT_NOTE((features_equal<N>(problem, slopes, out)), note);
        for (const bool deterministic : {false, true})
            EXPECT_NOTE((table_gradient_right<N>(problem, slopes, deterministic)), note);
    }
    EXPECT_NOTE((gradient_close<N>(problem)), note);
}

template <int N>
void check_axes() {
    for (const Lattice lattice : {Lattice::simplex, Lattice::grid}) {
        const int64_t points = lattice == Lattice::grid && N > 5 ? 9 : 70;
        check<N, float>(lattice, 2, Bounds::clamp, points, DType::f32, DType::f32, DType::f32);
        check<N, float>(lattice, 4, Bounds::extend, points, DType::f16, DType::f16, DType::f16);
        check<N, float>(lattice, 1, Bounds::extend, points, DType::bf16, DType::f32, DType::f64);
        check<N, double>(lattice, 8, Bounds::clamp, 9, DType::f64, DType::bf16, DType::f64);
    }
}

FD_TEST(dimensions_1_to_4) { check_axes<1>(), check_axes<2>(), check_axes<3>(), check_axes<4>(); }
FD_TEST(dimensions_5_to_8) { check_axes<5>(), check_axes<6>(), check_axes<7>(), check_axes<8>(); }

FD_TEST(types_and_features) {
    constexpr DType kAll[] = {DType::f16, DType::bf16, DType::f32, DType::f64};
    for (const int features : {1, 2, 4, 8}) {
        for (const DType table : {DType::f16, DType::bf16, DType::f32}) {
            const DType other = kAll[(static_cast<int>(table) + features / 2) % 4];
            check<3, float>(Lattice::simplex, features, Bounds::clamp, 33, table, other, other);
        }
        check<2, double>(Lattice::grid, features, Bounds::extend, 33, DType::f16, DType::f32, DType::bf16);
    }
}

// Rows that do not lie at multiples of their size are read element by element.
FD_TEST(misaligned_rows) {
    for (const DType type : {DType::f16, DType::f32})
        check<3, float>(Lattice::simplex, 2, Bounds::clamp, 40, type, type, type, 1);
}

// More points than threads in flight: every kernel goes round.
FD_TEST(many_points) {
    check<2, float>(Lattice::simplex, 2, Bounds::clamp, 8900, DType::f32, DType::f32, DType::f32);
}

FD_TEST(order_of_points) {
    Problem<float> problem(Lattice::simplex, 3, 4, Bounds::clamp, 600, DType::f32, DType::f32);
    const std::vector<float> forwards = table_gradient(problem, false, true);
    const int64_t row = kLevels * 4;
    auto* grad = static_cast<float*>(problem.grad.data());
    for (int64_t p = 0, q = 599; p < q; ++p, --q) {
        std::swap_ranges(&problem.x[p * 3], &problem.x[p * 3] + 3, &problem.x[q * 3]);
        std::swap_ranges(grad + p * row, grad + p * row + row, grad + q * row);
    }
    EXPECT(table_gradient(problem, false, true) == forwards);
}

// An addend that no integer can hold spoils its level, and that one only.
FD_TEST(infinite_gradient) {
    Problem<float> problem(Lattice::simplex, 2, 2, Bounds::clamp, 50, DType::f32, DType::f32);
    problem.grad.set(problem.column(10, 1, 0), std::numeric_limits<float>::infinity());
    const std::vector<float> table = table_gradient(problem, false, true);
    const auto range = [&](int l) {
        const Level<float>& level = problem.levels.level[l];
        return std::pair(table.begin() + 2 * level.offset, table.begin() + 2 * (level.offset + level.size));
    };
    const auto is_nan = [](float value) { return std::isnan(value); };
    EXPECT(std::all_of(range(1).first, range(1).second, is_nan));
    for (const int l : {0, 2, 3}) EXPECT(std::none_of(range(l).first, range(l).second, is_nan));
}

// Units far from one: addends at both ends of the range of float64.
FD_TEST(extreme_gradients) {
    for (const double scale : {1e-280, 1e300}) {
        Problem<double> problem(Lattice::simplex, 2, 1, Bounds::clamp, 20, DType::f64, DType::f64);
        for (int64_t i = 0; i < problem.grad.count; ++i) problem.grad.set(i, problem.grad.get(i) * scale);
        const std::vector<double> fixed = table_gradient(problem, false, true);
        const std::vector<double> plain = table_gradient(problem, false, false);
        bool close = true;
        for (size_t i = 0; i < fixed.size(); ++i)
            close = close && std::abs(fixed[i] - plain[i]) <= 1e-9 * scale;
        EXPECT(close);
    }
}

FD_TEST(nothing_to_do) {
    Problem<float> problem(Lattice::grid, 2, 2, Bounds::clamp, 0, DType::f32, DType::f32);
    EXPECT((features_equal<2>(problem, false, DType::f32)) && (gradient_close<2>(problem)));
    for (const bool deterministic : {false, true}) {
        const std::vector<float> table = table_gradient(problem, true, deterministic);
        EXPECT(std::all_of(table.begin(), table.end(), [](float value) { return value == 0; }));
    }
}

}  // namespace
}  // namespace fd::encoding

FD_TEST_MAIN()
