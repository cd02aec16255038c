// The hitting operators on the CPU. Sequences are independent, so how they fall on threads changes nothing.
#include <algorithm>
#include <bit>
#include <climits>
#include <tuple>
#include <vector>

#include "common/philox_lanes.h"
#include "hitting/hitting_args.h"

namespace fd::hitting {
namespace {

constexpr int64_t kGrain = 1 << 12;  // positions a thread takes at least: some 10 microseconds

template <class F>
void for_sequences(int64_t batch, int64_t length, const F& body) {
    torch::stable::parallel_for(0, batch, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, length)), body);
}

// Calls use(position, bits) for the positions that are wanted, in their order.
template <simd::Level L, class Wanted, class Use>
FD_HOST_DEVICE void for_each_bits(const PhiloxStream& stream, int64_t length, const Wanted& wanted,
                                  const Use& use) {
    PhiloxLanes lanes;
    for (int lane = 0; lane < kPhiloxChunk; ++lane) lanes.set(lane, stream, 0);
    for (int64_t position = 0; position < length;) {
        int used = 0;
        for (; used < kPhiloxChunk && position < length; ++position) {
            lanes.counter[1][used] = static_cast<uint32_t>(position);
            used += wanted(position);
        }
        if (used == 0) break;
        PhiloxChunk words;
        philox_lanes<L>(lanes, words);
        for (int lane = 0; lane < used; ++lane) {
            use(static_cast<int32_t>(lanes.counter[1][lane]),
                static_cast<uint64_t>(words.w[0][lane]) << 32 | words.w[1][lane]);
        }
    }
}

struct CollectHits {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const PhiloxStream& stream, const bool* mask, int64_t length,
                                   std::vector<Ranked>* hits) {
        Ranked* next = hits->data();
        const auto wanted = [mask](int64_t p) { return mask[p]; };
        for_each_bits<L>(stream, length, wanted, [&next](int32_t p, uint64_t bits) { *next++ = {bits, p}; });
    }
};

struct RevealSteps {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const PhiloxStream& stream, const bool* mask, int64_t length,
                                   const double* mask_prob, int32_t points, int32_t* steps) {
        for (int64_t p = 0; p < length; ++p) steps[p] = -1;
        const auto wanted = [mask](int64_t p) { return mask[p]; };
        for_each_bits<L>(stream, length, wanted,
                         [=](int32_t p, uint64_t bits) { steps[p] = reveal_step(bits, mask_prob, points); });
    }
};

struct Remask {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const RemaskCall* call, const PhiloxStream& stream, int64_t b,
                                   int64_t mask_id, bool* remasked) {
        int64_t* tokens = call->tokens + b * call->token_stride[0];
        const int64_t stride = call->token_stride[1];
        const bool* eligible =
            call->eligible_data() == nullptr ? nullptr : call->eligible_data() + b * call->length;
        const Reals prob = call->prob;
        for (int64_t p = 0; p < call->length; ++p) remasked[p] = false;
        const auto wanted = [=](int64_t p) {
            return (eligible == nullptr || eligible[p]) & (tokens[p * stride] != mask_id);
        };
        for_each_bits<L>(stream, call->length, wanted, [=](int32_t p, uint64_t bits) {
            const bool masks = happens(bits, prob.at(b, p));
            int64_t& token = tokens[p * stride];
            token = masks ? mask_id : token;
            remasked[p] = masks;
        });
    }
};

// Ranks `hits` into `sorted`. Keys are uniform: a bucket for each almost sorts them, and what is left to the
// insertion sort moves by a few places.
void sort_hits(const std::vector<Ranked>& hits, int64_t n, std::vector<int64_t>& starts,
               std::vector<Ranked>& sorted) {
    const int bits = std::clamp(static_cast<int>(std::bit_width(static_cast<uint64_t>(n))), 1, 22);
    const auto bucket = [bits](const Ranked& hit) { return static_cast<size_t>(~hit.key >> (64 - bits)); };
    starts.assign((size_t{1} << bits) + 1, 0);
    for (int64_t i = 0; i < n; ++i) ++starts[bucket(hits[i]) + 1];
    for (size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
    for (int64_t i = 0; i < n; ++i) sorted[starts[bucket(hits[i])]++] = hits[i];
    for (int64_t i = 1; i < n; ++i) {
        const Ranked hit = sorted[i];
        int64_t place = i;
        for (; place > 0 && before(hit, sorted[place - 1]); --place) sorted[place] = sorted[place - 1];
        sorted[place] = hit;
    }
}

void check_words(const Sequences& sequences, int64_t batch) {  // on a device the low 32 bits count
    const auto word = [](int64_t value, const char* name, const char* what) {
        FD_CHECK_VALUE(value >> 32 == 0, "`", name, "`: ", what, " must be in [0, 2^32), got ", value);
    };
    const int width = sequences.rng_per_sequence ? 3 : 2;
    for (int64_t b = 0; b < (sequences.rng_per_sequence ? batch : 1); ++b) {
        word(sequences.rng[width * b + 1], "rng", "the offset");
        if (width == 3) word(sequences.rng[width * b + 2], "rng", "a sequence id");
    }
    for (int64_t b = 0; sequences.ids != nullptr && b < batch; ++b) {
        word(sequences.ids[b], "sequence_ids", "an id");
    }
}

std::tuple<Tensor, Tensor, Tensor> first_hitting_times(const Tensor& mask, const Tensor& rng,
                                                       const OptionalTensor& sequence_ids) {
    const MaskCall call(mask, rng, sequence_ids);
    const Sequences sequences = call.sequences.view();
    check_words(sequences, call.batch);
    Tensor orders = call.result(ScalarType::Int), numbers = call.result(ScalarType::Double);
    Tensor counts = torch::stable::new_empty(mask, {call.batch}, ScalarType::Int);
    int32_t *order_data = orders.mutable_data_ptr<int32_t>(), *count = counts.mutable_data_ptr<int32_t>();
    double* u_data = numbers.mutable_data_ptr<double>();
    const bool* mask_data = call.data();
    for_sequences(call.batch, call.length, [&](int64_t first, int64_t last) {
        std::vector<Ranked> hits, sorted;
        std::vector<int64_t> starts;
        for (int64_t b = first; b < last; ++b) {
            const bool* row = mask_data + b * call.length;
            const int64_t n = std::count(row, row + call.length, true);
            hits.resize(n);
            sorted.resize(n);
            simd::dispatch<CollectHits>(sequences.stream(kHitTag, b), row, call.length, &hits);
            sort_hits(hits, n, starts, sorted);
            int32_t* order = order_data + b * call.length;
            double* u = u_data + b * call.length;
            for (int64_t i = 0; i < n; ++i) {
                order[i] = sorted[i].position;
                u[i] = hit_uniform(sorted[i].key);
            }
            std::fill(order + n, order + call.length, -1);
            std::fill(u + n, u + call.length, 0.0);
            count[b] = static_cast<int32_t>(n);
        }
    });
    return {orders, numbers, counts};
}

Tensor reveal_steps(const Tensor& mask, const Tensor& mask_prob, const Tensor& rng,
                    const OptionalTensor& sequence_ids) {
    const MaskCall call(mask, rng, sequence_ids);
    const Tensor grid = checked_grid(mask_prob, mask);
    const Sequences sequences = call.sequences.view();
    check_words(sequences, call.batch);
    const double* levels = grid.const_data_ptr<double>();
    const auto points = static_cast<int32_t>(grid.size(0));
    FD_CHECK_VALUE(levels[0] > 0 && levels[0] <= 1, "`mask_prob` must start in (0, 1], got ", levels[0]);
    for (int32_t i = 1; i < points; ++i) {
        FD_CHECK_VALUE(levels[i] >= 0 && levels[i] <= levels[i - 1],
                       "`mask_prob` must not increase nor be negative, got ", levels[i - 1], ", ", levels[i],
                       " at ", i - 1, ", ", i);
    }
    Tensor out = call.result(ScalarType::Int);
    int32_t* steps = out.mutable_data_ptr<int32_t>();
    const bool* mask_data = call.data();
    for_sequences(call.batch, call.length, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
            simd::dispatch<RevealSteps>(sequences.stream(kHitTag, b), mask_data + b * call.length,
                                        call.length, levels, points, steps + b * call.length);
        }
    });
    return out;
}

Tensor remask_(Tensor tokens, const Tensor& prob, const OptionalTensor& eligible, int64_t mask_id,
               const Tensor& rng, const OptionalTensor& sequence_ids) {
    RemaskCall call(tokens, prob, eligible, rng, sequence_ids);
    const Sequences sequences = call.sequences.view();
    check_words(sequences, call.batch);
    const int64_t columns = prob.size(1);
    for (int64_t b = 0; b < call.batch; ++b) {
        for (int64_t p = 0; p < columns; ++p) {
            const double value = call.prob.at(b, p);
            FD_CHECK_VALUE(value == value, "`prob` must not be NaN, got one in sequence ", b, ", place ", p);
        }
    }
    bool* remasked = call.remasked.mutable_data_ptr<bool>();
    for_sequences(call.batch, call.length, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
            simd::dispatch<Remask>(&call, sequences.stream(kRemaskTag, b), b, mask_id,
                                   remasked + b * call.length);
        }
    });
    return call.remasked;
}

// How many of the ranked candidates are committed; puts those in front, in any order.
int64_t rank_and_count(const Selection& s, int64_t b, std::vector<Ranked>& ranked) {
    const auto n = static_cast<int64_t>(ranked.size());
    if (n == 0) return 0;
    if (s.rule == Rule::count) {
        const int64_t k = std::min(s.count(b), n);
        if (k * 16 < n) {  // most are turned away by one look at the k best so far
            std::partial_sort(ranked.begin(), ranked.begin() + k, ranked.end(), before);
        } else if (k < n) {
            std::nth_element(ranked.begin(), ranked.begin() + k, ranked.end(), before);
        }
        return k;
    }
    // A heap gives the prefix without sorting the rest: its top moves behind the others.
    const auto after = [](const Ranked& x, const Ranked& y) { return before(y, x); };
    std::make_heap(ranked.begin(), ranked.end(), after);
    const double bound = s.bound(b);
    EntropyGap gap;
    int64_t taken = 0;
    for (bool fits = true; fits && taken < n;) {
        const int32_t position = ranked[0].position;
        fits = s.rule == Rule::factor ? s.meets_factor(b, position, taken + 1, bound)
                                      : gap.add(s.entropy.at(b, position), bound);
        if (!fits && taken > 0) break;
        std::pop_heap(ranked.begin(), ranked.end() - taken++, after);
    }
    std::rotate(ranked.begin(), ranked.end() - taken, ranked.end());
    return taken;
}

void select(Selection s, int64_t b, std::vector<Ranked>& ranked, bool* chosen) {
    const bool* candidate = s.candidate + b * s.length;
    std::fill(chosen, chosen + s.length, false);
    if (s.rule == Rule::threshold) {
        const double bound = s.bound(b);
        Ranked best{0, INT_MAX};
        for (int32_t p = 0; p < s.length; ++p) {
            chosen[p] = candidate[p] & s.meets_threshold(b, p, bound);
            if (!candidate[p]) continue;
            const Ranked own{s.key(b, p), p};
            best = before(own, best) ? own : best;
        }
        if (best.position != INT_MAX) chosen[best.position] = true;
        return;
    }
    ranked.resize(s.length);
    size_t candidates = 0;
    for (int32_t p = 0; p < s.length; ++p) {
        ranked[candidates] = {s.key(b, p), p};
        candidates += candidate[p];
    }
    ranked.resize(candidates);
    const int64_t n = rank_and_count(s, b, ranked);
    for (int64_t i = 0; i < n; ++i) chosen[ranked[i].position] = true;
}

Tensor select_transfer(const Tensor& score, const Tensor& candidate, const Tensor& limit,
                       const OptionalTensor& entropy, int64_t rule, bool residual) {
    SelectCall call(score, candidate, limit, entropy, rule, residual);
    const Selection& s = call.selection;
    for (int64_t i = 0; i < call.limit.size(0); ++i) {
        if (s.rule == Rule::count) {
            const int64_t count = static_cast<const int64_t*>(s.limit)[i];
            FD_CHECK_VALUE(count >= 0, "`count` must not be negative, got ", count);
        } else {
            const double bound = static_cast<const double*>(s.limit)[i];
            FD_CHECK_VALUE(bound == bound, "the rule's parameter must not be NaN");
            FD_CHECK_VALUE(s.rule == Rule::threshold || bound >= 0,
                           "`factor` and `entropy_bound` must not be negative, got ", bound);
        }
    }
    bool* chosen = call.chosen.mutable_data_ptr<bool>();
    for_sequences(call.batch, s.length, [&](int64_t first, int64_t last) {
        std::vector<Ranked> ranked;
        for (int64_t b = first; b < last; ++b) select(s, b, ranked, chosen + b * s.length);
    });
    return call.chosen;
}

}  // namespace
}  // namespace fd::hitting

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    m.impl("first_hitting_times", TORCH_BOX(&fd::hitting::first_hitting_times));
    m.impl("reveal_steps", TORCH_BOX(&fd::hitting::reveal_steps));
    m.impl("select_transfer", TORCH_BOX(&fd::hitting::select_transfer));
    m.impl("remask_", TORCH_BOX(&fd::hitting::remask_));
}
