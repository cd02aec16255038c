// Selection by rank on integer keys, kRadixBits at a time from the top: what the kernels that do it share.
//
// A pass counts (or weighs) the keys that start with the prefix found so far by their next bits; the bin that
// holds the wanted rank extends the prefix. Counts and weights are integers, so no order of adding them
// matters.
#pragma once

#include <cstdint>

#include "common/portable.h"

namespace fd {

constexpr int kRadixBits = 11, kRadixBins = 1 << kRadixBits;

// How the bits of a key fall on passes: the last one has what is left over.
template <int kKeyBits>
struct RadixPasses {
    static constexpr int kCount = (kKeyBits + kRadixBits - 1) / kRadixBits;

    FD_HOST_DEVICE static constexpr int shift(int pass) {
        const int shift = kKeyBits - kRadixBits * (pass + 1);
        return shift > 0 ? shift : 0;
    }
    FD_HOST_DEVICE static constexpr int bits(int pass) {
        return (pass == 0 ? kKeyBits : shift(pass - 1)) - shift(pass);
    }
};

// What the passes so far have fixed: the leading bits of the key of the wanted 0-based rank, and that rank
// among the keys with those bits.
struct RadixChoice {
    unsigned long long prefix, rank;
};

#if defined(__CUDACC__) || defined(FD_CUDA_EMULATION)

// The bin of `counts` that holds the wanted rank, and the rank inside it. All kThreads threads of the block
// call and get it; a rank beyond all counts gives anything.
template <int kThreads, class Count>
__device__ RadixChoice choose_bin(const Count* counts, const RadixChoice& before, int bits) {
    using Word = unsigned long long;
    constexpr int kBinsPerThread = kRadixBins / kThreads;
    __shared__ Word warp_sums[kThreads / 32];
    __shared__ RadixChoice result;
    Word own[kBinsPerThread], sum = 0;
    FD_UNROLL
    for (int i = 0; i < kBinsPerThread; ++i) {
        own[i] = counts[threadIdx.x * kBinsPerThread + i];
        sum += own[i];
    }
    const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
    Word through = sum;  // inclusive prefix sum over the warp
    FD_UNROLL
    for (int distance = 1; distance < 32; distance *= 2) {
        const Word other = __shfl_up_sync(0xffffffffu, through, distance);
        if (lane >= distance) through += other;
    }
    if (lane == 31) warp_sums[warp] = through;
    __syncthreads();
    Word start = through - sum;
    for (int i = 0; i < warp; ++i) start += warp_sums[i];
    FD_UNROLL
    for (int i = 0; i < kBinsPerThread; ++i) {
        if (before.rank >= start && before.rank < start + own[i]) {
            result.prefix = before.prefix << bits | static_cast<Word>(threadIdx.x * kBinsPerThread + i);
            result.rank = before.rank - start;
        }
        start += own[i];
    }
    __syncthreads();
    return result;
}

#endif

}  // namespace fd
