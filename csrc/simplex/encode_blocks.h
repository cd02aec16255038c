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
        : shape_(shape), x_(new Real[shape.axes * capacity]), valid_(new uint16_t[capacity / kGroup]) {
        if (with_directions) u_.reset(new Real[shape.axes * capacity]);
        stride_ = capacity;
    }

    // Points [first, first + count) and, where slopes are wanted, their directions.
    void fill(const Real* x, const Real* u, int64_t first, int count) {
        groups = (count + kGroup - 1) / kGroup;
        with_axes(shape_.axes,
                  [&]<int N>() { fill_axes<N>(x + first * N, u == nullptr ? u : u + first * N, count); });
    }

    // From group `g` on.
    Points<Real> from(int g) const {
        return {x_.get() + g * kGroup, u_ == nullptr ? nullptr : u_.get() + g * kGroup, valid_.get() + g,
                stride_};
    }

    int groups = 0;

  private:
    template <int N>
    void fill_axes(const Real* x, const Real* u, int count) {
        const Bounds bounds = shape_.bounds;
        for (int g = 0; g < groups; ++g) {
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
        static const Leaves& leaves = leaves_of(simd::level());
        leaves.locate[static_cast<int>(lattice)][static_cast<int>(wanted)][axes - 1](
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
    static constexpr int kSize = std::max<int>(kRunBytes / 8, 2 * kVerticesAtOnce * kGroup);
    alignas(64) uint32_t index[kSize];
    alignas(64) Real weight[kSize];
    uint8_t axes[kSize];

    static int groups(int vertices) { return kSize / (vertices * kGroup); }
};

// Calls visit(first group, groups, first vertex, vertices, run) for everything of a level, in order of the
// vertices for each point.
template <class Real, class Visit>
void for_each_run(Lattice lattice, Wanted wanted, bool with_order, const EncodeShape& shape,
                  const Level<Real>& level, const BlockPoints<Real>& block, const Visit& visit) {
    Run<Real> run;
    const int total = vertices_of(lattice, shape.axes), at_once = std::min(total, kVerticesAtOnce);
    const int step = Run<Real>::groups(at_once);
    for (int g = 0; g < block.groups; g += step) {
        const int groups = std::min(step, block.groups - g);
        for (int first = 0; first < total; first += at_once) {
            locate<Real>(lattice, wanted, shape.axes, level, shape.bounds, block.from(g), groups, first,
                         at_once, {run.index, run.weight, with_order ? run.axes : nullptr});
            visit(g, groups, first, at_once, run);
        }
    }
}

// A level's columns of the upstream gradient, [points][F].
template <class Real>
void load_columns(const EncodeShape& shape, const void* grad, DType type, int l, int64_t first, int count,
                  Real* out) {
    const auto load = [&]<class T>(const T* rows) {
        for (int p = 0; p < count; ++p) {
            const T* from = rows + (first + p) * shape.width() + l * shape.features;
            for (int c = 0; c < shape.features; ++c)
                out[p * shape.features + c] = static_cast<Real>(detail::widen(from[c]));
        }
    };
    switch (type) {
        case DType::f16:
            return load(static_cast<const half*>(grad));
        case DType::bf16:
            return load(static_cast<const bfloat16*>(grad));
        case DType::f32:
            return load(static_cast<const float*>(grad));
        default:
            return load(static_cast<const double*>(grad));
    }
}

}  // namespace fd::encoding
