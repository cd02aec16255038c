// Included by encode_leaves_cpu.cpp once for each SIMD level, inside a namespace named after it: from rows of
// points to columns and back.

#if FD_LEVEL > 0

// Lane p of axis i is element p N + i of the N vectors that hold kLanes points.
template <int N>
constexpr uint32_t lanes_from(int i, int vector) {
    uint32_t bits = 0;
    for (int p = 0; p < kLanes; ++p) bits |= (p * N + i) / kLanes == vector ? 1u << p : 0u;
    return bits;
}

template <int N>
inline void to_axes(const float* rows, Floats* axis) {
    Floats row[N];
    FD_UNROLL_LANES
    for (int v = 0; v < N; ++v) row[v] = load(rows + v * kLanes);
    alignas(64) uint32_t at[kLanes];
    FD_UNROLL_LANES
    for (int i = 0; i < N; ++i) {
        for (int p = 0; p < kLanes; ++p) at[p] = static_cast<uint32_t>((p * N + i) % kLanes);
        const Ints places = load(at);
        FD_UNROLL_LANES
        for (int v = 0; v < N; ++v) {
            const uint32_t bits = lanes_from<N>(i, v);
            if (bits == 0) continue;
            const Floats part = chosen(row[v], places);
            axis[i] = v == 0 ? part : pick(lanes_of(bits), part, axis[i]);
        }
    }
}

#endif

// Whole groups of points, axis by axis: inside the bounds, and which of them are finite. Directions lose the
// coordinates that the bounds clamp.
template <int N>
void fill(const float* x, const float* u, Bounds bounds, int groups, int stride, float* x_out, float* u_out,
          uint16_t* valid) {
#if FD_LEVEL == 0
    for (int p = 0; p < groups * kGroup; ++p) {
        const float* at = x + p * N;
        if (p % kGroup == 0) valid[p / kGroup] = 0;
        const bool finite = all_finite<N, float>(at);
        valid[p / kGroup] = static_cast<uint16_t>(valid[p / kGroup] | (finite ? 1 : 0) << (p % kGroup));
        FD_UNROLL_LANES
        for (int i = 0; i < N; ++i) {
            x_out[i * stride + p] = bounded(at[i], bounds);
            if (u != nullptr) u_out[i * stride + p] = passes(at[i], bounds) ? u[p * N + i] : 0.0f;
        }
    }
#else
    const Floats zero = all(0.0f), one = all(1.0f);
    uint32_t finite = 0;
    for (int p = 0; p < groups * kGroup; p += kLanes) {
        Floats axis[N], along[N], sum = zero;
        to_axes<N>(x + p * N, axis);
        if (u != nullptr) to_axes<N>(u + p * N, along);
        FD_UNROLL_LANES
        for (int i = 0; i < N; ++i) {
            const Floats at = axis[i];
            sum = plus(sum, minus(at, at));  // NaN if one is not finite
            const Mask below = greater(zero, at), above = greater(at, one);
            const bool clamps = bounds == Bounds::clamp;
            store(x_out + i * stride + p, clamps ? pick(above, one, pick(below, zero, at)) : at);
            if (u == nullptr) continue;
            Floats moves = along[i];
            if (clamps) moves = pick(above, zero, pick(below, zero, pick(same(at, at), moves, zero)));
            store(u_out + i * stride + p, moves);
        }
        finite |= bits_of(same(sum, zero)) << (p % kGroup);
        if (p % kGroup == kGroup - kLanes) {
            valid[p / kGroup] = static_cast<uint16_t>(finite);
            finite = 0;
        }
    }
#endif
}

inline void narrow_all(const float* in, int n, half* out) {
#if FD_LEVEL == 0
    for (int i = 0; i < n; ++i) detail::narrow(in[i], out[i]);
#else
    for (int i = 0; i < n; i += 8) {
        const __m128i packed = _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), packed);
    }
#endif
}
inline void widen_all(const half* in, int n, float* out) {
#if FD_LEVEL == 0
    for (int i = 0; i < n; ++i) out[i] = detail::widen(in[i]);
#else
    for (int i = 0; i < n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
#endif
}
inline void narrow_all(const float* in, int n, bfloat16* out) {
    for (int i = 0; i < n; ++i) detail::narrow(in[i], out[i]);
}
inline void widen_all(const bfloat16* in, int n, float* out) {
    for (int i = 0; i < n; ++i) out[i] = detail::widen(in[i]);
}

// Columns [levels][stride][F] to rows [points][levels][F], 16 points at a time.
template <class T, int F>
void write_rows(const float* columns, int stride, int points, int levels, void* out) {
    T* rows = static_cast<T*>(out);
    alignas(64) T narrowed[kGroup * F];
    for (int p = 0; p < points; p += kGroup) {
        const int count = points - p < kGroup ? points - p : kGroup;
        for (int l = 0; l < levels; ++l) {
            const float* column = columns + (static_cast<int64_t>(l) * stride + p) * F;
            const T* from = narrowed;
            if constexpr (sizeof(T) == 4) {
                from = column;
            } else {
                narrow_all(column, kGroup * F, narrowed);
            }
            T* to = rows + (static_cast<int64_t>(p) * levels + l) * F;
            for (int q = 0; q < count; ++q, to += levels * F) memcpy(to, from + q * F, F * sizeof(T));
        }
    }
}

// And back.
template <class T, int F>
void read_rows(const void* in, int stride, int points, int levels, float* columns) {
    const T* rows = static_cast<const T*>(in);
    alignas(64) T packed[kGroup * F] = {};
    for (int p = 0; p < points; p += kGroup) {
        const int count = points - p < kGroup ? points - p : kGroup;
        for (int l = 0; l < levels; ++l) {
            float* column = columns + (static_cast<int64_t>(l) * stride + p) * F;
            const T* from = rows + (static_cast<int64_t>(p) * levels + l) * F;
            for (int q = 0; q < count; ++q, from += levels * F) memcpy(packed + q * F, from, F * sizeof(T));
            if constexpr (sizeof(T) == 4) {
                memcpy(column, packed, sizeof packed);
            } else {
                widen_all(packed, kGroup * F, column);
            }
        }
    }
}
