// Tensors to pointers for the categorical operators, shared by the CPU and the CUDA binding. Values (row
// numbers, temperatures, offsets) are not read here: on a GPU they are on the device.
#pragma once

#include "categorical/categorical.h"
#include "common/check.h"

namespace fd::categorical {

// Arguments that say how a row of logits is processed and drawn, as the schemas have them.
struct CategoricalTensors {
    const Tensor& logits;
    const Tensor& temperature;
    const Tensor& rng;
    const OptionalTensor& uncond_logits;
    const OptionalTensor& cfg_scale;
    const OptionalTensor& bias;
    const OptionalTensor& suppressed;
    const OptionalTensor& forbidden;
    const OptionalTensor& threshold;
};

// Keeps alive what the pointers of a call point to.
class TensorOwner {
  public:
    template <class T>
    const T* data(const Tensor& t, const Tensor& logits, ScalarType type, const char* name) {
        STD_TORCH_CHECK(t.scalar_type() == type, name, " has the wrong dtype");
        check_on_device(t, logits, name);
        if (t.is_contiguous()) return static_cast<const T*>(t.data_ptr());
        owned_.push_back(torch::stable::contiguous(t));
        return static_cast<const T*>(owned_.back().data_ptr());
    }

    // One number, or one for each of `rows`.
    template <class T>
    const T* numbers(const Tensor& t, const Tensor& logits, ScalarType type, int64_t rows, int64_t& stride,
                     const char* name) {
        STD_TORCH_CHECK(t.dim() == 1 && (t.size(0) == 1 || t.size(0) == rows), name, " must be [1] or [",
                        rows, "]");
        stride = t.size(0) == 1 ? 0 : 1;
        return data<T>(t, logits, type, name);
    }

    // [1 or rows, vocab], any row stride.
    template <class T>
    const T* table(const Tensor& t, const Tensor& logits, ScalarType type, int64_t rows, int64_t vocab,
                   int64_t& stride, const char* name) {
        STD_TORCH_CHECK(t.dim() == 2 && (t.size(0) == 1 || t.size(0) == rows) && t.size(1) == vocab, name,
                        " must be [1 or ", rows, ", ", vocab, "]");
        STD_TORCH_CHECK(t.scalar_type() == type, name, " has the wrong dtype");
        check_on_device(t, logits, name);
        Tensor dense = t;
        if (vocab > 1 && t.stride(1) != 1) {
            dense = torch::stable::contiguous(t);
            owned_.push_back(dense);
        }
        stride = t.size(0) == 1 ? 0 : dense.stride(0);
        return static_cast<const T*>(dense.data_ptr());
    }

    static void check_on_device(const Tensor& t, const Tensor& logits, const char* name) {
        STD_TORCH_CHECK(t.is_cuda() == logits.is_cuda() && t.get_device() == logits.get_device(), name,
                        " must be on the device of logits");
    }

  private:
    std::vector<Tensor> owned_;
};

inline Stream checked_stream(int64_t stream) {
    STD_TORCH_CHECK(stream == 0 || stream == 1, "stream must be 0 (element) or 1 (block16)");
    return static_cast<Stream>(stream);
}

inline bool checked_method(int64_t method) {
    STD_TORCH_CHECK(method == 0 || method == 1, "method must be 0 (lazy) or 1 (full)");
    return method == 1;
}

// What all operators share; `rows` output rows. Strides of logits are left to the caller.
inline void bind_common(const CategoricalTensors& t, int64_t rows, CategoricalArgs& a, TensorOwner& owner) {
    const Tensor& logits = t.logits;
    const auto axes = static_cast<size_t>(logits.dim());
    a.dtype = dtype_of_tensor(logits, "logits");
    a.rows = rows;
    a.vocab = logits.size(axes - 1);
    STD_TORCH_CHECK(a.vocab >= 1, "logits must have at least one column");
    STD_TORCH_CHECK(a.vocab == 1 || logits.stride(axes - 1) == 1, "the last axis of logits must be dense");
    a.logits = logits.data_ptr();
    a.temperature = owner.numbers<float>(t.temperature, logits, ScalarType::Float, rows, a.temperature_stride,
                                         "temperature");
    STD_TORCH_CHECK(t.uncond_logits.has_value() == t.cfg_scale.has_value(),
                    "uncond_logits and cfg_scale come together");
    if (t.uncond_logits.has_value()) {
        const Tensor& uncond = *t.uncond_logits;
        STD_TORCH_CHECK(same_sizes(uncond, logits) && uncond.scalar_type() == logits.scalar_type(),
                        "uncond_logits must have the shape and the dtype of logits");
        STD_TORCH_CHECK(a.vocab == 1 || uncond.stride(axes - 1) == 1,
                        "the last axis of uncond_logits must be dense");
        TensorOwner::check_on_device(uncond, logits, "uncond_logits");
        a.uncond = uncond.data_ptr();
        a.cfg_scale =
            owner.numbers<float>(*t.cfg_scale, logits, ScalarType::Float, rows, a.cfg_stride, "cfg_scale");
    }
    if (t.bias.has_value())
        a.bias = owner.table<float>(*t.bias, logits, ScalarType::Float, rows, a.vocab, a.bias_stride, "bias");
    if (t.suppressed.has_value())
        a.suppressed = owner.table<bool>(*t.suppressed, logits, ScalarType::Bool, rows, a.vocab,
                                         a.suppressed_stride, "suppressed");
    if (t.forbidden.has_value()) {
        STD_TORCH_CHECK(t.forbidden->dim() == 1, "forbidden must be 1-d");
        a.forbidden = owner.data<int64_t>(*t.forbidden, logits, ScalarType::Long, "forbidden");
        a.n_forbidden = t.forbidden->size(0);
    }
    if (t.threshold.has_value()) {
        if (a.dtype == DType::f64) {
            a.threshold = owner.numbers<double>(*t.threshold, logits, ScalarType::Double, rows,
                                                a.threshold_stride, "threshold");
        } else {
            a.threshold = owner.numbers<float>(*t.threshold, logits, ScalarType::Float, rows,
                                               a.threshold_stride, "threshold");
        }
    }
}

inline void bind_rng(const Tensor& rng, const Tensor& logits, int64_t rows, CategoricalArgs& a,
                     TensorOwner& owner) {
    a.rng_per_row = rng.dim() == 2;
    STD_TORCH_CHECK(
        a.rng_per_row ? rng.size(0) == rows && rng.size(1) == 3 : rng.dim() == 1 && rng.size(0) == 2,
        "rng must be [2] or [", rows, ", 3]");
    a.rng = owner.data<int64_t>(rng, logits, ScalarType::Long, "rng");
}

inline void bind_shard(int64_t vocab_start, int64_t vocab_size, CategoricalArgs& a) {
    STD_TORCH_CHECK(vocab_size <= kMaxVocab, "vocab_size must be at most 2^28");
    STD_TORCH_CHECK(vocab_start >= 0 && vocab_start <= vocab_size - a.vocab,
                    "columns [vocab_start, vocab_start + V) must be inside of the vocabulary");
    a.vocab_start = vocab_start;
    a.vocab_size = vocab_size;
}

// A checked call of gumbel_argmax (method 0 or 1) or gumbel_topk.
struct CategoricalCall {
    CategoricalArgs args{};
    TensorOwner owner;

    CategoricalCall(const CategoricalTensors& t, const OptionalTensor& row_ids,
                    const OptionalTensor& row_index, const OptionalTensor& score_temperature,
                    int64_t vocab_start, int64_t vocab_size, int64_t stream, int64_t method) {
        const Tensor& logits = t.logits;
        STD_TORCH_CHECK(logits.dim() == 2, "logits must be [N, V]");
        args.logit_rows = logits.size(0);
        if (row_index.has_value()) {
            STD_TORCH_CHECK(row_index->dim() == 1, "rows must be 1-d");
            args.row_index = owner.data<int64_t>(*row_index, logits, ScalarType::Long, "rows");
        }
        const int64_t rows = row_index.has_value() ? row_index->size(0) : args.logit_rows;
        bind_common(t, rows, args, owner);
        args.row_stride = logits.stride(0);
        if (t.uncond_logits.has_value()) args.uncond_row_stride = t.uncond_logits->stride(0);
        if (row_ids.has_value()) {
            STD_TORCH_CHECK(row_ids->dim() == 1 && row_ids->size(0) == rows, "row_ids must be [", rows, "]");
            args.row_ids = owner.data<int64_t>(*row_ids, logits, ScalarType::Long, "row_ids");
        }
        if (score_temperature.has_value())
            args.score_temperature = owner.numbers<float>(*score_temperature, logits, ScalarType::Float, rows,
                                                          args.score_stride, "score_temperature");
        bind_rng(t.rng, logits, rows, args, owner);
        bind_shard(vocab_start, vocab_size, args);
        args.stream = checked_stream(stream);
        args.full = checked_method(method);
    }
};

// A checked call of first_hitting_step_: logits [B, M, V], M = the positions of a sequence ("gathered"), else
// its length.
struct HittingCall {
    HittingArgs args{};
    TensorOwner owner;

    HittingCall(const CategoricalTensors& t, const Tensor& tokens, const Tensor& positions,
                const OptionalTensor& sequence_ids, int64_t stream, int64_t method) {
        const Tensor& logits = t.logits;
        STD_TORCH_CHECK(logits.dim() == 3, "logits must be [B, M, V]");
        STD_TORCH_CHECK(tokens.dim() == 2 && tokens.scalar_type() == ScalarType::Long,
                        "tokens must be int64 [B, L]");
        args.batch = tokens.size(0);
        args.length = tokens.size(1);
        STD_TORCH_CHECK(args.length <= 1 || tokens.stride(1) == 1, "the last axis of tokens must be dense");
        TensorOwner::check_on_device(tokens, logits, "tokens");
        STD_TORCH_CHECK(positions.dim() == 2 && positions.size(0) == args.batch, "positions must be [B, k]");
        args.per_sequence = positions.size(1);
        STD_TORCH_CHECK(logits.size(0) == args.batch &&
                            (logits.size(1) == args.per_sequence || logits.size(1) == args.length),
                        "logits must be [B, k, V] or [B, L, V]");
        args.gathered = logits.size(1) == args.per_sequence;
        args.positions = owner.data<int32_t>(positions, logits, ScalarType::Int, "positions");
        args.tokens = static_cast<int64_t*>(tokens.data_ptr());
        args.token_stride = tokens.stride(0);
        bind_common(t, args.batch * args.per_sequence, args, owner);
        args.batch_stride = logits.stride(0);
        args.row_stride = logits.stride(1);
        if (t.uncond_logits.has_value()) {
            args.uncond_batch_stride = t.uncond_logits->stride(0);
            args.uncond_row_stride = t.uncond_logits->stride(1);
        }
        if (sequence_ids.has_value()) {
            STD_TORCH_CHECK(sequence_ids->dim() == 1 && sequence_ids->size(0) == args.batch,
                            "sequence_ids must be [B]");
            args.sequence_ids = owner.data<int64_t>(*sequence_ids, logits, ScalarType::Long, "sequence_ids");
        }
        bind_rng(t.rng, logits, args.batch, args, owner);
        bind_shard(0, args.vocab, args);
        args.stream = checked_stream(stream);
        args.full = checked_method(method);
    }
};

}  // namespace fd::categorical
