// random_normal and random_uniform on CUDA: out[s, e] = element e of the stream of sample s.
//
// Roofline. The only traffic is the output: 4 bytes a float. A block of 4 normals takes about 20 wide
// multiplications, 40 logical operations and 90 float instructions (two Box-Muller), some 40 issue slots a
// number. At 28e12 slots/s and 3.3 TB/s (H100) that is 0.75e12 float32 normals/s against 0.83e12 for memory:
// balanced; half types are bound by arithmetic, uniforms and float64 by memory. So a thread makes one 16-byte
// store a turn and whole blocks only, and no division is left in the loop.
#include <algorithm>
#include <type_traits>

#include "common/launch.h"
#include "random/random.h"
#include "random/random_launch.h"

namespace fd {
namespace {

constexpr int kThreads = 256;

struct Normals {
    static constexpr StreamTag kTag = StreamTag::normal;
    template <class T>
    static constexpr int kPerBlock = 4;

    template <class T>
    FD_HOST_DEVICE static void block(const PhiloxStream& stream, uint64_t b, T* out) {
        float z[4];
        normals_of_block(stream, b, z);
        FD_UNROLL
        for (int i = 0; i < 4; ++i) out[i] = static_cast<T>(z[i]);
    }
};

struct Uniforms {
    static constexpr StreamTag kTag = StreamTag::uniform;
    template <class T>
    static constexpr int kPerBlock = std::is_same_v<T, double> ? 2 : 4;

    template <class T>
    FD_HOST_DEVICE static void block(const PhiloxStream& stream, uint64_t b, T* out) {
        const PhiloxWords p = stream.block(b);
        if constexpr (std::is_same_v<T, double>) {
            out[0] = uniform_of(p.w[0], p.w[1]);
            out[1] = uniform_of(p.w[2], p.w[3]);
        } else {
            FD_UNROLL
            for (int i = 0; i < 4; ++i) out[i] = static_cast<T>(uniform_of<T>(p.w[i]));
        }
    }
};

// A group is what one thread writes in one turn: whole blocks and whole 16-byte stores.
template <class Kind, class T>
constexpr int kGroup = std::max<int>(16 / sizeof(T), Kind::template kPerBlock<T>);

struct Place {
    int64_t sample, group;
};

template <class Kind, class T>
__global__ void __launch_bounds__(kThreads)
    fill(T* __restrict__ out, const int64_t* __restrict__ rng, bool rng_per_sample, int64_t samples,
         int64_t elements, int64_t groups, Place stride) {
    constexpr int kSize = kGroup<Kind, T>, kPerBlock = Kind::template kPerBlock<T>, kVec = 16 / sizeof(T);
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    Place at{thread / groups, thread % groups};
    const bool aligned = elements % kVec == 0;
    while (at.sample < samples) {
        const int64_t* r = rng_per_sample ? rng + 3 * at.sample : rng;
        const PhiloxStream stream(Kind::kTag, static_cast<uint64_t>(r[0]), static_cast<uint32_t>(r[1]),
                                  static_cast<uint64_t>(rng_per_sample ? r[2] : at.sample));
        alignas(16) T values[kSize];
        FD_UNROLL
        for (int i = 0; i < kSize / kPerBlock; ++i) {
            Kind::block(stream, static_cast<uint64_t>(at.group * (kSize / kPerBlock) + i),
                        values + i * kPerBlock);
        }
        const int64_t first = at.group * kSize;
        T* place = out + at.sample * elements + first;
        if (aligned && first + kSize <= elements) {
            FD_UNROLL
            for (int i = 0; i < kSize; i += kVec) {
                Vec<T, kVec> packed;
                FD_UNROLL
                for (int j = 0; j < kVec; ++j) packed.v[j] = values[i + j];
                *reinterpret_cast<Vec<T, kVec>*>(place + i) = packed;
            }
        } else {
            FD_UNROLL
            for (int i = 0; i < kSize; ++i) {
                if (first + i < elements) place[i] = values[i];
            }
        }
        at.sample += stride.sample;
        at.group += stride.group;
        if (at.group >= groups) {
            at.group -= groups;
            ++at.sample;
        }
    }
}

template <class Kind, class T>
void fill_cuda(void* stream, T* out, const int64_t* rng, bool rng_per_sample, int64_t samples,
               int64_t elements) {
    if (samples == 0 || elements == 0) return;
    const int64_t groups = (elements + kGroup<Kind, T> - 1) / kGroup<Kind, T>;
    const dim3 grid = stride_grid(samples * groups, kThreads, 8);
    const int64_t threads = static_cast<int64_t>(grid.x) * kThreads;
    launch(fill<Kind, T>, grid, kThreads, 0, stream, out, rng, rng_per_sample, samples, elements, groups,
           Place{threads / groups, threads % groups});
}

}  // namespace

template <class T>
void random_normal_cuda(void* stream, T* out, const int64_t* rng, bool rng_per_sample, int64_t samples,
                        int64_t elements) {
    fill_cuda<Normals>(stream, out, rng, rng_per_sample, samples, elements);
}

template <class T>
void random_uniform_cuda(void* stream, T* out, const int64_t* rng, bool rng_per_sample, int64_t samples,
                         int64_t elements) {
    fill_cuda<Uniforms>(stream, out, rng, rng_per_sample, samples, elements);
}

#define FD_INSTANTIATE(T)                                                                   \
    template void random_normal_cuda<T>(void*, T*, const int64_t*, bool, int64_t, int64_t); \
    template void random_uniform_cuda<T>(void*, T*, const int64_t*, bool, int64_t, int64_t);
FD_INSTANTIATE(float)
FD_INSTANTIATE(double)
FD_INSTANTIATE(half)
FD_INSTANTIATE(bfloat16)
#undef FD_INSTANTIATE

}  // namespace fd
