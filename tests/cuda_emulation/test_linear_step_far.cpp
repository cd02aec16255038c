// Index arithmetic of the CUDA kernel beyond 2^31 elements, ring slots beyond 2^33, Philox blocks beyond
// 2^28: what one thread does, for the threads at the end.
#include "cpp/far_step.h"
#include "linear_step/linear_step_cuda.cu"

using namespace fd::linear_step;

template <class T, int V>
void last_vectors(const StepArgs& a) {
    Coefficients<float> c{};
    for (int k = 0; k < kCoef; ++k) load_value(a, 1, k, c);
    load_rest(a, 1, c);
    find_used_columns(a, c);
    for (int64_t p = a.sample - 2400; p < a.sample; p += V) {
        DeviceIo<float, T, T, float, V> io{a, c, 1, p};
        step_tile<false, true>(a, c, io);
    }
}

FD_TEST(far_float32) {
    FarStep(fd::DType::f32, fd::DType::f32, fd::DType::f32).check(last_vectors<float, 4>);
}
FD_TEST(far_bfloat16) {
    FarStep(fd::DType::bf16, fd::DType::bf16, fd::DType::f32).check(last_vectors<fd::bfloat16, 8>);
}

FD_TEST_MAIN()
