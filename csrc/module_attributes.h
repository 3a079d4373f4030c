// How torch.nn.Module keeps its attributes, parameters, buffers and modules, without a line of Python.
// weightinit_cuda/init/module_attributes.py says what for.
#pragma once
#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "calls.h"

namespace wi {

namespace py = pybind11;

// Each method does what that of torch.nn.Module does in the commonest case: nothing of that name is there before, and no class
// has a say. In any other it is torch's: false, and nothing is changed.
class ModuleAttributes {
  public:
    // module, parameter, tensor: classes of torch. names: the namespace of Module, where its hooks are.
    // fresh: the attributes that Module.__init__ gives a module, in their order.
    ModuleAttributes(py::object module, py::object parameter, py::object tensor, py::dict names, const py::dict& fresh);

    bool begin(py::handle module) const;                                         // __init__
    bool set(py::handle module, py::handle name, py::handle value) const;        // __setattr__
    bool parameter(py::handle module, py::handle name, py::handle value) const;  // register_parameter
    bool buffer(py::handle module, py::handle name, py::handle value) const;     // register_buffer, of one that is saved
    bool child(py::handle module, py::handle name, py::handle value) const;      // add_module

  private:
    bool is_parameter(py::handle value) const;
    bool is_module(py::handle value) const;
    bool sees_all(PyTypeObject* type) const;
    bool set_plain(py::handle module, PyObject* attributes, py::handle name, py::handle value) const;
    bool set_child(py::handle module, PyObject* attributes, py::handle name, py::handle value) const;
    bool registered(py::handle module, py::handle name, py::handle value, const Name& kind, const Name& hooks,
                    bool are_asked) const;
    // What hooks, which all modules have, make of a value.
    static py::object hooked(PyObject* hooks, py::handle module, py::handle name, py::handle value);

    py::object module_, parameter_, tensor_;
    py::dict names_;
    py::object getattr_, register_parameter_;  // Module's own
    std::vector<std::pair<py::object, py::object>> fresh_;
};

}  // namespace wi
