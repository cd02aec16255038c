// One SIMD level of the inner loops: included by leaves_cpu.cpp once for each, under its target options.
// FD_LEVEL 0, 1 (AVX2), 2 (AVX-512), inside a namespace named after the level.

// clang-format off
#include "categorical/leaves_vectors.h"
// the others use vectors
#include "categorical/leaves_maxima.h"
#include "categorical/leaves_noise.h"
#include "categorical/leaves_sums.h"
// clang-format on

constexpr Leaves kLeaves = {
    prefixes,
    {column_maxima<half>, column_maxima<bfloat16>, column_maxima<float>},
    {row_maxima<half>, row_maxima<bfloat16>, row_maxima<float>},
    {widen<half>, widen<bfloat16>, widen<float>, widen<double>},
    bounds,
    next_at_least,
    largest_of,
    any_at_most,
    find_places,
    exact_places,
    element_gumbel,
    exp_sums,
    {guide<half>, guide<bfloat16>, guide<float>},
    add,
    suppress,
};
