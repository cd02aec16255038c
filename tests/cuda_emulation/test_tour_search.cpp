// The tour search's kernels in exact-size blocks: lane by lane in a loop and as warps they walk the same
// tours, in shared memory and in global memory, however small the queue and the log are.
#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "cpp/testing.h"
#include "tsp/slice_launch.h"
#include "tsp/slice_serial.h"

namespace fd::tsp::slice {
namespace {

// Rows of candidates are loaded by 16 bytes.
template <class T>
struct Aligned {
    struct alignas(16) Chunk {
        unsigned char bytes[16];
    };
    std::vector<Chunk> memory;

    explicit Aligned(const std::vector<T>& from) : memory(from.size() * sizeof(T) / sizeof(Chunk)) {
        std::memcpy(memory.data(), from.data(), from.size() * sizeof(T));
    }
};

enum class Layout { uniform, lattice, duplicates, line };

struct World {
    int64_t batch = 1, trajectories = 1, kick = 0;
    int32_t n;
    std::vector<float> points;
    std::vector<int32_t> wide;
    std::vector<uint16_t> narrow;
    std::vector<int32_t> tours, best;
    std::vector<int64_t> state, kicks{0, 0, 0, 1000}, rng{-3, 5};
    std::vector<double> temperature;
    int32_t ring = kRing, log = kLog;

    uint32_t word(uint64_t i, uint64_t row) const {
        return PhiloxStream(StreamTag::uniform, 11 + static_cast<uint64_t>(n), 0, row).block(i).w[0];
    }

    World(int32_t cities, int64_t instances, int64_t walks, Layout layout, int width = kWidth)
        : batch(instances), trajectories(walks), n(cities) {
        const auto side = static_cast<uint32_t>(n / 7 + 2);
        for (int64_t i = 0; i < batch * n * 2; ++i) {
            const uint32_t w =
                word(static_cast<uint64_t>(layout == Layout::duplicates ? i % (n / 2 * 2) : i), 0);
            points.push_back(layout == Layout::lattice              ? static_cast<float>(w % side) * 65536.0f
                             : layout == Layout::line && i % 2 == 0 ? 3.0f
                                                                    : static_cast<float>(w) * 0x1p-8f);
        }
        for (int64_t b = 0; b < batch; ++b) add_candidates(b, width);
        narrow.assign(wide.begin(), wide.end());
        for (int64_t walk = 0; walk < batch * trajectories; ++walk) {
            std::vector<int32_t> order(static_cast<size_t>(n));
            std::iota(order.begin(), order.end(), 0);
            for (int32_t i = n - 1; i > 0; --i)
                std::swap(order[i], order[word(i, 100 + walk) % static_cast<uint32_t>(i + 1)]);
            tours.insert(tours.end(), order.begin(), order.end());
        }
        best.assign(tours.size(), -7);
        state.assign(static_cast<size_t>(batch * trajectories * kStateWords), -7);
        for (int64_t t = 0; t < trajectories; ++t)
            temperature.insert(temperature.end(), {0.1 * t, 0.3, 0.01});
    }

    Lengths lengths(int64_t instance) const {
        return {reinterpret_cast<const Vec<float, 2>*>(points.data() + instance * 2 * n)};
    }

    void add_candidates(int64_t instance, int width) {
        const Lengths d = lengths(instance);
        std::vector<int32_t> others(static_cast<size_t>(n));
        for (int32_t c = 0; c < n; ++c) {
            std::iota(others.begin(), others.end(), 0);
            std::stable_sort(others.begin(), others.end(), [&](int32_t a, int32_t b) {
                return a == c || b == c ? b == c && a != c : d(c, a) < d(c, b);
            });
            for (int k = 0; k < kWidth; ++k) wide.push_back(k < std::min(width, n - 1) ? others[k] : -1);
        }
    }

    Args args(const void* candidates) {
        return {tours.data(),        best.data(), state.data(), points.data(), candidates, kicks.data(),
                temperature.data(),  rng.data(),  batch,        trajectories,  n,          3,
                std::min(50, n / 6), ring,        log};
    }

    enum class By { serial, shared, global };
    void search(int64_t count, By by) {
        kicks[0] = kick;
        kicks[1] = kick += count;
        if (by == By::shared) {
            const Aligned<uint16_t> rows(narrow);
            search_shared_cuda(nullptr, args(rows.memory.data()));
            return;
        }
        const Aligned<int32_t> rows(wide);
        const Args a = args(rows.memory.data());
        if (by == By::global) {
            std::vector<int32_t> scratch(static_cast<size_t>(scratch_words(batch, trajectories, n)));
            search_global_cuda(nullptr, a, scratch.data());
            return;
        }
        for (int64_t walk = 0; walk < batch * trajectories; ++walk)
            search_serial<int32_t>(a, walk / trajectories, walk % trajectories);
    }

    bool operator==(const World& o) const { return tours == o.tours && best == o.best && state == o.state; }

    // Tours are permutations and as long as the state says.
    bool consistent() const {
        for (int64_t walk = 0; walk < batch * trajectories; ++walk) {
            const Lengths d = lengths(walk / trajectories);
            for (const bool current : {true, false}) {
                const int32_t* order = (current ? tours : best).data() + walk * n;
                std::vector<int32_t> sorted(order, order + n);
                std::sort(sorted.begin(), sorted.end());
                Total length = 0;
                for (int32_t i = 0; i < n; ++i) {
                    if (sorted[i] != i) return false;
                    length += d(order[i], order[(i + 1) % n]);
                }
                if (length != state[walk * kStateWords + (current ? kLength : kBest)]) return false;
            }
            const int64_t* s = state.data() + walk * kStateWords;
            if (s[kBest] > s[kLength] || s[kBest] > s[kFirst]) return false;
        }
        return true;
    }
};

using By = World::By;

void compare(const World& start, int64_t kicks, const char* what) {
    World serial = start, shared = start, global = start;
    serial.search(kicks, By::serial);
    shared.search(kicks / 3, By::shared);  // and in two slices
    shared.search(kicks - kicks / 3, By::shared);
    global.search(kicks, By::global);
    const std::string note = std::string(what) + ", n = " + std::to_string(start.n);
    EXPECT_NOTE(serial.consistent(), note);
    EXPECT_NOTE(shared == serial, note + ", shared");
    EXPECT_NOTE(global == serial, note + ", global");
}

FD_TEST(warps_walk_as_the_loop_does) {
    for (const int32_t n : {8, 9, 13, 31, 32, 33, 64, 100, 200}) {
        // more trajectories than a block has warps, a part of a block, one
        const int64_t walks = n < 20 ? 11 : n < 50 ? 3 : 1;
        compare(World(n, n < 50 ? 2 : 1, walks, Layout::uniform), n < 50 ? 30 : 20, "uniform");
    }
}

FD_TEST(unusual_points) {
    for (const int32_t n : {8, 20, 45}) {
        compare(World(n, 1, 2, Layout::lattice), 30, "lattice");
        compare(World(n, 1, 2, Layout::duplicates), 30, "duplicates");
        compare(World(n, 1, 2, Layout::line), 30, "line");
    }
}

FD_TEST(short_candidate_lists) {
    for (const int width : {0, 1, 2, 5})
        compare(World(40, 1, 2, Layout::uniform, width), 30, "few candidates");
}

FD_TEST(overflows) {
    World whole(60, 1, 2, Layout::uniform), queue = whole, log = whole;
    queue.ring = 8;
    log.log = 4;
    compare(queue, 60, "small queue");
    compare(log, 60, "small log");
    whole.search(60, By::serial);
    queue.search(60, By::serial);
    log.search(60, By::serial);
    EXPECT(whole.tours != queue.tours);
    EXPECT(log.state[kRestored] + log.state[kStateWords + kRestored] > 0);
    EXPECT(whole.state[kRestored] + whole.state[kStateWords + kRestored] == 0);
}

FD_TEST(refused) {
    for (const By by : {By::serial, By::shared, By::global}) {
        World world(20, 2, 2, Layout::uniform);
        world.tours[3] = world.tours[4];     // instance 0, trajectory 0
        world.tours[20] = 20;                // trajectory 1
        world.points[2 * 20 + 7] = 0x1p27f;  // instance 1
        World before = world;
        world.search(10, by);
        for (int64_t walk = 0; walk < 4; ++walk) before.state[walk * kStateWords] = -1;
        EXPECT(world == before);
    }
}

}  // namespace
}  // namespace fd::tsp::slice

FD_TEST_MAIN()
