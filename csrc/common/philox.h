// One counter-based random stream for every device: Philox4x32-10 (Salmon et al., SC 2011) and the normals
// made from it.
//
//   key = (seed low, seed high)      counter = (tag << 28 | index, row low, row high, offset)
//
// Standard normals (tag 10): block b of a sample holds its logical row-major elements 4b .. 4b+3;
// index = b mod 2^28, row = sample | (b >> 28) << 32. Words (0, 1) and (2, 3) make two pairs by Box-Muller in
// float32. Logarithm, sine and cosine are the fixed fma polynomials below (minimax fits, relative error <
// 3e-8), square root and fma are IEEE, so scalar code, AVX2, AVX-512 and CUDA (compiled with -fmad=false)
// agree bit for bit.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/portable.h"

namespace fd {

// Who draws: numbers of different tags never meet. 0-5 are described in categorical/categorical.h, 6-8 with
// the hitting operators.
enum class StreamTag : uint32_t {
    element_prefix = 0,
    element_tail = 1,
    block_prefix = 2,
    block_tail = 3,
    inner_prefix = 4,
    inner_tail = 5,
    hitting = 6,
    remask = 7,
    row_order = 8,
    inverse_cdf = 9,
    normal = 10,
    uniform = 11,
    tour = 14,
};

constexpr int kPhiloxIndexBits = 28;
constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

struct PhiloxWords {
    uint32_t w[4];
};

FD_HOST_DEVICE PhiloxWords philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0,
                                      uint32_t k1) {
    FD_UNROLL
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = static_cast<uint64_t>(kPhiloxM0) * c0;
        const uint64_t p1 = static_cast<uint64_t>(kPhiloxM1) * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p0);
        k0 += kPhiloxW0;
        k1 += kPhiloxW1;
    }
    return {{c0, c1, c2, c3}};
}

// What does not change inside one sample's stream.
struct PhiloxStream {
    uint32_t tag_bits, row_low, row_high, offset, key0, key1;

    FD_HOST_DEVICE PhiloxStream(StreamTag tag, uint64_t seed, uint32_t draw, uint64_t row)
        : tag_bits(static_cast<uint32_t>(tag) << kPhiloxIndexBits),
          row_low(static_cast<uint32_t>(row)),
          row_high(static_cast<uint32_t>(row >> 32)),
          offset(draw),
          key0(static_cast<uint32_t>(seed)),
          key1(static_cast<uint32_t>(seed >> 32)) {}

    // Blocks beyond 2^28 continue in the high half of the row, which is why samples are numbered below 2^32.
    FD_HOST_DEVICE PhiloxWords block(uint64_t b) const {
        const uint32_t index = static_cast<uint32_t>(b) & ((1u << kPhiloxIndexBits) - 1);
        const uint32_t high = row_high + static_cast<uint32_t>(b >> kPhiloxIndexBits);
        return philox4x32(tag_bits | index, row_low, high, offset, key0, key1);
    }
};

// Word -> (0, 1]: the centre of its 2^-32 cell, so that the logarithm below is always finite.
FD_HOST_DEVICE float unit_interval(uint32_t w) { return fma(static_cast<float>(w), 0x1p-32f, 0x1p-33f); }

// ln(u) for u in [2^-33, 1]: u = 2^e m with m in [sqrt(1/2), sqrt(2)), ln m = f + f^2 q(f), f = m - 1.
FD_HOST_DEVICE float log_unit(float u) {
    const int32_t bits = bit_cast<int32_t>(u);
    const int32_t e = (bits - 0x3f3504f3) >> 23;
    const float f = bit_cast<float>(bits - e * (1 << 23)) - 1.0f;
    float q = 8.734846860e-02f;
    q = fma(q, f, -1.430752277e-01f);
    q = fma(q, f, 1.491797268e-01f);
    q = fma(q, f, -1.657050848e-01f);
    q = fma(q, f, 1.996207237e-01f);
    q = fma(q, f, -2.500175536e-01f);
    q = fma(q, f, 3.333395123e-01f);
    q = fma(q, f, -4.999999106e-01f);
    const float log_m = fma(f * f, q, f);
    return fma(static_cast<float>(e), 6.931471825e-01f, log_m);
}

struct NormalPair {
    float z0, z1;
};

// Box-Muller: radius from one word; the other word's two high bits are the quadrant, the rest the angle
// inside it, centred.
FD_HOST_DEVICE NormalPair box_muller(uint32_t radius_word, uint32_t angle_word) {
    const float r = sqrtf(-2.0f * log_unit(unit_interval(radius_word)));
    const float y =
        static_cast<float>(static_cast<int32_t>(angle_word << 2)) * 0x1p-31f;  // angle = y pi/4, |y| <= 1
    const float t = y * y;
    float s =
        fma(fma(fma(-3.595450835e-05f, t, 2.490007086e-03f), t, -8.074543625e-02f), t, 7.853981853e-01f) * y;
    float c = fma(fma(fma(-3.188805131e-04f, t, 1.584991440e-02f), t, -3.084242642e-01f), t, 1.0f);
    const uint32_t quadrant = angle_word >> 30;
    const bool swap = (quadrant & 1u) != 0;
    const uint32_t cos_bits = bit_cast<uint32_t>(swap ? s : c) ^ (((quadrant + 1u) & 2u) << 30);
    const uint32_t sin_bits = bit_cast<uint32_t>(swap ? c : s) ^ ((quadrant & 2u) << 30);
    return {r * bit_cast<float>(cos_bits), r * bit_cast<float>(sin_bits)};
}

FD_HOST_DEVICE void normals_of_block(const PhiloxStream& stream, uint64_t b, float z[4]) {
    const PhiloxWords p = stream.block(b);
    const NormalPair first = box_muller(p.w[0], p.w[1]), second = box_muller(p.w[2], p.w[3]);
    z[0] = first.z0;
    z[1] = first.z1;
    z[2] = second.z0;
    z[3] = second.z1;
}

}  // namespace fd
