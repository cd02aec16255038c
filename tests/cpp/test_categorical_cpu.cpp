// The CPU draws: every SIMD level against scalar code, lazy against every noise computed, pieces of the
// vocabulary against the whole.
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "categorical/search_cpu.h"
#include "cpp/testing.h"

namespace fd::categorical {
namespace {

const simd::Level kLevels[] = {simd::Level::scalar, simd::Level::avx2, simd::Level::avx512};
bool supported(simd::Level level) { return static_cast<int>(level) <= static_cast<int>(simd::level()); }

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Calls check(leaves, scalar leaves) for each level above the scalar one.
template <class F>
void each_level(const F& check) {
    for (const simd::Level level : kLevels) {
        if (level != simd::Level::scalar && supported(level))
            check(leaves_of(level), leaves_of(simd::Level::scalar));
    }
}

std::vector<float> hard_logits(int n, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> l(static_cast<size_t>(n));
    for (float& x : l) {
        const auto kind = random() % 40;
        x = kind == 0   ? NAN
            : kind == 1 ? -INFINITY
            : kind == 2 ? INFINITY
            : kind == 3 ? 1e-40f
                        : 3 * normal(random);
    }
    return l;
}

FD_TEST(levels_agree_on_prefixes) {
    const PhiloxStream stream(StreamTag::element_prefix, 0x123456789ABCDEF0u, ~0u, uint64_t{7} << 33 | 5);
    each_level([&](const Leaves& a, const Leaves& b) {
        for (const uint32_t first : {0u, 32u, (1u << 28) - 64}) {
            std::vector<uint16_t> got(512), want(512);
            a.prefixes(stream, first, 64, got.data(), 0, 0);
            b.prefixes(stream, first, 64, want.data(), 0, 0);
            EXPECT(same_bits(got, want));
        }
    });
}

template <class T>
void check_maxima(int type) {
    const std::vector<float> l = hard_logits(kTile + 1, 3);
    std::vector<T> p(l.size());
    for (size_t i = 0; i < l.size(); ++i) fd::detail::narrow(l[i], p[i]);
    each_level([&](const Leaves& a, const Leaves& b) {
        for (const int rows : {1, 2, 3, 5, 15}) {
            std::vector<float> got(kStride, -1.0f), want(kStride, -1.0f);
            a.column_maxima[type](p.data() + 1, rows, got.data());
            b.column_maxima[type](p.data() + 1, rows, want.data());
            EXPECT(same_bits(got, want));
            got.assign(16, 0);
            want.assign(16, 0);
            a.row_maxima[type](p.data() + 1, rows, got.data());
            b.row_maxima[type](p.data() + 1, rows, want.data());
            EXPECT(same_bits(got, want));
        }
        std::vector<float> got(100), want(100);
        a.widen[type](p.data() + 1, 99, got.data());
        b.widen[type](p.data() + 1, 99, want.data());
        for (int i = 0; i < 99; ++i) EXPECT(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i])));
    });
}

FD_TEST(levels_agree_on_maxima) {
    check_maxima<half>(0);
    check_maxima<bfloat16>(1);
    check_maxima<float>(2);
}

FD_TEST(levels_agree_on_bounds_and_scans) {
    std::vector<float> l = hard_logits(kStride, 4);
    for (float& x : l) x = std::isnan(x) ? 0 : x;
    std::vector<uint16_t> prefix(kStride);
    for (int i = 0; i < kStride; ++i) prefix[i] = static_cast<uint16_t>(i < 20 ? i : i * 257);
    each_level([&](const Leaves& a, const Leaves& b) {
        for (const float least : {-INFINITY, 0.5f, INFINITY}) {
            std::vector<float> got(kStride), want(kStride);
            const float c = Bound(0.7).per_step;
            EXPECT(a.bounds(prefix.data(), l.data(), kStride, kBlockSteps, c, least, got.data()) ==
                   b.bounds(prefix.data(), l.data(), kStride, kBlockSteps, c, least, want.data()));
            EXPECT(same_bits(got, want));
        }
        EXPECT(a.largest(l.data(), kStride) == b.largest(l.data(), kStride));
        for (const float bound : {-INFINITY, 0.0f, 4.0f, INFINITY}) {
            for (int from = 0; from <= 201; ++from)
                EXPECT(a.next_at_least(l.data(), from, 201, bound) ==
                       b.next_at_least(l.data(), from, 201, bound));
        }
        for (const int limit : {0, 19, 5000, 65535})
            EXPECT(a.any_at_most(prefix.data(), static_cast<uint16_t>(limit)) ==
                   b.any_at_most(prefix.data(), static_cast<uint16_t>(limit)));
    });
}

FD_TEST(levels_agree_on_exponential_sums) {
    std::vector<float> l = hard_logits(1000, 5);
    for (float& x : l) x = x > 9.5f ? 9.5f : x;  // infinite logits take another way
    each_level([&](const Leaves& a, const Leaves& b) {
        for (const int n : {1, 31, 32, 33, 1000}) {
            std::vector<ExpSums> sums(2);
            a.exp_sums(l.data(), n, 9.5f, 0.8f, sums[0]);
            b.exp_sums(l.data(), n, 9.5f, 0.8f, sums[1]);
            EXPECT(sums[0].sum == sums[1].sum && sums[0].first == sums[1].first);
            EXPECT(sums[0].ties == sums[1].ties && sums[0].second == sums[1].second);
        }
    });
}

FD_TEST(exponential_sums_are_accurate) {
    std::vector<float> l(4000);
    for (size_t i = 0; i < l.size(); ++i) l[i] = -static_cast<float>(i) * 0.0213f;
    for (const simd::Level level : kLevels) {
        if (!supported(level)) continue;
        for (const float scale : {0.3f, 1.0f, 2.5f}) {
            ExpSums got;
            leaves_of(level).exp_sums(l.data(), static_cast<int>(l.size()), 0, scale, got);
            double sum = -1, first = 0;  // without the largest, which is counted
            for (const float x : l) {
                const double t = static_cast<double>(x) * static_cast<double>(scale);
                sum += std::exp(t);
                first += t * std::exp(t);
            }
            EXPECT(std::fabs(got.sum / sum - 1) < 3e-7 && std::fabs(got.first / first - 1) < 1e-6);
            EXPECT(got.ties == 1 && got.second == l[1]);
        }
    }
}

FD_TEST(levels_agree_on_exact_values_and_processing) {
    const RowKey key{99, 12345, 7};
    std::mt19937_64 random(1);
    const std::vector<float> from = hard_logits(1 << 12, 6), other = hard_logits(1 << 12, 7);
    each_level([&](const Leaves& a, const Leaves& b) {
        for (uint32_t i = 0; i < 300; ++i) {
            EXPECT(a.element_gumbel(key, i, i * 200) == b.element_gumbel(key, i, i * 200));
            BlockSearch got{};
            got.block = i;
            got.prefix = i * 211 % 65536;
            for (int j = 0; j < kPlaces; ++j) {
                const float x = from[random() % from.size()];
                got.bounds[j] = std::isnan(x) ? kMinusInfinity<float> : x;
                got.l[j] = static_cast<double>(got.bounds[j]);
            }
            BlockSearch want = got;
            const double t = i % 5 == 0 ? 0.0 : 0.3 * (i % 7);
            const float bar = i % 3 == 0 ? std::numeric_limits<float>::lowest() : static_cast<float>(i % 11);
            for (BlockSearch* s : {&got, &want}) {
                const Leaves& leaf = s == &got ? a : b;
                leaf.find_places(key, Bound(t), bar, *s);
                leaf.exact_places(key, t, *s);
            }
            EXPECT(got.places == want.places);
            for (int j = 0; j < kPlaces; ++j) EXPECT((got.places >> j & 1) == 0 || got.z[j] == want.z[j]);
        }
        for (const int n : {1, 17, 4096}) {
            std::vector<float> got = from, want = from;
            bool suppressed[4096];
            for (int i = 0; i < n; ++i) suppressed[i] = i % 3 == 0;
            for (std::vector<float>* l : {&got, &want}) {
                const Leaves& leaf = l == &got ? a : b;
                leaf.guide[2](from.data(), other.data(), n, 2.5f, l->data());
                leaf.add(l->data(), other.data(), n);
                leaf.suppress(l->data(), suppressed, n);
            }
            for (int i = 0; i < n; ++i)
                EXPECT(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i])));
        }
    });
}

// ---- whole rows

template <class T>
struct Case {
    std::vector<T> logits;
    Row<T> row{};
    DrawPlan plan{CategoricalArgs{}};

    Case(const std::vector<float>& l, double temperature, Stream stream, int64_t start)
        : logits(l.size() + 1) {
        for (size_t i = 0; i < l.size(); ++i) fd::detail::narrow(l[i], logits[i + 1]);
        row.logits = logits.data() + 1;  // not aligned
        row.threshold = kMinusInfinity<Compute<T>>;
        row.temperature = temperature;
        row.key = {0xfeedu + l.size(), 5, 1};
        row.vocab_start = start;
        plan.stream = stream;
        plan.vocab = static_cast<int64_t>(l.size());
    }
    Choice draw(bool full) {
        plan.full = full;
        return draw_one(row, plan, 0, nullptr);
    }
};

std::vector<float> logits_of_kind(int kind, int n, uint64_t seed) {
    if (kind == 0) return std::vector<float>(static_cast<size_t>(n), 1e4f);
    if (kind == 1) return hard_logits(n, seed);
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> l(static_cast<size_t>(n));
    for (float& x : l) x = normal(random) * (kind == 2 ? 2.0f : 30.0f);
    if (kind == 4) l[static_cast<size_t>(n) / 2] = 40;
    if (kind == 5) std::fill(l.begin(), l.end(), -INFINITY);
    return l;
}

template <class T>
void check_rows() {
    for (const int n : {1, 3, 255, 256, 257, 4095, 4097, 9001}) {
        for (int kind = 0; kind < 6; ++kind) {
            for (const double t : {0.0, 1e-30, 1e-4, 0.5, 1.0, 2.0}) {
                for (const Stream stream : {Stream::element, Stream::block16}) {
                    const int64_t start = kind % 2 == 0 ? 0 : 1000 + n;
                    Case<T> test(logits_of_kind(kind, n, static_cast<uint64_t>(n + kind)), t, stream, start);
                    const Choice full = test.draw(true), lazy = test.draw(false);
                    EXPECT_NOTE(full.token == lazy.token && (full.z == lazy.z),
                                std::to_string(n) + " kind " + std::to_string(kind));
                    Choice ranked[3];
                    draw_many(test.row, test.plan, 3, ranked);
                    EXPECT(ranked[0].token == full.token && ranked[0].z == full.z);
                }
            }
        }
    }
}

FD_TEST(float64_logits_beyond_float32) {
    for (const double scale : {1e300, -1e300, 1e-310}) {
        for (const Stream stream : {Stream::element, Stream::block16}) {
            Case<double> test(logits_of_kind(2, 5000, 4), 1.0, stream, 0);
            for (double& l : test.logits) l = scale * (2 + l * 1e-3);
            for (const double t : {0.0, 1.0}) {
                test.row.temperature = t;
                const Choice full = test.draw(true), lazy = test.draw(false);
                EXPECT(full.token >= 0 && full.token == lazy.token && full.z == lazy.z);
            }
        }
    }
}

FD_TEST(lazy_is_full) {
    check_rows<half>();
    check_rows<bfloat16>();
    check_rows<float>();
    check_rows<double>();
}

FD_TEST(pieces_of_the_vocabulary_give_the_whole) {
    const std::vector<float> l = logits_of_kind(2, 20000, 8);
    for (const Stream stream : {Stream::element, Stream::block16}) {
        Case<float> whole(l, 1.0, stream, 0);
        const Choice want = whole.draw(false);
        Choice many[40], merged_many[40];
        draw_many(whole.row, whole.plan, 40, many);
        KeepMany pool(40);
        Choice merged;
        const int64_t borders[] = {0, 1, 777, 4096, 12345, 20000};
        for (int i = 0; i + 1 < 6; ++i) {
            Row<float> part = whole.row;
            part.logits += borders[i];
            part.vocab_start = borders[i];
            DrawPlan plan = whole.plan;
            plan.vocab = borders[i + 1] - borders[i];
            const Choice best = draw_one(part, plan, 0, nullptr);
            merged.offer(best.z, best.token);
            Choice some[40];
            draw_many(part, plan, 40, some);
            for (const Choice& c : some) pool.offer(c.z, c.token);
        }
        EXPECT(merged.token == want.token && merged.z == want.z);
        pool.take(merged_many);
        for (int i = 0; i < 40; ++i)
            EXPECT(many[i].token == merged_many[i].token && many[i].z == merged_many[i].z);
    }
}

FD_TEST(top_k_is_the_head_of_a_sort) {
    for (const Stream stream : {Stream::element, Stream::block16}) {
        for (const int kind : {0, 1, 2, 5}) {
            Case<bfloat16> test(logits_of_kind(kind, 5000, 2), 0.8, stream, 300);
            std::vector<Choice> all;
            for (int64_t j = 0; j < 5000; ++j) {
                const double z = perturbed_at(test.row, stream, j);
                if (z > kMinusInfinity<double>) all.push_back({z, static_cast<int32_t>(300 + j)});
            }
            std::sort(all.begin(), all.end(),
                      [](const Choice& a, const Choice& b) { return b.loses_to(a.z, a.token); });
            for (const int k : {1, 2, 17, 1000}) {
                std::vector<Choice> got(static_cast<size_t>(k));
                draw_many(test.row, test.plan, k, got.data());
                for (int i = 0; i < k; ++i) {
                    const Choice want =
                        static_cast<size_t>(i) < all.size() ? all[static_cast<size_t>(i)] : Choice{};
                    EXPECT(got[i].token == want.token && got[i].z == want.z);
                }
            }
        }
    }
}

}  // namespace
}  // namespace fd::categorical

FD_TEST_MAIN()
