// Included by encode_leaves_cpu.cpp once for each SIMD level, inside a namespace named after it.
//
// The shared functions, compiled for the level: what they cost is the random access.

template <class T, int F>
void dot(const void* table, const uint32_t* index, const float* grad, int vertices, int groups, float* c) {
    dots_of<T, float>(static_cast<const T*>(table), F, index, grad, vertices, groups, c);
}

template <int N>
void combine_simplex(const Level<float>& level, Bounds, const Points<float>& points, int groups, int, int,
                     const Located<float>& at, const float* c, float* dx) {
    combine_simplex_at<N, float>(level, points, groups, at, c, dx);
}

template <int N>
void combine_grid(const Level<float>& level, Bounds bounds, const Points<float>& points, int groups,
                  int first, int count, const Located<float>&, const float* c, float* dx) {
    combine_grid_at<N, float>(level, bounds, points, groups, first, count, c, dx);
}

template <int F>
void scatter(const uint32_t* index, const float* weight, const float* grad, int vertices, int points,
             uint32_t begin, uint32_t end, float* table) {
    scatter_points<F, float>(index, weight, grad, vertices, points, begin, end, table);
}
