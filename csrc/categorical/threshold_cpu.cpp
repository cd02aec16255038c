// sampling_threshold and threshold_histogram on the CPU. Rows fall on threads; nothing of a row's size is
// stored.
//
// A row is read twice in the usual case. The first pass takes the maximum of each of about 1000 groups of
// logits. The k-th largest of these is at most the k-th largest logit, since k groups hold k different logits
// that reach it; and not many more logits do. So the second pass collects what is above it, a few thousand,
// and adds up the masses of all. The wanted value is found among the collected. Where they do not reach (a
// flat distribution, k beyond the groups), a histogram over the distance from the maximum says in which
// narrow range it is, and that range is collected. Radix passes over the row are left for long ties of
// several values.
#include <cmath>
#include <memory>
#include <vector>

#include "categorical/threshold_args.h"
#include "categorical/threshold_rows.h"

namespace fd::categorical {
namespace {

using namespace passes;

constexpr int64_t kGrain = 1 << 15;  // logits a thread takes at least

template <class C>
struct Weighed {
    C logit;
    uint64_t mass;
};

template <class C>
struct Scratch {
    C groups[kMaxGroups];
    Candidates<C> candidates;
    uint64_t masses[kLimit];
    Weighed<C> weighed[kLimit];
    Bins bins;
    Candidates<C> range;
};

template <class C>
struct Outcome {
    C threshold = kMinusInfinity<C>;
    double share = 1;  // of the mass, that is kept
};

template <class T>
class RowThreshold {
    using C = Compute<T>;

  public:
    RowThreshold(const ThresholdArgs& args, int64_t r, Scratch<C>& scratch)
        : row_(threshold_row<T>(args.logits, r)),
          vocab_(args.logits.vocab),
          filters_(args, r),
          kept_(args.kept),
          bits_(args.mass_bits),
          found_(scratch.candidates),
          scratch_(scratch) {}

    Outcome<C> run() {
        if (!filters_.any()) return {};
        survey();
        if (top_ == kMinusInfinity<C>) return {};
        const MassScale scale(top_, row_.temperature, bits_);
        Outcome<C> out;
        if (filters_.min_p > 0) out.threshold = min_p_threshold(top_, row_.temperature, filters_.min_p);
        const bool weigh = filters_.top_p() || kept_;
        if (filters_.k > 0 || weigh) {
            found_.low = candidate_bound();
            found_.high = std::numeric_limits<C>::infinity();
            simd::dispatch<Collect<T>>(&row_, vocab_, weigh ? &scale : nullptr, &found_, &total_);
        }
        if (filters_.k > 0) out.threshold = std::max(out.threshold, kth(scale));
        if (filters_.top_p()) out.threshold = std::max(out.threshold, crossing(scale));
        out.threshold += C(0);
        if (kept_) out.share = share(scale, out.threshold);
        return out;
    }

  private:
    void survey() {
        const int64_t tile =
            std::max<int64_t>(1, (vocab_ + kTiles * kBlock - 1) / (kTiles * kBlock)) * kBlock;
        groups_ = static_cast<int>((vocab_ + tile - 1) / tile) * kLanes;
        simd::dispatch<Survey<T>>(&row_, vocab_, tile, scratch_.groups);
        top_ = *std::max_element(scratch_.groups, scratch_.groups + groups_);
    }

    // A logit that reaches as many others as are looked for; inf if none is known.
    C candidate_bound() const {
        const int64_t some = filters_.top_p() ? groups_ * 3 / 4 : 1;
        const int64_t wanted = std::max(filters_.k, some);
        if (wanted <= groups_) return nth_largest(scratch_.groups, groups_, wanted);
        return vocab_ <= kLimit ? kMinusInfinity<C> : std::numeric_limits<C>::infinity();
    }

    static C nth_largest(C* numbers, int64_t count, int64_t n) {
        std::nth_element(numbers, numbers + n - 1, numbers + count, std::greater<>());
        return numbers[n - 1];
    }

    bool complete() const { return !found_.overflown() && found_.low < std::numeric_limits<C>::infinity(); }

    C kth(const MassScale& scale) const {
        const auto k = static_cast<uint64_t>(filters_.k);
        if (!complete()) return descend(k - 1, scale, false);
        if (found_.count < filters_.k) return found_.low;  // which k logits reach
        return nth_largest(found_.logits, found_.count, filters_.k);
    }

    C crossing(const MassScale& scale) const {
        const uint64_t target = mass_target(filters_.p, total_);
        if (complete()) {
            Weighed<C>* const first = scratch_.weighed;
            Weighed<C>* const last = first + weigh(found_, scale, true);
            uint64_t sum = 0;
            for (const Weighed<C>* w = first; w < last; ++w) sum += w->mass;
            if (sum >= target) return logit_at(target - 1, first, last);
        }
        return descend(target - 1, scale, true);
    }

    // Pairs of the candidates with their mass, or with 1.
    int weigh(const Candidates<C>& found, const MassScale& scale, bool masses) const {
        const C* logits = found.logits;
        if (masses) simd::dispatch<Weigh<C>>(logits, found.count, scale, scratch_.masses);
        for (int i = 0; i < found.count; ++i)
            scratch_.weighed[i] = {logits[i], masses ? scratch_.masses[i] : 1};
        return found.count;
    }

    // The logit of a 0-based rank in weight, from the largest.
    static C logit_at(uint64_t rank, Weighed<C>* first, Weighed<C>* last) {
        const auto larger = [](const Weighed<C>& a, const Weighed<C>& b) { return a.logit > b.logit; };
        while (last - first > 1) {
            Weighed<C>* const middle = first + (last - first) / 2;
            std::nth_element(first, middle, last, larger);
            uint64_t upper = 0;
            for (const Weighed<C>* w = first; w < middle; ++w) upper += w->mass;
            if (upper > rank) {
                last = middle;
            } else {
                rank -= upper;
                first = middle;
            }
        }
        return first->logit;
    }

    // The logit of a 0-based rank among all, in masses or in numbers.
    C descend(uint64_t rank, const MassScale& scale, bool masses) const {
        scratch_.bins = {};
        simd::dispatch<DepthHistogram<T>>(&row_, vocab_, scale, masses, &scratch_.bins);
        const uint64_t all = rank;
        const int bin = scratch_.bins.find(rank);
        if (bin < kRadixBins - 1) {
            Candidates<C>& range = scratch_.range;
            range.high = at_depth(scale, bin - 1, -1);
            range.low = at_depth(scale, bin + 2, 1);
            uint64_t unused;
            simd::dispatch<Collect<T>>(&row_, vocab_, static_cast<const MassScale*>(nullptr), &range,
                                       &unused);
            if (!range.overflown()) {
                const auto outside = [&](C l) {
                    return depth_bin(scale.depth(static_cast<double>(l))) != bin;
                };
                range.count = static_cast<int>(
                    std::remove_if(range.logits, range.logits + range.count, outside) - range.logits);
                return logit_at(rank, scratch_.weighed, scratch_.weighed + weigh(range, scale, masses));
            }
            C least, most;  // too many: ties of one value?
            simd::dispatch<Extent<T>>(&row_, vocab_, scale, bin, &least, &most);
            if (least == most) return least;
        }
        return select(all, masses ? &scale : nullptr);
    }

    // Where a bin starts, to a few roundings of the logit; and `beyond` numbers further down for the last
    // one, as bins may be narrower than that (T = 0).
    static C at_depth(const MassScale& scale, int bin, int beyond) {
        const C l = static_cast<C>(scale.top - bin / (kBinsPerLog2 * scale.rate));
        if (std::isinf(l)) return beyond > 0 && l > 0 ? std::numeric_limits<C>::max() : l;
        const auto key = descending_key(l), step = static_cast<LogitKey<C>>(beyond);
        const C next = logit_of<C>(key + step);
        return next == l ? logit_of<C>(key + step + step) : next;  // -0 is next to 0
    }

    // As `descend`, in passes over all keys.
    C select(uint64_t rank, const MassScale* scale) const {
        uint64_t prefix = 0;
        for (int pass = 0; pass < LogitPasses<C>::kCount; ++pass) {
            scratch_.bins = {};
            simd::dispatch<Histogram<T>>(&row_, vocab_, pass, prefix, scale, &scratch_.bins);
            const auto bin = static_cast<uint64_t>(scratch_.bins.find(rank));
            prefix = prefix << LogitPasses<C>::bits(pass) | bin;
        }
        return logit_of<C>(static_cast<LogitKey<C>>(prefix));
    }

    double share(const MassScale& scale, C threshold) const {
        if (threshold == kMinusInfinity<C>) return 1;
        uint64_t sum = 0;
        if (complete() && threshold > found_.low) {
            const int count = weigh(found_, scale, true);
            for (int i = 0; i < count; ++i)
                sum += scratch_.weighed[i].logit >= threshold ? scratch_.weighed[i].mass : 0;
        } else {
            simd::dispatch<MassFrom<T>>(&row_, vocab_, scale, threshold, &sum);
        }
        return static_cast<double>(sum) / static_cast<double>(total_);
    }

    const Row<T> row_;
    const int64_t vocab_;
    const Filters filters_;
    const bool kept_;
    const int bits_;
    Candidates<C>& found_;
    Scratch<C>& scratch_;
    int groups_ = 0;
    C top_ = kMinusInfinity<C>;
    uint64_t total_ = 0;
};

template <class T>
void thresholds(const ThresholdArgs& args, Compute<T>* out, double* shares) {
    using C = Compute<T>;
    const int64_t grain = std::max<int64_t>(1, kGrain / args.logits.vocab);
    torch::stable::parallel_for(0, args.logits.rows, grain, [&](int64_t first, int64_t last) {
        const auto scratch = std::make_unique_for_overwrite<Scratch<C>>();
        for (int64_t r = first; r < last; ++r) {
            const Outcome<C> row = RowThreshold<T>(args, r, *scratch).run();
            out[r] = row.threshold;
            if (args.kept) shares[r] = row.share;
        }
    });
}

template <class T>
void histograms(const HistogramCall& call, int64_t* out) {
    using C = Compute<T>;
    const CategoricalArgs& a = call.args.logits;
    const int64_t grain = std::max<int64_t>(1, kGrain / a.vocab);
    torch::stable::parallel_for(0, a.rows, grain, [&](int64_t first, int64_t last) {
        const auto bins = std::make_unique_for_overwrite<Bins>();
        for (int64_t r = first; r < last; ++r) {
            const Row<T> row = threshold_row<T>(a, r);
            const C top = static_cast<const C*>(call.row_max)[r];
            const MassScale scale(top, row.temperature, call.args.mass_bits);
            for (int kind = 0; kind < 2; ++kind) {
                const int64_t prefix = call.prefixes[2 * r + kind];
                if (prefix == -1) continue;
                *bins = {};
                simd::dispatch<Histogram<T>>(&row, a.vocab, call.pass, static_cast<uint64_t>(prefix),
                                             kind == 1 ? &scale : nullptr, bins.get());
                int64_t* to = out + (2 * r + kind) * kRadixBins;
                for (int bin = 0; bin < kRadixBins; ++bin) to[bin] = static_cast<int64_t>(bins->of(bin));
            }
        }
    });
}

void check_values(const ThresholdArgs& args) {
    const CategoricalArgs& a = args.logits;
    for (int64_t r = 0; r < a.rows; ++r) {
        if (a.row_index != nullptr) {
            FD_CHECK_VALUE(a.row_index[r] >= 0 && a.row_index[r] < a.logit_rows, "`rows` must be in [0, ",
                           a.logit_rows, "), got ", a.row_index[r]);
        }
        const float t = a.temperature[r * a.temperature_stride];
        FD_CHECK_VALUE(t >= 0, "`temperature` must be at least 0, got ", t);
        if (args.top_k != nullptr) {
            const int64_t k = args.top_k[r * args.top_k_stride];
            FD_CHECK_VALUE(k >= 0, "`top_k` must be at least 0, got ", k);
        }
        if (args.top_p.data != nullptr) {
            const double p = args.top_p.at(r);
            FD_CHECK_VALUE(p > 0 && p <= 1, "`top_p` must be in (0, 1], got ", p);
        }
        if (args.min_p.data != nullptr) {
            const double p = args.min_p.at(r);
            FD_CHECK_VALUE(p >= 0 && p < 1, "`min_p` must be in [0, 1), got ", p);
        }
    }
}

template <class Run>
void by_type(DType type, const Run& run) {
    switch (type) {
        case DType::f16:
            return run(half{});
        case DType::bf16:
            return run(bfloat16{});
        case DType::f32:
            return run(float{});
        case DType::f64:
            return run(double{});
    }
}

std::tuple<Tensor, Tensor> sampling_threshold(const Tensor& logits, const Tensor& temperature,
                                              const OptionalTensor& rows, const OptionalTensor& uncond_logits,
                                              const OptionalTensor& cfg_scale, const OptionalTensor& bias,
                                              const OptionalTensor& suppressed,
                                              const OptionalTensor& forbidden, const OptionalTensor& top_k,
                                              const OptionalTensor& top_p, const OptionalTensor& min_p,
                                              bool kept) {
    const ThresholdCall call(
        {logits, temperature, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden}, top_k, top_p,
        min_p, kept);
    check_values(call.args);
    Tensor out = call.thresholds(logits), shares = call.shares(logits);
    by_type(call.args.logits.dtype, [&](auto type) {
        using T = decltype(type);
        thresholds<T>(call.args, static_cast<Compute<T>*>(out.data_ptr()),
                      static_cast<double*>(shares.data_ptr()));
    });
    return {out, shares};
}

Tensor threshold_histogram(const Tensor& logits, const Tensor& temperature, const OptionalTensor& rows,
                           const OptionalTensor& uncond_logits, const OptionalTensor& cfg_scale,
                           const OptionalTensor& bias, const OptionalTensor& suppressed,
                           const OptionalTensor& forbidden, const Tensor& row_max, const Tensor& prefix,
                           int64_t pass, int64_t vocab_size) {
    const HistogramCall call(
        {logits, temperature, rows, uncond_logits, cfg_scale, bias, suppressed, forbidden}, row_max, prefix,
        pass, vocab_size);
    check_values(call.args);
    Tensor out = call.result(logits);
    by_type(call.args.logits.dtype,
            [&](auto type) { histograms<decltype(type)>(call, static_cast<int64_t*>(out.data_ptr())); });
    return out;
}

}  // namespace
}  // namespace fd::categorical

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    m.impl("sampling_threshold", TORCH_BOX(&fd::categorical::sampling_threshold));
    m.impl("threshold_histogram", TORCH_BOX(&fd::categorical::threshold_histogram));
}
