// Solver step on the CPU.
//
// Floor: bytes of the tensors that a row uses, each once, over the bandwidth of a bare loop; arithmetic is a
// few fma per element on tiles of 6 KiB that stay in L1. Large outputs are written past the caches (their old
// contents are not read). Noise costs no bytes: Philox and Box-Muller in registers, about 0.6 ns per normal
// with AVX-512.
#include <algorithm>

#include "common/philox_cpu.h"
#include "linear_step/linear_step_args.h"
#include "linear_step/stream_avx512.h"

namespace fd::linear_step {
namespace {

constexpr int64_t kParallelElements = 1 << 16;  // a thread gets at least this much
constexpr int64_t kStreamBytes = 1 << 22;       // tensors from this size on bypass the caches when written
constexpr int64_t kFarBytes = 1 << 19;          // those from this size on, with the rest, are not in L2

template <class Acc>
constexpr int kTile = 6144 / sizeof(Acc);

// The leaves below are compiled for every SIMD level; what calls them once a tile is compiled once.

// out[i] = (Continue ? out[i] : 0) + sum_k w[k] p[k][i], one fma after the other. `out` may be one of the
// terms, never a shifted one: element i depends on elements i alone, which is what `ivdep` tells the
// compiler.
template <class Acc, int Terms, bool Continue>
struct Combine {
    template <simd::Level>
    FD_HOST_DEVICE static void run(Acc* out, const Acc* weights, const Acc* const* terms, int n) {
        Acc w[Terms];
        const Acc* p[Terms];
        for (int k = 0; k < Terms; ++k) {
            w[k] = weights[k];
            p[k] = terms[k];
        }
#pragma GCC ivdep
        for (int i = 0; i < n; ++i) {
            Acc sum = Continue ? fma(w[0], p[0][i], out[i]) : w[0] * p[0][i];
            for (int k = 1; k < Terms; ++k) sum = fma(w[k], p[k][i], sum);
            out[i] = sum;
        }
    }
};

// Element coefficients: a zero one skips its term.
template <class Acc>
struct AddElements {
    template <simd::Level>
    FD_HOST_DEVICE static void run(Acc* __restrict sum, const Acc* weights, const Acc* term, int n) {
        for (int i = 0; i < n; ++i) sum[i] = weights[i] != Acc(0) ? fma(weights[i], term[i], sum[i]) : sum[i];
    }
};

template <class Acc, class F>
struct Map {
    template <simd::Level>
    FD_HOST_DEVICE static void run(const Acc* in, Acc* __restrict out, int n, F f) {
        for (int i = 0; i < n; ++i) out[i] = f(in[i]);
    }
};

template <class T, class Acc>
struct Widen {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const T* in, Acc* out, int n) {
        widen_block<L>(in, out, n);
    }
};

template <class T, class Acc>
struct Narrow {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const Acc* in, T* out, int n) {
        narrow_block<L>(in, out, n);
    }
};

// What the next tile reads comes in meanwhile: drawing touches no memory.
struct Normals {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const PhiloxStream* s, int64_t first, int64_t n, float* out,
                                   Ahead* ahead) {
        constexpr int64_t kRun = 4 * kPhiloxChunk;
        const int64_t runs = (n + kRun - 1) / kRun, lines = (ahead->lines + runs - 1) / runs;
        for (int64_t done = 0; done < n; done += kRun) {
            normals_range<L>(*s, first + done, n - done < kRun ? n - done : kRun, out + done);
            for (int64_t line = 0; line < lines; ++line) ahead->step();
        }
    }
};

struct NormalsOfBlocks {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const PhiloxStream* s, const uint64_t* blocks, float* out) {
        normals_of_blocks<L>(*s, blocks, out);
    }
};

template <class Acc, bool Continue>
void combine_up_to_four(Acc* out, const Acc* weights, const Acc* const* terms, int count, int n) {
    switch (count) {
        case 1:
            return simd::dispatch<Combine<Acc, 1, Continue>>(out, weights, terms, n);
        case 2:
            return simd::dispatch<Combine<Acc, 2, Continue>>(out, weights, terms, n);
        case 3:
            return simd::dispatch<Combine<Acc, 3, Continue>>(out, weights, terms, n);
        default:
            return simd::dispatch<Combine<Acc, 4, Continue>>(out, weights, terms, n);
    }
}

// Scratch memory of one thread, handed out anew for every tile.
template <class Acc>
struct Workspace {
    static constexpr int kBuffers = 40;  // enough for every input and a result of every sum, each once
    alignas(64) Acc memory[kBuffers][kTile<Acc>];
    alignas(64) Acc passing[kTile<Acc>];  // what is read at once and only once
    int used = 0;
};

// Loads and stores of one tile: elements [p, p + n) of sample b. A tile is a pointer: into the tensor itself
// where its type is the accumulation type or is widened as it is read (AVX-512), else to a widened copy in
// L1. A sum collects its terms and is evaluated in one pass when it is read.
template <class Acc>
struct CpuIo {
    static constexpr int N = kTile<Acc>;

    const StepArgs& a;
    const Coefficients<Acc>& c;
    Workspace<Acc>& workspace;
    int64_t b, p;
    int n;
    bool stream;
    Ahead ahead{};

    using Tile = Term;

    class Sum {
      public:
        explicit Sum(CpuIo& io) : io_(&io) {}

        void add(Acc weight, const Tile& term) {
            weights_[count_] = weight;
            terms_[count_++] = term;
        }

        void add(const Tile& weights, const Tile& term) {
            settle();
            simd::dispatch<AddElements<Acc>>(own_, io_->wide(weights), io_->wide(term), io_->n);
        }

        Tile tile() {
            if (count_ != 1 || weights_[0] != Acc(1)) settle();
            return terms_[0];
        }

        // The sum in a buffer of its own. What it held there before is its first term, if any.
        void settle() {
            if (own_ == nullptr) own_ = io_->buffer();
            if (count_ != 1 || terms_[0].data != own_) evaluate(own_);
            count_ = 1;
            weights_[0] = Acc(1);
            terms_[0] = {own_, dtype_of<Acc>};
        }

        // Only then may `out` hold any of the terms (the ring slot that is read and replaced).
        bool one_pass() const { return count_ <= 4; }

        void evaluate(Acc* out) const {
            if (count_ == 0) {
                for (int i = 0; i < io_->n; ++i) out[i] = Acc(0);
                return;
            }
#if FD_X86
            if constexpr (dtype_of<Acc> == DType::f32) {
                if (io_->whole_lines()) {
                    combine_avx512<false>(out, weights_, terms_, count_, io_->n);
                    for (int done = 4; done < count_; done += 4) {
                        combine_avx512<false, true>(out, weights_ + done, terms_ + done, count_ - done,
                                                    io_->n);
                    }
                    return;
                }
            }
#endif
            const Acc* wide[kColumns + 2];
            for (int k = 0; k < count_; ++k) wide[k] = io_->wide(terms_[k]);
            combine_up_to_four<Acc, false>(out, weights_, wide, count_, io_->n);
            for (int done = 4; done < count_; done += 4) {
                combine_up_to_four<Acc, true>(out, weights_ + done, wide + done, count_ - done, io_->n);
            }
        }

#if FD_X86
        template <bool PastCaches, class T>
        void write_avx512(T* out, Ahead* ahead, int every) {
            if (count_ == 0 || !one_pass()) settle();
            combine_avx512<PastCaches>(out, weights_, terms_, count_, io_->n, ahead, every);
        }
#endif

      private:
        CpuIo* io_;
        Acc* own_ = nullptr;
        int count_ = 0;
        Acc weights_[kColumns + 2];
        Term terms_[kColumns + 2];
    };

    Sum sum() { return Sum(*this); }
    Acc* buffer() { return workspace.memory[workspace.used++]; }
    bool whole_lines() const { return n % 32 == 0 && simd::level() == simd::Level::avx512; }
    int64_t place() const { return b * a.sample + p; }

    // What the next tile will read, or fetch in order to write.
    void look_ahead() {
        const int64_t next = place() + N, count = std::min<int64_t>(N, a.sample - p - N);
        const auto add = [&](const void* base, DType type, int64_t first) {
            ahead.add(static_cast<const char*>(base) + first * size_of(type), count * size_of(type));
        };
        add(a.x, a.x_type, next);
        for (int k = 0; k < a.n_outs; ++k) add(a.outs[k], a.out_type, next);
        if (!stream) add(a.x_next, a.x_type, next);
        for (int age = 0; age < a.n_hist; ++age) {
            if (c.column_used(kHistory + age)) {
                add(a.history, a.history_type, ring_slot(c.head, age, a.n_hist) * a.batch * a.sample + next);
            }
        }
    }

    template <class F>
    Tile map(const Tile& in, F f) {
        Acc* out = buffer();
        simd::dispatch<Map<Acc, F>>(wide(in), out, n, f);
        return {out, dtype_of<Acc>};
    }

    const Acc* wide(const Tile& in) {
        if (in.type == DType::f16) return widened<half>(in.data);
        if (in.type == DType::bf16) return widened<bfloat16>(in.data);
        return static_cast<const Acc*>(in.data);
    }

    template <class T>
    const Acc* widened(const void* from) {
        Acc* out = buffer();
        simd::dispatch<Widen<T, Acc>>(static_cast<const T*>(from), out, n);
        return out;
    }

    template <class T>
    Tile load_as(const void* base, int64_t first) {
        const T* from = static_cast<const T*>(base) + first;
        const bool as_it_lies =
            dtype_of<T> == dtype_of<Acc> || (dtype_of<Acc> == DType::f32 && sizeof(T) == 2 && whole_lines());
        if (as_it_lies) return {from, dtype_of<T>};
        return {widened<T>(from), dtype_of<Acc>};
    }

    Tile load(const void* base, DType type, int64_t first) {
        if (base == nullptr) return missing();
        switch (type) {
            case DType::f16:
                return load_as<half>(base, first);
            case DType::bf16:
                return load_as<bfloat16>(base, first);
            case DType::f32:
                return load_as<float>(base, first);
            default:
                return load_as<double>(base, first);
        }
    }

    Tile missing() {
        Acc* out = buffer();
        for (int i = 0; i < n; ++i) out[i] = std::numeric_limits<Acc>::quiet_NaN();
        return {out, dtype_of<Acc>};
    }

    Tile load_x() { return load(a.x, a.x_type, place()); }
    Tile load_out(int k) { return load(a.outs[k], a.out_type, place()); }
    Tile load_anchor() { return load(a.anchor, a.x_type, place()); }

    Tile load_history(int age) {
        if (age >= a.n_hist) return missing();
        const int64_t slot = ring_slot(c.head, age, a.n_hist);
        return load(a.history, a.history_type, slot * a.batch * a.sample + place());
    }

    Tile load_noise() {
        if (a.rng == nullptr) return load(a.noise, a.noise_type, place());
        const PhiloxStream stream_of_sample(StreamTag::normal, c.seed, c.offset, c.row);
        Acc* out = buffer();
        float* z = reinterpret_cast<float*>(out);  // float64 widens from a buffer of its own
        if constexpr (dtype_of<Acc> == DType::f64) z = reinterpret_cast<float*>(buffer());
        if (a.channels <= 1) {
            simd::dispatch<Normals>(&stream_of_sample, p, static_cast<int64_t>(n), z, &ahead);
        } else {
            normals_channels_last(stream_of_sample, z);
        }
        if constexpr (dtype_of<Acc> == DType::f64)
            simd::dispatch<Widen<float, Acc>>(static_cast<const float*>(z), out, n);
        return {out, dtype_of<Acc>};
    }

    // Each channel of the tile is a run of consecutive logical elements; the runs' blocks are collected and
    // drawn together.
    void normals_channels_last(const PhiloxStream& s, float* z) {
        const int64_t channels = a.channels, pixels = a.sample / channels;
        uint64_t blocks[kPhiloxChunk] = {};
        int64_t place_of[kPhiloxChunk];  // of the block's first element, relative to the tile
        int pending = 0;
        const auto flush = [&] {
            alignas(64) float drawn[4 * kPhiloxChunk];
            simd::dispatch<NormalsOfBlocks>(&s, static_cast<const uint64_t*>(blocks), drawn);
            for (int i = 0; i < pending; ++i) {
                for (int j = 0; j < 4; ++j) {
                    const int64_t at = place_of[i] + j * channels;
                    if (at >= 0 && at < n) z[at] = drawn[4 * i + j];
                }
            }
            pending = 0;
        };
        for (int64_t channel = 0; channel < channels; ++channel) {
            const int64_t end = p + n - 1 - channel;
            if (end < 0) continue;
            const int64_t first = channel * pixels + (p - channel + channels - 1) / channels;
            const int64_t last = channel * pixels + end / channels;
            for (int64_t block = first / 4; first <= last && block <= last / 4; ++block) {
                blocks[pending] = static_cast<uint64_t>(block);
                place_of[pending] = (4 * block - channel * pixels) * channels + channel - p;
                if (++pending == kPhiloxChunk) flush();
            }
        }
        if (pending > 0) flush();
    }

    // Valid until the next call: there may be sixty of them.
    Tile load_elem(int k) {
        const int64_t step = a.elem_steps == 1 ? 0 : *a.step, base = (step * a.n_elem + k) * a.elem_period;
        Acc* out = workspace.passing;
        for (int i = 0; i < n; ++i) {
            const int64_t at = base + logical_index(a, p + i) / a.elem_inner % a.elem_period;
            out[i] = a.elem_type == DType::f64 ? static_cast<Acc>(static_cast<const double*>(a.elem)[at])
                                               : static_cast<Acc>(static_cast<const float*>(a.elem)[at]);
        }
        return {out, dtype_of<Acc>};
    }

    template <class T>
    void store_as(void* base, int64_t first, Sum& sum) {
        T* to = static_cast<T*>(base) + first;
        const int64_t bytes = n * sizeof(T);
        const bool past_caches = simd::level() != simd::Level::scalar && stream &&
                                 reinterpret_cast<uintptr_t>(to) % 64 == 0 && bytes % 64 == 0;
        if (past_caches) return store_past_caches(to, bytes, sum);
#if FD_X86
        if constexpr (dtype_of<Acc> == DType::f32 && sizeof(T) == 2) {
            const bool lines = simd::level() == simd::Level::avx512 && bytes % 64 == 0;
            if (lines) return sum.template write_avx512<false>(to, nullptr, 1);
        }
#endif
        if constexpr (dtype_of<T> == dtype_of<Acc>) {
            if (sum.one_pass()) return sum.evaluate(to);
        }
        simd::dispatch<Narrow<T, Acc>>(wide(sum.tile()), to, n);
    }

    template <class T>
    void store_past_caches(T* to, int64_t bytes, Sum& sum) {
#if FD_X86
        // The look-ahead spreads over all tensors that are written past the caches.
        const int every = a.n_store > 0 && !replaces_what_was_read(0) ? 2 : 1;
        if constexpr (dtype_of<Acc> == DType::f32 && dtype_of<T> != DType::f64) {
            if (simd::level() == simd::Level::avx512)
                return sum.template write_avx512<true>(to, &ahead, every);
        }
        const void* from = wide(sum.tile());
        if constexpr (dtype_of<T> != dtype_of<Acc>) {
            T* narrowed = reinterpret_cast<T*>(workspace.passing);
            simd::dispatch<Narrow<T, Acc>>(static_cast<const Acc*>(from), narrowed, n);
            from = narrowed;
        } else if (reinterpret_cast<uintptr_t>(from) % 64 != 0) {
            sum.settle();
            from = sum.tile().data;
        }
        fd::detail::stream_copy_avx2(from, to, bytes, &ahead, every);
#endif
    }

    void store(void* base, DType type, int64_t first, Sum& sum) {
        switch (type) {
            case DType::f16:
                return store_as<half>(base, first, sum);
            case DType::bf16:
                return store_as<bfloat16>(base, first, sum);
            case DType::f32:
                return store_as<float>(base, first, sum);
            default:
                return store_as<double>(base, first, sum);
        }
    }

    void store_x(Sum& sum) { store(a.x_next, a.x_type, place(), sum); }
    void store_anchor(Sum& sum) { store(a.anchor_next, a.x_type, place(), sum); }

    void store_history(int k, Sum& sum) {
        if (a.ring == nullptr) return store(a.store[k], a.history_type, place(), sum);
        const int64_t slot = (c.head + k) % a.n_hist;
        if (replaces_what_was_read(k)) stream = false;
        store(a.ring, a.history_type, slot * a.batch * a.sample + place(), sum);
    }

    // The slot of the oldest value, whose lines are in the cache then: writing there costs no read.
    bool replaces_what_was_read(int k) const {
        return a.ring != nullptr && c.column_used(kHistory + a.n_hist - 1 - k);
    }

    void store_model_in(Sum& sum) {
        for (int64_t copy = 0; copy < a.model_copies; ++copy) {
            store(a.model_in, a.out_type, copy * a.batch * a.sample + place(), sum);
        }
    }
};

template <class Acc>
void load_coefficients(const StepArgs& a, int64_t b, Coefficients<Acc>& c) {
    for (int k = 0; k < kCoef; ++k) load_value(a, b, k, c);
    load_rest(a, b, c);
    find_used_columns(a, c);
}

// Tiles [begin, end) of the call, counted over all samples.
template <class Acc, bool Elem>
void run_tiles(const StepArgs& a, int64_t begin, int64_t end) {
    constexpr int N = kTile<Acc>;
    const int64_t per_sample = (a.sample + N - 1) / N;
    const int64_t bytes = a.batch * a.sample * size_of(a.x_type);
    const bool stream = bytes >= kStreamBytes, look = stream || (a.rng != nullptr && bytes >= kFarBytes);
    Workspace<Acc> workspace;
    Coefficients<Acc> c;
    int64_t b = begin / per_sample, tile = begin % per_sample;
    load_coefficients(a, b, c);
    for (int64_t item = begin; item < end; ++item) {
        const int64_t p = tile * N;
        workspace.used = 0;
        CpuIo<Acc> io{a, c, workspace, b, p, static_cast<int>(std::min<int64_t>(N, a.sample - p)), stream};
        if (look && tile + 1 < per_sample) io.look_ahead();
        step_tile<Elem, true>(a, c, io);
        if (++tile == per_sample && item + 1 < end) {
            tile = 0;
            load_coefficients(a, ++b, c);
        }
    }
    if (stream) fd::detail::stream_fence();
}

// Tiles are counted over all samples; a thread takes a run of them.
template <class Acc, bool Elem>
void run_all(const StepArgs& a) {
    const int64_t tiles = a.batch * ((a.sample + kTile<Acc> - 1) / kTile<Acc>);
    const auto body = [&a](int64_t begin, int64_t end) { run_tiles<Acc, Elem>(a, begin, end); };
    const int64_t grain = std::max<int64_t>(kParallelElements / std::min<int64_t>(a.sample, kTile<Acc>), 1);
    if (tiles <= grain) return body(0, tiles);
    torch::stable::parallel_for(0, tiles, grain, body);
}

// What a GPU could only answer with NaN is an error here.
void check_values(const StepArgs& a) {
    const int64_t step = *a.step;
    FD_CHECK_VALUE(step >= 0 && step < a.steps, "`step` must lie in [0, ", a.steps, "), got ", step);
    bool replaced[kCoef + kRows] = {};
    for (int k = 0; k < a.n_elem; ++k) {
        const int64_t where = a.elem_map[k];
        const bool good =
            where >= kCx && where < kCoef + kRows && where != kClipBound && (where < kCin || where >= kCoef);
        FD_CHECK_VALUE(good, "`elem_map` names position ", where, ", which no element may replace");
        replaced[where] = true;
    }
    bool anchor = false, noise = false, corrected = false;
    int ages = 0;
    for (int64_t b = 0; b < a.coef_batch; ++b) {
        const auto weight = [&, row = a.coef + (step * a.coef_batch + b) * kCoef](int k) {
            return replaced[k] || row[k] != 0;
        };
        for (int r = 0; r < kRows; ++r) {
            if ((r >= kS0 && r - kS0 >= a.n_store) || (r == kA && a.anchor_mode != kAnchorRow)) continue;
            anchor = anchor || weight(position(r, kAnchor));
            noise = noise || weight(position(r, kNoise));
            corrected = corrected || (r != kA && weight(position(r, kCorrected)));
            for (int age = ages; age < kMaxHistory; ++age) {
                if (weight(position(r, kHistory + age))) ages = age + 1;
            }
        }
        if (weight(kDh)) ages = std::max(ages, 1);
    }
    FD_CHECK_VALUE(!anchor || a.anchor != nullptr, "`anchor` is missing, but the row has a weight for it");
    FD_CHECK_VALUE(!noise || a.noise != nullptr || a.rng != nullptr,
                   "`noise` or `rng` is missing, but the row has a weight for noise");
    const int64_t draws = noise && a.rng != nullptr ? (a.rng_per_sample ? a.batch : 1) : 0;
    for (int64_t r = 0; r < draws; ++r) {
        const int64_t* rng = a.rng_per_sample ? a.rng + 3 * r : a.rng;
        const int64_t draw = rng[1] + step;
        FD_CHECK_VALUE(rng[1] >= 0 && draw >> 32 == 0, "`rng`: offset + step must be in [0, 2^32), got ",
                       draw);
        FD_CHECK_VALUE(!a.rng_per_sample || rng[2] >> 32 == 0, "`rng`: sample id must be in [0, 2^32), got ",
                       rng[2]);
    }
    FD_CHECK_VALUE(!corrected || a.anchor_mode == kAnchorRow,
                   "`anchor_mode` must be row: a row has a weight for the corrected anchor");
    FD_CHECK_VALUE(ages <= a.n_hist, "`history` must hold at least ", ages, " values, got ", a.n_hist);
}

void execute(StepArgs a) {
    if (a.batch * a.sample == 0)
        return;  // before the checks: empty tensors have null pointers, as missing ones
    check_values(a);
    if (a.uniform()) {
        a.sample *= a.batch;
        a.batch = 1;
        a.channels = 1;
    }
    const bool wide = a.x_type == DType::f64 || (a.n_hist > 0 && a.history_type == DType::f64);
    if (a.elem != nullptr) return wide ? run_all<double, true>(a) : run_all<float, true>(a);
    return wide ? run_all<double, false>(a) : run_all<float, false>(a);
}

std::vector<Tensor> solver_step(const Tensor& x, const std::vector<Tensor>& outs,
                                const OptionalTensor& anchor, const OptionalTensor& history,
                                const Tensor& coef, const Tensor& step, const OptionalTensor& weights,
                                const OptionalTensor& elem, const OptionalTensor& elem_map,
                                const OptionalTensor& clip_scale, const OptionalTensor& noise,
                                const OptionalTensor& rng, int64_t n_store, int64_t clip_mode,
                                int64_t anchor_mode) {
    Call call = bind_inputs(x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise,
                            rng, n_store, clip_mode, anchor_mode);
    std::vector<Tensor> results = allocate_outputs(call, x, history);
    execute(call.args);
    return results;
}

void solver_step_(const Tensor& x, const std::vector<Tensor>& outs, Tensor x_out,
                  const OptionalTensor& anchor, const OptionalTensor& history, const OptionalTensor& model_in,
                  const Tensor& coef, const Tensor& step, const OptionalTensor& weights,
                  const OptionalTensor& elem, const OptionalTensor& elem_map,
                  const OptionalTensor& clip_scale, const OptionalTensor& noise, const OptionalTensor& rng,
                  int64_t n_store, int64_t clip_mode, int64_t anchor_mode) {
    Call call = bind_inputs(x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise,
                            rng, n_store, clip_mode, anchor_mode);
    bind_outputs(call, x, x_out, anchor, history, model_in);
    execute(call.args);
}

}  // namespace
}  // namespace fd::linear_step

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    m.impl("solver_step", TORCH_BOX(&fd::linear_step::solver_step));
    m.impl("solver_step_", TORCH_BOX(&fd::linear_step::solver_step_));
}
