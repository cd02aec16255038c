// The inner loops of the CPU draws, compiled once for each SIMD level.
//
// Floors, one thread of a Sapphire Rapids at 2.6 GHz, per logit. Maxima: bytes over the bandwidth of a bare
// read (float32: 0.04 ns from L2, 0.15 from L3); two vectors a cycle from L1. Philox: 6 instructions a round
// on two ports for 8 counters, 30 cycles for 64 prefixes: 0.18 ns in stream `element`, 1/16 of that in
// `block16`. Sums of exponentials: 22 instructions for 16 logits, 0.27 ns. Measured (flat .. normal logits of
// deviation 2): block16 0.08 .. 0.13 ns from L2, 0.15 .. 0.17 from L3; element 0.24 .. 0.31, memory hidden
// behind Philox; sums 0.25 more. What exceeds the floors is refinement: some 30 blocks or 10 elements a row.
#include "categorical/leaves.h"

// GCC 12 takes _mm512_undefined_* for mistakes
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace fd::categorical {
namespace {

constexpr int kAhead = 2048;  // bytes that are asked for in advance: past the 4 KiB where prefetchers stop

namespace scalar {
#define FD_LEVEL 0
#include "categorical/leaves_level.h"
#undef FD_LEVEL
}  // namespace scalar

#if FD_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
namespace avx2 {
#define FD_LEVEL 1
#include "categorical/leaves_level.h"
#undef FD_LEVEL
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,bmi,bmi2,prefer-vector-width=512")
namespace avx512 {
#define FD_LEVEL 2
#include "categorical/leaves_level.h"
#undef FD_LEVEL
}  // namespace avx512
#pragma GCC pop_options
#endif

}  // namespace

const Leaves& leaves_of(simd::Level level) {
#if FD_X86
    if (level == simd::Level::avx512) return avx512::kLeaves;
    if (level == simd::Level::avx2) return avx2::kLeaves;
#endif
    return scalar::kLeaves;
}

}  // namespace fd::categorical
