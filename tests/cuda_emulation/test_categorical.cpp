// The categorical draws in exact-size blocks: equal to one loop over the definition, nothing read or written
// outside, however rows are cut.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "categorical/gumbel_launch.h"
#include "cpp/testing.h"

namespace fd::categorical {
namespace {

template <class T>
std::unique_ptr<T[]> block(int64_t n) {
    return std::unique_ptr<T[]>(new T[static_cast<size_t>(n)]);
}

uint32_t random_word(uint64_t seed, int64_t i) {
    return PhiloxStream(StreamTag::uniform, seed, 0, 0).block(static_cast<uint64_t>(i)).w[0];
}

double random_normal(uint64_t seed, int64_t i) {  // nearly
    double sum = 0;
    for (uint64_t k = 0; k < 4; ++k) sum += random_word(seed + 1000 * k, i) * 0x1p-32 - 0.5;
    return sum * 1.7;
}

enum class Family { normal, flat, steep, peaked, special, filtered };

double logit(Family family, uint64_t seed, int64_t i, int64_t vocab) {
    const double x = random_normal(seed, i);
    const uint32_t word = random_word(seed + 7, i);
    switch (family) {
        case Family::normal:
            return 2 * x;
        case Family::flat:
            return 1.25;
        case Family::steep:
            return 30 * x;
        case Family::peaked:
            return i % vocab == vocab / 2 ? 12.0 : 0.0;
        case Family::special:
            return word % 3 == 0 ? NAN : word % 5 == 0 ? -INFINITY : word % 211 == 0 ? INFINITY : x;
        case Family::filtered:
            return -INFINITY;
    }
    return 0;
}

// One call with all of its memory, every array in a block of its exact size.
template <class T>
struct Case {
    using C = Compute<T>;

    HittingArgs args{};
    std::vector<std::unique_ptr<char[]>> memory;
    bool scored = false;

    template <class X>
    X* own(int64_t n) {
        memory.emplace_back(new char[static_cast<size_t>(n) * sizeof(X)]);
        return reinterpret_cast<X*>(memory.back().get());
    }

    template <class X, class F>
    const X* fill(int64_t n, const F& value) {
        X* out = own<X>(n);
        for (int64_t i = 0; i < n; ++i) out[i] = value(i);
        return out;
    }

    // `skew` elements before the first row, so that no row needs to be aligned.
    Case(Family family, int64_t rows, int64_t vocab, Stream stream, int64_t skew = 0, int64_t shard = 0) {
        args.dtype = dtype_of<T>;
        args.rows = args.logit_rows = rows;
        args.vocab = vocab;
        args.vocab_start = shard;
        args.vocab_size = shard + vocab;
        args.stream = stream;
        args.row_stride = vocab + (skew > 0 ? 1 : 0);
        args.logits = logits_like(family, 1, skew);
        args.rng = fill<int64_t>(2, [](int64_t i) { return i == 0 ? -7 : 3; });
        args.temperature = fill<float>(rows, [](int64_t i) {
            constexpr float kTemperatures[] = {1.0f, 0.3f, 0.0f, 2.0f, 1e-4f};
            return kTemperatures[i % 5];
        });
        args.temperature_stride = 1;
    }

    const T* logits_like(Family family, uint64_t seed, int64_t skew) {
        const int64_t n = args.rows * args.row_stride - (args.row_stride - args.vocab) + skew;
        T* out = own<T>(n);
        for (int64_t i = 0; i < n; ++i) fd::detail::narrow(logit(family, seed, i, args.vocab), out[i]);
        return out + skew;
    }

    void process() {
        const int64_t rows = args.rows, vocab = args.vocab;
        args.uncond_row_stride = args.row_stride;
        args.uncond = logits_like(Family::normal, 2, 0);
        args.cfg_scale = fill<float>(rows, [](int64_t i) { return i % 2 == 0 ? 1.5f : 0.0f; });
        args.cfg_stride = 1;
        args.bias = fill<float>(vocab, [](int64_t i) { return static_cast<float>(random_normal(3, i)); });
        args.suppressed = fill<bool>(rows * vocab, [](int64_t i) { return random_word(4, i) % 4 == 0; });
        args.suppressed_stride = vocab;
        forbid();
        filter();
    }

    void forbid() {
        const int64_t start = args.vocab_start;
        args.n_forbidden = 3;
        args.forbidden = fill<int64_t>(3, [&](int64_t i) {
            return i == 0 ? start + args.vocab / 2 : i == 1 ? -4 : start;
        });
    }

    void filter() {
        args.threshold =
            fill<C>(args.rows, [](int64_t i) { return i % 3 == 0 ? kMinusInfinity<C> : C(i % 3) - C(2); });
        args.threshold_stride = 1;
    }

    void score() {
        scored = true;
        args.score_temperature =
            fill<float>(args.rows, [](int64_t i) { return 0.5f + static_cast<float>(i); });
        args.score_stride = 1;
    }
};

// The definition.
template <class T>
std::vector<Choice> sorted_row(const HittingArgs& a, const Row<T>& row) {
    std::vector<Choice> all;
    for (int64_t j = 0; j < a.vocab; ++j) {
        const Choice c{perturbed_at(row, a.stream, j), static_cast<int32_t>(a.vocab_start + j)};
        if (c.z > kMinusInfinity<double>) all.push_back(c);
    }
    std::sort(all.begin(), all.end(),
              [](const Choice& x, const Choice& y) { return y.loses_to(x.z, x.token); });
    return all;
}

template <class T>
Choice best_of_row(const HittingArgs& a, const Row<T>& row) {
    Choice best;
    for (int64_t j = 0; j < a.vocab; ++j)
        best.offer(perturbed_at(row, a.stream, j), static_cast<int32_t>(a.vocab_start + j));
    return best;
}

bool close(double a, double b) {
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
    return a == b || std::fabs(a - b) <= 3e-6 * std::fabs(b) + 1e-6;
}

template <class T>
bool scores_agree(const HittingArgs& a, const Row<T>& row, const Choice& best, double t, const double* out) {
    double most = -INFINITY, second = -INFINITY, sum = 0, first = 0, residual = 0;
    const int64_t chosen = best.token - a.vocab_start;
    for (int64_t j = 0; j < a.vocab; ++j) {
        const double l = row.unfiltered(j);
        second = std::max(second, std::min(most, l));
        most = std::max(most, l);
    }
    const auto over = [&](double x, double y) { return x == y ? 0.0 : (x - y) / t; };
    for (int64_t j = 0; j < a.vocab; ++j) {
        const double l = row.unfiltered(j), d = over(l, most), e = std::exp(d);
        if (l > -INFINITY) sum += e;
        if (l > -INFINITY && e > 0) first += e * d;
        if (best.token >= 0 && j != chosen && l > -INFINITY)
            residual += std::exp(over(l, row.unfiltered(chosen)));
    }
    const bool drawn = best.token >= 0;
    const double want[] = {drawn ? over(row.unfiltered(chosen), most) - std::log(sum) : -INFINITY,
                           sum == 0 ? 0.0 : std::log(sum) - first / sum,
                           second == most ? 0.0 : -std::expm1(over(second, most)) / sum,
                           sum == 0 ? -INFINITY : most / t + std::log(sum), drawn ? residual : INFINITY};
    return std::equal(want, want + kScoreCount, out, [](double x, double y) { return close(y, x); });
}

// Draws with rows in `parts` (0: as planned) and compares.
template <class T>
void check(const Case<T>& c, const std::string& note, int parts = 0) {
    const HittingArgs& a = c.args;
    DrawSplit split(a, c.scored);
    if (parts > 0) split.parts = static_cast<int>(std::min<int64_t>(parts, split.tiles));
    const auto workspace = block<double>((split.workspace_bytes(a.rows) + 7) / 8);
    const auto tickets = reinterpret_cast<unsigned*>(workspace.get());
    std::fill_n(tickets, split.tickets(a.rows), 0u);
    const auto tokens = block<int64_t>(a.rows);
    const auto z = block<double>(a.rows), scores = block<double>(c.scored ? a.rows * kScoreCount : 0);
    draw_cuda(nullptr, a, split, workspace.get(), {tokens.get(), z.get(), c.scored ? scores.get() : nullptr});
    for (int64_t r = 0; r < a.rows; ++r) {
        const Row<T> row = draw_row<T>(a, r);
        const Choice best = best_of_row(a, row);
        const bool scored = !c.scored || scores_agree(a, row, best, a.score_temperature[r * a.score_stride],
                                                      scores.get() + kScoreCount * r);
        EXPECT_NOTE(tokens[r] == best.token && z[r] == best.z && scored,
                    note + ", row " + std::to_string(r) + (scored ? "" : ", scores"));
    }
    EXPECT_NOTE(std::count(tickets, tickets + split.tickets(a.rows), 0u) == split.tickets(a.rows), note);
}

void for_types(const auto& f) { f(half{}), f(bfloat16{}), f(float{}), f(double{}); }

constexpr Stream kStreams[] = {Stream::element, Stream::block16};

std::string named(const char* what, int64_t vocab, Stream stream, DType type) {
    return std::string(what) + " V " + std::to_string(vocab) + ", stream " +
           std::to_string(static_cast<int>(stream)) + ", dtype " + std::to_string(static_cast<int>(type));
}

FD_TEST(families_and_types) {
    for_types([]<class T>(T) {
        for (const Stream stream : kStreams) {
            for (const Family family : {Family::normal, Family::flat, Family::steep, Family::peaked,
                                        Family::special, Family::filtered}) {
                const int64_t vocab = 500 + 31 * static_cast<int>(family);
                Case<T> c(family, 5, vocab, stream, static_cast<int64_t>(family));
                check(c, named("lazy", vocab, stream, c.args.dtype));
                if (family == Family::normal || family == Family::special) {
                    c.args.full = true;
                    check(c, named("full", vocab, stream, c.args.dtype));
                }
            }
        }
    });
}

FD_TEST(sizes_and_alignments) {
    for (const int64_t vocab : {1, 2, 7, 8, 9, 255, 256, 257, 4095, 4096, 4099}) {
        for (const Stream stream : kStreams) {
            for (int64_t skew = 0; skew < 9; skew += vocab > 4000 ? 5 : 1) {
                check(Case<bfloat16>(Family::normal, 2, vocab, stream, skew),
                      named("skew", vocab, stream, DType::bf16));
                if (skew < 5)
                    check(Case<float>(Family::normal, 1, vocab, stream, skew),
                          named("skew", vocab, stream, DType::f32));
                if (skew < 3)
                    check(Case<double>(Family::normal, 1, vocab, stream, skew),
                          named("skew", vocab, stream, DType::f64));
            }
        }
    }
}

FD_TEST(processing) {
    for_types([]<class T>(T) {
        for (const Stream stream : kStreams) {
            for (const int64_t vocab : {300, 4300}) {
                Case<T> c(Family::normal, vocab < 1000 ? 5 : 2, vocab, stream, 3, vocab < 1000 ? 0 : 77);
                c.process();
                check(c, named("processed", vocab, stream, c.args.dtype));
                if (vocab < 1000) {
                    c.args.full = true;
                    check(c, named("processed, full", vocab, stream, c.args.dtype));
                }
            }
            Case<T> forbidden(Family::peaked, 3, 700, stream);
            forbidden.forbid();
            check(forbidden, named("forbidden", 700, stream, forbidden.args.dtype));
            Case<T> filtered(Family::normal, 5, 700, stream);
            filtered.filter();
            check(filtered, named("filtered", 700, stream, filtered.args.dtype));
        }
    });
}

FD_TEST(shards_and_splits) {
    for (const Stream stream : kStreams) {
        for (const int64_t start : {0, 5, 4000}) {
            const std::string note = named("parts", 9000, stream, DType::bf16);
            for (const int parts : {1, 2, 3})
                check(Case<bfloat16>(Family::normal, 3, 9000, stream, 1, start), note, parts);
        }
        Case<float> c(Family::steep, 1, 40960, stream);  // more tiles than warps
        check(c, named("one part", 40960, stream, DType::f32), 1);
    }
}

FD_TEST(scores) {
    for_types([]<class T>(T) {
        for (const Family family : {Family::normal, Family::special, Family::peaked, Family::filtered}) {
            for (const Stream stream : kStreams) {
                Case<T> c(family, 2, 5000, stream, 1, 300);
                c.score();
                c.filter();
                c.forbid();
                c.args.full = family == Family::peaked;
                check(c, named("scores", 5000, stream, c.args.dtype), stream == Stream::element ? 1 : 2);
            }
        }
    });
}

FD_TEST(names_of_rows) {
    Case<float> c(Family::normal, 4, 300, Stream::block16);
    c.args.row_index = c.fill<int64_t>(4, [](int64_t i) { return (3 * i + 1) % 4; });
    check(c, "row_index");
    c.args.row_ids = c.fill<int64_t>(4, [](int64_t i) { return -5 * i; });
    check(c, "row_ids");
    c.args.row_ids = nullptr;
    c.args.rng_per_row = true;
    c.args.rng = c.fill<int64_t>(12, [](int64_t i) { return i * i; });
    check(c, "rng of rows");
    // what only the CPU reports: nothing is read there, and nothing drawn
    c.args.row_index = c.fill<int64_t>(4, [](int64_t i) { return i % 2 == 0 ? 4 : -1; });
    const auto tokens = block<int64_t>(4);
    const auto z = block<double>(4);
    draw_cuda(nullptr, c.args, DrawSplit(c.args, false), nullptr, {tokens.get(), z.get(), nullptr});
    EXPECT(std::count(tokens.get(), tokens.get() + 4, -1) == 4);
    EXPECT(std::count(z.get(), z.get() + 4, -INFINITY) == 4);
    c.args.rows = 0;
    draw_cuda(nullptr, c.args, DrawSplit(c.args, false), nullptr, {nullptr, nullptr, nullptr});
}

template <class T>
void check_topk(const Case<T>& c, int k, const std::string& note) {
    const HittingArgs& a = c.args;
    const auto tokens = block<int64_t>(a.rows * k);
    const auto z = block<double>(a.rows * k);
    topk_cuda(nullptr, a, k, tokens.get(), z.get());
    for (int64_t r = 0; r < a.rows; ++r) {
        std::vector<Choice> want = sorted_row(a, draw_row<T>(a, r));
        want.resize(static_cast<size_t>(k));
        bool equal = true;
        for (int i = 0; i < k; ++i)
            equal = equal && tokens[r * k + i] == want[i].token && z[r * k + i] == want[i].z;
        EXPECT_NOTE(equal, note + ", k " + std::to_string(k) + ", row " + std::to_string(r));
    }
}

FD_TEST(topk) {
    for_types([]<class T>(T) {
        for (const Stream stream : kStreams) {
            for (const Family family : {Family::normal, Family::flat, Family::special, Family::filtered}) {
                Case<T> c(family, 3, 600, stream, 1, 4000);
                if (family == Family::normal) c.process();
                check_topk(c, family == Family::flat ? 600 : 3, named("top-k", 600, stream, c.args.dtype));
            }
        }
    });
    for (const Stream stream : kStreams) {
        check_topk(Case<float>(Family::normal, 1, 1, stream), 1, "top-k of one");
        check_topk(Case<bfloat16>(Family::normal, 1, 8200, stream), 20, "top-k of tiles");
        check_topk(Case<bfloat16>(Family::flat, 1, 5000, stream), 1024, "top-1024");
    }
}

FD_TEST(hitting_step) {
    constexpr int64_t kBatch = 3, kLength = 7;
    for (const Stream stream : kStreams) {
        for (const bool gathered : {false, true}) {
            for (const int64_t k : {int64_t{1}, int64_t{4}}) {
                const int64_t lines = gathered ? k : kLength;
                Case<bfloat16> c(Family::normal, kBatch * lines, 300, stream);
                HittingArgs& a = c.args;
                a.rows = kBatch * k;
                a.batch = kBatch;
                a.length = kLength;
                a.per_sequence = k;
                a.batch_stride = lines * a.row_stride;
                a.gathered = gathered;
                a.token_stride = kLength + 2;
                int64_t* tokens = c.own<int64_t>(kBatch * a.token_stride - 2);
                std::fill_n(tokens, kBatch * a.token_stride - 2, int64_t{-9});
                a.tokens = tokens;
                // sequence 0: a skipped one; 1: one position twice; 2: out of range
                constexpr int32_t kPositions[kBatch][4] = {{2, -1, 6, 0}, {5, 5, 1, 5}, {7, 3, 100, -3}};
                a.positions =
                    c.fill<int32_t>(kBatch * k, [&](int64_t i) { return kPositions[i / k][i % k]; });
                a.sequence_ids = c.fill<int64_t>(kBatch, [](int64_t b) { return 0x1ffffffff + b; });
                c.forbid();
                c.filter();
                const DrawSplit split(a, false);
                const auto drawn = block<int64_t>(a.rows);
                hitting_step_cuda(nullptr, a, split, nullptr, drawn.get());
                std::vector<int64_t> want(static_cast<size_t>(kBatch * a.token_stride - 2), -9);
                for (int64_t r = 0; r < a.rows; ++r) {
                    const int64_t b = r / k, position = a.positions[r];
                    int64_t token = -1;
                    if (position >= 0 && position < kLength)
                        token = best_of_row(a, hitting_row<bfloat16>(a, b, r % k, position)).token;
                    EXPECT_NOTE(drawn[r] == token, "hitting row " + std::to_string(r));
                    if (token >= 0) want[static_cast<size_t>(b * a.token_stride + position)] = token;
                }
                EXPECT(std::equal(want.begin(), want.end(), tokens));
            }
        }
    }
}

}  // namespace
}  // namespace fd::categorical

FD_TEST_MAIN()
