// The random stream where Python cannot look: every SIMD level's words against the scalar function, and
// blocks past the 28 bits of an index, which an allocated tensor would need 4 GB to reach.
#include "common/philox_cpu.h"
#include "common/philox_lanes.h"
#include "cpp/testing.h"
#include "random/random.h"

namespace fd {
namespace {

constexpr uint64_t kSeed = 0x123456789ABCDEF0u;

bool supported(simd::Level level) { return static_cast<int>(level) <= static_cast<int>(simd::level()); }

bool same(const PhiloxWords& a, const PhiloxChunk& chunk, int lane) {
    bool equal = true;
    for (int j = 0; j < 4; ++j) equal = equal && a.w[j] == chunk.w[j][lane];
    return equal;
}

FD_TEST(golden_vectors) {
    const PhiloxWords zero = philox4x32(0, 0, 0, 0, 0, 0);
    EXPECT(zero.w[0] == 0x6627e8d5 && zero.w[1] == 0xe169c58d && zero.w[2] == 0xbc57ac4c &&
           zero.w[3] == 0x9b00dbd8);
    const PhiloxWords ones = philox4x32(~0u, ~0u, ~0u, ~0u, ~0u, ~0u);
    EXPECT(ones.w[0] == 0x408f276d && ones.w[1] == 0x41c83b0e && ones.w[2] == 0xa20bc7c6 &&
           ones.w[3] == 0x6d5451fd);
}

FD_TEST(blocks_past_the_index_continue_in_the_row) {
    const PhiloxStream stream(StreamTag::normal, kSeed, 2, 17);
    for (const uint64_t high : {0u, 1u, 1023u}) {
        for (const uint32_t index : {0u, 1u, (1u << 28) - 1}) {
            const PhiloxWords got = stream.block(high << 28 | index);
            const PhiloxWords want =
                philox4x32(10u << 28 | index, 17, static_cast<uint32_t>(high), 2,
                           static_cast<uint32_t>(kSeed), static_cast<uint32_t>(kSeed >> 32));
            for (int j = 0; j < 4; ++j) EXPECT(got.w[j] == want.w[j]);
        }
    }
}

template <simd::Level L>
void check_chunks() {
    if (!supported(L)) return;
    const PhiloxStream stream(StreamTag::uniform, kSeed, ~0u, uint64_t{5} << 32 | 0xfffffff0u);
    for (const uint64_t first : {uint64_t{0}, (uint64_t{1} << 28) - 20, (uint64_t{1} << 40) + 7}) {
        uint64_t blocks[kPhiloxChunk];
        for (int i = 0; i < kPhiloxChunk; ++i) blocks[i] = first + static_cast<uint64_t>(i);
        PhiloxChunk chunk;
        philox_chunk<L>(stream, blocks, chunk);
        for (int i = 0; i < kPhiloxChunk; ++i) EXPECT(same(stream.block(blocks[i]), chunk, i));
    }
}

template <simd::Level L>
void check_lanes() {
    if (!supported(L)) return;
    PhiloxLanes lanes;
    const auto stream = [](int i) {
        return PhiloxStream(StreamTag::normal, kSeed * static_cast<uint64_t>(i),
                            ~0u - static_cast<uint32_t>(i), ~uint64_t{0} / 4 * static_cast<uint64_t>(i));
    };
    const auto block = [](int i) { return ((uint64_t{1} << 28) - 30) + static_cast<uint64_t>(i); };
    for (int i = 0; i < kPhiloxChunk; ++i) lanes.set(i, stream(i), block(i));
    PhiloxChunk chunk;
    philox_lanes<L>(lanes, chunk);
    for (int i = 0; i < kPhiloxChunk; ++i) EXPECT(same(stream(i).block(block(i)), chunk, i));
}

FD_TEST(simd_words_equal_scalar_words) {
    check_chunks<simd::Level::scalar>();
    check_chunks<simd::Level::avx2>();
    check_chunks<simd::Level::avx512>();
    check_lanes<simd::Level::scalar>();
    check_lanes<simd::Level::avx2>();
    check_lanes<simd::Level::avx512>();
}

FD_TEST(normals_of_a_range_that_crosses_the_wrap) {
    const PhiloxStream stream(StreamTag::normal, kSeed, 1, 3);
    const int64_t first = (int64_t{4} << 28) - 333;
    float got[1000], want[4];
    normals_range<simd::Level::scalar>(stream, first, 1000, got);
    for (int i = 0; i < 1000; ++i) {
        normals_of_block(stream, static_cast<uint64_t>(first + i) / 4, want);
        EXPECT(got[i] == want[(first + i) % 4]);
    }
}

// Box-Muller against the C library on the words that could go wrong: ends of the unit interval, borders of
// quadrants.
FD_TEST(normals_at_the_edges) {
    const uint32_t edges[] = {0,           1,           2,           0x1fffffff,  0x20000000,
                              0x3fffffff,  0x40000000,  0x7fffffff,  0x80000000u, 0xbfffffffu,
                              0xc0000000u, 0xfffffeffu, 0xffffff00u, 0xfffffffeu, 0xffffffffu};
    for (const uint32_t radius_word : edges) {
        for (const uint32_t angle_word : edges) {
            const NormalPair got = box_muller(radius_word, angle_word);
            const double u = std::fma(static_cast<float>(radius_word), 0x1p-32f, 0x1p-33f);
            const float fraction = static_cast<float>(static_cast<int32_t>(angle_word << 2)) * 0x1p-31f;
            const double angle = (angle_word >> 30) * 1.5707963267948966 + fraction * 0.78539816339744831;
            const double r = std::sqrt(-2 * std::log(u));
            EXPECT(u > 0 && u <= 1);
            EXPECT(std::fabs(got.z0 - r * std::cos(angle)) < 2e-6 &&
                   std::fabs(got.z1 - r * std::sin(angle)) < 2e-6);
        }
    }
}

FD_TEST(uniforms_stay_below_one) {
    EXPECT(uniform_of<float>(~0u) == 1 - 0x1p-24f);
    EXPECT(static_cast<float>(static_cast<half>(uniform_of<half>(~0u))) == 1 - 0x1p-11f);
    EXPECT(static_cast<float>(static_cast<bfloat16>(uniform_of<bfloat16>(~0u))) == 1 - 0x1p-8f);
    EXPECT(uniform_of(~0u, ~0u) == 1 - 0x1p-53);
    EXPECT(uniform_of<float>(0xff) == 0 && uniform_of(0, 0x7ff) == 0);
    EXPECT(uniform_of(0, 0x800) == 0x1p-53 && uniform_of(1, 0) == 0x1p-32);
}

}  // namespace
}  // namespace fd

FD_TEST_MAIN()
