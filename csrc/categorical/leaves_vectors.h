// Part of leaves_level.h: vectors of kWidth floats, where the level has them.

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
inline Floats plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
// q 2^n, n in the low bits of `shifted`.
inline Floats times_power(Floats q, Floats shifted) {
    const __m512i power = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(q), power));
}
inline void accumulate(Floats x, Floats top, Floats t, Floats e, Floats& ties, Floats& sum, Floats& first,
                       Floats& second) {
    const __mmask16 ties_here = _mm512_cmp_ps_mask(x, top, _CMP_EQ_OQ);
    const __mmask16 below = _mm512_cmp_ps_mask(x, top, _CMP_LT_OQ);
    const __mmask16 counts = _mm512_mask_cmp_ps_mask(below, t, _mm512_set1_ps(kLeastExponent), _CMP_GE_OQ);
    ties = _mm512_mask_add_ps(ties, ties_here, ties, _mm512_set1_ps(1.0f));
    second = _mm512_mask_max_ps(second, below, x, second);
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
inline Floats plus(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats times_power(Floats q, Floats shifted) {
    const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(q), power));
}
inline void accumulate(Floats x, Floats top, Floats t, Floats e, Floats& ties, Floats& sum, Floats& first,
                       Floats& second) {
    const __m256 below = _mm256_cmp_ps(x, top, _CMP_LT_OQ);
    const __m256 large = _mm256_cmp_ps(t, _mm256_set1_ps(kLeastExponent), _CMP_GE_OQ);
    const __m256 counts = _mm256_and_ps(below, large);
    ties = _mm256_add_ps(ties, _mm256_and_ps(_mm256_cmp_ps(x, top, _CMP_EQ_OQ), _mm256_set1_ps(1.0f)));
    second = _mm256_blendv_ps(second, _mm256_max_ps(x, second), below);
    sum = _mm256_blendv_ps(sum, _mm256_add_ps(sum, e), counts);
    first = _mm256_blendv_ps(first, _mm256_fmadd_ps(e, t, first), counts);
}
#endif
