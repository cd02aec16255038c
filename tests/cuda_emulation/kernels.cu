#include "common/launch.h"
#include "kernels.h"

namespace fd {
namespace {

constexpr unsigned kAll = 0xffffffffu;

template <class T>
__global__ void __launch_bounds__(256) axpby(T* __restrict__ out, const T* __restrict__ x,
                                             const T* __restrict__ y, float a, float b, int64_t n) {
    constexpr int kN = 16 / sizeof(T);
    using V = Vec<T, kN>;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = first; i < n / kN; i += stride) {
        const V vx = reinterpret_cast<const V*>(x)[i], vy = reinterpret_cast<const V*>(y)[i];
        V vo;
#pragma unroll
        for (int k = 0; k < kN; ++k) vo.v[k] = T(fma(a, float(vx.v[k]), b * float(vy.v[k])));
        reinterpret_cast<V*>(out)[i] = vo;
    }
    for (int64_t i = n / kN * kN + first; i < n; i += stride)
        out[i] = T(fma(a, float(x[i]), b * float(y[i])));
}

__global__ void block_sums(double* sums, const float* x, int64_t n) {
    __shared__ double part[8];
    double sum = 0.0;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        sum += static_cast<double>(__ldg(x + i));
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_down_sync(kAll, sum, lanes);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < 8 ? part[threadIdx.x] : 0.0;
        for (int lanes = 4; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAll, sum, lanes);
        if (threadIdx.x == 0) sums[blockIdx.x] = sum;
    }
}

// Lanes with one key count once, through the lane that __match_any_sync makes their leader.
__global__ void histogram(unsigned* counts, unsigned* leaders, const int* keys, int64_t n) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned here = __activemask();
    const unsigned equal = __match_any_sync(here, keys[i]);
    if (static_cast<int>(threadIdx.x % 32) == __ffs(static_cast<int>(equal)) - 1) {
        atomicAdd(counts + keys[i], static_cast<unsigned>(__popc(equal)));
        atomicInc(leaders, kAll);
    }
}

__global__ void reverse(int* out, const int* x, int n) {
    int* held = dynamic_shared<int>();
    const int i = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
    held[i] = x[i];
    const int seen = __syncthreads_count(held[i] >= 0);
    out[i] = seen == n ? held[n - 1 - i] : -1;
}

__global__ void warp_primitives(unsigned* results) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const unsigned warp_lanes = __ballot_sync(kAll, 1);
    unsigned* r = results + threadIdx.x * 16;
    r[0] = static_cast<unsigned>(__shfl_sync(kAll, lane, 5));
    r[1] = static_cast<unsigned>(__shfl_sync(kAll, lane, 9, 8));
    r[2] = static_cast<unsigned>(__shfl_up_sync(kAll, lane, 3, 16));
    r[3] = static_cast<unsigned>(__shfl_down_sync(kAll, lane, 3, 16));
    r[4] = static_cast<unsigned>(__shfl_xor_sync(kAll, lane, 4));
    r[5] = __ballot_sync(kAll, lane % 3 == 0);
    r[6] = static_cast<unsigned>(__any_sync(kAll, lane == 31));
    r[7] = static_cast<unsigned>(__all_sync(kAll, lane < 32));
    r[8] = __match_any_sync(kAll, lane / 4);
    int equal = 0;
    r[9] = __match_all_sync(kAll, 7, &equal);
    r[10] = __reduce_add_sync(kAll, static_cast<unsigned>(lane));
    r[11] = static_cast<unsigned>(__reduce_min_sync(kAll, -lane));
    r[12] = __reduce_xor_sync(kAll, 1u << lane);
    // Halves of a warp that meet by themselves, in different code.
    if (lane < 16) {
        r[13] = static_cast<unsigned>(__shfl_xor_sync(0xffffu, lane, 1));
        r[14] = __activemask();
    } else {
        __syncwarp(0xffff0000u);
        r[13] = 100;
        r[14] = __activemask();
    }
    r[15] = warp_lanes;
}

__global__ void intrinsics(double* r) {
    int i = 0;
    r[i++] = __fmaf_rn(3.0f, 5.0f, 1.0f);
    r[i++] = __fma_rn(1.0 + 0x1p-30, 1.0 - 0x1p-30, -1.0);
    r[i++] = __fsqrt_rn(2.25f);
    r[i++] = static_cast<double>(__umul64hi(1ull << 40, 1ull << 40));
    r[i++] = __umulhi(1u << 31, 6u);
    r[i++] = __clz(1);
    r[i++] = __clz(0);
    r[i++] = __clzll(1);
    r[i++] = __ffs(8);
    r[i++] = __ffsll(1ll << 40);
    r[i++] = __ffs(0);
    r[i++] = __popc(0xf0f0u);
    r[i++] = __popcll(~0ull);
    r[i++] = __brev(1u);
    r[i++] = __uint_as_float(0x3f800000u);
    r[i++] = __longlong_as_double(__double_as_longlong(-2.5));
    r[i++] = __float2int_rn(2.5f);
    r[i++] = __float2uint_rz(-3.0f);
    r[i++] = __float2int_rz(3e10f);
    r[i++] = __funnelshift_l(0x80000000u, 1u, 1);
    r[i++] = __funnelshift_r(0x80000000u, 1u, 31);
    r[i++] = __saturatef(1.5f);
    unsigned u = 5;
    r[i++] = atomicDec(&u, 9);
    r[i++] = atomicInc(&u, 4);
    r[i++] = u;
    int s = -3;
    r[i++] = atomicMax(&s, 4) + 10 * s;
    unsigned long long w = 1;
    atomicCAS(&w, 1, 7);
    atomicOr(&w, 8);
    r[i++] = static_cast<double>(w);
    double d = 0.5;
    atomicAdd(&d, 0.25);
    r[i++] = d;
}

__global__ void nothing() {}

// ---- planted bugs

__global__ void read_past_end(float* out, const float* x, int64_t n) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) out[i] = x[i + 1];
}

__global__ void write_past_dynamic(float* out) {
    float* held = dynamic_shared<float>();
    held[threadIdx.x + 1] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = held[threadIdx.x];
}

__global__ void index_past_static(float* out, int n) {
    __shared__ float held[64];
    for (int i = static_cast<int>(threadIdx.x); i <= n; i += static_cast<int>(blockDim.x)) held[i] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = held[threadIdx.x];
}

__global__ void misaligned(float* out, const float* x) {
    const Vec<float, 4> v = *reinterpret_cast<const Vec<float, 4>*>(x + 1);
    out[threadIdx.x] = v.v[threadIdx.x % 4];
}

__global__ void missing_barrier(float* out, const float* x) {
    __shared__ float part[256];
    part[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (int i = 0; i < 256; ++i) sum += part[i];
        out[0] = sum;
    }
}

__global__ void missing_warp_barrier(float* out, const float* x) {
    __shared__ float part[32];
    part[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    const float neighbour = part[(threadIdx.x + 1) % 32];
    part[threadIdx.x] = neighbour;  // the neighbour may not have been read by its own reader yet
    __syncwarp();
    out[threadIdx.x] = part[threadIdx.x];
}

__global__ void divergent_barrier(float* out) {
    if (threadIdx.x % 32 < 16) __syncthreads();
    out[threadIdx.x] = 1.0f;
}

__global__ void early_return(float* out) {
    if (threadIdx.x >= 40) return;
    out[threadIdx.x] = __shfl_down_sync(kAll, 1.0f, 1);
}

__global__ void two_barriers(float* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1.0f;
}

__global__ void wrong_mask(float* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 0); }

#if defined(FD_CUDA_EMULATION)  // nvcc refuses it itself
__global__ void nested_launch(float* out) { launch(nothing, 1, 1, 0, nullptr); }
#endif

__global__ void throws(float* out) {
    __syncthreads();
    if (threadIdx.x == 3) __trap();
    __syncthreads();
}

__device__ __attribute__((noinline)) float recurse(int depth) {
    volatile float frame[256];
    frame[0] = static_cast<float>(depth);
    return depth > 0 ? recurse(depth - 1) + frame[0] : frame[0];
}
__global__ void stack_overflow(float* out, int depth) { out[threadIdx.x] = recurse(depth); }

}  // namespace

void axpby_cuda(float* out, const float* x, const float* y, float a, float b, int64_t n) {
    launch(axpby<float>, stride_grid(n / 4 + 1, 256, 2), 256, 0, nullptr, out, x, y, a, b, n);
}
void axpby_cuda(half* out, const half* x, const half* y, float a, float b, int64_t n) {
    launch(axpby<half>, stride_grid(n / 8 + 1, 256, 2), 256, 0, nullptr, out, x, y, a, b, n);
}
void block_sums_cuda(double* sums, const float* x, int64_t n, int blocks) {
    launch(block_sums, static_cast<unsigned>(blocks), 256, 0, nullptr, sums, x, n);
}
void histogram_cuda(unsigned* counts, unsigned* warp_leaders, const int* keys, int64_t n) {
    launch(histogram, static_cast<unsigned>((n + 63) / 64), 64, 0, nullptr, counts, warp_leaders, keys, n);
}
void reverse_cuda(int* out, const int* x, int n) {
    launch(reverse, 1, dim3(8, static_cast<unsigned>(n) / 8), static_cast<size_t>(n) * sizeof(int), nullptr,
           out, x, n);
}
void warp_primitives_cuda(unsigned* results, int threads) {
    launch(warp_primitives, 1, static_cast<unsigned>(threads), 0, nullptr, results);
}
void intrinsics_cuda(double* results) { launch(intrinsics, 1, 1, 0, nullptr, results); }
void launch_cuda(unsigned blocks, unsigned threads, unsigned shared_bytes) {
    launch(nothing, blocks, threads, shared_bytes, nullptr);
}

void planted_read_past_end(float* out, const float* x, int64_t n) {
    launch(read_past_end, 2, 64, 0, nullptr, out, x, n);
}
void planted_write_past_dynamic(float* out) {
    launch(write_past_dynamic, 1, 64, 64 * sizeof(float), nullptr, out);
}
void planted_index_past_static(float* out, int n) { launch(index_past_static, 1, 32, 0, nullptr, out, n); }
void planted_misaligned(float* out, const float* x) { launch(misaligned, 1, 32, 0, nullptr, out, x); }
void planted_missing_barrier(float* out, const float* x) {
    launch(missing_barrier, 1, 256, 0, nullptr, out, x);
}
void planted_missing_warp_barrier(float* out, const float* x) {
    launch(missing_warp_barrier, 1, 32, 0, nullptr, out, x);
}
void planted_divergent_barrier(float* out) { launch(divergent_barrier, 1, 64, 0, nullptr, out); }
void planted_early_return(float* out) { launch(early_return, 1, 64, 0, nullptr, out); }
void planted_two_barriers(float* out) { launch(two_barriers, 1, 64, 0, nullptr, out); }
void planted_wrong_mask(float* out) { launch(wrong_mask, 1, 32, 0, nullptr, out); }
#if defined(FD_CUDA_EMULATION)
void planted_nested_launch(float* out) { launch(nested_launch, 1, 1, 0, nullptr, out); }
#endif
void planted_throw(float* out) { launch(throws, 1, 64, 0, nullptr, out); }
void planted_stack_overflow(float* out, int depth) { launch(stack_overflow, 1, 32, 0, nullptr, out, depth); }

}  // namespace fd

// For Python, to show that the memory of torch's tensors is watched too.
extern "C" __attribute__((visibility("default"))) void fastdiff_ops_emulation_read_past_end(float* out,
                                                                                            const float* x,
                                                                                            int64_t n) {
    fd::planted_read_past_end(out, x, n);
}
