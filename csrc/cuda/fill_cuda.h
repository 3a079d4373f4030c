// The CUDA backend's door: jobs -> tables on the host, tables -> launches on a stream.
#pragma once
#include <string>
#include <vector>

#include "launch.h"

namespace wi {

// Fills have a kernel for each size of an element, in bits; combining has one for all.
enum class Kernel { kFill8, kFill16, kFill32, kFill64, kCombine };

// What one launch does: jobs of one kernel, and how many tiles they make.
struct CudaPart {
    Kernel kernel;
    std::vector<CudaJob> jobs;
    uint32_t tiles;
};

// The jobs as the kernels' tables, in order within each.
std::vector<CudaPart> make_parts(const std::vector<FillJob>& jobs, Mode mode);

// The seed that a CUDA generator of torch draws with this seed of its own at this position: words position and position + 1 of the
// last of its streams, which torch's kernels do not reach.
uint64_t drawn_seed(uint64_t generator_seed, uint64_t position);

// Launches every part on the device, or on the current one if that is negative. `far`: address in device memory of all parts' jobs,
// one after another; or 0: they travel in the launches' parameters, kInlineJobs at a time.
// Returns an empty string or the CUDA error's name and text.
std::string launch(const std::vector<CudaPart>& parts, uint64_t far, int device, uint64_t stream, const Combine& how);

// Whether this device can run the kernels; makes its context. Returns an empty string, or why not.
std::string why_not_on(int device);

}  // namespace wi
