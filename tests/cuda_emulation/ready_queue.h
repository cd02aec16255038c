// Whose turn it is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace fd::emulation {

// Those that can run; each thread is in it once at most.
template <class Thread>
class ReadyQueue {
  public:
    void reserve(size_t n) { ring_.resize(std::max(n, ring_.size())); }
    void clear() { first_ = size_ = 0; }
    bool empty() const { return size_ == 0; }
    size_t size() const { return size_; }
    void push(Thread* thread) { at(size_++) = thread; }
    Thread& pop(size_t i) {
        std::swap(at(0), at(i));
        Thread& thread = *at(0);
        first_ = (first_ + 1) % ring_.size();
        --size_;
        return thread;
    }

  private:
    Thread*& at(size_t i) { return ring_[(first_ + i) % ring_.size()]; }

    std::vector<Thread*> ring_;
    size_t first_ = 0, size_ = 0;
};

// Of splitmix64: the same order for the same seed on every machine.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    size_t below(size_t n) {
        uint64_t z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return static_cast<size_t>((z ^ (z >> 31)) % n);
    }

  private:
    uint64_t state_;
};

}  // namespace fd::emulation
