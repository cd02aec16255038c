// Exact categorical draws: noise, its bounds, and the choice. Every backend shares this arithmetic.
//
// A row draws argmax_v z_v, z_v = T g_v + l_v, with standard Gumbel noise g_v = -ln E_v, E_v ~ Exp(1), in
// float64: a draw from softmax(l / T). The noise of a row is a function of (seed, offset, row key, global
// vocabulary index v) alone.
//
// *Uniforms.* w in (0, 1) is a 128-bit fraction: 16 "prefix" bits, then 112 "tail" bits. It is never 0 or 1
// and has 53 significant bits at every scale, so the noise has its full range (g < 89). E = -ln(1 - w).
//
// *Stream `element`*: E_v has a prefix and a tail of its own.
//
// *Stream `block16`*: v = 4096 tile + 256 i + r; the 16 places i of one (tile, r) are block 256 tile + r. The
// least of 16 exponentials is Exp(1) / 16, its place is uniform, and the others exceed it by fresh
// exponentials: E_block = E / 16, E_v = E_block at the block's first place, else E_block + E'.
//
// *Lazy evaluation.* w >= prefix / 2^16 and E >= w bound g_v from the prefix alone: g <= ln2 (16 -
// log2 k), and the float's bits are a chord below log2. So z_v <= `Bound::of(steps, l)`: one conversion and
// one fma. Elements whose bound is below the best exact z, less the rounding of all of this, cannot win;
// block16 needs one bound for 16 logits.
//
// Only IEEE +, -, *, / and fma are used: scalar code, AVX2, AVX-512 and CUDA (-fmad=false) agree bit for bit.
#pragma once

#include <limits>
#include <type_traits>

#include "common/dtype.h"
#include "common/philox.h"

namespace fd::categorical {

enum class Stream : int { element = 0, block16 = 1 };

constexpr int kPlaces = 16;               // logits of a block
constexpr int kStride = 256;              // between the logits of a block
constexpr int kTile = kPlaces * kStride;  // logits of 256 blocks
constexpr int64_t kMaxVocab = int64_t{1} << kPhiloxIndexBits;
constexpr int kMaxTopK = 1024;

// What l is computed in: float, and double for float64 logits.
template <class T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class C>
constexpr C kMinusInfinity = -std::numeric_limits<C>::infinity();

// ---- noise

// One row's place in the random stream.
struct RowKey {
    uint64_t seed, row;
    uint32_t offset;

    FD_HOST_DEVICE PhiloxWords words(StreamTag tag, uint32_t index) const {
        return PhiloxStream(tag, seed, offset, row).block(index);
    }
};

// Half j (16 bits) of eight.
FD_HOST_DEVICE uint32_t half_of(const PhiloxWords& p, uint32_t j) {
    return p.w[j >> 1] >> (16 * (j & 1)) & 0xffffu;
}

// The prefix at `place`; one Philox block serves eight.
FD_HOST_DEVICE uint32_t prefix_at(const RowKey& key, StreamTag tag, uint32_t place) {
    return half_of(key.words(tag, place >> 3), place & 7);
}

FD_HOST_DEVICE int leading_zeros(uint64_t x) {
#if defined(__CUDA_ARCH__)
    return __clzll(static_cast<long long>(x));
#else
    return __builtin_clzll(x);
#endif
}

// w: prefix, t0, t1, t2 and the upper half of t3 as one 128-bit fraction, cut to 53 bits of which the last is
// sticky. Exact.
FD_HOST_DEVICE double uniform(uint32_t prefix, const PhiloxWords& tail) {
    const uint64_t a =
        static_cast<uint64_t>(prefix) << 48 | static_cast<uint64_t>(tail.w[0]) << 16 | tail.w[1] >> 16;
    const uint64_t b =
        static_cast<uint64_t>(tail.w[1]) << 48 | static_cast<uint64_t>(tail.w[2]) << 16 | tail.w[3] >> 16;
    if ((a | b) == 0) return 0x1p-129;
    uint64_t n;
    int zeros;
    if (a != 0) {
        zeros = leading_zeros(a);
        n = zeros == 0 ? a : a << zeros | b >> (64 - zeros);
    } else {
        zeros = 64 + leading_zeros(b);
        n = b << (zeros - 64);
    }
    const double scale = bit_cast<double>(static_cast<uint64_t>(1023 - 53 - zeros) << 52);
    return static_cast<double>(static_cast<int64_t>(n >> 11 | 1)) * scale;
}

// ln(x) of a normal x > 0, within 1.3 * 2^-53: x = 2^e m, m in (sqrt(1/2), sqrt 2], by the classical minimax
// polynomial in s = (m - 1) / (m + 1). Libraries' logarithms differ in the last bit, this one does not.
FD_HOST_DEVICE double log_exact(double x) {
    constexpr uint64_t kRootHalf = 0x3FE6A09E667F3BCDu;  // the least double above sqrt(1/2)
    const int64_t bits = bit_cast<int64_t>(x) - static_cast<int64_t>(kRootHalf);
    const int64_t exponent = bits >> 52;
    const double m = bit_cast<double>(bit_cast<int64_t>(x) - exponent * (int64_t{1} << 52));
    const double e = static_cast<double>(static_cast<int32_t>(exponent));
    const double f = m - 1.0;
    const double s = f / (2.0 + f), z = s * s;
    double r = 1.479819860511658591e-01;
    r = fma(z, r, 1.531383769920937332e-01);
    r = fma(z, r, 1.818357216161805012e-01);
    r = fma(z, r, 2.222219843214978396e-01);
    r = fma(z, r, 2.857142874366239149e-01);
    r = fma(z, r, 3.999999999940941908e-01);
    r = fma(z, r, 6.666666666666735130e-01);
    r = z * r;
    const double h = 0.5 * f * f;
    const double low = s * (h + r) + e * 1.90821492927058770002e-10;
    return e * 6.93147180369123816490e-01 - ((h - low) - f);
}

// -ln(1 - w), within 2 * 2^-53.
FD_HOST_DEVICE double exponential(double w) {
    if (w < 0x1p-27) return fma(0.5 * w, w, w);
    const double u = 1.0 - w, lost = (1.0 - u) - w;
    return -(log_exact(u) + lost / u);
}

FD_HOST_DEVICE double gumbel(double time) { return -log_exact(time); }

FD_HOST_DEVICE double element_time(const RowKey& key, uint32_t v, uint32_t prefix) {
    return exponential(uniform(prefix, key.words(StreamTag::element_tail, v)));
}

struct BlockNoise {
    double time;  // E_block, of the place where it is least
    int first;    // that place
};

FD_HOST_DEVICE BlockNoise block_noise(uint32_t prefix, const PhiloxWords& tail) {
    return {exponential(uniform(prefix, tail)) * 0.0625, static_cast<int>(tail.w[3] & 15u)};
}
FD_HOST_DEVICE BlockNoise block_noise(const RowKey& key, uint32_t block, uint32_t prefix) {
    return block_noise(prefix, key.words(StreamTag::block_tail, block));
}

FD_HOST_DEVICE uint32_t block_of(uint32_t v) { return (v / kTile) * kStride + v % kStride; }
FD_HOST_DEVICE int place_of(uint32_t v) { return static_cast<int>(v % kTile / kStride); }
FD_HOST_DEVICE uint32_t index_in_block(uint32_t block, int place) {
    return block / kStride * kTile + static_cast<uint32_t>(place) * kStride + block % kStride;
}

// E_v at a place other than the block's first.
FD_HOST_DEVICE double inner_time(const RowKey& key, const BlockNoise& block, uint32_t v, uint32_t prefix) {
    return block.time + exponential(uniform(prefix, key.words(StreamTag::inner_tail, v)));
}

// g_v, with nothing known yet.
FD_HOST_DEVICE double noise_at(Stream stream, const RowKey& key, uint32_t v) {
    if (stream == Stream::element) {
        return gumbel(element_time(key, v, prefix_at(key, StreamTag::element_prefix, v)));
    }
    const uint32_t block = block_of(v);
    const int place = place_of(v);
    const BlockNoise noise = block_noise(key, block, prefix_at(key, StreamTag::block_prefix, block));
    if (place == noise.first) return gumbel(noise.time);
    const uint32_t inner = block * kPlaces + static_cast<uint32_t>(place);
    return gumbel(inner_time(key, noise, v, prefix_at(key, StreamTag::inner_prefix, inner)));
}

// ---- bounds

// The largest float not above x; at least the lowest finite one.
FD_HOST_DEVICE float round_down(double x) {
    constexpr float kLowest = std::numeric_limits<float>::lowest();
    if (!(x >= static_cast<double>(kLowest))) return kLowest;
    const float f = static_cast<float>(x);
    if (static_cast<double>(f) <= x) return f;
    const uint32_t bits = bit_cast<uint32_t>(f);
    return bit_cast<float>(f > 0 ? bits - 1 : f < 0 ? bits + 1 : 0x80000001u);
}

// A logit for a bound: not below, but for relative 2^-24, and finite if it was.
FD_HOST_DEVICE float bound_logit(float l) { return l; }
FD_HOST_DEVICE float bound_logit(double l) {
    const float f = static_cast<float>(l);
    return f == kMinusInfinity<float> && l != kMinusInfinity<double> ? std::numeric_limits<float>::lowest()
                                                                     : f;
}

// Bounds of g in steps of 2^-23 ln 2, never negative: (16 - log2 k), 4 more for a block, -log2 of a time.
constexpr int32_t kStepsOfOne = 0x47800000;  // bits of 65536.0f
constexpr int32_t kBlockSteps = 4 << 23;

FD_HOST_DEVICE int32_t element_steps(uint32_t prefix) {
    return kStepsOfOne - bit_cast<int32_t>(static_cast<float>(static_cast<int32_t>(prefix)));
}
FD_HOST_DEVICE int32_t block_steps(uint32_t prefix) { return element_steps(prefix) + kBlockSteps; }
// Of E_v >= `time` (a float that is not above it).
FD_HOST_DEVICE int32_t time_steps(float time) {
    if (time < std::numeric_limits<float>::min()) return kStepsOfOne + kBlockSteps;
    const int32_t steps = 0x3F800000 - bit_cast<int32_t>(time);
    return steps > 0 ? steps : 0;
}
// Of E_v = E_block + E', E' with this prefix.
FD_HOST_DEVICE int32_t inner_steps(const BlockNoise& block, uint32_t prefix) {
    const float least = round_down(block.time) + static_cast<float>(static_cast<int32_t>(prefix)) * 0x1p-16f;
    return time_steps(least * (1.0f - 0x1p-22f));
}

// Upper bounds of z for one temperature, and what a bound must reach to matter.
//
// Rounding, relative to at most 92 T: `per_step`, the conversion of steps, their product where it is not
// fused and the conversion of a float64 logit (at most |best| + 92 T), 2^-24 each; the last operation 2^-24
// of |best|; z itself 1e-13 (1 + T). Together below 2^-23 |best| + 2.3e-5 T; the margin is four times and 2.6
// times that. Steps are not negative, so a temperature may be raised: 2^-90 keeps `per_step` a normal number.
struct Bound {
    double temperature;
    float per_step;

    FD_HOST_DEVICE explicit Bound(double t)
        : temperature(t > 0x1p-90 ? t : 0x1p-90),
          per_step(static_cast<float>(temperature * (0.6931471805599453 * 0x1p-23))) {}

    FD_HOST_DEVICE float of(int32_t steps, float l) const {
        return fma(per_step, static_cast<float>(steps), l);
    }

    // Only what reaches this can be chosen before z = best. Rows and blocks of -inf never do.
    FD_HOST_DEVICE float threshold(double best) const {
        if (best == std::numeric_limits<double>::infinity()) return std::numeric_limits<float>::infinity();
        const double size = best < 0 ? -best : best;
        return round_down(best - (0x1p-21 * size + 0x1p-14 * temperature));
    }
};

// ---- the choice

FD_HOST_DEVICE double perturbed(double temperature, double g, double l) { return fma(temperature, g, l); }

struct Choice {
    double z = kMinusInfinity<double>;
    int32_t token = -1;  // global index

    // Larger z wins; of equal ones the smaller token. -inf is never chosen.
    FD_HOST_DEVICE bool loses_to(double other_z, int32_t other) const {
        return other_z > z || (other_z == z && other < token && other_z > kMinusInfinity<double>);
    }
    FD_HOST_DEVICE void offer(double other_z, int32_t other) {
        if (loses_to(other_z, other)) {
            z = other_z;
            token = other;
        }
    }
};

// Unsigned order of keys = order of z (not NaN); both zeros are one.
FD_HOST_DEVICE uint64_t order_key(double z) {
    const uint64_t bits = bit_cast<uint64_t>(z + 0.0);
    return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}
FD_HOST_DEVICE double from_order_key(uint64_t key) {
    return bit_cast<double>(key >> 63 ? key & ~(uint64_t{1} << 63) : ~key);
}

}  // namespace fd::categorical
