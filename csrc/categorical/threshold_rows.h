// Passes over one row of logits on the CPU, block by block, for the threshold operators.
//
// Every pass is a body for simd::dispatch. Loops over a block are plain where the compiler vectorises them;
// only the comparison to a bit mask is written for each level.
#pragma once

#include <algorithm>

#include "categorical/threshold.h"
#include "common/simd.h"

#if FD_X86
#include <immintrin.h>
#endif

namespace fd::categorical::passes {

using simd::Level;

constexpr int kBlock = 1024;
constexpr int kLanes = 64;  // groups of the survey in a tile
constexpr int kTiles = 16;
constexpr int kMaxGroups = kLanes * kTiles;
constexpr int kLimit = 8192;  // candidates

// Logits [at, at + n) as they are processed, but that NaN may still be there: in place or in `buffer`.
template <Level L, class T, class C>
FD_HOST_DEVICE const C* load(const Row<T>& row, int64_t at, int n, C* __restrict buffer) {
    const T* from = row.logits + at;
    if (row.plain()) {
        if constexpr (std::is_same_v<T, C>) return from;
        widen_block<L>(from, buffer, n);
        return buffer;
    }
    widen_block<L>(from, buffer, n);
    if (row.uncond != nullptr) {
        alignas(64) C base[kBlock];
        widen_block<L>(row.uncond + at, base, n);
        for (int i = 0; i < n; ++i) buffer[i] = fma(row.guidance, buffer[i] - base[i], base[i]);
    }
    if (row.bias != nullptr) {
        const float* bias = row.bias + at;
        for (int i = 0; i < n; ++i) buffer[i] += static_cast<C>(bias[i]);
    }
    if (row.suppressed != nullptr) {
        const bool* suppressed = row.suppressed + at;
        for (int i = 0; i < n; ++i) buffer[i] = suppressed[i] ? kMinusInfinity<C> : buffer[i];
    }
    const int64_t first = row.vocab_start + at;
    for (int64_t i = 0; i < row.n_forbidden; ++i) {
        const int64_t place = row.forbidden[i] - first;
        if (place >= 0 && place < n) buffer[place] = kMinusInfinity<C>;
    }
    return buffer;
}

template <Level L, class T, class See>
FD_HOST_DEVICE void for_each_block(const Row<T>& row, int64_t vocab, See see) {
    using C = Compute<T>;
    alignas(64) C buffer[kBlock];
    for (int64_t at = 0; at < vocab; at += kBlock) {
        const int n = static_cast<int>(std::min<int64_t>(kBlock, vocab - at));
        see(load<L>(row, at, n, buffer), n);
    }
}

// Maxima of groups: group 64 t + j has every 64th logit of tile t, from the j-th on. Without NaN; a group
// without logits has -inf.
template <class T>
struct Survey {
    template <Level L>
    FD_HOST_DEVICE static void run(const Row<T>* row, int64_t vocab, int64_t tile, Compute<T>* groups) {
        using C = Compute<T>;
        int64_t seen = 0;
        alignas(64) C most[kLanes];
        for (int j = 0; j < kLanes; ++j) most[j] = kMinusInfinity<C>;
        for_each_block<L>(*row, vocab, [&](const C* __restrict x, int n) {
            if (n == kBlock) {
                for (int j = 0; j < kLanes; ++j) {  // the compiler vectorises this one
                    C largest = most[j];
                    _Pragma("GCC unroll 16") for (int i = 0; i < kBlock; i += kLanes) largest =
                        x[i + j] > largest ? x[i + j] : largest;
                    most[j] = largest;
                }
            } else {
                for (int i = 0; i < n; ++i) {
                    C& largest = most[i % kLanes];
                    largest = x[i] > largest ? x[i] : largest;
                }
            }
            seen += n;
            if (seen % tile != 0 && seen < vocab) return;
            for (int j = 0; j < kLanes; ++j) {
                *groups++ = most[j];
                most[j] = kMinusInfinity<C>;
            }
        });
    }
};

#if FD_X86
FD_TARGET_AVX512 inline uint32_t above_avx512(const float* x, float bound) {
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(x), _mm512_set1_ps(bound), _CMP_GT_OQ);
}
FD_TARGET_AVX512 inline uint32_t above_avx512(const double* x, double bound) {
    const __m512d b = _mm512_set1_pd(bound);
    return _mm512_cmp_pd_mask(_mm512_loadu_pd(x), b, _CMP_GT_OQ) |
           static_cast<uint32_t>(_mm512_cmp_pd_mask(_mm512_loadu_pd(x + 8), b, _CMP_GT_OQ)) << 8;
}
FD_TARGET_AVX2 inline uint32_t above_avx2(const float* x, float bound) {
    const __m256 b = _mm256_set1_ps(bound);
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x), b, _CMP_GT_OQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + 8), b, _CMP_GT_OQ));
    return static_cast<uint32_t>(low | high << 8);
}
FD_TARGET_AVX2 inline uint32_t above_avx2(const double* x, double bound) {
    const __m256d b = _mm256_set1_pd(bound);
    int mask = 0;
    for (int i = 0; i < 4; ++i) {
        mask |= _mm256_movemask_pd(_mm256_cmp_pd(_mm256_loadu_pd(x + 4 * i), b, _CMP_GT_OQ)) << 4 * i;
    }
    return static_cast<uint32_t>(mask);
}
#endif

// Bit j: x[j] > bound, of 16.
template <Level L, class C>
FD_HOST_DEVICE uint32_t above(const C* x, C bound) {
#if FD_X86
    if constexpr (L == Level::avx512) return above_avx512(x, bound);
    if constexpr (L == Level::avx2) return above_avx2(x, bound);
#endif
    uint32_t mask = 0;
    for (int j = 0; j < 16; ++j) mask |= static_cast<uint32_t>(x[j] > bound) << j;
    return mask;
}

// Logits in (low, high], in no order that matters; more than kLimit are counted only roughly.
template <class C>
struct Candidates {
    C low, high;
    int count;
    alignas(64) C logits[kLimit + kBlock];

    bool overflown() const { return count > kLimit; }
};

// What is in a range, and the mass of the whole row (`scale` null: not wanted).
template <class T>
struct Collect {
    template <Level L>
    FD_HOST_DEVICE static void run(const Row<T>* row, int64_t vocab, const MassScale* scale,
                                   Candidates<Compute<T>>* out, uint64_t* total) {
        using C = Compute<T>;
        const C low = out->low, high = out->high;
        C* end = out->logits;
        const C* limit = out->logits + kLimit;
        uint64_t sum = 0;
        for_each_block<L>(*row, vocab, [&](const C* __restrict x, int n) {
            if (scale != nullptr) {
                const MassScale mass = *scale;
                for (int i = 0; i < n; ++i) sum += mass.of(static_cast<double>(x[i]));
            }
            if (end > limit) return;
            int i = 0;
            for (; i + 16 <= n; i += 16) {
                for (uint32_t mask = above<L>(x + i, low) & ~above<L>(x + i, high); mask != 0;
                     mask &= mask - 1) {
                    *end++ = x[i + __builtin_ctz(mask)];
                }
            }
            for (; i < n; ++i) {
                if (x[i] > low && !(x[i] > high)) *end++ = x[i];
            }
        });
        out->count = static_cast<int>(end - out->logits);
        *total = sum;
    }
};

// Masses of n logits.
template <class C>
struct Weigh {
    template <Level L>
    FD_HOST_DEVICE static void run(const C* __restrict logits, int n, MassScale scale,
                                   uint64_t* __restrict masses) {
        for (int i = 0; i < n; ++i) masses[i] = scale.of(static_cast<double>(logits[i]));
    }
};

// Mass of the logits that are at least theta.
template <class T>
struct MassFrom {
    template <Level L>
    FD_HOST_DEVICE static void run(const Row<T>* row, int64_t vocab, MassScale scale, Compute<T> theta,
                                   uint64_t* total) {
        using C = Compute<T>;
        uint64_t sum = 0;
        for_each_block<L>(*row, vocab, [&](const C* __restrict x, int n) {
            for (int i = 0; i < n; ++i) {
                const uint64_t mass = scale.of(static_cast<double>(x[i]));
                sum += x[i] >= theta ? mass : 0;
            }
        });
        *total = sum;
    }
};

// Neighbours add in turn to two tables: equal bins would otherwise wait for one another.
struct Bins {
    uint64_t parts[2][kRadixBins];

    uint64_t of(int bin) const { return parts[0][bin] + parts[1][bin]; }

    // The bin that holds a rank; what is left is the rank inside it.
    int find(uint64_t& rank) const {
        int bin = 0;
        for (; rank >= of(bin); ++bin) rank -= of(bin);
        return bin;
    }
};

// Adds to `bins` all logits by how far they are below the maximum: their masses, or their number. Bins are
// finer than the leading bits of keys, and in the same order; the last one has all the rest.
constexpr double kBinsPerLog2 = kRadixBins / -MassScale::kFar;

FD_HOST_DEVICE int depth_bin(double depth) {
    const int bin = static_cast<int>(depth * -kBinsPerLog2);
    return bin < kRadixBins ? bin : kRadixBins - 1;
}

template <class T>
struct DepthHistogram {
    template <Level L>
    FD_HOST_DEVICE static void run(const Row<T>* row, int64_t vocab, MassScale scale, bool masses,
                                   Bins* bins) {
        using C = Compute<T>;
        for_each_block<L>(*row, vocab, [&](const C* __restrict x, int n) {
            alignas(64) int32_t bin[kBlock];
            alignas(64) uint64_t weights[kBlock];
            if (masses) {
                for (int i = 0; i < n; ++i) {
                    const double depth = scale.depth(static_cast<double>(x[i]));
                    bin[i] = depth_bin(depth);
                    weights[i] = scale.at_depth(depth);
                }
                for (int i = 0; i < n; ++i) bins->parts[i & 1][bin[i]] += weights[i];
            } else {
                for (int i = 0; i < n; ++i) bin[i] = depth_bin(scale.depth(static_cast<double>(x[i])));
                for (int i = 0; i < n; ++i) ++bins->parts[i & 1][bin[i]];
            }
        });
    }
};

// Smallest and largest logit of one bin of a DepthHistogram; inf and -inf if it is empty.
template <class T>
struct Extent {
    template <Level L>
    FD_HOST_DEVICE static void run(const Row<T>* row, int64_t vocab, MassScale scale, int bin,
                                   Compute<T>* least, Compute<T>* most) {
        using C = Compute<T>;
        C low = -kMinusInfinity<C>, high = kMinusInfinity<C>;
        for_each_block<L>(*row, vocab, [&](const C* __restrict x, int n) {
            for (int i = 0; i < n; ++i) {
                const bool inside = depth_bin(scale.depth(static_cast<double>(x[i]))) == bin;
                low = inside && x[i] < low ? x[i] : low;
                high = inside && x[i] > high ? x[i] : high;
            }
        });
        *least = low;
        *most = high;
    }
};

// Adds to `bins`, by their next bits, the logits whose key starts with `prefix`: their masses, or (`scale`
// null) their number.
template <class T>
struct Histogram {
    template <Level L>
    FD_HOST_DEVICE static void run(const Row<T>* row, int64_t vocab, int pass, uint64_t prefix,
                                   const MassScale* scale, Bins* bins) {
        using C = Compute<T>;
        using K = LogitKey<C>;
        const int shift = LogitPasses<C>::shift(pass);
        const int bits = LogitPasses<C>::bits(pass);
        const K mask = (K{1} << bits) - 1, start = static_cast<K>(prefix);
        for_each_block<L>(*row, vocab, [&](const C* __restrict x, int n) {
            alignas(64) C numbers[kBlock];
            alignas(64) K keys[kBlock];
            for (int i = 0; i < n; ++i) {
                numbers[i] = x[i] == x[i] ? x[i] : kMinusInfinity<C>;
                keys[i] = descending_key(numbers[i]);
            }
            int inside = n;
            if (pass > 0) inside = keep(start, shift + bits, n, numbers, keys);
            alignas(64) uint64_t weights[kBlock];
            if (scale != nullptr) {
                const MassScale mass = *scale;
                for (int i = 0; i < inside; ++i) weights[i] = mass.of(static_cast<double>(numbers[i]));
                for (int i = 0; i < inside; ++i) bins->parts[i & 1][keys[i] >> shift & mask] += weights[i];
            } else {
                for (int i = 0; i < inside; ++i) ++bins->parts[i & 1][keys[i] >> shift & mask];
            }
        });
    }

    // Moves what has the prefix to the front.
    template <class C, class K>
    FD_HOST_DEVICE static int keep(K prefix, int shift, int n, C* numbers, K* keys) {
        constexpr int kSpan = 32;
        int count = 0;
        for (int first = 0; first < n; first += kSpan) {
            const int end = std::min(n, first + kSpan);
            K hits = 0;
            for (int i = first; i < end; ++i) hits |= static_cast<K>(keys[i] >> shift == prefix);
            if (hits == 0) continue;
            for (int i = first; i < end; ++i) {
                const bool hit = keys[i] >> shift == prefix;
                keys[count] = keys[i];
                numbers[count] = numbers[i];
                count += hit;
            }
        }
        return count;
    }
};

}  // namespace fd::categorical::passes
