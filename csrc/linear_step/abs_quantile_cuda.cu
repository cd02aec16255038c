// abs_quantile on CUDA: radix select on the bit pattern of |u|, 11 bits a pass (3 passes for float, 6 for
// double), no sort.
//
// Roofline. Every pass reads x and outs once and computes u anew, so nothing of the data's size is stored: 3
// (1 + K) reads of the data, plus a shared-memory atomic for each element in the first pass and for few in
// the others. At 3.3 TB/s (H100) that is 3.6 ps for a float32 element with K = 0. The first pass is bound by
// atomics on the few bins that hold the data, some 1 ps an element; the reads of later passes come from L2
// for samples that fit.
//   small samples   one block each, all passes in one launch, histogram in shared memory
//   large samples   one launch a pass with many blocks a sample; each block starts with the choice of bin
//   that the previous
//                   histogram implies (8 or 16 KiB out of L2), which saves a launch between the passes
// Counts are integers, so the result does not depend on the order of the atomics.
#include <algorithm>

#include "common/launch.h"
#include "common/radix_select_cuda.h"
#include "linear_step/abs_quantile_launch.h"

namespace fd::linear_step {
namespace {

constexpr int kThreads = 512;
constexpr int kBins = kRadixBins;
constexpr int kGroup = 8;               // elements a thread loads at a time: 16 bytes of a half type
constexpr int64_t kOneBlock = 1 << 15;  // samples up to this size are one block's work

using Word = unsigned long long;

// Keys are magnitudes: all bits but the sign. Pass 0 looks at the highest ones.
template <class Acc>
using Passes = RadixPasses<8 * sizeof(Acc) - 1>;
template <class Acc>
constexpr int kPasses = Passes<Acc>::kCount;

// A large sample's scratch memory: a histogram a pass, what each pass started from, and two numbers of all
// passes.
struct Scratch {
    Word* base;
    int passes;

    FD_HOST_DEVICE static int64_t words(int passes) { return passes * (kBins + 2) + 2; }
    FD_HOST_DEVICE Word* histogram(int pass) const { return base + pass * kBins; }
    FD_HOST_DEVICE RadixChoice* chosen(int pass) const {
        return reinterpret_cast<RadixChoice*>(base + passes * kBins) + pass;
    }
    FD_HOST_DEVICE Word* nan() const { return base + passes * (kBins + 2); }
    // Complement of the smallest key above the bin that the last pass looks into: zero says that there is
    // none.
    FD_HOST_DEVICE Word* above() const { return nan() + 1; }
};

template <class Acc, class T>
__device__ void load_typed(const void* in, int64_t at, int n, bool whole, Acc* out) {
    const T* from = static_cast<const T*>(in) + at;
    if (whole) {
        constexpr int kVec = 16 / sizeof(T) < kGroup ? 16 / sizeof(T) : kGroup;
        FD_UNROLL
        for (int i = 0; i < kGroup; i += kVec) {
            const Vec<T, kVec> packed = *reinterpret_cast<const Vec<T, kVec>*>(from + i);
            FD_UNROLL
            for (int j = 0; j < kVec; ++j) out[i + j] = static_cast<Acc>(packed.v[j]);
        }
    } else {
        FD_UNROLL
        for (int i = 0; i < kGroup; ++i) out[i] = i < n ? static_cast<Acc>(from[i]) : Acc(0);
    }
}

template <class Acc>
__device__ void load(const void* in, DType type, int64_t at, int n, bool whole, Acc* out) {
    switch (type) {
        case DType::f16:
            return load_typed<Acc, half>(in, at, n, whole, out);
        case DType::bf16:
            return load_typed<Acc, bfloat16>(in, at, n, whole, out);
        case DType::f32:
            return load_typed<Acc, float>(in, at, n, whole, out);
        case DType::f64:
            return load_typed<Acc, double>(in, at, n, whole, out);
    }
}

// Adds weight * term as linear_step.h adds the terms of a row: a product first, then fma.
template <class Acc>
__device__ void add(Acc weight, const Acc* term, bool first, Acc* sum) {
    FD_UNROLL
    for (int i = 0; i < kGroup; ++i) sum[i] = first ? weight * term[i] : fma(weight, term[i], sum[i]);
}

// Calls see(key) for the part of a sample that thread `thread` of `threads` takes.
template <class Acc, class See>
__device__ void for_each_key(const QuantileArgs& a, const Conversion<Acc>& c, int64_t b, bool aligned,
                             int64_t thread, int64_t threads, See see) {
    const int64_t groups = (a.elements + kGroup - 1) / kGroup;
    for (int64_t group = thread; group < groups; group += threads) {
        const int n = static_cast<int>(min(static_cast<int64_t>(kGroup), a.elements - group * kGroup));
        const bool whole = aligned && n == kGroup;
        const int64_t at = b * a.elements + group * kGroup;
        Acc term[kGroup], output[kGroup], u[kGroup];
        FD_UNROLL
        for (int i = 0; i < kGroup; ++i) u[i] = output[i] = Acc(0);
        const bool reads_x = c.c_x != Acc(0);
        if (reads_x) {
            load(a.x, a.x_type, at, n, whole, term);
            add(c.c_x, term, true, u);
        }
        bool first = true;
        FD_UNROLL
        for (int k = 0; k < kMaxOuts; ++k) {
            if (k >= a.n_outs || c.c_o == Acc(0) || c.g[k] == Acc(0)) continue;
            load(a.outs[k], a.out_type, at, n, whole, term);
            add(c.g[k], term, first, output);
            first = false;
        }
        if (!first) add(c.c_o, output, !reads_x, u);
        FD_UNROLL
        for (int i = 0; i < kGroup; ++i) {
            if (i < n) see(magnitude_key(u[i]));
        }
    }
}

// One pass over a part of a sample: counts into the block's histogram; the last pass also finds the smallest
// key above its bin.
template <class Acc>
__device__ void count_keys(const QuantileArgs& a, const Conversion<Acc>& c, int64_t b, bool aligned,
                           int64_t thread, int64_t threads, int pass, const RadixChoice& chosen,
                           unsigned* histogram, bool& nan, Word& above) {
    const int shift = Passes<Acc>::shift(pass), bits = Passes<Acc>::bits(pass);
    const bool last = pass == kPasses<Acc> - 1;
    for_each_key<Acc>(a, c, b, aligned, thread, threads, [&](Key<Acc> key) {
        const Word high = static_cast<Word>(key) >> (shift + bits);
        if (high == chosen.prefix) atomicAdd(&histogram[(key >> shift) & ((1u << bits) - 1)], 1u);
        if (last && high > chosen.prefix) above = max(above, ~static_cast<Word>(key));
        nan = nan || key > kInfinityKey<Acc>;
    });
}

// The key of rank k + 1: the same value again, the next one in the last histogram, or the smallest above it.
// One thread.
template <class Acc, class Count>
__device__ Key<Acc> next_key(const Count* last_histogram, const RadixChoice& chosen, Word above) {
    const int bits = Passes<Acc>::bits(kPasses<Acc> - 1);
    int bin = static_cast<int>(chosen.prefix & ((1u << bits) - 1));
    if (chosen.rank + 1 < last_histogram[bin]) return static_cast<Key<Acc>>(chosen.prefix);
    for (++bin; bin < 1 << bits; ++bin) {
        if (last_histogram[bin] != 0)
            return static_cast<Key<Acc>>(chosen.prefix >> bits << bits | static_cast<Word>(bin));
    }
    return static_cast<Key<Acc>>(~above);
}

template <class Acc, class Count>
__device__ Acc finish(const Count* last_histogram, const RadixChoice& chosen, bool nan, Word above,
                      double weight, double floor, double cap) {
    if (nan) return Acc(NAN);
    const auto low = static_cast<Key<Acc>>(chosen.prefix);
    const auto high = weight == 0 ? low : next_key<Acc>(last_histogram, chosen, above);
    return finish_quantile<Acc>(low, high, weight, floor, cap);
}

template <class Acc>
__global__ void __launch_bounds__(kThreads)
    quantile_one_block(QuantileArgs a, QuantileRank rank, bool aligned, double floor, double cap, Acc* out) {
    __shared__ unsigned histogram[kBins];
    __shared__ Word above;
    __shared__ int any_nan;
    for (int64_t b = blockIdx.x; b < a.samples; b += gridDim.x) {
        const Conversion<Acc> c(a, b);
        RadixChoice chosen{0, static_cast<Word>(rank.below)};
        for (int pass = 0; pass < kPasses<Acc>; ++pass) {
            for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) histogram[i] = 0;
            if (pass == 0 && threadIdx.x == 0) {
                above = 0;
                any_nan = 0;
            }
            __syncthreads();
            bool own_nan = false;
            Word own_above = 0;
            count_keys<Acc>(a, c, b, aligned, threadIdx.x, kThreads, pass, chosen, histogram, own_nan,
                            own_above);
            if (own_nan) atomicOr(&any_nan, 1);
            if (own_above != 0) atomicMax(&above, own_above);
            __syncthreads();
            chosen = choose_bin<kThreads>(histogram, chosen, Passes<Acc>::bits(pass));
        }
        if (threadIdx.x == 0) {
            out[b] = finish<Acc>(histogram, chosen, any_nan != 0, above, rank.weight, floor, cap);
        }
        __syncthreads();  // the histogram has been read
    }
}

// Pass `pass` of large samples, `parts` blocks each. Pass kPasses, with one part, writes the result.
template <class Acc>
__global__ void __launch_bounds__(kThreads)
    quantile_pass(QuantileArgs a, QuantileRank rank, bool aligned, double floor, double cap, int pass,
                  unsigned parts, Word* scratch, Acc* out) {
    __shared__ unsigned histogram[kBins];
    const int64_t b = blockIdx.x / parts;
    const unsigned part = blockIdx.x % parts;
    const Scratch own{scratch + b * Scratch::words(kPasses<Acc>), kPasses<Acc>};
    RadixChoice chosen{0, static_cast<Word>(rank.below)};
    if (pass > 0) {
        const RadixChoice before = pass > 1 ? *own.chosen(pass - 1) : chosen;
        chosen = choose_bin<kThreads>(own.histogram(pass - 1), before, Passes<Acc>::bits(pass - 1));
    }
    if (pass == kPasses<Acc>) {
        if (threadIdx.x == 0) {
            out[b] = finish<Acc>(own.histogram(pass - 1), chosen, *own.nan() != 0, *own.above(), rank.weight,
                                 floor, cap);
        }
        return;
    }
    if (part == 0 && threadIdx.x == 0) *own.chosen(pass) = chosen;  // for the launch after this one
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) histogram[i] = 0;
    __syncthreads();
    const Conversion<Acc> c(a, b);
    bool own_nan = false;
    Word own_above = 0;
    count_keys<Acc>(a, c, b, aligned, static_cast<int64_t>(part) * kThreads + threadIdx.x,
                    static_cast<int64_t>(parts) * kThreads, pass, chosen, histogram, own_nan, own_above);
    if (own_nan && pass == 0) atomicOr(own.nan(), Word{1});
    if (own_above != 0) atomicMax(own.above(), own_above);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) {
        if (histogram[i] != 0) atomicAdd(own.histogram(pass) + i, static_cast<Word>(histogram[i]));
    }
}

// 16-byte loads: every tensor starts on 16 bytes, and so does every sample.
bool is_aligned(const QuantileArgs& a) {
    bool aligned = a.elements % kGroup == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0;
    for (int k = 0; k < a.n_outs; ++k) aligned = aligned && reinterpret_cast<uintptr_t>(a.outs[k]) % 16 == 0;
    return aligned;
}

template <class Acc>
void launch_quantile(void* stream, const QuantileArgs& a, const QuantileRank& rank, double floor, double cap,
                     Acc* out, Word* scratch) {
    const bool aligned = is_aligned(a);
    if (scratch == nullptr) {
        const dim3 grid = stride_grid(a.samples * kThreads, kThreads, 4);
        return launch(quantile_one_block<Acc>, grid, kThreads, 0, stream, a, rank, aligned, floor, cap, out);
    }
    const dim3 whole = stride_grid(a.samples * (a.elements / kGroup), kThreads, 4);
    const unsigned samples = static_cast<unsigned>(a.samples), parts = (whole.x + samples - 1) / samples;
    for (int pass = 0; pass <= kPasses<Acc>; ++pass) {
        const unsigned blocks = pass == kPasses<Acc> ? 1 : parts;
        launch(quantile_pass<Acc>, dim3(samples * blocks), kThreads, 0, stream, a, rank, aligned, floor, cap,
               pass, blocks, scratch, out);
    }
}

}  // namespace

int64_t quantile_scratch(const QuantileArgs& a, bool wide) {
    if (a.elements <= kOneBlock) return 0;
    return a.samples * Scratch::words(wide ? kPasses<double> : kPasses<float>);
}

void abs_quantile_cuda(void* stream, const QuantileArgs& a, const QuantileRank& rank, bool wide, double floor,
                       double cap, void* out, unsigned long long* scratch) {
    if (wide) {
        launch_quantile<double>(stream, a, rank, floor, cap, static_cast<double*>(out), scratch);
    } else {
        launch_quantile<float>(stream, a, rank, floor, cap, static_cast<float*>(out), scratch);
    }
}

}  // namespace fd::linear_step
