// Launcher of abs_quantile_cuda.cu.
#pragma once

#include "linear_step/abs_quantile.h"

namespace fd::linear_step {

// 64-bit words of scratch memory, zero at the start, that a call needs; 0 for small samples.
int64_t quantile_scratch(const QuantileArgs& args, bool wide);

// out [samples], float or double by `wide`. A sample with a NaN gives NaN.
void abs_quantile_cuda(void* stream, const QuantileArgs& args, const QuantileRank& rank, bool wide,
                       double floor, double cap, void* out, unsigned long long* scratch);

}  // namespace fd::linear_step
