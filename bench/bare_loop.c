/* The bare loop that the fused update is held against: reads three arrays, writes two, knows nothing else.
 *
 *     m = c_x x + c_o out,   x_next = a x + b m + c h          for float32, float16 and bfloat16 storage
 *
 * Compiled on the spot for the processor at hand (bare_loop.py). One turn of the loop fills one 64-byte line
 * of each output; `stream` writes it past the caches. Coefficients: c_x, c_o, a, b, c. Where there is no AVX2
 * the loop is left to the compiler.
 */
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) && defined(__F16C__) && defined(__FMA__)
#include <immintrin.h>
#define SIMD 1
#endif

#if defined(SIMD) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

enum { WIDTH = 16 };
const char* simd_level(void) { return "avx512"; }
typedef __m512 vec;
typedef __m256i half_vec;
static inline vec set(float v) { return _mm512_set1_ps(v); }
static inline vec mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec load_f32(const float* p) { return _mm512_loadu_ps(p); }
static inline half_vec load_half(const uint16_t* p) { return _mm256_loadu_si256((const void*)p); }
static inline vec load_f16(const uint16_t* p) { return _mm512_cvtph_ps(load_half(p)); }
static inline vec load_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_half(p)), 16));
}
static inline half_vec to_f16(vec v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
#ifdef __AVX512BF16__
static inline half_vec to_bf16(vec v) { return (half_vec)_mm512_cvtneps_pbh(v); }
#else
static inline half_vec to_bf16(vec v) {
    const __m512i i = _mm512_castps_si512(v),
                  odd = _mm512_and_si512(_mm512_srli_epi32(i, 16), _mm512_set1_epi32(1));
    return _mm512_cvtepi32_epi16(
        _mm512_srli_epi32(_mm512_add_epi32(i, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16));
}
#endif
static inline void put_f32(float* p, vec v, int stream) {
    if (stream)
        _mm512_stream_ps(p, v);
    else
        _mm512_storeu_ps(p, v);
}
static inline void put_half(uint16_t* p, half_vec v, int stream) {
    if (stream)
        _mm256_stream_si256((void*)p, v);
    else
        _mm256_storeu_si256((void*)p, v);
}

#elif defined(SIMD)

enum { WIDTH = 8 };
const char* simd_level(void) { return "avx2"; }
typedef __m256 vec;
typedef __m128i half_vec;
static inline vec set(float v) { return _mm256_set1_ps(v); }
static inline vec mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec load_f32(const float* p) { return _mm256_loadu_ps(p); }
static inline half_vec load_half(const uint16_t* p) { return _mm_loadu_si128((const void*)p); }
static inline vec load_f16(const uint16_t* p) { return _mm256_cvtph_ps(load_half(p)); }
static inline vec load_bf16(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_half(p)), 16));
}
static inline half_vec to_f16(vec v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
static inline half_vec to_bf16(vec v) {
    const __m256i i = _mm256_castps_si256(v),
                  odd = _mm256_and_si256(_mm256_srli_epi32(i, 16), _mm256_set1_epi32(1));
    const __m256i r =
        _mm256_srli_epi32(_mm256_add_epi32(i, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
static inline void put_f32(float* p, vec v, int stream) {
    if (stream)
        _mm256_stream_ps(p, v);
    else
        _mm256_storeu_ps(p, v);
}
static inline void put_half(uint16_t* p, half_vec v, int stream) {
    if (stream)
        _mm_stream_si128((void*)p, v);
    else
        _mm_storeu_si128((void*)p, v);
}

#else
const char* simd_level(void) { return "compiler"; }
#endif

static inline float one_f32(float v) { return v; }
static inline float one_f16(uint16_t h) {
    _Float16 v;
    memcpy(&v, &h, 2);
    return (float)v;
}
static inline float one_bf16(uint16_t h) {
    const uint32_t i = (uint32_t)h << 16;
    float v;
    memcpy(&v, &i, 4);
    return v;
}
static inline float narrow_f32(float v) { return v; }
static inline uint16_t narrow_f16(float v) {
    const _Float16 h = (_Float16)v;
    uint16_t i;
    memcpy(&i, &h, 2);
    return i;
}
static inline uint16_t narrow_bf16(float v) {
    uint32_t i;
    memcpy(&i, &v, 4);
    return (uint16_t)((i + 0x7fff + (i >> 16 & 1)) >> 16);
}

#ifdef SIMD
#define id(v) (v)
#define LINES(T, load, narrow, put, stream)                                                             \
    for (; i + LINE <= end; i += LINE) {                                                                \
        vec m[LINE / WIDTH], next[LINE / WIDTH];                                                        \
        for (int k = 0; k < LINE / WIDTH; ++k) {                                                        \
            const vec v = load(x + i + k * WIDTH);                                                      \
            m[k] = fma(set(w[1]), load(out + i + k * WIDTH), mul(set(w[0]), v));                        \
            next[k] = fma(set(w[4]), load(h + i + k * WIDTH), fma(set(w[3]), m[k], mul(set(w[2]), v))); \
        }                                                                                               \
        for (int k = 0; k < LINE / WIDTH; ++k) put(x_next + i + k * WIDTH, narrow(next[k]), stream);    \
        for (int k = 0; k < LINE / WIDTH; ++k) put(m_out + i + k * WIDTH, narrow(m[k]), stream);        \
    }
#define FENCE() _mm_sfence()
#else
#define LINES(T, load, narrow, put, stream)
#define FENCE()
#endif

/* `x_next` and `m_out` are 64-byte aligned when `stream` is asked for. Threads get whole lines. */
#define DEFINE(name, T, load, narrow, put, one, narrow_one)                                                  \
    void update_##name(int64_t n, const T* x, const T* out, const T* h, T* x_next, T* m_out, const float* w, \
                       int stream, int threads) {                                                            \
        enum { LINE = 64 / sizeof(T) };                                                                      \
        const int64_t share = ((n + threads - 1) / threads + LINE - 1) / LINE * LINE;                        \
        _Pragma(                                                                                             \
            "omp parallel for num_threads(threads) if (threads > 1) schedule(static, 1)") for (int t = 0;    \
                                                                                               t < threads;  \
                                                                                               ++t) {        \
            int64_t i = t * share;                                                                           \
            const int64_t end = i + share < n ? i + share : n;                                               \
            if (stream) {                                                                                    \
                LINES(T, load, narrow, put, 1)                                                               \
                FENCE();                                                                                     \
            } else {                                                                                         \
                LINES(T, load, narrow, put, 0)                                                               \
            }                                                                                                \
            for (; i < end; ++i) {                                                                           \
                const float v = one(x[i]), m = w[0] * v + w[1] * one(out[i]);                                \
                x_next[i] = narrow_one(w[2] * v + w[3] * m + w[4] * one(h[i]));                              \
                m_out[i] = narrow_one(m);                                                                    \
            }                                                                                                \
        }                                                                                                    \
    }

DEFINE(f32, float, load_f32, id, put_f32, one_f32, narrow_f32)
DEFINE(f16, uint16_t, load_f16, to_f16, put_half, one_f16, narrow_f16)
DEFINE(bf16, uint16_t, load_bf16, to_bf16, put_half, one_bf16, narrow_bf16)
