// Arguments of tsp_search_slice, for both backends.
#pragma once

#include "common/check.h"
#include "tsp/slice.h"

namespace fd::tsp::slice {

struct SliceCall {
    Tensor points, candidates, kicks, temperature, rng;
    Args args{};
    bool narrow;  // candidates are uint16, which are int16 here: torch knows little of uint16

    SliceCall(Tensor& tours, Tensor& best, Tensor& state, const Tensor& p, const Tensor& c, const Tensor& k,
              const Tensor& t, const Tensor& r, int64_t segment)
        : points(torch::stable::contiguous(p)),
          candidates(torch::stable::contiguous(c)),
          kicks(torch::stable::contiguous(k)),
          temperature(torch::stable::contiguous(t)),
          rng(torch::stable::contiguous(r)),
          narrow(c.scalar_type() == ScalarType::Short) {
        STD_TORCH_CHECK(tours.dim() == 3 && tours.scalar_type() == ScalarType::Int && tours.is_contiguous(),
                        "tours must be int32 [B, P, N], contiguous");
        const int64_t batch = tours.size(0), trajectories = tours.size(1), n = tours.size(2);
        STD_TORCH_CHECK(
            best.scalar_type() == ScalarType::Int && same_sizes(best, tours) && best.is_contiguous(),
            "best must be like tours");
        STD_TORCH_CHECK(state.scalar_type() == ScalarType::Long && state.is_contiguous() &&
                            state.dim() == 3 && state.size(0) == batch && state.size(1) == trajectories &&
                            state.size(2) == kStateWords,
                        "state must be int64 [B, P, 5], contiguous");
        STD_TORCH_CHECK(points.scalar_type() == ScalarType::Float && points.dim() == 3 &&
                            points.size(0) == batch && points.size(1) == n && points.size(2) == 2,
                        "points must be float32 [B, N, 2]");
        STD_TORCH_CHECK((narrow || candidates.scalar_type() == ScalarType::Int) && candidates.dim() == 3 &&
                            candidates.size(0) == batch && candidates.size(1) == n &&
                            candidates.size(2) == kWidth,
                        "candidates must be int16 or int32 [B, N, 8]");
        STD_TORCH_CHECK(kicks.scalar_type() == ScalarType::Long && kicks.dim() == 1 && kicks.size(0) == 4,
                        "kicks must be int64 [4]");
        STD_TORCH_CHECK(temperature.scalar_type() == ScalarType::Double && temperature.dim() == 2 &&
                            temperature.size(0) == trajectories && temperature.size(1) >= 1,
                        "temperature must be float64 [P, M]");
        STD_TORCH_CHECK(rng.scalar_type() == ScalarType::Long && rng.dim() == 1 && rng.size(0) == 2,
                        "rng must be int64 [2]");
        constexpr int64_t kMost = int64_t{1} << 30;  // places are added as int32
        STD_TORCH_CHECK(n >= kMinCities && n <= kMost && (!narrow || n < 0xffff),
                        "N must be at least 8, and below 65535 for int16 candidates");
        STD_TORCH_CHECK(batch * trajectories <= kMost && temperature.size(1) <= kMost,
                        "too many trajectories");
        STD_TORCH_CHECK(segment >= 1 && segment <= n / 6 && segment <= 0xffff, "segment must be in 1..N/6");
        for (const Tensor* other : {&best, &state}) check_same_device(*other, tours, "best and state");
        for (const Tensor* other : {&points, &candidates, &kicks, &temperature, &rng})
            check_same_device(*other, tours, "every argument");
        args.tours = tours.mutable_data_ptr<int32_t>();
        args.best = best.mutable_data_ptr<int32_t>();
        args.state = state.mutable_data_ptr<int64_t>();
        args.points = points.const_data_ptr<float>();
        args.candidates = candidates.const_data_ptr();
        args.kicks = kicks.const_data_ptr<int64_t>();
        args.temperature = temperature.const_data_ptr<double>();
        args.rng = rng.const_data_ptr<int64_t>();
        args.batch = batch;
        args.trajectories = trajectories;
        args.n = static_cast<int32_t>(n);
        args.knots = static_cast<int32_t>(temperature.size(1));
        args.segment = static_cast<int32_t>(segment);
    }
};

}  // namespace fd::tsp::slice
