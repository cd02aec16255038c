// What happened to a tour: changes since the last settled state, to be undone when a kick fails, and where it
// differs from the best tour, whose copy follows by these places alone. So a kick costs what it changes,
// whatever the size.
#pragma once

#include <cstdint>
#include <vector>

#include "tsp/tour.h"

namespace fd::tsp {

class Journal {
  public:
    explicit Journal(Tour& tour) : tour_(tour), best_(tour.begin(), tour.end()) {}

    void rearrange(const Path& path) { changes_.push_back(tour_.rearrange(path, old_)); }

    void undo() {
        for (; !changes_.empty(); changes_.pop_back()) {
            const size_t length = changes_.back().length;
            tour_.restore(changes_.back(), old_.data() + old_.size() - length);
            old_.resize(old_.size() - length);
        }
    }

    // What happened so far stays.
    void settle() {
        for (const Range& range : changes_) differing_ += range.length;
        if (differing_ < tour_.size()) {
            differs_.insert(differs_.end(), changes_.begin(), changes_.end());
        } else {
            differs_.clear();
        }
        changes_.clear();
        old_.clear();
    }

    // The tour as it is now, settled, is the best so far.
    void mark_best() {
        if (differing_ >= tour_.size()) differs_.assign(1, {0, tour_.size()});
        for (const Range& range : differs_) {
            int32_t place = range.start;
            for (int32_t k = 0; k < range.length; ++k) {
                best_[place] = tour_.at(place);
                if (++place == tour_.size()) place = 0;
            }
        }
        differs_.clear();
        differing_ = 0;
    }

    const std::vector<City>& best() const { return best_; }

  private:
    Tour& tour_;
    std::vector<City> best_, old_;
    std::vector<Range> changes_, differs_;
    int64_t differing_ = 0;  // places in differs_; from n on these are all places
};

}  // namespace fd::tsp
