// CUDA's arithmetic, bit, load/store and atomic intrinsics. Overloads are CUDA's, so that a wrong type fails
// here too.
//
// The approximate ones (__expf, rsqrtf, ...) are exact here: never compare them bit for bit with a GPU.
#pragma once

#include <math.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <type_traits>

using std::max;
using std::min;

// ---- floating point, rounded to nearest and never contracted

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frsqrt_rn(float a) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __drcp_rn(double a) { return 1.0 / a; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }

inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }  // NaN gives 0
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline double rsqrt(double a) { return 1.0 / std::sqrt(a); }

// The C library declares functions of these names.
#define __expf(x) ::std::exp(static_cast<float>(x))
#define __exp10f(x) ::std::pow(10.0f, static_cast<float>(x))
#define __logf(x) ::std::log(static_cast<float>(x))
#define __log2f(x) ::std::log2(static_cast<float>(x))
#define __log10f(x) ::std::log10(static_cast<float>(x))
#define __sinf(x) ::std::sin(static_cast<float>(x))
#define __cosf(x) ::std::cos(static_cast<float>(x))
#define __powf(x, y) ::std::pow(static_cast<float>(x), static_cast<float>(y))

// ---- conversions: saturating, NaN gives 0, as on the device

namespace fd::emulation {
template <class To, class From>
To saturate_to(From value) {
    constexpr double kEnd = sizeof(To) == 4 ? 0x1p32 : 0x1p64;
    constexpr double kHigh = std::is_signed_v<To> ? kEnd / 2 : kEnd;
    constexpr double kLow = std::is_signed_v<To> ? -kHigh : 0.0;
    const double wide = value;
    if (std::isnan(wide)) return 0;
    if (wide >= kHigh) return static_cast<To>(~std::make_unsigned_t<To>{0} >> (std::is_signed_v<To> ? 1 : 0));
    return wide <= kLow ? static_cast<To>(kLow) : static_cast<To>(value);
}
}  // namespace fd::emulation

#define FD_CONVERSIONS(from, name, to, type)                                                                 \
    inline type __##name##2##to##_rn(from a) { return fd::emulation::saturate_to<type>(std::nearbyint(a)); } \
    inline type __##name##2##to##_rz(from a) { return fd::emulation::saturate_to<type>(std::trunc(a)); }     \
    inline type __##name##2##to##_rd(from a) { return fd::emulation::saturate_to<type>(std::floor(a)); }     \
    inline type __##name##2##to##_ru(from a) { return fd::emulation::saturate_to<type>(std::ceil(a)); }
FD_CONVERSIONS(float, float, int, int)
FD_CONVERSIONS(float, float, uint, unsigned)
FD_CONVERSIONS(float, float, ll, long long)
FD_CONVERSIONS(float, float, ull, unsigned long long)
FD_CONVERSIONS(double, double, int, int)
FD_CONVERSIONS(double, double, uint, unsigned)
FD_CONVERSIONS(double, double, ll, long long)
FD_CONVERSIONS(double, double, ull, unsigned long long)
#undef FD_CONVERSIONS
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline float __ll2float_rn(long long a) { return static_cast<float>(a); }
inline float __ull2float_rn(unsigned long long a) { return static_cast<float>(a); }
inline double __ll2double_rn(long long a) { return static_cast<double>(a); }
inline double __ull2double_rn(unsigned long long a) { return static_cast<double>(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }

// ---- bits

#define FD_BITS(name, to, from)                   \
    inline to name(from a) {                      \
        to result;                                \
        static_assert(sizeof result == sizeof a); \
        std::memcpy(&result, &a, sizeof a);       \
        return result;                            \
    }
FD_BITS(__float_as_int, int, float)
FD_BITS(__int_as_float, float, int)
FD_BITS(__float_as_uint, unsigned, float)
FD_BITS(__uint_as_float, float, unsigned)
FD_BITS(__double_as_longlong, long long, double)
FD_BITS(__longlong_as_double, double, long long)
#undef FD_BITS

inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __clz(int a) { return a == 0 ? 32 : __builtin_clz(static_cast<unsigned>(a)); }
inline int __clzll(long long a) { return a == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(a)); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline unsigned long long __brevll(unsigned long long a) {
    unsigned long long result = 0;
    for (int bit = 0; bit < 64; ++bit) result |= (a >> bit & 1u) << (63 - bit);
    return result;
}
inline unsigned __brev(unsigned a) { return static_cast<unsigned>(__brevll(a) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline long long __mul64hi(long long a, long long b) {
    return static_cast<long long>(static_cast<__int128>(a) * b >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    const unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
    return static_cast<unsigned>(both << (shift & 31u) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    const unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
    return static_cast<unsigned>(both >> (shift & 31u));
}

// ---- loads and stores with a cache hint

#define FD_LOAD(name)               \
    template <class T>              \
    inline T name(const T* place) { \
        return *place;              \
    }
#define FD_STORE(name)                                                 \
    template <class T>                                                 \
    inline void name(T* place, const std::type_identity_t<T>& value) { \
        *place = value;                                                \
    }
FD_LOAD(__ldg)
FD_LOAD(__ldca)
FD_LOAD(__ldcg)
FD_LOAD(__ldcs)
FD_LOAD(__ldlu)
FD_LOAD(__ldcv)
FD_STORE(__stwb)
FD_STORE(__stcg)
FD_STORE(__stcs)
FD_STORE(__stwt)
#undef FD_LOAD
#undef FD_STORE

// ---- atomics: relaxed, return the old value

namespace fd::emulation {

template <class T, class F>
T atomic_update(T* place, F&& next) {
    std::atomic_ref<T> cell(*place);
    T old = cell.load(std::memory_order_relaxed);
    while (!cell.compare_exchange_weak(old, next(old), std::memory_order_relaxed)) {
    }
    return old;
}

}  // namespace fd::emulation

#define FD_ATOMIC(name, expression, ...)                                                    \
    template <class T>                                                                      \
        requires fd::emulation::OneOf<T, __VA_ARGS__>                                       \
    T name(T* place, std::type_identity_t<T> value) {                                       \
        return fd::emulation::atomic_update(place, [=](T old) -> T { return expression; }); \
    }
using fd_ull = unsigned long long;
// Integers wrap on the device; adding as unsigned says the same without overflow.
template <class T>
T fd_wrapping_add(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
        return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) +
                              static_cast<std::make_unsigned_t<T>>(b));
    } else {
        return a + b;
    }
}
FD_ATOMIC(atomicAdd, fd_wrapping_add(old, value), int, unsigned, fd_ull, float, double)
FD_ATOMIC(atomicSub, static_cast<T>(static_cast<unsigned>(old) - static_cast<unsigned>(value)), int, unsigned)
FD_ATOMIC(atomicExch, (static_cast<void>(old), value), int, unsigned, fd_ull, float)
FD_ATOMIC(atomicMin, std::min(old, value), int, unsigned, fd_ull, long long)
FD_ATOMIC(atomicMax, std::max(old, value), int, unsigned, fd_ull, long long)
FD_ATOMIC(atomicAnd, old& value, int, unsigned, fd_ull)
FD_ATOMIC(atomicOr, old | value, int, unsigned, fd_ull)
FD_ATOMIC(atomicXor, old ^ value, int, unsigned, fd_ull)
FD_ATOMIC(atomicInc, old >= value ? 0u : old + 1u, unsigned)
FD_ATOMIC(atomicDec, old == 0u || old > value ? value : old - 1u, unsigned)
#undef FD_ATOMIC

template <class T>
    requires fd::emulation::OneOf<T, int, unsigned, fd_ull, unsigned short>
T atomicCAS(T* place, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
    std::atomic_ref<T>(*place).compare_exchange_strong(expected, value, std::memory_order_relaxed);
    return expected;
}
