// What happened to a tour since its best state, as reversals: a kick that fails is undone from the end, and
// the best tour follows by replaying what led to it. So a kick costs what it changes, whatever the size.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "tsp/tour.h"

namespace fd::tsp {

class Journal {
  public:
    explicit Journal(Tour& tour)
        : tour_(tour), best_(tour.begin(), tour.end()), most_(std::max<size_t>(1024, best_.size() / 4)) {}

    void reverse(Flip flip) {
        tour_.reverse(flip);
        flips_.push_back(flip);
    }

    size_t now() const { return flips_.size(); }

    void undo_to(size_t then) {
        for (; flips_.size() > then; flips_.pop_back()) tour_.reverse(flips_.back());
    }

    // The tour as it is now is the best so far.
    void mark_best() {
        if (linked_) {
            marked_ = flips_.size();
            return;
        }
        best_.assign(tour_.begin(), tour_.end());
        flips_.clear();
        linked_ = true;
    }

    // Forgets what need not be undone any more. When too much has happened since the best tour, a copy at the
    // next mark is cheaper than replaying.
    void settle() {
        if (linked_ && flips_.size() < most_) return;
        if (linked_) replay();
        if (flips_.size() >= most_ / 2) linked_ = false;
        if (!linked_) flips_.clear();
    }

    const std::vector<City>& best() {
        if (linked_) replay();
        return best_;
    }

  private:
    // Brings the copy from where flips_ begins to the mark, and lets flips_ begin there.
    void replay() {
        const auto n = static_cast<int32_t>(best_.size());
        City* order = best_.data();
        for (size_t k = 0; k < marked_; ++k)
            for_each_swap(shorter_side(flips_[k], n), n,
                          [=](int32_t i, int32_t j) { std::swap(order[i], order[j]); });
        flips_.erase(flips_.begin(), flips_.begin() + static_cast<std::ptrdiff_t>(marked_));
        marked_ = 0;
    }

    Tour& tour_;
    std::vector<City> best_;
    std::vector<Flip> flips_;
    size_t most_, marked_ = 0;
    bool linked_ = true;  // best_ and flips_[0..marked_) make the best tour, all of flips_ the present one
};

}  // namespace fd::tsp
