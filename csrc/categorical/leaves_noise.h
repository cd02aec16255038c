// Part of leaves_level.h: Philox prefixes of a tile, and exact noise of what may win.

// ---- Philox: a 64-bit lane carries one word, with left-overs above that the multiplier ignores

inline void ask_for(uintptr_t& ahead, int bytes) {
    for (int i = 0; i < bytes; i += 64)
        __builtin_prefetch(reinterpret_cast<const void*>(ahead + static_cast<uintptr_t>(i)));
    ahead += static_cast<uintptr_t>(bytes);
}

#if FD_LEVEL == 2
// Lanes hold counters 0 4 1 5 2 6 3 7, so that unpacking puts consecutive blocks together.
void prefixes(const PhiloxStream& s, uint32_t first, int blocks, uint16_t* out, uintptr_t ahead, int bytes) {
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
        ask_for(ahead, bytes);
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
void prefixes(const PhiloxStream& s, uint32_t first, int blocks, uint16_t* out, uintptr_t ahead, int bytes) {
    constexpr int kWays = 2;
    const __m256i m0 = _mm256_set1_epi64x(kPhiloxM0), m1 = _mm256_set1_epi64x(kPhiloxM1);
    const __m256i lanes = _mm256_set_epi64x(3, 1, 2, 0);
    for (int b = 0; b < blocks; b += 4 * kWays) {
        if (b % 32 == 0) ask_for(ahead, bytes);
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
void prefixes(const PhiloxStream& s, uint32_t first, int blocks, uint16_t* out, uintptr_t ahead, int bytes) {
    for (int b = 0; b < blocks; ++b) {
        const PhiloxWords words = s.block(first + static_cast<uint32_t>(b));
        for (uint32_t j = 0; j < 8; ++j)
            out[8 * b + static_cast<int>(j)] = static_cast<uint16_t>(half_of(words, j));
    }
}
#endif

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
