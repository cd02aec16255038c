// Launcher of slice_cuda.cu. Pointers are device memory.
#pragma once

#include "tsp/slice.h"

namespace fd::tsp::slice {

// Whether tours of n cities fit the shared memory of the current device.
bool fits_shared(int32_t n);

// int32 words of scratch memory that tours in global memory need.
int64_t scratch_words(int64_t batch, int64_t trajectories, int32_t n);

// Tours in shared memory: candidates are uint16 and fits_shared(n).
void search_shared_cuda(void* stream, const Args& args);

// Tours in global memory: candidates are int32.
void search_global_cuda(void* stream, const Args& args, int32_t* scratch);

}  // namespace fd::tsp::slice
