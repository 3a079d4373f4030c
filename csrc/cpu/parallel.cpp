// A worker holds its fill, which lies on the caller's stack, only between two visits to the mutex: it enters the fill in the
// first and leaves it in the second. The caller takes the fill off the list and waits until nobody is inside. That is all there
// is to the lifetime of a fill, and the mutex is all there is to memory order: what a worker has written is seen by the caller.
#include "parallel.h"

#include <pthread.h>
#include <signal.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

#include "cpus.h"

namespace wi {
namespace {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::nanoseconds;

// Measured on two cores of a quiet virtual machine (EPYC 9004, Linux 6.18). Waking a worker takes 10 to 30 us of the caller's time,
// and the worker comes 25 to 100 us after the call: the more, the longer it has slept. With calls every 0.1 ms, waking one for a
// fill of 46 us lost a twentieth of the time, for one of 93 us it gained a seventh.
constexpr Nanoseconds kWorthWaking{65'000};
// What a thread is to get at least: with a worker that is awake, two threads take 26 to 29 us where one takes 46.
constexpr Nanoseconds kShare{24'000};
// How long a worker that has worked looks for more before it sleeps: about as long as it would take to come back.
constexpr Nanoseconds kLinger{50'000};
// How long a caller looks for the end of what workers have begun before it sleeps: more than a tile takes with nearly all kernels.
constexpr Nanoseconds kPatience{50'000};
// A worker that loses its CPU in the middle of a tile makes the caller wait for a time slice or more, 4 ms here. So there is an
// account: what workers have spared callers, less what they have cost. Overdrawn, fills of kRest times the debt are done without
// them: where there is no CPU to spare, callers lose a thirty-second of their time. The limit is a few time slices, so that one
// disturbance of a quiet machine costs nothing more, and a long one is forgotten.
constexpr Nanoseconds kLimit{20'000'000};
constexpr int kRest = 32;
constexpr int64_t kMostTiles = 32;  // a claim: 0.2 ms of uniform float32, 2 MiB of it
constexpr int kClaims = 4;          // claims that a thread's even share is cut into at least
constexpr int kFanOut = 2;          // others that a worker wakes when it comes

// Rounding to nearest with subnormals, whatever torch.set_flush_denormal or the application has set; restored after.
class FloatEnvironment {
  public:
#if defined(__x86_64__)
    FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
    ~FloatEnvironment() { _mm_setcsr(saved_); }

  private:
    unsigned saved_;
#elif defined(__aarch64__)
    FloatEnvironment() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
    }
    ~FloatEnvironment() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

  private:
    uint64_t saved_;
#endif
};

void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

void name_thread() {  // as `top -H` and debuggers show it
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "weightinit");
#elif defined(__APPLE__)
    pthread_setname_np("weightinit");
#endif
}

// Whether `done` came true within the time.
template <class Done>
bool spin(Nanoseconds time, const Done& done) {
    const Clock::time_point end = Clock::now() + time;
    do {
        for (int i = 0; i < 16; ++i, relax())
            if (done()) return true;
    } while (Clock::now() < end);
    return false;
}

struct Fill {
    const int64_t begin, end;
    const int threads;
    const RangeFn fn;
    void* const context;
    std::atomic<int64_t> next{begin};  // the first tile that nobody has claimed
    std::atomic<int> inside{0};        // workers at work
    // The rest belongs to the pool's mutex.
    int seats = threads - 1;  // workers that may still enter
    int calls = 0;            // of those, how many may still be woken or started
    bool awaited = false;     // the caller sleeps
    Fill* after = nullptr;

    bool open() const { return seats > 0 && next.load(std::memory_order_relaxed) < end; }

    // Returns the number of tiles that it has done.
    int64_t work() {
        const FloatEnvironment environment;
        int64_t done = 0, first = next.load(std::memory_order_relaxed);
        // Large claims first, so that neighbouring memory is one thread's; small ones last, so that all end together.
        while (first < end) {
            const int64_t last = first + std::clamp((end - first) / (kClaims * threads), int64_t(1), kMostTiles);
            if (!next.compare_exchange_weak(first, last, std::memory_order_relaxed)) continue;
            fn(context, first, last);
            done += last - first;
            first = next.load(std::memory_order_relaxed);
        }
        return done;
    }
};

class Pool {
  public:
    // False, and nothing is done, if workers are left alone.
    bool run(Fill& fill, Nanoseconds expected) {
        std::unique_lock<std::mutex> lock(mutex_);
        if (rest_ > Nanoseconds(0) && expected != kWhateverItCosts) {
            rest_ -= expected;
            return false;
        }
        const Clock::time_point start = Clock::now();
        // Who lingers comes by itself. The next of many short fills finds a worker awake that this one has woken too late.
        if (expected >= kWorthWaking || start - ended_ < kLinger) fill.calls = std::max(fill.seats - lingering_, 0);
        fill.after = fills_;
        fills_ = &fill;
        news_.fetch_add(1, std::memory_order_relaxed);
        call(fill, 1, lock);
        const Clock::time_point called = Clock::now();
        const int64_t tiles = fill.work();
        const Clock::time_point ended = Clock::now();
        lock.lock();
        remove(fill);
        wait_for_workers(fill, lock);
        ended_ = Clock::now();
        const Nanoseconds spared = (ended - called) / std::max(tiles, int64_t(1)) * (fill.end - fill.begin - tiles);
        settle(spared - (called - start) - (ended_ - ended));
        return true;
    }

  private:
    void remove(Fill& fill) {
        Fill** link = &fills_;
        while (*link != &fill) link = &(*link)->after;
        *link = fill.after;
    }

    void wait_for_workers(Fill& fill, std::unique_lock<std::mutex>& lock) {
        const auto empty = [&] { return fill.inside.load(std::memory_order_acquire) == 0; };
        if (empty()) return;
        lock.unlock();
        const bool soon = spin(kPatience, empty);
        lock.lock();
        fill.awaited = !soon;
        left_.wait(lock, empty);
    }

    void settle(Nanoseconds gain) {
        balance_ = std::clamp(balance_ + gain, -kLimit, kLimit);
        if (balance_ >= Nanoseconds(0)) return;
        rest_ = -kRest * balance_;
        balance_ = Nanoseconds(0);
    }

    // Wakes, or starts, up to n workers for the fill, and unlocks: a worker must not wake to find the mutex taken.
    void call(Fill& fill, int n, std::unique_lock<std::mutex>& lock) {
        n = std::min(n, fill.calls);
        const int wake = std::min(n, asleep_), start = std::clamp(fill.threads - 1 - workers_, 0, n - wake);
        fill.calls -= n;
        asleep_ -= wake;
        wakes_ += wake;
        workers_ += start;
        lock.unlock();
        for (int i = 0; i < wake; ++i) woken_.notify_one();
        for (int i = 0; i < start; ++i) start_worker();
    }

    void start_worker() {
        sigset_t asynchronous, before;  // signals are the application's threads' business; a crash is everybody's
        sigfillset(&asynchronous);
        for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) sigdelset(&asynchronous, signal);
        pthread_sigmask(SIG_SETMASK, &asynchronous, &before);
        try {
            std::thread(&Pool::live, this).detach();
        } catch (const std::exception&) {  // no memory, or no more threads allowed: the fill gets along without
            const std::lock_guard<std::mutex> lock(mutex_);
            --workers_;
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void live() {
        leave_openmp_place();
        name_thread();
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            while (Fill* fill = find_open()) {
                enter(*fill, lock);
                linger(lock);
            }
            ++asleep_;
            woken_.wait(lock, [&] { return wakes_ > 0; });
            --wakes_;
        }
    }

    Fill* find_open() const {
        Fill* fill = fills_;
        while (fill && !fill->open()) fill = fill->after;
        return fill;
    }

    void enter(Fill& fill, std::unique_lock<std::mutex>& lock) {
        --fill.seats;
        fill.inside.fetch_add(1, std::memory_order_relaxed);
        call(fill, kFanOut, lock);
        fill.work();
        lock.lock();
        const bool awaited = fill.awaited;
        // The last touch: the caller may be looking, and leave.
        if (fill.inside.fetch_sub(1, std::memory_order_release) == 1 && awaited) left_.notify_all();
    }

    void linger(std::unique_lock<std::mutex>& lock) {
        if (find_open()) return;
        const uint32_t known = news_.load(std::memory_order_relaxed);
        ++lingering_;
        lock.unlock();
        spin(kLinger, [&] { return news_.load(std::memory_order_relaxed) != known; });
        lock.lock();
        --lingering_;
    }

    std::mutex mutex_;
    std::condition_variable woken_, left_;
    std::atomic<uint32_t> news_{0};  // counts fills, for those who linger
    Fill* fills_ = nullptr;          // the latest first
    int workers_ = 0;
    int asleep_ = 0;  // without those for whom there is a wake
    int wakes_ = 0;
    int lingering_ = 0;
    Clock::time_point ended_{};  // when a caller was last without work
    Nanoseconds balance_{0};
    Nanoseconds rest_{0};  // expected time of the fills that are still done without workers
};

// Never destroyed: its workers are detached, and sleep in it when the process ends. A child of fork() has none of them, and
// perhaps a locked mutex; it leaves its copy alone and makes a pool of its own.
std::atomic<Pool*> current{nullptr};
const int at_fork = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr, std::memory_order_relaxed); });

Pool* pool() {  // null: no memory for one
    (void)at_fork;
    Pool* found = current.load(std::memory_order_acquire);
    if (found) return found;
    Pool* const made = new (std::nothrow) Pool;
    if (current.compare_exchange_strong(found, made, std::memory_order_acq_rel)) return made;
    delete made;
    return found;
}

}  // namespace

void parallel_tiles(int64_t begin, int64_t end, int threads, Nanoseconds expected, RangeFn fn, void* context) noexcept {
    if (begin == end) return;
    threads = int(std::min({int64_t(threads), end - begin, 1 + expected / kShare}));
    if (threads > 1 && expected != kWhateverItCosts) threads = std::min(threads, usable_cpus());
    if (Pool* const workers = threads > 1 ? pool() : nullptr) {
        Fill fill{begin, end, threads, fn, context};
        if (workers->run(fill, expected)) return;
    }
    const FloatEnvironment environment;
    fn(context, begin, end);
}

std::string parallel_runtime() { return "own pool, " + describe_cpus(); }

}  // namespace wi
