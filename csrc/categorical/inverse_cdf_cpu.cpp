// inverse_cdf on the CPU: one pass of sums over a row, then the search, which adds up one tile again.
#include <vector>

#include "categorical/inverse_cdf_args.h"
#include "common/simd.h"

namespace fd::categorical {
namespace {

constexpr int64_t kGrain = 1 << 15;  // numbers a thread takes at least

// Halves are added until one number is left.
FD_HOST_DEVICE double sum64(double* __restrict a) {
    for (int i = 0; i < 32; ++i) a[i] += a[i + 32];
    for (int i = 0; i < 16; ++i) a[i] += a[i + 16];
    for (int i = 0; i < 8; ++i) a[i] += a[i + 8];
    for (int i = 0; i < 4; ++i) a[i] += a[i + 4];
    for (int i = 0; i < 2; ++i) a[i] += a[i + 2];
    return a[0] + a[1];
}

template <class T>
FD_HOST_DEVICE double chunk_sum(const T* p, int64_t n) {
    alignas(64) double a[kChunk];
    if (n >= kChunk) {
        for (int i = 0; i < kChunk; ++i) a[i] = probability(p[i]);
    } else {
        for (int i = 0; i < kChunk; ++i) a[i] = i < n ? probability(p[i]) : 0.0;
    }
    return sum64(a);
}

// Sums of the tiles of a row of n numbers.
template <class T>
struct TileSums {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(const T* p, int64_t n, double* sums) {
        for (int64_t first = 0; first < n; first += kSumTile) {
            alignas(64) double chunks[kChunks];
            for (int c = 0; c < kChunks; ++c) {
                const int64_t at = first + c * kChunk;
                chunks[c] = at < n ? chunk_sum(p + at, n - at) : 0.0;
            }
            *sums++ = sum64(chunks);
        }
    }
};

template <class T>
int64_t draw(const T* p, int64_t n, double u, std::vector<double>& sums) {
    simd::dispatch<TileSums<T>>(p, n, sums.data());
    double total = 0;
    for (const double sum : sums) total += sum;
    if (!is_mass(total)) return -1;
    Search tile{u * total};
    for (size_t t = 0; t < sums.size(); ++t) tile.offer(sums[t], static_cast<int64_t>(t));
    Search chunk{tile.x, tile.before_place};
    for (int64_t at = tile.place * kSumTile; at < std::min(n, (tile.place + 1) * kSumTile); at += kChunk)
        chunk.offer(chunk_sum(p + at, n - at), at);
    Search token{tile.x, chunk.before_place};
    for (int64_t v = chunk.place; v < std::min(n, chunk.place + kChunk); ++v)
        token.offer(probability(p[v]), v);
    return token.place;
}

template <class T>
void draws(const InverseCdfArgs& a, int64_t* out) {
    torch::stable::parallel_for(0, a.rows, std::max<int64_t>(1, kGrain / a.vocab),
                                [&](int64_t first, int64_t last) {
                                    std::vector<double> sums(static_cast<size_t>(a.tiles()));
                                    for (int64_t r = first; r < last; ++r) {
                                        out[r] = draw(static_cast<const T*>(a.probs) + r * a.row_stride,
                                                      a.vocab, a.uniform_of_row(r), sums);
                                    }
                                });
}

Tensor inverse_cdf(const Tensor& probs, const Tensor& rng, const OptionalTensor& row_ids) {
    const InverseCdfCall call(probs, rng, row_ids);
    for (int64_t r = 0; r < (call.args.rng_per_row ? call.args.rows : 1); ++r) {
        const int64_t offset = call.args.rng[3 * r + 1];
        FD_CHECK_VALUE(offset >> 32 == 0, "`rng`: the offset must be in [0, 2^32), got ", offset);
    }
    Tensor out = call.result(probs);
    int64_t* tokens = static_cast<int64_t*>(out.data_ptr());
    switch (call.args.dtype) {
        case DType::f16:
            draws<half>(call.args, tokens);
            break;
        case DType::bf16:
            draws<bfloat16>(call.args, tokens);
            break;
        case DType::f32:
            draws<float>(call.args, tokens);
            break;
        case DType::f64:
            draws<double>(call.args, tokens);
            break;
    }
    return out;
}

}  // namespace
}  // namespace fd::categorical

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    m.impl("inverse_cdf", TORCH_BOX(&fd::categorical::inverse_cdf));
}
