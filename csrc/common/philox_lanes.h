// Philox with a counter and a key for each lane: for many samples of a few elements each, where a chunk of
// one sample's stream (common/philox_cpu.h) would mostly be thrown away.
#pragma once

#include "common/philox_cpu.h"

namespace fd {

struct PhiloxLanes {
    alignas(64) uint32_t counter[4][kPhiloxChunk];
    alignas(64) uint32_t key[2][kPhiloxChunk];

    FD_HOST_DEVICE void set(int lane, const PhiloxStream& s, uint64_t block) {
        counter[0][lane] = s.tag_bits | (static_cast<uint32_t>(block) & ((1u << kPhiloxIndexBits) - 1));
        counter[1][lane] = s.row_low;
        counter[2][lane] = s.row_high + static_cast<uint32_t>(block >> kPhiloxIndexBits);
        counter[3][lane] = s.offset;
        key[0][lane] = s.key0;
        key[1][lane] = s.key1;
    }

    // The same stream but for the sample; both numbers small enough to leave the high words alone.
    FD_HOST_DEVICE void set_place(int lane, StreamTag tag, uint32_t sample, uint32_t block) {
        counter[0][lane] = static_cast<uint32_t>(tag) << kPhiloxIndexBits | block;
        counter[1][lane] = sample;
    }
};

namespace detail {

FD_HOST_DEVICE void lanes_scalar(const PhiloxLanes& in, PhiloxChunk& out) {
    for (int i = 0; i < kPhiloxChunk; ++i) {
        const PhiloxWords p = philox4x32(in.counter[0][i], in.counter[1][i], in.counter[2][i],
                                         in.counter[3][i], in.key[0][i], in.key[1][i]);
        for (int j = 0; j < 4; ++j) out.w[j][i] = p.w[j];
    }
}

#if FD_X86
// As in philox_cpu.h, a 64-bit lane carries one word and left-overs above it, here in the key as well.
FD_TARGET_AVX512 inline __m512i load_avx512(const uint32_t* p) {
    return _mm512_cvtepu32_epi64(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}

FD_TARGET_AVX512 inline void lanes_avx512(const PhiloxLanes& in, PhiloxChunk& out) {
    const __m512i m0 = _mm512_set1_epi64(kPhiloxM0), m1 = _mm512_set1_epi64(kPhiloxM1);
    const __m512i w0 = _mm512_set1_epi64(kPhiloxW0), w1 = _mm512_set1_epi64(kPhiloxW1);
    constexpr int kWays = 4;
    for (int i = 0; i < kPhiloxChunk; i += 8 * kWays) {
        __m512i c[4][kWays], k0[kWays], k1[kWays];
        for (int j = 0; j < kWays; ++j) {
            for (int r = 0; r < 4; ++r) c[r][j] = load_avx512(&in.counter[r][i + 8 * j]);
            k0[j] = load_avx512(&in.key[0][i + 8 * j]);
            k1[j] = load_avx512(&in.key[1][i + 8 * j]);
        }
        for (int round = 0; round < 10; ++round) {
            for (int j = 0; j < kWays; ++j) {
                const __m512i p0 = _mm512_mul_epu32(c[0][j], m0), p1 = _mm512_mul_epu32(c[2][j], m1);
                c[0][j] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c[1][j], k0[j], 0x96);
                c[1][j] = p1;
                c[2][j] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c[3][j], k1[j], 0x96);
                c[3][j] = p0;
                k0[j] = _mm512_add_epi64(k0[j], w0);
                k1[j] = _mm512_add_epi64(k1[j], w1);
            }
        }
        for (int j = 0; j < kWays; ++j) {
            for (int r = 0; r < 4; ++r) {
                _mm256_store_si256(reinterpret_cast<__m256i*>(&out.w[r][i + 8 * j]),
                                   _mm512_cvtepi64_epi32(c[r][j]));
            }
        }
    }
}

FD_TARGET_AVX2 inline __m256i load_avx2(const uint32_t* p) {
    return _mm256_cvtepu32_epi64(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}

FD_TARGET_AVX2 inline void lanes_avx2(const PhiloxLanes& in, PhiloxChunk& out) {
    const __m256i m0 = _mm256_set1_epi64x(kPhiloxM0), m1 = _mm256_set1_epi64x(kPhiloxM1);
    const __m256i w0 = _mm256_set1_epi64x(kPhiloxW0), w1 = _mm256_set1_epi64x(kPhiloxW1);
    const __m256i low_words = _mm256_set_epi32(7, 5, 3, 1, 6, 4, 2, 0);
    constexpr int kWays = 2;
    for (int i = 0; i < kPhiloxChunk; i += 4 * kWays) {
        __m256i c[4][kWays], k0[kWays], k1[kWays];
        for (int j = 0; j < kWays; ++j) {
            for (int r = 0; r < 4; ++r) c[r][j] = load_avx2(&in.counter[r][i + 4 * j]);
            k0[j] = load_avx2(&in.key[0][i + 4 * j]);
            k1[j] = load_avx2(&in.key[1][i + 4 * j]);
        }
        for (int round = 0; round < 10; ++round) {
            for (int j = 0; j < kWays; ++j) {
                const __m256i p0 = _mm256_mul_epu32(c[0][j], m0), p1 = _mm256_mul_epu32(c[2][j], m1);
                c[0][j] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c[1][j]), k0[j]);
                c[1][j] = p1;
                c[2][j] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c[3][j]), k1[j]);
                c[3][j] = p0;
                k0[j] = _mm256_add_epi64(k0[j], w0);
                k1[j] = _mm256_add_epi64(k1[j], w1);
            }
        }
        for (int j = 0; j < kWays; ++j) {
            for (int r = 0; r < 4; ++r) {
                const __m256i packed = _mm256_permutevar8x32_epi32(c[r][j], low_words);
                _mm_store_si128(reinterpret_cast<__m128i*>(&out.w[r][i + 4 * j]),
                                _mm256_castsi256_si128(packed));
            }
        }
    }
}
#endif

}  // namespace detail

template <simd::Level L>
FD_HOST_DEVICE void philox_lanes(const PhiloxLanes& in, PhiloxChunk& out) {
#if FD_X86
    if constexpr (L == simd::Level::avx512) return detail::lanes_avx512(in, out);
    if constexpr (L == simd::Level::avx2) return detail::lanes_avx2(in, out);
#endif
    detail::lanes_scalar(in, out);
}

}  // namespace fd
