// Launchers of hitting_cuda.cu. Pointers are device memory; matrices [batch, length] are contiguous unless
// they carry strides; batch and length are below 2^31.
#pragma once

#include "hitting/hitting.h"

namespace fd::hitting {

// Bytes of scratch memory, aligned to 16, that sorting needs: 0 where shared memory will do.
int64_t sort_scratch(int64_t batch, int64_t length);

void first_hitting_times_cuda(void* stream, const bool* mask, const Sequences& sequences, int64_t batch,
                              int64_t length, int32_t* order, double* u, int32_t* count,
                              unsigned char* scratch);

void reveal_steps_cuda(void* stream, const bool* mask, const Sequences& sequences, int64_t batch,
                       int64_t length, const double* mask_prob, int64_t points, int32_t* steps);

void select_transfer_cuda(void* stream, const Selection& selection, int64_t batch, bool* chosen,
                          unsigned char* scratch);

void remask_cuda(void* stream, int64_t* tokens, const int64_t token_stride[2], const Reals& prob,
                 const bool* eligible, int64_t mask_id, const Sequences& sequences, int64_t batch,
                 int64_t length, bool* remasked);

}  // namespace fd::hitting
