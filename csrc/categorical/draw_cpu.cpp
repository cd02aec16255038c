// Draws of whole rows: in one piece, or in runs of tiles that threads share and that merge by the same rule
// as tokens do.
#include "categorical/search_cpu.h"

namespace fd::categorical {
namespace {

struct Tiling {
    int64_t first, count;

    template <class T>
    Tiling(const Row<T>& row, const DrawPlan& plan)
        : first(row.vocab_start / kTile), count((row.vocab_start + plan.vocab - 1) / kTile + 1 - first) {}

    // Runs of tiles that are worth a thread each.
    int64_t parts(const DrawPlan& plan) const {
        const int64_t worth = count * kTile / kGrainLogits;
        return plan.split ? std::clamp<int64_t>(worth, 1, torch::stable::get_num_threads()) : 1;
    }
    int64_t border(int64_t part, int64_t parts) const { return first + count * part / parts; }
};

// Searches all tiles; part i of n is kept in keeps[i].
template <class T, class Keep>
void search(const Row<T>& row, const DrawPlan& plan, const Tiling& tiling, std::vector<Keep>& keeps,
            Scores<T>* scores) {
    const int64_t parts = static_cast<int64_t>(keeps.size());
    torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t part = begin; part < end; ++part) {
            Search<T, Keep>(row, plan, keeps[part], scores)
                .run(tiling.border(part, parts), tiling.border(part + 1, parts));
        }
    });
}

}  // namespace

template <class T>
Choice draw_one(const Row<T>& row, const DrawPlan& plan, double score_temperature, double* scores) {
    const Tiling tiling(row, plan);
    const int64_t parts = tiling.parts(plan);
    if (parts == 1 && scores == nullptr) {  // the usual case needs no memory
        KeepBest keep;
        Search<T, KeepBest>(row, plan, keep, nullptr).run(tiling.first, tiling.first + tiling.count);
        return keep.best;
    }
    std::vector<KeepBest> keeps(parts);
    Scores<T> sums(row, score_temperature, tiling.first, scores == nullptr ? 0 : tiling.count);
    search(row, plan, tiling, keeps, scores == nullptr ? nullptr : &sums);
    for (const KeepBest& part : keeps) keeps[0].offer(part.best.z, part.best.token);
    if (scores != nullptr) sums.finish(keeps[0].best, scores);
    return keeps[0].best;
}

template <class T>
void draw_many(const Row<T>& row, const DrawPlan& plan, int k, Choice* out) {
    const Tiling tiling(row, plan);
    std::vector<KeepMany> keeps(tiling.parts(plan), KeepMany(k));
    search<T, KeepMany>(row, plan, tiling, keeps, nullptr);
    for (size_t i = 1; i < keeps.size(); ++i) keeps[0].offer_all(keeps[i]);
    keeps[0].take(out);
}

#define FD_DRAWS(T)                                                               \
    template Choice draw_one<T>(const Row<T>&, const DrawPlan&, double, double*); \
    template void draw_many<T>(const Row<T>&, const DrawPlan&, int, Choice*)
FD_DRAWS(half);
FD_DRAWS(bfloat16);
FD_DRAWS(float);
FD_DRAWS(double);
#undef FD_DRAWS

}  // namespace fd::categorical
