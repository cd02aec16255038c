// knn on the CPU. A city's neighbours depend on nothing but the points, so neither threads nor the order of
// the queries change them; queries run along the index's memory.
#include <cmath>
#include <tuple>

#include "tsp/knn_args.h"
#include "tsp/knn_index.h"

namespace fd::tsp {
namespace {

constexpr int64_t kGrain = 256;       // cities a thread takes at least: some 100 microseconds
constexpr int64_t kShared = 1 << 13;  // instances above this size are worked on by all threads together
constexpr int64_t kListed = 64;       // neighbours above this number are kept in a heap

struct Rows {  // of one instance
    City* ids;
    float* distances;
    int64_t k;
};

template <class List, class T>
void find(const PlanarIndex& index, const T* xy, const Rows& rows, int64_t first, int64_t last) {
    List list(static_cast<int>(rows.k));
    for (int64_t i = first; i < last; ++i) {
        const City a = index.id_at(static_cast<City>(i));
        list.restart(a);
        index.search(xy[2 * int64_t{a}], xy[2 * int64_t{a} + 1], list);
        list.sort();
        int64_t at = a * rows.k;
        for (const Neighbour& near : list) {
            rows.ids[at] = near.id;
            rows.distances[at++] = static_cast<float>(std::sqrt(near.d2));
        }
    }
}

template <class T>
void find_any(const PlanarIndex& index, const T* xy, const Rows& rows, int64_t first, int64_t last) {
    if (rows.k <= kListed) {
        find<Nearest>(index, xy, rows, first, last);
    } else {
        find<ManyNearest>(index, xy, rows, first, last);
    }
}

template <class T>
void check_finite(const KnnCall& call, const T* xy) {
    for (int64_t i = 0; i < call.batch * call.points * 2; ++i) {
        FD_CHECK_VALUE(std::isfinite(xy[i]), "`coords` must be finite, got ", xy[i], " in instance ",
                       i / (2 * call.points), ", point ", i / 2 % call.points);
    }
}

template <class T>
void knn_of(const KnnCall& call, City* ids, float* distances) {
    const T* coords = static_cast<const T*>(call.coords.data_ptr());
    check_finite(call, coords);
    const City n = static_cast<City>(call.points);
    const auto xy_of = [&](int64_t b) { return coords + b * call.points * 2; };
    const auto rows_of = [&](int64_t b) {
        return Rows{ids + b * call.points * call.k, distances + b * call.points * call.k, call.k};
    };
    if (call.points > kShared) {
        for (int64_t b = 0; b < call.batch; ++b) {
            const PlanarIndex index(xy_of(b), n);
            torch::stable::parallel_for(0, n, kGrain, [&](int64_t first, int64_t last) {
                find_any(index, xy_of(b), rows_of(b), first, last);
            });
        }
        return;
    }
    const int64_t grain = std::max<int64_t>(1, kGrain / call.points);
    torch::stable::parallel_for(0, call.batch, grain, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
            find_any(PlanarIndex(xy_of(b), n), xy_of(b), rows_of(b), 0, n);
        }
    });
}

std::tuple<Tensor, Tensor> knn(const Tensor& coords, int64_t k) {
    const KnnCall call(coords, k);
    Tensor ids = call.result(ScalarType::Int), distances = call.result(ScalarType::Float);
    auto* id = static_cast<City*>(ids.data_ptr());
    auto* distance = static_cast<float*>(distances.data_ptr());
    if (!call.empty()) call.wide() ? knn_of<double>(call, id, distance) : knn_of<float>(call, id, distance);
    return {ids, distances};
}

}  // namespace
}  // namespace fd::tsp

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) { m.impl("knn", TORCH_BOX(&fd::tsp::knn)); }
