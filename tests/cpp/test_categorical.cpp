// Noise of the categorical draws: golden numbers, accuracy at every scale, and bounds against the largest
// noise that each prefix allows.
#include <cmath>
#include <vector>

#include "categorical/categorical.h"
#include "cpp/testing.h"

namespace fd::categorical {
namespace {

constexpr RowKey kKey{0x123456789ABCDEF0u, uint64_t{3} << 32 | 17, 2};
constexpr PhiloxWords kZeros{{0, 0, 0, 0}}, kOnes{{~0u, ~0u, ~0u, ~0u}};

FD_TEST(golden_noise) {
    struct Golden {
        uint32_t v;
        double element, block16;
    };
    const Golden table[] = {{0, -0x1.b9ecb6ce870d7p-1, 0x1.86e4bec52eec0p-1},
                            {1, 0x1.f82f4b93de74fp+0, 0x1.ae306f4035f6dp+1},
                            {7, -0x1.153d3434bf44fp+0, 0x1.b3e6897ea7ecbp+0},
                            {8, 0x1.3087245899ba6p+0, -0x1.36ef63786e6fcp+0},
                            {4095, -0x1.3ad44f1493709p-3, 0x1.0fee6af82c87bp+1},
                            {50256, -0x1.7338fa883a47cp-1, 0x1.e660c6232b1a2p+0}};
    for (const Golden& g : table) {
        EXPECT(noise_at(Stream::element, kKey, g.v) == g.element);
        EXPECT(noise_at(Stream::block16, kKey, g.v) == g.block16);
    }
    Choice element, block16;
    for (int32_t v = 0; v < 5000; ++v) {
        element.offer(noise_at(Stream::element, kKey, static_cast<uint32_t>(v)), v);
        block16.offer(noise_at(Stream::block16, kKey, static_cast<uint32_t>(v)), v);
    }
    EXPECT(element.token == 458 && block16.token == 2974);
}

FD_TEST(uniforms_at_the_ends) {
    EXPECT(uniform(0, kZeros) == 0x1p-129);
    EXPECT(uniform(0xffff, kOnes) == 1 - 0x1p-53);
    EXPECT(uniform(0x8000, kZeros) == 0.5 + 0x1p-53);  // the sticky bit
    for (int bit = 0; bit < 128; ++bit) {              // one bit of the fraction after the other
        const int in_tail = bit - 16, word = in_tail / 32;
        PhiloxWords tail = kZeros;
        uint32_t prefix = 0;
        if (bit < 16) {
            prefix = 0x8000u >> bit;
        } else {
            tail.w[word] = 0x80000000u >> (in_tail % 32);
        }
        const double w = uniform(prefix, tail);
        EXPECT(w == std::ldexp(1 + 0x1p-52, -1 - bit));
    }
    PhiloxWords place = kZeros;  // the lower half of the last word chooses the place in a block
    place.w[3] = 0xffff;
    EXPECT(uniform(0, place) == 0x1p-129);
}

// In units of 2^-53.
double relative_error(double got, long double want) {
    return static_cast<double>(std::fabs((static_cast<long double>(got) - want) / want)) * 0x1p53;
}

FD_TEST(logarithms_are_accurate_at_every_scale) {
    double log_error = 0, time_error = 0, gumbel_error = 0;
    uint64_t state = 1;
    for (int exponent = -129; exponent <= 2; ++exponent) {
        for (int i = 0; i < 2000; ++i) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            const double x = std::ldexp(1 + static_cast<double>(state >> 12) * 0x1p-52, exponent);
            log_error =
                std::fmax(log_error, relative_error(log_exact(x), std::log(static_cast<long double>(x))));
            const double w = static_cast<double>(state >> 11 | 1) * std::ldexp(1.0, exponent - 53);
            if (w >= 1) continue;
            const long double time = -std::log1p(-static_cast<long double>(w));
            time_error = std::fmax(time_error, relative_error(exponential(w), time));
            const double g = gumbel(exponential(w));
            gumbel_error = std::fmax(
                gumbel_error, static_cast<double>(std::fabs(static_cast<long double>(g) + std::log(time))));
        }
    }
    EXPECT_NOTE(log_error < 1.4, std::to_string(log_error));
    EXPECT_NOTE(time_error < 2.1, std::to_string(time_error));
    EXPECT_NOTE(gumbel_error < 1.5e-14, std::to_string(gumbel_error));
    EXPECT(gumbel(exponential(0x1p-129)) < 89.5);
}

const double kTemperatures[] = {1e-38, 1e-30, 1e-4, 0.2, 1, 2, 1e4};
const double kLogits[] = {0, 1e-40, -3.7, 20, 1e4, -1e4, 3e38, -3e38};

// z of the largest noise that the prefix allows is not below what its bound lets through.
void check_bound(double temperature, double l, double g, int32_t steps) {
    const Bound bound(temperature);
    const double z = perturbed(temperature, g, static_cast<double>(static_cast<float>(l)));
    const bool kept = bound.of(steps, static_cast<float>(l)) >= bound.threshold(z);
    EXPECT_NOTE(kept,
                "T " + std::to_string(temperature) + " l " + std::to_string(l) + " g " + std::to_string(g));
}

FD_TEST(bounds_hold_for_every_prefix) {
    for (uint32_t k = 0; k < 65536; ++k) {
        const double time = exponential(uniform(k, kZeros));
        const double g = gumbel(time), in_block = gumbel(time * 0.0625);
        // The bound itself, exactly: a chord below the logarithm.
        EXPECT(g <= static_cast<double>(element_steps(k)) * (0.6931471805599453 * 0x1p-23) * (1 + 1e-15));
        EXPECT(in_block <=
               static_cast<double>(block_steps(k)) * (0.6931471805599453 * 0x1p-23) * (1 + 1e-15));
        if (k % 16 != 0 && k > 1000) continue;
        for (const double t : kTemperatures) {
            for (const double l : kLogits) {
                check_bound(t, l, g, element_steps(k));
                check_bound(t, l, in_block, block_steps(k));
            }
        }
    }
}

FD_TEST(bounds_hold_inside_of_blocks) {
    for (const uint32_t outer : {0u, 1u, 2u, 3u, 100u, 0x7fffu, 0x8000u, 0xffffu}) {
        for (const PhiloxWords& tail : {kZeros, kOnes, kKey.words(StreamTag::block_tail, outer)}) {
            const BlockNoise block{exponential(uniform(outer, tail)) * 0.0625, 0};
            for (uint32_t k = 0; k < 65536; k += k < 600 ? 1 : 97) {
                const double g = gumbel(block.time + exponential(uniform(k, kZeros)));
                for (const double t : kTemperatures) {
                    for (const double l : kLogits) check_bound(t, l, g, inner_steps(block, k));
                }
            }
        }
    }
}

FD_TEST(bounds_are_tight) {  // else lazy evaluation would compute everything
    for (uint32_t k = 1; k < 4096; ++k) {
        const double g = gumbel(exponential(uniform(k, kZeros)));
        const float bound = Bound(1).of(element_steps(k), 0.0f);
        EXPECT(static_cast<double>(bound) < g + 0.0597 + k * 0x1p-16);
    }
}

FD_TEST(thresholds) {
    const double infinity = std::numeric_limits<double>::infinity();
    const float lowest = std::numeric_limits<float>::lowest(), highest = std::numeric_limits<float>::max();
    EXPECT(Bound(1).threshold(-infinity) == lowest);
    EXPECT(Bound(1).threshold(-1e300) == lowest && Bound(1).threshold(1e300) == highest);
    EXPECT(Bound(1).threshold(infinity) == std::numeric_limits<float>::infinity());
    for (const double z : {-1e10, -1.0, -1e-50, 0.0, 1e-50, 1.0, 16777217.0, 1e30}) {
        const float down = round_down(z);
        EXPECT(static_cast<double>(down) <= z);
        EXPECT(static_cast<double>(std::nextafter(down, std::numeric_limits<float>::infinity())) > z);
        EXPECT(static_cast<double>(Bound(0.5).threshold(z)) < z);
    }
    EXPECT(bound_logit(-1e300) == lowest && bound_logit(-infinity) == kMinusInfinity<float>);
}

FD_TEST(order_of_choices) {
    const double values[] = {
        -std::numeric_limits<double>::infinity(), -1e300, -1.0, -1e-320, 0.0, 1e-320, 3.0,
        std::numeric_limits<double>::infinity()};
    for (const double a : values) {
        EXPECT(from_order_key(order_key(a)) == a);
        for (const double b : values) EXPECT((order_key(a) < order_key(b)) == (a < b));
    }
    EXPECT(order_key(-0.0) == order_key(0.0));
    Choice choice;
    choice.offer(-std::numeric_limits<double>::infinity(), 0);
    EXPECT(choice.token == -1);
    choice.offer(1, 7);
    choice.offer(1, 9);
    EXPECT(choice.token == 7);
    choice.offer(1, 3);
    EXPECT(choice.token == 3);
}

FD_TEST(blocks_and_places) {
    for (uint32_t v = 0; v < 3 * kTile; v += 37) {
        EXPECT(index_in_block(block_of(v), place_of(v)) == v);
        EXPECT(block_of(v) == v / 4096 * 256 + v % 256 && place_of(v) == static_cast<int>(v / 256 % 16));
    }
    EXPECT(block_of((1u << 28) - 1) == (1u << 24) - 1);
}

FD_TEST(processing_of_one_logit) {
    const float logits[] = {1, 2, NAN, 3, 4, 5, 0.5f}, uncond[] = {0, 1, 0, 0, INFINITY, 0, 0};
    const bool suppressed[] = {false, false, false, true, false, false, false};
    const float bias[] = {0, 0.25f, 0, 0, 0, 0, 0};
    const int64_t forbidden[] = {15, 99};
    Row<float> row{};
    row.logits = logits;
    row.uncond = uncond;
    row.guidance = 3;
    row.bias = bias;
    row.suppressed = suppressed;
    row.forbidden = forbidden;
    row.n_forbidden = 2;
    row.vocab_start = 10;
    row.threshold = 2;
    const float want[] = {3, 4.25f, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    for (const bool sorted : {false, true}) {
        row.forbidden_sorted = sorted;
        for (int j = 0; j < 7; ++j) EXPECT(row.at(j) == want[j]);
        EXPECT(row.unfiltered(6) == 1.5f);
    }
}

}  // namespace
}  // namespace fd::categorical

FD_TEST_MAIN()
