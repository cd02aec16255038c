// Registers the random operators for CUDA.
#include "common/device.h"
#include "random/random_args.h"
#include "random/random_launch.h"

namespace fd {
namespace {

struct Normals {
    template <class T, class... Args>
    static void run(Args... args) {
        random_normal_cuda<T>(args...);
    }
};

struct Uniforms {
    template <class T, class... Args>
    static void run(Args... args) {
        random_uniform_cuda<T>(args...);
    }
};

template <class Kind, class T>
void run(const RandomCall& call, Tensor& out) {
    Kind::template run<T>(current_stream(out), static_cast<T*>(out.data_ptr()), call.rng_data(),
                          call.rng_per_sample, call.samples, call.elements);
}

template <class Kind>
Tensor random(const std::vector<int64_t>& size, const Tensor& rng, ScalarType dtype) {
    const DeviceGuard guard(rng);
    const RandomCall call(size, rng);
    Tensor out = torch::stable::new_empty(rng, size, dtype);
    switch (dtype_of_tensor(out, "dtype")) {
        case DType::f16:
            run<Kind, half>(call, out);
            break;
        case DType::bf16:
            run<Kind, bfloat16>(call, out);
            break;
        case DType::f32:
            run<Kind, float>(call, out);
            break;
        case DType::f64:
            run<Kind, double>(call, out);
            break;
    }
    return out;
}

}  // namespace
}  // namespace fd

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) {
    m.impl("random_normal", TORCH_BOX(&fd::random<fd::Normals>));
    m.impl("random_uniform", TORCH_BOX(&fd::random<fd::Uniforms>));
}
