// One draw among a city's candidates, by their potentials. Candidates come in groups of kGroup; running sums
// are formed in the same order of additions by every SIMD level, so all choose alike.
#pragma once

#include <cstdint>

#include "common/simd.h"
#include "tsp/distance.h"

#if FD_X86
#include <immintrin.h>
#endif

namespace fd::tsp {

constexpr int32_t kGroup = 8;

// A row of candidates in whole groups; unused slots have the merit -infinity.
struct CandidateRow {
    const City* city;
    const double* merit;    // W / mean W of the row
    const double* novelty;  // 1 / sqrt(Q + 1); only read when exploring
    int32_t groups;
    double exploration;  // potential = merit + exploration * novelty
};

// Candidates that may not be chosen.
struct Excluded {
    City first, second;
    const uint8_t* allowed;  // bits of the groups, or null if all are allowed
};

namespace detail {

// Running sums of one group's potentials, as far as they are admitted, on top of `before`.
template <bool kExplore>
FD_HOST_DEVICE void running_sums(const CandidateRow& row, int32_t g, const Excluded& excluded, double before,
                                 double* sums) {
    double x[kGroup];
    for (int k = 0; k < kGroup; ++k) {
        const int32_t slot = g * kGroup + k;
        double potential = row.merit[slot];
        if (kExplore) potential += row.exploration * row.novelty[slot];
        const bool admitted = (potential >= 1) & (row.city[slot] != excluded.first) &
                              (row.city[slot] != excluded.second) &
                              (excluded.allowed == nullptr || (excluded.allowed[g] >> k & 1) != 0);
        x[k] = admitted ? potential : 0;
    }
    for (int k = kGroup - 1; k >= 1; --k) x[k] += x[k - 1];
    for (int k = kGroup - 1; k >= 2; --k) x[k] += x[k - 2];
    for (int k = kGroup - 1; k >= 4; --k) x[k] += x[k - 4];
    for (int k = 0; k < kGroup; ++k) sums[k] = x[k] + before;
}

template <bool kExplore>
FD_HOST_DEVICE int32_t choose(const CandidateRow& row, const Excluded& excluded, double u, double* sums) {
    double total = 0;
    for (int32_t g = 0; g < row.groups; ++g) {
        running_sums<kExplore>(row, g, excluded, total, sums + g * kGroup);
        total = sums[g * kGroup + kGroup - 1];
    }
    if (total == 0) return -1;
    int32_t chosen = 0;
    for (int32_t k = 0; k < row.groups * kGroup; ++k) chosen += sums[k] <= u * total;
    return chosen;
}

#if FD_X86
template <int n>
FD_TARGET_AVX512 inline __m512d lanes_up(__m512d x) {
    const __m512i lanes = _mm512_alignr_epi64(_mm512_castpd_si512(x), _mm512_setzero_si512(), kGroup - n);
    return _mm512_castsi512_pd(lanes);
}

template <bool kExplore>
FD_TARGET_AVX512 inline __m512d admitted_avx512(const CandidateRow& row, int32_t g,
                                                const Excluded& excluded) {
    const __m256i city = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.city + g * kGroup));
    __m512d potential = _mm512_loadu_pd(row.merit + g * kGroup);
    if (kExplore) {
        const __m512d novelty = _mm512_loadu_pd(row.novelty + g * kGroup);
        potential = _mm512_add_pd(potential, _mm512_mul_pd(_mm512_set1_pd(row.exploration), novelty));
    }
    __mmask8 admitted = _mm256_cmpneq_epi32_mask(city, _mm256_set1_epi32(excluded.first));
    if (excluded.allowed != nullptr) admitted = _kand_mask8(admitted, _cvtu32_mask8(excluded.allowed[g]));
    admitted = _mm256_mask_cmpneq_epi32_mask(admitted, city, _mm256_set1_epi32(excluded.second));
    admitted = _mm512_mask_cmp_pd_mask(admitted, potential, _mm512_set1_pd(1), _CMP_GE_OQ);
    return _mm512_maskz_mov_pd(admitted, potential);
}

// The additions of running_sums(), without its `before`; all lanes of `total` are as the last of the sums.
FD_TARGET_AVX512 inline __m512d running_sums_avx512(__m512d x, __m512d& total) {
    total = _mm512_add_pd(x, _mm512_permute_pd(x, 0x55));
    total = _mm512_add_pd(total, _mm512_permutex_pd(total, _MM_SHUFFLE(1, 0, 3, 2)));
    total = _mm512_add_pd(total, _mm512_shuffle_f64x2(total, total, _MM_SHUFFLE(1, 0, 3, 2)));
    x = _mm512_add_pd(x, lanes_up<1>(x));
    x = _mm512_add_pd(x, lanes_up<2>(x));
    return _mm512_add_pd(x, lanes_up<4>(x));
}

template <bool kExplore>
FD_TARGET_AVX512 inline int32_t choose_avx512(const CandidateRow& row, const Excluded& excluded, double u,
                                              double* sums) {
    __m512d total;
    __m512d sum = running_sums_avx512(admitted_avx512<kExplore>(row, 0, excluded), total);
    for (int32_t g = 1; g < row.groups; ++g) {
        _mm512_storeu_pd(sums + (g - 1) * kGroup, sum);
        __m512d more;
        sum = _mm512_add_pd(running_sums_avx512(admitted_avx512<kExplore>(row, g, excluded), more), total);
        total = _mm512_add_pd(more, total);
    }
    const __m512d mark = _mm512_mul_pd(_mm512_set1_pd(u), total);
    int32_t chosen = __builtin_popcount(_cvtmask8_u32(_mm512_cmp_pd_mask(sum, mark, _CMP_LE_OQ)));
    for (int32_t g = 1; g < row.groups; ++g) {
        const __m512d earlier = _mm512_loadu_pd(sums + (g - 1) * kGroup);
        chosen += __builtin_popcount(_cvtmask8_u32(_mm512_cmp_pd_mask(earlier, mark, _CMP_LE_OQ)));
    }
    return chosen == row.groups * kGroup ? -1
                                         : chosen;  // nothing admitted: all sums are zero, as is the mark
}

struct TwoHalves {
    __m256d low, high;
};

template <bool kExplore>
FD_TARGET_AVX2 inline __m256d admitted_avx2(const CandidateRow& row, int32_t slot, const Excluded& excluded) {
    const __m128i city = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row.city + slot));
    __m256d potential = _mm256_loadu_pd(row.merit + slot);
    if (kExplore) {
        const __m256d novelty = _mm256_loadu_pd(row.novelty + slot);
        potential = _mm256_add_pd(potential, _mm256_mul_pd(_mm256_set1_pd(row.exploration), novelty));
    }
    __m128i barred = _mm_or_si128(_mm_cmpeq_epi32(city, _mm_set1_epi32(excluded.first)),
                                  _mm_cmpeq_epi32(city, _mm_set1_epi32(excluded.second)));
    if (excluded.allowed != nullptr) {
        const int bits = excluded.allowed[slot / kGroup] >> slot % kGroup;
        const __m128i own = _mm_and_si128(_mm_set1_epi32(bits), _mm_set_epi32(8, 4, 2, 1));
        barred = _mm_or_si128(barred, _mm_cmpeq_epi32(own, _mm_setzero_si128()));
    }
    const __m256d enough = _mm256_cmp_pd(potential, _mm256_set1_pd(1), _CMP_GE_OQ);
    const __m256d out = _mm256_castsi256_pd(_mm256_cvtepi32_epi64(barred));
    return _mm256_and_pd(_mm256_andnot_pd(out, enough), potential);
}

// The two lanes before those of v, and its first two.
FD_TARGET_AVX2 inline __m256d up_two(__m256d before, __m256d v) {
    return _mm256_permute2f128_pd(before, v, 0x21);
}

FD_TARGET_AVX2 inline TwoHalves running_sums_avx2(TwoHalves x) {
    const __m256d zero = _mm256_setzero_pd();
    x = {_mm256_add_pd(x.low, _mm256_shuffle_pd(up_two(zero, x.low), x.low, 5)),
         _mm256_add_pd(x.high, _mm256_shuffle_pd(up_two(x.low, x.high), x.high, 5))};
    x = {_mm256_add_pd(x.low, up_two(zero, x.low)), _mm256_add_pd(x.high, up_two(x.low, x.high))};
    return {x.low, _mm256_add_pd(x.high, x.low)};
}

FD_TARGET_AVX2 inline int count_up_to_avx2(TwoHalves x, __m256d mark) {
    const int low = _mm256_movemask_pd(_mm256_cmp_pd(x.low, mark, _CMP_LE_OQ));
    const int high = _mm256_movemask_pd(_mm256_cmp_pd(x.high, mark, _CMP_LE_OQ));
    return __builtin_popcount(low | high << 4);
}

template <bool kExplore>
FD_TARGET_AVX2 inline int32_t choose_avx2(const CandidateRow& row, const Excluded& excluded, double u,
                                          double* sums) {
    TwoHalves sum{};
    __m256d total = _mm256_setzero_pd();
    for (int32_t g = 0; g < row.groups; ++g) {
        const int32_t slot = g * kGroup;
        sum = running_sums_avx2(
            {admitted_avx2<kExplore>(row, slot, excluded), admitted_avx2<kExplore>(row, slot + 4, excluded)});
        sum = {_mm256_add_pd(sum.low, total), _mm256_add_pd(sum.high, total)};
        total = _mm256_permute4x64_pd(sum.high, 0xff);
        if (g + 1 == row.groups) break;
        _mm256_storeu_pd(sums + slot, sum.low);
        _mm256_storeu_pd(sums + slot + 4, sum.high);
    }
    const __m256d mark = _mm256_mul_pd(_mm256_set1_pd(u), total);
    int32_t chosen = count_up_to_avx2(sum, mark);
    for (int32_t slot = 0; slot + kGroup < row.groups * kGroup; slot += kGroup)
        chosen += count_up_to_avx2({_mm256_loadu_pd(sums + slot), _mm256_loadu_pd(sums + slot + 4)}, mark);
    return chosen == row.groups * kGroup ? -1 : chosen;
}
#endif

}  // namespace detail

// Index of a candidate drawn with probability ~ potential among those with potentials of at least 1, or -1 if
// there is none. `u` in (0, 1); `sums` is scratch for all groups.
template <simd::Level L, bool kExplore>
FD_HOST_DEVICE int32_t choose(const CandidateRow& row, const Excluded& excluded, double u, double* sums) {
#if FD_X86
    if constexpr (L == simd::Level::avx512) return detail::choose_avx512<kExplore>(row, excluded, u, sums);
    if constexpr (L == simd::Level::avx2) return detail::choose_avx2<kExplore>(row, excluded, u, sums);
#endif
    return detail::choose<kExplore>(row, excluded, u, sums);
}

}  // namespace fd::tsp
