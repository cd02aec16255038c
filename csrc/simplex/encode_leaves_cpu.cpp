// The inner loops of the encodings, compiled once for each SIMD level.
//
// Floor of a hashed level: one random load per vertex, 16 points at a time by gather instructions (about one
// entry a cycle from L1, the cache's or the memory's latency over its parallelism beyond), against some 10
// vector instructions a vertex to find and weigh it.
#include "simplex/encode_leaves.h"
#include "simplex/encode_point.h"

// GCC 12 takes _mm512_undefined_* for mistakes
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

namespace fd::encoding {
namespace {

#define FD_AXES_OF(name) {name<1>, name<2>, name<3>, name<4>, name<5>, name<6>, name<7>, name<8>}
#define FD_LOCATE_OF(lattice, wanted)                                                       \
    {locate_##lattice<wanted, 1>, locate_##lattice<wanted, 2>, locate_##lattice<wanted, 3>, \
     locate_##lattice<wanted, 4>, locate_##lattice<wanted, 5>, locate_##lattice<wanted, 6>, \
     locate_##lattice<wanted, 7>, locate_##lattice<wanted, 8>}
#define FD_TYPES_OF(name, F) {name<half, F>, name<bfloat16, F>, name<float, F>}
#define FD_FEATURES_OF(name) \
    {FD_TYPES_OF(name, 1), FD_TYPES_OF(name, 2), FD_TYPES_OF(name, 4), FD_TYPES_OF(name, 8)}
#define FD_LEAVES                                                                         \
    const Leaves kLeaves = {                                                              \
        {{FD_LOCATE_OF(simplex, Wanted::weights), FD_LOCATE_OF(simplex, Wanted::slopes)}, \
         {FD_LOCATE_OF(grid, Wanted::weights), FD_LOCATE_OF(grid, Wanted::slopes)}},      \
        FD_AXES_OF(fill),                                                                 \
        FD_FEATURES_OF(write_rows),                                                       \
        FD_FEATURES_OF(read_rows),                                                        \
        FD_FEATURES_OF(gather),                                                           \
        FD_FEATURES_OF(dot),                                                              \
        {FD_AXES_OF(combine_simplex), FD_AXES_OF(combine_grid)},                          \
        {scatter<1>, scatter<2>, scatter<4>, scatter<8>}}

// Arrays of vectors stay in registers only where every loop over them is unrolled.
#define FD_UNROLL_LANES _Pragma("GCC unroll 9")

namespace scalar {
#define FD_LEVEL 0
#include "simplex/gather_level.h"
#include "simplex/gradient_level.h"
#include "simplex/locate_level.h"
#include "simplex/rows_level.h"
#undef FD_LEVEL
FD_LEAVES;
}  // namespace scalar

#if FD_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
namespace avx2 {
#define FD_LEVEL 1
#include "simplex/lanes_level.h"
// after the vectors
#include "simplex/gather_level.h"
#include "simplex/gradient_level.h"
#include "simplex/locate_level.h"
#include "simplex/rows_level.h"
#undef FD_LEVEL
FD_LEAVES;
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,bmi,bmi2,prefer-vector-width=512")
namespace avx512 {
#define FD_LEVEL 2
#include "simplex/lanes_level.h"
// after the vectors
#include "simplex/gather_level.h"
#include "simplex/gradient_level.h"
#include "simplex/locate_level.h"
#include "simplex/rows_level.h"
#undef FD_LEVEL
FD_LEAVES;
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

}  // namespace fd::encoding
