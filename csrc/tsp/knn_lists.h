// What a search for neighbours collects. A list `see`s points in any order and says through `needs` whether
// a region may still hold something for it: a box of offsets from the query point, the least squared distance
// to it, and the least id in it.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "tsp/knn.h"

namespace fd::tsp {

struct Neighbour {
    double d2;
    City id;
};

inline bool closer(const Neighbour& a, const Neighbour& b) { return closer(a.d2, a.id, b.d2, b.id); }

// Puts `next` into the ascending list place[0 .. size) of at most `capacity`; returns the new size.
inline int insert(Neighbour* place, int size, int capacity, const Neighbour& next) {
    if (size == capacity) {
        if (!closer(next, place[size - 1])) return size;
        --size;
    }
    int at = size;
    for (; at > 0 && closer(next, place[at - 1]); --at) place[at] = place[at - 1];
    place[at] = next;
    return size + 1;
}

struct Offsets {  // of a box from the query point
    double low[2], high[2];
};

// The k nearest points but `self`.
class Nearest {
  public:
    explicit Nearest(int k) : list_(k) {}

    void restart(City self) {
        self_ = self;
        size_ = 0;
    }

    void see(double, double, double d2, City id) {
        if (id != self_) size_ = insert(list_.data(), size_, static_cast<int>(list_.size()), {d2, id});
    }

    template <class Region>
    bool needs(const Region&, double d2, City least) const {
        return size_ < static_cast<int>(list_.size()) || closer({d2, least}, list_[size_ - 1]);
    }

    void sort() {}  // it always is

    const Neighbour* begin() const { return list_.data(); }
    const Neighbour* end() const { return list_.data() + size_; }

  private:
    std::vector<Neighbour> list_;
    int size_ = 0;
    City self_ = -1;
};

// As Nearest, for many: a heap, so that a point costs log k.
class ManyNearest {
  public:
    explicit ManyNearest(int k) : capacity_(static_cast<size_t>(k)) { heap_.reserve(capacity_); }

    void restart(City self) {
        self_ = self;
        heap_.clear();
    }

    void see(double, double, double d2, City id) {
        if (id == self_) return;
        if (heap_.size() == capacity_) {
            if (!closer({d2, id}, heap_.front())) return;
            std::pop_heap(heap_.begin(), heap_.end(), kOrder);
            heap_.back() = {d2, id};
        } else {
            heap_.push_back({d2, id});
        }
        std::push_heap(heap_.begin(), heap_.end(), kOrder);
    }

    template <class Region>
    bool needs(const Region&, double d2, City least) const {
        return heap_.size() < capacity_ || closer({d2, least}, heap_.front());
    }

    // In ascending order; ends the search.
    void sort() { std::sort_heap(heap_.begin(), heap_.end(), kOrder); }

    const Neighbour* begin() const { return heap_.data(); }
    const Neighbour* end() const { return heap_.data() + heap_.size(); }

  private:
    static constexpr auto kOrder = [](const Neighbour& a, const Neighbour& b) { return closer(a, b); };

    size_t capacity_;
    std::vector<Neighbour> heap_;
    City self_ = -1;
};

// The quadrant of an offset other than (0, 0); each has one of its two axes.
inline int quadrant_of(double dx, double dy) {
    if (dx > 0 && dy >= 0) return 0;
    if (dx <= 0 && dy > 0) return 1;
    return dx < 0 ? 2 : 3;
}

// The nearest points of each quadrant.
class QuadrantLists {
  public:
    explicit QuadrantLists(int each) : each_(each), list_(4 * each) {}

    void restart(City self) {
        self_ = self;
        size_ = {};
    }

    void see(double dx, double dy, double d2, City id) {
        if (id == self_) return;
        const int q = quadrant_of(dx, dy);
        size_[q] = insert(list_.data() + q * each_, size_[q], each_, {d2, id});
    }

    bool needs(const Offsets& box, double d2, City least) const {
        const bool touches[4] = {box.high[0] > 0 && box.high[1] >= 0, box.low[0] <= 0 && box.high[1] > 0,
                                 box.low[0] < 0 && box.low[1] <= 0, box.high[0] >= 0 && box.low[1] < 0};
        for (int q = 0; q < 4; ++q) {
            if (touches[q] && (size_[q] < each_ || closer({d2, least}, list_[q * each_ + each_ - 1])))
                return true;
        }
        return false;
    }

    template <class Visit>
    void for_each(const Visit& visit) const {
        for (int q = 0; q < 4; ++q) {
            for (int i = 0; i < size_[q]; ++i) visit(list_[q * each_ + i]);
        }
    }

  private:
    int each_;
    std::vector<Neighbour> list_;
    std::array<int, 4> size_{};
    City self_ = -1;
};

}  // namespace fd::tsp
