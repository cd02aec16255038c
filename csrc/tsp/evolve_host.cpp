#include "tsp/evolve.h"

#include <bit>
#include <chrono>
#include <cmath>
#include <numeric>

#include "common/philox.h"
#include "tsp/recombine_cycles.h"
#include "tsp/recombine_pieces.h"

namespace fd::tsp {

class EvolveSearch::Engine {
  public:
    virtual ~Engine() = default;
    virtual bool run(double seconds) = 0;
    std::vector<Total> lengths;
    std::vector<City> best;
    Total best_length = std::numeric_limits<Total>::max();
    int64_t generations = 0;
};

namespace {

using Clock = std::chrono::steady_clock;

// How many tours have an edge.
class EdgeCounts {
  public:
    explicit EdgeCounts(size_t edges) : slots_(std::bit_ceil(4 * edges)) {}

    int32_t of(City a, City b) const { return slots_[find(a, b)].count; }

    void add(City a, City b, int32_t more) {
        Slot& slot = slots_[find(a, b)];
        if (slot.key == 0) {
            slot.key = key(a, b);
            if (2 * ++used_ > slots_.size()) {
                slot.count += more;
                grow();
                return;
            }
        }
        slot.count += more;
    }

  private:
    struct Slot {
        uint64_t key = 0;
        int32_t count = 0;
    };
    static uint64_t key(City a, City b) {
        return static_cast<uint64_t>(std::min(a, b) + 1) << 32 | static_cast<uint32_t>(std::max(a, b));
    }
    size_t find(City a, City b) const {
        const uint64_t k = key(a, b);
        size_t at = (k * 0x9E3779B97F4A7C15u) >> (64 - std::countr_zero(slots_.size()));
        while (slots_[at].key != 0 && slots_[at].key != k) at = (at + 1) & (slots_.size() - 1);
        return at;
    }
    void grow() {
        std::vector<Slot> old(2 * slots_.size());
        old.swap(slots_);
        used_ = 0;
        for (const Slot& slot : old) {
            if (slot.count > 0)
                add(static_cast<City>(slot.key >> 32) - 1, static_cast<City>(slot.key), slot.count);
        }
    }
    std::vector<Slot> slots_;
    size_t used_ = 0;
};

template <class Distance>
class EvolveEngine final : public EvolveSearch::Engine {
  public:
    EvolveEngine(const Problem& problem, const EvolveOptions& options, const std::vector<std::vector<City>>& tours,
                 Distance distance)
        : options_(options),
          n_(problem.n),
          near_(problem.candidates),
          pieces_(problem, near_, distance),
          cycles_(problem.n),
          tours_(tours),
          counts_(static_cast<size_t>(problem.n)),
          entropy_(tours.size() + 2) {
        const double all = static_cast<double>(tours.size());
        for (size_t k = 1; k < entropy_.size(); ++k) entropy_[k] = -(k / all) * std::log(k / all);
        for (const auto& tour : tours_) {
            Total length = 0;
            for (City i = 0; i < n_; ++i) {
                const City a = tour[i], b = tour[i + 1 < n_ ? i + 1 : 0];
                length += distance(a, b);
                counts_.add(a, b, 1);
            }
            lengths.push_back(length);
            if (length < best_length) best_length = length, best = tour;
        }
    }

    bool run(double seconds) override {
        const auto start = Clock::now();
        const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
        for (; !finished_; ++generations) {
            const PhiloxStream stream(StreamTag::tour, options_.seed, static_cast<uint32_t>(generations),
                                      static_cast<uint64_t>(options_.instance) << 32 | options_.trajectory);
            const PhiloxWords words = stream.block(0xffff);
            LocalDraws draws(static_cast<uint64_t>(words.w[0]) << 32 | words.w[1]);
            std::vector<int32_t> order(tours_.size());
            std::iota(order.begin(), order.end(), 0);
            draws.shuffle(order);
            const std::vector<City> first = tours_[order[0]];
            bool changed = false;
            Tour a(tours_[order[0]]);
            for (size_t i = 0; i < order.size(); ++i) {
                Tour b(i + 1 < order.size() ? tours_[order[i + 1]] : first);
                changed |= mate(order[i], a, b, draws);
                a = std::move(b);
                if (elapsed() > seconds) return false;
            }
            stalled_ = changed ? 0 : stalled_ + 1;
            finished_ = stalled_ >= 3 || generations + 1 == options_.max_generations;
        }
        return true;
    }

  private:
    bool mate(int32_t parent, const Tour& a, const Tour& b, LocalDraws& draws) {
        cycles_.split(a, b, draws);
        std::vector<int32_t> chosen(cycles_.size());
        std::iota(chosen.begin(), chosen.end(), 0);
        draws.shuffle(chosen);
        if (chosen.size() > static_cast<size_t>(options_.children)) chosen.resize(options_.children);
        double best_value = 0;
        Total best_gain = 0;
        using Pairs = std::vector<std::pair<City, City>>;
        Pairs removed, added;
        std::vector<City> child;
        for (const int32_t c : chosen) {
            if (!pieces_.rejoin(a, cycles_[c]) || pieces_.gain <= 0) continue;
            const double value = value_of(pieces_);
            if (value <= best_value) continue;
            best_value = value;
            best_gain = pieces_.gain;
            removed = pieces_.removed, added = pieces_.added;
            pieces_.write(child);
        }
        if (best_gain == 0) return false;
        tours_[parent] = child;
        lengths[parent] -= best_gain;
        for (const auto& [x, y] : removed) counts_.add(x, y, -1);
        for (const auto& [x, y] : added) counts_.add(x, y, 1);
        if (lengths[parent] < best_length) best_length = lengths[parent], best = child;
        return true;
    }

    double value_of(const Pieces<Distance>& pieces) const {
        if (options_.greedy) return static_cast<double>(pieces.gain);
        double change = 0;
        for (const auto& [x, y] : pieces.removed) {
            const int32_t count = counts_.of(x, y);
            change += entropy_[count - 1] - entropy_[count];
        }
        for (const auto& [x, y] : pieces.added) {
            const int32_t count = counts_.of(x, y);
            change += entropy_[count + 1] - entropy_[count];
        }
        constexpr double kSmall = 1e-9;
        return static_cast<double>(pieces.gain) / std::max(-change, kSmall);
    }

    const EvolveOptions options_;
    const City n_;
    const Neighbours near_;
    Pieces<Distance> pieces_;
    AlternatingCycles cycles_;
    std::vector<std::vector<City>> tours_;
    EdgeCounts counts_;
    std::vector<double> entropy_;
    int32_t stalled_ = 0;
    bool finished_ = false;
};

}  // namespace

EvolveSearch::EvolveSearch(const Problem& problem, const EvolveOptions& options,
                           const std::vector<std::vector<City>>& tours) {
    problem.with_distance([&](auto distance) {
        engine_ = std::make_unique<EvolveEngine<decltype(distance)>>(problem, options, tours, distance);
    });
}
EvolveSearch::~EvolveSearch() = default;

bool EvolveSearch::run(double seconds) { return engine_->run(seconds); }
const std::vector<City>& EvolveSearch::best() const { return engine_->best; }
Total EvolveSearch::best_length() const { return engine_->best_length; }
int64_t EvolveSearch::generations() const { return engine_->generations; }
double EvolveSearch::mean_length() const {
    return static_cast<double>(std::accumulate(engine_->lengths.begin(), engine_->lengths.end(), Total{0})) /
           static_cast<double>(engine_->lengths.size());
}

}  // namespace fd::tsp
