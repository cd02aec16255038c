// The logits of a row, tile by tile, as the inner loops want them. NaN stays NaN: no inner loop sees it.
#pragma once

#include <algorithm>

#include "categorical/draw_cpu.h"
#include "categorical/leaves.h"

namespace fd::categorical {

// Tiles are aligned to the global vocabulary: tile t holds [4096 t, 4096 t + 4096), of which this tensor has
// [first, last).
struct TileRange {
    int64_t column;   // of the tile's index 0; negative where a shard starts inside of its first tile
    int first, last;  // indices in the tile

    TileRange(int64_t tile, int64_t vocab_start, int64_t vocab)
        : column(tile * kTile - vocab_start),
          first(static_cast<int>(std::max<int64_t>(0, -column))),
          last(static_cast<int>(std::min<int64_t>(kTile, vocab - column))) {}
};

template <class T>
class Tiles {
  public:
    Tiles(const Row<T>& row, int64_t vocab)
        : row_(row),
          vocab_(vocab),
          untouched_(row.uncond == nullptr && row.bias == nullptr && row.suppressed == nullptr) {}

    // Moves to a tile. Logits that need nothing but widening are left where they are.
    void load(int64_t tile) {
        range_ = TileRange(tile, row_.vocab_start, vocab_);
        in_place_ = dtype_of<T> != DType::f64 && untouched_ && !holds_forbidden();
        if (!in_place_) process();
    }

    const TileRange& range() const { return range_; }

    // lmax[r]: the largest logit of block r, not filtered; -inf where there is none.
    void block_maxima(float* most) {
        std::fill(most, most + kStride, kMinusInfinity<float>);
        if (!in_place_) return leaves().column_maxima[kFloat](buffer_, kPlaces, most);
        each_run([&](int, const T* p, int rows) { leaves().column_maxima[kType](p, rows, most); });
    }

    // The largest logit of every row of kStride.
    void row_maxima(float* most) {
        if (!in_place_) return leaves().row_maxima[kFloat](buffer_, kPlaces, most);
        std::fill(most, most + kPlaces, kMinusInfinity<float>);
        each_run([&](int i, const T* p, int rows) { leaves().row_maxima[kType](p, rows, most + i); });
    }

    // Where the next tile is.
    uintptr_t next() const { return reinterpret_cast<uintptr_t>(at(range_.last - 1) + 1); }

    // kStride logits of row i as floats (float64: bound_logit); -inf where there is none.
    const float* row(int i, float* memory) {
        if (!in_place_) return buffer_ + i * kStride;
        const int from = std::max(range_.first, i * kStride), to = std::min(range_.last, (i + 1) * kStride);
        if constexpr (dtype_of<T> == DType::f32) {
            if (to - from == kStride) return at(from);
        }
        std::fill(memory, memory + kStride, kMinusInfinity<float>);
        if (from < to)
            leaves().widen[static_cast<int>(dtype_of<T>)](at(from), to - from, memory + (from - i * kStride));
        return memory;
    }

    // Logits [first, last) of the range as floats.
    const float* all() {
        if (!in_place_) return buffer_ + range_.first;
        if constexpr (dtype_of<T> == DType::f32) return at(range_.first);
        leaves().widen[static_cast<int>(dtype_of<T>)](at(range_.first), range_.last - range_.first,
                                                      buffer_ + range_.first);
        return buffer_ + range_.first;
    }

  private:
    static constexpr int kFloat = 2;
    static constexpr int kType = dtype_of<T> == DType::f64 ? kFloat : static_cast<int>(dtype_of<T>);

    const T* at(int index) const { return row_.logits + (range_.column + index); }

    bool holds_forbidden() const {
        if (row_.n_forbidden == 0) return false;
        const int64_t* end = row_.forbidden + row_.n_forbidden;
        const int64_t* next =
            std::lower_bound(row_.forbidden, end, row_.vocab_start + range_.column + range_.first);
        return next != end && *next < row_.vocab_start + range_.column + range_.last;
    }

    // Runs f(first row, pointer, rows) over whole rows in place, and over copies of the cut ones.
    template <class F>
    void each_run(const F& f) {
        const int low = (range_.first + kStride - 1) / kStride, high = range_.last / kStride;
        if (low > high) return cut(range_.first, range_.last, f);  // inside of one row
        if (range_.first < low * kStride) cut(range_.first, low * kStride, f);
        if (low < high) f(low, at(low * kStride), high - low);
        if (high * kStride < range_.last) cut(high * kStride, range_.last, f);
    }

    template <class F>
    void cut(int from, int to, const F& f) {
        T copy[kStride];
        const int row = from / kStride, start = from - row * kStride;
        T nothing;
        fd::detail::narrow(kMinusInfinity<float>, nothing);
        std::fill(copy, copy + kStride, nothing);
        std::copy(at(from), at(to), copy + start);
        f(row, copy, 1);
    }

    void process() {
        std::fill(buffer_, buffer_ + range_.first, kMinusInfinity<float>);
        std::fill(buffer_ + range_.last, buffer_ + kTile, kMinusInfinity<float>);
        const int n = range_.last - range_.first;
        const int64_t column = range_.column + range_.first;
        float* l = buffer_ + range_.first;
        const Leaves& leaf = leaves();
        if constexpr (dtype_of<T> == DType::f64) {
            if (row_.plain()) return leaf.widen[static_cast<int>(DType::f64)](row_.logits + column, n, l);
            for (int i = 0; i < n; ++i) l[i] = bound_logit(row_.unfiltered(column + i));
        } else {
            constexpr int kOwn = static_cast<int>(dtype_of<T>);
            if (row_.uncond != nullptr) {
                leaf.guide[kOwn](row_.logits + column, row_.uncond + column, n, row_.guidance, l);
            } else {
                leaf.widen[kOwn](row_.logits + column, n, l);
            }
            if (row_.bias != nullptr) leaf.add(l, row_.bias + column, n);
            if (row_.suppressed != nullptr) leaf.suppress(l, row_.suppressed + column, n);
            const int64_t start = row_.vocab_start + column, *end = row_.forbidden + row_.n_forbidden;
            for (const int64_t* v = std::lower_bound(row_.forbidden, end, start); v != end && *v < start + n;
                 ++v) {
                l[*v - start] = kMinusInfinity<float>;
            }
        }
    }

    const Row<T>& row_;
    const int64_t vocab_;
    const bool untouched_;
    bool in_place_ = false;
    TileRange range_{0, 0, 0};
    alignas(64) float buffer_[kTile];
};

}  // namespace fd::categorical
