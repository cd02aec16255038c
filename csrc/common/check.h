// Checks of operator arguments at the C++ border, and dense memory orders.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <array>
#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "common/dtype.h"

#ifndef FD_NAMESPACE
#define FD_NAMESPACE fastdiff_ops
#endif

namespace fd {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr int kMaxDims = 12;

template <class... Parts>
[[noreturn]] void throw_value_error(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    throw std::invalid_argument(text.str());
}

// A user's mistake: arrives in Python as ValueError with this text. Not inside parallel_for, which loses it.
#define FD_CHECK_VALUE(condition, ...)                          \
    do {                                                        \
        if (!(condition)) ::fd::throw_value_error(__VA_ARGS__); \
    } while (0)

inline DType dtype_of_tensor(const Tensor& t, const char* name) {
    switch (t.scalar_type()) {
        case ScalarType::Half:
            return DType::f16;
        case ScalarType::BFloat16:
            return DType::bf16;
        case ScalarType::Float:
            return DType::f32;
        case ScalarType::Double:
            return DType::f64;
        default:
            STD_TORCH_CHECK(false, name, " must be float16, bfloat16, float32 or float64");
    }
    return DType::f32;
}

inline bool same_sizes(const Tensor& a, const Tensor& b, int64_t skip_of_a = 0) {
    const auto sa = a.sizes(), sb = b.sizes();
    if (sa.size() != sb.size() + skip_of_a) return false;
    for (size_t i = 0; i < sb.size(); ++i) {
        if (sa[i + skip_of_a] != sb[i]) return false;
    }
    return true;
}

inline void check_same_device(const Tensor& t, const Tensor& x, const char* name) {
    STD_TORCH_CHECK(t.is_cuda() == x.is_cuda() && t.get_device() == x.get_device(), name,
                    " must be on the device of x");
}

// The dense orders that kernels work in: row-major, or channels-last behind the batch axis.
struct DenseOrder {
    bool channels_last = false;

    // Strides of a tensor of these sizes, whose first `leading` axes stand in front of the batch axis.
    std::array<int64_t, kMaxDims> strides(torch::headeronly::IntHeaderOnlyArrayRef sizes,
                                          int leading = 0) const {
        std::array<int64_t, kMaxDims> s{};
        const int dims = static_cast<int>(sizes.size()), channel = leading + 1;
        int64_t stride = 1;
        if (channels_last) {
            s[channel] = 1;
            stride = sizes[channel] > 0 ? sizes[channel] : 1;
        }
        for (int d = dims - 1; d >= 0; --d) {
            if (channels_last && d == channel) continue;
            s[d] = stride;
            stride *= sizes[d] > 0 ? sizes[d] : 1;
        }
        return s;
    }

    bool holds(const Tensor& t, int leading = 0) const {
        if (t.numel() == 0) return true;
        const auto sizes = t.sizes(), strides_now = t.strides();
        const auto wanted = strides(sizes, leading);
        for (size_t d = 0; d < sizes.size(); ++d) {
            if (sizes[d] != 1 && strides_now[d] != wanted[d]) return false;
        }
        return true;
    }
};

// Channels-last when x is stored so (4-d or 5-d), else row-major.
inline DenseOrder order_of(const Tensor& x) {
    if (x.is_contiguous()) return {};
    const DenseOrder last{true};
    return x.dim() >= 4 && x.dim() <= 5 && last.holds(x) ? last : DenseOrder{};
}

inline Tensor empty_dense(torch::headeronly::IntHeaderOnlyArrayRef sizes, ScalarType dtype,
                          const Tensor& like, DenseOrder order, int leading = 0) {
    const auto strides = order.strides(sizes, leading);
    int32_t type = 0, device_type = 0, device_index = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
    type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                                    strides.data(), type, device_type, device_index,
                                                    &handle));
    return Tensor(handle);
}

// t itself when it has the order, else one copy.
inline Tensor in_order(const Tensor& t, DenseOrder order, int leading = 0) {
    if (order.holds(t, leading)) return t;
    Tensor copy = empty_dense(t.sizes(), t.scalar_type(), t, order, leading);
    torch::stable::copy_(copy, t);
    return copy;
}

}  // namespace fd
