// What the Python module makes of jobs: a table of them for one device, and checks of what makes one up. The caller
// (weightinit_cuda/engine) has checked everything; these are invariants, so that a slip raises, not crashes.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "cpu/dispatch.h"
#include "job.h"

namespace wi {

// Fills of one device. A fill on the CPU takes the jobs out of their table: it is used once.
struct Table {
    WholeJobs whole;
    std::vector<FillJob> jobs;

    size_t size() const { return whole.jobs.size() + jobs.size(); }

    // All of them in one form.
    std::vector<FillJob> all() const {
        std::vector<FillJob> every;
        every.reserve(size());
        for (const WholeJobs::Job& job : whole.jobs) every.push_back(whole.as_job(job));
        every.insert(every.end(), jobs.begin(), jobs.end());
        return every;
    }
};

inline Storage checked_storage(const Transform& transform, int storage) {
    if (storage < 0 || storage >= kStorages || !has_kernel(transform, Storage(storage)))
        throw std::invalid_argument("no kernel for this kind and storage");
    return Storage(storage);
}

// Elements that no address space holds, or at no address: a slip of the caller, not a segmentation fault.
inline void require_memory(uintptr_t data, uint64_t elements) {
    if (elements >> 60) throw std::invalid_argument("more elements than memory can have");
    if (elements && !data) throw std::invalid_argument("elements must have memory");
}

// Makes a job of `count` consecutive elements, the first of their global tensor. The rest of the job is 0.
inline void put_contiguous(FillJob& job, uintptr_t data, Storage storage, uint64_t count, const Transform& transform,
                           const Draw& draw) {
    require_memory(data, count);
    job.data = reinterpret_cast<char*>(data);
    job.storage = storage;
    job.transform = transform;
    job.draw = draw;
    job.ndim = 1;
    job.dims[0] = {int64_t(count), 1, 1};
}

// Runs all tiles, looking at Ctrl-C between slabs. Holds Python's lock before and after, not between.
void run_interruptibly(const CpuFill& fill, int threads, const uint64_t* seed = nullptr);

// The same, at once.
void fill_contiguous(uintptr_t data, int storage, uint64_t count, const Transform& transform, uint64_t seed, uint64_t stream,
                     int threads);

}  // namespace wi
