// Solver step on CUDA: one launch, every tensor touched once.
//
// Roofline: pure streaming. DPM-Solver++(2M) in float32 moves 20 bytes per element (reads x, o, h; writes x',
// m) for about 7 fma: 0.35 operations per byte, two orders of magnitude below the ridge of an A100 or H100.
// The floor is bytes over copy bandwidth; noise adds 10 Philox rounds and half a Box-Muller per element, some
// 60 integer and 20 float operations, still below the ridge in float32.
//
// A thread owns V elements (16 bytes of the narrowest tensor), so every access is a whole 16-byte
// transaction, neighbouring threads neighbouring addresses. Coefficients live in shared memory and are loaded
// once per block (once per sample where samples differ); all branches on them are uniform. Blocks stride over
// the grid, 16 to a multiprocessor. Mixed dtypes, element coefficients and tensors that are not 16-byte
// aligned take the same code one element at a time.
//
// No two threads touch the same output element, and an element of the ring is read before the same thread
// overwrites it: there is nothing for blocks to race on.
#include "common/launch.h"
#include "linear_step/linear_step_launch.h"

namespace fd::linear_step {
namespace {

constexpr int kThreads = 128, kBlocksPerSm = 16;

// Resident blocks that the register budget must allow: 3 for eight 16-bit elements a thread (at most 170
// registers), else 4; 2 when all four rows exist.
constexpr int resident_blocks(int vector, bool all_rows) { return all_rows ? 2 : vector == 8 ? 3 : 4; }

struct AnyType {};  // the storage type is only known at run time

template <class Acc, class T>
__device__ __forceinline__ Acc widen_value(T v) {
    return static_cast<Acc>(v);
}

template <class T, class Acc>
__device__ __forceinline__ T narrow_value(Acc v) {
    if constexpr (sizeof(T) == 2) return static_cast<T>(static_cast<float>(v));
    return static_cast<T>(v);
}

template <class T, class Acc, int V>
__device__ __forceinline__ void load_vector(const void* base, int64_t first, Acc (&out)[V]) {
    constexpr int kWidth = V * sizeof(T) < 16 ? V : 16 / static_cast<int>(sizeof(T));
    const auto* from = reinterpret_cast<const Vec<T, kWidth>*>(static_cast<const T*>(base) + first);
    FD_UNROLL
    for (int part = 0; part < V / kWidth; ++part) {
        const Vec<T, kWidth> raw = from[part];
        FD_UNROLL
        for (int i = 0; i < kWidth; ++i) out[part * kWidth + i] = widen_value<Acc>(raw.v[i]);
    }
}

template <class T, class Acc, int V>
__device__ __forceinline__ void store_vector(void* base, int64_t first, const Acc (&in)[V]) {
    constexpr int kWidth = V * sizeof(T) < 16 ? V : 16 / static_cast<int>(sizeof(T));
    auto* to = reinterpret_cast<Vec<T, kWidth>*>(static_cast<T*>(base) + first);
    FD_UNROLL
    for (int part = 0; part < V / kWidth; ++part) {
        Vec<T, kWidth> raw;
        FD_UNROLL
        for (int i = 0; i < kWidth; ++i) raw.v[i] = narrow_value<T>(in[part * kWidth + i]);
        to[part] = raw;
    }
}

// Elements [p, p + V) of sample b, in registers.
template <class Acc, class Tx, class To, class Th, int V>
struct DeviceIo {
    const StepArgs& a;
    const Coefficients<Acc>& c;
    int64_t b, p;

    struct Tile {
        Acc v[V];
    };

    struct Sum {
        Tile total;
        bool started = false;

        __device__ __forceinline__ void add(Acc weight, const Tile& term) {
            FD_UNROLL
            for (int i = 0; i < V; ++i)
                total.v[i] = started ? fma(weight, term.v[i], total.v[i]) : weight * term.v[i];
            started = true;
        }
        __device__ __forceinline__ void add(const Tile& weights, const Tile& term) {
            tile();
            FD_UNROLL
            for (int i = 0; i < V; ++i) {
                total.v[i] = weights.v[i] != Acc(0) ? fma(weights.v[i], term.v[i], total.v[i]) : total.v[i];
            }
        }
        __device__ __forceinline__ const Tile& tile() {
            FD_UNROLL
            for (int i = 0; i < V; ++i) total.v[i] = started ? total.v[i] : Acc(0);
            started = true;
            return total;
        }
        __device__ __forceinline__ void settle() {}
    };

    __device__ __forceinline__ Sum sum() { return {}; }
    __device__ __forceinline__ int64_t place() const { return b * a.sample + p; }

    template <class F>
    __device__ __forceinline__ Tile map(const Tile& in, F f) {
        Tile out;
        FD_UNROLL
        for (int i = 0; i < V; ++i) out.v[i] = f(in.v[i]);
        return out;
    }

    __device__ __forceinline__ Tile missing() {
        Tile out;
        FD_UNROLL
        for (int i = 0; i < V; ++i) out.v[i] = std::numeric_limits<Acc>::quiet_NaN();
        return out;
    }

    __device__ __forceinline__ Tile load_any(const void* base, DType type, int64_t first) {
        Tile out;
        FD_UNROLL
        for (int i = 0; i < V; ++i) {
            switch (type) {
                case DType::f16:
                    out.v[i] = widen_value<Acc>(static_cast<const half*>(base)[first + i]);
                    break;
                case DType::bf16:
                    out.v[i] = widen_value<Acc>(static_cast<const bfloat16*>(base)[first + i]);
                    break;
                case DType::f32:
                    out.v[i] = widen_value<Acc>(static_cast<const float*>(base)[first + i]);
                    break;
                default:
                    out.v[i] = widen_value<Acc>(static_cast<const double*>(base)[first + i]);
            }
        }
        return out;
    }

    template <class T>
    __device__ __forceinline__ Tile load(const void* base, DType type, int64_t first) {
        if (base == nullptr) return missing();
        if constexpr (std::is_same_v<T, AnyType>) {
            return load_any(base, type, first);
        } else {
            Tile out;
            load_vector<T>(base, first, out.v);
            return out;
        }
    }

    __device__ __forceinline__ Tile load_x() { return load<Tx>(a.x, a.x_type, place()); }
    __device__ __forceinline__ Tile load_out(int k) { return load<To>(a.outs[k], a.out_type, place()); }
    __device__ __forceinline__ Tile load_anchor() { return load<Tx>(a.anchor, a.x_type, place()); }

    __device__ __forceinline__ Tile load_history(int age) {
        if (age >= a.n_hist) return missing();
        const int64_t slot = ring_slot(c.head, age, a.n_hist);
        return load<Th>(a.history, a.history_type, slot * a.batch * a.sample + place());
    }

    __device__ __forceinline__ Tile load_noise() {
        if (a.rng == nullptr) return load<AnyType>(a.noise, a.noise_type, place());
        const PhiloxStream stream(StreamTag::normal, c.seed, c.offset, c.row);
        Tile out;
        if (V % 4 == 0 && a.channels <= 1) {
            FD_UNROLL
            for (int part = 0; part < V / 4; ++part) {
                float z[4];
                normals_of_block(stream, static_cast<uint64_t>(p / 4 + part), z);
                FD_UNROLL
                for (int i = 0; i < 4; ++i) out.v[part * 4 + i] = static_cast<Acc>(z[i]);
            }
            return out;
        }
        FD_UNROLL
        for (int i = 0; i < V; ++i) {
            const int64_t e = logical_index(a, p + i);
            float z[4];
            normals_of_block(stream, static_cast<uint64_t>(e / 4), z);
            const float low = (e & 1) == 0 ? z[0] : z[1], high = (e & 1) == 0 ? z[2] : z[3];
            out.v[i] = static_cast<Acc>((e & 2) == 0 ? low : high);
        }
        return out;
    }

    __device__ __forceinline__ Tile load_elem(int k) {
        const int64_t step = a.elem_steps == 1 ? 0 : *a.step, base = (step * a.n_elem + k) * a.elem_period;
        Tile out;
        FD_UNROLL
        for (int i = 0; i < V; ++i) {
            const int64_t at = base + logical_index(a, p + i) / a.elem_inner % a.elem_period;
            out.v[i] = a.elem_type == DType::f64 ? static_cast<Acc>(static_cast<const double*>(a.elem)[at])
                                                 : static_cast<Acc>(static_cast<const float*>(a.elem)[at]);
        }
        return out;
    }

    template <class T>
    __device__ __forceinline__ void store(void* base, DType type, int64_t first, const Tile& in) {
        if constexpr (!std::is_same_v<T, AnyType>) {
            store_vector<T>(base, first, in.v);
        } else {
            FD_UNROLL
            for (int i = 0; i < V; ++i) {
                switch (type) {
                    case DType::f16:
                        static_cast<half*>(base)[first + i] = narrow_value<half>(in.v[i]);
                        break;
                    case DType::bf16:
                        static_cast<bfloat16*>(base)[first + i] = narrow_value<bfloat16>(in.v[i]);
                        break;
                    case DType::f32:
                        static_cast<float*>(base)[first + i] = narrow_value<float>(in.v[i]);
                        break;
                    default:
                        static_cast<double*>(base)[first + i] = narrow_value<double>(in.v[i]);
                }
            }
        }
    }

    __device__ __forceinline__ void store_x(Sum& sum) { store<Tx>(a.x_next, a.x_type, place(), sum.tile()); }
    __device__ __forceinline__ void store_anchor(Sum& sum) {
        store<Tx>(a.anchor_next, a.x_type, place(), sum.tile());
    }

    __device__ __forceinline__ void store_history(int k, Sum& sum) {
        if (a.ring == nullptr) return store<Th>(a.store[k], a.history_type, place(), sum.tile());
        const int64_t slot = (c.head + k) % a.n_hist;
        store<Th>(a.ring, a.history_type, slot * a.batch * a.sample + place(), sum.tile());
    }

    __device__ __forceinline__ void store_model_in(Sum& sum) {
        for (int64_t copy = 0; copy < a.model_copies; ++copy) {
            store<To>(a.model_in, a.out_type, copy * a.batch * a.sample + place(), sum.tile());
        }
    }
};

template <class Acc>
__device__ __forceinline__ void load_coefficients(const StepArgs& a, int64_t b, Coefficients<Acc>& c) {
    __syncthreads();  // nobody still reads the previous sample's numbers
    for (int k = static_cast<int>(threadIdx.x); k < kCoef; k += static_cast<int>(blockDim.x))
        load_value(a, b, k, c);
    __syncthreads();
    if (threadIdx.x == 0) load_rest(a, b, c);
    __syncthreads();
    if (threadIdx.x < kRows) c.used[threadIdx.x] = used_columns(a, c, static_cast<int>(threadIdx.x));
    __syncthreads();
    if (threadIdx.x == 0) c.columns = c.used[kX] | c.used[kA] | c.used[kS0] | c.used[kS1];
    __syncthreads();
}

// Work item = (sample, run of blockDim.x * V elements).
template <class Acc, class Tx, class To, class Th, int V, bool Elem, bool AllRows>
__global__ void __launch_bounds__(kThreads, resident_blocks(V, AllRows))
    step_kernel(StepArgs a, int64_t runs_per_sample) {
    __shared__ Coefficients<Acc> c;
    const int64_t items = a.batch * runs_per_sample;
    int64_t current = -1;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
        const int64_t b = item / runs_per_sample, run = item % runs_per_sample;
        if (b != current) {
            load_coefficients(a, b, c);
            current = b;
        }
        const int64_t p = (run * blockDim.x + threadIdx.x) * V;
        if (p + V <= a.sample) {
            DeviceIo<Acc, Tx, To, Th, V> io{a, c, b, p};
            step_tile<Elem, AllRows>(a, c, io);
        } else {
            for (int64_t q = p; q < a.sample; ++q) {  // the last few elements, one by one
                DeviceIo<Acc, Tx, To, Th, 1> io{a, c, b, q};
                step_tile<Elem, AllRows>(a, c, io);
            }
        }
    }
}

template <class Acc, class Tx, class To, class Th, int V, bool Elem, bool AllRows>
void launch_step(void* stream, const StepArgs& a) {
    const int64_t vectors = (a.sample + V - 1) / V;
    int threads = kThreads;
    while (threads > 32 && threads / 2 >= vectors)
        threads /= 2;  // many tiny samples with numbers of their own
    const int64_t runs = (vectors + threads - 1) / threads;
    const dim3 grid = stride_grid(a.batch * runs * threads, threads, kBlocksPerSm * (kThreads / threads));
    launch(step_kernel<Acc, Tx, To, Th, V, Elem, AllRows>, grid, dim3(threads), 0, stream, a, runs);
}

bool aligned(const StepArgs& a, int vector) {
    const void* pointers[] = {a.x,        a.outs[0],  a.outs[1], a.outs[2],     a.outs[3],
                              a.anchor,   a.history,  a.x_next,  a.anchor_next, a.store[0],
                              a.store[1], a.model_in, a.ring};
    uintptr_t bits = 0;
    for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
    // Slots of the ring and copies of model_in start at multiples of batch * sample; samples at multiples of
    // sample.
    const bool whole = (a.batch == 1 && a.n_hist <= 1 && a.model_copies <= 1) || a.sample % vector == 0;
    return bits % 16 == 0 && whole;
}

bool needs_all_rows(const StepArgs& a) { return a.anchor_mode == kAnchorRow || a.n_store == 2; }

template <class Acc, class Tx, class To, class Th, int V>
bool launch_if(void* stream, const StepArgs& a) {
    const bool types =
        a.x_type == dtype_of<Tx> && a.out_type == dtype_of<To> && a.history_type == dtype_of<Th>;
    if (!types || a.elem != nullptr || !aligned(a, V)) return false;
    if (needs_all_rows(a)) {
        launch_step<Acc, Tx, To, Th, V, false, true>(stream, a);
    } else {
        launch_step<Acc, Tx, To, Th, V, false, false>(stream, a);
    }
    return true;
}

template <class Acc>
void launch_any(void* stream, const StepArgs& a) {
    if (a.elem != nullptr) return launch_step<Acc, AnyType, AnyType, AnyType, 1, true, true>(stream, a);
    launch_step<Acc, AnyType, AnyType, AnyType, 1, false, true>(stream, a);
}

}  // namespace

void solver_step_cuda(void* stream, const StepArgs& args) {
    StepArgs a = args;
    if (a.batch * a.sample == 0) return;
    if (a.uniform()) {
        a.sample *= a.batch;
        a.batch = 1;
        a.channels = 1;
    }
    const bool done = launch_if<float, float, float, float, 4>(stream, a) ||
                      launch_if<float, half, half, half, 8>(stream, a) ||
                      launch_if<float, half, half, float, 8>(stream, a) ||
                      launch_if<float, bfloat16, bfloat16, bfloat16, 8>(stream, a) ||
                      launch_if<float, bfloat16, bfloat16, float, 8>(stream, a) ||
                      launch_if<float, float, half, float, 8>(stream, a) ||
                      launch_if<float, float, bfloat16, float, 8>(stream, a) ||
                      launch_if<double, double, double, double, 2>(stream, a);
    if (done) return;
    if (a.x_type == DType::f64 || (a.n_hist > 0 && a.history_type == DType::f64))
        return launch_any<double>(stream, a);
    launch_any<float>(stream, a);
}

}  // namespace fd::linear_step
