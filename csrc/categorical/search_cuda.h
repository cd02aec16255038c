// Search of a run of tiles by one block of threads, computing noise only where it can matter (noise.h).
#pragma once

#include "categorical/tiles_cuda.h"

namespace fd::categorical {

using KeyWord = unsigned long long;

// l of local column j, -inf outside of the row.
template <class T>
__device__ FD_NOINLINE double logit_at(const Row<T>& row, int64_t vocab, int64_t j) {
    return j >= 0 && j < vocab ? static_cast<double>(row.at(j)) : kMinusInfinity<double>;
}

// z by the definition.
template <class T>
__device__ FD_NOINLINE double defined_z(const Row<T>& row, Stream stream, int64_t j) {
    return perturbed_at(row, stream, j);
}

// z of a place of a block if it can reach `bar` (Bound::threshold), else -inf; stream block16.
__device__ FD_NOINLINE inline double block_z(const RowKey& key, Bound bound, double temperature,
                                             uint32_t block, int place, double l, float bar) {
    const BlockNoise noise = block_noise(key, block, prefix_at(key, StreamTag::block_prefix, block));
    const double g = gumbel(noise.time);  // the largest of the block
    if (place == noise.first) return perturbed(temperature, g, l);
    // float64 logits may be below every float, and so below the lowest bar
    if (bar > std::numeric_limits<float>::lowest() &&
        l + bound.temperature * (g > 0 ? g : 0) < static_cast<double>(bar))
        return kMinusInfinity<double>;
    const uint32_t inner = block * kPlaces + static_cast<uint32_t>(place);
    const uint32_t prefix = prefix_at(key, StreamTag::inner_prefix, inner);
    if (!(bound.of(inner_steps(noise, prefix), bound_logit(l)) >= bar)) return kMinusInfinity<double>;
    return perturbed(temperature, gumbel(inner_time(key, noise, index_in_block(block, place), prefix)), l);
}

// z of an element; stream element.
__device__ FD_NOINLINE inline double element_z(const RowKey& key, double temperature, uint32_t v,
                                               uint32_t prefix, double l) {
    return perturbed(temperature, gumbel(element_time(key, v, prefix)), l);
}

// One warp's side of the search; warp w takes tiles w, w + warps, ...
template <class T>
class Search {
  public:
    // `slots`: kStride floats a tile. `best_key`: order_key() of the block's largest z so far.
    __device__ Search(const Row<T>& row, int64_t vocab, int64_t first_tile, int tiles, float* slots,
                      KeyWord* best_key)
        : row_(row),
          vocab_(vocab),
          first_tile_(first_tile),
          tiles_(tiles),
          slots_(slots),
          best_key_(best_key),
          bound_(row.temperature),
          least_(row.threshold == row.threshold ? bound_logit(row.threshold) : kMinusInfinity<float>),
          lane_(lane_of_thread()),
          warp_(static_cast<int>(threadIdx.x) / kWarp),
          warps_(static_cast<int>(blockDim.x) / kWarp) {}

    __device__ const Choice& best() const { return own_; }  // of this lane

    // Calls see(tile, span) for every tile, once its logits have been read. Stream block16, and temperature
    // 0.
    template <class See>
    __device__ void blocks(const See& see) {
        const bool greedy = row_.temperature == 0;
        float top = kMinusInfinity<float>;
        int top_block = 0;
        each_tile(
            [&](int t, const TileSpan& span) {
                float* slots = slots_ + t * kStride;
                block_maxima(row_, span, slots);
                if (greedy) {
                    maximum_of_tile(span, slots, top);
                } else {
                    bounds_of_tile(t, slots, top, top_block);
                }
            },
            see);
        if (!greedy) refine_blocks(top, top_block);
    }

    // Every noise is computed: the definition.
    template <class See>
    __device__ void full(Stream stream, const See& see) {
        each_tile(
            [&](int, const TileSpan& span) {
                for (int index = span.first + lane_; index < span.last; index += kWarp)
                    own_.offer(defined_z(row_, stream, span.column + index), token_at(span.column + index));
            },
            see);
    }

    // Stream element, temperature above 0.
    template <class See>
    __device__ void elements(const See& see) {
        each_tile(
            [&](int t, const TileSpan& span) {
                share();
                const TileRow<T> row(row_, span, lane_);
                const bool vectors =
                    row.plain() && reinterpret_cast<uintptr_t>(row.logits() + span.column) % 16 == 0;
                const uint32_t first = static_cast<uint32_t>(first_tile_ + t) * (kTile / 8);
                FD_NO_UNROLL
                for (int i = span.first / kStride; i * kStride < span.last; ++i) {
                    const int index = i * kStride + lane_ * 8;
                    float reach[8];
                    load_eight(row, span, index, vectors, reach);
                    const PhiloxWords words =
                        row_.key.words(StreamTag::element_prefix, first + static_cast<uint32_t>(index / 8));
                    FD_UNROLL
                    for (int e = 0; e < 8; ++e) {
                        const int32_t steps = element_steps(half_of(words, static_cast<uint32_t>(e)));
                        reach[e] = reach[e] < least_ ? kMinusInfinity<float> : bound_.of(steps, reach[e]);
                    }
                    refine_eight(span.column + index, words, reach);
                }
            },
            see);
    }

  private:
    __device__ int32_t token_at(int64_t column) const {
        return static_cast<int32_t>(row_.vocab_start + column);
    }

    template <class Visit, class See>
    __device__ void each_tile(const Visit& visit, const See& see) {
        FD_NO_UNROLL
        for (int t = warp_; t < tiles_; t += warps_) {
            const TileSpan span(first_tile_ + t, row_.vocab_start, vocab_);
            visit(t, span);
            see(first_tile_ + t, span);
        }
    }

    // Tells the block what the warp has, and learns what must be reached.
    __device__ void share() {
        KeyWord key = largest_of_warp(static_cast<KeyWord>(order_key(own_.z)));
        if (lane_ == 0) key = max(key, atomicMax(best_key_, key));
        bar_ = bound_.threshold(from_order_key(__shfl_sync(kAllLanes, key, 0)));
    }

    // Temperature 0: offers the tile's largest logit, the first of equal ones, if it is above `top`.
    __device__ void maximum_of_tile(const TileSpan& span, const float* slots, float& top) {
        float here = kMinusInfinity<float>;
        FD_UNROLL
        for (int e = 0; e < kOwnBlocks; ++e) raise(here, slots[e * kWarp + lane_]);
        here = largest_of_warp(here);
        // Of float64 logits the floats only point to candidates.
        const bool candidate = dtype_of<T> == DType::f64 ? here >= top : here > top;
        if (!candidate || here < least_ || here == kMinusInfinity<float>) return;
        top = here;
        FD_NO_UNROLL
        for (int index = span.first + lane_; index < span.last; index += kWarp) {
            const double l = logit_at(row_, vocab_, span.column + index);
            if (bound_logit(l) >= here) own_.offer(l, token_at(span.column + index));
        }
    }

    // Maxima of blocks become bounds; keeps the largest of this lane.
    __device__ void bounds_of_tile(int t, float* slots, float& top, int& top_block) {
        const uint32_t index =
            static_cast<uint32_t>(first_tile_ + t) * (kStride / 8) + static_cast<uint32_t>(lane_);
        const PhiloxWords words = row_.key.words(StreamTag::block_prefix, index);
        FD_UNROLL
        for (int e = 0; e < kOwnBlocks; ++e) {
            const float most = slots[e * kWarp + lane_];
            const int32_t steps = block_steps(half_of(words, static_cast<uint32_t>(e)));
            const float reach = most < least_ ? kMinusInfinity<float> : bound_.of(steps, most);
            slots[e * kWarp + lane_] = reach;
            if (reach > top) {
                top = reach;
                top_block = t * kStride + lane_ * kOwnBlocks + e;
            }
        }
    }

    // Refines the blocks that can matter.
    __device__ void refine_blocks(float top, int top_block) {
        // Every warp's most promising block first: after that most of the others are out of the race.
        FD_UNROLL
        for (int d = kWarp / 2; d > 0; d /= 2) {
            const float other = __shfl_xor_sync(kAllLanes, top, d);
            const int block = __shfl_xor_sync(kAllLanes, top_block, d);
            if (other > top || (other == top && block < top_block)) {
                top = other;
                top_block = block;
            }
        }
        if (top > kMinusInfinity<float>) {
            __syncwarp();
            refine(top_block, -1);
            if (lane_ == 0)
                slots_[top_block / kStride * kStride + slot_of(top_block % kStride)] = kMinusInfinity<float>;
        }
        share();
        __syncthreads();
        share();
        FD_NO_UNROLL
        for (int t = warp_; t < tiles_; t += warps_) {
            FD_NO_UNROLL
            for (int e = 0; e < kOwnBlocks; ++e) {
                const float reach = slots_[t * kStride + e * kWarp + lane_];
                unsigned waiting = __ballot_sync(kAllLanes, reach >= bar_);
                while (waiting != 0) {
                    const int low = __ffs(static_cast<int>(waiting)) - 1;
                    waiting &= waiting - 1;
                    const int high = __ffs(static_cast<int>(waiting)) - 1;  // -1: none
                    waiting &= waiting - 1;
                    const int first = t * kStride + e;
                    refine(first + low * kOwnBlocks, high < 0 ? -1 : first + high * kOwnBlocks);
                    share();
                    waiting &= __ballot_sync(kAllLanes, reach >= bar_);
                }
            }
        }
    }

    // Offers the places of two blocks (counted from the first tile; -1: none) that can reach the bar, 16
    // lanes each.
    __device__ void refine(int low, int high) {
        const int half = lane_ / kPlaces, place = lane_ % kPlaces, chosen = half == 0 ? low : high;
        if (chosen >= 0) {
            const uint32_t block =
                static_cast<uint32_t>(first_tile_) * kStride + static_cast<uint32_t>(chosen);
            const uint32_t v = index_in_block(block, place);
            const double l = logit_at(row_, vocab_, static_cast<int64_t>(v) - row_.vocab_start);
            if (l > kMinusInfinity<double>) {
                const double z = block_z(row_.key, bound_, row_.temperature, block, place, l, bar_);
                own_.offer(z, static_cast<int32_t>(v));
            }
        }
        __syncwarp();
    }

    __device__ static void load_eight(const TileRow<T>& row, const TileSpan& span, int index, bool vectors,
                                      float* l) {
        constexpr int kGroup = 16 / sizeof(T);
        if (vectors && index >= span.first && index + 8 <= span.last) {
            const T* from = row.logits() + span.column + index;
            FD_UNROLL
            for (int p = 0; p < 8; p += kGroup) {
                const Vec<T, kGroup> v = *reinterpret_cast<const Vec<T, kGroup>*>(from + p);
                FD_UNROLL
                for (int e = 0; e < kGroup; ++e) {
                    const float x = bound_logit(fd::detail::widen(v.v[e]));
                    l[p + e] = x == x ? x : kMinusInfinity<float>;
                }
            }
        } else {
            FD_UNROLL
            for (int e = 0; e < 8; ++e)
                l[e] = span.holds(index + e) ? bound_logit(row.unfiltered(span.column + index + e))
                                             : kMinusInfinity<float>;
        }
    }

    // Every lane takes the most promising of its eight until no lane has one that can matter.
    __device__ void refine_eight(int64_t column, const PhiloxWords& words, float* reach) {
        float top = largest_of_eight(reach);
        while (__any_sync(kAllLanes, top >= bar_)) {
            if (top >= bar_) {
                int which = -1;
                uint32_t prefix = 0;
                FD_UNROLL
                for (int e = 0; e < 8; ++e) {
                    if (which < 0 && reach[e] == top) {
                        which = e;
                        prefix = half_of(words, static_cast<uint32_t>(e));
                        reach[e] = kMinusInfinity<float>;
                    }
                }
                const int32_t v = token_at(column + which);
                const double l = logit_at(row_, vocab_, column + which);
                own_.offer(element_z(row_.key, row_.temperature, static_cast<uint32_t>(v), prefix, l), v);
                top = largest_of_eight(reach);
            }
            __syncwarp();
            share();
        }
    }

    __device__ static float largest_of_eight(const float* x) {
        float most = x[0];
        FD_UNROLL
        for (int e = 1; e < 8; ++e) raise(most, x[e]);
        return most;
    }

    const Row<T>& row_;
    const int64_t vocab_, first_tile_;
    const int tiles_;
    float* const slots_;
    KeyWord* const best_key_;
    const Bound bound_;
    const float least_;
    const int lane_, warp_, warps_;
    float bar_ = std::numeric_limits<float>::lowest();
    Choice own_;
};

}  // namespace fd::categorical
