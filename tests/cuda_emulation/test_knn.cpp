// The k-nearest kernels in exact-size blocks: equal to all distances sorted, by pairs and by the grid.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/philox.h"
#include "cpp/testing.h"
#include "random/random.h"
#include "tsp/knn.h"
#include "tsp/knn_launch.h"

namespace fd::tsp {
namespace {

template <class T>
std::unique_ptr<T[]> block(int64_t n) {
    return std::unique_ptr<T[]>(new T[static_cast<size_t>(n)]);
}

enum Kind { kUniform, kCrowded, kLattice, kLine, kEqual, kUnusable, kKinds };

template <class T>
std::unique_ptr<T[]> points_of(Kind kind, int64_t batch, int64_t points) {
    auto xy = block<T>(batch * points * 2);
    const PhiloxStream stream(StreamTag::uniform, 5, 0, static_cast<uint64_t>(points));
    for (int64_t i = 0; i < batch * points; ++i) {
        const PhiloxWords p = stream.block(static_cast<uint64_t>(i));
        const double u = uniform_of(p.w[0], p.w[1]), v = uniform_of(p.w[2], p.w[3]);
        const bool far = i % 97 == 0;
        T* at = &xy[2 * i];
        at[0] = static_cast<T>(kind == kCrowded ? (far ? 50 * u : 1e-3 * u) : u);
        at[1] = static_cast<T>(kind == kCrowded ? (far ? 50 * v : 1e-3 * v) : v);
        if (kind == kLattice) {
            at[0] = static_cast<T>(i % 13);
            at[1] = static_cast<T>(i / 13 % 20);
        }
        if (kind == kLine) at[1] = T{3};
        if (kind == kEqual) at[0] = at[1] = static_cast<T>(-0.1);
        if (kind == kUnusable && i % 5 == 0)
            at[i % 2] = i % 3 == 0 ? static_cast<T>(NAN) : static_cast<T>(INFINITY);
    }
    return xy;
}

struct Found {
    double d2;
    City id;
};

template <class T>
bool usable(const T* xy, int64_t i) {
    return std::isfinite(xy[2 * i]) && std::isfinite(xy[2 * i + 1]);
}

// Whether the rows of one instance are what sorting all distances gives.
template <class T>
bool right(const T* xy, int64_t points, int64_t k, const int32_t* ids, const float* distances) {
    for (int64_t i = 0; i < points; ++i) {
        std::vector<Found> all;
        for (int64_t j = 0; j < points; ++j) {
            if (j == i || !usable(xy, i) || !usable(xy, j)) continue;
            const double dx = double{xy[2 * j]} - double{xy[2 * i]};
            const double dy = double{xy[2 * j + 1]} - double{xy[2 * i + 1]};
            all.push_back({dx * dx + dy * dy, static_cast<City>(j)});
        }
        std::sort(all.begin(), all.end(),
                  [](const Found& a, const Found& b) { return closer(a.d2, a.id, b.d2, b.id); });
        for (int64_t s = 0; s < k; ++s) {
            const int64_t at = i * k + s;
            if (s < static_cast<int64_t>(all.size())) {
                if (ids[at] != all[s].id || distances[at] != static_cast<float>(std::sqrt(all[s].d2)))
                    return false;
            } else if (ids[at] != -1 || !std::isnan(distances[at])) {
                return false;
            }
        }
    }
    return true;
}

template <class T>
void compare(Kind kind, int64_t batch, int64_t points, int64_t k) {
    const auto xy = points_of<T>(kind, batch, points);
    const int64_t bytes = knn_scratch<T>(batch, points);
    // aligned to 32, as a record of float64 is
    const auto scratch = block<Vec<double, 4>>((bytes + 31) / 32);
    for (const bool grid : {false, true}) {
        const auto ids = block<int32_t>(batch * points * k);
        const auto distances = block<float>(batch * points * k);
        if (grid) {
            knn_grid_cuda(nullptr, xy.get(), batch, points, k, ids.get(), distances.get(),
                          reinterpret_cast<unsigned char*>(scratch.get()));
        } else {
            knn_pairs_cuda(nullptr, xy.get(), batch, points, k, ids.get(), distances.get());
        }
        bool equal = true;
        for (int64_t b = 0; b < batch; ++b) {
            equal = equal &&
                    right(&xy[b * points * 2], points, k, &ids[b * points * k], &distances[b * points * k]);
        }
        EXPECT_NOTE(equal, std::string(grid ? "grid" : "pairs") + ", kind " + std::to_string(kind) + ", " +
                               std::to_string(points) + " points, k = " + std::to_string(k));
    }
}

FD_TEST(equals_all_distances_sorted) {
    for (int kind = 0; kind < kKinds; ++kind) {
        for (const int64_t points : {2, 33, 128, 130, 261}) {
            compare<float>(static_cast<Kind>(kind), 3, points, std::min<int64_t>(points - 1, 10));
            compare<double>(static_cast<Kind>(kind), 2, points, std::min<int64_t>(points - 1, 5));
        }
    }
}

// Lists of 8 and 16, and several of them.
FD_TEST(numbers_of_neighbours) {
    for (const int64_t k : {1, 8, 9, 16, 17, 33, 69}) {
        compare<float>(kUniform, 2, 70, k);
        compare<double>(kLattice, 1, 70, k);
    }
}

// Several chunks of cells: their prefix sums meet.
FD_TEST(many_cells) {
    compare<float>(kUniform, 2, 2100, 3);
    compare<float>(kLine, 1, 2100, 3);
}

FD_TEST(nothing_to_do) {
    knn_pairs_cuda<float>(nullptr, nullptr, 0, 5, 2, nullptr, nullptr);
    knn_grid_cuda<float>(nullptr, nullptr, 0, 5, 2, nullptr, nullptr, nullptr);
}

}  // namespace
}  // namespace fd::tsp

FD_TEST_MAIN()
