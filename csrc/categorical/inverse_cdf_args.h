// Tensors to pointers for inverse_cdf, for both backends.
#pragma once

#include "categorical/categorical_args.h"
#include "categorical/inverse_cdf.h"

namespace fd::categorical {

struct InverseCdfCall {
    InverseCdfArgs args{};
    TensorOwner owner;

    InverseCdfCall(const Tensor& probs, const Tensor& rng, const OptionalTensor& row_ids) {
        STD_TORCH_CHECK(probs.dim() == 2, "probs must be [R, V]");
        args.dtype = dtype_of_tensor(probs, "probs");
        args.rows = probs.size(0);
        args.vocab = probs.size(1);
        STD_TORCH_CHECK(args.vocab >= 1 && args.vocab <= kMaxVocab, "probs must have 1 to 2^28 columns");
        STD_TORCH_CHECK(args.vocab == 1 || probs.stride(1) == 1, "the last axis of probs must be dense");
        args.probs = probs.data_ptr();
        args.row_stride = probs.stride(0);
        CategoricalArgs place{};
        bind_rng(rng, probs, args.rows, place, owner);
        args.rng = place.rng;
        args.rng_per_row = place.rng_per_row;
        if (row_ids.has_value()) {
            STD_TORCH_CHECK(row_ids->dim() == 1 && row_ids->size(0) == args.rows, "row_ids must be [",
                            args.rows, "]");
            args.row_ids = owner.data<int64_t>(*row_ids, probs, ScalarType::Long, "row_ids");
        }
    }

    Tensor result(const Tensor& probs) const {
        return torch::stable::new_empty(probs, {args.rows}, ScalarType::Long);
    }
};

}  // namespace fd::categorical
