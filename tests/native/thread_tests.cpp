// The threads on their own (csrc/cpu/parallel.h, cpus.h), without kernels, Python and a test framework: prints every failure and
// `N passed, N failed`; the exit status is 0 if none failed. Built by CMakeLists.txt beside core_tests; `make sanitize` runs it
// under the thread sanitizer, too. Nothing depends on how fast anything is; what waits for workers gives up after a minute.
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/cpus.h"
#include "cpu/parallel.h"

namespace {

using namespace wi;
using Clock = std::chrono::steady_clock;

#if defined(__SANITIZE_THREAD__)  // it cannot follow the threads of a child
constexpr bool kForks = false;
#else
constexpr bool kForks = true;
#endif
int passed = 0, failed = 0;

void expect(bool ok, const char* what) {
    ++(ok ? passed : failed);
    if (!ok) printf("FAILED %s\n", what);
}

// ---- every tile once -----------------------------------------------------------------------------------------------------

// How often each tile was done. Plain memory: the pool itself must order what workers write before what the caller reads.
struct Counts {
    std::vector<int> done;
    static void add(void* context, int64_t begin, int64_t end) noexcept {
        for (int64_t i = begin; i < end; ++i) {
            for (volatile int k = 0; k < 300; k = k + 1) continue;  // so that workers come in time
            ++static_cast<Counts*>(context)->done[size_t(i)];
        }
    }
};

bool every_tile_once(int64_t begin, int64_t end, int threads, std::chrono::nanoseconds expected = kWhateverItCosts) {
    Counts counts{std::vector<int>(size_t(end) + 1)};
    parallel_tiles(begin, end, threads, expected, Counts::add, &counts);
    for (int64_t i = 0; i <= end; ++i)
        if (counts.done[size_t(i)] != (i >= begin && i < end)) return false;
    return true;
}

void check_every_tile_once() {
    for (int threads : {-1, 0, 1, 2, 3, 8})
        for (int64_t tiles : {0, 1, 2, 3, 7, 64, 1000, 12345})
            expect(every_tile_once(5, 5 + tiles, threads), "every tile once");
    bool ok =
        true;  // a fill's memory is gone as soon as it has ended, and the next one takes its place: nobody may come late to it
    for (int i = 0; i < 20000; ++i) ok = ok && every_tile_once(0, 2 + i % 5, 2 + i % 3);
    expect(ok, "short fills, one after another");
    for (int microseconds : {0, 10, 50, 100}) {
        for (int i = 0; i < 300; ++i) ok = ok && every_tile_once(0, 9, 4, std::chrono::microseconds(microseconds));
        expect(ok, "fills that are expected to be short");
    }
}

void check_several_callers() {
    std::atomic<bool> ok{true};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 6; ++caller)
        callers.emplace_back([&ok, caller] {
            for (int i = 0; i < 2000; ++i)
                if (!every_tile_once(i % 3, 40 + caller, 2 + (i + caller) % 4)) ok = false;
        });
    for (std::thread& caller : callers) caller.join();
    expect(ok, "several callers at once");
}

void check_nested() {
    std::atomic<int> right{0};
    const RangeFn outer = [](void* context, int64_t begin, int64_t end) noexcept {
        for (int64_t i = begin; i < end; ++i) *static_cast<std::atomic<int>*>(context) += every_tile_once(0, 50, 3);
    };
    parallel_tiles(0, 100, 4, kWhateverItCosts, outer, &right);
    expect(right == 100, "fills within fills");
}

// ---- who works -----------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
using Control = unsigned;
constexpr Control kOurs = 0x1F80, kHostile = 0x1F80 | 0x8040 | 0x4000;  // MXCSR: flush results and operands to zero, round up
Control float_control() { return _mm_getcsr() & 0xFFC0; }
void set_float_control(Control control) { _mm_setcsr(control); }
#elif defined(__aarch64__)
using Control = uint64_t;
constexpr Control kOurs = 0, kHostile = 1 << 24 | 1 << 22;  // FPCR: flush to zero, round up
Control float_control() {
    Control control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    return control;
}
void set_float_control(Control control) { asm volatile("msr fpcr, %0" : : "r"(control)); }
#else  // nothing is known of it
using Control = int;
constexpr Control kOurs = 0, kHostile = 0;
Control float_control() { return 0; }
void set_float_control(Control) {}
#endif

bool leaves_signals_to_others() {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return sigismember(&mask, SIGINT) && sigismember(&mask, SIGTERM) && !sigismember(&mask, SIGSEGV);
}

// A fill of one tile a thread, in which each waits a while for all the others.
struct Meeting {
    int threads;
    std::thread::id caller = std::this_thread::get_id();
    std::atomic<int> here{0}, left{0}, ours{0}, quiet{0};
    static void attend(void* context, int64_t, int64_t) noexcept {
        Meeting& m = *static_cast<Meeting*>(context);
        ++m.here;
        m.ours += float_control() == kOurs;
        m.quiet += std::this_thread::get_id() == m.caller || leaves_signals_to_others();
        const Clock::time_point until = Clock::now() + std::chrono::milliseconds(100);
        while (m.here < m.threads && m.left == 0 && Clock::now() < until) std::this_thread::yield();
        if (m.here < m.threads) ++m.left;
    }
};

// Whether at some time all of them are at work together. A busy machine may need several attempts.
bool all_meet(int threads) {
    for (const Clock::time_point until = Clock::now() + std::chrono::minutes(1); Clock::now() < until;) {
        Meeting meeting{threads};
        parallel_tiles(0, threads, threads, kWhateverItCosts, Meeting::attend, &meeting);
        if (meeting.left > 0) continue;
        expect(meeting.ours == threads, "every thread has the kernels' floating-point environment");
        expect(meeting.quiet == threads, "workers leave signals to the application's threads");
        return true;
    }
    return false;
}

// The number of threads that work on one fill at the same time.
struct Crowd {
    std::atomic<int> now{0}, most{0};
    static void join(void* context, int64_t, int64_t) noexcept {
        Crowd& c = *static_cast<Crowd*>(context);
        const int now = ++c.now;
        for (int most = c.most; most < now && !c.most.compare_exchange_weak(most, now);) continue;
        std::this_thread::yield();
        --c.now;
    }
};

int most_at_work(int threads, std::chrono::nanoseconds expected) {
    Crowd crowd;
    for (int i = 0; i < 200; ++i) parallel_tiles(0, 500, threads, expected, Crowd::join, &crowd);
    return crowd.most;
}

void check_who_works() {
    for (int threads : {2, 3, 8}) expect(all_meet(threads), "as many threads as asked for");
    for (int threads : {1, 2, 3})
        expect(most_at_work(threads, kWhateverItCosts) <= threads, "no more threads than asked for");  // of eight
    expect(most_at_work(8, std::chrono::microseconds(1)) == 1, "no worker for a microsecond");
    const Control before = float_control();
    set_float_control(kHostile);
    const bool met = all_meet(3), alone = all_meet(1);
    const Control after = float_control();
    set_float_control(before);
    expect(met && alone && after == kHostile, "the caller's floating-point environment is there again");
}

// ---- fork ----------------------------------------------------------------------------------------------------------------

// Runs the function in a child and returns the child's status: 0 if nothing failed in it.
int status_of(void (*function)()) {
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(240);  // a child that hangs is killed
        failed = 0;
        function();
        fflush(stdout);
        _exit(failed == 0 ? 0 : 1);
    }
    int status = 0;
    return waitpid(pid, &status, 0) == pid ? status : -1;
}

void check_fork() {
    expect(all_meet(3), "a parent has workers");
    const auto child = [] {
        expect(all_meet(3), "a child has workers of its own");
        expect(status_of([] { expect(all_meet(2), "and so has its child"); }) == 0, "a child of a child");
    };
    expect(status_of(child) == 0, "a child of fork()");
    std::atomic<bool> stop{false};
    std::thread other([&] {  // without a call of malloc, whose locks the address sanitizer does not free in a child
        Counts counts{std::vector<int>(200)};
        while (!stop) parallel_tiles(0, 200, 4, kWhateverItCosts, Counts::add, &counts);
    });
    for (int i = 0; i < 20; ++i)
        expect(status_of([] { expect(every_tile_once(0, 200, 4), "in the child"); }) == 0, "fork() while another thread fills");
    stop = true;
    other.join();
    expect(all_meet(3), "a parent keeps its workers");
}

// ---- CPUs ----------------------------------------------------------------------------------------------------------------

namespace fs = std::filesystem;

struct File {
    std::string name, text;
};

// A new folder, which goes with its owner.
struct Folder {
    fs::path path;
    Folder() {
        std::string name = fs::temp_directory_path() / "thread_tests.XXXXXX";
        if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder: " + name);
        path = name;
    }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
};

// The quota that the files describe: `self` is what /proc/self/cgroup would be.
int quota(const std::string& self, const std::vector<File>& files) {
    const Folder made;
    const fs::path& folder = made.path;
    std::ofstream(folder / "self") << self;
    for (const File& file : files) {
        fs::create_directories((folder / file.name).parent_path());
        std::ofstream(folder / file.name) << file.text;
    }
    return quota_of(folder / "self", folder);
}

void check_cpus() {
    expect(usable_cpus() >= 1, "a CPU at least");
    const std::string second = "0::/a/b\n", first = "3:cpuset:/\n2:cpu,cpuacct:/a\n1:name=systemd:/a\n";
    expect(quota(second, {{"a/b/cpu.max", "max 100000\n"}}) == 0, "version 2: no quota");
    expect(quota(second, {{"a/b/cpu.max", "400000 100000\n"}}) == 4, "version 2: four CPUs");
    expect(quota(second, {{"a/b/cpu.max", "400001 100000\n"}}) == 5, "version 2: a begun CPU");
    expect(quota(second, {{"a/b/cpu.max", "1000 100000\n"}}) == 1, "version 2: a hundredth of a CPU");
    expect(quota(second, {{"a/b/cpu.max", "max 100000\n"}, {"a/cpu.max", "300000 100000\n"}}) == 3, "a group around");
    expect(quota("0::/\n", {{"cpu.max", "200000 100000\n"}}) == 2, "version 2: a container");
    expect(quota(first, {{"cpu/a/cpu.cfs_quota_us", "150000\n"}, {"cpu/a/cpu.cfs_period_us", "50000\n"}}) == 3,
           "version 1: three CPUs");
    expect(quota(first, {{"cpu/a/cpu.cfs_quota_us", "-1\n"}, {"cpu/a/cpu.cfs_period_us", "100000\n"}}) == 0,
           "version 1: no quota");
    expect(quota(first, {{"cpu/cpu.cfs_quota_us", "70000\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}}) == 1,
           "version 1: a container, whose group is the mount");
    expect(quota(first, {{"cpuset/a/cpu.cfs_quota_us", "70000\n"}}) == 0, "another hierarchy");
    expect(quota("", {}) == 0 && quota("nonsense\n0\n:\n", {}) == 0, "no groups");
    expect(quota(second, {{"a/b/cpu.max", ""}, {"a/cpu.max", "9 0\n"}, {"cpu.max", "-5 -5\n"}}) == 0, "nonsense");
    expect(quota_of("/none", "/none") == 0, "no files");
}

}  // namespace

int main(int argc, char** argv) {
    const bool emulated = argc > 1 && std::string(argv[1]) == "emulated";  // qemu aborts in children of threaded processes
    check_every_tile_once();
    check_several_callers();
    check_nested();
    check_who_works();
    if (kForks && !emulated) check_fork();
    check_cpus();
    printf("%s\n%d passed, %d failed\n", parallel_runtime().c_str(), passed, failed);
    return failed != 0;
}
