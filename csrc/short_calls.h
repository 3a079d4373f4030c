// Calls of init, and of torch.nn.init under patched(), on plain tensors of the CPU: every question that such a call has to ask, the
// draw of its seed and the fill, without a line of Python. What is not that plain is declined: nothing is drawn or written, and
// the caller takes the general way.
#pragma once
#include <pybind11/pybind11.h>

#include <vector>

#include "meanings.h"
#include "plain_tensors.h"

namespace wi {

namespace py = pybind11;

// Functions of Python that take their arguments as they are: pybind11's way of calling takes as long as a small fill.
class ShortCalls {
  public:
    // plain_tensors: of this module.
    // seed_cell: `both` are its random_ and its address, in every thread its own. lowest: where the range of 64 bits begins.
    // tracers: whether operators are recorded, so that a fill must be one. transforms: whether functorch does.
    // overridden: whether somebody else decides what a call with a tensor does.
    // grad_enabled: whether autograd looks. forward: whether forward-mode autograd may.
    ShortCalls(py::object plain_tensors, py::object seed_cell, py::object lowest, const py::tuple& tracers,
               py::object transforms, py::object overridden, py::object grad_enabled, py::object forward);

    // drawn(tensor, scheme, args): a function of init, which fills with scheme(*args); these begin with the tensor's dtype.
    bool drawn(PyObject* const* given, Py_ssize_t n);
    // called(row, args, own): a function of torch.nn.init, by its row in the catalog. So many of its arguments are the
    // tensor and its own; one after them may be a generator. Of rows that draw nothing, the caller must ask only for those of the
    // constants 0 and 1, which need no rounding: it is not checked here.
    bool called(PyObject* const* given, Py_ssize_t n);
    // method(row, names, tensor, args, named): the same of a method of tensors with two own arguments of these names, which are
    // 0 and 1 by default.
    bool method(PyObject* const* given, Py_ssize_t n);

  private:
    struct Call;
    bool is_traced() const;
    bool call(const Call& call);
    template <class Ask>
    bool fill(py::handle tensor, const Plain& plain, bool is_random, const Meant& meant, const Ask& ask);
    uint64_t draw() const;

    py::object keep_;
    const PlainTensors& plain_;
    py::object seed_cell_, range_, transforms_, overridden_, grad_enabled_, forward_;
    std::vector<py::object> tracers_;
    Meanings forms_;
    py::float_ zero_{0.0}, one_{1.0};
};

// The three of them, as one tuple.
py::tuple short_calls(ShortCalls calls);

}  // namespace wi
