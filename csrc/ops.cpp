// Every operator of the library on one page. Semantics: docs/architecture.md and the Python wrappers in
// fastdiff_ops.ops.
#include <torch/csrc/stable/library.h>

#ifndef FD_NAMESPACE
#define FD_NAMESPACE fastdiff_ops
#endif

STABLE_TORCH_LIBRARY(FD_NAMESPACE, m) {
    // linear_step: one row of a solver's coefficient table, applied in one pass (x_next, anchor, S0, S1).
    m.def(
        "solver_step(Tensor x, Tensor[] outs, Tensor? anchor, Tensor? history, Tensor coef, Tensor step, "
        "Tensor? weights, "
        "Tensor? elem, Tensor? elem_map, Tensor? clip_scale, Tensor? noise, Tensor? rng, int n_store, int "
        "clip_mode, "
        "int anchor_mode) -> Tensor[]");
    m.def(
        "solver_step_(Tensor x, Tensor[] outs, Tensor(a!) x_out, Tensor(b!)? anchor, Tensor(c!)? history, "
        "Tensor(d!)? model_in, "
        "Tensor coef, Tensor step, Tensor? weights, Tensor? elem, Tensor? elem_map, Tensor? clip_scale, "
        "Tensor? noise, "
        "Tensor? rng, int n_store, int clip_mode, int anchor_mode) -> ()");
    // Per-sample quantile of |converted output|, for dynamic thresholding: [B].
    m.def(
        "abs_quantile(Tensor x, Tensor[] outs, Tensor coef, Tensor step, Tensor? weights, float q, float "
        "floor, float cap) "
        "-> Tensor");

    // random: the library's counter-based stream as tensors; axis 0 counts samples.
    m.def("random_normal(SymInt[] size, Tensor rng, ScalarType dtype) -> Tensor");
    m.def("random_uniform(SymInt[] size, Tensor rng, ScalarType dtype) -> Tensor");
}
