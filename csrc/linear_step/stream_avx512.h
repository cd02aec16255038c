// Weighted sums on AVX-512: terms are widened as they are read, the result is written in its storage type,
// all in one pass; past the caches for large tensors.
//
// Against "widen into L1, evaluate into L1, then convert or copy out" it saves two passes. Past the caches
// its loads and stores interleave line by line, which the line-fill buffers need (see Ahead in
// common/dtype.h).
#pragma once

#include "common/dtype.h"

namespace fd::linear_step {

// A run of elements where it lies.
struct Term {
    const void* data;
    DType type;
};

#if FD_X86

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

// Mixed: some term is narrower than float32.
template <bool Mixed>
FD_TARGET_AVX512 inline __m512 load_term(const Term& term, int i) {
    if (!Mixed || term.type == DType::f32) return _mm512_loadu_ps(static_cast<const float*>(term.data) + i);
    const void* from = static_cast<const uint16_t*>(term.data) + i;
    const __m256i packed = _mm256_loadu_si256(static_cast<const __m256i*>(from));
    if (term.type == DType::f16) return _mm512_cvtph_ps(packed);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(packed), 16));
}

// out[i] = (Continue ? out[i] : 0) + sum_k w[k] terms[k][i]; n a multiple of a cache line of T, and past the
// caches `out` at the start of one.
template <bool PastCaches, bool Continue, bool Mixed, int Terms, class T>
FD_TARGET_AVX512 void combine_avx512(T* out, const float* weights, const Term* terms, int n, Ahead* ahead,
                                     int every) {
    static_assert(!Continue || dtype_of<T> == DType::f32, "a sum goes on in its own precision");
    constexpr int kVectors = 4 / static_cast<int>(sizeof(T));
    __m512 w[Terms];
    Term term[Terms];
    for (int k = 0; k < Terms; ++k) {
        w[k] = _mm512_set1_ps(weights[k]);
        term[k] = terms[k];
    }
    int line = 0;
    for (int i = 0; i < n; i += 16 * kVectors, ++line) {
        __m512 sum[kVectors];
        for (int j = 0; j < kVectors; ++j) {
            const __m512 first = load_term<Mixed>(term[0], i + 16 * j);
            if constexpr (Continue) {
                sum[j] = _mm512_fmadd_ps(w[0], first, _mm512_loadu_ps(out + i + 16 * j));
            } else {
                sum[j] = _mm512_mul_ps(w[0], first);
            }
        }
        for (int k = 1; k < Terms; ++k) {
            for (int j = 0; j < kVectors; ++j)
                sum[j] = _mm512_fmadd_ps(w[k], load_term<Mixed>(term[k], i + 16 * j), sum[j]);
        }
        store_line<PastCaches>(out + i, pack_line(out, sum));
        if (PastCaches && line % every == 0) ahead->step();
    }
}

template <bool PastCaches, bool Continue, bool Mixed, class T>
void combine_avx512(T* out, const float* weights, const Term* terms, int count, int n, Ahead* ahead,
                    int every) {
    switch (count) {
        case 1:
            return combine_avx512<PastCaches, Continue, Mixed, 1>(out, weights, terms, n, ahead, every);
        case 2:
            return combine_avx512<PastCaches, Continue, Mixed, 2>(out, weights, terms, n, ahead, every);
        case 3:
            return combine_avx512<PastCaches, Continue, Mixed, 3>(out, weights, terms, n, ahead, every);
        default:
            return combine_avx512<PastCaches, Continue, Mixed, 4>(out, weights, terms, n, ahead, every);
    }
}

// The first four of `count` terms at most.
template <bool PastCaches, bool Continue = false, class T>
void combine_avx512(T* out, const float* weights, const Term* terms, int count, int n, Ahead* ahead = nullptr,
                    int every = 1) {
    bool mixed = false;
    for (int k = 0; k < count; ++k) mixed = mixed || terms[k].type != DType::f32;
    if (mixed) return combine_avx512<PastCaches, Continue, true>(out, weights, terms, count, n, ahead, every);
    combine_avx512<PastCaches, Continue, false>(out, weights, terms, count, n, ahead, every);
}

#endif

}  // namespace fd::linear_step
