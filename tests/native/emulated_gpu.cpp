// The CUDA kernel run on the CPU, thread by thread, against the CPU backend:
//
//     emulated_gpu <rows> <section> [add | lerp]
//
// prints every failure and `N passed, N failed`; the exit status is 0 if none failed. One check is one launch: all bytes of its
// memory equal, guards included, and every element's bytes stored once and by aligned stores, no other byte ever.
// gpu_thread() is one thread of a kernel: of csrc/cuda by g++ (emulated_kernels.cpp), or of nvcc's PTX as C (emulated_ptx.c).
// With a mode the kernel is the one that combines, and memory begins as random bytes instead of a pattern.
// A line of <rows>: name, storage, kind, params, integers; the last two separated by commas, - if there are none.
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"
#include "cuda/fill_cuda.h"

namespace wi {  // the plainest evaluator alone is linked; core_tests compares the others with it
RunFn find_run_avx2(Kind, Storage) { return nullptr; }
RunFn find_run_avx512(Kind, Storage) { return nullptr; }
RunFn find_run_neon(Kind, Storage) { return nullptr; }
RunFn find_bfloat16_avx512bf16(Kind) { return nullptr; }
CombineFn find_combine_avx2(Mode, Storage) { return nullptr; }
StoreColumnsFn find_store_columns_avx2(int) { return nullptr; }
CombineFn find_combine_avx512(Mode, Storage) { return nullptr; }
StoreColumnsFn find_store_columns_avx512(int) { return nullptr; }
CombineFn find_combine_neon(Mode, Storage) { return nullptr; }
}  // namespace wi

namespace {

using namespace wi;

int passed = 0, failed = 0;

__attribute__((format(printf, 2, 3))) void expect(bool ok, const char* format, ...) {
    ++(ok ? passed : failed);
    if (ok || failed > 20) return;
    va_list arguments;
    va_start(arguments, format);
    printf("FAILED ");
    vprintf(format, arguments);
    printf("%s\n", failed == 20 ? "\n(more failures are counted, not printed)" : "");
    va_end(arguments);
}

[[noreturn]] void stop(const std::string& message) {
    printf("emulated_gpu: %s\n", message.c_str());
    exit(2);
}

std::mt19937_64 random64(20111115);
uint64_t random_below(uint64_t n) { return random64() % n; }

// ---- the machine ---------------------------------------------------------------------------------------------------------

Combine how = {Mode::kStore, 0.3};
bool combines() { return how.mode != Mode::kStore; }

struct Span {
    uint64_t begin = 0, bytes = 0;
    bool holds(uint64_t address, uint64_t n) const { return address >= begin && address + n <= begin + bytes; }
};

struct Machine {
    Span memory, parameters, table;
    std::vector<uint8_t> stores;  // to each byte of memory
    uint64_t faults = 0;          // accesses outside, or not aligned; approximations of what is not normal
} machine;

}  // namespace

extern "C" {

void gpu_thread(int kernel, const unsigned char* param, uint32_t tid, uint32_t ctaid, uint32_t nctaid);

void gpu_read(uint64_t address, uint32_t bytes) {
    const bool inside = machine.parameters.holds(address, bytes) || machine.table.holds(address, bytes) ||
                        (combines() && machine.memory.holds(address, bytes));
    machine.faults += !inside || address % bytes != 0;
}

void gpu_write(uint64_t address, uint32_t bytes) {
    if (!machine.memory.holds(address, bytes) || address % bytes != 0) {
        ++machine.faults;
        return;
    }
    for (uint32_t i = 0; i < bytes; ++i) machine.stores[address - machine.memory.begin + i] += 1;
}

// As good as can be; scalar_device_proofs.cpp has them off in the last place, too. Arguments and results must be normal, so that
// .ftz and no .ftz are the same.
float gpu_rsqrt_approx(float x) {
    machine.faults += !std::isnormal(x) || x < 0;
    return float(1.0 / std::sqrt(double(x)));
}
float gpu_rcp_approx(float x) {
    const float r = 1.0f / x;
    machine.faults += !std::isnormal(x) || !std::isnormal(r);
    return r;
}
}

namespace {

// ---- launches ------------------------------------------------------------------------------------------------------------

struct Row {
    std::string name;
    Storage storage;
    Transform transform;
    uint64_t item() const { return uint64_t(item_size(storage)); }
    uint64_t group() const { return uint64_t(group_elements(storage)); }
    uint64_t tile() const { return uint64_t(kTileGroups) * group(); }
    uint64_t per_block() const { return item() == 8 ? 2 : 4; }
};

// A job that has no memory yet.
struct Target {
    const Row* row;
    uint64_t index;
    std::vector<Dim> dims;
    uint64_t skip = 0;  // elements between a 64-byte line and the first element
    Draw draw = {random64(), random64()};
};

Target run_of(const Row& row, uint64_t n, uint64_t index = 0, uint64_t skip = 0) {
    return {&row, index, {{int64_t(n), 1, 1}}, skip};
}

uint64_t extent(const Target& t) {
    uint64_t last = 0;
    for (const Dim& dim : t.dims) last += uint64_t((dim.size - 1) * dim.stride);
    return last + 1;
}

// Memory addresses of the elements, in row-major order.
template <class Use>
void each_element(const Target& t, Use use) {
    uint64_t count = 1;
    for (const Dim& dim : t.dims) count *= uint64_t(dim.size);
    for (uint64_t n = 0; n < count; ++n) {
        uint64_t memory = 0, rest = n;
        for (size_t d = t.dims.size(); d-- > 0; rest /= uint64_t(t.dims[d].size))
            memory += rest % uint64_t(t.dims[d].size) * uint64_t(t.dims[d].stride);
        use(memory);
    }
}

struct Memory {  // n bytes from a 256-byte line on
    std::vector<unsigned char> bytes;
    unsigned char* data;
    Memory(size_t n, unsigned char value) : bytes(n + 256, value) {
        data = bytes.data() + (256 - reinterpret_cast<uintptr_t>(bytes.data()) % 256);
    }
    Span span(size_t n) const { return {reinterpret_cast<uintptr_t>(data), n}; }
};

enum class Form { kHere, kFar };

void run(const CudaPart& part, Form form, uint32_t grid) {
    const size_t bytes = part.jobs.size() * sizeof(CudaJob);
    Memory parameters(sizeof(CombineTable), 0xCD), far(bytes, 0);
    CombineTable& p = *reinterpret_cast<CombineTable*>(parameters.data);
    if (combines()) p.how = how;
    if (form == Form::kHere && part.jobs.size() > size_t(kInlineJobs)) form = Form::kFar;
    p.table.far = form == Form::kFar ? reinterpret_cast<const CudaJob*>(far.data) : nullptr;
    p.table.jobs = uint32_t(part.jobs.size());
    p.table.tiles = part.tiles;
    share_among(p.table, grid);
    memcpy(form == Form::kFar ? far.data : reinterpret_cast<unsigned char*>(p.table.here), part.jobs.data(), bytes);
    machine.parameters = parameters.span(combines() ? sizeof(CombineTable) : sizeof(CudaTable));
    machine.table = form == Form::kFar ? far.span(bytes) : Span{};
    for (uint32_t block = 0; block < grid; ++block)
        for (uint32_t thread = 0; thread < uint32_t(kThreads); ++thread)
            gpu_thread(int(part.kernel), parameters.data, thread, block, grid);
}

const uint32_t kAsTiles = 0;  // as many blocks as tiles, as launch() does

// One launch. `nothing`: the programs do not exist, and no byte may be touched.
void check(const std::vector<Target>& targets, const std::string& what, Form form = Form::kHere, uint32_t grid = kAsTiles,
           bool nothing = false) {
    size_t size = 64;
    std::vector<size_t> places;
    for (const Target& t : targets) {
        places.push_back(size + size_t(t.skip * t.row->item()));
        size = (places.back() + size_t(extent(t) * t.row->item()) + 63 + 64) / 64 * 64;
    }
    Memory expected(size, 0xA5), made(size, 0xA5);
    for (size_t i = 0; combines() && i < size; ++i)
        expected.data[i] = made.data[i] = static_cast<unsigned char>(random64() >> 56);
    std::vector<uint8_t> once(size);
    std::vector<FillJob> on_cpu, on_gpu;
    for (size_t i = 0; i < targets.size(); ++i) {
        const Target& t = targets[i];
        FillJob job = {reinterpret_cast<char*>(expected.data) + places[i],
                       t.row->storage,
                       t.row->transform,
                       t.draw,
                       t.index,
                       int(t.dims.size()),
                       {}};
        std::copy(t.dims.begin(), t.dims.end(), job.dims);
        on_cpu.push_back(job);
        job.data = reinterpret_cast<char*>(made.data) + places[i];
        on_gpu.push_back(job);
        if (nothing) continue;
        each_element(t, [&](uint64_t memory) {
            for (uint64_t b = 0; b < t.row->item(); ++b) ++once[places[i] + memory * t.row->item() + b];
        });
    }
    if (!nothing) {
        CpuFill fill(on_cpu, how);
        fill.run(0, fill.tiles(), 1);
    }
    machine.memory = made.span(size);
    machine.stores.assign(size, 0);
    machine.faults = 0;
    for (const CudaPart& part : make_parts(on_gpu, how.mode)) run(part, form, grid == kAsTiles ? part.tiles : grid);
    const size_t at = size_t(std::mismatch(expected.data, expected.data + size, made.data).first - expected.data);
    expect(at == size, "%s: byte %zu of %zu differs", what.c_str(), at, size);
    expect(machine.stores == once, "%s: an element is not stored exactly once, or a byte beside the elements is", what.c_str());
    expect(machine.faults == 0, "%s: %llu faults", what.c_str(), static_cast<unsigned long long>(machine.faults));
}

// ---- sections ------------------------------------------------------------------------------------------------------------

using Rows = std::vector<Row>;

const Row& any_row(const Rows& rows) { return rows[random_below(rows.size())]; }

// Every program there is has a row; the others do nothing.
void check_kinds(const Rows& rows) {
    for (int i = 0; i < kKinds * kStorages; ++i) {
        const Row row = {"no program", Storage(i % kStorages), {Kind(i / kStorages), {}, {}}};
        const bool tested = std::any_of(rows.begin(), rows.end(), [&](const Row& r) {
            return r.storage == row.storage && r.transform.kind == row.transform.kind;
        });
        if (has_kernel(row.transform, row.storage))
            expect(tested, "no row of kind %d in storage %d", i / kStorages, i % kStorages);
        else
            check({run_of(row, 100)}, "no program", Form::kHere, kAsTiles, true);
    }
}

// Every row through every path of consecutive memory.
void check_consecutive(const Rows& rows) {
    for (const Row& row : rows) {
        const uint64_t tile = row.tile(), group = row.group();
        check({run_of(row, tile)}, row.name + ", a tile");
        check({run_of(row, tile - 1)}, row.name + ", all but one of a tile", Form::kFar);
        check({run_of(row, 2 * tile + 37)}, row.name + ", two tiles and more", Form::kFar, 2);
        check({run_of(row, tile + 2 * group, 3 * group + group / 2, group / 2)}, row.name + ", from the middle of a group");
        check({run_of(row, 2 * tile + 1, 13, 13 % group)}, row.name + ", from an odd index", Form::kHere, 5);
        check({run_of(row, tile + 5, 0, 1)}, row.name + ", misaligned");
        check({run_of(row, tile / 16 + 7, 2 * tile + 7, 3)}, row.name + ", misaligned, from an odd index", Form::kFar, 3);
        std::vector<Target> tiny;
        for (uint64_t n = 1; n <= 40; ++n) tiny.push_back(run_of(row, n, n * 7 % 31, n % 5));
        check(tiny, row.name + ", 1 to 40 elements", Form::kFar, 7);
    }
}

struct Shape {
    const char* name;
    uint64_t index;
    std::vector<Dim> dims;  // size, stride, step
};

const Shape kShapes[] = {
    {"0-dim", 7, {}},
    {"one element", 5, {{1, 1, 1}, {1, 9, 9}}},
    {"contiguous", 0, {{7, 143, 143}, {11, 13, 13}, {13, 1, 1}}},
    {"transposed", 0, {{37, 1, 53}, {53, 37, 1}}},
    {"every third", 0, {{41, 3 * 29, 29}, {29, 3, 1}}},
    {"padded rows", 0, {{31, 64, 50}, {50, 1, 1}}},
    {"channels_last", 0, {{2, 5 * 6 * 7, 5 * 6 * 7}, {5, 1, 42}, {6, 5 * 7, 7}, {7, 5, 1}}},
    {"channels_last_3d", 0, {{2, 360, 360}, {3, 1, 120}, {4, 90, 30}, {5, 18, 6}, {6, 3, 1}}},
    {"size-1 dimensions", 0, {{1, 999, 64}, {8, 1, 8}, {1, 5, 8}, {8, 8, 1}}},
    {"rows of a shard", 4 * 96, {{3, 96, 96}, {96, 1, 1}}},
    {"columns of a shard", 17, {{40, 23, 96}, {23, 1, 1}}},
    {"one column", 17, {{40, 1, 96}}},
    {"block of a shard, transposed", 5 * 96 + 17, {{10, 1, 96}, {23, 10, 1}}},
    {"block in the middle, 3-d", 2 * 1000 + 3 * 10 + 1, {{4, 35, 1000}, {7, 5, 10}, {5, 1, 1}}},
    {"block in the middle, turned", 2 * 1000 + 3 * 10 + 1, {{4, 1, 1000}, {7, 4, 10}, {5, 28, 1}}},
    {"steps beyond 2^32", 11, {{3, 100, int64_t(3) << 34}, {5, 20, int64_t(1) << 33}, {20, 1, 1}}},
    {"runs across 2^32 blocks of 4", (uint64_t(1) << 34) - 333, {{3, 450, 401}, {400, 1, 1}}},
    {"runs across 2^32 blocks of 2", (uint64_t(1) << 33) - 333, {{3, 1, 401}, {400, 3, 1}}},
    {"6 dimensions", 1, {{2, 1, 243}, {3, 2, 81}, {3, 6, 27}, {3, 18, 9}, {3, 54, 3}, {3, 162, 1}}},
    {"9 dimensions",
     0,
     {{2, 1, 256}, {2, 2, 128}, {2, 4, 64}, {2, 8, 32}, {2, 16, 16}, {2, 32, 8}, {2, 64, 4}, {2, 128, 2}, {2, 256, 1}}},
    {"8 dimensions of a shard",
     77,
     {{3, 1, 5000}, {2, 3, 2400}, {2, 6, 1000}, {2, 12, 300}, {2, 24, 90}, {2, 48, 30}, {2, 96, 9}, {3, 192, 1}}},
};
const Shape kLargeShapes[] = {
    {"transposed, tiles", 0, {{500, 1, 301}, {301, 500, 1}}},
    {"rows apart, tiles", 3, {{3, 65600, 65537}, {65537, 1, 1}}},
    {"a long strided run", 5, {{70001, 2, 1}}},
};

void check_regions(const Rows& rows) {
    size_t next = 0;
    const auto launch = [&](const Shape& shape, const Row& row) {
        const Form form = next++ % 2 ? Form::kFar : Form::kHere;
        const Target target = {&row, shape.index, shape.dims, next % 7};
        check({target}, row.name + ", " + shape.name, form, next % 3 ? kAsTiles : uint32_t(next % 5 + 1));
    };
    for (const Row& row : rows)
        for (const Shape& shape : kShapes) launch(shape, row);
    for (size_t i = 0; i < rows.size(); i += 5)
        for (const Shape& shape : kLargeShapes) launch(shape, rows[i]);
}

// Where the index needs more than 32 bits, and where the high half of the block number changes in the middle of a tile.
void check_far_index(const Rows& rows) {
    for (const Row& row : rows) {
        const uint64_t wrap = row.per_block() << 32, tile = row.tile(), group = row.group();
        check({run_of(row, 3 * tile / 2, wrap - tile)}, row.name + ", up to 2^32 blocks and beyond");
        check({run_of(row, tile, 3 * wrap - tile / 2)}, row.name + ", across 3 * 2^32 blocks", Form::kFar, 2);
        check({run_of(row, 1003, wrap - 501, 1)}, row.name + ", across 2^32 blocks, misaligned");
        check({run_of(row, 2 * group, wrap - group)}, row.name + ", a group on either side");
        check({run_of(row, 777, (uint64_t(1) << 34) + 5), run_of(row, 778, (uint64_t(1) << 40) - 9, 2),
               run_of(row, 779, (uint64_t(1) << 62) + 3), run_of(row, 780, (uint64_t(1) << 63) - 780)},
              row.name + ", far indices");
    }
}

// A region at random: a block of a larger tensor, its memory in any order of the dimensions, with gaps.
Target random_target(const Row& row) {
    const size_t ndim = random_below(5);
    std::vector<Dim> dims(ndim);
    std::vector<size_t> order(ndim);
    uint64_t step = 1, index = random_below(3) ? random_below(5000) : random64() >> (2 + random_below(40));
    for (size_t d = ndim; d-- > 0; order[d] = d) {
        dims[d].size = int64_t(1 + random_below(random_below(4) ? 12 : ndim < 3 ? 300 : 40));
        dims[d].step = int64_t(step);
        step *= uint64_t(dims[d].size) + (random_below(2) ? 0 : random_below(9));
    }
    if (random_below(2)) std::shuffle(order.begin(), order.end(), random64);
    int64_t stride = 1 + int64_t(random_below(8) == 0);
    for (size_t i = ndim; i-- > 0;) {
        dims[order[i]].stride = stride;
        stride *= dims[order[i]].size + (random_below(3) ? 0 : int64_t(random_below(4)));
    }
    return {&row, index, dims, random_below(9)};
}

void check_tables(const Rows& rows) {
    for (const size_t jobs : {1, 1, 2, 3, 5, 12, 12, 13, 13, 40, 200, 200}) {
        std::vector<Target> targets;
        for (size_t i = 0; i < jobs; ++i) {
            const Row& row = any_row(rows);
            targets.push_back(i % 5 == 4 ? run_of(row, 1 + random_below(row.tile() * 3 / 2),
                                                  random_below(2) * random_below(100), random_below(2))
                                         : random_target(row));
        }
        const std::string what = "a table of " + std::to_string(jobs);
        const uint32_t grid = uint32_t(random_below(50) + 4);
        check(targets, what, Form::kHere);
        check(targets, what, Form::kFar, grid);
    }
}

// Values do not depend on the grid: fewer blocks than tiles, as many, more.
void check_grids(const Rows& rows) {
    std::vector<Target> targets;
    for (int i = 0; i < kInlineJobs - 1; ++i) targets.push_back(random_target(any_row(rows)));
    const Row& row = *std::find_if(rows.begin(), rows.end(), [](const Row& r) { return r.transform.kind == Kind::kNormal; });
    targets.insert(targets.begin() + 4, run_of(row, 5 * row.tile() + 100, 3, 3));
    for (const Form form : {Form::kHere, Form::kFar})
        for (const uint32_t grid : {1u, 2u, 3u, 7u, 16u, kAsTiles, 64u, 500u})
            check(targets, "grid " + std::to_string(grid), form, grid);
}

// ---- rows ----------------------------------------------------------------------------------------------------------------

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);)
        if (!part.empty()) parts.push_back(part);
    return parts;
}

Rows read_rows(const char* path) {
    Rows rows;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        const std::vector<std::string> c = split(line, ' ');
        if (c.size() != 5) stop("not a row: " + line);
        Row row = {c[0], Storage(std::stoi(c[1])), {Kind(std::stoi(c[2])), {}, {}}};
        const std::vector<std::string> params = split(c[3], ','), integers = split(c[4], ',');
        if (params.size() > size_t(kMaxParams) || integers.size() > size_t(kMaxIntegers)) stop("too many parameters: " + line);
        for (size_t i = 0; i < params.size() && params[i] != "-"; ++i)
            row.transform.params[i] = strtod(params[i].c_str(), nullptr);
        for (size_t i = 0; i < integers.size() && integers[i] != "-"; ++i)
            row.transform.integers[i] = int64_t(strtoull(integers[i].c_str(), nullptr, 10));
        if (can_combine(how.mode, row.storage)) rows.push_back(row);
    }
    if (rows.empty()) stop(std::string("no rows in ") + path);
    return rows;
}

}  // namespace

int main(int argc, char** argv) {
    const std::map<std::string, std::function<void(const Rows&)>> sections = {
        {"kinds", check_kinds},         {"consecutive", check_consecutive}, {"regions", check_regions},
        {"far_index", check_far_index}, {"tables", check_tables},           {"grids", check_grids},
    };
    const std::string mode = argc == 4 ? argv[3] : "";
    const auto section = argc == 3 || mode == "add" || mode == "lerp" ? sections.find(argv[2]) : sections.end();
    if (section == sections.end()) stop("usage: emulated_gpu <rows> <section> [add | lerp]");
    if (argc == 4) how.mode = mode == "add" ? Mode::kAdd : Mode::kLerp;
    select_isa("scalar");
    section->second(read_rows(argv[1]));
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
