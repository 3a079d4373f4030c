// Tensors as Python shows them, read without a header of torch: which are plain, dense memory that a kernel may write as it is,
// and where. The jobs of a whole model in one call; one tensor in as little time as a call can take.
#pragma once
#include <pybind11/pybind11.h>

#include <array>
#include <utility>
#include <vector>

#include "dlpack.h"
#include "table.h"

namespace wi {

namespace py = pybind11;

// The jobs of a list whose tensors are plain, as tables, and the others.
struct Gathered {
    py::list tables;                     // of (device, Table)
    py::list tensors;                    // that are plain
    py::list others;                     // jobs; of columns their numbers
    std::vector<uint64_t> begins, ends;  // addresses of the plain ones

    // Whether none of them shares memory with another one, or with [begin, end) of an other job.
    bool apart(const std::vector<std::pair<uint64_t, uint64_t>>& extents) const;
};

// Where the elements of a plain tensor are.
struct Plain {
    uintptr_t data;
    int storage;
    uint64_t count;
    bool is_cpu;
    bool has_shape;  // is known to be one tensor, and no list of them that torch calls nested
};

class PlainTensors {
  public:
    // types: of tensors whose objects are the memory that they show.
    // storage: the kernels' number of each dtype that they write.
    // store: what a job says that combines nothing.
    // transform_of: from distribution and dtype to a Transform; None if it takes more than one pass.
    // has_kernels: whether a device is written by the kernels.
    // increment_version: tells autograd of tensors that are written.
    // threads: how many there may be.
    PlainTensors(const py::tuple& types, const py::dict& storage, py::object store, py::object transform_of,
                 py::object has_kernels, py::object increment_version, py::object threads);

    Gathered gather(const py::object& jobs) const;

    // The same of jobs that fill whole tensors, as columns, and of others after them.
    Gathered gather_whole(const py::list& tensors, const py::list& distributions, const py::list& streams, uint64_t seed,
                          const py::object& jobs) const;

    // Fills a plain tensor of the CPU. False, and nothing is drawn or written, for any other tensor.
    bool fill(py::handle tensor, py::handle distribution, uint64_t seed, uint64_t stream) const;

    // What a plain tensor shows. False for any other one.
    bool read(py::handle tensor, Plain& plain) const;
    // The kernels' form of a distribution; null if they do not make it in one pass. Its object has to be kept.
    const Transform* transform(py::handle distribution, const Plain& plain, py::object& keep) const;
    py::handle dtype(const Plain& plain) const { return dtypes_[size_t(plain.storage)]; }
    // Tells autograd: before the fill, which Ctrl-C may end.
    void about_to_write(py::handle tensor) const;
    void write(const Plain& plain, const Transform& transform, const Draw& draw) const;

  private:
    class Gathering;
    bool shown(py::handle tensor, Plain& plain, bool& is_dense) const;
    bool asked_for(py::handle tensor, Plain& plain) const;

    std::vector<py::object> types_;
    std::array<py::object, kStorages> dtypes_;  // null for what no tensor has
    const dlpack::ExchangeApi* exchange_;
    py::object store_, transform_of_, has_kernels_, increment_version_, threads_;
    py::object is_contiguous_, is_inference_, is_neg_, data_ptr_, numel_;  // methods of tensors
    py::str dtype_ = "dtype", device_ = "device", is_cpu_ = "is_cpu", forms_ = "forms";
};

}  // namespace wi
