// The pybind11 module weightinit_cuda._C and nothing else: addresses, sizes and numbers in, no Torch. The caller
// (weightinit_cuda/engine) has checked everything; what is checked here are invariants, so that a slip raises, not crashes.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#if !defined(WEIGHTINIT_NO_CUDA)
#include "cuda/fill_cuda.h"
#endif

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

Storage checked_storage(const Transform& transform, int storage) {
    if (storage < 0 || storage >= kStorages || !has_kernel(transform, Storage(storage)))
        throw std::invalid_argument("no kernel for this kind and storage");
    return Storage(storage);
}

// Elements that no address space holds, or at no address: a slip of the caller, not a segmentation fault.
void require_memory(uintptr_t data, uint64_t elements) {
    if (elements >> 60) throw std::invalid_argument("more elements than memory can have");
    if (elements && !data) throw std::invalid_argument("elements must have memory");
}

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

// Runs all tiles, looking at Ctrl-C between slabs.
void run_interruptibly(const CpuFill& fill, int threads, const uint64_t* seed = nullptr) {
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
    FillJob job = {};
    job.data = reinterpret_cast<char*>(data);
    job.storage = checked;
    job.transform = transform;
    job.draw = draw;
    job.ndim = 1;
    job.dims[0] = {int64_t(count), 1, 1};
    run_interruptibly(CpuFill({job}), threads);
}

// The same with the seed that torch has just drawn into memory, on stream 0: the drop-in call, where every microsecond counts.
void fill_drawn(uintptr_t data, int storage, uint64_t count, const Transform& transform, uintptr_t seed, int threads) {
    if (!seed) throw std::invalid_argument("the seed must have memory");
    fill_contiguous(data, storage, count, transform, *reinterpret_cast<const uint64_t*>(seed), 0, threads);
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

std::vector<FillJob> make_jobs(const std::vector<JobTuple>& tuples, int mode) {
    if (mode < 0 || mode >= kModes) throw std::invalid_argument("mode out of range");
    std::vector<FillJob> jobs;
    jobs.reserve(tuples.size());
    for (const JobTuple& tuple : tuples) {
        jobs.push_back(make_job(tuple));
        if (!can_combine(Mode(mode), jobs.back().storage)) throw std::invalid_argument("this storage cannot be combined");
    }
    return jobs;
}

void fill(const std::vector<JobTuple>& tuples, int threads, int mode, double weight) {
    run_interruptibly(CpuFill(make_jobs(tuples, mode), {Mode(mode), weight}), threads);
}

// Jobs made ready once, run under any seed.
std::unique_ptr<CpuFill> prepare(const std::vector<JobTuple>& tuples) {
    return std::make_unique<CpuFill>(make_jobs(tuples, int(Mode::kStore)));
}

void run_prepared(const CpuFill& prepared, uint64_t seed, int threads) { run_interruptibly(prepared, threads, &seed); }

#if !defined(WEIGHTINIT_NO_CUDA)
// Tables ready to launch. Where they do not fit into a kernel's parameters, Python copies bytes() to the device first; or they go
// in several launches.
struct CudaLaunch {
    std::vector<CudaPart> parts;
    Combine combine = {};
};

CudaLaunch make_launch(const std::vector<JobTuple>& tuples, int mode, double weight) {
    return {make_parts(make_jobs(tuples, mode), Mode(mode)), {Mode(mode), weight}};
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

void run_launch(const CudaLaunch& tables, uintptr_t far, uintptr_t stream, int device) {
    std::string error;
    without_gil([&] { error = launch(tables.parts, far, device, stream, tables.combine); });
    if (!error.empty()) throw std::runtime_error("weightinit_cuda: the kernel launch failed with " + error);
}
#endif

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "Kernels of weightinit_cuda. Private: use weightinit_cuda.engine.";
    m.attr("version") = WEIGHTINIT_VERSION;
    m.attr("max_dims") = kMaxDims;
    py::class_<Transform>(m, "Transform")
        .def(py::init(&make_transform), py::arg("kind"), py::arg("params"), py::arg("integers"));
    m.def("fill_contiguous", &fill_contiguous, py::arg("data"), py::arg("storage"), py::arg("count"), py::arg("transform"),
          py::arg("seed"), py::arg("stream"), py::arg("threads"));
    m.def("fill_drawn", &fill_drawn, py::arg("data"), py::arg("storage"), py::arg("count"), py::arg("transform"),
          py::arg("seed"), py::arg("threads"));
    m.def("fill", &fill, py::arg("jobs"), py::arg("threads"), py::arg("mode") = 0, py::arg("weight") = 0.0);
    py::class_<CpuFill>(m, "CpuFill")
        .def(py::init(&prepare), py::arg("jobs"))
        .def("run", &run_prepared, py::arg("seed"), py::arg("threads"));
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
