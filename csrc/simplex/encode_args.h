// Tensors to pointers for the encodings, shared by the CPU and the CUDA binding.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "simplex/levels.h"

namespace fd::encoding {

// The level table as the schemas have it.
struct LevelLists {
    const std::vector<double>& scales;
    const std::vector<double>& shifts;
    const std::vector<int64_t>& layout;
};

template <class Real>
Levels<Real> levels_of(const LevelLists& lists, int axes) {
    Levels<Real> levels{};
    levels.count = static_cast<int>(lists.scales.size());
    for (int l = 0; l < levels.count; ++l) {
        Level<Real>& level = levels.level[l];
        const int64_t* numbers = lists.layout.data() + kLayoutNumbers * l;
        level.scale = static_cast<Real>(lists.scales[l]);
        for (int i = 0; i < axes; ++i) level.shift[i] = static_cast<Real>(lists.shifts[l * axes + i]);
        level.offset = numbers[0];
        level.size = static_cast<uint32_t>(numbers[1]);
        level.dense = numbers[2] != 0;
        level.a = static_cast<int32_t>(numbers[3]);
        level.k = static_cast<int32_t>(numbers[4]);
        level.mask = static_cast<uint32_t>(numbers[5]);
    }
    return levels;
}

// What every operator of the family takes.
struct EncodeShape {
    int64_t points = 0, entries = 0;
    int axes = 0, features = 0, levels = 0, used_levels = 0;
    Bounds bounds = Bounds::clamp;

    int width() const { return levels * features; }

    EncodeShape(const Tensor& x, int64_t n_entries, int64_t n_features, const LevelLists& lists,
                int64_t bounds_mode, int64_t max_level)
        : points(x.size(0)), entries(n_entries), axes(static_cast<int>(x.size(1))) {
        STD_TORCH_CHECK(x.dim() == 2 && axes >= 1 && axes <= kMaxAxes, "x must be [N, 1..8]");
        STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double,
                        "x must be float32 or float64");
        STD_TORCH_CHECK(n_features == 1 || n_features == 2 || n_features == 4 || n_features == 8,
                        "the table must have 1, 2, 4 or 8 features");
        features = static_cast<int>(n_features);
        levels = static_cast<int>(lists.scales.size());
        STD_TORCH_CHECK(levels >= 1 && levels <= kMaxLevels, "1..32 levels, got ", levels);
        STD_TORCH_CHECK(lists.shifts.size() == static_cast<size_t>(levels) * axes, "shifts must be [L * n]");
        STD_TORCH_CHECK(lists.layout.size() == static_cast<size_t>(levels) * kLayoutNumbers,
                        "layout must be [L * 6]");
        STD_TORCH_CHECK(bounds_mode == 0 || bounds_mode == 1, "bounds must be 0 (clamp) or 1 (extend)");
        bounds = static_cast<Bounds>(bounds_mode);
        STD_TORCH_CHECK(max_level >= 0 && max_level <= levels, "max_level must be in [0, L]");
        used_levels = static_cast<int>(max_level);
        STD_TORCH_CHECK(entries >= 0 && entries * features < int64_t{1} << 31, "the table is too large");
        for (int l = 0; l < levels; ++l) {
            const int64_t* numbers = lists.layout.data() + kLayoutNumbers * l;
            const int64_t first = numbers[0], size = numbers[1], mask = numbers[5];
            STD_TORCH_CHECK(first >= 0 && size >= 1 && first <= entries - size,
                            "layout: a level lies outside the table");
            if (numbers[2] == 0) {
                STD_TORCH_CHECK(mask >= 0 && mask < size, "layout: a hash mask reaches past its level");
            } else {
                STD_TORCH_CHECK(
                    numbers[3] >= 1 && numbers[3] < 1 << 28 && numbers[4] >= 0 && numbers[4] < 1 << 28,
                    "layout: a or K of a dense level is out of range");
            }
        }
    }
};

// A dense level numbers its vertices without looking whether the number fits; its table and its scale decide.
inline void check_dense_levels(Lattice lattice, const EncodeShape& shape, const LevelLists& lists) {
    const int n = shape.axes;
    const double root = std::sqrt(n + 1.0);
    for (int l = 0; l < shape.levels; ++l) {
        const int64_t* numbers = lists.layout.data() + kLayoutNumbers * l;
        if (numbers[2] == 0) continue;
        const double scale = lists.scales[l], a = static_cast<double>(numbers[3]);
        const double* shift = lists.shifts.data() + l * n;
        const auto [least, most] = std::minmax_element(shift, shift + n);
        double needed = 1;
        if (lattice == Lattice::simplex) {
            // Digits wrap once at most, and the last one once up or down (DenseNumber).
            const double k = static_cast<double>(numbers[4]), modulus = a + n * k;
            double spread = 0;
            for (int i = 0; i < n; ++i) spread = std::max(spread, std::abs(shift[i] - shift[n - 1]));
            STD_TORCH_CHECK(scale + 1 + spread < a, "layout: a of a dense level is too small");
            STD_TORCH_CHECK(
                *least * root - 1 > -modulus && (scale + *most) * root + 1 + (n - 1) * k < 2 * modulus,
                "layout: a and K of a dense level are too small");
            needed = std::pow(a, n - 1) * modulus;
        } else {
            STD_TORCH_CHECK(*least >= 0 && *most <= 1, "shifts of dense levels must be in [0, 1]");
            needed = std::pow(a, n);
            STD_TORCH_CHECK(std::floor(scale + *most) + 1 <= a && a >= 2,
                            "layout: a of a dense level is too small");
        }
        STD_TORCH_CHECK(needed <= static_cast<double>(numbers[1]),
                        "layout: a dense level has too few entries");
    }
}

inline void check_gradient(const EncodeShape& shape, const Tensor& grad) {
    STD_TORCH_CHECK(grad.dim() == 2 && grad.size(0) == shape.points && grad.size(1) == shape.width(),
                    "grad must be [N, L * F]");
}

inline Tensor as_type(const Tensor& t, ScalarType type) {
    if (t.scalar_type() == type) return torch::stable::contiguous(t);
    const std::vector<int64_t> sizes(t.sizes().begin(), t.sizes().end());
    Tensor copy = torch::stable::new_empty(t, sizes, type);
    torch::stable::copy_(copy, t);
    return copy;
}

}  // namespace fd::encoding
