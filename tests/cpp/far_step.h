// A step on two samples of 2^31 + 16 elements, whose tensors are address space only: what lies at the end of
// the second sample is filled, computed and compared; nothing else is ever touched.
#pragma once

#include <sys/mman.h>

#include <cstdio>
#include <utility>
#include <vector>

#include "cpp/testing.h"
#include "cuda_emulation/linear_step_expected.h"

namespace fd::linear_step {

class FarStep {
  public:
    static constexpr int64_t kSample = (int64_t{1} << 31) + 16, kBatch = 2, kTail = 4000;
    static constexpr int64_t kAll = kBatch * kSample;
    StepArgs args{};

    FarStep(DType x, DType out, DType history) : coef_(3 * kCoef) {
        StepArgs& a = args;
        a.batch = kBatch, a.sample = kSample, a.channels = 1;
        a.x_type = x, a.out_type = out, a.history_type = history;
        a.n_outs = 1, a.n_hist = 3, a.n_store = 1, a.anchor_mode = kAnchorRow, a.model_copies = 2;
        a.x = filled(x, 1), a.outs[0] = filled(out, 1), a.anchor = filled(x, 1);
        ring_ = filled(history, a.n_hist);
        a.history = ring_;
        double* row = coef_.data() + step_ * kCoef;  // the head of the ring is its last slot
        row[kCo] = 0.5, row[kCx] = -0.25, row[kDu] = 1.0, row[kCin] = 0.75;
        for (int r = 0; r < kRows; ++r) {
            for (const int c : std::initializer_list<int>{kState, kAnchor, kOutput, kNoise, 5, 6, 7}) {
                row[position(r, c)] = 0.125 * (1 + c) - 0.25 * r;
            }
        }
        a.coef = coef_.data(), a.coef_batch = 1, a.steps = 3, a.step = &step_;
        a.rng = rng_;
    }
    FarStep(const FarStep&) = delete;
    ~FarStep() {
        for (const auto& [data, bytes] : maps_) munmap(data, bytes);
    }

    // `compute` does the elements [first, kSample) of the second sample, first <= kSample - kTail / 2.
    template <class F>
    void check(F&& compute) {
        StepArgs expected = args;
        with_outputs(expected);
        with_outputs(args);
        if (!mapped_) return (void)std::printf("skipped: not that much address space\n");
        for (int64_t p = kSample - kTail; p < kSample; ++p) expected_element<float>(expected, 1, p);
        args.anchor_next = const_cast<void*>(args.anchor);  // in place
        args.ring = ring_;
        compute(args);
        for (int64_t i = kAll - kTail / 2; i < kAll; ++i) {
            EXPECT(load(args.x_next, args.x_type, i) == load(expected.x_next, args.x_type, i));
            EXPECT(load(args.anchor, args.x_type, i) == load(expected.anchor_next, args.x_type, i));
            EXPECT(load(ring_, args.history_type, 2 * kAll + i) ==
                   load(expected.store[0], args.history_type, i));
            for (int64_t at : {i, i + kAll})
                EXPECT(load(args.model_in, args.out_type, at) == load(expected.model_in, args.out_type, at));
        }
    }

  private:
    void* reserve(DType type, int64_t copies) {
        const size_t bytes = static_cast<size_t>(copies * kAll * size_of(type));
        void* data =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        mapped_ = mapped_ && data != MAP_FAILED;
        if (data == MAP_FAILED) return nullptr;
        maps_.emplace_back(data, bytes);
        return data;
    }
    void* filled(DType type, int64_t copies) {
        void* data = reserve(type, copies);
        for (int64_t copy = 0; copy < copies && data != nullptr; ++copy) {
            for (int64_t i = 0; i < kTail; ++i) {
                state_ = state_ * 1664525u + 1013904223u;
                store(data, type, (copy + 1) * kAll - 1 - i, static_cast<double>(state_) * 0x1p-31 - 1.0);
            }
        }
        return data;
    }
    void with_outputs(StepArgs& a) {
        a.x_next = reserve(a.x_type, 1), a.anchor_next = reserve(a.x_type, 1);
        a.store[0] = reserve(a.history_type, 1), a.model_in = reserve(a.out_type, a.model_copies);
        a.ring = nullptr;
    }

    std::vector<std::pair<void*, size_t>> maps_;
    std::vector<double> coef_;
    void* ring_ = nullptr;
    int64_t step_ = 2, rng_[2] = {99, 5};
    uint32_t state_ = 1;
    bool mapped_ = true;
};

}  // namespace fd::linear_step
