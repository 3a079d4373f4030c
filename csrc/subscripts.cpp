#include "subscripts.h"

#include <stdexcept>
#include <utility>

#include "calls.h"

namespace wi {
namespace {

PyTypeObject* type_of(const py::object& kind) {
    if (!PyType_Check(kind.ptr())) throw py::type_error("a class is needed");
    return reinterpret_cast<PyTypeObject*>(kind.ptr());
}

bool is_of_python(PyTypeObject* type) { return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) && type->tp_as_mapping; }

const Name& get_name() {
    static const Name name("__getitem__");
    return name;
}

const Name& set_name() {
    static const Name name("__setitem__");
    return name;
}

}  // namespace

Subscripts::Slots Subscripts::slots_of(PyTypeObject* type) {
    if (!type->tp_as_mapping) throw std::invalid_argument("a class has no subscripts");
    return {type->tp_as_mapping->mp_subscript, type->tp_as_mapping->mp_ass_subscript};
}

Subscripts::Subscripts(py::object kind, py::object base, py::object like)
    : kind_(std::move(kind)), base_(std::move(base)), get_(get_name().of(base_)), set_(set_name().of(base_)),
      subclasses_(attribute(reinterpret_cast<PyObject*>(&PyType_Type), "__subclasses__")), in_c_(slots_of(type_of(base_))),
      in_python_(slots_of(type_of(like))) {
    PyTypeObject* const type = type_of(kind_);
    if (!is_of_python(type) || !PyDict_Check(type->tp_dict)) throw py::type_error("a class made by Python is needed");
    if (!in_c_.get || !in_c_.set || !in_python_.get || !in_python_.set)
        throw std::invalid_argument("a class has no subscripts");
}

py::list Subscripts::below(PyTypeObject* type) const {
    return py::reinterpret_steal<py::list>(
        checked(PyObject_CallOneArg(subclasses_.ptr(), reinterpret_cast<PyObject*>(type))).release());
}

// For a class and all below it that have the base's. Those that have others are left as they are.
void Subscripts::put_below(PyTypeObject* type) const {
    if (!is_of_python(type)) return;
    PyMappingMethods* const mapping = type->tp_as_mapping;
    const bool gets = mapping->mp_subscript == in_c_.get, sets = mapping->mp_ass_subscript == in_c_.set;
    if (gets) mapping->mp_subscript = in_python_.get;
    if (sets) mapping->mp_ass_subscript = in_python_.set;
    if (!gets && !sets) return;
    for (const auto one : below(type)) put_below(reinterpret_cast<PyTypeObject*>(one.ptr()));
}

// For a class and all below it that have the base's again, as the names say.
void Subscripts::restore_below(PyTypeObject* type) const {
    if (!is_of_python(type)) return;
    PyMappingMethods* const mapping = type->tp_as_mapping;
    const py::handle self = reinterpret_cast<PyObject*>(type);
    const bool gets = mapping->mp_subscript == in_python_.get, sets = mapping->mp_ass_subscript == in_python_.set;
    if (gets && get_name().of(self).is(get_)) {
        mapping->mp_subscript = in_c_.get;
        if (type->tp_as_sequence) type->tp_as_sequence->sq_item = nullptr;
    }
    if (sets && set_name().of(self).is(set_)) {
        mapping->mp_ass_subscript = in_c_.set;
        if (type->tp_as_sequence) type->tp_as_sequence->sq_ass_item = nullptr;
    }
    if (!gets && !sets) return;
    for (const auto one : below(type)) restore_below(reinterpret_cast<PyTypeObject*>(one.ptr()));
}

void Subscripts::put(const py::dict& methods) const {
    PyTypeObject* const type = type_of(kind_);
    for (const auto& [name, method] : methods)
        if (PyDict_SetItem(type->tp_dict, name.ptr(), method.ptr()) < 0) throw py::error_already_set();
    PyType_Modified(type);
    put_below(type);
}

void Subscripts::remove(const py::dict& methods) const {
    PyTypeObject* const type = type_of(kind_);
    for (const auto& [name, method] : methods) {
        PyObject* const there = PyDict_GetItemWithError(type->tp_dict, name.ptr());
        if (!there && PyErr_Occurred()) throw py::error_already_set();
        if (there == method.ptr() && PyDict_DelItem(type->tp_dict, name.ptr()) < 0) throw py::error_already_set();
    }
    PyType_Modified(type);
    restore_below(type);
}

}  // namespace wi
