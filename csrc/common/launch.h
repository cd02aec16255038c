// How a .cu file launches its kernels. Included by .cu files only; knows no torch, so they compile in seconds
// and their launchers run in programs without torch. With FD_CUDA_EMULATION the same text runs on the host
// (tests/cuda_emulation).
//
//   template <class T>
//   __global__ void scale(T* out, const T* x, float a, int64_t n) { ... }
//
//   void scale_cuda(void* stream, float* out, const float* x, float a, int64_t n) {
//       fd::launch(scale<float>, fd::stride_grid(n, 256, 8), 256, 0, stream, out, x, a, n);
//   }
#pragma once

#include <cuda_runtime.h>  // the emulation's, where its folder comes first

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "common/portable.h"

namespace fd {

inline void cuda_check(cudaError_t error, const char* what, const char* file, int line) {
    if (error == cudaSuccess) return;
    throw std::runtime_error(std::string("CUDA error: ") + cudaGetErrorString(error) + " (" + what + ", " +
                             file + ":" + std::to_string(line) + ")");
}

// Not torch's STD_CUDA_CHECK: that one needs a symbol which a CPU build of torch does not have.
#define FD_CUDA_CHECK(call) ::fd::cuda_check((call), #call, __FILE__, __LINE__)

// The block's dynamic shared memory (`shared_bytes` of the launch), aligned to 16 bytes. Kernels that carve
// several arrays out of it put the widest type first.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
    static_assert(alignof(T) <= 16, "dynamic shared memory is aligned to 16 bytes");
#if defined(FD_CUDA_EMULATION)
    return static_cast<T*>(emulation::dynamic_shared_memory());
#else
    extern __shared__ __align__(16) unsigned char fd_dynamic_shared[];
    return reinterpret_cast<T*>(fd_dynamic_shared);
#endif
}

// A grid for a grid-stride loop over `work` items by blocks of `threads`: never more blocks than there is
// work for, nor more than `blocks_per_sm` on each multiprocessor; no blocks (and so no launch) for no work.
inline dim3 stride_grid(int64_t work, int threads, int blocks_per_sm) {
    int device = 0, processors = 0;
    FD_CUDA_CHECK(cudaGetDevice(&device));
    FD_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
    const int64_t blocks =
        std::min((work + threads - 1) / threads, static_cast<int64_t>(processors) * blocks_per_sm);
    return dim3(static_cast<unsigned>(std::max<int64_t>(blocks, 0)));
}

// Launches `kernel` on a cudaStream_t that came through torch's side as void*. Arguments are converted to the
// kernel's parameter types, an empty grid launches nothing, and a failed launch throws std::runtime_error.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, void* stream,
            Args... args) {
    static_assert(sizeof...(Params) == sizeof...(Args), "one argument for each parameter of the kernel");
    static_assert((std::is_trivially_copyable_v<Params> && ...), "kernel arguments are copied as bytes");
    static_assert((sizeof(Params) + ... + 0) <= 4096, "kernel arguments are limited to 4 KiB");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#if defined(FD_CUDA_EMULATION)
    (void)stream;
    emulation::run(grid, block, shared_bytes, [&] { kernel(static_cast<Params>(args)...); });
#else
    constexpr size_t kDefaultLimit = 48 * 1024;  // more has to be asked for
    if (shared_bytes > kDefaultLimit) {
        FD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(shared_bytes)));
    }
    kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(static_cast<Params>(args)...);
    FD_CUDA_CHECK(cudaGetLastError());
#endif
}

}  // namespace fd
