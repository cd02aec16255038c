// The nearest city that was not visited yet, in about O(log n): boxes around runs of the problem's numbering,
// which follows a space-filling curve, and boxes around these; each knows how many of its cities are left.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "tsp/distance.h"

namespace fd::tsp {

class NearestUnvisited {
  public:
    // `xy` [2 n] is borrowed.
    NearestUnvisited(const double* xy, City n) : xy_(xy), n_(n) {
        while (leaves_ * kRun < n) leaves_ *= 2;
        boxes_.resize(2 * static_cast<size_t>(leaves_));
        left_.resize(boxes_.size());
        for (City c = 0; c < n; ++c) boxes_[leaves_ + c / kRun].add(&xy[2 * c], &xy[2 * c]);
        for (int32_t k = leaves_ - 1; k > 0; --k) {
            for (const Box& part : {boxes_[2 * k], boxes_[2 * k + 1]})
                boxes_[k].add(part.low.data(), part.high.data());
        }
        reset();
    }

    void reset() {
        visited_.assign(n_, 0);
        for (int32_t k = 0; k < leaves_; ++k) left_[leaves_ + k] = std::clamp(n_ - k * kRun, 0, kRun);
        for (int32_t k = leaves_ - 1; k > 0; --k) left_[k] = left_[2 * k] + left_[2 * k + 1];
    }

    void visit(City c) {
        visited_[c] = 1;
        for (int32_t k = leaves_ + c / kRun; k > 0; k /= 2) --left_[k];
    }

    // By Euclidean distance in the given coordinates; -1 when none is left.
    City from(City c) const {
        Found best;
        search(1, &xy_[2 * c], best);
        return best.city;
    }

  private:
    static constexpr int32_t kRun = 8;

    struct Box {
        std::array<double, 2> low{kFar, kFar}, high{-kFar, -kFar};

        void add(const double* lowest, const double* highest) {
            for (int d = 0; d < 2; ++d)
                low[d] = std::min(low[d], lowest[d]), high[d] = std::max(high[d], highest[d]);
        }
        double squared_distance(const double* p) const {
            double sum = 0;
            for (int d = 0; d < 2; ++d) {
                const double away = std::max({low[d] - p[d], p[d] - high[d], 0.0});
                sum += away * away;
            }
            return sum;
        }
    };
    struct Found {
        City city = -1;
        double squared = std::numeric_limits<double>::infinity();
    };

    static constexpr double kFar = std::numeric_limits<double>::max();

    void search(int32_t k, const double* p, Found& best) const {
        if (k >= leaves_) {
            const City first = (k - leaves_) * kRun;
            for (City c = first; c < std::min(first + kRun, n_); ++c) {
                if (visited_[c]) continue;
                const double dx = xy_[2 * c] - p[0], dy = xy_[2 * c + 1] - p[1];
                const double squared = dx * dx + dy * dy;
                if (squared < best.squared) best = {c, squared};
            }
            return;
        }
        int32_t near = 2 * k, far = near + 1;
        double to_near = left_[near] > 0 ? boxes_[near].squared_distance(p) : kFar;
        double to_far = left_[far] > 0 ? boxes_[far].squared_distance(p) : kFar;
        if (to_far < to_near) std::swap(near, far), std::swap(to_near, to_far);
        if (left_[near] > 0 && to_near < best.squared) search(near, p, best);
        if (left_[far] > 0 && to_far < best.squared) search(far, p, best);
    }

    const double* xy_;
    City n_;
    int32_t leaves_ = 1;
    std::vector<Box>
        boxes_;  // node k has the children 2 k and 2 k + 1; the runs are leaves_ .. 2 leaves_ - 1
    std::vector<int32_t> left_;
    std::vector<uint8_t> visited_;
};

}  // namespace fd::tsp
