#include <chrono>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "tsp/build_problem.h"
#include "tsp/greedy.h"
#include "tsp/mcts.h"
#include "tsp/mcts_chain.h"
#include "tsp/mcts_random_state.h"
#include "tsp/mcts_tour.h"

// GCC 12 takes the undefined operands inside its own AVX-512 intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace fd::tsp {

class MctsSearch::Engine {
  public:
    virtual ~Engine() = default;
    virtual bool run(double seconds) = 0;
    virtual std::vector<City> best() const = 0;
    MctsState state;
};

namespace {

using Clock = std::chrono::steady_clock;

// The clock is looked at after every so many units of work, each of which takes about ten nanoseconds.
class Deadline {
  public:
    explicit Deadline(double seconds) : start_(Clock::now()), seconds_(seconds) {}

    double elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
    void work(int64_t units) { units_ += units; }
    bool over() {
        if (units_ < kStride) return false;
        units_ = 0;
        return elapsed() >= seconds_;
    }

  private:
    static constexpr int64_t kStride = 4096;
    Clock::time_point start_;
    double seconds_;
    int64_t units_ = kStride;
};

template <class Distance>
class MctsEngine final : public MctsSearch::Engine {
  public:
    MctsEngine(const Problem& problem, const HeatLists& heat, const MctsOptions& options,
               const std::vector<City>& start, Distance distance)
        : options_(options),
          problem_(problem),
          distance_(distance),
          n_(problem.n),
          most_tries_(std::max<int64_t>(1, static_cast<int64_t>(options.param_h * n_))),
          numbers_(problem_numbers(problem)),
          edges_(problem, heat, options.max_candidates, options.candidates_from_heatmap, explores()),
          random_state_(problem, edges_, numbers_[0]),
          tour_(start.empty() ? any_tour(problem) : start),
          best_(tour_),
          chains_(explores() ? 1 : kAhead,
                  MctsChain(events(options), n_, options.max_depth, edges_.most_groups())) {
        state.rows_without_heat = edges_.rows_without_heat();
        state.length = state.best_length = length_of_tour();
        if (start.empty()) random_state_.begin({events(options_), event_++});
        phase_ = start.empty() ? Phase::random_state : Phase::descent;
    }

    bool run(double seconds) override {
        const double before = state.elapsed;
        Deadline deadline(std::min(seconds, options_.time_limit - before));
        while (state.actions != options_.max_actions && !deadline.over()) deadline.work(advance());
        state.elapsed = before + deadline.elapsed();
        state.finished = state.actions == options_.max_actions || state.elapsed >= options_.time_limit;
        return state.finished;
    }

    std::vector<City> best() const override {
        const bool present = phase_ != Phase::random_state && state.length == state.best_length;
        return (present ? tour_ : best_).order(numbers_[0]);
    }

  private:
    enum class Phase { random_state, descent, sampling };
    static constexpr int32_t kCitiesAtOnce = 16;  // of a random state
    static constexpr int64_t kActionsPerLogarithm = 256;

    // Actions simulated side by side: a processor overlaps their chains of dependent instructions. Without
    // exploration an action without success changes nothing, so the next ones may be simulated before it
    // ends.
    static constexpr int kAhead = 3;

    // Valid, for as long as there is no other.
    static std::vector<City> any_tour(const Problem& problem) {
        if (!problem.fixed.empty()) return greedy_tour(problem);
        std::vector<City> order(problem.n);
        std::iota(order.begin(), order.end(), 0);
        return order;
    }

    bool explores() const { return options_.alpha > 0; }

    static EventStream events(const MctsOptions& options) {
        return {options.seed, static_cast<uint64_t>(options.instance) << 32 | options.trajectory};
    }

    Total length_of_tour() const {
        Total length = 0;
        for (City c = 0; c < n_; ++c) length += distance_(c, tour_.next(c));
        return length;
    }

    // A small piece of work; returns about how many units it was.
    int64_t advance() {
        switch (phase_) {
            case Phase::random_state:
                if (random_state_.extend(kCitiesAtOnce, distance_)) {
                    tour_ = DirectedTour(random_state_.order());
                    state.length = length_of_tour();
                    shorten(0);  // a state that nothing improves counts, too
                    phase_ = Phase::descent;
                }
                return kCitiesAtOnce * (20 + 8 * edges_.most_groups());
            case Phase::descent:
                return explores() ? descend<true>() : descend<false>();
            default:
                return sample();
        }
    }

    void shorten(Total gain) {
        state.length -= gain;
        state.best_length = std::min(state.best_length, state.length);
    }

    double reward_of(Total gain) const {
        return options_.beta * std::expm1(static_cast<double>(gain) / static_cast<double>(state.length));
    }

    // 2-opt at one city: the first candidate with a gain.
    template <bool kCount>
    int64_t descend() {
        if (at_ == n_) {
            at_ = 0;
            if (!std::exchange(improved_, false)) {
                begin_sampling();
                return 0;
            }
        }
        const City a = numbers_[at_++], b = tour_.next(a);
        if (problem_.is_fixed(a, b)) return 1;
        const auto& row = edges_.row(a);
        for (int64_t slot = row.first; slot < row.first + row.count; ++slot) {
            const City c = edges_.city(slot), d = tour_.next(c);
            if (c == b || d == a || problem_.is_fixed(c, d)) continue;
            ++simulated_;
            if constexpr (kCount) edges_.try_edge(slot), edges_.try_edge(b, d);
            const Total gain =
                static_cast<Total>(distance_(a, b)) + distance_(c, d) - edges_.length(slot) - distance_(b, d);
            if (gain <= 0) continue;
            const double reward = reward_of(gain);
            edges_.reward(a, c, reward);
            edges_.reward(b, d, reward);
            shorten(gain);
            improved_ = true;
            return row.count + tour_.reverse(b, c) / 8;
        }
        return row.count;
    }

    void begin_sampling() {
        if (state.first_local_optimum == 0) state.first_local_optimum = state.length;
        phase_ = Phase::sampling;
        tries_ = 0;
        next_ = chains_.size();
        refresh_exploration();
    }

    void refresh_exploration() { exploration_ = options_.alpha * std::sqrt(std::log(simulated_ + 1.0)); }

    // One action.
    int64_t sample() {
        if (explores() && (options_.exact_ucb || state.actions % kActionsPerLogarithm == 0))
            refresh_exploration();
        if (next_ == chains_.size()) {
            simd::dispatch<Simulate>(this);
            next_ = 0;
        }
        const MctsChain& chain = chains_[next_++];
        ++event_;
        ++state.actions;
        ++simulated_;
        const int64_t work = 10 + 8 * chain.length();
        if (chain.gain() > 0) return work + apply(chain);
        if (++tries_ == most_tries_) leave();
        return work;
    }

    struct Simulate {
        template <simd::Level L>
        static FD_HOST_DEVICE void run(MctsEngine* engine) {
            engine->explores() ? engine->simulate<L, true, 1>() : engine->simulate<L, false, kAhead>();
        }
    };

    // The next kWays actions, as far as they may be needed.
    template <simd::Level L, bool kExplore, int kWays>
    FD_HOST_DEVICE void simulate() {
        const Surroundings<Distance> around{problem_,  numbers_,           tour_,       edges_,
                                            distance_, options_.max_depth, exploration_};
        MctsChain* chains = chains_.data();
        for (int k = 0; k < kWays; ++k) chains[k].begin<L>(event_ + k, around);
        int needed = kWays;  // none after a success
        for (bool running = true; running;) {
            running = false;
            for (int k = 0; k < kWays; ++k) {
                if (k >= needed || !chains[k].running()) continue;
                chains[k].template step<L, kExplore>(around);
                running |= chains[k].running();
                if (chains[k].gain() > 0) needed = k + 1;
            }
        }
    }

    // Returns the units of work. Edges that a later step removed again are rewarded too, as published.
    int64_t apply(const MctsChain& chain) {
        const double reward = reward_of(chain.gain());
        int64_t moved = 0;
        for (int32_t k = 0; k < chain.length(); ++k) {
            const MctsStep& step = chain.step_at(k);
            edges_.reward(step.from, step.to, reward);
            moved += tour_.reverse(step.from, step.end);
        }
        edges_.reward(chain.step_at(chain.length() - 1).end, chain.first(), reward);
        shorten(chain.gain());
        ++state.accepted;
        tries_ = 0;
        next_ = chains_.size();
        return moved / 8;
    }

    // For another random state.
    void leave() {
        if (state.length == state.best_length) best_ = tour_;
        ++state.restarts;
        random_state_.begin({events(options_), event_++});
        phase_ = Phase::random_state;
    }

    const MctsOptions options_;
    const Problem& problem_;
    const Distance distance_;
    const int32_t n_;
    const int64_t most_tries_;
    const std::vector<City> numbers_;  // orders and draws are in the caller's numbering
    MctsEdges edges_;
    RandomState random_state_;
    DirectedTour tour_, best_;
    std::vector<MctsChain> chains_;
    size_t next_ = 0;  // of the chains, to be looked at
    Phase phase_ = Phase::random_state;
    uint64_t event_ = 0;
    int64_t simulated_ = 0;  // M: actions and 2-opt moves looked at
    int64_t tries_ = 0;
    double exploration_ = 0;  // alpha sqrt(ln(M + 1))
    City at_ = 0;
    bool improved_ = false;
};

}  // namespace

MctsSearch::MctsSearch(const Problem& problem, const HeatLists& heat, const MctsOptions& options,
                       const std::vector<City>& start) {
    if (problem.n < 5) throw std::invalid_argument("this search needs at least 5 cities");
    if (options.max_candidates < 1 || options.max_depth < 1)
        throw std::invalid_argument("max_candidates and max_depth must be at least 1");
    const auto begin = Clock::now();
    engine_ = problem.with_distance([&](auto distance) -> std::unique_ptr<Engine> {
        return std::make_unique<MctsEngine<decltype(distance)>>(problem, heat, options, start, distance);
    });
    engine_->state.elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
}

MctsSearch::~MctsSearch() = default;

bool MctsSearch::run(double seconds) { return engine_->run(seconds); }
const MctsState& MctsSearch::state() const { return engine_->state; }
std::vector<City> MctsSearch::best() const { return engine_->best(); }

}  // namespace fd::tsp
