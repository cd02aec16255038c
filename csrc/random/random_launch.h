// Launchers of random_cuda.cu; T is float, double, half or bfloat16.
#pragma once

#include <cstdint>

namespace fd {

// `out` [samples, elements], contiguous, aligned as torch's allocators do (16 bytes or more).
// `rng` on the device: (seed, draw), or with `rng_per_sample` [samples] times (seed, draw, sample id).
template <class T>
void random_normal_cuda(void* stream, T* out, const int64_t* rng, bool rng_per_sample, int64_t samples,
                        int64_t elements);
template <class T>
void random_uniform_cuda(void* stream, T* out, const int64_t* rng, bool rng_per_sample, int64_t samples,
                         int64_t elements);

}  // namespace fd
