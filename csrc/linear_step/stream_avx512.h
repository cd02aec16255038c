// A weighted sum written in its storage type in one pass, AVX-512 only: past the caches for large tensors,
// and through them for the 16-bit types.
//
// Against "evaluate into L1, then convert or copy out" it saves a pass. Past the caches its loads and stores
// interleave line by line, which the line-fill buffers need (see Ahead in common/dtype.h).
#pragma once

#include "common/dtype.h"

#if FD_X86

namespace fd::linear_step {

template <bool PastCaches>
FD_TARGET_AVX512 inline void store_line(void* out, __m512i line) {
    if constexpr (PastCaches) {
        _mm512_stream_si512(static_cast<__m512i*>(out), line);
    } else {
        _mm512_storeu_si512(out, line);
    }
}

FD_TARGET_AVX512 inline __m512i pack_line(const float*, const __m512* v) { return _mm512_castps_si512(v[0]); }

FD_TARGET_AVX512 inline __m512i pack_line(const half*, const __m512* v) {
    const __m256i low = _mm512_cvtps_ph(v[0], _MM_FROUND_TO_NEAREST_INT);
    const __m256i high = _mm512_cvtps_ph(v[1], _MM_FROUND_TO_NEAREST_INT);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

// As detail::narrow: to nearest even on the bits, a NaN stays one.
FD_TARGET_AVX512 inline __m256i narrow_bf16(__m512 v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0)));
}

FD_TARGET_AVX512 inline __m512i pack_line(const bfloat16*, const __m512* v) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(narrow_bf16(v[0])), narrow_bf16(v[1]), 1);
}

// out[i] = sum_k w[k] p[k][i]; n a multiple of a cache line of T, and past the caches `out` at the start of
// one.
template <bool PastCaches, int Terms, class T>
FD_TARGET_AVX512 void combine_store_avx512(T* out, const float* weights, const float* const* terms, int n,
                                           Ahead* ahead, int every) {
    constexpr int kVectors = 4 / static_cast<int>(sizeof(T));
    __m512 w[Terms];
    for (int k = 0; k < Terms; ++k) w[k] = _mm512_set1_ps(weights[k]);
    int line = 0;
    for (int i = 0; i < n; i += 16 * kVectors, ++line) {
        __m512 sum[kVectors];
        for (int j = 0; j < kVectors; ++j) {
            sum[j] = _mm512_mul_ps(w[0], _mm512_loadu_ps(terms[0] + i + 16 * j));
            for (int k = 1; k < Terms; ++k)
                sum[j] = _mm512_fmadd_ps(w[k], _mm512_loadu_ps(terms[k] + i + 16 * j), sum[j]);
        }
        store_line<PastCaches>(out + i, pack_line(out, sum));
        if (PastCaches && line % every == 0) ahead->step();
    }
}

template <bool PastCaches, class T>
void combine_store_avx512(T* out, const float* weights, const float* const* terms, int count, int n,
                          Ahead* ahead, int every) {
    switch (count) {
        case 1:
            return combine_store_avx512<PastCaches, 1>(out, weights, terms, n, ahead, every);
        case 2:
            return combine_store_avx512<PastCaches, 2>(out, weights, terms, n, ahead, every);
        case 3:
            return combine_store_avx512<PastCaches, 3>(out, weights, terms, n, ahead, every);
        default:
            return combine_store_avx512<PastCaches, 4>(out, weights, terms, n, ahead, every);
    }
}

}  // namespace fd::linear_step

#endif
