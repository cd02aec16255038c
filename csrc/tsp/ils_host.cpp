#include <chrono>
#include <stdexcept>

#include "common/philox.h"
#include "tsp/evolve.h"
#include "tsp/ils.h"
#include "tsp/journal.h"
#include "tsp/moves.h"
#include "tsp/schedule.h"
#include "tsp/work_queue.h"

namespace fd::tsp {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point then) {
    return std::chrono::duration<double>(Clock::now() - then).count();
}

// Uniform in 0 .. range - 1; the bias of 2^-32 range does not matter here.
int32_t below(uint32_t word, int32_t range) {
    return static_cast<int32_t>(static_cast<uint64_t>(word) * static_cast<uint32_t>(range) >> 32);
}

constexpr double kSecondsPerKick = 60e-6;  // roughly: only the length of segments depends on it

int32_t longest_segment(const IlsOptions& options, City n) {
    if (options.segment > 0) return options.segment;
    const double kicks = options.max_kicks >= 0 ? static_cast<double>(options.max_kicks)
                                                : options.time_limit / kSecondsPerKick;
    return segment_for(kicks / n);
}

template <class Distance>
class IlsEngine final : public IlsSearch::Engine {
  public:
    IlsEngine(const Problem& problem, const IlsOptions& options, const std::vector<City>& start,
              Distance distance)
        : options_(options),
          problem_(problem),
          distance_(distance),
          n_(problem.n),
          segment_(std::clamp(longest_segment(options, n_), 1, n_ / 4 - 1)),
          near_(problem.candidates),
          tour_(start),
          journal_(tour_),
          queue_(n_),
          search_(problem, near_, tour_, distance, n_ > kReachFrom ? kReach : n_) {
        for (int32_t i = 0; i < n_; ++i) {
            state.length += distance_(tour_.at(i), tour_.next(tour_.at(i)));
            queue_.push(tour_.at(i));
        }
        state.best_length = state.length;
    }

    bool run(double seconds) override {
        const Clock::time_point start = Clock::now();
        const double before = state.elapsed;
        const double most = std::min(seconds, options_.time_limit - before);
        // false = the time is over
        const auto time_left = [&] {
            const double now = seconds_since(start);
            state.elapsed = before + now;
            return now < most;
        };
        if (descended_ || descend(time_left)) kick_on(time_left);
        time_left();
        const bool kicked =
            descended_ && state.kicks == options_.max_kicks;  // no kicks: the descent is the search
        state.finished = state.elapsed >= options_.time_limit || kicked;
        return state.finished;
    }

    const std::vector<City>& best() override { return journal_.best(); }

  private:
    static constexpr int32_t kReachFrom = 150'000, kReach = 50'000;
    static constexpr int32_t kSweepFrom = 20'000, kWindow = 1000;
    static constexpr int64_t kStay = 100;   // kicks in one window of the sweep
    static constexpr int64_t kStride = 16;  // kicks between looks at the clock

    template <class TimeLeft>
    bool descend(const TimeLeft& time_left) {
        for (int64_t looked = 0; !queue_.empty(); ++looked) {
            if (looked % 256 == 0 && !time_left()) break;
            improve(queue_.pop());
            journal_.settle();
        }
        if (state.length < state.best_length) {
            state.best_length = state.length;
            journal_.mark_best();
        }
        if (!queue_.empty()) return false;
        descended_ = true;
        state.first_local_optimum = state.length;
        mean_edge_ = static_cast<double>(state.length) / n_;
        return true;
    }

    void improve(City t1) {
        while (search_.improve(t1, move_)) {
            journal_.rearrange(move_.path);
            state.length -= move_.gain;
            for (int k = 1; k < move_.size; ++k) queue_.push(move_.ends[k]);
        }
    }

    template <class TimeLeft>
    void kick_on(const TimeLeft& time_left) {
        double temperature = 0;
        for (int64_t since = 0; state.kicks != options_.max_kicks; ++since) {
            if (since % kStride == 0 && !time_left()) return;
            if (since == 0 || state.kicks % kStride == 0) temperature = mean_edge_ * present_temperature();
            kick(temperature);
            ++state.kicks;
        }
    }

    double present_temperature() const {
        // of the last multiple of kStride, wherever this slice began
        const int64_t kicks = state.kicks / kStride * kStride;
        const bool by_kicks = options_.max_kicks >= 0;
        const double fraction =
            by_kicks ? static_cast<double>(kicks) / options_.max_kicks : state.elapsed / options_.time_limit;
        const double all = by_kicks ? options_.max_kicks : fraction > 0 ? kicks / fraction : 0;
        Temperatures t = temperatures_for(all / n_);
        if (options_.hot > 0) t = {options_.hot, options_.cold};
        return t.at(fraction);
    }

    // A double bridge inside a short part of the tour: A B C D -> A D C B. Three-opt steps cannot take it
    // back at once, unlike an exchange of two segments.
    bool perturb(const PhiloxWords& random) {
        const int32_t before = place_of_kick(random.w[0]);
        int32_t cut[4] = {0};
        uint32_t word = random.w[1];
        for (int k = 1; k < 4; ++k) {
            cut[k] = cut[k - 1] + 1 + below(word, segment_);
            word = word << 10 | word >> 22;
        }
        City end[8];
        for (int k = 0; k < 4; ++k) {
            end[2 * k] = tour_.at((before + cut[k]) % n_);
            end[2 * k + 1] = tour_.next(end[2 * k]);
            if (problem_.is_fixed(end[2 * k], end[2 * k + 1])) return false;
        }
        for (int k = 0; k < 8; k += 2) state.length -= distance_(end[k], end[k + 1]);
        state.length += distance_(end[0], end[5]) + distance_(end[6], end[3]) + distance_(end[4], end[1]) +
                        distance_(end[2], end[7]);
        Path path((before + 1) % n_, 1);
        path.add({cut[2], cut[3] - 1});
        path.add({cut[1], cut[2] - 1});
        path.add({0, cut[1] - 1});
        path.add({cut[3], n_ - 1});
        journal_.rearrange(path);
        for (const City e : end) queue_.push(e);
        return true;
    }

    // Anywhere; on many cities, kicks sweep along the space-filling curve, where memory is warm.
    int32_t place_of_kick(uint32_t word) const {
        if (n_ < kSweepFrom) return below(word, n_);
        const int64_t start = state.kicks / kStay % ((n_ + kWindow - 1) / kWindow) * kWindow;
        return tour_.place(static_cast<City>((start + below(word, kWindow)) % n_));
    }

    void kick(double temperature) {
        const PhiloxStream stream(StreamTag::tour, options_.seed, static_cast<uint32_t>(state.kicks),
                                  static_cast<uint64_t>(options_.instance) << 32 | options_.trajectory);
        const PhiloxWords random = stream.block(static_cast<uint64_t>(state.kicks) >> 32 << 16);
        const Total before = state.length;
        if (!perturb(random)) return;
        while (!queue_.empty()) improve(queue_.pop());
        const Total loss = state.length - before;
        if (loss > 0 && static_cast<double>(loss) > -temperature * log_unit(unit_interval(random.w[2]))) {
            journal_.undo();
            state.length = before;
            return;
        }
        ++state.accepted;
        journal_.settle();
        if (state.length < state.best_length) {
            state.best_length = state.length;
            journal_.mark_best();
        }
    }

    const IlsOptions options_;
    const Problem& problem_;
    const Distance distance_;
    const int32_t n_, segment_;
    const Neighbours near_;
    Tour tour_;
    Journal journal_;
    WorkQueue queue_;
    MoveSearch<Distance> search_;
    Move move_;
    bool descended_ = false;
    double mean_edge_ = 0;
};

}  // namespace

IlsSearch::IlsSearch(const Problem& problem, const IlsOptions& options, const std::vector<City>& start) {
    if (problem.n < 8) throw std::invalid_argument("IlsSearch needs at least 8 cities");
    const Clock::time_point then = Clock::now();
    if (options.recombine && evolution_pays(problem.n, options)) {
        engine_ = make_evolution(problem, options, start);
        return;
    }
    problem.with_distance([&](auto distance) {
        engine_ = std::make_unique<IlsEngine<decltype(distance)>>(problem, options, start, distance);
    });
    engine_->state.elapsed = seconds_since(then);
}

IlsSearch::~IlsSearch() = default;

bool IlsSearch::run(double seconds) { return engine_->run(seconds); }
const IlsState& IlsSearch::state() const { return engine_->state; }
const std::vector<City>& IlsSearch::best() { return engine_->best(); }

}  // namespace fd::tsp
