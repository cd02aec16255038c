#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "common/philox.h"
#include "tsp/evolve.h"
#include "tsp/greedy.h"
#include "tsp/recombine_counts.h"
#include "tsp/recombine_cycles.h"
#include "tsp/recombine_pieces.h"

namespace fd::tsp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kMostTours = 300, kFewestTours = 10;
constexpr size_t kMostChildren = 30;       // of a pair in one generation
constexpr double kSecondsPerKick = 70e-6;  // roughly: it decides where a population begins to pay
constexpr double kDescent = 0.03;          // what a first descent takes, in kicks per city

// Kicks per city, spent on each tour of a population for so many in all. Few: two tours that descended from
// different starts teach more than one that was improved at length.
double founding_kicks(double budget) { return std::clamp(budget / 300, 0.01, 0.5); }

// Tours of which the whole evolution takes `budget` kicks per city; fitted to 200 .. 10000 cities. Better
// founders converge sooner, and larger tours take more generations.
double affordable_tours(City n, double budget, double founding) {
    const double mating = 0.067 * std::pow(n / 1000.0, 0.9) / (1 + 1.5 * founding);
    return 0.7 * budget / (founding + kDescent + mating);
}

double kicks_per_city(City n, const IlsOptions& options) {
    const double by_clock = options.time_limit / kSecondsPerKick;
    return (options.max_kicks >= 0 ? std::min<double>(by_clock, options.max_kicks) : by_clock) / n;
}

template <class Distance>
class Evolution final : public IlsSearch::Engine {
  public:
    Evolution(const Problem& problem, const IlsOptions& options, const std::vector<City>& start,
              Distance distance)
        : options_(options),
          problem_(problem),
          distance_(distance),
          n_(problem.n),
          near_(problem.candidates),
          pieces_(problem, near_, distance),
          cycles_(problem.n),
          best_(start),
          next_(start),
          first_(start) {
        state.length = state.best_length = length(start);
        founding_ = static_cast<int64_t>(founding_kicks(kicks_per_city(n_, options)) * n_);
    }

    bool run(double seconds) override {
        const Clock::time_point start = Clock::now();
        const double before = state.elapsed;
        const double most = std::min(seconds, options_.time_limit - before);
        for (;;) {
            const double now = std::chrono::duration<double>(Clock::now() - start).count();
            state.elapsed = before + now;
            if (options_.max_kicks >= 0) state.kicks = std::min(state.kicks, options_.max_kicks);
            state.finished = state.elapsed >= options_.time_limit || state.kicks == options_.max_kicks;
            if (state.finished || now >= most) return state.finished;
            if (tours_.size() < wanted_) {
                found(most - now);
            } else {
                mate_next();
            }
        }
    }

    const std::vector<City>& best() override { return best_; }

  private:
    Total length(const std::vector<City>& tour) const {
        Total sum = distance_(tour.back(), tour.front());
        for (size_t i = 1; i < tour.size(); ++i) sum += distance_(tour[i - 1], tour[i]);
        return sum;
    }

    LocalDraws draws_for(uint32_t purpose, uint32_t index) const {
        const PhiloxStream stream(StreamTag::tour, options_.seed, index,
                                  static_cast<uint64_t>(options_.instance) << 32 | options_.trajectory);
        const PhiloxWords words = stream.block(purpose);
        return LocalDraws(static_cast<uint64_t>(words.w[0]) << 32 | words.w[1]);
    }

    // Another tour for the population, by a short search from a greedy tour of its own.
    void found(double seconds) {
        if (founder_ == nullptr) {
            IlsOptions options = options_;
            options.recombine = false;
            options.seed = draws_for(0xfffe, founded_).word();
            options.time_limit = std::numeric_limits<double>::infinity();
            options.max_kicks = founding_;
            if (founded_ > 0) next_ = random_greedy();
            founder_ = std::make_unique<IlsSearch>(problem_, options, next_);
            ++founded_;
        }
        if (!founder_->run(seconds)) return;
        state.kicks += founder_->state().kicks;
        state.accepted += founder_->state().accepted;
        if (state.first_local_optimum == 0) state.first_local_optimum = founder_->state().first_local_optimum;
        admit(founder_->best(), founder_->state().best_length);
        const double took = founder_->state().elapsed;
        founder_.reset();
        if (wanted_ == 1) choose_size(took);
        if (tours_.size() == wanted_) settle();
    }

    void choose_size(double founder_seconds) {
        const double founding = static_cast<double>(founding_) / n_;
        double budget = std::numeric_limits<double>::infinity();
        if (options_.max_kicks >= 0) budget = static_cast<double>(options_.max_kicks) / n_;
        if (std::isfinite(options_.time_limit)) {
            const double per_second = (founding + kDescent) / std::max(founder_seconds, 1e-6);
            budget = std::min(budget, options_.time_limit * per_second);
        }
        wanted_ = static_cast<size_t>(
            std::clamp<double>(affordable_tours(n_, budget, founding), kFewestTours, kMostTours));
    }

    // The greedy tour under random preferences of candidate edges.
    std::vector<City> random_greedy() const {
        LocalDraws draws = draws_for(0xfffd, founded_);
        Heat heat;
        heat.width = problem_.candidates.width;
        heat.city = problem_.candidates.city;
        heat.weight.resize(heat.city.size());
        for (float& w : heat.weight) w = static_cast<float>(draws.word() >> 40) * 0x1p-24f;
        return greedy_tour(problem_, heat);
    }

    void admit(const std::vector<City>& tour, Total length) {
        tours_.push_back(tour);
        lengths_.push_back(length);
        remember(tour, length);
    }

    void remember(const std::vector<City>& tour, Total length) {
        if (length >= state.best_length) return;
        state.best_length = length;
        best_ = tour;
    }

    // The population is complete: counts its edges.
    void settle() {
        counts_ = EdgeCounts(n_);
        for (const auto& tour : tours_) count(tour, 1);
        const double all = static_cast<double>(tours_.size());
        entropy_.assign(tours_.size() + 2, 0);
        for (size_t k = 1; k < entropy_.size(); ++k) entropy_[k] = -(k / all) * std::log(k / all);
        order_.clear();
        stalled_ = 0;
        age_ = 0;
        first_excess_ = excess();
    }

    double spent() const {
        const double by_clock = state.elapsed / options_.time_limit;
        if (options_.max_kicks < 0) return by_clock;
        return std::max(by_clock, static_cast<double>(state.kicks) / static_cast<double>(options_.max_kicks));
    }

    // How much longer tours are than the shortest of them, in the mean.
    double excess() const {
        const Total shortest = *std::min_element(lengths_.begin(), lengths_.end());
        const Total sum = std::accumulate(lengths_.begin(), lengths_.end(), Total{0});
        return static_cast<double>(sum) /
                   (static_cast<double>(shortest) * static_cast<double>(lengths_.size())) -
               1;
    }

    // A population that is still wide when the budget ends is worth little. Going by how fast it has narrowed
    // so far, the longest tours are given up where time will not suffice for all.
    void keep_pace() {
        constexpr double kNarrow = 3e-5;
        constexpr size_t kLeast = 8;
        const double now = excess(), cost = spent() - spent_before_;
        if (++age_ < 3 || now <= kNarrow || now >= first_excess_ || tours_.size() <= kLeast) return;
        const double generations = age_ * std::log(now / kNarrow) / std::log(first_excess_ / now);
        if (cost * generations < 1 - spent()) return;
        for (size_t dropped = 0; dropped < tours_.size() / 8 + 1; ++dropped) {
            const auto longest = std::max_element(lengths_.begin(), lengths_.end()) - lengths_.begin();
            count(tours_[longest], -1);
            tours_.erase(tours_.begin() + longest);
            lengths_.erase(lengths_.begin() + longest);
        }
        wanted_ = tours_.size();
    }

    void count(const std::vector<City>& tour, int32_t more) {
        for (City i = 0; i < n_; ++i) counts_.add(tour[i], tour[i + 1 < n_ ? i + 1 : 0], more);
    }

    void begin_generation() {
        draws_ = draws_for(0xfffc, static_cast<uint32_t>(generation_++));
        order_.resize(tours_.size());
        std::iota(order_.begin(), order_.end(), 0);
        draws_.shuffle(order_);
        spent_before_ = spent();
        first_ = tours_[order_[0]];
        mother_ = Tour(first_);
        turn_ = 0;
        changed_ = false;
    }

    // Every tour meets the next one of a random cycle, as it was before this generation.
    void mate_next() {
        if (order_.empty()) begin_generation();
        Tour father(turn_ + 1 < order_.size() ? tours_[order_[turn_ + 1]] : first_);
        changed_ |= mate(order_[turn_], mother_, father);
        mother_ = std::move(father);
        if (++turn_ < order_.size()) return;
        order_.clear();
        stalled_ = changed_ ? 0 : stalled_ + 1;
        if (stalled_ == 3) {
            start_over();
        } else {
            keep_pace();
        }
    }

    // Replaces a parent by its best child, if one is shorter.
    bool mate(int32_t parent, const Tour& a, const Tour& b) {
        cycles_.split(a, b, draws_);
        chosen_.resize(cycles_.size());
        std::iota(chosen_.begin(), chosen_.end(), 0);
        draws_.shuffle(chosen_);
        if (chosen_.size() > kMostChildren) chosen_.resize(kMostChildren);
        children_ += static_cast<int64_t>(chosen_.size()) + 1;  // a pair without a difference costs, too
        state.kicks += children_ / kChildrenPerKick;
        children_ %= kChildrenPerKick;
        double best_value = 0;
        int32_t best = -1;
        for (const int32_t c : chosen_) {
            if (!pieces_.rejoin(a, cycles_[c]) || pieces_.gain <= 0) continue;
            const double value = value_of_child();
            if (value > best_value) best_value = value, best = c;
        }
        if (best < 0) return false;
        pieces_.rejoin(a, cycles_[best]);
        pieces_.write(tours_[parent]);
        lengths_[parent] -= pieces_.gain;
        for (const auto& [x, y] : pieces_.removed) counts_.add(x, y, -1);
        for (const auto& [x, y] : pieces_.added) counts_.add(x, y, 1);
        remember(tours_[parent], lengths_[parent]);
        ++state.accepted;
        return true;
    }

    // Gain for each unit of entropy of the population's edges that is lost.
    double value_of_child() const {
        double change = 0;
        for (const auto& [x, y] : pieces_.removed) {
            const int32_t count = counts_.of(x, y);
            change += entropy_[count - 1] - entropy_[count];
        }
        for (const auto& [x, y] : pieces_.added) {
            const int32_t count = counts_.of(x, y);
            change += entropy_[count + 1] - entropy_[count];
        }
        constexpr double kSmall = 1e-9;
        return static_cast<double>(pieces_.gain) / std::max(-change, kSmall);
    }

    // All have become one: new tours, among them the best of before.
    void start_over() {
        tours_.clear();
        lengths_.clear();
        admit(best_, state.best_length);
    }

    const IlsOptions options_;
    const Problem& problem_;
    const Distance distance_;
    const City n_;
    const Neighbours near_;
    Pieces<Distance> pieces_;
    AlternatingCycles cycles_;
    std::vector<City> best_, next_, first_;
    int64_t founding_ = 0;
    uint32_t founded_ = 0, generation_ = 0;
    size_t wanted_ = 1, turn_ = 0;
    std::unique_ptr<IlsSearch> founder_;
    std::vector<std::vector<City>> tours_;
    std::vector<Total> lengths_;
    EdgeCounts counts_{1};
    std::vector<double> entropy_;
    std::vector<int32_t> order_, chosen_;
    LocalDraws draws_{0};
    Tour mother_{first_};
    int64_t children_ = 0;
    int32_t stalled_ = 0, age_ = 0;
    double first_excess_ = 0, spent_before_ = 0;
    bool changed_ = false;
};

}  // namespace

bool evolution_pays(City n, const IlsOptions& options) {
    const double budget = kicks_per_city(n, options);
    return n >= 24 && affordable_tours(n, budget, founding_kicks(budget)) >= kFewestTours;
}

std::unique_ptr<IlsSearch::Engine> make_evolution(const Problem& problem, const IlsOptions& options,
                                                  const std::vector<City>& start) {
    std::unique_ptr<IlsSearch::Engine> engine;
    problem.with_distance([&](auto distance) {
        engine = std::make_unique<Evolution<decltype(distance)>>(problem, options, start, distance);
    });
    return engine;
}

}  // namespace fd::tsp
