#include "named_tensors.h"

namespace wi {
namespace py = pybind11;
namespace {

py::object checked(PyObject* made) {
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
}

struct Collector {
    PyTypeObject* named;
    py::list own, kept;
    py::str parameters = "_parameters", buffers = "_buffers", modules = "_modules", dot = ".", top = "";
    py::tuple no_aliases{0};

    // Calls take(name, value) for what a module holds under one of these attributes: a dict, or what TorchScript has for one.
    template <class Take>
    static void each(const py::object& held, const Take& take) {
        if (PyDict_CheckExact(held.ptr())) {
            Py_ssize_t at = 0;
            PyObject *name, *value;
            while (PyDict_Next(held.ptr(), &at, &name, &value))
                if (value != Py_None) take(py::reinterpret_borrow<py::object>(name), py::reinterpret_borrow<py::object>(value));
            return;
        }
        for (const auto pair : held.attr("items")()) {
            const auto item = py::reinterpret_borrow<py::sequence>(pair);
            if (const py::object value = item[1]; !value.is_none()) take(py::object(item[0]), value);
        }
    }

    void tensors(const py::object& module, const py::str& from, const py::str& prefix, bool are_buffers) {
        py::list& list = are_buffers ? kept : own;
        each(checked(PyObject_GetAttr(module.ptr(), from.ptr())), [&](const py::object& name, const py::object& tensor) {
            const py::object one = checked(named->tp_alloc(named, 6));
            const py::object fields[] = {
                checked(PyUnicode_Concat(prefix.ptr(), name.ptr())), tensor, no_aliases, module, name, py::bool_(are_buffers)};
            for (Py_ssize_t i = 0; i < 6; ++i) PyTuple_SET_ITEM(one.ptr(), i, fields[i].inc_ref().ptr());
            list.append(one);
        });
    }

    void collect(const py::object& module, const py::str& prefix) {
        tensors(module, parameters, prefix, false);
        tensors(module, buffers, prefix, true);
        each(checked(PyObject_GetAttr(module.ptr(), modules.ptr())), [&](const py::object& name, const py::object& child) {
            const py::object inside = checked(PyUnicode_Concat(prefix.ptr(), name.ptr()));
            if (Py_EnterRecursiveCall(" in the modules of a model")) throw py::error_already_set();
            struct Left {
                ~Left() { Py_LeaveRecursiveCall(); }
            } left;
            collect(child, py::reinterpret_steal<py::str>(checked(PyUnicode_Concat(inside.ptr(), dot.ptr())).release()));
        });
    }
};

}  // namespace

void collect(py::handle module, py::handle named, py::list own, py::list kept) {
    if (!PyType_Check(named.ptr()) || !PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(named.ptr()), &PyTuple_Type))
        throw py::type_error("named must be a type of tuples");
    Collector collector{reinterpret_cast<PyTypeObject*>(named.ptr()), std::move(own), std::move(kept)};
    collector.collect(py::reinterpret_borrow<py::object>(module), collector.top);
}

}  // namespace wi
