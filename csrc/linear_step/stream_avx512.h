// A weighted sum written straight past the caches: the last pass over a large tile, AVX-512 only.
//
// Against "evaluate into L1, then copy out" it saves a pass, and its loads and stores interleave line by
// line, which the line-fill buffers need (see Ahead in common/dtype.h).
#pragma once

#include "common/dtype.h"

#if FD_X86

namespace fd::linear_step {

FD_TARGET_AVX512 inline void stream_line(float* out, const __m512* v) { _mm512_stream_ps(out, v[0]); }

FD_TARGET_AVX512 inline void stream_line(half* out, const __m512* v) {
    const __m256i low = _mm512_cvtps_ph(v[0], _MM_FROUND_TO_NEAREST_INT),
                  high = _mm512_cvtps_ph(v[1], _MM_FROUND_TO_NEAREST_INT);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out),
                        _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
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

FD_TARGET_AVX512 inline void stream_line(bfloat16* out, const __m512* v) {
    const __m512i low = _mm512_castsi256_si512(narrow_bf16(v[0]));
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out), _mm512_inserti64x4(low, narrow_bf16(v[1]), 1));
}

// out[i] = sum_k w[k] p[k][i]; `out` 64-byte aligned, n a multiple of a cache line of T.
template <class T, int Terms>
FD_TARGET_AVX512 void combine_stream_avx512(T* out, const float* weights, const float* const* terms, int n,
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
        stream_line(out + i, sum);
        if (line % every == 0) ahead->step();
    }
}

template <class T>
void combine_stream_avx512(T* out, const float* weights, const float* const* terms, int count, int n,
                           Ahead* ahead, int every) {
    switch (count) {
        case 1:
            return combine_stream_avx512<T, 1>(out, weights, terms, n, ahead, every);
        case 2:
            return combine_stream_avx512<T, 2>(out, weights, terms, n, ahead, every);
        case 3:
            return combine_stream_avx512<T, 3>(out, weights, terms, n, ahead, every);
        default:
            return combine_stream_avx512<T, 4>(out, weights, terms, n, ahead, every);
    }
}

}  // namespace fd::linear_step

#endif
