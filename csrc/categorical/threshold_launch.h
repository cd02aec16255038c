// Launchers of threshold_cuda.cu.
#pragma once

#include "categorical/threshold.h"

namespace fd::categorical {

// out [rows], float or double (float64 logits); shares [rows] if args.kept.
void sampling_threshold_cuda(void* stream, const ThresholdArgs& args, void* out, double* shares);

// out [rows, 2, kRadixBins], zero at the start; row_max as `out` above, prefixes [rows, 2].
void threshold_histogram_cuda(void* stream, const ThresholdArgs& args, const void* row_max,
                              const int64_t* prefixes, int pass, int64_t* out);

}  // namespace fd::categorical
