// Launcher of the solver step on raw device pointers; throws std::runtime_error on a CUDA error.
#pragma once

#include "linear_step/linear_step.h"

namespace fd::linear_step {

// One kernel launch on `stream` (a cudaStream_t); nothing is launched for an empty call.
void solver_step_cuda(void* stream, const StepArgs& args);

}  // namespace fd::linear_step
