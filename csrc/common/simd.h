// Run-time SIMD dispatch inside one translation unit: a wheel runs on any x86-64 processor.
//
// `dispatch<Body>(args...)` calls Body::run compiled for the best level this processor has.
// FASTDIFF_OPS_SIMD=scalar|avx2|avx512 caps the level. Bodies are flattened into each copy, so they must be
// built of always_inline functions.
#pragma once

#include <cstdlib>
#include <cstring>

#include "common/portable.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define FD_X86 1
#define FD_TARGET_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define FD_TARGET_AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,bmi,bmi2,prefer-vector-width=512")))
#else
#define FD_X86 0
#endif

namespace fd::simd {

enum class Level : int { scalar = 0, avx2 = 1, avx512 = 2 };

inline Level detect() {
    Level best = Level::scalar;
#if FD_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
        best = Level::avx2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            best = Level::avx512;
        }
    }
#endif
    const char* cap = std::getenv("FASTDIFF_OPS_SIMD");
    if (cap != nullptr && std::strcmp(cap, "scalar") == 0) return Level::scalar;
    if (cap != nullptr && std::strcmp(cap, "avx2") == 0 && best == Level::avx512) return Level::avx2;
    return best;
}

inline Level level() {
    static const Level cached = detect();
    return cached;
}

inline const char* level_name() {
    switch (level()) {
        case Level::avx512:
            return "avx512";
        case Level::avx2:
            return "avx2";
        default:
            return "scalar";
    }
}

#if FD_X86
template <class Body, class... Args>
__attribute__((noinline, flatten)) void run_base(Args... args) {
    Body::template run<Level::scalar>(args...);
}
template <class Body, class... Args>
__attribute__((noinline, flatten)) FD_TARGET_AVX2 void run_avx2(Args... args) {
    Body::template run<Level::avx2>(args...);
}
template <class Body, class... Args>
__attribute__((noinline, flatten)) FD_TARGET_AVX512 void run_avx512(Args... args) {
    Body::template run<Level::avx512>(args...);
}
#endif

template <class Body, class... Args>
void dispatch(Args... args) {
#if FD_X86
    switch (level()) {
        case Level::avx512:
            return run_avx512<Body>(args...);
        case Level::avx2:
            return run_avx2<Body>(args...);
        default:
            return run_base<Body>(args...);
    }
#else
    Body::template run<Level::scalar>(args...);
#endif
}

}  // namespace fd::simd
