#include "registered.h"

#include "calls.h"

namespace wi {
namespace {

py::object identity(py::handle object) { return checked(PyLong_FromVoidPtr(object.ptr())); }

void put(const py::dict& into, py::handle key, py::handle value) {
    if (PyDict_SetItem(into.ptr(), key.ptr(), value.ptr()) < 0) throw py::error_already_set();
}

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

namespace {

// What is no parameter, buffer or module, whatever their metaclasses say.
bool is_plain(PyObject* value) {
    return value == Py_None || PyLong_CheckExact(value) || PyBool_Check(value) || PyFloat_CheckExact(value) ||
           PyUnicode_CheckExact(value) || PyTuple_CheckExact(value) || PyList_CheckExact(value) || PyDict_CheckExact(value);
}

// Whether the next class that object's __setattr__ would be looked up in after Module is object itself.
bool ends_in(PyTypeObject* type, PyObject* module) {
    PyObject* const mro = type->tp_mro;
    const Py_ssize_t n = mro && PyTuple_Check(mro) ? PyTuple_GET_SIZE(mro) : 0;
    return n >= 2 && PyTuple_GET_ITEM(mro, n - 2) == module &&
           PyTuple_GET_ITEM(mro, n - 1) == reinterpret_cast<PyObject*>(&PyBaseObject_Type);
}

// Whether a name may be among what a module holds under one of its attributes, a dict.
bool may_hold(PyObject* attributes, const py::str& kind, py::handle name) {
    PyObject* const held = PyDict_GetItemWithError(attributes, kind.ptr());
    if (!held && PyErr_Occurred()) throw py::error_already_set();
    if (!held || held == Py_None) return false;
    if (!PyDict_CheckExact(held)) return true;
    return truth(PyDict_Contains(held, name.ptr()));
}

}  // namespace

bool PlainAttributes::set(py::handle module, py::handle name, py::handle value) const {
    if (!is_plain(value.ptr()) || !PyUnicode_CheckExact(name.ptr()) || !ends_in(Py_TYPE(module.ptr()), module_.ptr()))
        return false;
    const py::object attributes = checked(PyObject_GetAttr(module.ptr(), dict_.ptr()));
    if (!PyDict_CheckExact(attributes.ptr())) return false;
    for (const py::str* const kind : {&parameters_, &modules_, &buffers_})
        if (may_hold(attributes.ptr(), *kind, name)) return false;
    if (PyObject_GenericSetAttr(module.ptr(), name.ptr(), value.ptr()) < 0) throw py::error_already_set();
    return true;
}

}  // namespace wi
