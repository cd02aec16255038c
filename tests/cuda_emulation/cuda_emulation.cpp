// The machine behind cuda_emulation.h: blocks one after another, threads as fibers, barriers as meetings.
//
// State is plain globals: run_body holds a mutex, and thread-local storage would be reported as racing
// between fibers. So would memory that one fiber allocates and another frees or gives to memcpy, which the
// sanitizers intercept even here: what fibers share is allocated before they start and copied by plain
// assignments.
#include "cuda_emulation.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fiber.h"
#include "ready_queue.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace fd::emulation {
namespace {

constexpr int kBlock = -1;  // in place of a warp: the meeting is the whole block's

template <class T>
using Bits [[gnu::may_alias]] = T;

// A barrier, shuffle or vote under way: who is expected, who has come, what they brought.
struct Meeting {
    const char* name = nullptr;
    Where where;
    int warp = kBlock;
    unsigned mask = 0;
    int expected = 0, arrived = 0, still_reading = 0;
    Votes votes{};
    uint64_t values[32];
    std::optional<OrderToken> token;
};

struct Thread : FiberStack {
    uint3 index{};
    int number = 0;
    bool waiting = false, finished = false;
    const char* at = nullptr;  // what it waits at
    Where where;
    Meeting* meeting = nullptr;
    unsigned active = 0;

    int warp() const { return number / 32; }
    int lane() const { return number % 32; }
};

Context program;                               // the stack that called run_body
std::vector<std::unique_ptr<Thread>> threads;  // kept between launches
int n_threads = 0;                             // of the block
ReadyQueue<Thread> ready;
std::vector<Meeting> meetings;  // one more than threads, which attend one at a time
std::vector<Meeting*> idle, open;
std::optional<Random> shuffle;
void (*kernel_body)(const void*) = nullptr;
const void* kernel_closure = nullptr;
unsigned char* shared_memory = nullptr;
std::exception_ptr failure;
std::optional<OrderToken> start_token, end_token;
std::mutex one_launch;
std::atomic<std::thread::id> launching_thread;
std::atomic<uint64_t> launch_count;

Thread& self() { return static_cast<Thread&>(*running); }

std::string text(const uint3& i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

std::string place(const char* name, const Where& where) {
    return std::string(name) + " (" + where.file_name() + ":" + std::to_string(where.line()) + ")";
}

[[noreturn]] void fail(const std::string& what) {
    throw std::runtime_error("CUDA emulation: " + what + ", block " + text(blockIdx) + " thread " +
                             text(threadIdx));
}

// ---- switching

void resume(Context& to, bool for_ever) {
    if (&to != &program) threadIdx = static_cast<Thread&>(to).index;
    switch_to(to, for_ever);
}

// To the next thread that can run, or back to the program when none can.
void yield(bool for_ever = false) {
    if (ready.empty()) return resume(program, for_ever);
    resume(ready.pop(shuffle ? shuffle->below(ready.size()) : 0), for_ever);
}

void thread_main() {
    arrived();
    try {
        start_token->acquire();
        kernel_body(kernel_closure);
        end_token->release();
    } catch (...) {
        failure = std::current_exception();
    }
    self().finished = true;
    if (failure) resume(program, true);
    yield(true);
}

void wait(const char* name, const Where& where) {
    Thread& me = self();
    me.waiting = true;
    me.at = name;
    me.where = where;
    yield();
}

void wake(Thread& thread) {
    thread.waiting = false;
    ready.push(&thread);
}

// ---- meetings

unsigned lanes_of_warp(int warp) {
    const int lanes = std::min(32, n_threads - 32 * warp);
    return lanes == 32 ? 0xffffffffu : (1u << lanes) - 1u;
}

// CUDA lets the lanes of a warp meet from different lines; a block barrier is the same one for all only if
// its line is.
bool same(const Meeting& m, const char* name, int warp, unsigned mask, const Where& where) {
    if (m.warp != warp || m.mask != mask || std::strcmp(m.name, name) != 0) return false;
    return warp != kBlock ||
           (m.where.line() == where.line() && std::strcmp(m.where.file_name(), where.file_name()) == 0);
}

Meeting& find_or_open(const char* name, int warp, unsigned mask, const Where& where) {
    for (Meeting* m : open) {
        if (same(*m, name, warp, mask, where)) return *m;
    }
    Meeting& m = *idle.back();
    idle.pop_back();
    open.push_back(&m);
    m.name = name;
    m.where = where;
    m.warp = warp;
    m.mask = mask;
    m.expected = warp == kBlock ? n_threads : __builtin_popcount(mask);
    m.arrived = 0;
    m.votes = {0, n_threads};
    m.token.emplace();
    return m;
}

// Returns when everybody expected has come. Each of them then calls leave.
void attend(Meeting& m) {
    Thread& me = self();
    me.meeting = &m;
    m.token->release();
    if (++m.arrived < m.expected) {
        wait(m.name, m.where);
    } else {
        m.still_reading = m.expected;
        std::swap(*std::find(open.begin(), open.end(), &m), open.back());
        open.pop_back();
        const int first = m.warp == kBlock ? 0 : 32 * m.warp;
        const int last = m.warp == kBlock ? n_threads : std::min(first + 32, n_threads);
        for (int i = first; i < last; ++i) {
            Thread& other = *threads[i];
            if (other.waiting && other.meeting == &m) wake(other);
        }
    }
    m.token->acquire();
}

void leave(Meeting& m) {
    self().meeting = nullptr;
    if (--m.still_reading > 0) return;
    m.token.reset();
    idle.push_back(&m);
}

// ---- launches

// Threads at __activemask go on when nobody else can: those of a warp at one line are active together.
bool wake_active() {
    std::map<std::pair<int, unsigned>, unsigned> groups;
    std::vector<Thread*> woken;
    for (int i = 0; i < n_threads; ++i) {
        Thread& t = *threads[i];
        if (!t.waiting || t.meeting != nullptr) continue;
        groups[{t.warp(), t.where.line()}] |= 1u << t.lane();
        woken.push_back(&t);
    }
    for (Thread* t : woken) {
        t->active = groups[{t->warp(), t->where.line()}];
        wake(*t);
    }
    return !woken.empty();
}

[[noreturn]] void report_divergence() {
    std::map<std::string, std::pair<int, std::string>> groups;  // place: how many, who comes first
    int returned = 0;
    for (int i = 0; i < n_threads; ++i) {
        const Thread& t = *threads[i];
        if (t.finished) {
            ++returned;
        } else {
            auto& group = groups[place(t.at, t.where)];
            if (group.first++ == 0) group.second = text(t.index);
        }
    }
    std::string message =
        "CUDA emulation: threads wait for one another for ever, block " + text(blockIdx) + ": ";
    for (const auto& [where, who] : groups) {
        message += std::to_string(who.first) + " at " + where + ", the first is thread " + who.second + "; ";
    }
    throw std::runtime_error(message + std::to_string(returned) + " have returned");
}

void run_block(size_t shared_bytes) {
    const std::unique_ptr<unsigned char[]> shared(new unsigned char[shared_bytes]);
    std::memset(shared.get(), 0xCD, shared_bytes);
    shared_memory = shared.get();
    start_token.emplace();
    end_token.emplace();
    start_token->release();
    ready.clear();
    for (int i = 0; i < n_threads; ++i) {
        Thread& t = *threads[i];
        const unsigned n = static_cast<unsigned>(i);
        t.index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y};
        t.number = i;
        t.waiting = t.finished = false;
        t.meeting = nullptr;
        t.start_at(&thread_main);
        ready.push(&t);
    }
    do {
        yield();
        if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
    } while (!ready.empty() || wake_active());
    if (std::any_of(threads.begin(), threads.begin() + n_threads,
                    [](const auto& t) { return !t->finished; })) {
        report_divergence();
    }
    end_token->acquire();
}

void check_configuration(const dim3& grid, const dim3& block, size_t shared_bytes) {
    const auto size = [](const dim3& d) { return text({d.x, d.y, d.z}); };
    const uint64_t n = uint64_t{block.x} * block.y * block.z;
    if (n == 0 || n > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64) {
        throw std::runtime_error("CUDA emulation: invalid configuration, block " + size(block) +
                                 " (at most 1024 threads)");
    }
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535) {
        throw std::runtime_error("CUDA emulation: invalid configuration, grid " + size(grid));
    }
    if (shared_bytes > 227 * 1024) {
        throw std::runtime_error("CUDA emulation: invalid configuration, " + std::to_string(shared_bytes) +
                                 " bytes of shared memory (at most 227 KiB)");
    }
}

// After a failure threads are left in the middle of the kernel: nothing of them can be used again.
void abandon() {
    for (const auto& thread : threads) join_order(*thread);
    threads.clear();
    meetings.clear();
}

void allocate(size_t n) {
    while (threads.size() < n) threads.push_back(std::make_unique<Thread>());
    ready.reserve(n);
    if (meetings.size() > n) return;
    meetings = std::vector<Meeting>(n + 1);
    open.clear();
    open.reserve(n + 1);
    idle.clear();
    for (Meeting& m : meetings) idle.push_back(&m);
}

}  // namespace

void run_body(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* closure) {
    if (launching_thread.load() == std::this_thread::get_id()) fail("a kernel launches a kernel");
    check_configuration(grid, block, shared_bytes);
    const std::lock_guard lock(one_launch);
    launching_thread = std::this_thread::get_id();
    ++launch_count;
    program = Context{};
#if defined(FD_EMULATION_TSAN)
    program.tsan = __tsan_get_current_fiber();
#endif
    running = &program;
    kernel_body = body;
    kernel_closure = closure;
    gridDim = grid;
    blockDim = block;
    n_threads = static_cast<int>(block.x * block.y * block.z);
    allocate(static_cast<size_t>(n_threads));

    std::vector<uint64_t> order(uint64_t{grid.x} * grid.y * grid.z);
    for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
    const char* seed = std::getenv("FASTDIFF_OPS_EMULATION_SEED");
    shuffle.reset();
    if (const uint64_t number = seed == nullptr ? 0 : std::strtoull(seed, nullptr, 10); number != 0) {
        shuffle.emplace(number);
        for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[shuffle->below(i)]);
    }
    try {
        for (const uint64_t b : order) {
            blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                        static_cast<unsigned>(b / grid.x / grid.y)};
            run_block(shared_bytes);
        }
    } catch (...) {
        abandon();
        launching_thread = std::thread::id();
        throw;
    }
    launching_thread = std::thread::id();
}

void* dynamic_shared_memory() { return shared_memory; }

Votes block_barrier(const char* name, bool vote, Where where) {
    Meeting& m = find_or_open(name, kBlock, 0, where);
    m.votes.yes += vote;
    attend(m);
    const Votes votes = m.votes;
    leave(m);
    return votes;
}

Exchange::Exchange(const char* name, unsigned mask, const void* value, size_t size, Where where) {
    const Thread& me = self();
    lane_ = me.lane();
    if ((mask >> lane_ & 1u) == 0)
        fail("lane " + std::to_string(lane_) + " is not in its own mask at " + place(name, where));
    lanes_ = mask & lanes_of_warp(me.warp());
    Meeting& m = find_or_open(name, me.warp(), lanes_, where);
    if (size == 4) m.values[lane_] = *static_cast<const Bits<uint32_t>*>(value);
    if (size == 8) m.values[lane_] = *static_cast<const Bits<uint64_t>*>(value);
    meeting_ = &m;
    attend(m);
}

Exchange::~Exchange() { leave(*static_cast<Meeting*>(meeting_)); }

uint64_t Exchange::bits(int lane) const {
    const bool present = lane >= 0 && lane < 32 && (lanes_ >> lane & 1u) != 0;
    return present ? static_cast<Meeting*>(meeting_)->values[lane] : 0xCDCDCDCDCDCDCDCDu;
}

unsigned active_mask(Where where) {
    self().meeting = nullptr;
    wait("__activemask", where);
    return self().active;
}

void trap(Where where) { fail("the kernel stopped itself at " + place("__trap", where)); }

}  // namespace fd::emulation

// How often a kernel was launched since the program started: tests prove "one launch per call" with it.
extern "C" __attribute__((visibility("default"))) uint64_t fastdiff_ops_emulation_launches() {
    return fd::emulation::launch_count.load();
}
