// How many CPUs this process may use: what its affinity mask allows and what the quota of its control group pays for.
#pragma once
#include <string>

namespace wi {

// For the calling thread, now: a system call. More threads than this would wait for one another.
int usable_cpus();

// CPUs that the quota of a control group pays for, begun ones counted; 0 where there is none. `groups` is /proc/self/cgroup,
// `mount` where the hierarchies are. The groups around it count, too, as far as they can be seen from here.
int quota_of(const std::string& groups, const std::string& mount);

// Where an OpenMP runtime has bound the application's threads to one place each, a thread that one of them starts would be bound
// to the same place. This lets the calling thread run wherever the process may.
void leave_openmp_place();

// What usable_cpus() goes by, in words.
std::string describe_cpus();

}  // namespace wi
