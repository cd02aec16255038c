// The inner loops of the CPU draws, one table for each SIMD level. All levels give the same bits.
#pragma once

#include "categorical/noise.h"
#include "common/simd.h"

namespace fd::categorical {

// Sums over part of a tile, with t = (l - most) / temperature; what equals `most` is counted, so that the
// rest keeps its precision where it is tiny.
struct ExpSums {
    double ties;        // l == most
    double sum, first;  // of exp(t) and t exp(t), l < most and t >= kLeastExponent
    float second;       // the largest l < most
};
constexpr float kLeastExponent = -86.0f;  // exp() of less is 0 to float32

// A block whose bound reaches the bar. First `places`, a mask of what may reach it by longer prefixes than
// the bound knew, found without a logarithm; then exact values of these.
struct BlockSearch {
    uint32_t block, prefix;
    uint32_t places;
    PhiloxWords tail, inner[2];
    alignas(64) float bounds[kPlaces];  // in: bound_logit() of the block's logits, filtered
    double l[kPlaces];                  // in: at `places`
    double z[kPlaces];                  // out: at `places`
};

struct Leaves {
    // Prefixes of `blocks` (a multiple of 32) Philox blocks from `first` on, eight each. Meanwhile the memory
    // that is read next is asked for: `bytes` from `ahead` on for every 32 blocks.
    void (*prefixes)(const PhiloxStream& stream, uint32_t first, int blocks, uint16_t* out, uintptr_t ahead,
                     int bytes);
    // Strided by type: f16, bf16, f32. l(i, r) = p[kStride i + r], i < rows. NaN is not a maximum.
    void (*column_maxima[3])(const void* p, int rows, float* most);  // most[r] = max(most[r], max_i l(i, r))
    void (*row_maxima[3])(const void* p, int rows, float* most);     // most[i] = max_r l(i, r)
    void (*widen[4])(const void* p, int n, float* out);              // f64 as bound_logit()
    // out[i] = Bound::of(element_steps(prefix[i]) + steps, l[i]), -inf where l[i] < least; returns the
    // largest. n is a multiple of 16.
    float (*bounds)(const uint16_t* prefix, const float* l, int n, int32_t steps, float per_step, float least,
                    float* out);
    // The first i in [from, n) with x[i] >= bound, else n.
    int (*next_at_least)(const float* x, int from, int n, float bound);
    float (*largest)(const float* x, int n);                 // n a multiple of 16
    bool (*any_at_most)(const uint16_t* x, uint16_t limit);  // of kStride
    void (*find_places)(const RowKey& key, const Bound& bound, float bar, BlockSearch& search);
    void (*exact_places)(const RowKey& key, double temperature, BlockSearch& search);
    double (*element_gumbel)(const RowKey& key, uint32_t v, uint32_t prefix);
    void (*exp_sums)(const float* l, int n, float most, float per_temperature, ExpSums& out);
    // Processing. fma(guidance, c - u, u), by type as above; the others in place.
    void (*guide[3])(const void* c, const void* u, int n, float guidance, float* out);
    void (*add)(float* l, const float* bias, int n);
    void (*suppress)(float* l, const bool* suppressed, int n);
};

const Leaves& leaves_of(simd::Level level);
inline const Leaves& leaves() {
    static const Leaves& best = leaves_of(simd::level());
    return best;
}

}  // namespace fd::categorical
