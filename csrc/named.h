// A tensor of a module with its name: the fields of weightinit_cuda/tensors/named.py's Named.
#pragma once
#include "calls.h"

namespace wi {

enum class Named : Py_ssize_t { kName, kTensor, kAliases, kModule, kAttribute, kBuffer };
constexpr Py_ssize_t kNamedFields = 6;

inline py::tuple named_of(py::handle object) {
    if (!PyTuple_Check(object.ptr()) || PyTuple_GET_SIZE(object.ptr()) != kNamedFields)
        throw py::type_error("a Named tensor is needed");
    return py::reinterpret_borrow<py::tuple>(object);
}

// Of one that named_of() has seen.
inline PyObject* field(py::handle named, Named which) { return PyTuple_GET_ITEM(named.ptr(), Py_ssize_t(which)); }

inline py::object kept_field(py::handle named, Named which) { return py::reinterpret_borrow<py::object>(field(named, which)); }

}  // namespace wi
