// The pybind11 module weightinit_cuda._C and nothing else: the kernels, which take addresses, sizes and numbers, and what goes over
// models, rules, plans and recordings, as Python shows them. No header of Torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "blake2b.h"
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "first_fills.h"
#include "module_attributes.h"
#include "named_tensors.h"
#include "plain_tape.h"
#include "plain_tensors.h"
#include "plan_columns.h"
#include "registered.h"
#include "short_calls.h"
#include "subscripts.h"
#include "table.h"
#if !defined(WEIGHTINIT_NO_CUDA)
#include "cuda/fill_cuda.h"
#endif

namespace wi {

namespace {

// Calls fn without the GIL. pybind11's class would not do: at the interpreter's end Python ends a daemon thread that asks for the
// GIL by unwinding its stack, which no destructor lets through.
template <class Function>
void without_gil(const Function& fn) {
    PyThreadState* const state = PyEval_SaveThread();
    try {
        fn();
    } catch (...) {
        PyEval_RestoreThread(state);
        throw;
    }
    PyEval_RestoreThread(state);
}

}  // namespace

void run_interruptibly(const CpuFill& fill, int threads, const uint64_t* seed) {
    for (int64_t begin = 0; begin < fill.tiles(); begin += kSlabTiles) {
        without_gil([&] { fill.run(begin, std::min(begin + kSlabTiles, fill.tiles()), threads, seed); });
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
}

void fill_contiguous(uintptr_t data, int storage, uint64_t count, const Transform& transform, uint64_t seed, uint64_t stream,
                     int threads) {
    const Storage checked = checked_storage(transform, storage);
    const Draw draw{seed, stream};
    require_memory(data, count);
    if (count <= kSmall) return fill_small(transform, checked, draw, reinterpret_cast<char*>(data), count);
    std::vector<FillJob> jobs(1);
    put_contiguous(jobs.front(), data, checked, count, transform, draw);
    run_interruptibly(CpuFill(std::move(jobs)), threads);
}

}  // namespace wi

namespace py = pybind11;
using namespace wi;

namespace {

Transform make_transform(int kind, const std::vector<double>& params, const std::vector<py::int_>& integers) {
    if (kind < 0 || kind >= kKinds || params.size() > size_t(kMaxParams) || integers.size() > size_t(kMaxIntegers))
        throw std::invalid_argument("Transform: kind or number of parameters out of range");
    Transform t = {};
    t.kind = Kind(kind);
    for (size_t i = 0; i < params.size(); ++i) t.params[i] = params[i];
    for (size_t i = 0; i < integers.size(); ++i) t.integers[i] = int64_t(PyLong_AsUnsignedLongLongMask(integers[i].ptr()));
    if (t.kind == Kind::kOneHot && (t.integers[0] < 1 || t.integers[1] < 1))  // divided by
        throw std::invalid_argument("Transform: row and period must be at least 1");
    return t;
}

// (data, storage, transform, seed, stream, index, [(size, stride, step), ...])
using JobTuple =
    std::tuple<uintptr_t, int, Transform, uint64_t, uint64_t, uint64_t, std::vector<std::tuple<int64_t, int64_t, int64_t>>>;

FillJob make_job(const JobTuple& tuple) {
    const auto& [data, storage, transform, seed, stream, index, dims] = tuple;
    if (dims.size() > size_t(kMaxDims)) throw std::invalid_argument("too many dimensions");
    FillJob job = {};
    job.data = reinterpret_cast<char*>(data);
    job.storage = checked_storage(transform, storage);
    job.transform = transform;
    job.draw = {seed, stream};
    job.index = index;
    job.ndim = int(dims.size());
    uint64_t elements = 1;
    for (size_t i = 0; i < dims.size(); ++i) {
        const auto& [size, stride, step] = dims[i];
        if (size < 1) throw std::invalid_argument("a dimension must have at least one element");
        if (uint64_t(size) > (uint64_t(1) << 60) / elements) throw std::invalid_argument("more elements than memory can have");
        elements *= uint64_t(size);
        job.dims[i] = {size, stride, step};
    }
    require_memory(data, elements);
    return job;
}

void append(Table& table, const JobTuple& tuple) { table.jobs.push_back(make_job(tuple)); }

Table make_table(const std::vector<JobTuple>& tuples) {
    Table table;
    table.jobs.reserve(tuples.size());
    for (const JobTuple& tuple : tuples) append(table, tuple);
    return table;
}

Combine checked_combine(const std::vector<FillJob>& jobs, int mode, double weight) {
    if (mode < 0 || mode >= kModes) throw std::invalid_argument("mode out of range");
    for (const FillJob& job : jobs)
        if (!can_combine(Mode(mode), job.storage)) throw std::invalid_argument("this storage cannot be combined");
    return {Mode(mode), weight};
}

// Jobs made ready once, run under any seed.
std::unique_ptr<CpuFill> prepare(Table& table) {
    return std::make_unique<CpuFill>(std::exchange(table.whole, {}), std::move(table.jobs));
}

void fill(Table& table, int threads, int mode, double weight) {
    if (mode == int(Mode::kStore)) return run_interruptibly(*prepare(table), threads);
    std::vector<FillJob> jobs = table.all();
    const Combine combine = checked_combine(jobs, mode, weight);
    table = {};
    run_interruptibly(CpuFill(std::move(jobs), combine), threads);
}

void run_prepared(const CpuFill& prepared, uint64_t seed, int threads) { run_interruptibly(prepared, threads, &seed); }

// The streams of names: weightinit_cuda/numerics/streams.py. 0 is the stream of what has none.
py::list streams_of(const py::list& names, const py::bytes& domain) {
    char person[16] = {};
    const std::string tag = domain;
    if (tag.size() > sizeof person) throw std::invalid_argument("a domain has at most 16 bytes");
    std::memcpy(person, tag.data(), tag.size());
    py::list streams(names.size());
    for (size_t i = 0; i < names.size(); ++i) {
        Py_ssize_t size = 0;
        const char* const text = PyUnicode_AsUTF8AndSize(PyList_GET_ITEM(names.ptr(), Py_ssize_t(i)), &size);
        if (!text) throw py::error_already_set();
        const uint64_t stream = Blake2b64::digest(text, uint64_t(size), person);
        streams[i] = py::int_(stream ? stream : 1);
    }
    return streams;
}

#if !defined(WEIGHTINIT_NO_CUDA)
// Tables ready to launch. Where they do not fit into a kernel's parameters, Python copies bytes() to the device first; or they go
// in several launches.
struct CudaLaunch {
    std::vector<CudaPart> parts;
    Combine combine = {};
};

CudaLaunch make_launch(const Table& table, int mode, double weight) {
    const std::vector<FillJob> jobs = table.all();
    const Combine combine = checked_combine(jobs, mode, weight);
    return {make_parts(jobs, combine.mode), combine};
}

size_t rows_of(const CudaLaunch& launch) {
    size_t rows = 0;
    for (const CudaPart& part : launch.parts) rows += part.jobs.size();
    return rows;
}

CudaLaunch with_seed(CudaLaunch launch, uint64_t seed) {
    for (CudaPart& part : launch.parts)
        for (CudaJob& job : part.jobs) job.seed = seed;
    return launch;
}

py::bytes launch_bytes(const CudaLaunch& launch) {
    std::string bytes;
    for (const CudaPart& part : launch.parts)
        bytes.append(reinterpret_cast<const char*>(part.jobs.data()), part.jobs.size() * sizeof(CudaJob));
    return py::bytes(bytes);
}

void launch_or_throw(const std::vector<CudaPart>& parts, uintptr_t far, uintptr_t stream, int device, const Combine& combine) {
    std::string error;
    without_gil([&] { error = launch(parts, far, device, stream, combine); });
    if (!error.empty()) throw std::runtime_error("weightinit_cuda: the kernel launch failed with " + error);
}

void run_launch(const CudaLaunch& tables, uintptr_t far, uintptr_t stream, int device) {
    launch_or_throw(tables.parts, far, stream, device, tables.combine);
}

// Consecutive elements of a tensor that is its own global one, on stream 0, with the seed that a CUDA generator of torch draws.
void cuda_fill_drawn(uintptr_t data, int storage, uint64_t count, const Transform& transform, uint64_t generator_seed,
                     uint64_t position, uintptr_t stream, int device) {
    FillJob job = {};
    put_contiguous(job, data, checked_storage(transform, storage), count, transform, {drawn_seed(generator_seed, position), 0});
    launch_or_throw(make_parts({job}, Mode::kStore), 0, stream, device, {});
}
#endif

// Where a generator of torch stands, which then moves on. Between the two no bytecode of Python is run: no signal handler and no
// other thread can come to stand at the same place.
uint64_t take_position(const py::object& generator, uint64_t count) {
    const auto position = generator.attr("get_offset")().cast<uint64_t>();
    generator.attr("set_offset")(position + count);
    return position;
}

// Construction of models, recorded.
void define_recording(py::module_& m) {
    py::class_<TapeParts>(m, "TapeParts")
        .def(py::init<py::tuple, py::object, py::object, py::object, py::object, py::object, py::object, py::object, py::object,
                      py::object, py::object, py::object>(),
             py::kw_only(), py::arg("types"), py::arg("memory"), py::arg("fill_step"), py::arg("empty"),
             py::arg("without_dispatch"), py::arg("dispatch_modes"), py::arg("function_modes"), py::arg("grad_enabled"),
             py::arg("data"), py::arg("cpu"), py::arg("meta"), py::arg("is_own"));
    py::class_<PlainTape>(m, "PlainTape")
        .def(py::init<py::object, py::list, py::dict, py::object>(), py::arg("parts"), py::arg("steps"), py::arg("memories"),
             py::arg("seeding"))
        .def_readwrite("depth", &PlainTape::depth)
        .def("plain_memory", &PlainTape::plain_memory, py::arg("tensor"))
        .def("make", &PlainTape::make, py::arg("args"), py::arg("named"), py::arg("distribution"))
        .def("fill", &PlainTape::fill, py::arg("tensor"), py::arg("distribution"))
        .def("called", &PlainTape::called, py::arg("function"), py::arg("args"), py::arg("own"))
        .def("data", &PlainTape::data, py::arg("tensor"))
        .def("held_by", &PlainTape::held_by, py::arg("modules"));
    py::class_<Registered>(m, "Registered")
        .def(py::init<py::dict, py::dict>(), py::arg("modules"), py::arg("tensors"))
        .def("tensor", &Registered::tensor, py::arg("module"), py::arg("name"), py::arg("registered"))
        .def("module", &Registered::module, py::arg("module"), py::arg("name"), py::arg("registered"))
        .def("copied", &Registered::copied, py::arg("module"));
    py::class_<ModuleAttributes>(m, "ModuleAttributes")
        .def(py::init<py::object, py::object, py::object, py::dict, py::dict>(), py::arg("module"), py::arg("parameter"),
             py::arg("tensor"), py::arg("names"), py::arg("fresh"))
        .def("begin", &ModuleAttributes::begin, py::arg("module"))
        .def("set", &ModuleAttributes::set, py::arg("module"), py::arg("name"), py::arg("value"))
        .def("parameter", &ModuleAttributes::parameter, py::arg("module"), py::arg("name"), py::arg("value"))
        .def("buffer", &ModuleAttributes::buffer, py::arg("module"), py::arg("name"), py::arg("value"))
        .def("child", &ModuleAttributes::child, py::arg("module"), py::arg("name"), py::arg("value"));
    py::class_<Subscripts>(m, "Subscripts")
        .def(py::init<py::object, py::object, py::object>(), py::arg("kind"), py::arg("base"), py::arg("like"))
        .def("put", &Subscripts::put, py::arg("methods"))
        .def("remove", &Subscripts::remove, py::arg("methods"));
}

// Models by names, rules and columns.
void define_models(py::module_& m) {
    m.def("collect", &collect, py::arg("module"), py::arg("named"), py::arg("own"), py::arg("kept"));
    m.def("look_through", &look_through, py::arg("module"), py::arg("named"), py::arg("every"), py::arg("leafless"),
          py::arg("tensor"));
    m.def("tensors_alike", &tensors_alike, py::arg("named"), py::arg("known"), py::arg("names"), py::arg("shapes"),
          py::arg("dtypes"), py::arg("aliases"));
    py::class_<ShapeKey>(m, "ShapeKey")
        .def(py::init<py::object, py::tuple>(), py::arg("kinds"), py::arg("plain"))
        .def("__call__", &ShapeKey::of, py::arg("named"));
    m.def("first_fills", &first_fills, py::arg("tensors"), py::arg("rules"), py::arg("ask"), py::arg("refusals"));
    m.def("whole_columns", &whole_columns, py::arg("covered"), py::arg("types"));
    m.def("entries_of", &entries_of, py::arg("covered"), py::arg("streams"), py::arg("entry"));
    m.def("plainly_sound", &plainly_sound, py::arg("entries"), py::arg("entry"), py::arg("can_fill"));
    m.def("streams_of", &streams_of, py::arg("names"), py::arg("domain"));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() =
        "The native module of weightinit_cuda: its kernels, and what goes over models, rules, plans and recordings. Private.";
    m.attr("version") = WEIGHTINIT_VERSION;
    m.attr("max_dims") = kMaxDims;
    py::class_<Transform>(m, "Transform")
        .def(py::init(&make_transform), py::arg("kind"), py::arg("params"), py::arg("integers"));
    m.def("fill_contiguous", &fill_contiguous, py::arg("data"), py::arg("storage"), py::arg("count"), py::arg("transform"),
          py::arg("seed"), py::arg("stream"), py::arg("threads"));
    py::class_<Table>(m, "Table")
        .def(py::init(&make_table), py::arg("jobs") = std::vector<JobTuple>())
        .def("append", &append, py::arg("job"))
        .def("__len__", &Table::size);
    py::implicitly_convertible<py::list, Table>();
    m.def("fill", &fill, py::arg("jobs"), py::arg("threads"), py::arg("mode") = 0, py::arg("weight") = 0.0);
    py::class_<CpuFill>(m, "CpuFill")
        .def(py::init(&prepare), py::arg("jobs"))
        .def("run", &run_prepared, py::arg("seed"), py::arg("threads"));
    py::class_<Gathered>(m, "Gathered")
        .def_readonly("tables", &Gathered::tables)
        .def_readonly("tensors", &Gathered::tensors)
        .def_readonly("others", &Gathered::others)
        .def("apart", &Gathered::apart, py::arg("extents"));
    py::class_<PlainTensors>(m, "PlainTensors")
        .def(py::init<const py::tuple&, const py::dict&, py::object, py::object, py::object, py::object, py::object>(),
             py::arg("types"), py::arg("storage"), py::arg("store"), py::arg("transform_of"), py::arg("has_kernels"),
             py::arg("increment_version"), py::arg("threads"))
        .def("gather", &PlainTensors::gather, py::arg("jobs"))
        .def("gather_whole", &PlainTensors::gather_whole, py::arg("tensors"), py::arg("distributions"), py::arg("streams"),
             py::arg("seed"), py::arg("jobs"))
        .def("fill", &PlainTensors::fill, py::arg("tensor"), py::arg("distribution"), py::arg("seed"), py::arg("stream"));
    m.def(
        "short_calls",
        [](py::object plain_tensors, py::object seed_cell, py::object lowest, const py::tuple& tracers, py::object transforms,
           py::object overridden, py::object grad_enabled, py::object forward) {
            return short_calls({std::move(plain_tensors), std::move(seed_cell), std::move(lowest), tracers,
                                std::move(transforms), std::move(overridden), std::move(grad_enabled), std::move(forward)});
        },
        py::kw_only(), py::arg("plain_tensors"), py::arg("seed_cell"), py::arg("lowest"), py::arg("tracers"),
        py::arg("transforms"), py::arg("overridden"), py::arg("grad_enabled"), py::arg("forward"));
    define_recording(m);
    define_models(m);
    m.def("take_position", &take_position, py::arg("generator"), py::arg("count"));
    m.def("available_isas", &available_isas);
    m.def("selected_isa", &selected_isa);
    m.def("select_isa", &select_isa, py::arg("name"));
    m.def("parallel_runtime", &parallel_runtime);
#if defined(WEIGHTINIT_NO_CUDA)
    m.attr("cuda_architectures") = "";
    m.def("why_no_cuda", [] { return "built without CUDA"; });
#else
    m.def("why_no_cuda", [] { return ""; });
    m.attr("cuda_architectures") = WEIGHTINIT_ARCHITECTURES;
    m.attr("cuda_inline_jobs") = kInlineJobs;
    m.def("cuda_fill_drawn", &cuda_fill_drawn, py::arg("data"), py::arg("storage"), py::arg("count"), py::arg("transform"),
          py::arg("generator_seed"), py::arg("position"), py::arg("stream"), py::arg("device"));
    m.def("cuda_drawn_seed", &drawn_seed, py::arg("generator_seed"), py::arg("position"));
    m.def(
        "why_not_on",
        [](int device) {
            std::string why;
            without_gil([&] { why = why_not_on(device); });
            return why;
        },
        py::arg("device"));
    py::class_<CudaLaunch>(m, "CudaLaunch")
        .def(py::init(&make_launch), py::arg("jobs"), py::arg("mode") = 0, py::arg("weight") = 0.0)
        .def("__len__", &rows_of)
        .def("with_seed", &with_seed, py::arg("seed"))
        .def("bytes", &launch_bytes)
        .def("run", &run_launch, py::arg("far"), py::arg("stream"), py::arg("device") = -1);
#endif
}
