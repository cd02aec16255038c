// Tests of the emulation itself: clean kernels give the right numbers, planted bugs are reported.
// CMakeLists.txt says which mode (plain, AddressSanitizer with UBSan, ThreadSanitizer) has to report which.
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cpp/testing.h"
#include "kernels.h"

extern "C" uint64_t fastdiff_ops_emulation_launches();

namespace {

using fd::testing::throws;

// Exact-size heap blocks: one element too far is reported.
std::vector<float> ramp(int64_t n) {
    std::vector<float> x(static_cast<size_t>(n));
    for (size_t i = 0; i < x.size(); ++i) x[i] = 0.5f * static_cast<float>(i % 1000) - 100.0f;
    return x;
}

}  // namespace

FD_TEST(axpby_in_every_size) {
    for (const int64_t n : {0, 1, 3, 4, 5, 255, 1024, 4099, 20001}) {
        const std::vector<float> x = ramp(n), y(x.rbegin(), x.rend());
        std::vector<float> out(x.size(), -1.0f);
        fd::axpby_cuda(out.data(), x.data(), y.data(), 2.0f, -0.25f, n);
        for (size_t i = 0; i < x.size(); ++i) EXPECT(out[i] == std::fma(2.0f, x[i], -0.25f * y[i]));

        std::vector<fd::half> hx(x.begin(), x.end()), hy(y.begin(), y.end()), ho(x.size());
        fd::axpby_cuda(ho.data(), hx.data(), hy.data(), 2.0f, -0.25f, n);
        for (size_t i = 0; i < x.size(); ++i) {
            EXPECT(ho[i].x == fd::half(std::fma(2.0f, float(hx[i]), -0.25f * float(hy[i]))).x);
        }
    }
}

FD_TEST(block_reduction) {
    const std::vector<float> x = ramp(5000);
    std::vector<double> sums(3);
    fd::block_sums_cuda(sums.data(), x.data(), 5000, 3);
    const double expected = std::accumulate(x.begin(), x.end(), 0.0);  // exact: halves of small integers
    EXPECT(sums[0] + sums[1] + sums[2] == expected);
    EXPECT(sums[0] != 0.0);
}

FD_TEST(atomics_and_active_masks) {
    std::mt19937 random(1);
    std::vector<int> keys(1000);
    std::vector<unsigned> counts(10), expected(10);
    for (int& key : keys) ++expected[static_cast<size_t>(key = static_cast<int>(random() % 10))];
    unsigned leaders = 0;
    fd::histogram_cuda(counts.data(), &leaders, keys.data(), 1000);
    EXPECT(counts == expected);
    EXPECT(leaders >= 32 * 8 &&
           leaders <= 320);  // about ten different keys in each of 32 warps, not 1000 threads
}

FD_TEST(dynamic_shared_memory) {
    std::vector<int> x(64), out(64);
    std::iota(x.begin(), x.end(), 0);
    fd::reverse_cuda(out.data(), x.data(), 64);
    for (int i = 0; i < 64; ++i) EXPECT(out[static_cast<size_t>(i)] == 63 - i);
}

FD_TEST(warp_primitives) {
    for (const int threads : {32, 64, 48}) {
        std::vector<unsigned> all(static_cast<size_t>(threads) * 16);
        fd::warp_primitives_cuda(all.data(), threads);
        for (int t = 0; t < threads; ++t) {
            const unsigned* r = all.data() + t * 16;
            const unsigned lane = static_cast<unsigned>(t % 32);
            const unsigned lanes = t / 32 * 32 + 32 <= threads ? 32 : static_cast<unsigned>(threads % 32);
            const unsigned mask = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1u;
            EXPECT(r[0] == 5);
            EXPECT(r[1] == (lane & ~7u) + 1);
            EXPECT(r[2] == (lane % 16 >= 3 ? lane - 3 : lane));
            EXPECT(r[3] == (lane % 16 < 13 ? lane + 3 : lane));
            EXPECT(r[4] == (lane ^ 4u));
            EXPECT(r[5] == (0x49249249u & mask));
            EXPECT(r[6] == (lanes == 32));
            EXPECT(r[7] == 1);
            EXPECT(r[8] == 0xfu << (lane & ~3u));
            EXPECT(r[9] == 0xffffffffu);
            EXPECT(r[10] == lanes * (lanes - 1) / 2);
            EXPECT(static_cast<int>(r[11]) == -static_cast<int>(lanes - 1));
            EXPECT(r[12] == mask);
            EXPECT(r[13] == (lane < 16 ? (lane ^ 1u) : 100u));
            EXPECT(r[14] == (lane < 16 ? 0xffffu : mask & 0xffff0000u));
            EXPECT(r[15] == mask);
        }
    }
}

FD_TEST(intrinsics) {
    const std::vector<double> expected = {
        16, -0x1p-60, 1.5, 65536, 3,          31, 32, 63, 4, 41, 0, 8,  64, 0x1p31,
        1,  -2.5,     2,   0,     2147483647, 3,  3,  1,  5, 4,  0, 37, 15, 0.75,
    };
    std::vector<double> results(expected.size(), NAN);
    fd::intrinsics_cuda(results.data());
    for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_NOTE(results[i] == expected[i],
                    "entry " + std::to_string(i) + " is " + std::to_string(results[i]));
    }
}

FD_TEST(launches_are_counted_and_checked) {
    const uint64_t before = fastdiff_ops_emulation_launches();
    fd::launch_cuda(2, 1024, 227 * 1024);
    fd::launch_cuda(0, 32, 0);  // an empty grid launches nothing
    EXPECT(fastdiff_ops_emulation_launches() == before + 1);
    EXPECT(throws([] { fd::launch_cuda(1, 1025, 0); }, "at most 1024 threads"));
    EXPECT(throws([] { fd::launch_cuda(1, 0, 0); }, "invalid configuration"));
    EXPECT(throws([] { fd::launch_cuda(1, 32, 227 * 1024 + 1); }, "227 KiB"));
    EXPECT(throws([] { fd::launch_cuda(0x80000000u, 32, 0); }, "invalid configuration, grid"));
}

FD_TEST(misuse_is_reported_and_survived) {
    std::vector<float> out(64);
    EXPECT(throws([&] { fd::planted_divergent_barrier(out.data()); }, "32 at __syncthreads"));
    EXPECT(throws([&] { fd::planted_divergent_barrier(out.data()); }, "32 have returned"));
    EXPECT(throws([&] { fd::planted_early_return(out.data()); }, "__shfl_down_sync"));
    EXPECT(throws([&] { fd::planted_two_barriers(out.data()); }, "for ever"));
    EXPECT(throws([&] { fd::planted_wrong_mask(out.data()); }, "is not in its own mask"));
    EXPECT(throws([&] { fd::planted_nested_launch(out.data()); }, "a kernel launches a kernel"));
    EXPECT(throws([&] { fd::planted_throw(out.data()); }, "thread (3, 0, 0)"));
    block_reduction();  // abandoned threads leave nothing behind
}

FD_TEST(planted_read_past_end) {
    const std::vector<float> x = ramp(100);
    std::vector<float> out(100);
    fd::planted_read_past_end(out.data(), x.data(), 100);
}
FD_TEST(planted_write_past_dynamic) {
    std::vector<float> out(64);
    fd::planted_write_past_dynamic(out.data());
}
FD_TEST(planted_index_past_static) {
    std::vector<float> out(64);
    fd::planted_index_past_static(out.data(), 64);
}
FD_TEST(planted_misaligned) {
    const std::vector<float> x = ramp(16);
    std::vector<float> out(32);
    fd::planted_misaligned(out.data(), x.data());
}
FD_TEST(planted_missing_barrier) {
    const std::vector<float> x(256, 1.0f);
    std::vector<float> out(1);
    fd::planted_missing_barrier(out.data(), x.data());
    EXPECT(out[0] == 256.0f);
}
FD_TEST(planted_missing_warp_barrier) {
    const std::vector<float> x = ramp(32);
    std::vector<float> out(32);
    fd::planted_missing_warp_barrier(out.data(), x.data());
}
FD_TEST(planted_divergent_barrier) {
    std::vector<float> out(64);
    fd::planted_divergent_barrier(out.data());
}
FD_TEST(planted_stack_overflow) {
    std::vector<float> out(32);
    fd::planted_stack_overflow(out.data(), 1000);
}

FD_TEST_MAIN()
