// The solver-step kernel against the same sums said plainly, one element at a time: every storage type,
// every branch, odd sizes and unaligned tensors. Results must be equal to the last bit, untouched ring slots
// included; since the expected values are the same for every order of execution, so are the kernel's.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpp/testing.h"
#include "linear_step/linear_step_launch.h"
#include "linear_step_expected.h"

extern "C" uint64_t fastdiff_ops_emulation_launches();

namespace fd::linear_step {
namespace {

// A tensor in a heap block of its exact size. `shift` elements in front take it off its 16-byte alignment.
struct Block {
    DType type = DType::f32;
    int64_t n = 0, shift = 0;
    std::unique_ptr<unsigned char[]> bytes;

    void* data() const { return bytes == nullptr ? nullptr : bytes.get() + shift * size_of(type); }
    void resize(DType t, int64_t count, int64_t off = 0) {
        type = t, n = count, shift = off;
        bytes.reset(new unsigned char[static_cast<size_t>((n + shift) * size_of(type))]);
    }
    Block clone() const {
        Block other;
        if (bytes == nullptr) return other;
        other.resize(type, n, shift);
        std::memcpy(other.bytes.get(), bytes.get(), static_cast<size_t>((n + shift) * size_of(type)));
        return other;
    }
};

std::string difference(const Block& got, const Block& expected) {
    for (int64_t i = 0; i < got.n; ++i) {
        const double g = load(got.data(), got.type, i), e = load(expected.data(), expected.type, i);
        if (g != e && !(std::isnan(g) && std::isnan(e))) {
            return "element " + std::to_string(i) + " is " + std::to_string(g) + " instead of " +
                   std::to_string(e);
        }
    }
    return "";
}

struct Case {
    DType x = DType::f32, out = DType::f32, history = DType::f32, noise_type = DType::f32;
    int64_t batch = 2, sample = 12, channels = 1, shift = 0;
    int n_outs = 1, n_hist = 0, n_store = 0, clip = kClipNone, anchor = kAnchorSame, copies = 0,
        noise = 0;  // 1 tensor 2 rng 3 [B,3]
    bool in_place = false, per_sample = false, weights_per_step = false, missing_anchor = false;
    int n_elem = 0;
    DType elem_type = DType::f32, clip_type = DType::f32;
    int64_t elem_inner = 1, elem_period = 1, elem_steps = 1, steps = 3, step = 1;
    double density = 0.6;

    std::string text() const {
        const char* types[] = {"f16", "bf16", "f32", "f64"};
        std::string s =
            std::string("x ") + types[int(x)] + " out " + types[int(out)] + " history " + types[int(history)];
        for (const auto& [name, value] :
             std::initializer_list<std::pair<const char*, int64_t>>{{"batch", batch},
                                                                    {"sample", sample},
                                                                    {"channels", channels},
                                                                    {"shift", shift},
                                                                    {"outs", n_outs},
                                                                    {"hist", n_hist},
                                                                    {"store", n_store},
                                                                    {"clip", clip},
                                                                    {"anchor", anchor},
                                                                    {"copies", copies},
                                                                    {"noise", noise},
                                                                    {"in_place", in_place},
                                                                    {"per_sample", per_sample},
                                                                    {"elem", n_elem},
                                                                    {"step", step}}) {
            s += std::string(" ") + name + " " + std::to_string(value);
        }
        return s;
    }
};

class Numbers {
  public:
    explicit Numbers(uint32_t seed) : random_(seed) {}
    int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
    double real() { return static_cast<double>(random_()) * 0x1p-31 - 1.0; }
    bool chance(double p) { return static_cast<double>(random_()) * 0x1p-32 < p; }

  private:
    std::mt19937 random_;
};

// One set of tensors. `bind` points the arguments at them.
struct Tensors {
    Block x, outs[kMaxOuts], anchor, history, noise, x_next, anchor_next, store[2], model_in, elem, clip;
    std::vector<double> coef, weights;
    std::vector<int64_t> elem_map, rng;
    int64_t step;

    Tensors(const Case& k, Numbers& random) : step(k.step) {
        const int64_t n = k.batch * k.sample;
        const auto fill = [&](Block& block, DType type, int64_t count) {
            block.resize(type, count, k.shift);
            for (int64_t i = 0; i < count; ++i)
                fd::linear_step::store(block.data(), type, i, 2.0 * random.real());
        };
        fill(x, k.x, n);
        for (int i = 0; i < k.n_outs; ++i) fill(outs[i], k.out, n);
        if (!k.missing_anchor) fill(anchor, k.x, n);
        if (k.n_hist > 0) fill(history, k.history, k.n_hist * n);
        if (k.noise == 1) fill(noise, k.noise_type, n);
        fill(x_next, k.x, n);
        if (k.anchor == kAnchorRow && !k.in_place) fill(anchor_next, k.x, n);
        for (int i = 0; i < k.n_store && !k.in_place; ++i) fill(store[i], k.history, n);
        if (k.copies > 0) fill(model_in, k.out, k.copies * n);

        coef.resize(static_cast<size_t>(k.steps * (k.per_sample ? k.batch : 1) * kCoef));
        for (double& c : coef) c = random.chance(k.density) ? random.real() : 0.0;
        for (size_t i = 0; i < coef.size(); i += kCoef) {
            coef[i + kClipBound] = 0.7;
            for (int r = 0; r < kRows && k.anchor != kAnchorRow; ++r) {
                coef[i + static_cast<size_t>(position(r, kCorrected))] = 0.0;  // there is no row A to use
            }
            if (random.chance(0.3))
                std::fill_n(coef.begin() + static_cast<int64_t>(i) + position(kS0, 0), kColumns, 0.0);
        }
        if (k.n_outs > 1 || k.weights_per_step) {
            weights.resize(static_cast<size_t>((k.weights_per_step ? k.steps : 1) * 2 *
                                               (k.per_sample ? k.batch : 1) * k.n_outs));
            for (double& w : weights) w = random.chance(0.8) ? random.real() : 0.0;
        }
        if (k.n_elem > 0) {
            fill(elem, k.elem_type, k.elem_steps * k.n_elem * k.elem_period);
            const int positions[] = {
                kCoef + kX, kCo, kDu, position(kX, kState), kJump, position(kA, kOutput), kCoef + kS0, kCx};
            for (int i = 0; i < k.n_elem; ++i) elem_map.push_back(positions[i % 8]);
        }
        if (k.clip == kClipDynamic) {
            fill(clip, k.clip_type, k.batch);
            for (int64_t b = 0; b < k.batch; ++b)
                fd::linear_step::store(clip.data(), k.clip_type, b, 0.5 + 0.25 * double(b));
        }
        if (k.noise == 2) rng = {-123456789012345, 41};
        if (k.noise == 3) {
            for (int64_t b = 0; b < k.batch; ++b) rng.insert(rng.end(), {77 + b, 5 * b, 0xfffffff0 - b});
        }
    }

    Tensors(const Tensors& t)
        : x(t.x.clone()),
          anchor(t.anchor.clone()),
          history(t.history.clone()),
          noise(t.noise.clone()),
          x_next(t.x_next.clone()),
          anchor_next(t.anchor_next.clone()),
          model_in(t.model_in.clone()),
          elem(t.elem.clone()),
          clip(t.clip.clone()),
          coef(t.coef),
          weights(t.weights),
          elem_map(t.elem_map),
          rng(t.rng),
          step(t.step) {
        for (int i = 0; i < kMaxOuts; ++i) outs[i] = t.outs[i].clone();
        for (int i = 0; i < 2; ++i) store[i] = t.store[i].clone();
    }

    StepArgs bind(const Case& k) {
        StepArgs a{};
        a.batch = k.batch, a.sample = k.sample, a.channels = k.channels;
        a.x = x.data(), a.anchor = anchor.data(), a.history = history.data(), a.noise = noise.data();
        for (int i = 0; i < k.n_outs; ++i) a.outs[i] = outs[i].data();
        a.x_next = x_next.data(), a.model_in = model_in.data();
        a.anchor_next = k.in_place ? anchor.data() : anchor_next.data();
        for (int i = 0; i < k.n_store && !k.in_place; ++i) a.store[i] = store[i].data();
        a.ring = k.in_place && k.n_store > 0 ? history.data() : nullptr;
        a.x_type = k.x, a.out_type = k.out, a.noise_type = k.noise_type;
        a.history_type = k.history;
        a.n_outs = k.n_outs, a.n_hist = k.n_hist, a.n_store = k.n_store, a.clip_mode = k.clip,
        a.anchor_mode = k.anchor;
        a.model_copies = k.copies;
        a.coef = coef.data(), a.step = &step, a.steps = k.steps, a.coef_batch = k.per_sample ? k.batch : 1;
        if (!weights.empty()) a.weights = weights.data();
        a.weight_steps = k.weights_per_step ? k.steps : 1, a.weight_batch = k.per_sample ? k.batch : 1;
        a.elem = elem.data(), a.elem_type = k.elem_type, a.elem_steps = k.elem_steps;
        a.elem_period = k.elem_period, a.elem_inner = k.elem_inner, a.n_elem = k.n_elem,
        a.elem_map = elem_map.data();
        a.clip_scale = clip.data(), a.clip_type = k.clip_type;
        if (!rng.empty()) a.rng = rng.data();
        a.rng_per_sample = k.noise == 3;
        return a;
    }
};

void check(const Case& k, uint32_t seed) {
    Numbers random(seed);
    Tensors got(k, random), expected(got);
    expected_step(expected.bind(k));
    const uint64_t before = fastdiff_ops_emulation_launches();
    solver_step_cuda(nullptr, got.bind(k));
    EXPECT_NOTE(fastdiff_ops_emulation_launches() - before == (k.batch * k.sample > 0 ? 1u : 0u), k.text());
    const std::array<std::array<const Block*, 2>, 6> outputs{{{&got.x_next, &expected.x_next},
                                                              {&got.anchor, &expected.anchor},
                                                              {&got.anchor_next, &expected.anchor_next},
                                                              {&got.history, &expected.history},
                                                              {&got.store[0], &expected.store[0]},
                                                              {&got.store[1], &expected.store[1]}}};
    int which = 0;
    for (const auto& [g, e] : outputs) {
        const std::string text = difference(*g, *e);
        EXPECT_NOTE(text.empty(), "output " + std::to_string(which) + ": " + text + " in " + k.text());
        ++which;
    }
    const std::string text = difference(got.model_in, expected.model_in);
    EXPECT_NOTE(text.empty(), "model_in: " + text + " in " + k.text());
}

const DType kTypes[] = {DType::f16, DType::bf16, DType::f32, DType::f64};

// History rings that n_store divides.
void choose_history(Case& k, Numbers& random) {
    k.n_store = random.below(3);
    k.n_hist = k.n_store == 2 ? 2 * (1 + random.below(4)) : 1 + random.below(8);
}

}  // namespace
}  // namespace fd::linear_step

using namespace fd::linear_step;

FD_TEST(vectorised_kernels) {
    const fd::DType combinations[][3] = {
        {kTypes[2], kTypes[2], kTypes[2]}, {kTypes[0], kTypes[0], kTypes[0]},
        {kTypes[0], kTypes[0], kTypes[2]}, {kTypes[1], kTypes[1], kTypes[1]},
        {kTypes[1], kTypes[1], kTypes[2]}, {kTypes[2], kTypes[0], kTypes[2]},
        {kTypes[2], kTypes[1], kTypes[2]}, {kTypes[3], kTypes[3], kTypes[3]},
    };
    uint32_t seed = 1;
    for (const auto& types : combinations) {
        for (const int64_t sample : {8, 13, 1024}) {
            Case k;
            k.x = types[0], k.out = types[1], k.history = types[2];
            k.sample = sample;
            k.n_hist = 2, k.n_store = 1, k.in_place = sample != 13, k.copies = 2;
            k.noise = sample == 8 ? 2 : 0;
            check(k, seed++);
        }
    }
}

FD_TEST(every_mix_of_types) {
    uint32_t seed = 100;
    for (const fd::DType x : kTypes) {
        for (const fd::DType out : kTypes) {
            for (const fd::DType history : kTypes) {
                Case k;
                k.x = x, k.out = out, k.history = history, k.noise_type = kTypes[seed % 4];
                k.sample = 16, k.n_hist = 3, k.n_store = 1, k.anchor = kAnchorRow, k.noise = 1, k.copies = 1;
                check(k, seed++);
            }
        }
    }
}

FD_TEST(random_calls) {
    for (uint32_t seed = 1000; seed < 1600; ++seed) {
        Numbers random(seed);
        Case k;
        k.x = kTypes[random.below(4)];
        k.out = random.chance(0.7) ? k.x : kTypes[random.below(4)];
        k.history = random.chance(0.7) ? k.x : kTypes[random.below(4)];
        k.noise_type = kTypes[random.below(4)];
        k.batch = 1 + random.below(3);
        k.channels = random.chance(0.3) ? 3 : 1;
        k.sample = k.channels * (1 + random.below(40));
        k.shift = random.chance(0.3) ? 1 + random.below(3) : 0;
        k.n_outs = 1 + random.below(4);
        choose_history(k, random);
        k.clip = random.below(3);
        k.clip_type = kTypes[2 + random.below(2)];
        k.anchor = random.below(3);
        k.in_place = random.chance(0.5);
        k.missing_anchor = k.anchor != kAnchorRow && random.chance(0.2);
        k.copies = random.below(4);
        k.noise = random.below(4);
        k.per_sample = random.chance(0.4);
        k.weights_per_step = random.chance(0.3);
        k.step = random.below(3);
        k.density = random.chance(0.2) ? 0.1 : 0.6;
        if (random.chance(0.3)) {
            k.n_elem = 1 + random.below(8);
            k.elem_type = kTypes[2 + random.below(2)];
            k.elem_steps = random.chance(0.5) ? k.steps : 1;
            k.elem_period = random.chance(0.5) ? k.sample : 1 + random.below(3);
            k.elem_inner = random.chance(0.5) ? 1 : 1 + random.below(4);
        }
        check(k, seed);
    }
}

FD_TEST(grid_stride_and_empty_calls) {
    Case k;
    for (const int64_t sample : {16 * 256 * 4 * 2 + 5, 0}) {  // the emulated device has 16 blocks at a time
        k.batch = 1, k.sample = sample, k.n_hist = 1;
        check(k, 7);
        k.noise = 2;
        check(k, 8);
        k.noise = 0;
    }
    k.batch = 300, k.sample = 3, k.per_sample = true,
    k.noise = 3;  // a block serves several samples
    check(k, 9);
    k.batch = 0;
    check(k, 10);
}

FD_TEST(a_step_outside_the_table_gives_nan) {
    for (const int64_t step : {-1, 3}) {
        Case k;
        k.step = step, k.n_outs = 2, k.n_hist = 2, k.n_store = 1, k.weights_per_step = true;
        k.n_elem = 2, k.elem_steps = 3;
        check(k, 11);
        Numbers random(11);
        Tensors t(k, random);
        solver_step_cuda(nullptr, t.bind(k));
        EXPECT(std::isnan(load(t.x_next.data(), k.x, 5)));
    }
}

FD_TEST(zero_weights_ignore_what_their_tensors_hold) {
    Case k;
    k.anchor = kAnchorKeep, k.n_hist = 4, k.n_store = 1, k.noise = 1, k.density = 0.0;
    Numbers random(12);
    Tensors t(k, random);
    for (Block* block : {&t.anchor, &t.history, &t.noise}) {
        for (int64_t i = 0; i < block->n; ++i) fd::linear_step::store(block->data(), block->type, i, NAN);
    }
    double* row = t.coef.data() + k.step * kCoef;
    row[kCo] = 1.0, row[kDu] = 1.0, row[position(kX, kState)] = 1.0, row[position(kX, kOutput)] = -0.5;
    solver_step_cuda(nullptr, t.bind(k));
    for (int64_t i = 0; i < t.x.n; ++i) {
        const float expected =
            std::fma(-0.5f, float(load(t.outs[0].data(), k.out, i)), float(load(t.x.data(), k.x, i)));
        EXPECT(load(t.x_next.data(), k.x, i) == expected);
    }
}

FD_TEST(large_offsets) {
    // Rows of the table beyond 2^31 entries, in memory that is only reserved.
    Case k;
    k.steps = (int64_t{1} << 26) + 2, k.step = k.steps - 1;
    const size_t bytes = static_cast<size_t>(k.steps) * kCoef * sizeof(double);
    void* table =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT(table != MAP_FAILED);
    Case few = k;
    few.steps = 2, few.step = 1;
    Numbers random(13);
    Tensors t(few, random);
    t.step = k.step;
    StepArgs a = t.bind(few);
    a.steps = k.steps;
    std::memcpy(static_cast<double*>(table) + k.step * kCoef, t.coef.data() + kCoef, kCoef * sizeof(double));
    a.coef = static_cast<const double*>(table);
    solver_step_cuda(nullptr, a);
    const Block large = t.x_next.clone();
    t.step = 1;
    solver_step_cuda(nullptr, t.bind(few));
    EXPECT(difference(large, t.x_next).empty());
    munmap(table, bytes);

    // The index of an element inside a channels-last sample of 3 x 2^33 elements.
    StepArgs huge{};
    huge.channels = 3, huge.sample = int64_t{3} << 33;
    EXPECT(logical_index(huge, 0) == 0);
    EXPECT(logical_index(huge, 1) == int64_t{1} << 33);
    EXPECT(logical_index(huge, huge.sample - 1) == huge.sample - 1);
    EXPECT(logical_index(huge, huge.sample - 3) == (int64_t{1} << 33) - 1);
}

FD_TEST_MAIN()
