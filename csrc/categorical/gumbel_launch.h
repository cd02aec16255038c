// Launchers of the categorical draws on CUDA. Pointers are device memory.
#pragma once

#include "categorical/categorical.h"

namespace fd::categorical {

constexpr int kScoreCount = 5;  // logprob, entropy, margin, logsumexp, residual

// What a draw takes apart from its result: how its rows are cut, and the memory in which the parts of a row
// meet.
struct DrawSplit {
    int64_t tiles;  // of a row
    int parts;      // blocks of threads a row
    bool scored;

    // The processors share few rows; a block's bounds fit into its shared memory.
    DrawSplit(const CategoricalArgs& args, bool scored);

    // Workspace: 16-byte aligned. Its first `tickets` unsigned numbers must be zero, and are again
    // afterwards.
    int64_t tickets(int64_t rows) const { return parts > 1 ? rows : 0; }
    int64_t workspace_bytes(int64_t rows) const;
};

struct DrawOutputs {
    int64_t* tokens;  // [rows]
    double* z;        // [rows], or null
    double* scores;   // [rows, kScoreCount], or null
};

// gumbel_argmax.
void draw_cuda(void* stream, const CategoricalArgs& args, const DrawSplit& split, void* workspace,
               const DrawOutputs& out);

// first_hitting_step_: out.tokens is what was drawn, -1 where nothing was.
void hitting_step_cuda(void* stream, const HittingArgs& args, const DrawSplit& split, void* workspace,
                       int64_t* drawn);

// gumbel_topk: [rows, k] each.
void topk_cuda(void* stream, const CategoricalArgs& args, int k, int64_t* tokens, double* z);

}  // namespace fd::categorical
