// One pass of a selection by rank, for a block of threads. Included by .cu files only.
#pragma once

#include "common/launch.h"
#include "common/radix_select.h"

namespace fd {

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

}  // namespace fd
