// gumbel_argmax and first_hitting_step_ on CUDA: a block of threads a row, or several where rows are few.
//
//   search    Warp w of a block streams tiles w, w + 8, ... of 4096 logits with 16-byte loads. A lane keeps
//             the maxima of 8 of the tile's 256 blocks in registers; one Philox call a lane then makes the 8
//             bounds, which go to shared memory (1 KiB a tile).
//   refine    Each warp refines its most promising block, 16 lanes a block, one place each; the best exact z
//             of all warps then leaves a few candidates, which ballots find, two at a time. Logits are read
//             again, from L2.
//   merge     Blocks that share a row leave their best in the workspace; the last one, by a ticket which it
//             resets, merges them. z and tokens are compared exactly, so the split changes nothing.
//
// Roofline (H100: 3.0 TB/s copied, 132 SMs x 4 issue slots x 1.7 GHz = 29e12 lane instructions a second).
//   block16, bf16    2 bytes a logit: 1.5e12 logits/s. Issue: 2 to 3 instructions a logit (widen, maximum, an
//                    eighth of a load; 1/16 of a bound with its 1/8 Philox call): 10e12 logits/s. Memory
//                    bound; expected 80 to 90 % of the bandwidth of a copy: 1024 x 126464 in 100 us.
//                    In flight: 4 loads x 16 B x 768 lanes = 48 KiB an SM, Little asks for 20.
//   element, bf16    8 lane instructions of Philox a logit and 9 of bounds: 1.7e12/s, close to the memory's.
//   processed        logits are loaded one by one, coalesced; with guidance and bias 8 bytes and some 15
//                    instructions a logit: still the memory, 60 to 70 % of a copy.
//   scores           the tile twice more, from L2, and an exponential: 25 instructions, 1.1e12 logits/s; a
//                    second launch, a warp a row, merges the tiles.
//   refinement       per row 8 + 5 to 30 blocks, each 0.5e3 instructions of a warp in chains of 4e3 cycles;
//                    other resident blocks (3 an SM, 80 registers, at most 33 KiB) stream meanwhile.
//   one row          latency: launch, two round trips to memory, 2 to 3 refinements of 2 us, ticket: 10 us.
#include <algorithm>
#include <climits>

#include "categorical/gumbel_launch.h"
#include "categorical/scores_cuda.h"
#include "categorical/search_cuda.h"

namespace fd::categorical {
namespace {

constexpr int kMaxWarps = 8;
constexpr int kMaxThreads = kMaxWarps * kWarp;
constexpr int kBlocksPerSm = 3;
constexpr int kMaxPartTiles = 32;  // 1 KiB of shared memory each
constexpr int kAlign = 16;

struct PartBest {
    double z;
    int64_t token;
};

struct DrawJob {
    HittingArgs args;  // gumbel_argmax: without positions
    DrawOutputs out;
    int64_t tiles;
    int parts;
    unsigned* tickets;    // [rows]
    PartBest* part_best;  // [rows, parts]
    TileSums* sums;       // [rows, tiles], or null
};

int64_t aligned(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

int part_tiles(const DrawSplit& split) {
    return static_cast<int>((split.tiles + split.parts - 1) / split.parts);
}

// False where nothing is drawn: no position, or numbers out of range, which only the CPU reports.
template <class T>
__device__ bool find_row(const HittingArgs& a, int64_t r, Row<T>& row) {
    if (a.positions != nullptr) {
        const int64_t position = a.positions[r];
        if (position < 0 || position >= a.length) return false;
        row = hitting_row<T>(a, r / a.per_sequence, r % a.per_sequence, position);
    } else {
        if (a.row_index != nullptr && (a.row_index[r] < 0 || a.row_index[r] >= a.logit_rows)) return false;
        row = draw_row<T>(a, r);
    }
    return true;
}

// The best of all lanes of the block; for warp 0.
__device__ Choice best_of_block(const Choice& own) {
    __shared__ double z[kMaxWarps];
    __shared__ int32_t token[kMaxWarps];
    Choice best = best_of_warp(own);
    const int lane = lane_of_thread(), warps = static_cast<int>(blockDim.x) / kWarp;
    if (lane == 0) {
        z[threadIdx.x / kWarp] = best.z;
        token[threadIdx.x / kWarp] = best.token;
    }
    __syncthreads();
    if (threadIdx.x < kWarp) {
        best = Choice{};
        for (int w = 0; w < warps; ++w) {
            if (token[w] >= 0) best.offer(z[w], token[w]);
        }
    }
    return best;
}

// Warp 0 of the block: leaves the part's best; true for the last block of the row, which gets the row's best.
__device__ bool merge_parts(const DrawJob& job, int64_t r, int part, Choice& best, int lane) {
    PartBest* bests = job.part_best + r * job.parts;
    int last = 0;
    if (lane == 0) {
        bests[part].z = best.z;
        bests[part].token = best.token;
        __threadfence();
        last = atomicAdd(&job.tickets[r], 1u) == static_cast<unsigned>(job.parts - 1);
    }
    last = __shfl_sync(kAllLanes, last, 0);
    if (last == 0) return false;
    __threadfence();
    best = Choice{};
    for (int i = lane; i < job.parts; i += kWarp) {
        const auto token = static_cast<int32_t>(__ldcg(&bests[i].token));
        if (token >= 0) best.offer(__ldcg(&bests[i].z), token);
    }
    best = best_of_warp(best);
    if (lane == 0) job.tickets[r] = 0;
    return true;
}

__device__ void write_row(const DrawJob& job, int64_t r, const Choice& best) {
    const HittingArgs& a = job.args;
    job.out.tokens[r] = best.token;
    if (job.out.z != nullptr) job.out.z[r] = best.z;
    // Of more positions one may be named twice: scatter() sees to that.
    if (a.positions != nullptr && a.per_sequence == 1 && best.token >= 0)
        a.tokens[r * a.token_stride + a.positions[r]] = best.token;
}

// kFast: stream block16, no scores, noise where it can matter.
template <class T, bool kFast>
__global__ void __launch_bounds__(kMaxThreads, kFast ? kBlocksPerSm : 2) draw(DrawJob job) {
    __shared__ Row<T> row;
    __shared__ bool exists;
    __shared__ KeyWord best_key;
    const HittingArgs& a = job.args;
    const int lane = lane_of_thread();
    const int part = static_cast<int>(blockIdx.y);
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        if (threadIdx.x == 0) {
            exists = find_row(a, r, row);
            best_key = order_key(kMinusInfinity<double>);
        }
        __syncthreads();
        Choice best;
        if (exists) {
            const int64_t first = job.tiles * part / job.parts, last = job.tiles * (part + 1) / job.parts;
            const int64_t first_tile = row.vocab_start / kTile;
            Search<T> search(row, a.vocab, first_tile + first, static_cast<int>(last - first),
                             dynamic_shared<float>(), &best_key);
            const auto see = [&](int64_t tile, const TileSpan& span) {
                if (job.sums == nullptr) return;
                const double temperature = static_cast<double>(a.score_temperature[r * a.score_stride]);
                const TileSums sums = sums_of_tile(row, span, -1, temperature);
                if (lane == 0) job.sums[r * job.tiles + (tile - first_tile)] = sums;
            };
            if constexpr (kFast) {
                search.blocks([](int64_t, const TileSpan&) {});
            } else if (a.full) {
                search.full(a.stream, see);
            } else if (a.stream == Stream::block16 || row.temperature == 0) {
                search.blocks(see);
            } else {
                search.elements(see);
            }
            best = search.best();
        }
        best = best_of_block(best);
        if (threadIdx.x < kWarp && (job.parts == 1 || merge_parts(job, r, part, best, lane)) && lane == 0)
            write_row(job, r, best);
        __syncthreads();  // the row has been read
    }
}

// Scores of rows that have been drawn, a warp a row.
template <class T>
__global__ void __launch_bounds__(kWarp, 16) score(DrawJob job) {
    __shared__ Row<T> row;
    __shared__ bool exists;
    const HittingArgs& a = job.args;
    for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x) {
        if (threadIdx.x == 0) exists = find_row(a, r, row);
        __syncwarp();
        const double temperature = static_cast<double>(a.score_temperature[r * a.score_stride]);
        finish_scores(row, a.vocab, exists ? job.tiles : 0, job.sums + r * job.tiles,
                      static_cast<int32_t>(job.out.tokens[r]), temperature, job.out.scores + kScoreCount * r,
                      static_cast<int>(threadIdx.x));
        __syncwarp();  // the row has been read
    }
}

// Writes drawn tokens, a block of threads a sequence; of a position that is named twice the last draw stays.
__global__ void __launch_bounds__(kMaxThreads)
    scatter(int64_t* __restrict__ tokens, int64_t token_stride, const int32_t* __restrict__ positions,
            const int64_t* __restrict__ drawn, int64_t batch, int64_t per_sequence) {
    for (int64_t b = blockIdx.x; b < batch; b += gridDim.x) {
        const int32_t* own_positions = positions + b * per_sequence;
        const int64_t* own_drawn = drawn + b * per_sequence;
        for (int64_t j = threadIdx.x; j < per_sequence; j += kMaxThreads) {
            bool stays = own_drawn[j] >= 0;
            for (int64_t later = j + 1; stays && later < per_sequence; ++later)
                stays = own_positions[later] != own_positions[j] || own_drawn[later] < 0;
            if (stays) tokens[b * token_stride + own_positions[j]] = own_drawn[j];
        }
    }
}

template <class T>
void launch_draw(void* stream, const DrawJob& job, const DrawSplit& split) {
    const int tiles = part_tiles(split);
    const dim3 grid(static_cast<unsigned>(std::min<int64_t>(job.args.rows, INT_MAX)),
                    static_cast<unsigned>(job.parts));
    const int threads = std::min(tiles, kMaxWarps) * kWarp;
    const size_t shared_bytes = sizeof(float) * kStride * static_cast<size_t>(tiles);
    const bool fast = job.args.stream == Stream::block16 && !job.args.full && job.sums == nullptr;
    launch(fast ? draw<T, true> : draw<T, false>, grid, threads, shared_bytes, stream, job);
    if (job.sums != nullptr) launch(score<T>, dim3(grid.x), kWarp, 0, stream, job);
}

void launch_draw(void* stream, const HittingArgs& args, const DrawSplit& split, void* workspace,
                 const DrawOutputs& out) {
    auto* memory = static_cast<unsigned char*>(workspace);
    auto* tickets = reinterpret_cast<unsigned*>(memory);
    memory += aligned(split.tickets(args.rows) * static_cast<int64_t>(sizeof(unsigned)));
    auto* part_best = reinterpret_cast<PartBest*>(memory);
    if (split.parts > 1) memory += args.rows * split.parts * static_cast<int64_t>(sizeof(PartBest));
    auto* sums = split.scored ? reinterpret_cast<TileSums*>(memory) : nullptr;
    const DrawJob job{args, out, split.tiles, split.parts, tickets, part_best, sums};
    switch (args.dtype) {
        case DType::f16:
            return launch_draw<half>(stream, job, split);
        case DType::bf16:
            return launch_draw<bfloat16>(stream, job, split);
        case DType::f32:
            return launch_draw<float>(stream, job, split);
        case DType::f64:
            return launch_draw<double>(stream, job, split);
    }
}

}  // namespace

DrawSplit::DrawSplit(const CategoricalArgs& a, bool with_scores)
    : tiles((a.vocab_start + a.vocab - 1) / kTile + 1 - a.vocab_start / kTile),
      parts(1),
      scored(with_scores) {
    if (a.rows == 0) return;
    const auto wanted = static_cast<int64_t>(stride_grid(INT_MAX, 1, kBlocksPerSm).x);
    const int64_t least = (tiles + kMaxPartTiles - 1) / kMaxPartTiles;
    parts = static_cast<int>(std::clamp((wanted + a.rows - 1) / a.rows, least, tiles));
}

int64_t DrawSplit::workspace_bytes(int64_t rows) const {
    int64_t bytes = aligned(tickets(rows) * static_cast<int64_t>(sizeof(unsigned)));
    if (parts > 1) bytes += rows * parts * static_cast<int64_t>(sizeof(PartBest));
    if (scored) bytes += rows * tiles * static_cast<int64_t>(sizeof(TileSums));
    return bytes;
}

void draw_cuda(void* stream, const CategoricalArgs& args, const DrawSplit& split, void* workspace,
               const DrawOutputs& out) {
    HittingArgs all{};
    static_cast<CategoricalArgs&>(all) = args;
    launch_draw(stream, all, split, workspace, out);
}

void hitting_step_cuda(void* stream, const HittingArgs& args, const DrawSplit& split, void* workspace,
                       int64_t* drawn) {
    launch_draw(stream, args, split, workspace, {drawn, nullptr, nullptr});
    if (args.per_sequence > 1)
        launch(scatter, dim3(static_cast<unsigned>(std::min<int64_t>(args.batch, INT_MAX))), kMaxThreads, 0,
               stream, args.tokens, args.token_stride, args.positions, drawn, args.batch, args.per_sequence);
}

}  // namespace fd::categorical
