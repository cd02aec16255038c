// Storage types at run time, and conversion of whole blocks on the CPU.
#pragma once

#include "common/simd.h"

#if FD_X86
#include <immintrin.h>
#endif

namespace fd {

enum class DType : int32_t { f16, bf16, f32, f64 };

FD_HOST_DEVICE int64_t size_of(DType type) { return type == DType::f64 ? 8 : type == DType::f32 ? 4 : 2; }

template <class T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<half> = DType::f16;
template <>
inline constexpr DType dtype_of<bfloat16> = DType::bf16;
template <>
inline constexpr DType dtype_of<double> = DType::f64;

namespace detail {

FD_HOST_DEVICE float widen(half v) { return static_cast<float>(v); }
FD_HOST_DEVICE float widen(bfloat16 v) { return bit_cast<float>(static_cast<uint32_t>(v.x) << 16); }
FD_HOST_DEVICE float widen(float v) { return v; }
FD_HOST_DEVICE double widen(double v) { return v; }

FD_HOST_DEVICE void narrow(float v, half& out) { out = static_cast<half>(v); }
FD_HOST_DEVICE void narrow(float v, float& out) { out = v; }
FD_HOST_DEVICE void narrow(float v, double& out) { out = static_cast<double>(v); }
// Round to nearest even on the bits: a form the compiler vectorises.
FD_HOST_DEVICE void narrow(float v, bfloat16& out) {
    const uint32_t bits = bit_cast<uint32_t>(v);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    out.x = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}
FD_HOST_DEVICE void narrow(double v, double& out) { out = v; }
FD_HOST_DEVICE void narrow(double v, float& out) { out = static_cast<float>(v); }
FD_HOST_DEVICE void narrow(double v, half& out) { out = static_cast<half>(static_cast<float>(v)); }
FD_HOST_DEVICE void narrow(double v, bfloat16& out) { narrow(static_cast<float>(v), out); }

#if FD_X86
// torch's Half converts in software where the baseline has no F16C; these do not.
FD_TARGET_AVX2 inline void widen_f16_avx2(const half* in, float* out, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(packed));
    }
    for (; i < n; ++i) out[i] = _cvtsh_ss(in[i].x);
}
FD_TARGET_AVX512 inline void widen_f16_avx512(const half* in, float* out, int n) {
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i));
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(packed));
    }
    widen_f16_avx2(in + i, out + i, n - i);
}
FD_TARGET_AVX2 inline void narrow_f16_avx2(const float* in, half* out, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i packed = _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), packed);
    }
    for (; i < n; ++i) out[i].x = _cvtss_sh(in[i], _MM_FROUND_TO_NEAREST_INT);
}
inline void stream_fence() { _mm_sfence(); }
#else
inline void stream_fence() {}
#endif

}  // namespace detail

// Memory that will be read soon: one cache line of each stream at every `step`.
struct Ahead {
    static constexpr int kStreams = 16;
    const char* next[kStreams];
    int streams = 0, lines = 0;

    void add(const void* base, int64_t bytes) {
        if (streams == kStreams) return;
        next[streams++] = static_cast<const char*>(base);
        lines = lines < bytes / 64 ? static_cast<int>(bytes / 64) : lines;
    }
    FD_HOST_DEVICE void step() {
        if (lines == 0) return;
        --lines;
        for (int k = 0; k < streams; ++k) {
            __builtin_prefetch(next[k]);
            next[k] += 64;
        }
    }
};

namespace detail {

#if FD_X86
// `bytes` (a multiple of 64) past the caches; both ends 64-byte aligned. Stores that bypass the caches and
// loads from memory share the line-fill buffers, so bursts of one starve the other: what is read next is
// asked for in between.
FD_TARGET_AVX2 inline void stream_copy_avx2(const void* in, void* out, int64_t bytes, Ahead* ahead,
                                            int every) {
    const __m256i* from = static_cast<const __m256i*>(in);
    __m256i* to = static_cast<__m256i*>(out);
    for (int64_t line = 0; line < bytes / 64; ++line) {
        _mm256_stream_si256(to + 2 * line, _mm256_load_si256(from + 2 * line));
        _mm256_stream_si256(to + 2 * line + 1, _mm256_load_si256(from + 2 * line + 1));
        if (line % every == 0) ahead->step();
    }
}
#endif

}  // namespace detail

// out[i] = in[i], widened to the accumulation type.
template <simd::Level L, class T, class Acc>
FD_HOST_DEVICE void widen_block(const T* __restrict in, Acc* __restrict out, int n) {
#if FD_X86
    if constexpr (dtype_of<T> == DType::f16 && dtype_of<Acc> == DType::f32) {
        if constexpr (L == simd::Level::avx512) return detail::widen_f16_avx512(in, out, n);
        if constexpr (L == simd::Level::avx2) return detail::widen_f16_avx2(in, out, n);
    }
#endif
    for (int i = 0; i < n; ++i) out[i] = static_cast<Acc>(detail::widen(in[i]));
}

// out[i] = in[i], rounded to nearest even.
template <simd::Level L, class T, class Acc>
FD_HOST_DEVICE void narrow_block(const Acc* __restrict in, T* __restrict out, int n) {
#if FD_X86
    if constexpr (dtype_of<T> == DType::f16 && dtype_of<Acc> == DType::f32 && L != simd::Level::scalar) {
        return detail::narrow_f16_avx2(in, out, n);
    }
#endif
    for (int i = 0; i < n; ++i) detail::narrow(in[i], out[i]);
}

}  // namespace fd
