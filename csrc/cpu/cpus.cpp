#include "cpus.h"

#include <strings.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

namespace wi {
namespace {

constexpr int kUnlimited = 1 << 20;

// Whether an OpenMP runtime was told to bind threads. It has then bound the application's own thread, to one place of many, as
// soon as it was loaded, and that thread's mask says nothing about the process.
bool bound_by_openmp() {
    static const bool bound = [] {
        const char* bind = getenv("OMP_PROC_BIND");
        if (bind) return strcasecmp(bind, "false") != 0;
        return getenv("OMP_PLACES") || getenv("GOMP_CPU_AFFINITY") || getenv("KMP_AFFINITY");
    }();
    return bound;
}

#if defined(__linux__)
struct Mask {
    unsigned long words[128];  // 8192 CPUs
    cpu_set_t* set() { return reinterpret_cast<cpu_set_t*>(words); }
};
#endif

int cpus_of_mask() {
#if defined(__linux__)
    Mask mask;
    if (sched_getaffinity(0, sizeof mask, mask.set()) == 0) return std::max(CPU_COUNT_S(sizeof mask, mask.set()), 1);
#endif
    const unsigned known = std::thread::hardware_concurrency();
    return known > 0 ? int(known) : kUnlimited;
}

// Of one group; kUnlimited if it has none, or cannot be read.
int quota_of_group(const std::string& folder, bool second_version) {
    std::string quota = "max";
    double period = 0;
    if (second_version) {
        std::ifstream(folder + "/cpu.max") >> quota >> period;
    } else {
        std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
        std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    }
    const double microseconds = strtod(quota.c_str(), nullptr);  // of "max": 0; -1 is version 1's "none"
    if (!(microseconds > 0 && period > 0)) return kUnlimited;
    return std::max(1, int(std::min((microseconds + period - 1) / period, double(kUnlimited))));
}

int quota() {  // read once: a quota is not changed under a running process, or it does not matter much
    static const int found = quota_of("/proc/self/cgroup", "/sys/fs/cgroup");
    return found;
}

}  // namespace

int quota_of(const std::string& groups, const std::string& mount) {
    int least = kUnlimited;
    std::ifstream file(groups);
    for (std::string line; std::getline(file, line);) {  // number:controllers:path
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        const bool second_version = controllers == ",,";
        if (!second_version && controllers.find(",cpu,") == std::string::npos) continue;
        const std::string folder = mount + (second_version ? "" : "/cpu");
        std::string path = line.substr(second + 1);
        while (true) {  // the group, those around it, and the mount: in a container the group itself
            least = std::min(least, quota_of_group(folder + path, second_version));
            if (path.empty()) break;
            path.erase(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
        }
    }
    return least == kUnlimited ? 0 : least;
}

int usable_cpus() {
    const int allowed = bound_by_openmp() ? kUnlimited : cpus_of_mask();
    return quota() > 0 ? std::min(quota(), allowed) : allowed;
}

void leave_openmp_place() {
#if defined(__linux__)
    if (!bound_by_openmp()) return;
    Mask mask;
    memset(mask.words, 0xFF, sizeof mask.words);
    sched_setaffinity(0, sizeof mask, mask.set());  // Linux leaves out what the process's cpuset does not have
#endif
}

std::string describe_cpus() {
    const std::string mask =
        bound_by_openmp() ? "CPUs as OpenMP bound them" : std::to_string(cpus_of_mask()) + " CPUs by the mask";
    return mask + (quota() > 0 ? ", " + std::to_string(quota()) + " by the quota" : "");
}

}  // namespace wi
