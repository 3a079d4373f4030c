// The CUDA backend's door: jobs -> table on the host, table -> one launch on a stream.
#pragma once
#include <string>
#include <vector>

#include "launch.h"

namespace wi {

// The jobs as the kernel's table; `tiles` receives how many tiles they make.
std::vector<CudaJob> make_table(const std::vector<FillJob>& jobs, uint32_t& tiles);

// Launches on the current device. `far`: address of the table in device memory, or 0 for a table of at most kInlineJobs.
// Returns an empty string or the CUDA error's name and text.
std::string launch_fill(const std::vector<CudaJob>& table, uint64_t far, uint32_t tiles, uint64_t stream);

// The same for jobs whose values meet what is there.
std::string launch_combine(const std::vector<CudaJob>& table, uint64_t far, uint32_t tiles, uint64_t stream, Combine how);

// The name and text of a CUDA error, a cudaError_t; empty for success.
std::string cuda_message(int error);

// Number of devices, or 0 and why there is none.
int cuda_devices(std::string& why);

}  // namespace wi
