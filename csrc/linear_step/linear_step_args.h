// Tensors to pointers for the step operators, shared by the CPU and the CUDA binding.
#pragma once

#include "common/check.h"
#include "linear_step/linear_step.h"

namespace fd::linear_step {

// A checked call: the pointers, and the tensors that own what they point to.
struct Call {
    StepArgs args{};
    DenseOrder order;
    std::vector<Tensor> owned;  // copies of what was not dense, and the coefficient tensors

    Tensor dense(const Tensor& t, int leading = 0) {
        if (order.holds(t, leading)) return t;
        owned.push_back(in_order(t, order, leading));
        return owned.back();
    }
};

inline const void* small(const Tensor& t, const Tensor& x, const char* name, ScalarType type, Call& call) {
    STD_TORCH_CHECK(t.scalar_type() == type, name, " has the wrong dtype");
    check_same_device(t, x, name);
    if (t.is_contiguous()) return t.data_ptr();
    call.owned.push_back(torch::stable::contiguous(t));
    return call.owned.back().data_ptr();
}

// Element coefficients repeat along a sample as (e / inner) % period; shapes that do not are written out
// once.
inline void bind_elements(const Tensor& elem, const Tensor& elem_map, const Tensor& x, Call& call) {
    StepArgs& a = call.args;
    const int tail = static_cast<int>(elem.dim()) - 2, sample_dims = static_cast<int>(x.dim()) - 1;
    STD_TORCH_CHECK(tail >= 0 && tail <= sample_dims,
                    "elem must be [steps, n, *S'] with S' broadcastable to a sample");
    STD_TORCH_CHECK(elem.size(1) <= 64, "at most 64 element coefficients");
    a.elem_type = dtype_of_tensor(elem, "elem");
    STD_TORCH_CHECK(a.elem_type == DType::f32 || a.elem_type == DType::f64,
                    "elem must be float32 or float64");
    check_same_device(elem, x, "elem");
    a.elem_map = static_cast<const int64_t*>(small(elem_map, x, "elem_map", ScalarType::Long, call));
    STD_TORCH_CHECK(elem_map.numel() == elem.size(1),
                    "elem_map must have one entry for each element coefficient");
    a.n_elem = static_cast<int>(elem.size(1));
    a.elem_steps = elem.size(0);
    int first = sample_dims, last = -1;  // the axes of the sample that elem really has
    for (int d = 0; d < sample_dims; ++d) {
        const int from_tail = d - (sample_dims - tail);
        const int64_t size = from_tail < 0 ? 1 : elem.size(2 + from_tail), full = x.size(1 + d);
        STD_TORCH_CHECK(size == 1 || size == full, "elem must be broadcastable to a sample");
        if (size != 1) {
            first = first < d ? first : d;
            last = d;
        }
    }
    bool written_out = false;
    a.elem_inner = 1;
    a.elem_period = 1;
    for (int d = 0; d < sample_dims; ++d) {
        const int from_tail = d - (sample_dims - tail);
        const int64_t size = from_tail < 0 ? 1 : elem.size(2 + from_tail), full = x.size(1 + d);
        if (d >= first && d <= last) {
            written_out = written_out || size != full;
            a.elem_period *= full;
        } else if (d > last) {
            a.elem_inner *= full;
        }
    }
    Tensor ready = elem;
    if (written_out) {
        std::vector<int64_t> sizes{elem.size(0), elem.size(1)};
        for (int d = 0; d < sample_dims; ++d) sizes.push_back(x.size(1 + d));
        std::vector<int64_t> middle{elem.size(0), elem.size(1)};
        for (int d = 0; d < sample_dims; ++d) {
            const int from_tail = d - (sample_dims - tail);
            middle.push_back(from_tail < 0 ? 1 : elem.size(2 + from_tail));
        }
        ready = empty_dense(sizes, elem.scalar_type(), elem, {});
        torch::stable::copy_(ready, torch::stable::reshape(elem, middle));
        call.owned.push_back(ready);
        a.elem_inner = 1;
        a.elem_period = a.sample;
    } else if (!elem.is_contiguous()) {
        ready = torch::stable::contiguous(elem);
        call.owned.push_back(ready);
    }
    STD_TORCH_CHECK(a.elem_steps == 1 || a.elem_steps == a.steps,
                    "elem must have one step or as many as coef");
    a.elem = ready.data_ptr();
}

// Everything that is only read.
inline Call bind_inputs(const Tensor& x, const std::vector<Tensor>& outs, const OptionalTensor& anchor,
                        const OptionalTensor& history, const Tensor& coef, const Tensor& step,
                        const OptionalTensor& weights, const OptionalTensor& elem,
                        const OptionalTensor& elem_map, const OptionalTensor& clip_scale,
                        const OptionalTensor& noise, const OptionalTensor& rng, int64_t n_store,
                        int64_t clip_mode, int64_t anchor_mode) {
    Call call;
    StepArgs& a = call.args;
    STD_TORCH_CHECK(x.dim() >= 1 && x.dim() + 2 <= kMaxDims, "x must have 1 to ", kMaxDims - 2, " axes");
    call.order = order_of(x);
    a.x_type = dtype_of_tensor(x, "x");
    a.batch = x.size(0);
    a.sample = a.batch == 0 ? 0 : x.numel() / a.batch;
    a.channels = call.order.channels_last ? x.size(1) : 1;
    a.x = call.dense(x).data_ptr();
    a.n_store = static_cast<int>(n_store);
    a.clip_mode = static_cast<int>(clip_mode);
    a.anchor_mode = static_cast<int>(anchor_mode);
    STD_TORCH_CHECK(n_store >= 0 && n_store <= 2, "n_store must be 0, 1 or 2");
    STD_TORCH_CHECK(clip_mode >= 0 && clip_mode <= 2, "clip_mode must be 0, 1 or 2");
    STD_TORCH_CHECK(anchor_mode >= 0 && anchor_mode <= 2, "anchor_mode must be 0, 1 or 2");

    a.n_outs = static_cast<int>(outs.size());
    STD_TORCH_CHECK(a.n_outs >= 1 && a.n_outs <= kMaxOuts, "outs must hold 1 to 4 tensors");
    a.out_type = dtype_of_tensor(outs[0], "outs");
    for (int k = 0; k < a.n_outs; ++k) {
        STD_TORCH_CHECK(same_sizes(outs[k], x), "every model output must have the shape of x");
        STD_TORCH_CHECK(outs[k].scalar_type() == outs[0].scalar_type(), "model outputs must share one dtype");
        check_same_device(outs[k], x, "outs");
        a.outs[k] = call.dense(outs[k]).data_ptr();
    }
    if (anchor.has_value()) {
        STD_TORCH_CHECK(same_sizes(*anchor, x) && anchor->scalar_type() == x.scalar_type(),
                        "anchor must be like x");
        check_same_device(*anchor, x, "anchor");
        a.anchor = call.dense(*anchor).data_ptr();
    }
    a.history_type = a.x_type;
    if (history.has_value()) {
        STD_TORCH_CHECK(
            same_sizes(*history, x, 1) && history->size(0) >= 1 && history->size(0) <= kMaxHistory,
            "history must be [K, *x.shape] with 1 <= K <= 8");
        check_same_device(*history, x, "history");
        a.history_type = dtype_of_tensor(*history, "history");
        a.n_hist = static_cast<int>(history->size(0));
        a.history = call.dense(*history, 1).data_ptr();
    }
    STD_TORCH_CHECK(
        coef.dim() == 3 && coef.size(2) == kCoef && (coef.size(1) == 1 || coef.size(1) == a.batch),
        "coef must be [E, 1 or B, 64]");
    a.coef = static_cast<const double*>(small(coef, x, "coef", ScalarType::Double, call));
    a.steps = coef.size(0);
    a.coef_batch = coef.size(1);
    STD_TORCH_CHECK(step.numel() == 1, "step must be one number");
    a.step = static_cast<const int64_t*>(small(step, x, "step", ScalarType::Long, call));
    if (weights.has_value()) {
        STD_TORCH_CHECK(weights->dim() == 4 && (weights->size(0) == 1 || weights->size(0) == a.steps) &&
                            weights->size(1) == 2 && (weights->size(2) == 1 || weights->size(2) == a.batch) &&
                            weights->size(3) == a.n_outs,
                        "weights must be [1 or E, 2, 1 or B, number of outputs]");
        a.weights = static_cast<const double*>(small(*weights, x, "weights", ScalarType::Double, call));
        a.weight_steps = weights->size(0);
        a.weight_batch = weights->size(2);
    }
    STD_TORCH_CHECK(weights.has_value() || a.n_outs == 1, "weights are required for more than one output");
    if (elem.has_value()) {
        STD_TORCH_CHECK(elem_map.has_value(), "elem needs elem_map");
        bind_elements(*elem, *elem_map, x, call);
    }
    if (clip_mode == kClipDynamic) {
        STD_TORCH_CHECK(clip_scale.has_value() && clip_scale->numel() == a.batch,
                        "clip_scale must be [B] for dynamic clipping");
        a.clip_type = dtype_of_tensor(*clip_scale, "clip_scale");
        STD_TORCH_CHECK(a.clip_type == DType::f32 || a.clip_type == DType::f64,
                        "clip_scale must be float32 or float64");
        a.clip_scale = small(*clip_scale, x, "clip_scale", clip_scale->scalar_type(), call);
    }
    if (noise.has_value()) {
        STD_TORCH_CHECK(same_sizes(*noise, x), "noise must have the shape of x");
        check_same_device(*noise, x, "noise");
        a.noise_type = dtype_of_tensor(*noise, "noise");
        a.noise = call.dense(*noise).data_ptr();
    } else if (rng.has_value()) {
        a.rng_per_sample = rng->dim() == 2;
        STD_TORCH_CHECK(a.rng_per_sample ? rng->size(0) == a.batch && rng->size(1) == 3
                                         : rng->dim() == 1 && rng->size(0) == 2,
                        "rng must be [2] or [B, 3]");
        a.rng = static_cast<const int64_t*>(small(*rng, x, "rng", ScalarType::Long, call));
    }
    return call;
}

inline const Tensor& writable(const Tensor& t, const Tensor& x, const Call& call, const char* name,
                              int leading = 0) {
    FD_CHECK_VALUE(call.order.holds(t, leading), "`", name,
                   "` is written in place and must have the memory order of `x`");
    check_same_device(t, x, name);
    return t;
}

// What is written may overlap nothing else: elements are still read when others have been written.
inline void check_overlap(const StepArgs& a) {
    struct Span {
        const char* name;
        const void* data;
        int64_t bytes;
    };
    const int64_t n = a.batch * a.sample, x_bytes = n * size_of(a.x_type),
                  out_bytes = n * size_of(a.out_type);
    const int64_t ring_bytes = a.n_hist * n * size_of(a.history_type);
    constexpr int kWritten = 4;
    const Span spans[] = {{"x_out", a.x_next, x_bytes},
                          {"anchor", a.anchor_next, x_bytes},
                          {"history", a.ring, ring_bytes},
                          {"model_in", a.model_in, a.model_copies * out_bytes},
                          {"x", a.x, x_bytes},
                          {"anchor", a.anchor_next == nullptr ? a.anchor : nullptr, x_bytes},
                          {"history", a.ring == nullptr ? a.history : nullptr, ring_bytes},
                          {"noise", a.noise, n * size_of(a.noise_type)},
                          {"outs", a.outs[0], out_bytes},
                          {"outs", a.outs[1], out_bytes},
                          {"outs", a.outs[2], out_bytes},
                          {"outs", a.outs[3], out_bytes}};
    for (int w = 0; w < kWritten; ++w) {
        const char* written = static_cast<const char*>(spans[w].data);
        for (const Span* other = spans + w + 1; other != std::end(spans) && written != nullptr; ++other) {
            const char* data = static_cast<const char*>(other->data);
            const bool apart =
                data == nullptr || data + other->bytes <= written || written + spans[w].bytes <= data;
            FD_CHECK_VALUE(apart, "`", spans[w].name, "` is written and must not overlap `", other->name,
                           "`");
        }
    }
}

// Where the in-place form writes.
inline void bind_outputs(Call& call, const Tensor& x, const Tensor& x_out, const OptionalTensor& anchor,
                         const OptionalTensor& history, const OptionalTensor& model_in) {
    StepArgs& a = call.args;
    STD_TORCH_CHECK(same_sizes(x_out, x) && x_out.scalar_type() == x.scalar_type(), "x_out must be like x");
    a.x_next = writable(x_out, x, call, "x_out").data_ptr();
    if (a.anchor_mode == kAnchorRow) {
        STD_TORCH_CHECK(anchor.has_value(), "anchor_mode row needs anchor");
        a.anchor_next = writable(*anchor, x, call, "anchor").data_ptr();
    }
    if (a.n_store > 0) {
        STD_TORCH_CHECK(history.has_value() && a.n_hist % a.n_store == 0,
                        "history must have a multiple of n_store slots");
        a.ring = writable(*history, x, call, "history", 1).data_ptr();
    }
    if (model_in.has_value()) {
        const int64_t rows = model_in->dim() == x.dim() ? model_in->size(0) : -1;
        bool fits = rows >= a.batch && (a.batch == 0 || rows % a.batch == 0);
        for (int64_t d = 1; d < x.dim() && fits; ++d) fits = model_in->size(d) == x.size(d);
        STD_TORCH_CHECK(fits && dtype_of_tensor(*model_in, "model_in") == a.out_type,
                        "model_in must be [R B, *S] in the dtype of the model outputs");
        a.model_in = writable(*model_in, x, call, "model_in").data_ptr();
        a.model_copies = a.batch == 0 ? 0 : static_cast<int>(rows / a.batch);
    }
    check_overlap(a);
}

// Fresh results of the functional form: x_next, anchor, S0, S1.
inline std::vector<Tensor> allocate_outputs(Call& call, const Tensor& x, const OptionalTensor& history) {
    StepArgs& a = call.args;
    const ScalarType stored = history.has_value() ? history->scalar_type() : x.scalar_type();
    const std::array<int64_t, 1> none{0};
    const auto result = [&](bool wanted, ScalarType type) {
        return wanted ? empty_dense(x.sizes(), type, x, call.order) : empty_dense(none, type, x, {});
    };
    std::vector<Tensor> results{result(true, x.scalar_type()),
                                result(a.anchor_mode == kAnchorRow, x.scalar_type()),
                                result(a.n_store >= 1, stored), result(a.n_store >= 2, stored)};
    a.x_next = results[0].data_ptr();
    a.anchor_next = results[1].data_ptr();
    a.store[0] = results[2].data_ptr();
    a.store[1] = results[3].data_ptr();
    return results;
}

}  // namespace fd::linear_step
