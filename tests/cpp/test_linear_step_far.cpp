// Index arithmetic of the CPU kernel beyond 2^31 elements, ring slots beyond 2^33, Philox blocks beyond 2^28.
#include "cpp/far_step.h"
#include "linear_step/linear_step_cpu.cpp"  // its tiles, not its operators

using namespace fd::linear_step;

template <class Acc>
void last_tiles(const StepArgs& a) {
    const int64_t per_sample = (a.sample + kTile<Acc> - 1) / kTile<Acc>;
    run_tiles<Acc, false>(a, 2 * per_sample - 4, 2 * per_sample);
}

FD_TEST(far_float32) { FarStep(fd::DType::f32, fd::DType::f32, fd::DType::f32).check(last_tiles<float>); }
FD_TEST(far_bfloat16) { FarStep(fd::DType::bf16, fd::DType::bf16, fd::DType::f32).check(last_tiles<float>); }

FD_TEST_MAIN()
