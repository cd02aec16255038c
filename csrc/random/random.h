// Uniform numbers of stream tag 11 (normals, tag 10, are in common/philox.h).
//
// A uniform of type T is k 2^-p in [0, 1) with p = the bits of T's significand, so it is exact and never
// rounds up to 1. float, half, bfloat16: k = the top p bits of one word; element e takes word e mod 4 of
// block e / 4, so the three types hold one number, truncated. double: k = the top 53 bits of two words, the
// first one high; element e takes words 2 (e mod 2), 2 (e mod 2) + 1 of block e / 2.
#pragma once

#include "common/philox.h"

namespace fd {

template <class T>
constexpr int kUniformBits = 24;
template <>
inline constexpr int kUniformBits<half> = 11;
template <>
inline constexpr int kUniformBits<bfloat16> = 8;

// Exact in T. The integer is below 2^24, so the signed conversion that every SIMD level has will do.
template <class T>
FD_HOST_DEVICE float uniform_of(uint32_t word) {
    constexpr int kBits = kUniformBits<T>;
    return static_cast<float>(static_cast<int32_t>(word >> (32 - kBits))) * (1.0f / (1 << kBits));
}

FD_HOST_DEVICE double uniform_of(uint32_t high, uint32_t low) {
    const uint64_t bits = static_cast<uint64_t>(high) << 21 | low >> 11;
    return static_cast<double>(static_cast<int64_t>(bits)) * 0x1p-53;
}

}  // namespace fd
