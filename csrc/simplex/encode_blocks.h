// What the CPU operators of the encodings share: blocks of points, axis by axis, and rows of features split
// by level.
#pragma once

#include <algorithm>
#include <memory>

#include "common/check.h"
#include "simplex/encode_args.h"
#include "simplex/encode_point.h"

namespace fd::encoding {

constexpr int64_t kScratchBytes = 1 << 19;  // features of a block, all levels: half an L2 cache at most
constexpr int kLargestBlock = 4096;
constexpr int kPadding = kGroup;            // keeps axes, and columns of levels, off the same cache sets
constexpr int64_t kFetchedAhead = 1 << 20;  // bytes of a level from which on its entries are prefetched

inline const Leaves& leaves() {
    static const Leaves& found = leaves_of(simd::level());
    return found;
}

// Points of a block: as many as keep its features in the L2 cache, so that one level's entries pass the
// caches once for all of them.
template <class Real>
int block_points(const EncodeShape& shape) {
    const int64_t fit = kScratchBytes / static_cast<int64_t>(shape.width() * sizeof(Real));
    return static_cast<int>(std::clamp<int64_t>(fit / kGroup * kGroup, 4 * kGroup, kLargestBlock));
}

// Calls visit.template operator()<N>() for the number of axes.
template <class Visit>
void with_axes(int axes, const Visit& visit) {
    switch (axes) {
        case 1:
            return visit.template operator()<1>();
        case 2:
            return visit.template operator()<2>();
        case 3:
            return visit.template operator()<3>();
        case 4:
            return visit.template operator()<4>();
        case 5:
            return visit.template operator()<5>();
        case 6:
            return visit.template operator()<6>();
        case 7:
            return visit.template operator()<7>();
        default:
            return visit.template operator()<8>();
    }
}

template <class Visit>
void with_features(int features, const Visit& visit) {
    switch (features) {
        case 1:
            return visit.template operator()<1>();
        case 2:
            return visit.template operator()<2>();
        case 4:
            return visit.template operator()<4>();
        default:
            return visit.template operator()<8>();
    }
}

// Coordinates of a block, padded with invalid points to whole groups.
template <class Real>
class BlockPoints {
  public:
    BlockPoints(const EncodeShape& shape, int capacity, bool with_directions)
        : shape_(shape),
          x_(new Real[shape.axes * (capacity + kPadding)]),
          valid_(new uint16_t[capacity / kGroup]) {
        if (with_directions) u_.reset(new Real[shape.axes * (capacity + kPadding)]);
        stride_ = capacity + kPadding;
    }

    // Points [first, first + count) and, where slopes are wanted, their directions.
    void fill(const Real* x, const Real* u, int64_t first, int count) {
        groups = (count + kGroup - 1) / kGroup;
        x += first * shape_.axes;
        if (u != nullptr) u += first * shape_.axes;
        int done = 0;
        if constexpr (dtype_of<Real> == DType::f32) {
            done = count / kGroup;
            leaves().fill[shape_.axes - 1](x, u, shape_.bounds, done, stride_, x_.get(), u_.get(),
                                           valid_.get());
        }
        with_axes(shape_.axes, [&]<int N>() { fill_axes<N>(x, u, done, count); });
    }

    // From group `g` on.
    Points<Real> from(int g) const {
        return {x_.get() + g * kGroup, u_ == nullptr ? nullptr : u_.get() + g * kGroup, valid_.get() + g,
                stride_};
    }

    int groups = 0;

  private:
    template <int N>
    void fill_axes(const Real* x, const Real* u, int from_group, int count) {
        const Bounds bounds = shape_.bounds;
        for (int g = from_group; g < groups; ++g) {
            uint32_t finite = 0;
            const int used = std::min(count - g * kGroup, kGroup);
            for (int p = 0; p < used; ++p) {
                const Real* at = x + (g * kGroup + p) * N;
                finite |= static_cast<uint32_t>(all_finite<N, Real>(at)) << p;
                for (int i = 0; i < N; ++i) x_[i * stride_ + g * kGroup + p] = bounded(at[i], bounds);
            }
            for (int p = used; p < kGroup; ++p) {
                for (int i = 0; i < N; ++i) x_[i * stride_ + g * kGroup + p] = Real(0);
            }
            valid_[g] = static_cast<uint16_t>(finite);
            if (u == nullptr) continue;
            for (int p = 0; p < kGroup; ++p) {
                const int64_t at = (g * kGroup + p) * N;
                for (int i = 0; i < N; ++i) {
                    const bool moves = p < used && passes(x[at + i], bounds);
                    u_[i * stride_ + g * kGroup + p] = moves ? u[at + i] : Real(0);
                }
            }
        }
    }

    EncodeShape shape_;
    std::unique_ptr<Real[]> x_, u_;
    std::unique_ptr<uint16_t[]> valid_;
    int stride_ = 0;
};

template <class Real>
Real widened(const void* p, DType type, int64_t i) {
    switch (type) {
        case DType::f16:
            return static_cast<Real>(detail::widen(static_cast<const half*>(p)[i]));
        case DType::bf16:
            return static_cast<Real>(detail::widen(static_cast<const bfloat16*>(p)[i]));
        case DType::f32:
            return static_cast<Real>(static_cast<const float*>(p)[i]);
        default:
            return static_cast<Real>(static_cast<const double*>(p)[i]);
    }
}

inline int vertices_of(Lattice lattice, int axes) {
    return lattice == Lattice::simplex ? simplex::vertices(axes) : grid::vertices(axes);
}

// Vertices [first, first + count) of the cells of `groups` groups.
template <class Real>
void locate(Lattice lattice, Wanted wanted, int axes, const Level<Real>& level, Bounds bounds,
            const Points<Real>& points, int groups, int first, int count, const Located<Real>& out) {
    if constexpr (dtype_of<Real> == DType::f32) {
        leaves().locate[static_cast<int>(lattice)][static_cast<int>(wanted)][axes - 1](
            level, bounds, points, groups, first, count, out);
    } else {
        with_axes(axes, [&]<int N>() {
            for (int p = 0; p < groups * kGroup; ++p) {
                const int at = p / kGroup * count * kGroup + p % kGroup;
                if (lattice == Lattice::simplex) {
                    uint8_t* order =
                        out.axes == nullptr ? nullptr : out.axes + p / kGroup * N * kGroup + p % kGroup;
                    simplex_at<N, Real>(level, bounds, points, p, wanted, out.index + at, out.weight + at,
                                        order);
                } else {
                    grid_at<N, Real>(level, bounds, points, p, wanted, first, count, out.index + at,
                                     out.weight + at);
                }
            }
        });
    }
}

// Entries and weights of a run of groups.
template <class Real>
struct Run {
    static constexpr int kSize = kVerticesAtOnce * kGroup;
    alignas(64) uint32_t index[kSize];
    alignas(64) Real weight[kSize];
    uint8_t axes[kSize];
    int group, groups, vertex;  // the first group, how many, and the first vertex

    static int longest(int vertices) { return kSize / (vertices * kGroup); }
};

// A level's entries, where they have to be fetched before they are read.
struct Slice {
    const char* rows;
    int row_bytes;
    bool ahead;

    Slice(const void* first, int64_t bytes_a_row, uint32_t entries)
        : rows(static_cast<const char*>(first)),
          row_bytes(static_cast<int>(bytes_a_row)),
          ahead(bytes_a_row * entries >= kFetchedAhead) {}

    template <class Real>
    void fetch(const Run<Real>& run, int vertices) const {
        for (int i = 0; i < run.groups * vertices * kGroup; ++i)
            __builtin_prefetch(rows + static_cast<int64_t>(run.index[i]) * row_bytes, 0,
                               2);  // to the L2 cache: L1 has too few buffers
    }
};

// Calls visit(run, vertices) for everything of a level, in order of the vertices for each point. While a run
// is visited, the entries of the next one are on their way.
template <class Real, class Visit>
void for_each_run(Lattice lattice, Wanted wanted, bool with_order, const EncodeShape& shape,
                  const Level<Real>& level, const Slice& slice, const BlockPoints<Real>& block,
                  const Visit& visit) {
    Run<Real> runs[2];
    const int total = vertices_of(lattice, shape.axes), at_once = std::min(total, kVerticesAtOnce);
    const int step = Run<Real>::longest(at_once);
    const auto found = [&](Run<Real>& run, int g, int vertex) {
        if (vertex == total) g += step, vertex = 0;
        if (g >= block.groups) return false;
        run.group = g, run.groups = std::min(step, block.groups - g), run.vertex = vertex;
        locate<Real>(lattice, wanted, shape.axes, level, shape.bounds, block.from(g), run.groups, vertex,
                     at_once, {run.index, run.weight, with_order ? run.axes : nullptr});
        if (slice.ahead) slice.fetch(run, at_once);
        return true;
    };
    bool more = found(runs[0], 0, 0);
    for (int now = 0; more; now ^= slice.ahead ? 1 : 0) {
        Run<Real>& run = runs[now];
        const int g = run.group, vertex = run.vertex + at_once;
        if (slice.ahead) more = found(runs[now ^ 1], g, vertex);
        visit(run, at_once);
        if (!slice.ahead) more = found(run, g, vertex);
    }
}

// Columns [levels][stride][F] of rows [points][levels][F] of any type, and rows of columns.
template <class Real>
void read_rows(const EncodeShape& shape, const void* rows, DType type, int64_t first, int count, int stride,
               Real* columns) {
    const int64_t begin = first * shape.width();
    const char* from = static_cast<const char*>(rows) + begin * size_of(type);
    if constexpr (dtype_of<Real> == DType::f32) {
        if (type != DType::f64) {
            return leaves().read_rows[__builtin_ctz(static_cast<unsigned>(shape.features))]
                                     [static_cast<int>(type)](from, stride, count, shape.levels, columns);
        }
    }
    for (int p = 0; p < count; ++p) {
        for (int i = 0; i < shape.width(); ++i) {
            const int l = i / shape.features, c = i % shape.features;
            columns[(static_cast<int64_t>(l) * stride + p) * shape.features + c] =
                widened<Real>(from, type, static_cast<int64_t>(p) * shape.width() + i);
        }
    }
}

template <class Real>
void write_rows(const EncodeShape& shape, const Real* columns, int64_t first, int count, int stride,
                DType type, void* rows) {
    char* to = static_cast<char*>(rows) + first * shape.width() * size_of(type);
    if constexpr (dtype_of<Real> == DType::f32) {
        if (type != DType::f64) {
            return leaves().write_rows[__builtin_ctz(static_cast<unsigned>(shape.features))]
                                      [static_cast<int>(type)](columns, stride, count, shape.levels, to);
        }
    }
    const auto write = [&]<class T>(T* out) {
        for (int p = 0; p < count; ++p) {
            for (int i = 0; i < shape.width(); ++i, ++out) {
                const int l = i / shape.features, c = i % shape.features;
                detail::narrow(columns[(static_cast<int64_t>(l) * stride + p) * shape.features + c], *out);
            }
        }
    };
    switch (type) {
        case DType::f16:
            return write(reinterpret_cast<half*>(to));
        case DType::bf16:
            return write(reinterpret_cast<bfloat16*>(to));
        case DType::f32:
            return write(reinterpret_cast<float*>(to));
        default:
            return write(reinterpret_cast<double*>(to));
    }
}

}  // namespace fd::encoding
