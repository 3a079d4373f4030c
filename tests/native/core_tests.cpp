// The kernels against tests/vectors and against one another, without Python and without a test framework:
//
//     core_tests <tests/vectors>
//
// prints every failure and `N passed, N failed`; the exit status is 0 if none failed. One check is one comparison of all the
// bytes of a buffer, the guard bytes around it included. Built by CMakeLists.txt (WEIGHTINIT_CORE_TESTS); `make sanitize` runs
// it under sanitizers, `make neon` under qemu.
#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/philox.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace {

using namespace wi;
using Bytes = std::vector<unsigned char>;

int passed = 0, failed = 0;

__attribute__((format(printf, 2, 3))) void expect(bool ok, const char* format, ...) {
    ++(ok ? passed : failed);
    if (ok || failed > 20) return;  // the rest is counted, not printed
    va_list arguments;
    va_start(arguments, format);
    vprintf((std::string("FAILED ") + format + "\n").c_str(), arguments);
    va_end(arguments);
}

[[noreturn]] void stop(const std::string& message) {
    printf("core_tests: %s\n", message.c_str());
    exit(2);
}

std::mt19937_64 random64(20111115);
uint64_t random_below(uint64_t n) { return random64() % n; }

// ---- vectors -------------------------------------------------------------------------------------------------------------

const char* const kStorageNames[kStorages] = {"float32",     "float64", "float16", "bfloat16", "float8_e4m3fn",
                                              "float8_e5m2", "uint8",   "uint16",  "uint32",   "uint64"};

struct Answer {  // a row of philox.txt
    uint64_t rounds, block;
    Draw draw;
    uint32_t words[4];
    // What the row demands of words from the generator: to be equal or, if it is of another number of rounds, not.
    bool holds(const uint32_t w[4]) const { return std::equal(w, w + 4, words) == (rounds == 10); }
};

struct Golden {  // a row of format1.txt
    std::string name;
    Storage storage;
    Transform transform;
    Draw draw;
    uint64_t index, count, first[4], hash;
    size_t item() const { return size_t(item_size(storage)); }
};

std::vector<std::string> read_rows(const std::string& path) {
    std::ifstream file(path);
    std::vector<std::string> rows;
    for (std::string line; std::getline(file, line);)
        if (!line.empty() && line[0] != '#') rows.push_back(line);
    if (rows.empty()) stop("no rows in " + path);
    return rows;
}

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);)
        if (!part.empty()) parts.push_back(part);
    return parts;
}

uint64_t number(const std::string& text, int base) { return strtoull(text.c_str(), nullptr, base); }

Answer parse_answer(const std::string& row) {
    const std::vector<std::string> c = split(row, ' ');
    if (c.size() != 11) stop("not a row of philox.txt: " + row);
    const auto pair = [&](size_t low) { return number(c[low], 16) | number(c[low + 1], 16) << 32; };
    Answer a = {number(c[0], 10), pair(1), {pair(5), pair(3)}, {}};
    for (size_t i = 0; i < 4; ++i) a.words[i] = uint32_t(number(c[7 + i], 16));
    return a;
}

Golden parse_golden(const std::string& row) {
    const std::vector<std::string> c = split(row, ' ');
    const auto storage = c.size() == 11 ? std::find(kStorageNames, kStorageNames + kStorages, c[1]) : kStorageNames + kStorages;
    if (storage == kStorageNames + kStorages) stop("not a row of format1.txt: " + row);
    Golden g = {c[0] + " " + c[1] + " from " + c[4], Storage(storage - kStorageNames), {}, {}, 0, 0, {}, 0};
    g.draw = {number(c[2], 16), number(c[3], 16)};
    g.index = number(c[4], 10);
    g.count = number(c[5], 10);
    g.hash = number(c[10], 16);
    g.transform.kind = Kind(number(c[6], 10));
    const std::vector<std::string> params = split(c[7], ','), integers = split(c[8], ','), first = split(c[9], ',');
    for (size_t i = 0; i < 4; ++i) g.first[i] = number(first.at(i), 16);
    if (params.size() > kMaxParams || integers.size() > kMaxIntegers) stop("too many parameters: " + row);
    for (size_t i = 0; i < params.size(); ++i) g.transform.params[i] = strtod(params[i].c_str(), nullptr);  // "-" gives 0
    for (size_t i = 0; i < integers.size(); ++i) g.transform.integers[i] = int64_t(number(integers[i], 10));
    return g;
}

struct Combined {  // a row of combined.txt
    Combine how;
    bool x_is_bits;
    Golden made;
};

Combined parse_combined(const std::string& row) {
    const std::vector<std::string> c = split(row, ' ');
    if (c.size() != 14 || (c[0] != "add" && c[0] != "lerp")) stop("not a row of combined.txt: " + row);
    const Combine how = {c[0] == "add" ? Mode::kAdd : Mode::kLerp, strtod(c[1].c_str(), nullptr)};
    Golden made = parse_golden(row.substr(row.find(c[2] + " ") + c[2].size() + 1));
    made.name = c[0] + " " + made.name;
    return {how, c[2] == "bits", made};
}

uint64_t fnv1a64(const unsigned char* data, size_t size) {
    uint64_t hash = 0xCBF29CE484222325;
    for (size_t i = 0; i < size; ++i) hash = (hash ^ data[i]) * 0x100000001B3;
    return hash;
}

// ---- filling -------------------------------------------------------------------------------------------------------------

constexpr unsigned char kUntouched = 0xA5;

struct Guarded {  // n bytes for elements of one size, aligned to that size and no better, and 64 or more on either side
    Bytes bytes;
    unsigned char* data;
    Guarded(uint64_t n, size_t item) : bytes(n + 160, kUntouched), data(bytes.data() + 64 + item) {}
};

void fill_dims(const Golden& g, uint64_t index, const std::vector<Dim>& dims, unsigned char* out, int threads = 1,
               Combine how = {}) {
    FillJob job = {reinterpret_cast<char*>(out), g.storage, g.transform, g.draw, index, int(dims.size()), {}};
    std::copy(dims.begin(), dims.end(), job.dims);
    CpuFill fill({job}, how);
    fill.run(0, fill.tiles(), threads);
}

void fill_run(const Golden& g, uint64_t index, uint64_t n, unsigned char* out, int threads = 1) {
    fill_dims(g, index, {{int64_t(n), 1, 1}}, out, threads);
}

Bytes filled(const Golden& g, uint64_t index, uint64_t n, int threads = 1) {
    Guarded buffer(n * g.item(), g.item());
    fill_run(g, index, n, buffer.data, threads);
    return buffer.bytes;
}

// ---- floating-point environment ------------------------------------------------------------------------------------------

#if defined(__x86_64__)
constexpr uint64_t kHostile = 0x1F80 | 0x8040 | 0x4000;  // MXCSR: flush results and operands to zero, round up
uint64_t float_control() { return _mm_getcsr() & 0xFFC0; }
void set_float_control(uint64_t control) { _mm_setcsr(unsigned(control)); }
#elif defined(__aarch64__)
constexpr uint64_t kHostile = 1 << 24 | 1 << 22;  // FPCR: flush to zero, round up
uint64_t float_control() {
    uint64_t control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    return control;
}
void set_float_control(uint64_t control) { asm volatile("msr fpcr, %0" : : "r"(control)); }
#else  // nothing is known of it
constexpr uint64_t kHostile = 0;
uint64_t float_control() { return 0; }
void set_float_control(uint64_t) {}
#endif

// ---- checks --------------------------------------------------------------------------------------------------------------

void check_known_answers(const std::vector<Answer>& answers) {
    for (const Answer& a : answers) {
        const scalar::PhiloxSpan<uint32_t> span(a.draw.seed, a.draw.stream, uint32_t(a.block >> 32));
        uint32_t w[4];
        scalar::philox4x32_10(uint32_t(a.block), span, w);
        expect(a.holds(w), "generator: known answer %08x...", a.words[0]);
    }
    for (const std::string& isa : available_isas()) {
        select_isa(isa);
        for (const Answer& a : answers) {
            if (a.block >> 62) continue;  // beyond the last index
            const Golden bits = {"", Storage::kUInt32, {}, a.draw, 0, 0, {}, 0};
            const uint64_t before = std::min(a.block, uint64_t(2499));  // alone, and at the end and start of longer runs
            for (const auto& [from, blocks] : {std::pair{a.block, 1}, {a.block, 1025}, {a.block - before, int(before) + 1}}) {
                std::vector<uint32_t> w(4 * size_t(blocks));
                fill_run(bits, 4 * from, w.size(), reinterpret_cast<unsigned char*>(w.data()));
                expect(a.holds(&w[4 * (a.block - from)]), "%s: known answer %08x...", isa.c_str(), a.words[0]);
            }
        }
    }
}

// The whole row at once, and in pieces of odd sizes, so that every piece but the first starts anywhere in a block.
void check_golden(const Golden& g, const char* isa) {
    const uint64_t pieces[] = {1, 2, 3, 5, 61, 769, 7, 1537, 127};
    Guarded whole(g.count * g.item(), g.item()), parts(g.count * g.item(), g.item());
    fill_run(g, g.index, g.count, whole.data);
    uint64_t first[4] = {};
    for (size_t i = 0; i < 4; ++i) memcpy(&first[i], whole.data + i * g.item(), g.item());  // of a little-endian machine
    expect(std::equal(first, first + 4, g.first), "%s: %s starts otherwise", isa, g.name.c_str());
    expect(fnv1a64(whole.data, g.count * g.item()) == g.hash, "%s: %s has another hash", isa, g.name.c_str());
    for (uint64_t done = 0, i = 0, n; done < g.count; done += n, ++i) {
        n = std::min(pieces[i % 9], g.count - done);
        fill_run(g, g.index + done, n, parts.data + done * g.item());
    }
    expect(parts.bytes == whole.bytes, "%s: %s in pieces differs", isa, g.name.c_str());
    if (g.index == 0) {
        std::fill_n(parts.data, g.count * g.item(), kUntouched);
        fill_small(g.transform, g.storage, g.draw, reinterpret_cast<char*>(parts.data), g.count);
        expect(parts.bytes == whole.bytes, "%s: %s by fill_small differs", isa, g.name.c_str());
    }
    std::fill_n(whole.data, g.count * g.item(), kUntouched);
    const bool inside = std::all_of(whole.bytes.begin(), whole.bytes.end(), [](unsigned char c) { return c == kUntouched; });
    expect(inside, "%s: %s wrote outside its elements", isa, g.name.c_str());
}

// The elements that a row of combined.txt begins with.
Bytes elements_before(const Combined& c) {
    const Golden& g = c.made;
    const Draw draw = {g.draw.seed, g.draw.stream ^ 1};
    const Golden bits = {"", Storage::kUInt32, {}, draw, 0, 0, {}, 0};
    Golden normal = {"", g.storage, {Kind::kNormal, {0, 1}, {}}, draw, 0, 0, {}, 0};
    const uint64_t bytes = g.count * g.item(), words = (bytes + 3) / 4;
    Bytes x(words * 4 + 8);
    if (c.x_is_bits)
        fill_run(bits, 0, words, x.data());
    else
        fill_run(normal, g.index, g.count, x.data());
    x.resize(bytes);
    return x;
}

// The whole row at once; every other element of a matrix twice as wide; and in a hostile floating-point environment.
void check_combined(const Combined& c, const char* isa) {
    const Golden& g = c.made;
    const Bytes x = elements_before(c);
    Guarded whole(x.size(), g.item()), strided(2 * x.size(), g.item());
    memcpy(whole.data, x.data(), x.size());
    for (uint64_t i = 0; i < g.count; ++i) memcpy(strided.data + 2 * i * g.item(), x.data() + i * g.item(), g.item());
    const uint64_t before = float_control();
    set_float_control(kHostile);
    fill_dims(g, g.index, {{int64_t(g.count), 1, 1}}, whole.data, 1, c.how);
    fill_dims(g, g.index, {{int64_t(g.count), 2, 1}}, strided.data, 2, c.how);
    set_float_control(before);
    uint64_t first[4] = {};
    for (size_t i = 0; i < 4; ++i) memcpy(&first[i], whole.data + i * g.item(), g.item());
    expect(std::equal(first, first + 4, g.first), "%s: %s starts otherwise", isa, g.name.c_str());
    expect(fnv1a64(whole.data, x.size()) == g.hash, "%s: %s has another hash", isa, g.name.c_str());
    bool same = true;
    for (uint64_t i = 0; i < g.count; ++i) {
        unsigned char* at = strided.data + 2 * i * g.item();
        same = same && memcmp(at, whole.data + i * g.item(), g.item()) == 0;
        std::fill_n(at, g.item(), kUntouched);
    }
    expect(same, "%s: %s, every other element, differs", isa, g.name.c_str());
    std::fill_n(whole.data, x.size(), kUntouched);
    const auto untouched = [](const Bytes& b) {
        return std::all_of(b.begin(), b.end(), [](auto v) { return v == kUntouched; });
    };
    expect(untouched(whole.bytes) && untouched(strided.bytes), "%s: %s wrote outside its elements", isa, g.name.c_str());
}

// An ISA has a kernel exactly where scalar has one.
void check_kernels_exist(const std::string& isa) {
    for (int i = 0; i < kKinds * kStorages; ++i) {
        const Transform t = {Kind(i / kStorages), {}, {}};
        select_isa("scalar");
        const bool wanted = has_kernel(t, Storage(i % kStorages));
        select_isa(isa);
        const bool found = has_kernel(t, Storage(i % kStorages));
        expect(found == wanted, "%s: kernel of kind %d in %s", isa.c_str(), int(t.kind), kStorageNames[i % kStorages]);
    }
}

// Vector kernels against scalar: sizes and indices at random, a third of them across the end of 2^32 blocks.
void check_against_scalar(Golden g, const std::string& isa) {
    for (int trial = 0; trial < 3; ++trial) {
        const uint64_t n = 1 + random_below(1 + random_below(3000));
        const uint64_t wrap = (1 + random_below(1000)) * (uint64_t(4) << 32);
        const uint64_t index = trial == 0 ? wrap - random_below(n + 1) : random64() >> (trial == 1 ? 2 : 14 + random_below(50));
        g.draw = {random64(), random64()};
        select_isa("scalar");
        const Bytes expected = filled(g, index, n);
        select_isa(isa);
        expect(filled(g, index, n) == expected, "%s: %s, now %llu from %llu, differs from scalar", isa.c_str(), g.name.c_str(),
               static_cast<unsigned long long>(n), static_cast<unsigned long long>(index));
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
    {"three tiles", 3, {{3, 65537, 65537}, {65537, 1, 1}}},
    {"transposed", 0, {{37, 1, 53}, {53, 37, 1}}},
    {"transposed, tiles", 0, {{300, 1, 301}, {301, 300, 1}}},
    {"transposed, large", 5, {{521, 1, 512}, {512, 576, 1}}},
    {"pairs, transposed", 6, {{70, 2, 180}, {90, 140, 2}, {2, 1, 1}}},
    {"every other, transposed", 0, {{70, 2, 300}, {300, 150, 1}}},
    {"rows of several planes, transposed", 9, {{300, 1, 70}, {3, 400 * 70, 300 * 70}, {70, 400, 1}}},
    {"channels_last, 3 x 3", 0, {{2, 70 * 9, 70 * 9}, {70, 1, 9}, {9, 70, 1}}},
    {"shard of channels_last", 18, {{3, 720, 2 * 70 * 9}, {70, 1, 18}, {9, 80, 1}}},
    {"every third", 0, {{41, 3 * 29, 29}, {29, 3, 1}}},
    {"padded rows", 0, {{31, 64, 50}, {50, 1, 1}}},
    {"channels_last", 0, {{2, 5 * 6 * 7, 5 * 6 * 7}, {5, 1, 42}, {6, 5 * 7, 7}, {7, 5, 1}}},
    {"size-1 dimensions", 0, {{1, 999, 64}, {8, 1, 8}, {1, 5, 8}, {8, 8, 1}}},
    {"rows of a shard", 4 * 96, {{3, 96, 96}, {96, 1, 1}}},
    {"columns of a shard", 17, {{40, 23, 96}, {23, 1, 1}}},
    {"block of a shard, transposed", 5 * 96 + 17, {{10, 1, 96}, {23, 10, 1}}},
    {"shard in the middle", 2 * 1000 + 3 * 10 + 1, {{4, 35, 1000}, {7, 5, 10}, {5, 1, 1}}},
    {"steps beyond 2^32", 11, {{3, 100, int64_t(3) << 34}, {5, 20, int64_t(1) << 33}, {20, 1, 1}}},
    {"across 2^32 blocks", (uint64_t(1) << 34) - 333, {{3, 400, 400}, {400, 1, 1}}},
};

// Through CpuFill, strides and all, against every element on its own by the scalar kernel.
void check_region(const Shape& shape, const Golden& g, const char* isa) {
    size_t count = 1, extent = 1;
    for (const Dim& dim : shape.dims) {
        count *= size_t(dim.size);
        extent += size_t((dim.size - 1) * dim.stride);
    }
    Guarded expected(extent * g.item(), g.item()), made(extent * g.item(), g.item());
    const RunFn one = find_run_scalar(g.transform.kind, g.storage);
    for (size_t n = 0; n < count; ++n) {
        uint64_t index = shape.index, memory = 0, rest = n;
        for (size_t d = shape.dims.size(); d-- > 0; rest /= uint64_t(shape.dims[d].size)) {
            const uint64_t at = rest % uint64_t(shape.dims[d].size);
            index += at * uint64_t(shape.dims[d].step);
            memory += at * uint64_t(shape.dims[d].stride);
        }
        one(expected.data + memory * g.item(), index, 1, g.transform, g.draw);
    }
    fill_dims(g, shape.index, shape.dims, made.data, count > 100000 ? 3 : 1);
    expect(made.bytes == expected.bytes, "%s: region '%s' of %s differs", isa, shape.name, g.name.c_str());
}

// Flush to zero and another rounding, as an application may have set them, change nothing and are there again afterwards.
void check_float_environment(const Golden& g, const char* isa) {
    const Bytes expected = filled(g, g.index, g.count);
    const uint64_t before = float_control();
    set_float_control(kHostile);
    const Bytes made = filled(g, g.index, g.count);
    const uint64_t after = float_control();
    set_float_control(before);
    expect(made == expected, "%s: %s depends on the floating-point environment", isa, g.name.c_str());
    expect(after == kHostile, "%s: %s left the floating-point environment changed", isa, g.name.c_str());
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) stop("usage: core_tests <tests/vectors>");
    std::vector<Answer> answers;
    std::vector<Golden> golden;
    std::vector<Combined> combined;
    for (const std::string& row : read_rows(std::string(argv[1]) + "/philox.txt")) answers.push_back(parse_answer(row));
    for (const std::string& row : read_rows(std::string(argv[1]) + "/format1.txt")) golden.push_back(parse_golden(row));
    for (const std::string& row : read_rows(std::string(argv[1]) + "/combined.txt")) combined.push_back(parse_combined(row));

    std::vector<Golden> random_rows;  // whose kernels have an ISA
    std::copy_if(golden.begin(), golden.end(), std::back_inserter(random_rows),
                 [](const Golden& g) { return find_run_scalar(g.transform.kind, g.storage) != nullptr; });

    check_known_answers(answers);
    for (const std::string& isa : available_isas()) {
        const int before = passed;
        check_kernels_exist(isa);
        for (const Golden& g : golden) {
            select_isa(isa);
            check_golden(g, isa.c_str());
            check_float_environment(g, isa.c_str());
            if (isa != "scalar") check_against_scalar(g, isa);
        }
        select_isa(isa);
        for (const Combined& c : combined) check_combined(c, isa.c_str());
        for (size_t i = 0; i < 4 * std::size(kShapes); ++i)
            check_region(kShapes[i / 4], random_rows[i * 37 % random_rows.size()], isa.c_str());
        for (size_t i = 0; i < golden.size(); i += 40) {
            const Golden& g = golden[i];
            expect(filled(g, 3, 333333, 4) == filled(g, 3, 333333), "%s: %s on 4 threads differs", isa.c_str(), g.name.c_str());
        }
        printf("%s: %d passed\n", isa.c_str(), passed - before);
    }
    printf("threads: %s\n", parallel_runtime().c_str());
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
