// What a thread registers in modules of torch.nn, without a line of Python.
// weightinit_cuda/recording/wholes.py says what for.
#pragma once
#include <pybind11/pybind11.h>

#include <utility>

namespace wi {

namespace py = pybind11;

class Registered {
  public:
    // modules: by their identity. tensors: by the identity of their module, and their names. The thread is the caller's.
    Registered(py::dict modules, py::dict tensors);

    void tensor(py::handle module, py::handle name, py::handle registered);
    void module(py::handle module, py::handle name, py::handle registered);
    void copied(py::handle module);

  private:
    bool is_elsewhere() const { return PyThread_get_thread_ident() != thread_; }
    void note(py::handle module);

    py::dict modules_, tensors_;
    py::object last_, key_;  // the module that was noted last, and its identity
    unsigned long thread_ = PyThread_get_thread_ident();
};

}  // namespace wi
