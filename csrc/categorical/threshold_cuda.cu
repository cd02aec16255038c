// sampling_threshold and threshold_histogram on CUDA: one block a row, radix select on the logits' keys, 11
// bits a pass (3 passes for float, 6 for double), histograms in shared memory. One launch, no scratch memory.
//
// Roofline. A row is read once for its maximum and once a pass, from L2 after the first time. A mass costs
// some 25 float64 operations, for every logit in the first pass and in later ones for what shares the prefix:
// 126464 logits are 3.2e6 operations, 27 us on the 64 float64 lanes of one multiprocessor (H100, 1.75 GHz),
// and two shared atomics a logit, which the hardware serialises where lanes of a warp meet in one bin. So a
// row takes some 50 us with top-p and 15 with top-k, whether there is one row or one for each multiprocessor;
// 1024 rows are 8 rounds, 5 times the time of reading them from memory.
//
// Counts and masses are integers, so the result does not depend on the order of the atomics.
#include <algorithm>

#include "categorical/threshold_launch.h"
#include "common/launch.h"
#include "common/radix_select_cuda.h"

namespace fd::categorical {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr int kGroup = 8;  // logits a thread loads at a time: 16 bytes of a half type
constexpr unsigned kAll = 0xffffffffu;

using Word = unsigned long long;

// A 64-bit sum by 32-bit atomics, which shared memory has natively: whoever wraps the low half carries.
struct SharedSum {
    unsigned low, high;

    __device__ void add(uint64_t value) {
        const auto part = static_cast<unsigned>(value);
        const unsigned before = atomicAdd(&low, part);
        const unsigned carried = static_cast<unsigned>(value >> 32) + (before + part < before ? 1u : 0u);
        if (carried != 0) atomicAdd(&high, carried);
    }
    __device__ operator Word() const { return static_cast<Word>(high) << 32 | low; }
};

struct Histograms {
    unsigned counts[kRadixBins];
    SharedSum masses[kRadixBins];

    __device__ void clear() {
        for (int i = static_cast<int>(threadIdx.x); i < kRadixBins; i += kThreads) {
            counts[i] = 0;
            masses[i] = {0, 0};
        }
        __syncthreads();
    }
};

// Calls see(l) for the part of a row that this thread takes.
template <class T, class See>
__device__ void for_each_logit(const Row<T>& row, int64_t vocab, See see) {
    using C = Compute<T>;
    if (!row.plain()) {
        for (int64_t j = threadIdx.x; j < vocab; j += kThreads) see(row.unfiltered(j));
        return;
    }
    // Single logits up to a boundary of 16 bytes and after the last one, groups in between.
    const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row.logits) % 16 / sizeof(T));
    const int64_t head = min(vocab, past == 0 ? int64_t{0} : 16 / static_cast<int64_t>(sizeof(T)) - past);
    const int64_t groups = (vocab - head) / kGroup, tail = head + groups * kGroup;
    for (int64_t group = threadIdx.x; group < groups; group += kThreads) {
        constexpr int kVec = 16 / sizeof(T) < kGroup ? 16 / sizeof(T) : kGroup;
        const T* from = row.logits + head + group * kGroup;
        C values[kGroup];
        FD_UNROLL
        for (int i = 0; i < kGroup; i += kVec) {
            const Vec<T, kVec> packed = *reinterpret_cast<const Vec<T, kVec>*>(from + i);
            FD_UNROLL
            for (int j = 0; j < kVec; ++j) values[i + j] = static_cast<C>(fd::detail::widen(packed.v[j]));
        }
        FD_UNROLL
        for (int i = 0; i < kGroup; ++i) see(values[i] == values[i] ? values[i] : kMinusInfinity<C>);
    }
    if (threadIdx.x < head) see(row.unfiltered(threadIdx.x));
    if (tail + threadIdx.x < vocab) see(row.unfiltered(tail + threadIdx.x));
}

// `combine` over the values of all threads; every thread gets the result.
template <class V, class Combine>
__device__ V over_block(V value, Combine combine) {
    __shared__ V of_warps[kWarps];
    FD_UNROLL
    for (int h = 16; h > 0; h /= 2) value = combine(value, __shfl_xor_sync(kAll, value, h));
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warps[0];
    for (int i = 1; i < kWarps; ++i) value = combine(value, of_warps[i]);
    __syncthreads();
    return value;
}

template <class T>
__device__ Compute<T> row_maximum(const Row<T>& row, int64_t vocab) {
    using C = Compute<T>;
    C most = kMinusInfinity<C>;
    for_each_logit(row, vocab, [&](C l) { most = max(most, l); });
    return over_block(most, [](C a, C b) { return max(a, b); });
}

// Which keys a pass looks at.
struct Wanted {
    bool active;
    Word prefix;
};

// Adds a row to the histograms: counts of the keys with one prefix, masses of those with the other.
template <class T>
__device__ void add_row(const Row<T>& row, int64_t vocab, int pass, const MassScale& scale,
                        const Wanted& count, const Wanted& mass, Histograms& to) {
    using C = Compute<T>;
    const int shift = LogitPasses<C>::shift(pass), bits = LogitPasses<C>::bits(pass);
    for_each_logit(row, vocab, [&](C l) {
        const LogitKey<C> key = descending_key(l);
        const Word digits = static_cast<Word>(key) >> shift;
        const auto bin = static_cast<int>(digits & ((1u << bits) - 1));
        const Word high = digits >> bits;
        if (count.active && high == count.prefix) atomicAdd(&to.counts[bin], 1u);
        if (mass.active && high == mass.prefix) {
            const uint64_t m = scale.of(static_cast<double>(l));
            if (m != 0) to.masses[bin].add(m);
        }
    });
    __syncthreads();
}

template <class T>
__device__ double kept_share(const Row<T>& row, int64_t vocab, const MassScale& scale, Compute<T> threshold) {
    using C = Compute<T>;
    if (threshold == kMinusInfinity<C>) return 1;
    Word inside = 0, all = 0;
    for_each_logit(row, vocab, [&](C l) {
        const Word m = scale.of(static_cast<double>(l));
        all += m;
        inside += l >= threshold ? m : 0;
    });
    const auto plus = [](Word a, Word b) { return a + b; };
    inside = over_block(inside, plus);
    all = over_block(all, plus);
    return static_cast<double>(inside) / static_cast<double>(all);
}

// The largest of the thresholds of top-k and top-p; all threads get it.
template <class T>
__device__ Compute<T> select(const Row<T>& row, int64_t vocab, const Filters& filters, const MassScale& scale,
                             Histograms& histograms) {
    using C = Compute<T>;
    Wanted count{filters.k > 0, 0}, mass{filters.top_p(), 0};
    RadixChoice of_count{0, static_cast<Word>(filters.k - 1)}, of_mass{0, 0};
    for (int pass = 0; pass < LogitPasses<C>::kCount; ++pass) {
        histograms.clear();
        add_row(row, vocab, pass, scale, count, mass, histograms);
        const int bits = LogitPasses<C>::bits(pass);
        if (pass == 0 && mass.active) {
            Word total = 0;
            for (int i = static_cast<int>(threadIdx.x); i < kRadixBins; i += kThreads)
                total += histograms.masses[i];
            total = over_block(total, [](Word a, Word b) { return a + b; });
            of_mass.rank = mass_target(filters.p, total) - 1;
        }
        if (count.active) of_count = choose_bin<kThreads>(histograms.counts, of_count, bits);
        if (mass.active) of_mass = choose_bin<kThreads>(histograms.masses, of_mass, bits);
        count.prefix = of_count.prefix;
        mass.prefix = of_mass.prefix;
    }
    C theta = kMinusInfinity<C>;
    if (count.active) theta = logit_of<C>(static_cast<LogitKey<C>>(count.prefix));
    if (mass.active) theta = max(theta, logit_of<C>(static_cast<LogitKey<C>>(mass.prefix)));
    return theta;
}

__device__ bool is_row(const CategoricalArgs& a, int64_t r) {
    return a.row_index == nullptr || (a.row_index[r] >= 0 && a.row_index[r] < a.logit_rows);
}

template <class T>
__global__ void __launch_bounds__(kThreads) threshold_rows(ThresholdArgs a, Compute<T>* out, double* shares) {
    using C = Compute<T>;
    __shared__ Histograms histograms;
    const int64_t vocab = a.logits.vocab;
    for (int64_t r = blockIdx.x; r < a.logits.rows; r += gridDim.x) {
        C theta = kMinusInfinity<C>;
        double share = 1;
        const Filters filters(a, r);
        if (filters.any() && is_row(a.logits, r)) {
            const Row<T> row = threshold_row<T>(a.logits, r);
            const bool weighs = filters.top_p() || filters.min_p > 0 || a.kept;
            const C top = weighs ? row_maximum(row, vocab) : C(0);
            const MassScale scale(top, row.temperature, a.mass_bits);
            if (top > kMinusInfinity<C>) {
                if (filters.k > 0 || filters.top_p()) theta = select(row, vocab, filters, scale, histograms);
                if (filters.min_p > 0)
                    theta = max(theta, min_p_threshold(top, row.temperature, filters.min_p));
                theta += C(0);
                if (a.kept) share = kept_share(row, vocab, scale, theta);
            }
        }
        if (threadIdx.x == 0) {
            out[r] = theta;
            if (a.kept) shares[r] = share;
        }
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads) histogram_rows(ThresholdArgs a, const Compute<T>* row_max,
                                                           const int64_t* prefixes, int pass, int64_t* out) {
    __shared__ Histograms histograms;
    for (int64_t r = blockIdx.x; r < a.logits.rows; r += gridDim.x) {
        const int64_t* prefix = prefixes + 2 * r;
        const Wanted count{prefix[0] != -1, static_cast<Word>(prefix[0])};
        const Wanted mass{prefix[1] != -1, static_cast<Word>(prefix[1])};
        if ((!count.active && !mass.active) || !is_row(a.logits, r)) continue;
        const Row<T> row = threshold_row<T>(a.logits, r);
        const MassScale scale(static_cast<double>(row_max[r]), row.temperature, a.mass_bits);
        histograms.clear();
        add_row(row, a.logits.vocab, pass, scale, count, mass, histograms);
        for (int i = static_cast<int>(threadIdx.x); i < kRadixBins; i += kThreads) {
            out[2 * r * kRadixBins + i] = histograms.counts[i];
            out[(2 * r + 1) * kRadixBins + i] = static_cast<int64_t>(static_cast<Word>(histograms.masses[i]));
        }
        __syncthreads();  // the histograms have been read
    }
}

dim3 one_block_a_row(int64_t rows) { return stride_grid(rows * kThreads, kThreads, 4); }

template <class T>
void launch_thresholds(void* stream, const ThresholdArgs& a, void* out, double* shares) {
    launch(threshold_rows<T>, one_block_a_row(a.logits.rows), kThreads, 0, stream, a,
           static_cast<Compute<T>*>(out), shares);
}

template <class T>
void launch_histograms(void* stream, const ThresholdArgs& a, const void* row_max, const int64_t* prefixes,
                       int pass, int64_t* out) {
    launch(histogram_rows<T>, one_block_a_row(a.logits.rows), kThreads, 0, stream, a,
           static_cast<const Compute<T>*>(row_max), prefixes, pass, out);
}

}  // namespace

void sampling_threshold_cuda(void* stream, const ThresholdArgs& a, void* out, double* shares) {
    switch (a.logits.dtype) {
        case DType::f16:
            return launch_thresholds<half>(stream, a, out, shares);
        case DType::bf16:
            return launch_thresholds<bfloat16>(stream, a, out, shares);
        case DType::f32:
            return launch_thresholds<float>(stream, a, out, shares);
        case DType::f64:
            return launch_thresholds<double>(stream, a, out, shares);
    }
}

void threshold_histogram_cuda(void* stream, const ThresholdArgs& a, const void* row_max,
                              const int64_t* prefixes, int pass, int64_t* out) {
    switch (a.logits.dtype) {
        case DType::f16:
            return launch_histograms<half>(stream, a, row_max, prefixes, pass, out);
        case DType::bf16:
            return launch_histograms<bfloat16>(stream, a, row_max, prefixes, pass, out);
        case DType::f32:
            return launch_histograms<float>(stream, a, row_max, prefixes, pass, out);
        case DType::f64:
            return launch_histograms<double>(stream, a, row_max, prefixes, pass, out);
    }
}

}  // namespace fd::categorical
