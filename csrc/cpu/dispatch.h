// The CPU backend's door: checks nothing, chooses the ISA once, cuts jobs into tiles and shares them over the threads.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../job.h"

namespace wi {

// ISAs this build and this machine can run, best first; "scalar" is always there.
const std::vector<std::string>& available_isas();
const std::string& selected_isa();
bool select_isa(const std::string& name);  // false if not available

// Whether there is a kernel for the transform in this storage; and one that combines its values with what is there.
bool has_kernel(const Transform& transform, Storage storage);
bool can_combine(Mode mode, Storage storage);

// Fills of consecutive elements, each the first of its global tensor, in a sixteenth of the memory of FillJobs: the table of a model
// stays in the cache. Transforms are shared.
struct WholeJobs {
    struct Job {
        char* data;
        uint64_t count;
        Draw draw;
        uint32_t transform;  // its number
        Storage storage;
    };
    std::vector<Transform> transforms;
    std::vector<Job> jobs;

    FillJob as_job(const Job& job) const;
};

// A list of jobs as one range of tiles. All are combined with what is there in the same way.
class CpuFill {
  public:
    explicit CpuFill(std::vector<FillJob> jobs, Combine combine = {});
    CpuFill(WholeJobs whole, std::vector<FillJob> jobs);
    ~CpuFill();
    int64_t tiles() const { return first_tile_.back(); }
    // Runs tiles [begin, end), each job under its own seed, or all under `seed`.
    void run(int64_t begin, int64_t end, int threads, const uint64_t* seed = nullptr) const noexcept;

  private:
    struct Prepared;
    void add(const WholeJobs::Job& job);
    void add(const FillJob& job, const Combine& combine);
    void add_tiles(uint64_t tiles, uint64_t elements, Kind kind, Storage storage);
    void run_tiles(int64_t begin, int64_t end, const uint64_t* seed) const;
    void run_whole(size_t i, uint64_t from, uint64_t to, const uint64_t* seed) const;
    void run_other(size_t i, uint64_t from, uint64_t to, const uint64_t* seed) const;
    WholeJobs whole_;
    std::vector<RunFn> runs_;  // of the whole ones
    std::vector<FillJob> jobs_;
    std::vector<Prepared> prepared_;
    std::vector<int64_t> first_tile_{0};  // of each job, whole ones first, and the number of tiles
    double nanoseconds_ = 0;              // that one thread is expected to take
};

// `count` consecutive elements from global index 0, on the calling thread, without allocation: the path of small tensors.
void fill_small(const Transform& transform, Storage storage, const Draw& draw, char* data, uint64_t count);
constexpr uint64_t kSmall = 1 << 15;

constexpr int64_t kSlabTiles = 2048;  // tiles between two looks at Ctrl-C: 31 M elements

}  // namespace wi
