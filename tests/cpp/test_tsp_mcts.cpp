// The parts of the published search against plain models of them: paths in pieces against arrays, choices of
// all SIMD levels against intervals, lengths kept in the books against tours summed anew.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "cpp/testing.h"
#include "cpp/tsp_problems.h"
#include "tsp/build_problem.h"
#include "tsp/mcts.h"
#include "tsp/mcts_choice.h"
#include "tsp/mcts_draws.h"
#include "tsp/mcts_path.h"
#include "tsp/mcts_tour.h"
#include "tsp/nearest_unvisited.h"

namespace fd::tsp {
namespace {

bool supported(simd::Level level) { return static_cast<int>(level) <= static_cast<int>(simd::level()); }

std::vector<City> shuffled(City n, std::mt19937& random) {
    std::vector<City> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    return order;
}

// The places of a path, from its open end.
std::vector<int32_t> places_of(const CutPath& path) {
    std::vector<int32_t> places;
    for (const Piece& piece : std::vector<Piece>(path.begin(), path.end())) {
        if (piece.from == piece.to) continue;
        for (int32_t p = piece.first();; p += piece.direction()) {
            places.push_back(p);
            if (p == piece.last()) break;
        }
    }
    return places;
}

template <simd::Level L>
void check_steps() {
    if (!supported(L)) return;
    std::mt19937 random(1);
    for (const int32_t n : {5, 6, 17, 300}) {
        CutPath path(n, 90);
        for (int32_t trial = 0; trial < 60; ++trial) {
            const bool mirrored = trial % 2 != 0;
            const int32_t start = trial < 4 ? (trial / 2) * (n - 1) : static_cast<int32_t>(random() % n);
            OpenEnd open = path.cut(start, mirrored);
            std::vector<int32_t> plain(n);
            for (int32_t k = 0; k < n; ++k) plain[k] = ((mirrored ? start - k : start + k) % n + n) % n;
            for (int32_t step = 0; step < 90; ++step) {
                EXPECT(places_of(path) == plain);
                EXPECT(open.place == plain[0] && open.second == plain[1]);
                const int32_t k = 2 + static_cast<int32_t>(random() % std::min(n - 2, trial < 30 ? n : 6));
                EXPECT(path.before(plain[k]) == plain[k - 1]);
                open = path.step<L>(plain[k]);
                std::reverse(plain.begin(), plain.begin() + k);
            }
        }
    }
}

FD_TEST(steps_on_pieces_are_those_on_arrays) {
    check_steps<simd::Level::scalar>();
    check_steps<simd::Level::avx2>();
    check_steps<simd::Level::avx512>();
}

FD_TEST(a_directed_tour_reverses_what_it_is_told_and_keeps_its_direction) {
    std::mt19937 random(2);
    for (const City n : {5, 6, 31}) {
        std::vector<City> plain = shuffled(n, random);
        DirectedTour tour(plain);
        for (int trial = 0; trial < 500; ++trial) {
            std::rotate(plain.begin(), plain.begin() + random() % n, plain.end());
            const City last = static_cast<City>(random() % (n - 1));
            const City a = plain[0], b = plain[last];
            const auto before = tour.order(a);
            tour.reverse(a, b);
            std::reverse(plain.begin(), plain.begin() + last + 1);
            EXPECT(tour.order(plain[0]) == plain);
            if (trial % 2 == 0) {  // undone
                tour.reverse(b, a);
                std::reverse(plain.begin(), plain.begin() + last + 1);
                EXPECT(tour.order(a) == before);
            }
        }
    }
}

// Runs over u: the choices must be as many as the potentials say.
template <simd::Level L, bool kExplore>
void check_choices(int32_t groups, bool restricted) {
    if (!supported(L)) return;
    std::mt19937 random(3 + groups);
    const int32_t slots = groups * kGroup;
    std::vector<City> city(slots);
    std::vector<double> merit(slots), novelty(slots), sums(slots), expected(slots);
    std::vector<uint8_t> allowed(groups);
    for (int trial = 0; trial < 20; ++trial) {
        const double exploration = 0.5 * trial;
        for (int32_t k = 0; k < slots; ++k) {
            city[k] = k < slots - 3 ? 10 * k : -1;
            merit[k] = k < slots - 3 ? 0.01 * (random() % 300) : -std::numeric_limits<double>::infinity();
            novelty[k] = 1 / std::sqrt(1.0 + random() % 50);
        }
        for (uint8_t& bits : allowed) bits = static_cast<uint8_t>(random());
        const Excluded excluded{10, 30, restricted ? allowed.data() : nullptr};
        double total = 0;
        for (int32_t k = 0; k < slots; ++k) {
            const double z = merit[k] + (kExplore ? exploration * novelty[k] : 0);
            const bool out = k == 1 || k == 3 || (restricted && !(allowed[k / kGroup] >> k % kGroup & 1));
            expected[k] = z >= 1 && !out ? z : 0;
            total += expected[k];
        }
        const CandidateRow row{city.data(), merit.data(), novelty.data(), groups, exploration};
        std::vector<int> counts(slots);
        constexpr int kDraws = 2000;
        int none = 0;
        for (int i = 0; i < kDraws; ++i) {
            const double u = (i + 0.5) / kDraws;
            const int32_t k = choose<L, kExplore>(row, excluded, u, sums.data());
            EXPECT(k == (choose<simd::Level::scalar, kExplore>(row, excluded, u, sums.data())));
            EXPECT(k >= -1 && k < slots);
            k < 0 ? ++none : ++counts[k];
        }
        EXPECT(none == (total > 0 ? 0 : kDraws));
        for (int32_t k = 0; k < slots && total > 0; ++k)
            EXPECT(std::abs(counts[k] - kDraws * expected[k] / total) <= 1 &&
                   (expected[k] > 0 || counts[k] == 0));
    }
}

FD_TEST(choices_follow_the_potentials_on_every_simd_level) {
    for (const int32_t groups : {1, 2, 3}) {
        for (const bool restricted : {false, true}) {
            check_choices<simd::Level::scalar, false>(groups, restricted);
            check_choices<simd::Level::scalar, true>(groups, restricted);
            check_choices<simd::Level::avx2, false>(groups, restricted);
            check_choices<simd::Level::avx2, true>(groups, restricted);
            check_choices<simd::Level::avx512, false>(groups, restricted);
            check_choices<simd::Level::avx512, true>(groups, restricted);
        }
    }
}

FD_TEST(words_made_ahead_are_those_of_the_event) {
    const EventStream stream{0x123456789abcdefull, 5ull << 32 | 6};
    for (const int64_t units : {1, 10, 200, 700}) {
        ActionDraws ahead(stream, units);
        for (const uint64_t event : {0ull, 1ull, 2ull, 40ull, 39ull, 0xffffffffull, 0x100000000ull}) {
            ahead.begin<simd::Level::scalar>(event);
            Draws plain(stream, event);
            const uint64_t high = plain.word();
            EXPECT(ahead.integer() == (high << 32 | plain.word()));
            for (int64_t k = 0; k < units; ++k) EXPECT(ahead.unit(k) == unit_double(plain.word()));
        }
    }
}

FD_TEST(the_nearest_unvisited_city_is_the_nearest) {
    std::mt19937 random(4);
    for (const City n : {1, 7, 8, 9, 200}) {
        std::vector<double> xy(2 * n);
        for (double& v : xy) v = random() % 4096;
        NearestUnvisited near(xy.data(), n);
        std::vector<uint8_t> visited(n);
        for (const City c : shuffled(n, random)) {
            const auto squared = [&](City b) {
                return std::pow(xy[2 * b] - xy[2 * c], 2) + std::pow(xy[2 * b + 1] - xy[2 * c + 1], 2);
            };
            near.visit(c);
            visited[c] = 1;
            double least = std::numeric_limits<double>::infinity();
            for (City b = 0; b < n; ++b) {
                if (!visited[b]) least = std::min(least, squared(b));
            }
            const City found = near.from(c);
            EXPECT(found < 0 ? std::isinf(least) : !visited[found] && squared(found) == least);
        }
    }
}

Problem random_problem(City n, uint32_t seed, bool open, const std::vector<City>& fixed) {
    std::mt19937 random(seed);
    std::vector<double> xy(2 * n);
    for (double& v : xy) v = random() % 100000;
    BuildOptions options;
    options.n = n, options.xy = xy.data(), options.open = open;
    options.fixed = fixed.data(), options.fixed_count = static_cast<int64_t>(fixed.size() / 2);
    return build_problem(options);
}

FD_TEST(the_books_are_right_after_every_action) {
    for (const bool open : {false, true}) {
        for (const std::vector<City>& fixed : {std::vector<City>{}, {3, 9, 9, 20, 31, 3}}) {
            const Problem problem = random_problem(60, 5, open, fixed);
            for (const double alpha : {0.0, 1.0}) {
                MctsOptions options;
                options.alpha = alpha, options.max_candidates = 7, options.candidates_from_heatmap = false;
                options.param_h = 1, options.max_depth = 20;
                int64_t accepted = 0;
                for (options.max_actions = 1; options.max_actions < 240; ++options.max_actions) {
                    MctsSearch search(problem, {}, options, {});
                    EXPECT(search.run(1e9));
                    const std::vector<City> best = search.best();
                    EXPECT(length_of(problem, best) == search.state().best_length);
                    EXPECT(keeps_fixed(problem, best));
                    accepted = search.state().accepted;
                    EXPECT(search.state().actions == options.max_actions);
                }
                EXPECT(accepted > 3);
            }
        }
    }
}

FD_TEST(a_start_is_never_made_worse) {
    const Problem problem = random_problem(100, 6, false, {});
    std::mt19937 random(7);
    const std::vector<City> start = shuffled(problem.n, random);
    MctsOptions options;
    options.max_actions = 0;
    MctsSearch search(problem, {}, options, start);
    EXPECT(search.run(1e9));
    EXPECT(search.state().best_length == length_of(problem, start));
    const std::vector<City> best = search.best();
    EXPECT(length_of(problem, best) == length_of(problem, start));
}

}  // namespace
}  // namespace fd::tsp

FD_TEST_MAIN()
