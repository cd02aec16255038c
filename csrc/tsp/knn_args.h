// Tensors to pointers for knn, for both backends.
#pragma once

#include "common/check.h"
#include "tsp/distance.h"

namespace fd::tsp {

struct KnnCall {
    Tensor coords;  // [batch, points, 2], float32 or float64, contiguous
    int64_t batch, points, k;

    KnnCall(const Tensor& input, int64_t neighbours)
        : coords(torch::stable::contiguous(input)), batch(0), points(0), k(neighbours) {
        STD_TORCH_CHECK(input.dim() == 3 && input.size(2) == 2, "coords must be [B, N, 2]");
        STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float || input.scalar_type() == ScalarType::Double,
                        "coords must be float32 or float64");
        batch = input.size(0);
        points = input.size(1);
        STD_TORCH_CHECK(points < int64_t{1} << 30, "coords must have less than 2^30 points");
        STD_TORCH_CHECK(k >= 1 && k < points, "k must be in [1, N - 1]");
    }

    bool wide() const { return coords.scalar_type() == ScalarType::Double; }
    bool empty() const { return batch == 0; }

    Tensor result(ScalarType dtype) const {
        return torch::stable::new_empty(coords, {batch, points, k}, dtype);
    }
};

}  // namespace fd::tsp
