// What both compilers agree on: function attributes, exact fma, 16-bit types, vector access.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define FD_HOST_DEVICE __host__ __device__ __forceinline__
#define FD_UNROLL _Pragma("unroll")
#define FD_NO_UNROLL _Pragma("unroll 1")
#else
#define FD_HOST_DEVICE inline __attribute__((always_inline))
#define FD_UNROLL
#define FD_NO_UNROLL
#endif

namespace fd {

using half = torch::headeronly::Half;
using bfloat16 = torch::headeronly::BFloat16;

// Every multiply-add is written out: with contraction off, all SIMD levels and the GPU round alike.
FD_HOST_DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FD_HOST_DEVICE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

template <class To, class From>
FD_HOST_DEVICE To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// A register-sized group: one aligned load or store of N elements.
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
    T v[N];
};

}  // namespace fd
