// Arguments of the random operators, for both backends.
#pragma once

#include <vector>

#include "common/check.h"

namespace fd {

struct RandomCall {
    int64_t samples = 0, elements = 1;  // axis 0, and the rest of it
    bool rng_per_sample = false;
    Tensor rng;

    RandomCall(const std::vector<int64_t>& size, const Tensor& state)
        : rng_per_sample(state.dim() == 2), rng(torch::stable::contiguous(state)) {
        STD_TORCH_CHECK(!size.empty(), "size must have an axis of samples");
        for (const int64_t n : size) STD_TORCH_CHECK(n >= 0, "size must not be negative");
        samples = size[0];
        for (size_t axis = 1; axis < size.size(); ++axis) {
            STD_TORCH_CHECK(!__builtin_mul_overflow(elements, size[axis], &elements), "size is too large");
        }
        STD_TORCH_CHECK(state.scalar_type() == ScalarType::Long, "rng must be int64");
        STD_TORCH_CHECK(rng_per_sample ? state.size(0) == samples && state.size(1) == 3
                                       : state.dim() == 1 && state.size(0) == 2,
                        "rng must be [2] or [B, 3]");
        STD_TORCH_CHECK(rng_per_sample || samples <= int64_t{1} << 32, "at most 2^32 samples");
    }

    const int64_t* rng_data() const { return rng.const_data_ptr<int64_t>(); }
};

}  // namespace fd
