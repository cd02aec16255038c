// Included by leaves_cpu.cpp once for each SIMD level, under its target options: FD_LEVEL 0, 1 (AVX2), 2
// (AVX-512), inside a namespace named after the level.

// ---- Philox: a 64-bit lane carries one word, with left-overs above that the multiplier ignores

#if FD_LEVEL == 2
// Lanes hold counters 0 4 1 5 2 6 3 7, so that unpacking puts consecutive blocks together.
void prefixes(const PhiloxStream& s, uint32_t first, int blocks, uint16_t* out) {
    constexpr int kWays = 4;  // independent chains hide the multiplier's latency
    uint64_t keys[2][10];
    for (uint32_t round = 0, k0 = s.key0, k1 = s.key1; round < 10;
         ++round, k0 += kPhiloxW0, k1 += kPhiloxW1) {
        keys[0][round] = k0;
        keys[1][round] = k1;
    }
    const __m512i m0 = _mm512_set1_epi64(kPhiloxM0), m1 = _mm512_set1_epi64(kPhiloxM1);
    const __m512i lanes = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    const __m512i row_low = _mm512_set1_epi64(s.row_low), row_high = _mm512_set1_epi64(s.row_high);
    const __m512i offset = _mm512_set1_epi64(s.offset);
    for (int b = 0; b < blocks; b += 8 * kWays) {
        __m512i c0[kWays], c1[kWays], c2[kWays], c3[kWays];
        for (int j = 0; j < kWays; ++j) {
            const uint32_t index = s.tag_bits | (first + static_cast<uint32_t>(b + 8 * j));
            c0[j] = _mm512_add_epi64(_mm512_set1_epi64(index), lanes);
            c1[j] = row_low;
            c2[j] = row_high;
            c3[j] = offset;
        }
#pragma GCC unroll 10
        for (int round = 0; round < 10; ++round) {
            const __m512i key0 = _mm512_set1_epi64(static_cast<int64_t>(keys[0][round]));
            const __m512i key1 = _mm512_set1_epi64(static_cast<int64_t>(keys[1][round]));
#pragma GCC unroll 4
            for (int j = 0; j < kWays; ++j) {
                const __m512i p0 = _mm512_mul_epu32(c0[j], m0), p1 = _mm512_mul_epu32(c2[j], m1);
                c0[j] =
                    _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c1[j], key0, 0x96);  // xor of three
                c1[j] = p1;
                c2[j] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c3[j], key1, 0x96);
                c3[j] = p0;
            }
        }
#pragma GCC unroll 4
        for (int j = 0; j < kWays; ++j) {
            const __m512i low = _mm512_mask_shuffle_epi32(c0[j], 0xAAAA, c1[j], _MM_PERM_CCAA);
            const __m512i high = _mm512_mask_shuffle_epi32(c2[j], 0xAAAA, c3[j], _MM_PERM_CCAA);
            uint16_t* to = out + 8 * (b + 8 * j);
            _mm512_storeu_si512(to, _mm512_unpacklo_epi64(low, high));
            _mm512_storeu_si512(to + 32, _mm512_unpackhi_epi64(low, high));
        }
    }
}
#elif FD_LEVEL == 1
void prefixes(const PhiloxStream& s, uint32_t first, int blocks, uint16_t* out) {
    constexpr int kWays = 2;
    const __m256i m0 = _mm256_set1_epi64x(kPhiloxM0), m1 = _mm256_set1_epi64x(kPhiloxM1);
    const __m256i lanes = _mm256_set_epi64x(3, 1, 2, 0);
    for (int b = 0; b < blocks; b += 4 * kWays) {
        __m256i c0[kWays], c1[kWays], c2[kWays], c3[kWays];
        for (int j = 0; j < kWays; ++j) {
            const uint32_t index = s.tag_bits | (first + static_cast<uint32_t>(b + 4 * j));
            c0[j] = _mm256_add_epi64(_mm256_set1_epi64x(index), lanes);
            c1[j] = _mm256_set1_epi64x(s.row_low);
            c2[j] = _mm256_set1_epi64x(s.row_high);
            c3[j] = _mm256_set1_epi64x(s.offset);
        }
        uint32_t k0 = s.key0, k1 = s.key1;
#pragma GCC unroll 10
        for (int round = 0; round < 10; ++round, k0 += kPhiloxW0, k1 += kPhiloxW1) {
            const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
#pragma GCC unroll 2
            for (int j = 0; j < kWays; ++j) {
                const __m256i p0 = _mm256_mul_epu32(c0[j], m0), p1 = _mm256_mul_epu32(c2[j], m1);
                c0[j] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1[j]), key0);
                c1[j] = p1;
                c2[j] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3[j]), key1);
                c3[j] = p0;
            }
        }
        for (int j = 0; j < kWays; ++j) {
            const __m256i low = _mm256_blend_epi32(c0[j], _mm256_slli_epi64(c1[j], 32), 0xAA);
            const __m256i high = _mm256_blend_epi32(c2[j], _mm256_slli_epi64(c3[j], 32), 0xAA);
            __m256i* to = reinterpret_cast<__m256i*>(out + 8 * (b + 4 * j));
            _mm256_storeu_si256(to, _mm256_unpacklo_epi64(low, high));
            _mm256_storeu_si256(to + 1, _mm256_unpackhi_epi64(low, high));
        }
    }
}
#else
void prefixes(const PhiloxStream& s, uint32_t first, int blocks, uint16_t* out) {
    for (int b = 0; b < blocks; ++b) {
        const PhiloxWords words = s.block(first + static_cast<uint32_t>(b));
        for (uint32_t j = 0; j < 8; ++j)
            out[8 * b + static_cast<int>(j)] = static_cast<uint16_t>(half_of(words, j));
    }
}
#endif

// ---- loads of kWidth floats

#if FD_LEVEL == 2
using Floats = __m512;
constexpr int kWidth = 16;
inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline Floats load(const half* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Floats load(const bfloat16* p) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
inline Floats larger(Floats x, Floats most) { return _mm512_max_ps(x, most); }  // `most` where x is NaN
inline float largest(Floats x) { return _mm512_reduce_max_ps(x); }
inline Floats broadcast(float x) { return _mm512_set1_ps(x); }
inline Floats smaller(Floats least, Floats x) { return _mm512_min_ps(least, x); }  // x where x is NaN
inline Floats plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
// q 2^n, n in the low bits of `shifted`.
inline Floats times_power(Floats q, Floats shifted) {
    const __m512i power = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(q), power));
}
inline void accumulate(Floats e, Floats t, Floats& sum, Floats& first) {
    const __mmask16 counts = _mm512_cmp_ps_mask(t, _mm512_set1_ps(kLeastExponent), _CMP_GE_OQ);
    sum = _mm512_mask_add_ps(sum, counts, sum, e);
    first = _mm512_mask3_fmadd_ps(e, t, first, counts);
}
// Two rows of bfloat16 words at once: even elements moved up, odd ones where they are.
inline Floats even(const bfloat16* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
inline Floats odd(const bfloat16* p) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
#elif FD_LEVEL == 1
using Floats = __m256;
constexpr int kWidth = 8;
inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
inline Floats load(const half* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Floats load(const bfloat16* p) {
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}
inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }
inline Floats larger(Floats x, Floats most) { return _mm256_max_ps(x, most); }
inline float largest(Floats x) {
    alignas(32) float lane[8];
    _mm256_store_ps(lane, x);
    float most = lane[0];
    for (int i = 1; i < 8; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}
inline Floats broadcast(float x) { return _mm256_set1_ps(x); }
inline Floats smaller(Floats least, Floats x) { return _mm256_min_ps(least, x); }
inline Floats plus(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats times_power(Floats q, Floats shifted) {
    const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(q), power));
}
inline void accumulate(Floats e, Floats t, Floats& sum, Floats& first) {
    const __m256 counts = _mm256_cmp_ps(t, _mm256_set1_ps(kLeastExponent), _CMP_GE_OQ);
    sum = _mm256_blendv_ps(sum, _mm256_add_ps(sum, e), counts);
    first = _mm256_blendv_ps(first, _mm256_fmadd_ps(e, t, first), counts);
}
#endif

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

// ---- exact values; here because fma is an instruction, not a call

double element_gumbel(const RowKey& key, uint32_t v, uint32_t prefix) {
    return gumbel(element_time(key, v, prefix));
}

// The places whose bound reaches the bar if their noise has so many steps.
inline uint32_t places_that_reach(const float* l, const Bound& bound, int32_t steps, float bar) {
    const float gain = bound.per_step * static_cast<float>(steps);
#if FD_LEVEL == 2
    const __m512 reached = _mm512_add_ps(_mm512_load_ps(l), _mm512_set1_ps(gain));
    return _mm512_cmp_ps_mask(reached, _mm512_set1_ps(bar), _CMP_GE_OQ);
#elif FD_LEVEL == 1
    uint32_t places = 0;
    for (int i = 0; i < kPlaces; i += 8) {
        const __m256 reached = _mm256_add_ps(_mm256_load_ps(l + i), _mm256_set1_ps(gain));
        const __m256 hit = _mm256_cmp_ps(reached, _mm256_set1_ps(bar), _CMP_GE_OQ);
        places |= static_cast<uint32_t>(_mm256_movemask_ps(hit)) << i;
    }
    return places;
#else
    uint32_t places = 0;
    for (int i = 0; i < kPlaces; ++i) places |= static_cast<uint32_t>(l[i] + gain >= bar) << i;
    return places;
#endif
}

void find_places(const RowKey& key, const Bound& bound, float bar, BlockSearch& s) {
    const uint32_t near = places_that_reach(s.bounds, bound, block_steps(s.prefix), bar);
    s.places = 0;
    if (near == 0) return;
    // Two or three Philox blocks that do not wait for one another.
    s.tail = key.words(StreamTag::block_tail, s.block);
    if ((near & 0x00ffu) != 0) s.inner[0] = key.words(StreamTag::inner_prefix, s.block * 2);
    if ((near & 0xff00u) != 0) s.inner[1] = key.words(StreamTag::inner_prefix, s.block * 2 + 1);
    const uint32_t first = s.tail.w[3] & 15u;
    // E_block >= 48 bits of its fraction / 16.
    const auto fraction = static_cast<int64_t>(static_cast<uint64_t>(s.prefix) << 32 | s.tail.w[0]);
    const float time = static_cast<float>(static_cast<double>(fraction) * 0x1p-52) * (1.0f - 0x1p-22f);
    for (uint32_t left = near; left != 0; left &= left - 1) {
        const auto i = static_cast<uint32_t>(__builtin_ctz(left));
        float least = time;
        if (i != first) {
            const auto inner = static_cast<int32_t>(half_of(s.inner[i / 8], i % 8));
            least = (time + static_cast<float>(inner) * 0x1p-16f) * (1.0f - 0x1p-22f);
        }
        if (bound.of(time_steps(least), s.bounds[i]) >= bar) s.places |= 1u << i;
    }
}

void exact_places(const RowKey& key, double temperature, BlockSearch& s) {
    const BlockNoise noise = block_noise(s.prefix, s.tail);
    for (uint32_t left = s.places; left != 0; left &= left - 1) {
        const int i = __builtin_ctz(left);
        double time = noise.time;
        if (i != noise.first) {
            const uint32_t inner = half_of(s.inner[i / 8], static_cast<uint32_t>(i) % 8);
            time = inner_time(key, noise, index_in_block(s.block, i), inner);
        }
        s.z[i] = temperature == 0 ? s.l[i] : perturbed(temperature, gumbel(time), s.l[i]);
    }
}

// ---- sums of exponentials

// exp(t) = 2^n exp(r), |r| <= ln2 / 2, by a minimax polynomial: relative error < 2e-7. Lane k sums the
// elements k mod 32, and lanes are added in order, at every level.
constexpr int kLanes = 32;
constexpr float kLog2E = 1.44269502f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
constexpr float kRound = 0x1.8p23f;  // x + kRound - kRound is x rounded
constexpr float kExp[4] = {0x1.10626ep-7f, 0x1.572a1ep-5f, 0x1.5557aep-3f, 0x1.fffdfcp-2f};

struct ExpLanes {
    alignas(64) float sum[kLanes], first[kLanes], most[kLanes], second[kLanes];
};

// Whole groups of kLanes.
inline void add_exps(const float* l, int n, float most, float per_temperature, ExpLanes& lanes) {
#if FD_LEVEL > 0
    constexpr int kVectors = kLanes / kWidth;
    const Floats top = broadcast(most), scale = broadcast(per_temperature);
    Floats sum[kVectors], first[kVectors], m1[kVectors], m2[kVectors];
    for (int j = 0; j < kVectors; ++j) {
        sum[j] = load(lanes.sum + kWidth * j);
        first[j] = load(lanes.first + kWidth * j);
        m1[j] = load(lanes.most + kWidth * j);
        m2[j] = load(lanes.second + kWidth * j);
    }
    for (int i = 0; i < n; i += kLanes) {
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) {
            const Floats x = load(l + i + kWidth * j);
            m2[j] = larger(smaller(m1[j], x), m2[j]);
            m1[j] = larger(x, m1[j]);
            const Floats t = times(minus(x, top), scale);
            const Floats shifted = fused(t, broadcast(kLog2E), broadcast(kRound));
            const Floats whole = minus(shifted, broadcast(kRound));
            const Floats r = fused(whole, broadcast(-kLn2Low), fused(whole, broadcast(-kLn2High), t));
            Floats q = fused(broadcast(kExp[0]), r, broadcast(kExp[1]));
            q = fused(q, r, broadcast(kExp[2]));
            q = fused(q, r, broadcast(kExp[3]));
            q = plus(fused(q, times(r, r), r), broadcast(1.0f));
            accumulate(times_power(q, shifted), t, sum[j], first[j]);
        }
    }
    for (int j = 0; j < kVectors; ++j) {
        store(lanes.sum + kWidth * j, sum[j]);
        store(lanes.first + kWidth * j, first[j]);
        store(lanes.most + kWidth * j, m1[j]);
        store(lanes.second + kWidth * j, m2[j]);
    }
#else
    for (int i = 0; i < n; ++i) {
        const int k = i % kLanes;
        const float x = l[i], m1 = lanes.most[k];
        const float lower = m1 < x ? m1 : x;  // x where x is NaN
        lanes.second[k] = lower > lanes.second[k] ? lower : lanes.second[k];
        lanes.most[k] = x > m1 ? x : m1;
        const float t = (x - most) * per_temperature;
        if (!(t >= kLeastExponent)) continue;
        const float shifted = fma(t, kLog2E, kRound), whole = shifted - kRound;
        const float r = fma(whole, -kLn2Low, fma(whole, -kLn2High, t));
        float q = fma(kExp[0], r, kExp[1]);
        q = fma(q, r, kExp[2]);
        q = fma(q, r, kExp[3]);
        q = fma(q, r * r, r) + 1.0f;
        const float e =
            bit_cast<float>(bit_cast<int32_t>(q) + static_cast<int32_t>(bit_cast<uint32_t>(shifted) << 23));
        lanes.sum[k] += e;
        lanes.first[k] = fma(e, t, lanes.first[k]);
    }
#endif
}

void exp_sums(const float* l, int n, float most, float per_temperature, ExpSums& out) {
    ExpLanes lanes;
    for (int k = 0; k < kLanes; ++k) {
        lanes.sum[k] = lanes.first[k] = 0;
        lanes.most[k] = lanes.second[k] = kMinusInfinity<float>;
    }
    const int whole = n / kLanes * kLanes;
    add_exps(l, whole, most, per_temperature, lanes);
    if (whole < n) {
        float rest[kLanes];
        for (int k = 0; k < kLanes; ++k) rest[k] = whole + k < n ? l[whole + k] : kMinusInfinity<float>;
        add_exps(rest, kLanes, most, per_temperature, lanes);
    }
    double sum = 0, first = 0;
    out.most = out.second = kMinusInfinity<float>;
    for (int k = 0; k < kLanes; ++k) {
        sum += static_cast<double>(lanes.sum[k]);
        first += static_cast<double>(lanes.first[k]);
        const float lower = lanes.most[k] < out.most ? lanes.most[k] : out.most;
        out.second = lower > out.second ? lower : out.second;
        out.second = lanes.second[k] > out.second ? lanes.second[k] : out.second;
        out.most = lanes.most[k] > out.most ? lanes.most[k] : out.most;
    }
    out.sum = sum;
    out.first = first;
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

constexpr Leaves kLeaves = {
    prefixes,
    {column_maxima<half>, column_maxima<bfloat16>, column_maxima<float>},
    {row_maxima<half>, row_maxima<bfloat16>, row_maxima<float>},
    {widen<half>, widen<bfloat16>, widen<float>, widen<double>},
    bounds,
    next_at_least,
    largest_of,
    any_at_most,
    find_places,
    exact_places,
    element_gumbel,
    exp_sums,
    {guide<half>, guide<bfloat16>, guide<float>},
    add,
    suppress,
};
