// The quantile kernels, one block a sample and many, against sorting; tensors in exact-size blocks.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpp/testing.h"
#include "linear_step/abs_quantile_launch.h"

namespace fd::linear_step {
namespace {

template <class Acc>
std::vector<Acc> run(const QuantileArgs& args, const QuantileRank& rank) {
    constexpr bool kWide = sizeof(Acc) == 8;
    std::vector<unsigned long long> scratch(static_cast<size_t>(quantile_scratch(args, kWide)));
    const std::unique_ptr<Acc[]> out(new Acc[static_cast<size_t>(args.samples)]);
    abs_quantile_cuda(nullptr, args, rank, kWide, 0, INFINITY, out.get(),
                      scratch.empty() ? nullptr : scratch.data());
    return {out.get(), out.get() + args.samples};
}

// `shift` elements in front take the tensor off its 16-byte alignment.
template <class Acc, class T, class Value>
void check(int64_t samples, int64_t elements, int64_t shift, const std::vector<double>& quantiles,
           Value value) {
    const size_t count = static_cast<size_t>(samples * elements + shift);
    const std::unique_ptr<T[]> memory(new T[count]), other(new T[count]);
    T *x = memory.get() + shift, *out = other.get() + shift;
    for (int64_t i = 0; i < samples * elements; ++i) {
        x[i] = static_cast<T>(value(i));
        out[i] = static_cast<T>(static_cast<float>(i % 5));
    }
    const std::unique_ptr<double[]> coef(new double[static_cast<size_t>(2 * kCoef)]());
    coef[kCoef + kCx] = -2, coef[kCoef + kCo] = 0.5;
    const std::unique_ptr<double[]> weights(new double[4]{1, 0.25, 9, 9});
    const int64_t step = 1;
    QuantileArgs args{};
    args.samples = samples, args.elements = elements;
    args.x = x, args.x_type = dtype_of<T>;
    args.outs[0] = args.outs[1] = out, args.out_type = dtype_of<T>, args.n_outs = 2;
    args.coef = coef.get(), args.step = &step, args.steps = 2, args.coef_batch = 1;
    args.weights = weights.get(), args.weight_steps = 1, args.weight_batch = 1;
    for (const double q : quantiles) {
        const QuantileRank rank = quantile_rank(q, elements, sizeof(Acc) == 8);
        const std::vector<Acc> got = run<Acc>(args, rank);
        for (int64_t b = 0; b < samples; ++b) {
            std::vector<Acc> u;
            for (int64_t i = b * elements; i < (b + 1) * elements; ++i) {
                const Acc o = fma(Acc(0.25), static_cast<Acc>(out[i]), static_cast<Acc>(out[i]));
                u.push_back(std::fabs(fma(Acc(0.5), o, Acc(-2) * static_cast<Acc>(x[i]))));
            }
            std::sort(u.begin(), u.end());
            const size_t below = static_cast<size_t>(rank.below);
            const Acc low = u[below], high = rank.weight > 0 ? u[below + 1] : low;
            const Acc want =
                finish_quantile<Acc>(magnitude_key(low), magnitude_key(high), rank.weight, 0, INFINITY);
            EXPECT_NOTE(got[static_cast<size_t>(b)] == want, std::to_string(elements) + " elements, q " +
                                                                 std::to_string(q) + ", got " +
                                                                 std::to_string(got[static_cast<size_t>(b)]) +
                                                                 " instead of " + std::to_string(want));
        }
    }
}

template <class Acc, class T>
void check_sizes() {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    const auto random = [&](int64_t) { return normal(generator); };
    const auto ties = [](int64_t i) { return static_cast<float>(i * 7 % 3); };
    for (const int64_t elements : {1, 2, 9, 512, 4104})
        check<Acc, T>(2, elements, elements % 3, {0.4, 1.0}, random);
    check<Acc, T>(2, (1 << 15) + 8, 0, {0.4}, random);
    check<Acc, T>(1, (1 << 15) + 3, 1, {0.995}, ties);
}

FD_TEST(float32) { check_sizes<float, float>(); }
FD_TEST(float64) { check_sizes<double, double>(); }
FD_TEST(float16) { check_sizes<float, half>(); }
FD_TEST(bfloat16_type) { check_sizes<float, bfloat16>(); }

FD_TEST(several_samples_a_block) {
    check<float, float>(20, 3, 0, {0.0, 0.7}, [](int64_t i) { return static_cast<float>(i * 37 % 11); });
}

FD_TEST(nan_makes_its_sample_nan) {
    for (const int64_t elements : {7, (1 << 15) + 1}) {
        std::vector<float> x(static_cast<size_t>(3 * elements), 1.0f);
        x[static_cast<size_t>(2 * elements - 1)] = NAN;
        std::vector<double> coef(kCoef);
        coef[kCx] = 1;
        const int64_t step = 0;
        QuantileArgs args{};
        args.samples = 3, args.elements = elements, args.x = x.data(), args.x_type = DType::f32;
        args.coef = coef.data(), args.step = &step, args.steps = 1, args.coef_batch = 1;
        const std::vector<float> got = run<float>(args, quantile_rank(0.5, elements, false));
        EXPECT(got[0] == 1 && std::isnan(got[1]) && got[2] == 1);
    }
}

}  // namespace
}  // namespace fd::linear_step

FD_TEST_MAIN()
