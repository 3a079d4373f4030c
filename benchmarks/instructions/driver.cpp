// Runs kernels so that their instructions can be counted: each row of a file twice, for `values` and for twice as many.
//
//     count_instructions <rows> <isa> <values>          under callgrind, or under qemu with -singlestep -d exec
//     count_instructions <rows> <isa> <values> --step   counts by itself, one processor step at a time (ptrace)
//
// A row is `name storage kind`, eight parameters and six integers; benchmarks/instructions/count.py writes and reads them.
// What happens between begin_count and end_count is counted: callgrind is told so, qemu's log names both functions.
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_ZERO_STATS
#define CALLGRIND_DUMP_STATS_AT(name) (void)(name)
#endif
#if defined(__x86_64__)
#include <sys/user.h>
#endif

#include "cpu/kernels.h"

extern "C" {
__attribute__((noinline)) void begin_count() { asm volatile("" ::: "memory"); }
__attribute__((noinline)) void end_count() { asm volatile("" ::: "memory"); }
}

namespace {

using namespace wi;

struct Row {
    std::string name;
    Storage storage;
    Transform transform;
};

std::vector<Row> read_rows(const char* path) {
    std::vector<Row> rows;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        Row row;
        int storage, kind;
        std::string number;
        words >> row.name >> storage >> kind;
        row.storage = Storage(storage);
        row.transform.kind = Kind(kind);
        for (double& parameter : row.transform.params) words >> number, parameter = strtod(number.c_str(), nullptr);
        for (int64_t& integer : row.transform.integers) words >> integer;
        rows.push_back(row);
    }
    return rows;
}

RunFn find_run(const std::string& isa, const Row& row) {
    if (isa == "scalar") return find_run_scalar(row.transform.kind, row.storage);
#if defined(__x86_64__)
    if (isa == "avx2") return find_run_avx2(row.transform.kind, row.storage);
    if (isa == "avx512") return find_run_avx512(row.transform.kind, row.storage);
#elif defined(__aarch64__)
    if (isa == "neon") return find_run_neon(row.transform.kind, row.storage);
#endif
    return nullptr;
}

void run_counted(RunFn run, void* out, uint64_t values, const Row& row) {
    CALLGRIND_ZERO_STATS;
    begin_count();
    run(out, 0, values, row.transform, Draw{1, 2});
    end_count();
    CALLGRIND_DUMP_STATS_AT(row.name.c_str());
}

#if defined(__x86_64__)
// Steps of a child from begin_count to end_count.
long steps(RunFn run, void* out, uint64_t values, const Row& row) {
    const pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        raise(SIGSTOP);
        run_counted(run, out, values, row);
        _exit(0);
    }
    int status = 0;
    long count = 0;
    bool counting = false;
    waitpid(child, &status, 0);
    while (WIFSTOPPED(status)) {
        user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, child, nullptr, &registers) != 0) return -1;
        if (registers.rip == reinterpret_cast<uint64_t>(&begin_count)) counting = true;
        if (registers.rip == reinterpret_cast<uint64_t>(&end_count)) break;
        count += counting;
        if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) return -1;
        waitpid(child, &status, 0);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return counting ? count : -1;
}
#endif

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) return fprintf(stderr, "count_instructions <rows> <isa> <values> [--step]\n"), 2;
    const uint64_t values = strtoull(argv[3], nullptr, 10);
    void* out = aligned_alloc(64, 2 * values * 8);
    memset(out, 0, 2 * values * 8);
    for (const Row& row : read_rows(argv[1])) {
        const RunFn run = find_run(argv[2], row);
        if (run == nullptr) continue;
        for (const uint64_t n : {values, 2 * values}) {
            if (argc == 4) {
                run_counted(run, out, n, row);
                continue;
            }
#if defined(__x86_64__)
            printf("%s %ld\n", row.name.c_str(), steps(run, out, n, row));
#endif
        }
        if (argc == 4) printf("%s\n", row.name.c_str());
    }
    return 0;
}
