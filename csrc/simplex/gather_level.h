// Included by encode_leaves_cpu.cpp once for each SIMD level, inside a namespace named after it.

#if FD_LEVEL == 0

template <class T, int F>
void gather(const void* table, const uint32_t* index, const float* weight, int vertices, int groups,
            bool fresh, float* out) {
    const T* rows = static_cast<const T*>(table);
    for (int p = 0; p < groups * kGroup; ++p) {
        const int at = p / kGroup * vertices * kGroup + p % kGroup;
        for (int c = 0; c < F && fresh; ++c) out[p * F + c] = 0.0f;
        for (int k = 0; k < vertices; ++k) {
            const T* row = rows + static_cast<int64_t>(index[at + k * kGroup]) * F;
            const float w = weight[at + k * kGroup];
            for (int c = 0; c < F; ++c) out[p * F + c] = fma(w, fd::detail::widen(row[c]), out[p * F + c]);
        }
    }
}

#else

inline __m128 row_of_four(const float* p) { return _mm_loadu_ps(p); }
inline __m128i eight_bytes(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
inline __m128 row_of_four(const half* p) { return _mm_cvtph_ps(eight_bytes(p)); }
inline __m128 row_of_four(const bfloat16* p) {
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(eight_bytes(p)), 16));
}
inline __m256 row_of_eight(const float* p) { return _mm256_loadu_ps(p); }
inline __m128i sixteen_bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m256 row_of_eight(const half* p) { return _mm256_cvtph_ps(sixteen_bytes(p)); }
inline __m256 row_of_eight(const bfloat16* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(sixteen_bytes(p)), 16));
}
inline float one(float v) { return v; }
inline float one(half v) { return _cvtsh_ss(v.x); }
inline float one(bfloat16 v) { return fd::detail::widen(v); }

// Both features of kLanes entries, one after the other, as 2 kLanes floats.
#if FD_LEVEL == 2
inline void pairs(const float* rows, Ints at, Floats* pair) {
    const __m512i low = _mm512_i32gather_epi64(_mm512_castsi512_si256(at), rows, 8);
    const __m512i high = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(at, 1), rows, 8);
    pair[0] = _mm512_castsi512_ps(low), pair[1] = _mm512_castsi512_ps(high);
}
inline void interleaved(Floats even, Floats odd, Floats* pair) {
    const __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    pair[0] = _mm512_permutex2var_ps(even, first, odd);
    pair[1] = _mm512_permutex2var_ps(even, second, odd);
}
inline void doubled(Floats v, Floats* pair) {
    const __m512i first = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    pair[0] = _mm512_permutexvar_ps(first, v);
    pair[1] = _mm512_permutexvar_ps(_mm512_add_epi32(first, _mm512_set1_epi32(8)), v);
}
inline void separated(const Floats* pair, Floats* part) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    part[0] = _mm512_permutex2var_ps(pair[0], even, pair[1]);
    part[1] = _mm512_permutex2var_ps(pair[0], _mm512_add_epi32(even, _mm512_set1_epi32(1)), pair[1]);
}
inline Ints words(const void* rows, Ints at) { return _mm512_i32gather_epi32(at, rows, 4); }
inline Floats even_of(const half*, Ints w) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(w)); }
inline Floats odd_of(const half*, Ints w) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(shifted(w, 16))); }
inline Floats even_of(const bfloat16*, Ints w) { return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)); }
inline Floats odd_of(const bfloat16*, Ints w) { return _mm512_castsi512_ps(common(w, all(0xffff0000u))); }
inline Floats singles(const float* rows, Ints at) { return _mm512_i32gather_ps(at, rows, 4); }
#else
inline void interleaved(Floats even, Floats odd, Floats* pair) {
    const __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    pair[0] = _mm256_permute2f128_ps(low, high, 0x20);
    pair[1] = _mm256_permute2f128_ps(low, high, 0x31);
}
inline void doubled(Floats v, Floats* pair) { interleaved(v, v, pair); }
inline void separated(const Floats* pair, Floats* part) {
    const __m256 low = _mm256_permute2f128_ps(pair[0], pair[1], 0x20);
    const __m256 high = _mm256_permute2f128_ps(pair[0], pair[1], 0x31);
    part[0] = _mm256_shuffle_ps(low, high, 0x88);
    part[1] = _mm256_shuffle_ps(low, high, 0xdd);
}
inline void pairs(const float* rows, Ints at, Floats* pair) {
    const auto* wide = reinterpret_cast<const long long*>(rows);
    pair[0] = _mm256_castsi256_ps(_mm256_i32gather_epi64(wide, _mm256_castsi256_si128(at), 8));
    pair[1] = _mm256_castsi256_ps(_mm256_i32gather_epi64(wide, _mm256_extracti128_si256(at, 1), 8));
}
inline Ints words(const void* rows, Ints at) {
    return _mm256_i32gather_epi32(static_cast<const int*>(rows), at, 4);
}
inline __m128i low_halves(Ints w) {
    return _mm_packus_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}
inline Floats even_of(const half*, Ints w) { return _mm256_cvtph_ps(low_halves(common(w, all(0xffffu)))); }
inline Floats odd_of(const half*, Ints w) { return _mm256_cvtph_ps(low_halves(shifted(w, 16))); }
inline Floats even_of(const bfloat16*, Ints w) { return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)); }
inline Floats odd_of(const bfloat16*, Ints w) { return _mm256_castsi256_ps(common(w, all(0xffff0000u))); }
inline Floats singles(const float* rows, Ints at) { return _mm256_i32gather_ps(rows, at, 4); }
#endif

inline Floats singles(const float* rows, const uint32_t* at) { return singles(rows, load(at)); }
template <class T>
inline Floats singles(const T* rows, const uint32_t* at) {  // a wider load would pass the end of the table
    alignas(64) float values[kLanes];
    for (int i = 0; i < kLanes; ++i) values[i] = one(rows[at[i]]);
    return load(values);
}

template <class T>
void gather_single(const T* rows, const uint32_t* index, const float* weight, int vertices, bool fresh,
                   float* out) {
    for (int p = 0; p < kGroup; p += kLanes) {
        Floats sum = fresh ? all(0.0f) : load(out + p);
        for (int k = 0; k < vertices; ++k) {
            sum = fused(load(weight + k * kGroup + p), singles(rows, index + k * kGroup + p), sum);
        }
        store(out + p, sum);
    }
}

template <class T>
void gather_pairs(const T* rows, const uint32_t* index, const float* weight, int vertices, bool fresh,
                  float* out) {
    for (int p = 0; p < kGroup; p += kLanes) {
        Floats sum[2] = {all(0.0f), all(0.0f)};
        if (!fresh) sum[0] = load(out + 2 * p), sum[1] = load(out + 2 * p + kLanes);
        if constexpr (sizeof(T) == 4) {
            for (int k = 0; k < vertices; ++k) {
                Floats value[2], w[2];
                doubled(load(weight + k * kGroup + p), w);
                pairs(rows, load(index + k * kGroup + p), value);
                for (int h = 0; h < 2; ++h) sum[h] = fused(w[h], value[h], sum[h]);
            }
        } else {
            // even features of all points in one vector, odd ones in the other
            Floats part[2];
            separated(sum, part);
            for (int k = 0; k < vertices; ++k) {
                const Ints value = words(rows, load(index + k * kGroup + p));
                const Floats w = load(weight + k * kGroup + p);
                part[0] = fused(w, even_of(rows, value), part[0]);
                part[1] = fused(w, odd_of(rows, value), part[1]);
            }
            interleaved(part[0], part[1], sum);
        }
        store(out + 2 * p, sum[0]);
        store(out + 2 * p + kLanes, sum[1]);
    }
}

template <class T>
void gather_fours(const T* rows, const uint32_t* index, const float* weight, int vertices, bool fresh,
                  float* out) {
    for (int p = 0; p < kGroup; ++p) {
        __m128 sum = fresh ? _mm_setzero_ps() : _mm_loadu_ps(out + 4 * p);
        for (int k = 0; k < vertices; ++k) {
            const __m128 row = row_of_four(rows + 4 * static_cast<int64_t>(index[k * kGroup + p]));
            sum = _mm_fmadd_ps(_mm_set1_ps(weight[k * kGroup + p]), row, sum);
        }
        _mm_storeu_ps(out + 4 * p, sum);
    }
}

template <class T>
void gather_eights(const T* rows, const uint32_t* index, const float* weight, int vertices, bool fresh,
                   float* out) {
    for (int p = 0; p < kGroup; ++p) {
        __m256 sum = fresh ? _mm256_setzero_ps() : _mm256_loadu_ps(out + 8 * p);
        for (int k = 0; k < vertices; ++k) {
            const __m256 row = row_of_eight(rows + 8 * static_cast<int64_t>(index[k * kGroup + p]));
            sum = _mm256_fmadd_ps(_mm256_set1_ps(weight[k * kGroup + p]), row, sum);
        }
        _mm256_storeu_ps(out + 8 * p, sum);
    }
}

template <class T, int F>
void gather(const void* table, const uint32_t* index, const float* weight, int vertices, int groups,
            bool fresh, float* out) {
    const T* rows = static_cast<const T*>(table);
    for (int g = 0; g < groups; ++g) {
        if constexpr (F == 1) gather_single(rows, index, weight, vertices, fresh, out);
        if constexpr (F == 2) gather_pairs(rows, index, weight, vertices, fresh, out);
        if constexpr (F == 4) gather_fours(rows, index, weight, vertices, fresh, out);
        if constexpr (F == 8) gather_eights(rows, index, weight, vertices, fresh, out);
        index += vertices * kGroup, weight += vertices * kGroup, out += kGroup * F;
    }
}

#endif
