// abs_quantile on the CPU: exact selection in little more than one pass over the data.
//
// A few of the values bracket the wanted rank; one pass counts what lies below the bracket and gathers what
// lies in it (some percent), where nth_element decides. The few only propose: where the bracket misses or
// holds too much (ties), histograms of 2048 bins narrow the range by 11 bits a pass. The result is exact,
// whichever thread saw what.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>
#include <mutex>
#include <vector>

#include "linear_step/abs_quantile_args.h"

namespace fd::linear_step {
namespace {

constexpr int kBlock = 1024;         // elements converted at a time
constexpr int kSpan = 32;            // elements looked at together for one that is in range
constexpr int64_t kGrain = 1 << 16;  // elements a thread takes at least
constexpr int kBinBits = 11;

// `n` elements, `stride` apart, in the accumulation type: in place if they have it already, else in `buffer`.
template <simd::Level L, class T, class Acc>
FD_HOST_DEVICE const Acc* load_as(const void* in, int64_t first, int64_t stride, int n,
                                  Acc* __restrict buffer) {
    const T* from = static_cast<const T*>(in) + first;
    if (stride == 1) {
        if constexpr (std::is_same_v<T, Acc>) return from;
        widen_block<L>(from, buffer, n);
    } else {
        for (int i = 0; i < n; ++i) buffer[i] = static_cast<Acc>(detail::widen(from[i * stride]));
    }
    return buffer;
}

template <simd::Level L, class Acc>
FD_HOST_DEVICE const Acc* load(const void* in, DType type, int64_t first, int64_t stride, int n,
                               Acc* __restrict buffer) {
    switch (type) {
        case DType::f16:
            return load_as<L, half>(in, first, stride, n, buffer);
        case DType::bf16:
            return load_as<L, bfloat16>(in, first, stride, n, buffer);
        case DType::f64:
            return load_as<L, double>(in, first, stride, n, buffer);
        default:
            return load_as<L, float>(in, first, stride, n, buffer);
    }
}

// Adds weight * term as linear_step.h adds the terms of a row: a product first, then fma.
template <class Acc>
FD_HOST_DEVICE void add(Acc weight, const Acc* __restrict term, bool first, Acc* __restrict sum, int n) {
    if (first) {
        for (int i = 0; i < n; ++i) sum[i] = weight * term[i];
    } else {
        for (int i = 0; i < n; ++i) sum[i] = fma(weight, term[i], sum[i]);
    }
}

// Keys of |u| at `n` places of sample b, `stride` apart.
template <simd::Level L, class Acc>
FD_HOST_DEVICE void magnitudes(const QuantileArgs& a, const Conversion<Acc>& c, int64_t b, int64_t first,
                               int64_t stride, int n, Key<Acc>* __restrict keys) {
    alignas(64) Acc buffer[kBlock], output[kBlock], u[kBlock];
    first += b * a.elements;
    bool empty = true, no_output = true;
    if (c.c_x != Acc(0)) {
        add(c.c_x, load<L>(a.x, a.x_type, first, stride, n, buffer), empty, u, n);
        empty = false;
    }
    for (int k = 0; k < a.n_outs && c.c_o != Acc(0); ++k) {
        if (c.g[k] == Acc(0)) continue;
        add(c.g[k], load<L>(a.outs[k], a.out_type, first, stride, n, buffer), no_output, output, n);
        no_output = false;
    }
    if (!no_output) {
        add(c.c_o, output, empty, u, n);
        empty = false;
    }
    for (int i = 0; i < n; ++i) keys[i] = empty ? 0 : magnitude_key(u[i]);
}

// Sees all keys of a part of a sample, block by block. Visitors of several threads are merged afterwards.
template <class Acc, class Visitor>
struct Visit {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const QuantileArgs* a, const Conversion<Acc>* c, int64_t b, int64_t first,
                                   int64_t last, Visitor* visitor) {
        alignas(64) Key<Acc> keys[kBlock];
        for (int64_t at = first; at < last; at += kBlock) {
            const int n = static_cast<int>(std::min<int64_t>(kBlock, last - at));
            magnitudes<L>(*a, *c, b, at, 1, n, keys);
            visitor->block(keys, n);
        }
    }
};

template <class Acc>
struct Sampled {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const QuantileArgs* a, const Conversion<Acc>* c, int64_t b, int64_t stride,
                                   int n, Key<Acc>* keys) {
        for (int at = 0; at < n; at += kBlock) {
            magnitudes<L>(*a, *c, b, at * stride, stride, std::min(kBlock, n - at), keys + at);
        }
    }
};

// Keys have no sign bit, and AVX2 compares signed integers only.
FD_HOST_DEVICE int32_t as_signed(uint32_t key) { return static_cast<int32_t>(key); }
FD_HOST_DEVICE int64_t as_signed(uint64_t key) { return static_cast<int64_t>(key); }

template <class K>
struct Range {
    K low, high;  // inclusive
};

// Counts the keys below and inside a range, and keeps those inside unless there are more than `limit`.
template <class K>
struct Gather {
    Range<K> range;
    int64_t limit;
    int64_t below = 0, inside = 0;
    K largest = 0;
    std::unique_ptr<K[]> kept = std::make_unique_for_overwrite<K[]>(limit + 1);

    FD_HOST_DEVICE void block(const K* __restrict keys, int n) {
        const auto low = as_signed(range.low), high = as_signed(range.high);
        std::make_signed_t<K> under = 0, over = 0, most = 0;
        for (int i = 0; i < n; ++i) {
            const auto key = as_signed(keys[i]);
            under += key < low;
            over += key > high;
            most = most > key ? most : key;
        }
        below += under;
        largest = std::max(largest, static_cast<K>(most));
        K* __restrict end = kept.get() + inside;
        inside += n - under - over;
        if (inside > limit || n == under + over) return;
        int start = 0;
        for (; start + kSpan <= n; start += kSpan) end = keep(keys + start, kSpan, end);
        keep(keys + start, n - start, end);
    }

    FD_HOST_DEVICE K* keep(const K* __restrict keys, int n, K* __restrict end) const {
        const auto low = as_signed(range.low), high = as_signed(range.high);
        std::make_signed_t<K> hits = 0;
        for (int i = 0; i < n; ++i) hits |= (as_signed(keys[i]) >= low) & (as_signed(keys[i]) <= high);
        if (hits == 0) return end;
        for (int i = 0; i < n; ++i) {
            *end = keys[i];
            end += (as_signed(keys[i]) >= low) & (as_signed(keys[i]) <= high);
        }
        return end;
    }

    Gather fresh() const { return {range, limit}; }

    void merge(const Gather& other) {
        if (inside + other.inside <= limit) std::copy_n(other.kept.get(), other.inside, kept.get() + inside);
        below += other.below;
        inside += other.inside;
        largest = std::max(largest, other.largest);
    }
};

// How many keys fall into each of 2^kBinBits equal parts of a range.
template <class K>
struct Histogram {
    static constexpr int kBelow = 1 << kBinBits, kAbove = kBelow + 1;

    Range<K> range;
    int shift =
        std::max(0, static_cast<int>(std::bit_width(static_cast<K>(range.high - range.low))) - kBinBits);
    // Neighbours count in turn in two tables: equal ones would otherwise wait for one another.
    std::array<std::array<int64_t, kBelow + 2>, 2> counts{};

    FD_HOST_DEVICE void block(const K* __restrict keys, int n) {
        alignas(64) int32_t bins[kBlock];
        const auto low = as_signed(range.low), high = as_signed(range.high);
        for (int i = 0; i < n; ++i) {
            const auto key = as_signed(keys[i]);
            const int bin = static_cast<int>((keys[i] - range.low) >> shift);
            bins[i] = key < low ? kBelow : key > high ? kAbove : bin;
        }
        for (int i = 0; i < n; ++i) ++counts[i & 1][bins[i]];
    }

    int64_t count(int bin) const { return counts[0][bin] + counts[1][bin]; }

    Histogram fresh() const { return {range}; }

    void merge(const Histogram& other) {
        for (int bin = 0; bin <= kAbove; ++bin) counts[0][bin] += other.count(bin);
    }
};

template <class K>
struct SmallestAbove {
    K bound, smallest = std::numeric_limits<K>::max() >> 1;

    FD_HOST_DEVICE void block(const K* __restrict keys, int n) {
        auto least = as_signed(smallest);
        for (int i = 0; i < n; ++i) {
            const auto key = as_signed(keys[i]);
            least = key > as_signed(bound) && key < least ? key : least;
        }
        smallest = static_cast<K>(least);
    }

    SmallestAbove fresh() const { return {bound}; }
    void merge(const SmallestAbove& other) { smallest = std::min(smallest, other.smallest); }
};

template <class Acc>
class Selection {
    using K = Key<Acc>;

  public:
    Selection(const QuantileArgs& args, int64_t sample, const QuantileRank& rank)
        : args_(args), terms_(args, sample), sample_(sample), rank_(rank), n_(args.elements) {}

    // The keys of ranks k and k + 1; false where u holds a NaN.
    bool run(K& low, K& high) const {
        for (Range<K> range = propose();; range = narrow(range)) {
            Gather<K> gather{range, limit_};
            visit(gather);
            if (gather.largest > kInfinityKey<Acc>) return false;
            const int64_t place = rank_.below - gather.below;
            if (place < 0) {
                range = {0, range.low - 1};
            } else if (place >= gather.inside) {
                range = {range.high + 1, kLargestKey<Acc>};
            } else if (range.low == range.high || gather.inside <= limit_) {
                decide(gather, place, low, high);
                return true;
            }
        }
    }

  private:
    template <class Visitor>
    void visit(Visitor& total) const {
        if (n_ <= kGrain) {
            return simd::dispatch<Visit<Acc, Visitor>>(&args_, &terms_, sample_, int64_t{0}, n_, &total);
        }
        std::mutex mutex;
        torch::stable::parallel_for(0, n_, kGrain, [&](int64_t first, int64_t last) {
            Visitor part = total.fresh();
            simd::dispatch<Visit<Acc, Visitor>>(&args_, &terms_, sample_, first, last, &part);
            const std::lock_guard lock(mutex);
            total.merge(part);
        });
    }

    // A range that holds both ranks with three standard deviations to spare, if these values are typical.
    Range<K> propose() const {
        const int64_t wanted = 4 * static_cast<int64_t>(std::sqrt(static_cast<double>(n_)));
        const int64_t stride = n_ / wanted | 1;  // odd: images have even rows
        const int count = static_cast<int>((n_ - 1) / stride + 1);
        std::vector<K> keys(count);
        simd::dispatch<Sampled<Acc>>(&args_, &terms_, sample_, stride, count, keys.data());
        const double p = (static_cast<double>(rank_.below) + 0.5) / static_cast<double>(n_);
        const double spare = 3 * std::sqrt(count * p * (1 - p)) + 1;
        const double first = std::floor(p * count - spare), last = std::ceil(p * count + spare);
        Range<K> range{0, kLargestKey<Acc>};
        if (first > 0) range.low = nth(keys.data(), count, static_cast<int64_t>(first));
        if (last < count) range.high = nth(keys.data(), count, static_cast<int64_t>(last));
        return range;
    }

    static K nth(K* keys, int64_t count, int64_t place) {
        std::nth_element(keys, keys + place, keys + count);
        return keys[place];
    }

    // The part of a range that holds rank k: few enough keys to gather, or one value.
    Range<K> narrow(Range<K> range) const {
        for (;;) {
            Histogram<K> histogram{range};
            visit(histogram);
            int64_t left = rank_.below - histogram.count(Histogram<K>::kBelow);
            int bin = 0;
            for (; left >= histogram.count(bin); ++bin) left -= histogram.count(bin);
            const K low = range.low + (static_cast<K>(bin) << histogram.shift);
            const K width = (K{1} << histogram.shift) - 1;
            range = {low, range.high - low < width ? range.high : low + width};
            if (histogram.shift == 0 || histogram.count(bin) <= limit_) return range;
        }
    }

    void decide(Gather<K>& gather, int64_t place, K& low, K& high) const {
        K* keys = gather.kept.get();
        const bool one_value = gather.range.low == gather.range.high;
        low = one_value ? gather.range.low : nth(keys, gather.inside, place);
        high = low;
        if (rank_.weight == 0) return;
        if (place + 1 < gather.inside) {
            if (!one_value) high = *std::min_element(keys + place + 1, keys + gather.inside);
        } else {
            SmallestAbove<K> next{gather.range.high};
            visit(next);
            high = next.smallest;
        }
    }

    const QuantileArgs& args_;
    const Conversion<Acc> terms_;
    const int64_t sample_;
    const QuantileRank rank_;
    const int64_t n_, limit_ = n_ / 8;
};

// Samples of at most one block, one after another.
template <class Acc>
struct SmallSamples {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const QuantileCall* call, double floor, double cap, int64_t first,
                                   int64_t last, Acc* out) {
        const QuantileArgs& a = call->args;
        const QuantileRank rank = call->rank;
        const int n = static_cast<int>(a.elements);
        const bool uniform = a.coef_batch == 1 && (a.weights == nullptr || a.weight_batch == 1);
        Conversion<Acc> terms(a, first);
        for (int64_t b = first; b < last; ++b) {
            if (!uniform) terms = Conversion<Acc>(a, b);
            alignas(64) Key<Acc> keys[kBlock];
            magnitudes<L>(a, terms, b, 0, 1, n, keys);
            std::make_signed_t<Key<Acc>> largest = 0;
            for (int i = 0; i < n; ++i) largest = std::max(largest, as_signed(keys[i]));
            if (static_cast<Key<Acc>>(largest) > kInfinityKey<Acc>) {
                out[b] = Acc(NAN);
                continue;
            }
            Key<Acc>* place = keys + rank.below;
            std::nth_element(keys, place, keys + n);
            const Key<Acc> high = rank.weight == 0 ? *place : *std::min_element(place + 1, keys + n);
            out[b] = finish_quantile<Acc>(*place, high, rank.weight, floor, cap);
        }
    }
};

template <class Acc>
void quantiles(const QuantileCall& call, double floor, double cap, Acc* out) {
    const int64_t samples = call.args.samples, elements = call.args.elements;
    const auto some = [&](int64_t first, int64_t last) {
        if (call.args.elements <= kBlock) {
            return simd::dispatch<SmallSamples<Acc>>(&call, floor, cap, first, last, out);
        }
        for (int64_t b = first; b < last; ++b) {
            Key<Acc> low, high;
            const bool numbers = Selection<Acc>(call.args, b, call.rank).run(low, high);
            out[b] = numbers ? finish_quantile<Acc>(low, high, call.rank.weight, floor, cap) : Acc(NAN);
        }
    };
    if (samples < torch::stable::get_num_threads() && elements > kGrain) {
        some(0, samples);  // threads share each sample
    } else {
        torch::stable::parallel_for(0, samples, std::max<int64_t>(1, kGrain / elements), some);
    }
    for (int64_t b = 0; b < samples; ++b) {
        if (std::isnan(out[b])) {
            throw std::invalid_argument("abs_quantile: sample " + std::to_string(b) + " holds NaN");
        }
    }
}

Tensor abs_quantile(const Tensor& x, const std::vector<Tensor>& outs, const Tensor& coef, const Tensor& step,
                    const OptionalTensor& weights, double q, double floor, double cap) {
    const QuantileCall call(x, outs, coef, step, weights, q, floor, cap);
    const int64_t row = *call.args.step;
    if (row < 0 || row >= call.args.steps) {
        throw std::invalid_argument("`step` must be in [0, " + std::to_string(call.args.steps) + "), got " +
                                    std::to_string(row));
    }
    Tensor out = call.result(x);
    if (call.wide) {
        quantiles(call, floor, cap, out.mutable_data_ptr<double>());
    } else {
        quantiles(call, floor, cap, out.mutable_data_ptr<float>());
    }
    return out;
}

}  // namespace
}  // namespace fd::linear_step

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    m.impl("abs_quantile", TORCH_BOX(&fd::linear_step::abs_quantile));
}
