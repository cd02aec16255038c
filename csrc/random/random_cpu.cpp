// random_normal and random_uniform on the CPU.
//
// Samples of at least kPhiloxChunk blocks are cut into chunks of one stream; smaller ones share chunks, a
// lane each block. Every number depends only on (seed, draw, sample, element), so how chunks fall on threads
// changes nothing.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "common/philox_lanes.h"
#include "random/random.h"
#include "random/random_args.h"

namespace fd {
namespace {

struct Normals {
    static constexpr StreamTag kTag = StreamTag::normal;
    template <class T>
    static constexpr int kPerBlock = 4;

    template <simd::Level L, class T>
    FD_HOST_DEVICE static void values(const PhiloxChunk& words, T* __restrict out) {
        alignas(64) float z[4 * kPhiloxChunk];
        for (int i = 0; i < kPhiloxChunk; ++i) {
            const NormalPair a = box_muller(words.w[0][i], words.w[1][i]);
            const NormalPair b = box_muller(words.w[2][i], words.w[3][i]);
            z[4 * i] = a.z0;
            z[4 * i + 1] = a.z1;
            z[4 * i + 2] = b.z0;
            z[4 * i + 3] = b.z1;
        }
        narrow_block<L>(z, out, 4 * kPhiloxChunk);
    }
};

struct Uniforms {
    static constexpr StreamTag kTag = StreamTag::uniform;
    template <class T>
    static constexpr int kPerBlock = std::is_same_v<T, double> ? 2 : 4;

    template <simd::Level L, class T>
    FD_HOST_DEVICE static void values(const PhiloxChunk& words, T* __restrict out) {
        if constexpr (std::is_same_v<T, double>) {
            for (int i = 0; i < kPhiloxChunk; ++i) {
                out[2 * i] = uniform_of(words.w[0][i], words.w[1][i]);
                out[2 * i + 1] = uniform_of(words.w[2][i], words.w[3][i]);
            }
        } else {
            alignas(64) float u[4 * kPhiloxChunk];
            for (int i = 0; i < kPhiloxChunk; ++i) {
                for (int j = 0; j < 4; ++j) u[4 * i + j] = uniform_of<T>(words.w[j][i]);
            }
            narrow_block<L>(u, out, 4 * kPhiloxChunk);
        }
    }
};

struct Job {
    const int64_t* rng;
    bool rng_per_sample;
    int64_t samples, elements, blocks;  // elements and blocks of one sample

    template <class Kind>
    FD_HOST_DEVICE PhiloxStream stream(int64_t sample) const {
        const int64_t* r = rng_per_sample ? rng + 3 * sample : rng;
        return {Kind::kTag, static_cast<uint64_t>(r[0]), static_cast<uint32_t>(r[1]),
                static_cast<uint64_t>(rng_per_sample ? r[2] : sample)};
    }
};

// Chunks [first, last) of the samples' chunks in a row.
template <class Kind, class T>
struct FillChunks {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(Job job, T* out, int64_t first, int64_t last) {
        constexpr int kElements = Kind::template kPerBlock<T> * kPhiloxChunk;
        const int64_t chunks = (job.blocks + kPhiloxChunk - 1) / kPhiloxChunk;
        for (int64_t unit = first; unit < last; ++unit) {
            const int64_t sample = unit / chunks, chunk = unit % chunks;
            uint64_t blocks[kPhiloxChunk];
            for (int i = 0; i < kPhiloxChunk; ++i) blocks[i] = chunk * kPhiloxChunk + i;
            PhiloxChunk words;
            philox_chunk<L>(job.stream<Kind>(sample), blocks, words);
            T* place = out + sample * job.elements + chunk * kElements;
            const int64_t left = job.elements - chunk * kElements;
            if (left >= kElements) {
                Kind::template values<L>(words, place);
            } else {
                alignas(64) T all[kElements];
                Kind::template values<L>(words, all);
                std::memcpy(place, all, left * sizeof(T));
            }
        }
    }
};

// Chunks [first, last) of all samples' blocks in a row.
template <class Kind, class T>
struct FillLanes {
    template <simd::Level L>
    FD_HOST_DEVICE static void run(Job job, T* out, int64_t first, int64_t last) {
        constexpr int kPerBlock = Kind::template kPerBlock<T>;
        const int64_t end = std::min(job.samples * job.blocks, last * kPhiloxChunk);
        const int tail =
            static_cast<int>(job.elements - (job.blocks - 1) * kPerBlock);  // of a sample's last block
        int64_t sample = first * kPhiloxChunk / job.blocks, block = first * kPhiloxChunk % job.blocks;
        T* place = out + sample * job.elements + block * kPerBlock;
        PhiloxLanes lanes;
        for (int lane = 0; lane < kPhiloxChunk; ++lane) lanes.set(lane, job.stream<Kind>(0), 0);
        for (int64_t unit = first; unit < last; ++unit) {
            const int used = static_cast<int>(std::min<int64_t>(kPhiloxChunk, end - unit * kPhiloxChunk));
            int64_t packed_block = block;
            for (int lane = 0; lane < used; ++lane) {
                if (job.rng_per_sample) {
                    lanes.set(lane, job.stream<Kind>(sample), block);
                } else {  // key, offset and high words are those of sample 0
                    lanes.set_place(lane, Kind::kTag, static_cast<uint32_t>(sample),
                                    static_cast<uint32_t>(block));
                }
                if (++block == job.blocks) {
                    block = 0;
                    ++sample;
                }
            }
            PhiloxChunk words;
            philox_lanes<L>(lanes, words);
            alignas(64) T all[kPerBlock * kPhiloxChunk];
            Kind::template values<L>(words, all);
            if (tail == kPerBlock) {
                std::memcpy(place, all, used * sizeof(T) * kPerBlock);
                place += used * kPerBlock;
                continue;
            }
            T packed[kPerBlock * kPhiloxChunk];
            int count = 0;
            for (int lane = 0; lane < used;
                 ++lane) {  // whole blocks are copied, the next one overwrites the excess
                std::memcpy(packed + count, all + kPerBlock * lane, sizeof(T) * kPerBlock);
                const bool ends = ++packed_block == job.blocks;
                count += ends ? tail : kPerBlock;
                packed_block = ends ? 0 : packed_block;
            }
            std::memcpy(place, packed, count * sizeof(T));
            place += count;
        }
    }
};

template <class Kind, class T>
void fill(Job job, T* out) {
    constexpr int kPerBlock = Kind::template kPerBlock<T>;
    constexpr int64_t kGrain = 64;  // chunks a thread takes at least: some 10 microseconds
    job.blocks = (job.elements + kPerBlock - 1) / kPerBlock;
    const int64_t padded = (job.blocks + kPhiloxChunk - 1) / kPhiloxChunk * kPhiloxChunk;
    const bool shared = 4 * padded > 5 * job.blocks;  // else over a fifth of the blocks would be thrown away
    const int64_t lanes = shared ? job.samples * job.blocks : job.blocks;
    const int64_t chunks = (lanes + kPhiloxChunk - 1) / kPhiloxChunk * (shared ? 1 : job.samples);
    torch::stable::parallel_for(0, chunks, kGrain, [&](int64_t first, int64_t last) {
        if (shared) {
            simd::dispatch<FillLanes<Kind, T>>(job, out, first, last);
        } else {
            simd::dispatch<FillChunks<Kind, T>>(job, out, first, last);
        }
    });
}

// On a device they cannot be looked at; there the low 32 bits count.
void check_values(const RandomCall& call) {
    const int64_t *r = call.rng_data(), width = call.rng_per_sample ? 3 : 2;
    const auto word = [](int64_t value, const char* what) {
        if (value >> 32 == 0) return;
        throw std::invalid_argument(std::string("`rng`: ") + what + " must be in [0, 2^32), got " +
                                    std::to_string(value));
    };
    for (int64_t i = 0; i < (call.rng_per_sample ? call.samples : 1); ++i) {
        word(r[width * i + 1], "the offset");
        if (call.rng_per_sample) word(r[width * i + 2], "a sample id");
    }
}

template <class Kind>
Tensor random(const std::vector<int64_t>& size, const Tensor& rng, ScalarType dtype) {
    const RandomCall call(size, rng);
    check_values(call);
    Tensor out = torch::stable::new_empty(rng, size, dtype);
    const Job job{call.rng_data(), call.rng_per_sample, call.samples, call.elements, 0};
    switch (dtype_of_tensor(out, "dtype")) {
        case DType::f16:
            fill<Kind>(job, static_cast<half*>(out.data_ptr()));
            break;
        case DType::bf16:
            fill<Kind>(job, static_cast<bfloat16*>(out.data_ptr()));
            break;
        case DType::f32:
            fill<Kind>(job, static_cast<float*>(out.data_ptr()));
            break;
        case DType::f64:
            fill<Kind>(job, static_cast<double*>(out.data_ptr()));
            break;
    }
    return out;
}

}  // namespace
}  // namespace fd

STABLE_TORCH_LIBRARY_IMPL(FD_NAMESPACE, CPU, m) {
    m.impl("random_normal", TORCH_BOX(&fd::random<fd::Normals>));
    m.impl("random_uniform", TORCH_BOX(&fd::random<fd::Uniforms>));
}
