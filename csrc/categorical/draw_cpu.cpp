#include "categorical/draw_cpu.h"

#include <cmath>

namespace fd::categorical {
namespace {
template <class T>
void all_scores(const Row<T>& row, const DrawPlan& plan, double t, const Choice& best, double* out) {
    double m = -INFINITY, second = -INFINITY;
    for (int64_t j = 0; j < plan.vocab; ++j) {
        const double l = row.unfiltered(j);
        if (l > m) { second = m; m = l; } else if (l > second) second = l;
    }
    double sum = 0, first = 0, others = 0;
    const double chosen = best.token < 0 ? NAN : (double) row.unfiltered(best.token - row.vocab_start);
    for (int64_t j = 0; j < plan.vocab; ++j) {
        const double l = row.unfiltered(j);
        if (l == -INFINITY) continue;
        const double x = l == m ? 0 : (l - m) / t, e = std::exp(x);
        sum += e;
        first += e * x;
        if (j + row.vocab_start != best.token) others += l == chosen ? 1 : std::exp((l - chosen) / t);
    }
    if (best.token < 0) others = NAN;
    out[0] = -std::log1p(others);
    out[1] = std::log(sum) - first / sum;
    out[2] = second == m ? 0 : -std::expm1((second - m) / t) / sum;
    out[3] = m / t + std::log(sum);
    out[4] = others;
}
}  // namespace

template <class T>
Choice draw_one(const Row<T>& row, const DrawPlan& plan, double score_temperature, double* scores) {
    Choice best;
    for (int64_t j = 0; j < plan.vocab; ++j) {
        best.offer(perturbed_at(row, plan.stream, j), static_cast<int32_t>(row.vocab_start + j));
    }
    if (scores != nullptr) all_scores(row, plan, score_temperature, best, scores);
    return best;
}

template <class T>
void draw_many(const Row<T>& row, const DrawPlan& plan, int k, Choice* out) {
    std::fill(out, out + k, Choice{});
    for (int64_t j = 0; j < plan.vocab; ++j) {
        Choice next{perturbed_at(row, plan.stream, j), static_cast<int32_t>(row.vocab_start + j)};
        for (int i = 0; i < k; ++i) {
            if (out[i].loses_to(next.z, next.token)) std::swap(out[i], next);
        }
    }
}

#define FD_DRAWS(T)                                                              \
    template Choice draw_one<T>(const Row<T>&, const DrawPlan&, double, double*); \
    template void draw_many<T>(const Row<T>&, const DrawPlan&, int, Choice*);
FD_DRAWS(half)
FD_DRAWS(bfloat16)
FD_DRAWS(float)
FD_DRAWS(double)
}  // namespace fd::categorical
