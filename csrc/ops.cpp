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

    // categorical: exact draws from softmax(logits / temperature), noise in float64. Tokens int64 [R], their
    // perturbed logits float64 [R], and float64 [R, 5] (logprob, entropy, margin, logsumexp, residual) if
    // score_temperature is given, else [0]. stream: 0 element, 1 block16; method: 0 lazy, 1 full.
    m.def(
        "gumbel_argmax(Tensor logits, Tensor temperature, Tensor rng, Tensor? row_ids, Tensor? rows, "
        "Tensor? uncond_logits, Tensor? cfg_scale, Tensor? bias, Tensor? suppressed, Tensor? forbidden, "
        "Tensor? threshold, Tensor? score_temperature, int vocab_start, int vocab_size, int stream, "
        "int method) -> (Tensor, Tensor, Tensor)");
    // The k largest perturbed logits: k tokens without replacement. [R, k] each.
    m.def(
        "gumbel_topk(Tensor logits, Tensor temperature, Tensor rng, Tensor? row_ids, Tensor? rows, "
        "Tensor? uncond_logits, Tensor? cfg_scale, Tensor? bias, Tensor? suppressed, Tensor? forbidden, "
        "Tensor? threshold, int vocab_start, int vocab_size, int stream, int k) -> (Tensor, Tensor)");
    // The smallest logit that top-k, top-p and min-p keep, [R], and (`kept`) the share of softmax(l / T) that
    // they keep, float64 [R], else [0].
    m.def(
        "sampling_threshold(Tensor logits, Tensor temperature, Tensor? rows, Tensor? uncond_logits, "
        "Tensor? cfg_scale, Tensor? bias, Tensor? suppressed, Tensor? forbidden, Tensor? top_k, "
        "Tensor? top_p, Tensor? min_p, bool kept) -> (Tensor, Tensor)");
    // One radix pass of that over some columns of a vocabulary: int64 [R, 2, 2048], counts and masses by the
    // next bits of the keys that start with `prefix` [R, 2].
    m.def(
        "threshold_histogram(Tensor logits, Tensor temperature, Tensor? rows, Tensor? uncond_logits, "
        "Tensor? cfg_scale, Tensor? bias, Tensor? suppressed, Tensor? forbidden, Tensor row_max, "
        "Tensor prefix, int radix_pass, int vocab_size) -> Tensor");
    // Draws of the row's own (unnormalised) probabilities: tokens [R], -1 where a row is not one of them.
    m.def("inverse_cdf(Tensor probs, Tensor rng, Tensor? row_ids) -> Tensor");

    // hitting: when and where a masked sequence is revealed. order int32 [B, L], u float64 [B, L], count [B].
    m.def("first_hitting_times(Tensor mask, Tensor rng, Tensor? sequence_ids) -> (Tensor, Tensor, Tensor)");
    // tokens[b, positions[b, j]] = a draw from its row; the drawn tokens [B, k], -1 where nothing was drawn.
    m.def(
        "first_hitting_step_(Tensor(a!) tokens, Tensor logits, Tensor positions, Tensor temperature, "
        "Tensor rng, Tensor? sequence_ids, Tensor? uncond_logits, Tensor? cfg_scale, Tensor? bias, "
        "Tensor? suppressed, Tensor? forbidden, Tensor? threshold, int stream, int method) -> Tensor");
    m.def("reveal_steps(Tensor mask, Tensor mask_prob, Tensor rng, Tensor? sequence_ids) -> Tensor");
    // Which candidates are committed, bool [B, L]. rule: 0 count, 1 threshold, 2 factor, 3 entropy bound,
    // whose parameter is `limit`; `residual`: score holds r of confidences 1 / (1 + r).
    m.def(
        "select_transfer(Tensor score, Tensor candidate, Tensor limit, Tensor? entropy, int rule, "
        "bool residual) -> Tensor");
    m.def(
        "remask_(Tensor(a!) tokens, Tensor prob, Tensor? eligible, int mask_id, Tensor rng, "
        "Tensor? sequence_ids) -> Tensor");

    // simplex: multiresolution encodings of points, [N, L F], and what they are differentiated to: along a
    // direction u, towards the points (vjp_x) and the table (vjp_table, and of the derivative along u).
    // `deterministic` is for gradients towards the table, also those of operators that compute none.
    m.def(
        "simplex_encode(Tensor x, Tensor table, float[] scales, float[] shifts, "
        "int[] layout, int bounds, int max_level, bool deterministic, ScalarType? out_dtype) -> Tensor");
    m.def(
        "simplex_encode_jvp(Tensor x, Tensor table, Tensor u, float[] scales, float[] shifts, "
        "int[] layout, int bounds, int max_level, bool deterministic, ScalarType? out_dtype) -> Tensor");
    m.def(
        "simplex_encode_vjp_x(Tensor x, Tensor table, Tensor grad, float[] scales, float[] shifts, "
        "int[] layout, int bounds, int max_level, bool deterministic) -> Tensor");
    m.def(
        "simplex_encode_vjp_table(Tensor x, Tensor grad, float[] scales, float[] shifts, "
        "int[] layout, int n_entries, int bounds, int max_level, bool deterministic) -> Tensor");
    m.def(
        "simplex_encode_vjp_table_u(Tensor x, Tensor u, Tensor grad, float[] scales, float[] shifts, "
        "int[] layout, int n_entries, int bounds, int max_level, bool deterministic) -> Tensor");
    m.def(
        "grid_encode(Tensor x, Tensor table, float[] scales, float[] shifts, "
        "int[] layout, int bounds, int max_level, bool deterministic, ScalarType? out_dtype) -> Tensor");
    m.def(
        "grid_encode_jvp(Tensor x, Tensor table, Tensor u, float[] scales, float[] shifts, "
        "int[] layout, int bounds, int max_level, bool deterministic, ScalarType? out_dtype) -> Tensor");
    m.def(
        "grid_encode_vjp_x(Tensor x, Tensor table, Tensor grad, float[] scales, float[] shifts, "
        "int[] layout, int bounds, int max_level, bool deterministic) -> Tensor");
    m.def(
        "grid_encode_vjp_table(Tensor x, Tensor grad, float[] scales, float[] shifts, "
        "int[] layout, int n_entries, int bounds, int max_level, bool deterministic) -> Tensor");
    m.def(
        "grid_encode_vjp_table_u(Tensor x, Tensor u, Tensor grad, float[] scales, float[] shifts, "
        "int[] layout, int n_entries, int bounds, int max_level, bool deterministic) -> Tensor");

    // tsp: kicks `kicks[0]` .. `kicks[1]` - 1 of every trajectory of a tour search (csrc/tsp/slice.h).
    // Mutates the current tours int32 [B, P, N], the best ones, and int64 [B, P, 5] (length, best, first
    // optimum's, accepted, restored). points float32 [B, N, 2], candidates int16 (as uint16) or int32 [B, N,
    // 8], kicks int64 [4], temperature float64 [P, M], rng = (seed, number of the first instance).
    m.def(
        "tsp_search_slice(Tensor(a!) tours, Tensor(b!) best, Tensor(c!) state, Tensor points, "
        "Tensor candidates, Tensor kicks, Tensor temperature, Tensor rng, int segment) -> ()");
    // The k nearest points of every point of [B, N, 2]: ids int32 [B, N, k], distances float32 beside them.
    m.def("knn(Tensor coords, int k) -> (Tensor, Tensor)");
}
