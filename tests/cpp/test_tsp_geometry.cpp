// Orders and neighbours in the plane: against definitions, over points of every density.
#include <algorithm>
#include <cstdlib>
#include <random>
#include <vector>

#include "cpp/testing.h"
#include "cpp/tsp_points.h"
#include "tsp/hilbert.h"
#include "tsp/knn_index.h"

namespace fd::tsp {
namespace {

// Every cell of a coarse grid once, and each beside the one before: the curve's definition, by its
// self-similarity at every scale.
FD_TEST(hilbert_curve) {
    for (const int shift : {0, 5, 10}) {
        constexpr uint32_t kSide = 64;
        std::vector<uint32_t> keys, cells;
        for (uint32_t i = 0; i < kSide * kSide; ++i) {
            keys.push_back(hilbert_key((i % kSide) << shift, (i / kSide) << shift));
            cells.push_back(i);
        }
        radix_sort(keys, cells);
        bool adjacent = true;
        for (size_t i = 1; i < cells.size(); ++i) {
            const int dx =
                std::abs(static_cast<int>(cells[i] % kSide) - static_cast<int>(cells[i - 1] % kSide));
            const int dy =
                std::abs(static_cast<int>(cells[i] / kSide) - static_cast<int>(cells[i - 1] / kSide));
            adjacent = adjacent && dx + dy == 1 && keys[i] >> 2 * shift == i;
        }
        EXPECT_NOTE(adjacent, "shift " + std::to_string(shift));
    }
    EXPECT(hilbert_key(65535, 0) == 0xffffffff);
}

FD_TEST(hilbert_order_of_one_cell) {
    const std::vector<int> rank{2, 0, 1, 0, 2};
    const auto order = hilbert_order(
        5, [](City i, int) { return i == 1 ? 1.0 : 0.5; }, [&](City a, City b) { return rank[a] < rank[b]; });
    EXPECT((order == std::vector<City>{3, 2, 0, 4, 1}));  // stable
}

FD_TEST(radix_sort_is_stable) {
    std::mt19937 random(1);
    for (const uint32_t range : {1u, 7u, 3000u, 1u << 24, ~0u}) {
        std::vector<uint32_t> keys;
        std::vector<int> places;
        for (int i = 0; i < 5000; ++i) {
            keys.push_back(random() % range);
            places.push_back(i);
        }
        auto want = places;
        std::stable_sort(want.begin(), want.end(), [&](int a, int b) { return keys[a] < keys[b]; });
        const auto before = keys;
        radix_sort(keys, places);
        EXPECT(places == want);
        bool moved = true;
        for (size_t i = 0; i < keys.size(); ++i) moved = moved && keys[i] == before[places[i]];
        EXPECT(moved && std::is_sorted(keys.begin(), keys.end()));
    }
}

std::vector<Neighbour> all_sorted(const std::vector<double>& xy, City own) {
    std::vector<Neighbour> all;
    for (City j = 0; j < static_cast<City>(xy.size() / 2); ++j) {
        const double dx = xy[2 * j] - xy[2 * own], dy = xy[2 * j + 1] - xy[2 * own + 1];
        if (j != own) all.push_back({dx * dx + dy * dy, j});
    }
    std::sort(all.begin(), all.end(), [](const Neighbour& a, const Neighbour& b) { return closer(a, b); });
    return all;
}

template <class Found>
bool starts_with(const std::vector<Neighbour>& want, size_t count, const Found& found) {
    size_t i = 0;
    for (const Neighbour& f : found) {
        if (i >= count || f.id != want[i].id || f.d2 != want[i].d2) return false;
        ++i;
    }
    return i == count;
}

FD_TEST(nearest_neighbours) {
    for (int kind = 0; kind < kKinds; ++kind) {
        for (const City n : {1, 2, 5, 40, 700}) {
            const auto xy = points_of(static_cast<Kind>(kind), n);
            const PlanarIndex index(xy.data(), n);
            const KdTree<2> tree(n, [&](City i) { return KdTree<2>::Place{xy[2 * i], xy[2 * i + 1]}; });
            const int k = std::min(n - 1, 9);
            Nearest list(k), of_tree(k);
            ManyNearest many(k);
            bool equal = true;
            for (City i = 0; i < n && k > 0; ++i) {
                const auto want = all_sorted(xy, i);
                list.restart(i);
                of_tree.restart(i);
                many.restart(i);
                index.search(xy[2 * i], xy[2 * i + 1], list);
                tree.search({xy[2 * i], xy[2 * i + 1]}, of_tree);
                index.search(xy[2 * i], xy[2 * i + 1], many);
                many.sort();
                equal = equal && starts_with(want, k, list) && starts_with(want, k, of_tree) &&
                        starts_with(want, k, many);
            }
            EXPECT_NOTE(equal, name_of(static_cast<Kind>(kind), n));
        }
    }
}

// Of distinct points; the index looks for them in a few rings only where it is a grid.
FD_TEST(quadrant_neighbours) {
    for (const Kind kind : {kUniform, kClustered, kLine, kLattice, kOutlier}) {
        constexpr City n = 300;
        const auto xy = points_of(kind, n);
        const PlanarIndex index(xy.data(), n);
        const KdTree<2> tree(n, [&](City i) { return KdTree<2>::Place{xy[2 * i], xy[2 * i + 1]}; });
        QuadrantLists lists(2), of_tree(2);
        bool equal = true;
        for (City i = 0; i < n; ++i) {
            const double x = xy[2 * i], y = xy[2 * i + 1];
            std::vector<City> want, got, got_of_tree;
            const auto all = all_sorted(xy, i);
            for (int q = 0; q < 4; ++q) {
                int taken = 0;
                for (const Neighbour& near : all) {
                    if (taken < 2 && quadrant_of(xy[2 * near.id] - x, xy[2 * near.id + 1] - y) == q) {
                        want.push_back(near.id);
                        ++taken;
                    }
                }
            }
            lists.restart(i);
            index.search(x, y, lists);
            lists.for_each([&](const Neighbour& near) { got.push_back(near.id); });
            of_tree.restart(i);
            tree.search({x, y}, of_tree);
            of_tree.for_each([&](const Neighbour& near) { got_of_tree.push_back(near.id); });
            equal = equal && got == want && got_of_tree == want;
        }
        EXPECT_NOTE(equal, name_of(kind, n));
    }
}

FD_TEST(quadrants_partition_the_plane) {
    const double around[8][3] = {{1, 0, 0},  {1, 1, 0},   {0, 1, 1},  {-1, 1, 1},
                                 {-1, 0, 2}, {-1, -1, 2}, {0, -1, 3}, {1, -1, 3}};
    for (const auto& [dx, dy, quadrant] : around) EXPECT(quadrant_of(dx, dy) == quadrant);
}

// The memory of the GPU's grid is taken before the box is known.
FD_TEST(a_grid_has_few_cells) {
    std::mt19937_64 random(3);
    std::uniform_real_distribution<double> exponent(-320, 308);
    for (int i = 0; i < 200'000; ++i) {
        const int64_t n = 2 + static_cast<int64_t>(random() % (i % 2 == 0 ? 20 : 1'000'000));
        const double width = std::pow(10, exponent(random));
        const double height =
            i % 3 == 0 ? 0 : width * std::pow(10, exponent(random) / (i % 5 == 0 ? 1 : 100));
        const Grid grid = Grid::over({{0, 0}, {width, height}}, n);
        EXPECT(grid.size() >= 1 && grid.size() <= n + 8);
        EXPECT(grid.cell_of(width, height) < grid.size() && grid.cell_of(NAN, -1) == 0);
    }
}

// Millions of copies must not cost their square: the index counts what it shows.
FD_TEST(copies_are_found_quickly) {
    struct Counting : Nearest {
        int64_t* seen;
        Counting(int k, int64_t* count) : Nearest(k), seen(count) {}
        void see(double dx, double dy, double d2, City id) {
            ++*seen;
            Nearest::see(dx, dy, d2, id);
        }
    };
    constexpr City n = 20'000;
    for (const Kind kind : {kEqual, kCopies, kOutlier}) {
        const auto xy = points_of(kind, n);
        const PlanarIndex index(xy.data(), n);
        int64_t seen = 0;
        Counting list(10, &seen);
        for (City i = 0; i < n; ++i) {
            list.restart(i);
            index.search(xy[2 * i], xy[2 * i + 1], list);
        }
        EXPECT_NOTE(seen < 90 * int64_t{n}, name_of(kind, n) + ": seen " + std::to_string(seen));
    }
}

}  // namespace
}  // namespace fd::tsp

FD_TEST_MAIN()
