// Launcher of inverse_cdf_cuda.cu.
#pragma once

#include "categorical/inverse_cdf.h"

namespace fd::categorical {

// out [rows]; sums: scratch memory for rows * tiles() numbers.
void inverse_cdf_cuda(void* stream, const InverseCdfArgs& args, double* sums, int64_t* out);

}  // namespace fd::categorical
