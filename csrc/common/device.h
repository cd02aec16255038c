// What a *_cuda_bind.cpp needs of torch's CUDA side, without linking to it: the module must load where torch
// has no CUDA.
//
//   Tensor scale(const Tensor& x, double a) {
//       fd::DeviceGuard guard(x);
//       Tensor out = torch::stable::empty_like(x);
//       scale_cuda(fd::current_stream(x), out.mutable_data_ptr<float>(), x.const_data_ptr<float>(), a,
//       x.numel()); return out;
//   }
//   STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, FD_CUDA_KEY, m) { m.impl("scale", TORCH_BOX(&scale)); }
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

// The emulation registers the CUDA kernels for CPU tensors under a namespace of its own.
#ifndef FD_NAMESPACE
#define FD_NAMESPACE fastdiff_ops
#endif
#ifndef FD_CUDA_KEY
#define FD_CUDA_KEY CUDA
#endif

#if !defined(FD_CUDA_EMULATION)
// Weak: it lives in libtorch_cuda, and every other undefined symbol would stop a CPU-only torch from loading
// the module.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);
#endif

namespace fd {

#if defined(FD_CUDA_EMULATION)

inline void* current_stream(const torch::stable::Tensor&) { return nullptr; }

struct DeviceGuard {
    explicit DeviceGuard(const torch::stable::Tensor&) {}
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;
    ~DeviceGuard() {}  // not trivial: a guard that is never mentioned again is not an unused variable
};

#else

// The cudaStream_t that torch would launch on now, for the device of `t`.
inline void* current_stream(const torch::stable::Tensor& t) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this build of torch has no CUDA");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
    return stream;
}

// Makes the device of `t` the current one for a scope.
class DeviceGuard {
  public:
    explicit DeviceGuard(const torch::stable::Tensor& t) : guard_(t.get_device_index()) {}

  private:
    torch::stable::accelerator::DeviceGuard guard_;
};

#endif

}  // namespace fd
