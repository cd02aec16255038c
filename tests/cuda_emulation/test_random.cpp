// The random kernels in exact-size blocks: equal to the shared functions element by element, nothing written
// outside.
#include <memory>
#include <vector>

#include "cpp/testing.h"
#include "random/random.h"
#include "random/random_launch.h"

namespace fd {
namespace {

constexpr int64_t kSizes[][2] = {
    {1, 1},   {3, 5},    {2, 8},     {5, 16},   {1, 2051},
    {300, 3}, {2, 4096}, {5, 20011}, {5, 20016}};  // the last ones: several turns a thread

template <class T>
T expected_normal(const PhiloxStream& stream, int64_t e) {
    float z[4];
    normals_of_block(stream, static_cast<uint64_t>(e) / 4, z);
    return static_cast<T>(z[e % 4]);
}

template <class T>
T expected_uniform(const PhiloxStream& stream, int64_t e) {
    if constexpr (sizeof(T) == 8) {
        const PhiloxWords p = stream.block(static_cast<uint64_t>(e) / 2);
        return uniform_of(p.w[e % 2 * 2], p.w[e % 2 * 2 + 1]);
    } else {
        return static_cast<T>(uniform_of<T>(stream.block(static_cast<uint64_t>(e) / 4).w[e % 4]));
    }
}

template <class T>
void check(bool per_sample) {
    for (const auto& [samples, elements] : kSizes) {
        std::vector<int64_t> rng{-5, 3};
        if (per_sample) {
            rng.clear();
            for (int64_t b = 0; b < samples; ++b)
                rng.insert(rng.end(), {b * (int64_t{1} << 40) - 7, b, 0xffffffff - b});
        }
        const size_t count = static_cast<size_t>(samples * elements);
        const std::unique_ptr<T[]> normal(new T[count]), uniform(new T[count]);
        random_normal_cuda(nullptr, normal.get(), rng.data(), per_sample, samples, elements);
        random_uniform_cuda(nullptr, uniform.get(), rng.data(), per_sample, samples, elements);
        bool equal = true;
        for (int64_t b = 0; b < samples; ++b) {
            const int64_t* r = rng.data() + (per_sample ? 3 * b : 0);
            const auto stream = [&](StreamTag tag) {
                return PhiloxStream(tag, static_cast<uint64_t>(r[0]), static_cast<uint32_t>(r[1]),
                                    static_cast<uint64_t>(per_sample ? r[2] : b));
            };
            for (int64_t e = 0; e < elements; ++e) {
                const size_t at = static_cast<size_t>(b * elements + e);
                equal = equal && normal[at] == expected_normal<T>(stream(StreamTag::normal), e) &&
                        uniform[at] == expected_uniform<T>(stream(StreamTag::uniform), e);
            }
        }
        EXPECT_NOTE(equal, std::to_string(samples) + " x " + std::to_string(elements));
    }
}

FD_TEST(float32) { check<float>(false), check<float>(true); }
FD_TEST(float64) { check<double>(false), check<double>(true); }
FD_TEST(float16) { check<half>(false), check<half>(true); }
FD_TEST(bfloat16_type) { check<bfloat16>(false), check<bfloat16>(true); }

FD_TEST(nothing_to_do) {
    const int64_t rng[2] = {1, 2};
    random_normal_cuda<float>(nullptr, nullptr, rng, false, 0, 5);
    random_uniform_cuda<float>(nullptr, nullptr, rng, false, 5, 0);
}

}  // namespace
}  // namespace fd

FD_TEST_MAIN()
