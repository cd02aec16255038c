// The threshold kernels and inverse_cdf in exact-size blocks: equal to sorting with the shared functions.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "categorical/inverse_cdf_launch.h"
#include "categorical/threshold_launch.h"
#include "cpp/testing.h"

namespace fd::categorical {
namespace {

constexpr int64_t kRows = 5;

// Rows of odd length, `shift` elements off a boundary of 16 bytes.
template <class T>
struct Logits {
    int64_t vocab, shift;
    std::unique_ptr<T[]> memory;

    Logits(int64_t columns, int64_t offset, unsigned seed)
        : vocab(columns), shift(offset), memory(new T[static_cast<size_t>(kRows * columns + offset)]) {
        std::mt19937 generator(seed);
        std::normal_distribution<float> normal;
        for (int64_t i = 0; i < kRows * vocab + shift; ++i) {
            const float x = 3 * normal(generator);
            const int64_t row = (i - shift) / vocab;
            memory[i] = static_cast<T>(row == 1 ? std::round(x) : row == 2 && i % 3 != 0 ? -INFINITY : x);
        }
        memory[shift] = static_cast<T>(NAN);
    }
    const T* row(int64_t r) const { return memory.get() + shift + r * vocab; }
};

template <class T>
CategoricalArgs plain_args(const Logits<T>& x, const float* temperature) {
    CategoricalArgs a{};
    a.dtype = dtype_of<T>;
    a.rows = a.logit_rows = kRows;
    a.vocab = a.vocab_size = x.vocab;
    a.logits = x.row(0);
    a.row_stride = x.vocab;
    a.temperature = temperature;
    a.temperature_stride = 1;
    return a;
}

// theta and share of one row, by sorting.
template <class T>
std::pair<Compute<T>, double> sorted(const ThresholdArgs& a, int64_t r) {
    using C = Compute<T>;
    const Row<T> row = threshold_row<T>(a.logits, r);
    const Filters filters(a, r);
    std::vector<C> l;
    for (int64_t j = 0; j < a.logits.vocab; ++j) l.push_back(row.unfiltered(j));
    std::sort(l.begin(), l.end(), std::greater<>());
    const MassScale scale(l[0], row.temperature, a.mass_bits);
    uint64_t total = 0;
    for (const C v : l) total += scale.of(v);
    C theta = kMinusInfinity<C>;
    if (l[0] == theta || !filters.any()) return {theta, 1.0};
    if (filters.k > 0) theta = l[static_cast<size_t>(filters.k) - 1];
    if (filters.top_p()) {
        const uint64_t target = mass_target(filters.p, total);
        uint64_t sum = 0;
        size_t i = 0;
        while ((sum += scale.of(l[i])) < target) ++i;
        theta = std::max(theta, l[i]);
    }
    if (filters.min_p > 0) theta = std::max(theta, min_p_threshold(l[0], row.temperature, filters.min_p));
    uint64_t inside = 0;
    for (const C v : l) inside += v >= theta ? scale.of(v) : 0;
    const bool all = theta == kMinusInfinity<C>;
    return {theta + C(0), all ? 1.0 : static_cast<double>(inside) / static_cast<double>(total)};
}

template <class T>
void check(const ThresholdArgs& a, const std::string& what) {
    using C = Compute<T>;
    const std::unique_ptr<C[]> out(new C[kRows]);
    const std::unique_ptr<double[]> shares(new double[kRows]);
    sampling_threshold_cuda(nullptr, a, out.get(), shares.get());
    for (int64_t r = 0; r < kRows; ++r) {
        const auto [theta, share] = sorted<T>(a, r);
        EXPECT_NOTE(out[r] == theta, what + ", row " + std::to_string(r) + ": " + std::to_string(out[r]) +
                                         " instead of " + std::to_string(theta));
        EXPECT_NOTE(shares[r] == share, what + ", share of row " + std::to_string(r));
    }
}

template <class T>
void check_thresholds() {
    const float temperature[kRows] = {1, 0.5f, 2, 0, 1};
    const int64_t k[kRows] = {3, 0, 40, 1, 7};
    const double p[kRows] = {1, 0.9, 0.5, 0.3, 0.8};
    const float m[kRows] = {0, 0, 0.01f, 0.5f, 0.05f};
    for (const int64_t vocab : {1, 37, 1101}) {
        const Logits<T> x(vocab, vocab % 5, static_cast<unsigned>(vocab));
        ThresholdArgs a{};
        a.logits = plain_args(x, temperature);
        a.mass_bits = mass_bits(vocab);
        a.kept = true;
        const std::string what = std::to_string(vocab) + " columns";
        a.top_k = k, a.top_k_stride = 1;
        if (vocab > 1000) check<T>(a, what + ", top-k");
        a.top_p = {p, true, 1};
        a.min_p = {m, false, 1};
        check<T>(a, what + ", all");
        if (vocab < 1000) continue;
        a.top_k = nullptr, a.top_p = {};
        check<T>(a, what + ", min-p");
        a.top_p = {p + 1, true, 0};
        check<T>(a, what + ", one top-p");
    }
}

FD_TEST(thresholds_float32) { check_thresholds<float>(); }
FD_TEST(thresholds_float64) { check_thresholds<double>(); }
FD_TEST(thresholds_float16) { check_thresholds<half>(); }
FD_TEST(thresholds_bfloat16) { check_thresholds<bfloat16>(); }

FD_TEST(thresholds_of_processed_rows) {
    const Logits<float> x(301, 1, 1), u(301, 2, 2);
    const float temperature[1] = {0.7f}, w[kRows] = {0, 1, 2, -0.5f, 0};
    const std::vector<float> bias(301, 0.25f);
    const std::unique_ptr<bool[]> suppressed(new bool[kRows * 301]);
    for (int64_t i = 0; i < kRows * 301; ++i) suppressed[i] = i % 11 == 0;
    const int64_t forbidden[3] = {5, 300, 9999}, rows[kRows] = {4, 4, 0, 3, 2}, k[1] = {20};
    const double p[1] = {0.6};
    ThresholdArgs a{};
    a.logits = plain_args(x, temperature);
    a.logits.temperature_stride = 0;
    a.logits.row_index = rows;
    a.logits.uncond = u.row(0), a.logits.uncond_row_stride = 301;
    a.logits.cfg_scale = w, a.logits.cfg_stride = 1;
    a.logits.bias = bias.data();
    a.logits.suppressed = suppressed.get(), a.logits.suppressed_stride = 301;
    a.logits.forbidden = forbidden, a.logits.n_forbidden = 3;
    a.mass_bits = mass_bits(301);
    a.kept = true;
    a.top_k = k;
    a.top_p = {p, true, 0};
    check<float>(a, "processed");
}

template <class T>
void check_histograms() {
    using C = Compute<T>;
    const Logits<T> x(700, 3, 9);
    const float temperature[kRows] = {1, 0.5f, 2, 0, 1};
    ThresholdArgs a{};
    a.logits = plain_args(x, temperature);
    a.mass_bits = mass_bits(5000);
    const std::unique_ptr<C[]> top(new C[kRows]);
    for (int64_t r = 0; r < kRows; ++r) top[r] = static_cast<C>(9 + r);
    for (int pass = 0; pass < LogitPasses<C>::kCount; ++pass) {
        const int shift = LogitPasses<C>::shift(pass), bits = LogitPasses<C>::bits(pass);
        const auto high = [&](int64_t r, int64_t j) {
            const uint64_t key = descending_key(threshold_row<T>(a.logits, r).unfiltered(j));
            return static_cast<int64_t>(key >> shift >> bits);
        };
        const std::unique_ptr<int64_t[]> prefixes(new int64_t[2 * kRows]);
        for (int64_t r = 0; r < kRows; ++r) {
            prefixes[2 * r] = r == 3 ? -1 : high(r, 5);
            prefixes[2 * r + 1] = r == 3 || r == 1 ? -1 : high(r, 8);
        }
        const int64_t words = kRows * 2 * kRadixBins;
        const std::unique_ptr<int64_t[]> out(new int64_t[static_cast<size_t>(words)]());
        threshold_histogram_cuda(nullptr, a, top.get(), prefixes.get(), pass, out.get());
        std::vector<int64_t> want(static_cast<size_t>(words));
        for (int64_t r = 0; r < kRows; ++r) {
            const Row<T> row = threshold_row<T>(a.logits, r);
            const MassScale scale(top[r], row.temperature, a.mass_bits);
            for (int64_t j = 0; j < 700; ++j) {
                const auto digits = static_cast<uint64_t>(descending_key(row.unfiltered(j))) >> shift;
                const int64_t bin = static_cast<int64_t>(digits & ((1u << bits) - 1)),
                              at = 2 * r * kRadixBins + bin;
                if (high(r, j) == prefixes[2 * r]) ++want[static_cast<size_t>(at)];
                if (high(r, j) == prefixes[2 * r + 1])
                    want[static_cast<size_t>(at + kRadixBins)] +=
                        static_cast<int64_t>(scale.of(row.unfiltered(j)));
            }
        }
        EXPECT_NOTE(std::equal(want.begin(), want.end(), out.get()), "pass " + std::to_string(pass));
    }
}

FD_TEST(histograms_float32) { check_histograms<float>(); }
FD_TEST(histograms_float64) { check_histograms<double>(); }
FD_TEST(histograms_bfloat16) { check_histograms<bfloat16>(); }

// Sums of 64 as inverse_cdf.h states them.
double sum64(std::vector<double> a) {
    for (size_t n = 32; n > 0; n /= 2) {
        for (size_t i = 0; i < n; ++i) a[i] += a[i + n];
    }
    return a[0];
}

template <class T>
int64_t drawn(const InverseCdfArgs& a, int64_t r) {
    const T* p = static_cast<const T*>(a.probs) + r * a.row_stride;
    std::vector<double> tiles;
    std::vector<std::vector<double>> chunks;
    for (int64_t t = 0; t < a.tiles(); ++t) {
        chunks.emplace_back();
        for (int64_t c = 0; c < kChunks; ++c) {
            std::vector<double> numbers;
            for (int64_t i = 0; i < kChunk; ++i) {
                const int64_t v = t * kSumTile + c * kChunk + i;
                numbers.push_back(v < a.vocab ? probability(p[v]) : 0.0);
            }
            chunks.back().push_back(sum64(numbers));
        }
        tiles.push_back(sum64(chunks.back()));
    }
    double total = 0;
    for (const double sum : tiles) total += sum;
    if (!is_mass(total)) return -1;
    Search tile{a.uniform_of_row(r) * total};
    for (size_t t = 0; t < tiles.size(); ++t) tile.offer(tiles[t], static_cast<int64_t>(t));
    Search chunk{tile.x, tile.before_place};
    for (int64_t c = 0; c < kChunks; ++c)
        chunk.offer(chunks[static_cast<size_t>(tile.place)][static_cast<size_t>(c)], c);
    Search token{tile.x, chunk.before_place};
    const int64_t first = tile.place * kSumTile + chunk.place * kChunk;
    for (int64_t v = first; v < std::min(a.vocab, first + kChunk); ++v) token.offer(probability(p[v]), v);
    return token.place;
}

template <class T>
void check_inverse_cdf() {
    const int64_t rng[3 * kRows] = {1, 0, 5, 2, 1, 5, 1, 0, -9, 1, 7, 5, 3, 0, 0};
    for (const int64_t vocab : {1, 65, 4097}) {
        const std::unique_ptr<T[]> probs(new T[static_cast<size_t>(kRows * vocab)]);
        std::mt19937 generator(static_cast<unsigned>(vocab));
        std::uniform_real_distribution<float> uniform;
        for (int64_t i = 0; i < kRows * vocab; ++i)
            probs[i] = static_cast<T>(i % 3 == 1 ? 0.0f : uniform(generator));
        probs[2 * vocab + vocab / 2] = static_cast<T>(-1.0f);
        probs[4 * vocab - 1] = static_cast<T>(NAN);
        InverseCdfArgs a{};
        a.dtype = dtype_of<T>;
        a.probs = probs.get();
        a.rows = kRows, a.vocab = vocab, a.row_stride = vocab;
        a.rng = rng, a.rng_per_row = true;
        const std::unique_ptr<double[]> sums(new double[static_cast<size_t>(kRows * a.tiles())]);
        const std::unique_ptr<int64_t[]> out(new int64_t[kRows]);
        inverse_cdf_cuda(nullptr, a, sums.get(), out.get());
        for (int64_t r = 0; r < kRows; ++r)
            EXPECT_NOTE(out[r] == drawn<T>(a, r),
                        std::to_string(vocab) + " columns, row " + std::to_string(r));
        EXPECT(out[2] == -1 && out[3] == -1 && out[0] >= 0);
    }
}

FD_TEST(inverse_cdf_float32) { check_inverse_cdf<float>(); }
FD_TEST(inverse_cdf_float64) { check_inverse_cdf<double>(); }
FD_TEST(inverse_cdf_float16) { check_inverse_cdf<half>(); }
FD_TEST(inverse_cdf_bfloat16) { check_inverse_cdf<bfloat16>(); }

}  // namespace
}  // namespace fd::categorical

FD_TEST_MAIN()
