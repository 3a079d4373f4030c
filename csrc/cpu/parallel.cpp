#include "parallel.h"

#include <dlfcn.h>
#include <pthread.h>
#if defined(__linux__)
#include <link.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <atomic>
#include <cstring>
#include <mutex>
#include <string>

namespace wi {
namespace {

// The part of the OpenMP ABI that g++ itself emits calls to; libgomp, libomp and libiomp5 all export it.
using ParallelFn = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
using InParallelFn = int (*)();

struct Runtime {
    ParallelFn parallel = nullptr;
    InParallelFn in_parallel = nullptr;
    std::string name = "none: no OpenMP runtime is loaded, fills run on one thread";
};

std::atomic<bool> forked{false};
// Registered when the module is loaded: torch may have used its threads before the first fill.
const int at_fork = pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });

bool take(Runtime& runtime, void* library, const char* name) {
    const auto parallel = reinterpret_cast<ParallelFn>(dlsym(library, "GOMP_parallel"));
    const auto in_parallel = reinterpret_cast<InParallelFn>(dlsym(library, "omp_in_parallel"));
    if (!parallel || !in_parallel) return false;
    runtime.parallel = parallel;
    runtime.in_parallel = in_parallel;
    Dl_info info;
    runtime.name = dladdr(reinterpret_cast<void*>(parallel), &info) && info.dli_fname ? info.dli_fname : name;
    return true;
}

#if defined(__linux__)
int take_loaded(dl_phdr_info* info, size_t, void* data) {  // a runtime that was loaded without making its names global
    const char* file = info->dlpi_name ? strrchr(info->dlpi_name, '/') : nullptr;
    if (!file || !(strstr(file, "gomp") || strstr(file, "libomp") || strstr(file, "iomp5"))) return 0;
    void* library = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
    return library && take(*static_cast<Runtime*>(data), library, info->dlpi_name);
}
#endif

const Runtime& runtime() {
    static const Runtime found = [] {
        Runtime r;
        (void)at_fork;
        if (take(r, RTLD_DEFAULT, "OpenMP")) return r;
#if defined(__linux__)
        dl_iterate_phdr(take_loaded, &r);
#endif
        return r;
    }();
    return found;
}

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

struct Work {
    std::atomic<int64_t> next;
    int64_t end;
    TileFn fn;
    void* context;
};

void work_on(void* data) {
    Work& work = *static_cast<Work*>(data);
    const FloatEnvironment environment;
    for (;;) {
        const int64_t tile = work.next.fetch_add(1, std::memory_order_relaxed);
        if (tile >= work.end) return;
        work.fn(work.context, tile);
    }
}

}  // namespace

void parallel_tiles(int64_t begin, int64_t end, int threads, TileFn fn, void* context) {
    Work work{{begin}, end, fn, context};
    if (int64_t(threads) > end - begin) threads = int(end - begin);
    if (threads > 1 && !forked.load(std::memory_order_relaxed)) {
        const Runtime& r = runtime();
        if (r.parallel && !r.in_parallel()) return r.parallel(work_on, &work, unsigned(threads), 0);
    }
    work_on(&work);
}

const char* parallel_runtime() { return runtime().name.c_str(); }

}  // namespace wi
