// Calls into Python, each with its check: what fails there is thrown here.
#pragma once
#include <pybind11/pybind11.h>

namespace wi {

namespace py = pybind11;

inline py::object checked(PyObject* made) {
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
}

// Clears the error that is set, if it is of that kind; else throws it.
inline void forgive(PyObject* kind) {
    if (!PyErr_ExceptionMatches(kind)) throw py::error_already_set();
    PyErr_Clear();
}

inline bool truth(int answer) {
    if (answer < 0) throw py::error_already_set();
    return answer != 0;
}

inline bool equal(py::handle a, py::handle b) { return truth(PyObject_RichCompareBool(a.ptr(), b.ptr(), Py_EQ)); }

// An attribute; null if there is none.
inline py::object attribute_if_any(py::handle of, PyObject* name) {
    PyObject* found = nullptr;
#if PY_VERSION_HEX >= 0x030D0000
    const int answer = PyObject_GetOptionalAttr(of.ptr(), name, &found);
#else
    const int answer = _PyObject_LookupAttr(of.ptr(), name, &found);
#endif
    if (answer < 0) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(found);
}

// A tuple of a type below tuple's, without a call of the type.
template <size_t kFields>
py::object tuple_of_type(PyTypeObject* type, const py::object (&fields)[kFields]) {
    py::object made = checked(type->tp_alloc(type, Py_ssize_t(kFields)));
#if PY_VERSION_HEX >= 0x030E0000
    reinterpret_cast<PyTupleObject*>(made.ptr())->ob_hash = -1;  // not known yet: as allocated it would be 0
#endif
    for (size_t i = 0; i < kFields; ++i) PyTuple_SET_ITEM(made.ptr(), Py_ssize_t(i), fields[i].inc_ref().ptr());
    return made;
}

inline py::object attribute(py::handle of, const char* name) { return checked(PyObject_GetAttrString(of.ptr(), name)); }

// Whether the type of an object, not one above it, is among types.
inline bool is_one_of(const py::tuple& types, py::handle object) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(types.ptr()); ++i)
        if (PyTuple_GET_ITEM(types.ptr(), i) == reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()))) return true;
    return false;
}

// What a dict has under a key, borrowed; null if it has nothing.
inline PyObject* found_in(py::handle dict, py::handle key) {
    PyObject* const found = PyDict_GetItemWithError(dict.ptr(), key.ptr());
    if (!found && PyErr_Occurred()) throw py::error_already_set();
    return found;
}

inline void put(py::handle into, py::handle key, py::handle value) {
    if (PyDict_SetItem(into.ptr(), key.ptr(), value.ptr()) < 0) throw py::error_already_set();
}

// Names of attributes, made once.
inline PyObject* interned(const char* name) {
    PyObject* const made = PyUnicode_InternFromString(name);
    if (!made) throw py::error_already_set();
    return made;
}

struct Name {
    explicit Name(const char* name) : text(interned(name)) {}
    py::object of(py::handle object) const { return checked(PyObject_GetAttr(object.ptr(), text)); }
    PyObject* const text;
};

}  // namespace wi
