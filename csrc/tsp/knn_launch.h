// Launchers of knn_cuda.cu; T is float or double. `coords` [batch, points, 2], results [batch, points, k],
// all contiguous device memory; 1 <= k < points < 2^30.
#pragma once

#include <cstdint>

namespace fd::tsp {

constexpr int64_t kKnnPairs = 1024;  // up to so many points, all pairs are fewer steps than a grid takes

// All pairs.
template <class T>
void knn_pairs_cuda(void* stream, const T* coords, int64_t batch, int64_t points, int64_t k, int32_t* ids,
                    float* distances);

// By a uniform grid. `scratch` has knn_scratch bytes, aligned to 16.
template <class T>
int64_t knn_scratch(int64_t batch, int64_t points);
template <class T>
void knn_grid_cuda(void* stream, const T* coords, int64_t batch, int64_t points, int64_t k, int32_t* ids,
                   float* distances, unsigned char* scratch);

}  // namespace fd::tsp
