// Included by encode_leaves_cpu.cpp once for each SIMD level, inside a namespace named after it.

#if FD_LEVEL == 0

template <class T, int F>
void dot(const void* table, const uint32_t* index, const float* grad, int vertices, int groups, float* c) {
    dots_of<T, float>(static_cast<const T*>(table), F, index, grad, vertices, groups, c);
}

template <int N>
void combine_simplex(const Level<float>& level, Bounds, const Points<float>& points, int groups, int, int,
                     const Located<float>& at, const float* c, float* dx) {
    combine_simplex_at<N, float>(level, points, groups, at, c, dx);
}

template <int F>
void scatter(const uint32_t* index, const float* weight, const float* grad, int vertices, int points,
             uint32_t begin, uint32_t end, float* table) {
    scatter_points<F, float>(index, weight, grad, vertices, points, begin, end, table);
}

#else

// Features 2 h and 2 h + 1 of kLanes entries of F.
template <int F>
inline void features_of(const float* rows, Ints at, int h, Floats* part) {
    Floats pair[2];
    pairs(rows, F == 2 ? at : plus(times(at, all(uint32_t{F / 2})), all(static_cast<uint32_t>(h))), pair);
    separated(pair, part);
}
template <int F, class T>
inline void features_of(const T* rows, Ints at, int h, Floats* part) {
    const Ints both =
        words(rows, F == 2 ? at : plus(times(at, all(uint32_t{F / 2})), all(static_cast<uint32_t>(h))));
    part[0] = even_of(rows, both), part[1] = odd_of(rows, both);
}

template <class T, int F>
void dot(const void* table, const uint32_t* index, const float* grad, int vertices, int groups, float* c) {
    const T* rows = static_cast<const T*>(table);
    alignas(64) uint32_t own[kLanes];
    for (int i = 0; i < kLanes; ++i) own[i] = static_cast<uint32_t>(i);
    for (int g = 0; g < groups; ++g) {
        for (int p = 0; p < kGroup; p += kLanes) {
            const float* upstream = grad + (g * kGroup + p) * F;
            Floats part[F];
            if constexpr (F == 1) {
                part[0] = load(upstream);
            } else {
                FD_UNROLL_LANES
                for (int h = 0; h < F / 2; ++h) features_of<F>(upstream, load(own), h, part + 2 * h);
            }
            for (int k = 0; k < vertices; ++k) {
                const int at = (g * vertices + k) * kGroup + p;
                Floats sum = all(0.0f);
                if constexpr (F == 1) {
                    sum = fused(part[0], singles(rows, index + at), sum);
                } else {
                    FD_UNROLL_LANES
                    for (int h = 0; h < F / 2; ++h) {
                        Floats entry[2];
                        features_of<F>(rows, load(index + at), h, entry);
                        sum = fused(part[2 * h], entry[0], sum);
                        sum = fused(part[2 * h + 1], entry[1], sum);
                    }
                }
                store(c + at, sum);
            }
        }
    }
}

// simplex::add_gradient
template <int N>
void combine_simplex(const Level<float>& level, Bounds, const Points<float>& points, int groups, int, int,
                     const Located<float>& at, const float* c, float* dx) {
    constexpr int K = simplex::vertices(N);
    const Floats scale = all(level.scale), skew = all(simplex::skew<float>(N));
    for (int p = 0; p < groups * kGroup; p += kLanes) {
        const int first = p / kGroup * K * kGroup + p % kGroup;
        const Floats weight = load(at.weight + first);
        const Mask valid = same(weight, weight);
        const uint8_t* axes = at.axes + p / kGroup * N * kGroup + p % kGroup;
        Floats value[K], sum[N];
        FD_UNROLL_LANES
        for (int k = 0; k < K; ++k)
            value[k] = pick(valid, load(c + first + k * kGroup), all(__builtin_nanf("")));
        FD_UNROLL_LANES
        for (int i = 0; i < N; ++i) sum[i] = load(dx + i * points.stride + p);
        const Floats shared = times(skew, minus(value[N], value[0]));
        FD_UNROLL_LANES
        for (int k = 0; k < N; ++k) {
            const Floats slope = times(scale, plus(minus(value[k + 1], value[k]), shared));
            const Ints axis = load(axes + k * kGroup);
            FD_UNROLL_LANES
            for (int i = 0; i < N; ++i)
                sum[i] = plus_where(equal(axis, all(static_cast<uint32_t>(i))), sum[i], slope);
        }
        FD_UNROLL_LANES
        for (int i = 0; i < N; ++i) store(dx + i * points.stride + p, sum[i]);
    }
}

template <int F>
inline void add_to_row(float w, const float* grad, float* row) {
    if constexpr (F == 1) {
        row[0] = fma(w, grad[0], row[0]);
    } else if constexpr (F == 2) {
        const auto two = [](const float* p) {
            return _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
        };
        const __m128 sum = _mm_fmadd_ps(_mm_set1_ps(w), two(grad), two(row));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(row), _mm_castps_si128(sum));
    } else if constexpr (F == 4) {
        _mm_storeu_ps(row, _mm_fmadd_ps(_mm_set1_ps(w), _mm_loadu_ps(grad), _mm_loadu_ps(row)));
    } else {
        _mm256_storeu_ps(row,
                         _mm256_fmadd_ps(_mm256_set1_ps(w), _mm256_loadu_ps(grad), _mm256_loadu_ps(row)));
    }
}

template <int F>
void scatter(const uint32_t* index, const float* weight, const float* grad, int vertices, int points,
             uint32_t begin, uint32_t end, float* table) {
    for (int p = 0; p < points; ++p, grad += F) {
        const int at = p / kGroup * vertices * kGroup + p % kGroup;
        if (weight[at] != weight[at]) continue;
        for (int k = 0; k < vertices; ++k) {
            const uint32_t entry = index[at + k * kGroup] - begin;
            if (entry >= end - begin) continue;
            add_to_row<F>(weight[at + k * kGroup], grad, table + static_cast<int64_t>(entry) * F);
        }
    }
}

#endif

// The shared function, compiled for the level.
template <int N>
void combine_grid(const Level<float>& level, Bounds bounds, const Points<float>& points, int groups,
                  int first, int count, const Located<float>&, const float* c, float* dx) {
    combine_grid_at<N, float>(level, bounds, points, groups, first, count, c, dx);
}
