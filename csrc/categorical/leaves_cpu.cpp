// The inner loops of the CPU draws, compiled once for each SIMD level.
//
// Floors (Sapphire Rapids, 3 GHz, one thread). Maxima: bytes of the logits over the bandwidth of a bare read,
// 0.06-0.3 ns a logit; two vectors a cycle from L1. Philox: 6 instructions a round on two ports for 8
// counters, 30 cycles for 64 prefixes: 0.16 ns a logit in stream `element`, 1/16 of that in `block16`.
// Exponential sums: 20 instructions for 16 logits, 0.2 ns.
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
