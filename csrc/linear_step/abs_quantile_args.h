// abs_quantile's tensors to raw pointers, for both backends.
#pragma once

#include <stdexcept>
#include <string>

#include "linear_step/abs_quantile.h"
#include "linear_step/linear_step_args.h"

namespace fd::linear_step {

struct QuantileCall {
    QuantileArgs args{};
    QuantileRank rank{};
    bool wide = false;  // float64 in and out
    Call owner;

    QuantileCall(const Tensor& x, const std::vector<Tensor>& outs, const Tensor& coef, const Tensor& step,
                 const OptionalTensor& weights, double q, double floor, double cap) {
        STD_TORCH_CHECK(x.dim() >= 1 && x.dim() <= kMaxDims, "x must have 1 to ", kMaxDims, " axes");
        if (!(q >= 0 && q <= 1))
            throw std::invalid_argument("`q` must be in [0, 1], got " + std::to_string(q));
        if (!(floor <= cap)) throw std::invalid_argument("`floor` must not be above `cap`");
        args.samples = x.size(0);
        if (args.samples > 0 && x.numel() == 0)
            throw std::invalid_argument("`x` must have at least one element a sample");
        args.elements = args.samples == 0 ? 1 : x.numel() / args.samples;
        args.x_type = args.out_type = dtype_of_tensor(x, "x");
        wide = args.x_type == DType::f64;
        rank = quantile_rank(q, args.elements, wide);

        owner.order = order_of(x);
        args.x = owner.dense(x).data_ptr();
        STD_TORCH_CHECK(outs.size() <= kMaxOuts, "outs must hold at most ", kMaxOuts, " tensors");
        args.n_outs = static_cast<int>(outs.size());
        for (int k = 0; k < args.n_outs; ++k) {
            STD_TORCH_CHECK(same_sizes(outs[k], x), "every model output must have the shape of x");
            STD_TORCH_CHECK(outs[k].scalar_type() == outs[0].scalar_type(),
                            "model outputs must share one dtype");
            check_same_device(outs[k], x, "outs");
            args.out_type = dtype_of_tensor(outs[k], "outs");
            args.outs[k] = owner.dense(outs[k]).data_ptr();
        }
        STD_TORCH_CHECK(
            coef.dim() == 3 && coef.size(2) == kCoef && (coef.size(1) == 1 || coef.size(1) == args.samples),
            "coef must be [E, 1 or B, 64]");
        args.coef = static_cast<const double*>(small(coef, x, "coef", ScalarType::Double, owner));
        args.steps = coef.size(0);
        args.coef_batch = coef.size(1);
        STD_TORCH_CHECK(step.numel() == 1, "step must be one number");
        args.step = static_cast<const int64_t*>(small(step, x, "step", ScalarType::Long, owner));
        STD_TORCH_CHECK(weights.has_value() || args.n_outs <= 1,
                        "weights are required for more than one output");
        if (weights.has_value()) {
            STD_TORCH_CHECK(
                weights->dim() == 4 && (weights->size(0) == 1 || weights->size(0) == args.steps) &&
                    weights->size(1) == 2 && (weights->size(2) == 1 || weights->size(2) == args.samples) &&
                    weights->size(3) == args.n_outs,
                "weights must be [1 or E, 2, 1 or B, number of outputs]");
            args.weights =
                static_cast<const double*>(small(*weights, x, "weights", ScalarType::Double, owner));
            args.weight_steps = weights->size(0);
            args.weight_batch = weights->size(2);
        }
    }

    Tensor result(const Tensor& x) const {
        return torch::stable::new_empty(x, {args.samples}, wide ? ScalarType::Double : ScalarType::Float);
    }
};

}  // namespace fd::linear_step
