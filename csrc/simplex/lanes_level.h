// Vectors of kLanes floats and integers, for the files that are compiled once for each SIMD level. Included
// under the level's target options with FD_LEVEL 1 (AVX2) or 2 (AVX-512).

#if FD_LEVEL == 2

constexpr int kLanes = 16;
using Floats = __m512;
using Ints = __m512i;
using Mask = __mmask16;

inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
inline void store(uint32_t* p, Ints v) { _mm512_storeu_si512(p, v); }
inline void store(uint8_t* p, Ints v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}
inline Floats all(float v) { return _mm512_set1_ps(v); }
inline Ints all(uint32_t v) { return _mm512_set1_epi32(static_cast<int32_t>(v)); }
inline Floats plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats largest(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats smallest(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Ints floor_of_lanes(Floats v, Floats& whole) {
    const Ints cell = _mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    whole = _mm512_cvtepi32_ps(cell);
    return cell;
}
inline Mask greater(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline Mask greater(Ints a, Ints b) { return _mm512_cmpgt_epi32_mask(a, b); }
inline Mask both(Mask a, Mask b) { return static_cast<Mask>(a & b); }
inline Floats pick(Mask m, Floats a, Floats b) { return _mm512_mask_blend_ps(m, b, a); }  // m ? a : b
inline Ints pick(Mask m, Ints a, Ints b) { return _mm512_mask_blend_epi32(m, b, a); }
inline Ints plus(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints minus(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
inline Ints times(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
inline Ints exclusive(Ints a, Ints b) { return _mm512_xor_si512(a, b); }
inline Ints common(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
inline Ints shifted(Ints a, int bits) { return _mm512_srli_epi32(a, static_cast<unsigned>(bits)); }
inline Ints smallest(Ints a, Ints b) { return _mm512_min_epu32(a, b); }  // unsigned
inline Mask equal(Ints a, Ints b) { return _mm512_cmpeq_epi32_mask(a, b); }
inline Mask same(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline Floats plus_where(Mask m, Floats a, Floats b) { return _mm512_mask_add_ps(a, m, a, b); }
inline Ints plus_where(Mask m, Ints a, Ints b) { return _mm512_mask_add_epi32(a, m, a, b); }
inline Ints load(const uint32_t* p) { return _mm512_loadu_si512(p); }
inline Ints load(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
// table[at] in each lane, at < kLanes
inline Floats chosen(Floats table, Ints at) { return _mm512_permutexvar_ps(at, table); }
inline Ints chosen(Ints table, Ints at) { return _mm512_permutexvar_epi32(at, table); }
inline uint32_t bits_of(Mask m) { return m; }
inline Mask lanes_of(uint32_t bits) { return static_cast<Mask>(bits); }

#else

constexpr int kLanes = 8;
using Floats = __m256;
using Ints = __m256i;
using Mask = __m256i;

inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
inline void store(uint32_t* p, Ints v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
inline void store(uint8_t* p, Ints v) {
    alignas(32) uint32_t words[8];
    store(words, v);
    for (int i = 0; i < 8; ++i) p[i] = static_cast<uint8_t>(words[i]);
}
inline Floats all(float v) { return _mm256_set1_ps(v); }
inline Ints all(uint32_t v) { return _mm256_set1_epi32(static_cast<int32_t>(v)); }
inline Floats plus(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats largest(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats smallest(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Ints floor_of_lanes(Floats v, Floats& whole) {
    whole = _mm256_floor_ps(v);
    return _mm256_cvttps_epi32(whole);
}
inline Mask greater(Floats a, Floats b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
inline Mask greater(Ints a, Ints b) { return _mm256_cmpgt_epi32(a, b); }
inline Mask both(Mask a, Mask b) { return _mm256_and_si256(a, b); }
inline Floats pick(Mask m, Floats a, Floats b) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m)); }
inline Ints pick(Mask m, Ints a, Ints b) { return _mm256_blendv_epi8(b, a, m); }
inline Ints plus(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints minus(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
inline Ints times(Ints a, Ints b) { return _mm256_mullo_epi32(a, b); }
inline Ints exclusive(Ints a, Ints b) { return _mm256_xor_si256(a, b); }
inline Ints common(Ints a, Ints b) { return _mm256_and_si256(a, b); }
inline Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
inline Ints shifted(Ints a, int bits) { return _mm256_srli_epi32(a, bits); }
inline Ints smallest(Ints a, Ints b) { return _mm256_min_epu32(a, b); }
inline Mask equal(Ints a, Ints b) { return _mm256_cmpeq_epi32(a, b); }
inline Mask same(Floats a, Floats b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }
inline Floats plus_where(Mask m, Floats a, Floats b) { return pick(m, plus(a, b), a); }
inline Ints plus_where(Mask m, Ints a, Ints b) { return plus(a, common(m, b)); }
inline Ints load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline Ints load(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline Floats chosen(Floats table, Ints at) { return _mm256_permutevar8x32_ps(table, at); }
inline Ints chosen(Ints table, Ints at) { return _mm256_permutevar8x32_epi32(table, at); }
inline uint32_t bits_of(Mask m) { return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(m))); }
inline Mask lanes_of(uint32_t bits) {
    const Ints own = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
    return _mm256_cmpeq_epi32(_mm256_and_si256(all(bits), own), own);
}

#endif
