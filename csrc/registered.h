// What a thread registers in modules of torch.nn, and what is set there that needs no registration, without a line of Python.
// weightinit_cuda/recording/wholes.py and plain_attributes.py say what for.
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

// Attributes of modules that torch.nn.Module.__setattr__ only stores, after it has asked whether they are anything more.
class PlainAttributes {
  public:
    explicit PlainAttributes(py::object module) : module_(std::move(module)) {}

    // Stores one; false, and nothing is stored, where torch's own might do anything else.
    bool set(py::handle module, py::handle name, py::handle value) const;

  private:
    py::object module_;
    py::str dict_ = "__dict__", parameters_ = "_parameters", modules_ = "_modules", buffers_ = "_buffers";
};

}  // namespace wi
