// Search of a run of tiles for the largest z, computing noise only where it can matter (noise.h).
#pragma once

#include <algorithm>
#include <vector>

#include "categorical/scores_cpu.h"

namespace fd::categorical {

// Keeps the largest z. `worst`: what must be reached to get in; `missing`: how many more get in whatever
// they are.
struct KeepBest {
    Choice best;

    int missing() const { return best.token < 0 ? 1 : 0; }
    double worst() const { return best.z; }
    void offer(double z, int32_t token) { best.offer(z, token); }
};

// Keeps the k largest, the least of them on top of a heap.
class KeepMany {
  public:
    explicit KeepMany(int k) : k_(k) { heap_.reserve(k); }

    int missing() const { return k_ - static_cast<int>(heap_.size()); }
    double worst() const { return missing() > 0 ? kMinusInfinity<double> : heap_.front().z; }
    void offer(double z, int32_t token) {
        if (z == kMinusInfinity<double>) return;
        if (missing() == 0) {
            if (!heap_.front().loses_to(z, token)) return;
            std::pop_heap(heap_.begin(), heap_.end(), before);
            heap_.pop_back();
        }
        heap_.push_back({z, token});
        std::push_heap(heap_.begin(), heap_.end(), before);
    }
    void offer_all(const KeepMany& other) {
        for (const Choice& c : other.heap_) offer(c.z, c.token);
    }
    void take(Choice* out) {
        std::sort_heap(heap_.begin(), heap_.end(), before);
        std::fill(std::copy(heap_.begin(), heap_.end(), out), out + k_, Choice{});
    }

  private:
    static bool before(const Choice& a, const Choice& b) { return b.loses_to(a.z, a.token); }

    int k_;
    std::vector<Choice> heap_;
};

template <class T, class Keep>
class Search {
  public:
    Search(const Row<T>& row, const DrawPlan& plan, Keep& keep, Scores<T>* scores)
        : row_(row),
          plan_(plan),
          keep_(keep),
          scores_(scores),
          tiles_(row, plan.vocab),
          bound_(row.temperature),
          least_(row.threshold == row.threshold ? bound_logit(row.threshold) : kMinusInfinity<float>) {}

    // Tiles [first, last).
    void run(int64_t first, int64_t last) {
        if (plan_.full) {
            all_noises(first, last);
        } else if (row_.temperature == 0 && std::is_same_v<Keep, KeepBest>) {
            maxima(first, last);
        } else if (plan_.stream == Stream::block16) {
            for (int64_t t = first; t < last; t += kGroup) blocks(t, std::min(last, t + kGroup));
        } else {
            for (int64_t t = first; t < last; ++t) elements(t);
        }
    }

  private:
    static constexpr int kGroup = 32;  // tiles whose bounds are known before the first is refined

    // The definition.
    void all_noises(int64_t first, int64_t last) {
        for (int64_t t = first; t < last; ++t) {
            tiles_.load(t);
            const TileRange range = tiles_.range();
            for (int64_t j = range.column + range.first; j < range.column + range.last; ++j) {
                keep_.offer(perturbed_at(row_, plan_.stream, j), static_cast<int32_t>(row_.vocab_start + j));
            }
            if (scores_ == nullptr) continue;
            alignas(64) float most[kStride];
            tiles_.block_maxima(most);
            scores_->see(t, tiles_, *std::max_element(most, most + kStride));
        }
    }

    // Temperature 0: the largest logit, the first of equal ones.
    void maxima(int64_t first, int64_t last) {
        float top = kMinusInfinity<float>;
        for (int64_t t = first; t < last; ++t) {
            alignas(64) float most[kStride];
            tiles_.load(t);
            tiles_.block_maxima(most);
            const float here = leaves().largest(most, kStride);
            if (scores_ != nullptr) scores_->see(t, tiles_, here);
            // Of float64 logits the floats only point to candidates.
            const bool candidate = dtype_of<T> == DType::f64 ? here >= top : here > top;
            if (!candidate || here < least_ || here == kMinusInfinity<float>) continue;
            top = here;
            for (int r = leaves().next_at_least(most, 0, kStride, here); r < kStride;
                 r = leaves().next_at_least(most, r + 1, kStride, here)) {
                if (maximum_of_block(r, here) && dtype_of<T> != DType::f64) break;
            }
        }
    }

    // Offers what equals `top`; whether that was in the first row of the tile, so that no later block has an
    // earlier one.
    bool maximum_of_block(int r, float top) {
        const TileRange& range = tiles_.range();
        bool early = false;
        for (int index = r; index < range.last; index += kStride) {
            if (index < range.first) continue;
            const auto l = row_.at(range.column + index);
            if (bound_logit(l) != top) continue;
            keep_.offer(static_cast<double>(l),
                        static_cast<int32_t>(row_.vocab_start + range.column + index));
            early = early || index - range.first < kStride;
            if (dtype_of<T> != DType::f64) break;
        }
        return early && range.first == 0;
    }

    // Calls exact(i) for the bounds that can matter, the largest first. What was looked at becomes -inf.
    template <class F>
    void refine(float* bounds, int n, float most, const F& exact) {
        if (keep_.missing() > 0) {
            // As many as are missing: what they hold is close to what will be kept.
            const int wanted = std::min(n, keep_.missing());
            float pivot = most;
            if (wanted > 1) {
                order_.assign(bounds, bounds + n);
                std::nth_element(order_.begin(), order_.begin() + (wanted - 1), order_.end(),
                                 std::greater<>());
                pivot = order_[wanted - 1];
            }
            pivot = std::max(pivot, std::numeric_limits<float>::lowest());
            for (int i = 0, done = 0; done < wanted; ++i, ++done) {
                i = leaves().next_at_least(bounds, i, n, pivot);
                if (i == n) break;
                exact(i);
                bounds[i] = kMinusInfinity<float>;
            }
        }
        for (int i = 0;; ++i) {
            i = leaves().next_at_least(bounds, i, n, bound_.threshold(keep_.worst()));
            if (i == n) return;
            exact(i);
        }
    }

    // ---- stream block16

    void blocks(int64_t first, int64_t last) {
        const PhiloxStream stream(StreamTag::block_prefix, row_.key.seed, row_.key.offset, row_.key.row);
        float top = kMinusInfinity<float>;
        for (int64_t t = first; t < last; ++t) {
            alignas(64) float most[kStride];
            const int at = static_cast<int>(t - first) * kStride;
            tiles_.load(t);
            tiles_.block_maxima(most);
            if (scores_ != nullptr) scores_->see(t, tiles_, leaves().largest(most, kStride));
            leaves().prefixes(stream, static_cast<uint32_t>(t) * (kStride / 8), kStride / 8, prefix_ + at, 0,
                              0);
            top = std::max(top, leaves().bounds(prefix_ + at, most, kStride, kBlockSteps, bound_.per_step,
                                                least_, bounds_ + at));
        }
        refine(bounds_, static_cast<int>(last - first) * kStride, top, [&](int i) {
            refine_block(static_cast<uint32_t>(first) * kStride + static_cast<uint32_t>(i), prefix_[i]);
        });
    }

    void refine_block(uint32_t block, uint32_t prefix) {
        BlockSearch s;
        s.block = block;
        s.prefix = prefix;
        const int64_t column = static_cast<int64_t>(index_in_block(block, 0)) - row_.vocab_start;
        const bool whole = column >= 0 && column + kTile - kStride < plan_.vocab;
        if (whole && row_.plain()) {
            for (int i = 0; i < kPlaces; ++i) {
                const auto l = fd::detail::widen(row_.logits[column + i * kStride]);
                s.bounds[i] = l == l ? bound_logit(row_.filtered(l)) : kMinusInfinity<float>;
            }
        } else {
            for (int i = 0; i < kPlaces; ++i) {
                const int64_t j = column + i * kStride;
                s.bounds[i] = j >= 0 && j < plan_.vocab ? bound_logit(row_.at(j)) : kMinusInfinity<float>;
            }
        }
        leaves().find_places(row_.key, bound_, bound_.threshold(keep_.worst()), s);
        if (s.places == 0) return;
        for (uint32_t left = s.places; left != 0; left &= left - 1) {
            const int i = __builtin_ctz(left);
            s.l[i] = dtype_of<T> == DType::f64 ? static_cast<double>(row_.at(column + i * kStride))
                                               : static_cast<double>(s.bounds[i]);
        }
        leaves().exact_places(row_.key, row_.temperature, s);
        for (uint32_t left = s.places; left != 0; left &= left - 1) {
            const int i = __builtin_ctz(left);
            keep_.offer(s.z[i], static_cast<int32_t>(row_.vocab_start + column + i * kStride));
        }
    }

    // ---- stream element

    void elements(int64_t tile) {
        const PhiloxStream stream(StreamTag::element_prefix, row_.key.seed, row_.key.offset, row_.key.row);
        tiles_.load(tile);
        float most[kPlaces];
        tiles_.row_maxima(most);
        if (scores_ != nullptr) scores_->see(tile, tiles_, *std::max_element(most, most + kPlaces));
        const TileRange range = tiles_.range();
        const int first = range.first / kStride, last = (range.last + kStride - 1) / kStride;
        // Philox leaves the memory idle, so the next tile comes in meanwhile.
        leaves().prefixes(
            stream, static_cast<uint32_t>(tile) * (kTile / 8) + static_cast<uint32_t>(first) * (kStride / 8),
            (last - first) * (kStride / 8), prefix_ + first * kStride, tiles_.next(), kStride * sizeof(T));
        for (int i = first; i < last; ++i) {
            const uint16_t* prefix = prefix_ + i * kStride;
            const int limit = keep_.missing() > 0 ? 0xffff : largest_prefix(most[i]);
            if (most[i] < least_ || limit < 0 || !leaves().any_at_most(prefix, static_cast<uint16_t>(limit)))
                continue;
            alignas(64) float memory[kStride];
            const float* l = tiles_.row(i, memory);
            const float top = leaves().bounds(prefix, l, kStride, 0, bound_.per_step, least_, bounds_);
            if (top < bound_.threshold(keep_.worst())) continue;
            refine(bounds_, kStride, top, [&](int r) {
                const int64_t j = range.column + i * kStride + r;
                const uint32_t v = static_cast<uint32_t>(row_.vocab_start + j);
                const double l = static_cast<double>(row_.at(j));
                const double g = leaves().element_gumbel(row_.key, v, prefix[r]);
                keep_.offer(row_.temperature == 0 ? l : perturbed(row_.temperature, g, l),
                            static_cast<int32_t>(v));
            });
        }
    }

    // Larger prefixes cannot matter with logits of at most `l`: steps(k) >= (bar - l) / step, steps(k) =
    // kStepsOfOne - bits(k). -1 where none can.
    int largest_prefix(float l) const {
        const double step = bound_.temperature * (0.6931471805599453 * 0x1p-23);
        const double bar = static_cast<double>(bound_.threshold(keep_.worst()));
        const double bits = static_cast<double>(kStepsOfOne) - (bar - static_cast<double>(l)) / step;
        if (!(bits < 0x477FFF00)) return 0xffff;
        if (bits < 0) return -1;
        return static_cast<int>(bit_cast<float>(static_cast<int32_t>(bits)));
    }

    const Row<T>& row_;
    const DrawPlan& plan_;
    Keep& keep_;
    Scores<T>* scores_;
    Tiles<T> tiles_;
    const Bound bound_;
    const float least_;
    std::vector<float> order_;
    alignas(64) float bounds_[kGroup * kStride];
    alignas(64) uint16_t prefix_[kGroup * kStride];
};

}  // namespace fd::categorical
