// Part of leaves_level.h: maxima, bounds and scans over floats, processing of logits.

// ---- maxima

#if FD_LEVEL == 2
template <class T>
void column_maxima(const void* base, int rows, float* most) {
    const T* p = static_cast<const T*>(base);
    constexpr int kVectors = kStride / kWidth;
    Floats m[kVectors];
    if constexpr (dtype_of<T> == DType::bf16) {
        const __m512i to_split[2] = {
            _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0),
            _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1)};
        const __m512i to_order[2] = {
            _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0),
            _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8)};
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; j += 2) {
            const Floats a = load(most + kWidth * j), b = load(most + kWidth * (j + 1));
            m[j] = _mm512_permutex2var_ps(a, to_split[0], b);
            m[j + 1] = _mm512_permutex2var_ps(a, to_split[1], b);
        }
        for (int i = 0; i < rows; ++i, p += kStride) {
#pragma GCC unroll 8
            for (int j = 0; j < kVectors; j += 2) {
                __builtin_prefetch(p + kWidth * j + kAhead / sizeof(T));
                m[j] = larger(even(p + kWidth * j), m[j]);
                m[j + 1] = larger(odd(p + kWidth * j), m[j + 1]);
            }
        }
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; j += 2) {
            store(most + kWidth * j, _mm512_permutex2var_ps(m[j], to_order[0], m[j + 1]));
            store(most + kWidth * (j + 1), _mm512_permutex2var_ps(m[j], to_order[1], m[j + 1]));
        }
    } else {
#pragma GCC unroll 16
        for (int j = 0; j < kVectors; ++j) m[j] = load(most + kWidth * j);
        for (int i = 0; i < rows; ++i, p += kStride) {
#pragma GCC unroll 16
            for (int j = 0; j < kVectors; ++j) {
                if (j * kWidth * sizeof(T) % 64 == 0) __builtin_prefetch(p + kWidth * j + kAhead / sizeof(T));
                m[j] = larger(load(p + kWidth * j), m[j]);
            }
        }
#pragma GCC unroll 16
        for (int j = 0; j < kVectors; ++j) store(most + kWidth * j, m[j]);
    }
}
#elif FD_LEVEL == 1
// Too few registers for all columns: four rows at a time pass through `most` in L1.
template <class T>
void column_maxima(const void* base, int rows, float* most) {
    const T* p = static_cast<const T*>(base);
    for (; rows >= 4; rows -= 4, p += 4 * kStride) {
        for (int r = 0; r < kStride; r += kWidth) {
            const Floats a = larger(load(p + r), load(most + r));
            const Floats b = larger(load(p + r + kStride), a);
            const Floats c = larger(load(p + r + 2 * kStride), b);
            store(most + r, larger(load(p + r + 3 * kStride), c));
        }
    }
    for (; rows > 0; --rows, p += kStride) {
        for (int r = 0; r < kStride; r += kWidth) store(most + r, larger(load(p + r), load(most + r)));
    }
}
#else
template <class T>
void column_maxima(const void* base, int rows, float* most) {
    const T* p = static_cast<const T*>(base);
    for (int i = 0; i < rows; ++i, p += kStride) {
        for (int r = 0; r < kStride; ++r) {
            const float l = fd::detail::widen(p[r]);
            most[r] = l > most[r] ? l : most[r];
        }
    }
}
#endif

template <class T>
void row_maxima(const void* base, int rows, float* most) {
    const T* p = static_cast<const T*>(base);
    for (int i = 0; i < rows; ++i, p += kStride) {
#if FD_LEVEL > 0
        Floats m[4];
        for (Floats& lane : m) lane = broadcast(kMinusInfinity<float>);
        for (int r = 0; r < kStride; r += 4 * kWidth) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) m[j] = larger(load(p + r + kWidth * j), m[j]);
        }
        most[i] = largest(larger(larger(m[0], m[1]), larger(m[2], m[3])));
#else
        float m = kMinusInfinity<float>;
        for (int r = 0; r < kStride; ++r) {
            const float l = fd::detail::widen(p[r]);
            m = l > m ? l : m;
        }
        most[i] = m;
#endif
    }
}

// ---- bounds

float bounds(const uint16_t* prefix, const float* l, int n, int32_t steps, float per_step, float least,
             float* out) {
    const int32_t one = kStepsOfOne + steps;
#if FD_LEVEL == 2
    const __m512 c = _mm512_set1_ps(per_step), floor = _mm512_set1_ps(least);
    const __m512 nothing = _mm512_set1_ps(kMinusInfinity<float>);
    __m512 most = nothing;
    for (int i = 0; i < n; i += 16) {
        const __m512i k =
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(prefix + i)));
        const __m512i d =
            _mm512_sub_epi32(_mm512_set1_epi32(one), _mm512_castps_si512(_mm512_cvtepi32_ps(k)));
        const __m512 x = _mm512_loadu_ps(l + i);
        const __mmask16 kept = _mm512_cmp_ps_mask(x, floor, _CMP_GE_OQ);
        const __m512 bound = _mm512_mask_mov_ps(nothing, kept, _mm512_fmadd_ps(c, _mm512_cvtepi32_ps(d), x));
        _mm512_storeu_ps(out + i, bound);
        most = _mm512_max_ps(bound, most);
    }
    return _mm512_reduce_max_ps(most);
#elif FD_LEVEL == 1
    const __m256 c = _mm256_set1_ps(per_step), floor = _mm256_set1_ps(least);
    const __m256 nothing = _mm256_set1_ps(kMinusInfinity<float>);
    __m256 most = nothing;
    for (int i = 0; i < n; i += 8) {
        const __m256i k =
            _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(prefix + i)));
        const __m256i d =
            _mm256_sub_epi32(_mm256_set1_epi32(one), _mm256_castps_si256(_mm256_cvtepi32_ps(k)));
        const __m256 x = _mm256_loadu_ps(l + i);
        const __m256 b = _mm256_fmadd_ps(c, _mm256_cvtepi32_ps(d), x);
        const __m256 bound = _mm256_blendv_ps(nothing, b, _mm256_cmp_ps(x, floor, _CMP_GE_OQ));
        _mm256_storeu_ps(out + i, bound);
        most = _mm256_max_ps(bound, most);
    }
    return largest(most);
#else
    float most = kMinusInfinity<float>;
    for (int i = 0; i < n; ++i) {
        const int32_t d = one - bit_cast<int32_t>(static_cast<float>(static_cast<int32_t>(prefix[i])));
        out[i] = l[i] >= least ? fma(per_step, static_cast<float>(d), l[i]) : kMinusInfinity<float>;
        most = out[i] > most ? out[i] : most;
    }
    return most;
#endif
}

int next_at_least(const float* x, int from, int n, float bound) {
    int i = from;
#if FD_LEVEL == 2
    const __m512 b = _mm512_set1_ps(bound);
    for (; i + 64 <= n; i += 64) {
        uint64_t hits = 0;
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            const __mmask16 hit = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + i + 16 * j), b, _CMP_GE_OQ);
            hits |= static_cast<uint64_t>(hit) << (16 * j);
        }
        if (hits != 0) return i + __builtin_ctzll(hits);
    }
#elif FD_LEVEL == 1
    const __m256 b = _mm256_set1_ps(bound);
    for (; i + 32 <= n; i += 32) {
        uint32_t hits = 0;
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            const __m256 hit = _mm256_cmp_ps(_mm256_loadu_ps(x + i + 8 * j), b, _CMP_GE_OQ);
            hits |= static_cast<uint32_t>(_mm256_movemask_ps(hit)) << (8 * j);
        }
        if (hits != 0) return i + __builtin_ctz(hits);
    }
#endif
    for (; i < n; ++i) {
        if (x[i] >= bound) return i;
    }
    return n;
}

float largest_of(const float* x, int n) {
#if FD_LEVEL > 0
    Floats most = load(x);
    for (int i = kWidth; i < n; i += kWidth) most = larger(load(x + i), most);
    return largest(most);
#else
    float most = x[0];
    for (int i = 1; i < n; ++i) most = x[i] > most ? x[i] : most;
    return most;
#endif
}

bool any_at_most(const uint16_t* x, uint16_t limit) {
#if FD_LEVEL == 2
    __m512i least = _mm512_loadu_si512(x);
    for (int i = 32; i < kStride; i += 32) least = _mm512_min_epu16(_mm512_loadu_si512(x + i), least);
    return _mm512_cmple_epu16_mask(least, _mm512_set1_epi16(static_cast<int16_t>(limit))) != 0;
#else
    int found = 0;
    for (int i = 0; i < kStride; ++i) found |= x[i] <= limit;
    return found != 0;
#endif
}

// ---- processing: loops that the compiler vectorises

template <class T>
void widen(const void* base, int n, float* __restrict out) {
    const T* p = static_cast<const T*>(base);
    int i = 0;
#if FD_LEVEL > 0
    if constexpr (dtype_of<T> != DType::f64) {
        for (; i + kWidth <= n; i += kWidth) store(out + i, load(p + i));
    }
#endif
    for (; i < n; ++i) out[i] = bound_logit(fd::detail::widen(p[i]));
}

template <class T>
void guide(const void* conditional, const void* unconditional, int n, float guidance, float* __restrict out) {
    const T *c = static_cast<const T*>(conditional), *u = static_cast<const T*>(unconditional);
    int i = 0;
#if FD_LEVEL > 0
    const Floats g = broadcast(guidance);
    for (; i + kWidth <= n; i += kWidth) {
        const Floats base = load(u + i);
        store(out + i, fused(g, minus(load(c + i), base), base));
    }
#endif
    for (; i < n; ++i) {
        const float base = fd::detail::widen(u[i]);
        out[i] = fma(guidance, fd::detail::widen(c[i]) - base, base);
    }
}

void add(float* __restrict l, const float* __restrict bias, int n) {
    for (int i = 0; i < n; ++i) l[i] += bias[i];
}

void suppress(float* __restrict l, const bool* __restrict suppressed, int n) {
    const uint8_t* out = reinterpret_cast<const uint8_t*>(suppressed);
    for (int i = 0; i < n; ++i) l[i] = out[i] != 0 ? kMinusInfinity<float> : l[i];
}
