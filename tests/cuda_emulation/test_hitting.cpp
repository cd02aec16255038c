// The hitting kernels in exact-size blocks: equal to the shared functions and a plain sort, nothing written
// outside.
#include <algorithm>
#include <climits>
#include <cmath>
#include <memory>
#include <vector>

#include "cpp/testing.h"
#include "hitting/hitting.h"
#include "hitting/hitting_launch.h"

namespace fd::hitting {
namespace {

// One thread, warps, a full block, several pairs a thread; the last one is sorted in scratch memory.
constexpr int64_t kLengths[] = {1, 2, 33, 64, 100, 1000, 3000, 8192, 8200};
constexpr int64_t kBatch = 3;

template <class T>
std::unique_ptr<T[]> block(int64_t n) {
    return std::unique_ptr<T[]>(new T[static_cast<size_t>(n)]);
}

std::unique_ptr<bool[]> random_mask(int64_t length, uint64_t seed, uint32_t percent) {
    auto mask = block<bool>(kBatch * length);
    for (int64_t i = 0; i < kBatch * length; ++i)
        mask[i] = PhiloxStream(StreamTag::uniform, seed, 0, 0).block(i).w[0] % 100 < percent;
    return mask;
}

struct Stream {
    std::vector<int64_t> rng{-5, 3}, ids;
    Sequences view;

    explicit Stream(int kind) {
        if (kind == 1) {
            rng.clear();
            for (int64_t b = 0; b < kBatch; ++b)
                rng.insert(rng.end(), {b * (int64_t{1} << 40) - 7, b, 0xffffffff - b});
        }
        if (kind == 2) ids = {9, 0xffffffff, 0};
        view = {rng.data(), ids.empty() ? nullptr : ids.data(), kind == 1};
    }
};

// Masked positions of one sequence, best first.
std::vector<Ranked> ranked(const bool* mask, int64_t length, const PhiloxStream& stream) {
    std::vector<Ranked> hits;
    for (int64_t p = 0; p < length; ++p) {
        if (mask[p]) hits.push_back({bits_at(stream, static_cast<uint32_t>(p)), static_cast<int32_t>(p)});
    }
    std::sort(hits.begin(), hits.end(), before);
    return hits;
}

FD_TEST(times_and_steps) {
    const std::vector<double> grid{0.9, 0.5, 0.5, 0.1, 0.01};
    for (const int64_t length : kLengths) {
        for (const uint32_t percent : {70u, 100u, 0u}) {
            if (percent != 70 && length > 3000) continue;  // slow
            const Stream source(static_cast<int>((length + percent) % 3));
            const auto mask = random_mask(length, static_cast<uint64_t>(length), percent);
            const auto order = block<int32_t>(kBatch * length), count = block<int32_t>(kBatch);
            const auto steps = block<int32_t>(kBatch * length);
            const auto u = block<double>(kBatch * length);
            const int64_t bytes = sort_scratch(kBatch, length);
            const auto scratch = block<unsigned char>(bytes);
            first_hitting_times_cuda(nullptr, mask.get(), source.view, kBatch, length, order.get(), u.get(),
                                     count.get(), bytes == 0 ? nullptr : scratch.get());
            reveal_steps_cuda(nullptr, mask.get(), source.view, kBatch, length, grid.data(),
                              static_cast<int64_t>(grid.size()), steps.get());
            bool equal = true;
            for (int64_t b = 0; b < kBatch; ++b) {
                const auto hits = ranked(mask.get() + b * length, length, source.view.stream(kHitTag, b));
                const auto n = static_cast<int64_t>(hits.size());
                equal = equal && count[b] == n;
                for (int64_t i = 0; i < length; ++i) {
                    const bool hit = i < n;
                    equal = equal && order[b * length + i] == (hit ? hits[i].position : -1) &&
                            u[b * length + i] == (hit ? hit_uniform(hits[i].key) : 0.0);
                    if (!mask[b * length + i]) equal = equal && steps[b * length + i] == -1;
                    if (hit) {
                        equal = equal && steps[b * length + hits[i].position] ==
                                             reveal_step(hits[i].key, grid.data(), 5);
                    }
                }
            }
            EXPECT_NOTE(equal, std::to_string(length) + ", " + std::to_string(percent) + " %");
        }
    }
}

// Scores with ties, infinities and NaN.
double score_of(int64_t i) {
    const uint32_t word = PhiloxStream(StreamTag::uniform, 77, 0, 0).block(i).w[1];
    if (word % 50 == 0) return NAN;
    if (word % 51 == 0) return word % 2 == 0 ? INFINITY : -INFINITY;
    return word % 3 == 0 ? (word >> 16) % 4 / 4.0 : word * 0x1p-32;
}

// The prefix of the sorted candidates by the rule's definition.
std::vector<bool> expected(const Selection& s, int64_t b) {
    std::vector<Ranked> order;
    for (int64_t p = 0; p < s.length; ++p) {
        if (s.candidate[b * s.length + p]) order.push_back({s.key(b, p), static_cast<int32_t>(p)});
    }
    std::sort(order.begin(), order.end(), before);
    std::vector<bool> chosen(static_cast<size_t>(s.length));
    EntropyGap gap;
    bool fits = true;
    for (size_t i = 0; i < order.size(); ++i) {
        const int64_t p = order[i].position;
        const auto n = static_cast<int64_t>(i + 1);
        switch (s.rule) {
            case Rule::count:
                chosen[p] = n <= s.count(b);
                break;
            case Rule::threshold:
                chosen[p] = i == 0 || s.meets_threshold(b, p, s.bound(b));
                break;
            case Rule::factor:
                chosen[p] = i == 0 || s.meets_factor(b, p, n, s.bound(b));
                break;
            case Rule::entropy_bound:
                fits = fits && gap.add(s.entropy.at(b, p), s.bound(b));
                chosen[p] = i == 0 || fits;
                break;
        }
    }
    return chosen;
}

FD_TEST(selection) {
    const int64_t counts[kBatch] = {0, 3, 900};
    const double bounds[4][kBatch] = {{}, {0.9, 0.0, 1.5}, {0.5, 3.0, 1e6}, {0.0, 2.0, 1e6}};
    for (const int64_t length : kLengths) {
        const auto candidate = random_mask(length, 5, length % 2 == 0 ? 60 : 100);
        const auto wide = block<double>(kBatch * length), entropy = block<double>(kBatch * length);
        const auto narrow = block<float>(length * kBatch);  // residuals, transposed
        for (int64_t i = 0; i < kBatch * length; ++i) {
            wide[i] = score_of(i);
            narrow[i % length * kBatch + i / length] = static_cast<float>(std::fabs(wide[i]));
            entropy[i] = i % 7 * 0.01;
        }
        for (int rule = 0; rule < 4; ++rule) {
            if (length == 8192) continue;  // slow, and sorted above
            for (const bool residual : {length % 2 == 0, length < 100}) {
                Selection s{};
                s.values =
                    residual ? Reals{narrow.get(), false, {1, kBatch}} : Reals{wide.get(), true, {length, 1}};
                s.entropy = {entropy.get(), true, {length, 1}};
                s.candidate = candidate.get();
                s.limit = rule == 0 ? static_cast<const void*>(counts) : bounds[rule];
                s.length = length;
                s.rule = static_cast<Rule>(rule);
                s.residual = residual;
                s.limit_per_sequence = true;
                const auto chosen = block<bool>(kBatch * length);
                const int64_t bytes = s.rule == Rule::threshold ? 0 : sort_scratch(kBatch, length);
                const auto scratch = block<unsigned char>(bytes);
                select_transfer_cuda(nullptr, s, kBatch, chosen.get(), bytes == 0 ? nullptr : scratch.get());
                bool equal = true;
                for (int64_t b = 0; b < kBatch; ++b) {
                    const auto right = expected(s, b);
                    for (int64_t p = 0; p < length; ++p)
                        equal = equal && chosen[b * length + p] == right[static_cast<size_t>(p)];
                }
                EXPECT_NOTE(equal, std::to_string(length) + ", rule " + std::to_string(rule));
            }
        }
    }
}

FD_TEST(remasking) {
    for (const int64_t length : {1, 33, 257}) {
        for (int kind = 0; kind < 3; ++kind) {
            const Stream source(kind);
            const auto tokens = block<int64_t>(kBatch * length), before = block<int64_t>(kBatch * length);
            const auto prob = block<float>(kBatch);
            const auto remasked = block<bool>(kBatch * length);
            const auto eligible = random_mask(length, 8, 80);
            for (int64_t i = 0; i < kBatch * length; ++i) tokens[i] = before[i] = i % 5;
            for (int64_t b = 0; b < kBatch; ++b) prob[b] = b == 0 ? NAN : 0.4f * static_cast<float>(b);
            const bool* allowed = kind == 0 ? nullptr : eligible.get();
            const int64_t strides[2] = {1, kBatch};  // transposed
            remask_cuda(nullptr, tokens.get(), strides, Reals{prob.get(), false, {1, 0}}, allowed, 4,
                        source.view, kBatch, length, remasked.get());
            bool equal = true;
            for (int64_t b = 0; b < kBatch; ++b) {
                for (int64_t p = 0; p < length; ++p) {
                    const int64_t at = p * kBatch + b, place = b * length + p;
                    const uint64_t bits =
                        bits_at(source.view.stream(kRemaskTag, b), static_cast<uint32_t>(p));
                    const bool masks =
                        (allowed == nullptr || allowed[place]) && before[at] != 4 && happens(bits, prob[b]);
                    equal = equal && remasked[place] == masks && tokens[at] == (masks ? 4 : before[at]);
                }
            }
            EXPECT_NOTE(equal, std::to_string(length) + ", stream " + std::to_string(kind));
        }
    }
}

// More sequences than parts of the scratch memory: a block sorts one after another.
FD_TEST(scratch_is_used_again) {
    constexpr int64_t kMany = 33, kLength = 8193;
    const auto mask = block<bool>(kMany * kLength), chosen = block<bool>(kMany * kLength);
    const auto value = block<double>(kMany * kLength), u = block<double>(kMany * kLength);
    const auto order = block<int32_t>(kMany * kLength), count = block<int32_t>(kMany);
    for (int64_t i = 0; i < kMany * kLength; ++i) {
        mask[i] = i % 199 == 0;
        value[i] = static_cast<double>(i * 7919 % 1009);
    }
    const auto scratch = block<unsigned char>(sort_scratch(kMany, kLength));
    const Stream source(0);
    first_hitting_times_cuda(nullptr, mask.get(), source.view, kMany, kLength, order.get(), u.get(),
                             count.get(), scratch.get());
    const double factor = 20;  // some of each sequence's 41
    Selection s{};
    s.values = {value.get(), true, {kLength, 1}};
    s.candidate = mask.get();
    s.limit = &factor;
    s.length = kLength;
    s.rule = Rule::factor;
    s.residual = true;
    select_transfer_cuda(nullptr, s, kMany, chosen.get(), scratch.get());
    bool equal = true;
    for (int64_t b = 0; b < kMany; ++b) {
        const auto hits = ranked(mask.get() + b * kLength, kLength, source.view.stream(kHitTag, b));
        equal = equal && count[b] == static_cast<int32_t>(hits.size());
        for (size_t i = 0; i < hits.size(); ++i)
            equal = equal && order[b * kLength + static_cast<int64_t>(i)] == hits[i].position;
        const auto right = expected(s, b);
        for (int64_t p = 0; p < kLength; ++p)
            equal = equal && chosen[b * kLength + p] == right[static_cast<size_t>(p)];
    }
    EXPECT(equal);
}

FD_TEST(nothing_to_do) {
    const int64_t rng[2] = {1, 2};
    const Sequences sequences{rng, nullptr, false};
    const double grid[2] = {1, 0};
    first_hitting_times_cuda(nullptr, nullptr, sequences, 0, 5, nullptr, nullptr, nullptr, nullptr);
    reveal_steps_cuda(nullptr, nullptr, sequences, 5, 0, grid, 2, nullptr);
    int32_t count[2] = {7, 7};
    first_hitting_times_cuda(nullptr, nullptr, sequences, 2, 0, nullptr, nullptr, count, nullptr);
    EXPECT(count[0] == 0 && count[1] == 0);
}

}  // namespace
}  // namespace fd::hitting

FD_TEST_MAIN()
