// Solver step on the CPU.
//
// Floor: bytes of the tensors that a row uses, each once, over the bandwidth of a bare loop; arithmetic is a few fma per
// element on tiles of 2 KiB that stay in L1. Large outputs are written past the caches (their old contents are not read).
// Noise costs no bytes: Philox and Box-Muller in registers, about 0.6 ns per normal with AVX-512.
#include <algorithm>

#include "linear_step/linear_step_args.h"
#include "common/philox_cpu.h"

namespace fd::linear_step {
namespace {

constexpr int64_t kParallelElements = 1 << 16;  // a thread gets at least this much
constexpr int64_t kStreamBytes = 1 << 20;       // tensors from this size on bypass the caches when written

template <class Acc>
constexpr int kTile = 2048 / sizeof(Acc);

// Loads and stores of one tile: elements [p, p + n) of sample b.
template <simd::Level L, class Acc>
struct CpuIo {
    static constexpr int N = kTile<Acc>;

    struct Tile {
        alignas(64) Acc buffer[N];
        const Acc* pointer = buffer;
        FD_HOST_DEVICE const Acc* data() const { return pointer; }
    };

    const StepArgs& a;
    const Coefficients<Acc>& c;
    int64_t b, p;
    int n;
    bool stream;

    FD_HOST_DEVICE int count() const { return n; }
    FD_HOST_DEVICE int64_t place() const { return b * a.sample + p; }

    template <class T>
    FD_HOST_DEVICE void load_as(const void* base, int64_t first, Tile& tile) {
        const T* from = static_cast<const T*>(base) + first;
        if constexpr (dtype_of<T> == dtype_of<Acc>) {
            tile.pointer = from;
        } else {
            widen_block<L>(from, tile.buffer, n);
            tile.pointer = tile.buffer;
        }
    }

    FD_HOST_DEVICE void load(const void* base, DType type, int64_t first, Tile& tile) {
        if (base == nullptr) return fill(std::numeric_limits<Acc>::quiet_NaN(), tile);
        switch (type) {
            case DType::f16:
                return load_as<half>(base, first, tile);
            case DType::bf16:
                return load_as<bfloat16>(base, first, tile);
            case DType::f32:
                return load_as<float>(base, first, tile);
            case DType::f64:
                return load_as<double>(base, first, tile);
        }
    }

    FD_HOST_DEVICE void fill(Acc value, Tile& tile) {
        for (int i = 0; i < n; ++i) tile.buffer[i] = value;
        tile.pointer = tile.buffer;
    }

    FD_HOST_DEVICE void load_x(Tile& tile) { load(a.x, a.x_type, place(), tile); }
    FD_HOST_DEVICE void load_out(int k, Tile& tile) { load(a.outs[k], a.out_type, place(), tile); }
    FD_HOST_DEVICE void load_anchor(Tile& tile) { load(a.anchor, a.x_type, place(), tile); }

    FD_HOST_DEVICE void load_history(int age, Tile& tile) {
        if (age >= a.n_hist) return fill(std::numeric_limits<Acc>::quiet_NaN(), tile);
        const int64_t slot = ring_slot(c.head, age, a.n_hist);
        load(a.history, a.history_type, slot * a.batch * a.sample + place(), tile);
    }

    FD_HOST_DEVICE void load_noise(Tile& tile) {
        if (a.rng == nullptr) return load(a.noise, a.noise_type, place(), tile);
        const PhiloxStream stream_of_sample(StreamTag::normal, c.seed, c.offset, c.row);
        alignas(64) float z[N];
        if (a.channels <= 1) {
            normals_range<L>(stream_of_sample, p, n, z);
        } else {
            normals_channels_last(stream_of_sample, z);
        }
        widen_block<L>(z, tile.buffer, n);
        tile.pointer = tile.buffer;
    }

    // Each channel of the tile is a run of consecutive logical elements; the runs' blocks are collected and drawn together.
    FD_HOST_DEVICE void normals_channels_last(const PhiloxStream& s, float* z) {
        const int64_t channels = a.channels, pixels = a.sample / channels;
        uint64_t blocks[kPhiloxChunk] = {};
        int64_t base_of[kPhiloxChunk];  // place of the block's element 0 relative to the tile
        int pending = 0;
        const auto flush = [&]() __attribute__((always_inline)) {
            alignas(64) float drawn[4 * kPhiloxChunk];
            normals_of_blocks<L>(s, blocks, drawn);
            for (int i = 0; i < pending; ++i) {
                for (int j = 0; j < 4; ++j) {
                    const int64_t at = base_of[i] + j * channels;
                    if (at >= 0 && at < n) z[at] = drawn[4 * i + j];
                }
            }
            pending = 0;
        };
        for (int64_t channel = 0; channel < channels; ++channel) {
            const int64_t first_pixel = (p - channel + channels - 1) / channels;
            const int64_t last_pixel = (p + n - 1 - channel) >= 0 ? (p + n - 1 - channel) / channels : -1;
            if (last_pixel < first_pixel) continue;
            const int64_t e0 = channel * pixels + first_pixel, e1 = channel * pixels + last_pixel;
            for (int64_t block = e0 / 4; block <= e1 / 4; ++block) {
                blocks[pending] = static_cast<uint64_t>(block);
                base_of[pending] = (4 * block - channel * pixels) * channels + channel - p;
                if (++pending == kPhiloxChunk) flush();
            }
        }
        if (pending > 0) flush();
    }

    FD_HOST_DEVICE void load_elem(int k, Tile& tile) {
        const int64_t step = a.elem_steps == 1 ? 0 : *a.step, base = (step * a.n_elem + k) * a.elem_period;
        for (int i = 0; i < n; ++i) {
            const int64_t at = base + logical_index(a, p + i) / a.elem_inner % a.elem_period;
            tile.buffer[i] = a.elem_type == DType::f64 ? static_cast<Acc>(static_cast<const double*>(a.elem)[at])
                                                       : static_cast<Acc>(static_cast<const float*>(a.elem)[at]);
        }
        tile.pointer = tile.buffer;
    }

    template <class T>
    FD_HOST_DEVICE void store_as(void* base, int64_t first, const Acc* values) {
        T* to = static_cast<T*>(base) + first;
#if FD_X86
        if constexpr (L != simd::Level::scalar) {
            const int64_t bytes = n * sizeof(T);
            if (stream && reinterpret_cast<uintptr_t>(to) % 64 == 0 && bytes % 64 == 0) {
                if constexpr (dtype_of<T> == dtype_of<Acc>) return fd::detail::stream_copy(values, to, bytes);
                alignas(64) T narrowed[N];
                narrow_block<L>(values, narrowed, n);
                return fd::detail::stream_copy(narrowed, to, bytes);
            }
        }
#endif
        narrow_block<L>(values, to, n);
    }

    FD_HOST_DEVICE void store(void* base, DType type, int64_t first, const Acc* values) {
        switch (type) {
            case DType::f16:
                return store_as<half>(base, first, values);
            case DType::bf16:
                return store_as<bfloat16>(base, first, values);
            case DType::f32:
                return store_as<float>(base, first, values);
            case DType::f64:
                return store_as<double>(base, first, values);
        }
    }

    FD_HOST_DEVICE void store_x(const Acc* values) { store(a.x_next, a.x_type, place(), values); }
    FD_HOST_DEVICE void store_anchor(const Acc* values) { store(a.anchor_next, a.x_type, place(), values); }

    FD_HOST_DEVICE void store_history(int k, const Acc* values) {
        if (a.ring == nullptr) return store(a.store[k], a.history_type, place(), values);
        const int64_t slot = (c.head + k) % a.n_hist;
        store(a.ring, a.history_type, slot * a.batch * a.sample + place(), values);
    }

    FD_HOST_DEVICE void store_model_in(const Acc* values) {
        for (int64_t copy = 0; copy < a.model_copies; ++copy) {
            store(a.model_in, a.out_type, copy * a.batch * a.sample + place(), values);
        }
    }
};

template <class Acc>
FD_HOST_DEVICE void load_coefficients(const StepArgs& a, int64_t b, Coefficients<Acc>& c) {
    for (int k = 0; k < kCoef; ++k) load_value(a, b, k, c);
    load_rest(a, b, c);
    for (int r = 0; r < kRows; ++r) c.used[r] = used_columns(a, c, r);
}

// Tiles [begin, end) of the call, counted over all samples.
template <class Acc, bool Elem>
struct Tiles {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const StepArgs* args, int64_t begin, int64_t end) {
        constexpr int N = kTile<Acc>;
        const StepArgs& a = *args;
        const int64_t per_sample = (a.sample + N - 1) / N;
        const bool stream = a.batch * a.sample * size_of(a.x_type) >= kStreamBytes;
        Coefficients<Acc> c;
        int64_t b = begin / per_sample, tile = begin % per_sample;
        load_coefficients(a, b, c);
        for (int64_t item = begin; item < end; ++item) {
            const int64_t p = tile * N;
            CpuIo<L, Acc> io{a, c, b, p, static_cast<int>(std::min<int64_t>(N, a.sample - p)), stream};
            step_tile<Acc, N, Elem>(a, c, io);
            if (++tile == per_sample && item + 1 < end) {
                tile = 0;
                load_coefficients(a, ++b, c);
            }
        }
        if (stream) fd::detail::stream_fence();
    }
};

template <class Acc, bool Elem>
void run_tiles(const StepArgs& a) {
    const int64_t tiles = a.batch * ((a.sample + kTile<Acc> - 1) / kTile<Acc>);
    const auto body = [&a](int64_t begin, int64_t end) {
        simd::dispatch<Tiles<Acc, Elem>>(&a, begin, end);
    };
    const int64_t grain = std::max<int64_t>(kParallelElements / std::min<int64_t>(a.sample, kTile<Acc>), 1);
    if (tiles <= grain) return body(0, tiles);
    torch::stable::parallel_for(0, tiles, grain, body);
}

// What a GPU could only answer with NaN is an error here.
void check_values(const StepArgs& a) {
    const int64_t step = *a.step;
    FD_CHECK_VALUE(step >= 0 && step < a.steps, "`step` must lie in [0, ", a.steps, "), got ", step);
    for (int k = 0; k < a.n_elem; ++k) {
        const int64_t where = a.elem_map[k];
        const bool good = where >= kCx && where < kCoef + kRows && where != kClipBound && (where < kCin || where >= kCoef);
        FD_CHECK_VALUE(good, "`elem_map` names position ", where, ", which no element may replace");
    }
    bool anchor = false, noise = false;
    int ages = 0;
    for (int64_t b = 0; b < a.coef_batch; ++b) {
        const double* row = a.coef + (step * a.coef_batch + b) * kCoef;
        for (int r = 0; r < kRows; ++r) {
            if (r >= kS0 && r - kS0 >= a.n_store) continue;
            anchor = anchor || row[position(r, kAnchor)] != 0;
            noise = noise || row[position(r, kNoise)] != 0;
            for (int age = ages; age < kMaxHistory; ++age) {
                if (row[position(r, kHistory + age)] != 0) ages = age + 1;
            }
        }
        if (row[kDh] != 0) ages = std::max(ages, 1);
    }
    FD_CHECK_VALUE(!anchor || a.anchor != nullptr, "`anchor` is missing, but the row has a weight for it");
    FD_CHECK_VALUE(!noise || a.noise != nullptr || a.rng != nullptr,
                   "`noise` or `rng` is missing, but the row has a weight for noise");
    FD_CHECK_VALUE(ages <= a.n_hist, "`history` must hold at least ", ages, " values, got ", a.n_hist);
}

void execute(StepArgs a) {
    check_values(a);
    if (a.batch * a.sample == 0) return;
    if (a.uniform()) {
        a.sample *= a.batch;
        a.batch = 1;
        a.channels = 1;
    }
    const bool wide = a.x_type == DType::f64 || (a.n_hist > 0 && a.history_type == DType::f64);
    if (a.elem != nullptr) return wide ? run_tiles<double, true>(a) : run_tiles<float, true>(a);
    return wide ? run_tiles<double, false>(a) : run_tiles<float, false>(a);
}

std::vector<Tensor> solver_step(const Tensor& x, const std::vector<Tensor>& outs, const OptionalTensor& anchor,
                                const OptionalTensor& history, const Tensor& coef, const Tensor& step,
                                const OptionalTensor& weights, const OptionalTensor& elem, const OptionalTensor& elem_map,
                                const OptionalTensor& clip_scale, const OptionalTensor& noise, const OptionalTensor& rng,
                                int64_t n_store, int64_t clip_mode, int64_t anchor_mode) {
    Call call = bind_inputs(x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng, n_store,
                            clip_mode, anchor_mode);
    std::vector<Tensor> results = allocate_outputs(call, x, history);
    execute(call.args);
    return results;
}

void solver_step_(const Tensor& x, const std::vector<Tensor>& outs, Tensor x_out, const OptionalTensor& anchor,
                  const OptionalTensor& history, const OptionalTensor& model_in, const Tensor& coef, const Tensor& step,
                  const OptionalTensor& weights, const OptionalTensor& elem, const OptionalTensor& elem_map,
                  const OptionalTensor& clip_scale, const OptionalTensor& noise, const OptionalTensor& rng, int64_t n_store,
                  int64_t clip_mode, int64_t anchor_mode) {
    Call call = bind_inputs(x, outs, anchor, history, coef, step, weights, elem, elem_map, clip_scale, noise, rng, n_store,
                            clip_mode, anchor_mode);
    bind_outputs(call, x, outs, x_out, anchor, history, model_in, noise);
    execute(call.args);
}

}  // namespace
}  // namespace fd::linear_step

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    m.impl("solver_step", TORCH_BOX(&fd::linear_step::solver_step));
    m.impl("solver_step_", TORCH_BOX(&fd::linear_step::solver_step_));
}
