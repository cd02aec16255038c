// The emulation's own test kernels: clean ones, and ones with a planted bug that must be reported.
#pragma once

#include <cstdint>

#include "common/portable.h"

namespace fd {

void axpby_cuda(float* out, const float* x, const float* y, float a, float b, int64_t n);
void axpby_cuda(half* out, const half* x, const half* y, float a, float b, int64_t n);
// One sum a block of 256 threads: shuffles inside the warps, shared memory between them.
void block_sums_cuda(double* sums, const float* x, int64_t n, int blocks);
void histogram_cuda(unsigned* counts, unsigned* warp_leaders, const int* keys, int64_t n);
void reverse_cuda(int* out, const int* x, int n);  // dynamic shared memory, 2-D block
// results: 16 unsigned a lane, what each warp primitive gave.
void warp_primitives_cuda(unsigned* results, int threads);
void intrinsics_cuda(double* results);
void launch_cuda(unsigned blocks, unsigned threads, unsigned shared_bytes);

void planted_read_past_end(float* out, const float* x, int64_t n);
void planted_write_past_dynamic(float* out);
void planted_index_past_static(float* out, int n);
void planted_misaligned(float* out, const float* x);
void planted_missing_barrier(float* out, const float* x);
void planted_missing_warp_barrier(float* out, const float* x);
void planted_divergent_barrier(float* out);
void planted_early_return(float* out);
void planted_two_barriers(float* out);
void planted_wrong_mask(float* out);
void planted_nested_launch(float* out);
void planted_throw(float* out);
void planted_stack_overflow(float* out, int depth);

}  // namespace fd
