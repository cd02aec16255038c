// Log-probability, entropy, margin, logsumexp and odds residual from sums over tiles, merged in tile order in
// float64: threads and splits change nothing.
#pragma once

#include <cmath>
#include <vector>

#include "categorical/tiles_cpu.h"

namespace fd::categorical {

// As ExpSums, of the finite logits.
struct TileSums {
    double most = kMinusInfinity<double>, second = kMinusInfinity<double>;
    double ties = 0, sum = 0, first = 0;

    double total() const { return ties + sum; }
};

template <class T>
class Scores {
  public:
    Scores(const Row<T>& row, double temperature, int64_t first_tile, int64_t tiles)
        : row_(row), temperature_(temperature), first_tile_(first_tile), sums_(tiles) {}

    // `most`: the largest logit of the loaded tile.
    void see(int64_t tile, Tiles<T>& tiles, float most) {
        const TileRange& range = tiles.range();
        sums_[tile - first_tile_] = vectorised(most)
                                        ? of_floats(tiles.all(), range.last - range.first, most)
                                        : of_values(range.column + range.first, range.column + range.last);
    }

    void finish(const Choice& best, double* out) const {
        TileSums all;
        for (const TileSums& part : sums_) merge(all, part);
        const bool empty = all.ties == 0;
        const double total = all.total();
        const double log_total = all.ties == 1 ? std::log1p(all.sum) : std::log(total);
        out[0] = kMinusInfinity<double>;
        out[1] = empty ? 0.0 : log_total - all.first / total;
        out[2] = all.ties == 1 ? -std::expm1(difference(all.second, all.most)) / total : 0.0;
        out[3] = empty ? kMinusInfinity<double> : all.most / temperature_ + log_total;
        out[4] = std::numeric_limits<double>::infinity();
        if (best.token < 0) return;
        const double chosen = static_cast<double>(row_.unfiltered(best.token - row_.vocab_start));
        // 1 - p would cancel where p is almost 1.
        out[4] =
            chosen == all.most ? all.ties - 1 + all.sum : total * std::exp(difference(all.most, chosen)) - 1;
        out[0] = out[4] < 1 ? -std::log1p(out[4]) : difference(chosen, all.most) - log_total;
    }

  private:
    // Float sums do for all but float64 logits and infinite ones.
    static bool vectorised(float most) {
        return dtype_of<T> != DType::f64 && most < std::numeric_limits<float>::infinity();
    }

    double difference(double a, double b) const { return a == b ? 0.0 : (a - b) / temperature_; }

    TileSums of_floats(const float* l, int n, float most) const {
        if (most == kMinusInfinity<float>) return {};
        ExpSums s;
        leaves().exp_sums(l, n, most, static_cast<float>(1 / temperature_), s);
        return {static_cast<double>(most), static_cast<double>(s.second), s.ties, s.sum, s.first};
    }

    TileSums of_values(int64_t column, int64_t last) const {
        TileSums s;
        for (int64_t j = column; j < last; ++j)
            s.most = std::max(s.most, static_cast<double>(row_.unfiltered(j)));
        for (int64_t j = column; j < last && s.most > kMinusInfinity<double>; ++j) {
            const double l = static_cast<double>(row_.unfiltered(j));
            if (l == s.most) {
                ++s.ties;
                continue;
            }
            s.second = std::max(s.second, l);
            const double t = difference(l, s.most), e = std::exp(t);
            s.sum += e;
            s.first += e > 0 ? e * t : 0.0;
        }
        return s;
    }

    void merge(TileSums& all, const TileSums& part) const {
        if (part.ties == 0) return;
        const bool higher = part.most > all.most;
        const TileSums low = higher ? all : part;
        if (higher) all = part;
        if (low.most == all.most) {
            all.second = std::max(all.second, low.second);
            all.ties += low.ties;
            all.sum += low.sum;
            all.first += low.first;
            return;
        }
        all.second = std::max(all.second, low.most);
        const double shift = difference(low.most, all.most), scale = std::exp(shift);
        if (scale == 0) return;
        all.sum += low.total() * scale;
        all.first += (low.first + low.total() * shift) * scale;
    }

    const Row<T>& row_;
    const double temperature_;
    const int64_t first_tile_;
    std::vector<TileSums> sums_;
};

}  // namespace fd::categorical
