// Philox on the CPU, many blocks at a time: the integer rounds are written with intrinsics (compilers
// vectorise 32x32->64 products badly: seven times slower), the float part is the shared code of philox.h,
// vectorised by the compiler.
#pragma once

#include "common/philox.h"
#include "common/simd.h"

#if FD_X86
#include <immintrin.h>
#endif

namespace fd {

constexpr int kPhiloxChunk = 64;  // blocks per call: 1 KiB of words, 1 KiB of normals

struct PhiloxChunk {
    alignas(64) uint32_t w[4][kPhiloxChunk];
};

namespace detail {

FD_HOST_DEVICE void words_scalar(const PhiloxStream& s, const uint64_t* blocks, PhiloxChunk& out) {
    for (int i = 0; i < kPhiloxChunk; ++i) {
        const PhiloxWords p = s.block(blocks[i]);
        for (int j = 0; j < 4; ++j) out.w[j][i] = p.w[j];
    }
}

#if FD_X86
// A 64-bit lane carries one 32-bit word; its upper half holds left-overs that the multiplier ignores.
FD_TARGET_AVX512 inline void words_avx512(const PhiloxStream& s, const uint64_t* blocks, PhiloxChunk& out) {
    const __m512i m0 = _mm512_set1_epi64(kPhiloxM0), m1 = _mm512_set1_epi64(kPhiloxM1);
    const __m512i tag = _mm512_set1_epi64(s.tag_bits), row_high = _mm512_set1_epi64(s.row_high);
    const __m512i index_mask = _mm512_set1_epi64((1 << kPhiloxIndexBits) - 1);
    constexpr int kWays = 4;  // independent chains hide the multiplier's latency
    for (int i = 0; i < kPhiloxChunk; i += 8 * kWays) {
        __m512i c0[kWays], c1[kWays], c2[kWays], c3[kWays];
        for (int j = 0; j < kWays; ++j) {
            const __m512i b = _mm512_loadu_si512(blocks + i + 8 * j);
            c0[j] = _mm512_or_si512(tag, _mm512_and_si512(b, index_mask));
            c1[j] = _mm512_set1_epi64(s.row_low);
            c2[j] = _mm512_add_epi64(row_high, _mm512_srli_epi64(b, kPhiloxIndexBits));
            c3[j] = _mm512_set1_epi64(s.offset);
        }
        uint32_t k0 = s.key0, k1 = s.key1;
        for (int round = 0; round < 10; ++round, k0 += kPhiloxW0, k1 += kPhiloxW1) {
            const __m512i key0 = _mm512_set1_epi64(k0), key1 = _mm512_set1_epi64(k1);
            for (int j = 0; j < kWays; ++j) {
                const __m512i p0 = _mm512_mul_epu32(c0[j], m0), p1 = _mm512_mul_epu32(c2[j], m1);
                c0[j] =
                    _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c1[j], key0, 0x96);  // three-way xor
                c1[j] = p1;
                c2[j] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c3[j], key1, 0x96);
                c3[j] = p0;
            }
        }
        for (int j = 0; j < kWays; ++j) {
            _mm256_store_si256(reinterpret_cast<__m256i*>(&out.w[0][i + 8 * j]),
                               _mm512_cvtepi64_epi32(c0[j]));
            _mm256_store_si256(reinterpret_cast<__m256i*>(&out.w[1][i + 8 * j]),
                               _mm512_cvtepi64_epi32(c1[j]));
            _mm256_store_si256(reinterpret_cast<__m256i*>(&out.w[2][i + 8 * j]),
                               _mm512_cvtepi64_epi32(c2[j]));
            _mm256_store_si256(reinterpret_cast<__m256i*>(&out.w[3][i + 8 * j]),
                               _mm512_cvtepi64_epi32(c3[j]));
        }
    }
}

FD_TARGET_AVX2 inline void words_avx2(const PhiloxStream& s, const uint64_t* blocks, PhiloxChunk& out) {
    const __m256i m0 = _mm256_set1_epi64x(kPhiloxM0), m1 = _mm256_set1_epi64x(kPhiloxM1);
    const __m256i tag = _mm256_set1_epi64x(s.tag_bits), row_high = _mm256_set1_epi64x(s.row_high);
    const __m256i index_mask = _mm256_set1_epi64x((1 << kPhiloxIndexBits) - 1);
    const __m256i low_words = _mm256_set_epi32(7, 5, 3, 1, 6, 4, 2, 0);
    constexpr int kWays = 2;
    for (int i = 0; i < kPhiloxChunk; i += 4 * kWays) {
        __m256i c0[kWays], c1[kWays], c2[kWays], c3[kWays];
        for (int j = 0; j < kWays; ++j) {
            const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(blocks + i + 4 * j));
            c0[j] = _mm256_or_si256(tag, _mm256_and_si256(b, index_mask));
            c1[j] = _mm256_set1_epi64x(s.row_low);
            c2[j] = _mm256_add_epi64(row_high, _mm256_srli_epi64(b, kPhiloxIndexBits));
            c3[j] = _mm256_set1_epi64x(s.offset);
        }
        uint32_t k0 = s.key0, k1 = s.key1;
        for (int round = 0; round < 10; ++round, k0 += kPhiloxW0, k1 += kPhiloxW1) {
            const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
            for (int j = 0; j < kWays; ++j) {
                const __m256i p0 = _mm256_mul_epu32(c0[j], m0), p1 = _mm256_mul_epu32(c2[j], m1);
                c0[j] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c1[j]), key0);
                c1[j] = p1;
                c2[j] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c3[j]), key1);
                c3[j] = p0;
            }
        }
        for (int j = 0; j < kWays; ++j) {
            const __m256i c[4] = {c0[j], c1[j], c2[j], c3[j]};
            for (int k = 0; k < 4; ++k) {
                const __m256i packed = _mm256_permutevar8x32_epi32(c[k], low_words);
                _mm_store_si128(reinterpret_cast<__m128i*>(&out.w[k][i + 4 * j]),
                                _mm256_castsi256_si128(packed));
            }
        }
    }
}
#endif

}  // namespace detail

// Words of any kPhiloxChunk blocks of one stream.
template <simd::Level L>
FD_HOST_DEVICE void philox_chunk(const PhiloxStream& s, const uint64_t* blocks, PhiloxChunk& out) {
#if FD_X86
    if constexpr (L == simd::Level::avx512) return detail::words_avx512(s, blocks, out);
    if constexpr (L == simd::Level::avx2) return detail::words_avx2(s, blocks, out);
#endif
    detail::words_scalar(s, blocks, out);
}

// Normals of kPhiloxChunk blocks: out[4 i + j] is element j of block i.
template <simd::Level L>
FD_HOST_DEVICE void normals_of_blocks(const PhiloxStream& s, const uint64_t* blocks, float* __restrict out) {
    PhiloxChunk words;
    philox_chunk<L>(s, blocks, words);
    for (int i = 0; i < kPhiloxChunk; ++i) {
        const NormalPair a = box_muller(words.w[0][i], words.w[1][i]);
        const NormalPair b = box_muller(words.w[2][i], words.w[3][i]);
        out[4 * i] = a.z0;
        out[4 * i + 1] = a.z1;
        out[4 * i + 2] = b.z0;
        out[4 * i + 3] = b.z1;
    }
}

// Normals of the logical elements e0 .. e0 + n - 1 of one sample.
template <simd::Level L>
FD_HOST_DEVICE void normals_range(const PhiloxStream& s, int64_t e0, int64_t n, float* __restrict out) {
    constexpr int64_t kElements = 4 * kPhiloxChunk;
    uint64_t blocks[kPhiloxChunk];
    for (int64_t done = 0; done < n;) {
        const int64_t inside = (e0 + done) % 4;
        const uint64_t first = static_cast<uint64_t>(e0 + done) / 4;
        for (int i = 0; i < kPhiloxChunk; ++i) blocks[i] = first + i;
        if (inside == 0 && n - done >= kElements) {
            normals_of_blocks<L>(s, blocks, out + done);
            done += kElements;
        } else {
            alignas(64) float z[kElements];
            normals_of_blocks<L>(s, blocks, z);
            const int64_t take = kElements - inside < n - done ? kElements - inside : n - done;
            for (int64_t i = 0; i < take; ++i) out[done + i] = z[inside + i];
            done += take;
        }
    }
}

}  // namespace fd
