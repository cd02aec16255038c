// Log-probability, entropy, margin, logsumexp and odds residual from sums over tiles, merged in tile order in
// float64: threads and splits change nothing.
#pragma once

#include <cmath>
#include <vector>

#include "categorical/tiles_cpu.h"

namespace fd::categorical {

// Of one tile, with t = (l - most) / temperature.
struct TileSums {
    double most = kMinusInfinity<double>, second = kMinusInfinity<double>;
    double sum = 0, first = 0;  // of exp(t), of t exp(t)
};

template <class T>
class Scores {
  public:
    Scores(const Row<T>& row, double temperature, int64_t first_tile, int64_t tiles)
        : row_(row), temperature_(temperature), first_tile_(first_tile), sums_(tiles) {}

    // `most`: the largest logit of the loaded tile.
    void see(int64_t tile, Tiles<T>& tiles, float most) {
        const TileRange& range = tiles.range();
        sums_[tile - first_tile_] =
            vectorised(most) ? of_floats(tiles.all(), range.last - range.first, most)
                             : of_values(range.column + range.first, range.column + range.last, -1);
    }

    void finish(const Choice& best, Tiles<T>& tiles, double* out) {
        TileSums all;
        for (const TileSums& part : sums_) merge(all, part);
        const bool empty = all.sum == 0;
        const double log_sum = std::log(all.sum);
        out[1] = empty ? 0.0 : log_sum - all.first / all.sum;
        out[2] = all.second == all.most ? 0.0 : -std::expm1((all.second - all.most) / temperature_) / all.sum;
        out[3] = empty ? kMinusInfinity<double> : all.most / temperature_ + log_sum;
        if (best.token < 0) {
            out[0] = kMinusInfinity<double>;
            out[4] = std::numeric_limits<double>::infinity();
            return;
        }
        // The token's own tile again, without it: 1 - p cancels where p is almost 1.
        const int64_t tile = best.token / kTile, column = best.token - row_.vocab_start;
        TileSums& own = sums_[tile - first_tile_];
        own = without(tile, column, tiles, own);
        const double chosen = static_cast<double>(row_.unfiltered(column));
        double residual = 0;
        for (const TileSums& part : sums_) {
            if (part.sum > 0) residual += part.sum * std::exp(difference(part.most, chosen));
        }
        out[0] = residual < 1 ? -std::log1p(residual) : difference(chosen, all.most) - log_sum;
        out[4] = residual;
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
        return {static_cast<double>(most), static_cast<double>(s.second), s.sum, s.first};
    }

    TileSums of_values(int64_t column, int64_t last, int64_t without) const {
        TileSums s;
        for (int64_t j = column; j < last; ++j) {
            const double l = j == without ? kMinusInfinity<double> : static_cast<double>(row_.unfiltered(j));
            s.second = std::max(s.second, std::min(s.most, l));
            s.most = std::max(s.most, l);
        }
        for (int64_t j = column; j < last && s.most > kMinusInfinity<double>; ++j) {
            const double l = static_cast<double>(row_.unfiltered(j));
            if (j == without || l == kMinusInfinity<double>) continue;
            const double t = difference(l, s.most), e = std::exp(t);
            s.sum += e;
            s.first += e > 0 ? e * t : 0.0;
        }
        return s;
    }

    TileSums without(int64_t tile, int64_t column, Tiles<T>& tiles, const TileSums& own) {
        tiles.load(tile);
        const TileRange& range = tiles.range();
        const int64_t first = range.column + range.first, last = range.column + range.last;
        if (!vectorised(static_cast<float>(own.most))) return of_values(first, last, column);
        alignas(64) float l[kTile];
        const int n = static_cast<int>(last - first);
        std::copy_n(tiles.all(), n, l);
        const bool was_most = static_cast<double>(l[column - first]) == own.most;
        l[column - first] = kMinusInfinity<float>;
        return of_floats(l, n, static_cast<float>(was_most ? own.second : own.most));
    }

    void merge(TileSums& all, const TileSums& part) const {
        if (part.sum == 0) return;
        const bool higher = part.most > all.most;
        const TileSums low = higher ? all : part;
        if (higher) all = part;
        all.second = std::max(all.second, low.most);
        if (low.sum == 0) return;
        const double shift = difference(low.most, all.most), scale = std::exp(shift);
        if (scale == 0) return;
        all.sum += low.sum * scale;
        all.first += (low.first + low.sum * shift) * scale;
    }

    const Row<T>& row_;
    const double temperature_;
    const int64_t first_tile_;
    std::vector<TileSums> sums_;
};

}  // namespace fd::categorical
