// One tile of a row, seen by one warp: largest logits of its 256 blocks, and what warps share.
#pragma once

#include "categorical/categorical.h"
#include "common/launch.h"

namespace fd::categorical {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kOwnBlocks = kStride / kWarp;  // of a lane: 8 lane, 8 lane + 1, ...: one Philox call

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarp; }

// Where block r of a tile has its number in shared memory: lanes then meet in different banks, both when they
// take their own blocks and when they take those that their loads hold.
__device__ inline int slot_of(int r) { return r % kOwnBlocks * kWarp + r / kOwnBlocks; }
__device__ inline int block_of_slot(int slot) { return slot % kWarp * kOwnBlocks + slot / kWarp; }

// Tiles are aligned to the global vocabulary: of tile t this tensor has indices [first, last).
struct TileSpan {
    int64_t column;  // of index 0; negative where a shard starts inside of its first tile
    int first, last;

    __device__ TileSpan(int64_t tile, int64_t vocab_start, int64_t vocab)
        : column(tile * kTile - vocab_start),
          first(static_cast<int>(column < 0 ? -column : 0)),
          last(static_cast<int>(vocab - column < kTile ? vocab - column : int64_t{kTile})) {}

    __device__ bool holds(int index) const { return index >= first && index < last; }
};

// What is not inlined costs registers only while it runs.
#define FD_NOINLINE __attribute__((noinline))

// l of local column j but for the threshold, in the rare places that have to look for forbidden tokens.
template <class T>
__device__ FD_NOINLINE Compute<T> any_unfiltered(const Row<T>& row, int64_t j) {
    return row.unfiltered(j);
}

// The row as one tile needs it: the list of forbidden tokens is looked at only where one of them is here.
template <class T>
class TileRow {
  public:
    __device__ TileRow(const Row<T>& whole, const TileSpan& span, int lane) : whole_(whole), row_(whole) {
        row_.n_forbidden = 0;
        bool here = false;
        const int64_t start = whole.vocab_start + span.column + span.first;
        for (int64_t i = lane; i < whole.n_forbidden; i += kWarp) {
            const int64_t index = whole.forbidden[i] - start;
            here = here || (index >= 0 && index < span.last - span.first);
        }
        forbids_ = __any_sync(kAllLanes, here);
    }

    __device__ const T* logits() const { return row_.logits; }
    __device__ bool plain() const { return !forbids_ && row_.plain(); }
    __device__ Compute<T> unfiltered(int64_t j) const {
        return forbids_ ? any_unfiltered(whole_, j) : row_.unfiltered(j);
    }

  private:
    const Row<T>& whole_;
    Row<T> row_;  // n_forbidden is 0 wherever the compiler sees it
    bool forbids_;
};

__device__ inline void raise(float& most, float l) { most = fmaxf(most, l); }  // NaN raises nothing

// Logits that need nothing but widening: 16-byte loads of any row. Where rows are not aligned to 16 bytes the
// lanes' loads start up to one vector early, which shifts the blocks that a lane meets, the same ones in all
// rows of the tile. Only the ragged ends of the span are loaded one by one.
template <class T>
__device__ void plain_maxima(const T* tile, const TileSpan& span, float* slots, int lane) {
    constexpr int kGroup = 16 / sizeof(T), kParts = kOwnBlocks / kGroup;  // a vector; vectors of a row
    constexpr int kAhead = 4;                                             // loads under way together
    const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(tile) / sizeof(T) % kGroup);
    float most[kParts][kGroup];
    FD_UNROLL
    for (int p = 0; p < kParts; ++p) {
        FD_UNROLL
        for (int e = 0; e < kGroup; ++e) most[p][e] = kMinusInfinity<float>;
    }
    FD_NO_UNROLL
    for (int m = 0; m < kPlaces * kParts; m += kAhead) {
        Vec<T, kGroup> v[kAhead];
        FD_UNROLL
        for (int k = 0; k < kAhead; ++k) {
            const int index = kGroup * (kWarp * (m + k) + lane) - shift;
            if (index >= span.first && index + kGroup <= span.last) {
                v[k] = *reinterpret_cast<const Vec<T, kGroup>*>(tile + index);
            } else {
                FD_UNROLL
                for (int e = 0; e < kGroup; ++e) fd::detail::narrow(kMinusInfinity<float>, v[k].v[e]);
            }
        }
        FD_UNROLL
        for (int k = 0; k < kAhead; ++k) {
            FD_UNROLL
            for (int e = 0; e < kGroup; ++e)
                raise(most[k % kParts][e], bound_logit(fd::detail::widen(v[k].v[e])));
        }
    }
    FD_UNROLL
    for (int p = 0; p < kParts; ++p) {
        FD_UNROLL
        for (int e = 0; e < kGroup; ++e)
            slots[slot_of((kGroup * (kWarp * p + lane) + e - shift) & (kStride - 1))] = most[p][e];
    }
    __syncwarp();
    const int head = min(span.last, span.first + ((-(span.first + shift)) & (kGroup - 1)));
    const int tail = max(head, span.last - ((span.last + shift) & (kGroup - 1)));
    if (head == span.first && tail == span.last) return;
    const auto single = [&](int index) {
        raise(slots[slot_of(index % kStride)], bound_logit(fd::detail::widen(tile[index])));
    };
    if (span.first + lane < head) single(span.first + lane);
    __syncwarp();
    if (tail + lane < span.last) single(tail + lane);
    __syncwarp();
}

// The same of processed logits, one by one: lane holds blocks lane, lane + 32, ...
template <class T>
__device__ void processed_maxima(const TileRow<T>& row, const TileSpan& span, float* slots, int lane) {
    float most[kOwnBlocks];
    FD_UNROLL
    for (int q = 0; q < kOwnBlocks; ++q) most[q] = kMinusInfinity<float>;
    FD_NO_UNROLL
    for (int i = 0; i < kPlaces; ++i) {
        FD_UNROLL
        for (int q = 0; q < kOwnBlocks; ++q) {
            const int index = kStride * i + kWarp * q + lane;
            if (span.holds(index)) raise(most[q], bound_logit(row.unfiltered(span.column + index)));
        }
    }
    FD_UNROLL
    for (int q = 0; q < kOwnBlocks; ++q) slots[slot_of(kWarp * q + lane)] = most[q];
    __syncwarp();
}

// slots[slot_of(r)] = the largest logit of block r as a float (bound_logit), not filtered; -inf where there
// is none. All lanes may read it.
template <class T>
__device__ void block_maxima(const Row<T>& whole, const TileSpan& span, float* slots) {
    const int lane = lane_of_thread();
    const TileRow<T> row(whole, span, lane);
    if (row.plain()) {
        plain_maxima(whole.logits + span.column, span, slots, lane);
    } else {
        processed_maxima(row, span, slots, lane);
    }
}

template <class T>
__device__ T largest_of_warp(T x) {
    FD_UNROLL
    for (int d = kWarp / 2; d > 0; d /= 2) x = max(x, __shfl_xor_sync(kAllLanes, x, d));
    return x;
}

// For all lanes.
__device__ inline Choice best_of_warp(Choice best) {
    FD_UNROLL
    for (int d = kWarp / 2; d > 0; d /= 2) {
        const double z = __shfl_xor_sync(kAllLanes, best.z, d);
        const int32_t token = __shfl_xor_sync(kAllLanes, best.token, d);
        if (token >= 0) best.offer(z, token);
    }
    return best;
}

}  // namespace fd::categorical
