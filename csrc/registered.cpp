#include "registered.h"

#include "calls.h"

namespace wi {
namespace {

py::object identity(py::handle object) { return checked(PyLong_FromVoidPtr(object.ptr())); }

}  // namespace

Registered::Registered(py::dict modules, py::dict tensors) : modules_(std::move(modules)), tensors_(std::move(tensors)) {}

void Registered::note(py::handle module) {
    if (module.is(last_)) return;
    py::object key = identity(module);
    put(modules_, key, module);
    last_ = py::reinterpret_borrow<py::object>(module);
    key_ = std::move(key);
}

void Registered::tensor(py::handle module, py::handle name, py::handle registered) {
    if (is_elsewhere()) return;
    note(module);
    if (registered.is_none()) return;
    const py::object place = checked(PyTuple_Pack(2, key_.ptr(), name.ptr()));
    put(tensors_, place, registered);
}

void Registered::module(py::handle module, py::handle, py::handle registered) {
    if (is_elsewhere()) return;
    note(module);
    if (!registered.is_none()) put(modules_, identity(registered), registered);
}

void Registered::copied(py::handle module) {
    if (!is_elsewhere()) note(module);
}

}  // namespace wi
