#include "module_attributes.h"

#include <algorithm>
#include <initializer_list>
#include <stdexcept>

#include "calls.h"

namespace wi {
namespace {

struct Names {
    const Name dict{"__dict__"}, getattr{"__getattr__"}, getattribute{"__getattribute__"}, grad_fn{"grad_fn"}, values{"values"},
        register_parameter{"register_parameter"}, call_super_init{"call_super_init"}, parameters{"_parameters"},
        buffers{"_buffers"}, modules{"_modules"}, transient{"_non_persistent_buffers_set"},
        parameter_hooks{"_global_parameter_registration_hooks"}, buffer_hooks{"_global_buffer_registration_hooks"},
        module_hooks{"_global_module_registration_hooks"};
};

const Names& named() {
    static const Names names;
    return names;
}

bool contains(PyObject* dict, py::handle name) { return truth(PyDict_Contains(dict, name.ptr())); }

// The attributes of a module, if they are in a plain dict; else null.
py::object attributes_of(py::handle module) {
    py::object found = named().dict.of(module);
    return PyDict_CheckExact(found.ptr()) ? found : py::object();
}

// What a module holds of one kind, if that is a plain dict; else null.
PyObject* held(PyObject* attributes, const Name& kind) {
    PyObject* const found = found_in(attributes, kind.text);
    return found && PyDict_CheckExact(found) ? found : nullptr;
}

// Whether the name is neither an attribute of a module nor of what it holds of these kinds.
bool is_free(PyObject* attributes, py::handle name, std::initializer_list<const Name*> kinds) {
    PyObject* const transient = found_in(attributes, named().transient.text);
    if (!transient || !PySet_CheckExact(transient) || contains(attributes, name)) return false;
    if (truth(PySet_Contains(transient, name.ptr()))) return false;
    return std::all_of(kinds.begin(), kinds.end(), [&](const Name* kind) {
        PyObject* const others = held(attributes, *kind);
        return others && !contains(others, name);
    });
}

bool is_name(py::handle name) {
    return PyUnicode_CheckExact(name.ptr()) && PyUnicode_GET_LENGTH(name.ptr()) > 0 &&
           PyUnicode_FindChar(name.ptr(), '.', 0, PyUnicode_GET_LENGTH(name.ptr()), 1) == -1;
}

bool is_exactly(py::handle value, const py::object& type) {
    return reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())) == type.ptr();
}

// What is no parameter, buffer or module, whatever their metaclasses say.
bool is_plain(PyObject* value) {
    return value == Py_None || PyLong_CheckExact(value) || PyBool_Check(value) || PyFloat_CheckExact(value) ||
           PyUnicode_CheckExact(value) || PyTuple_CheckExact(value) || PyList_CheckExact(value) || PyDict_CheckExact(value);
}

// Whether the next class after Module in which object's methods would be looked up is object itself.
bool ends_in(PyTypeObject* type, PyObject* module) {
    PyObject* const mro = type->tp_mro;
    const Py_ssize_t n = mro && PyTuple_Check(mro) ? PyTuple_GET_SIZE(mro) : 0;
    return n >= 2 && PyTuple_GET_ITEM(mro, n - 2) == module &&
           PyTuple_GET_ITEM(mro, n - 1) == reinterpret_cast<PyObject*>(&PyBaseObject_Type);
}

// A value of its own for each module: what is empty is made anew, all else cannot change.
py::object own(py::handle value) {
    if (PyDict_CheckExact(value.ptr())) return checked(PyDict_New());
    if (PySet_CheckExact(value.ptr())) return checked(PySet_New(nullptr));
    if (PyDict_Check(value.ptr())) return checked(PyObject_CallNoArgs(reinterpret_cast<PyObject*>(Py_TYPE(value.ptr()))));
    return py::reinterpret_borrow<py::object>(value);
}

}  // namespace

ModuleAttributes::ModuleAttributes(py::object module, py::object parameter, py::object tensor, py::dict names,
                                   const py::dict& fresh)
    : module_(std::move(module)), parameter_(std::move(parameter)), tensor_(std::move(tensor)), names_(std::move(names)),
      getattr_(module_.attr("__getattr__")), register_parameter_(module_.attr("register_parameter")) {
    if (!PyType_Check(module_.ptr()) || !PyType_Check(parameter_.ptr()) || !PyType_Check(tensor_.ptr()))
        throw std::invalid_argument("classes are needed");
    for (const auto& [name, value] : fresh)
        fresh_.emplace_back(py::reinterpret_borrow<py::object>(name), py::reinterpret_borrow<py::object>(value));
}

bool ModuleAttributes::is_parameter(py::handle value) const { return is_exactly(value, parameter_); }

bool ModuleAttributes::is_module(py::handle value) const {
    return PyType_IsSubtype(Py_TYPE(value.ptr()), reinterpret_cast<PyTypeObject*>(module_.ptr())) != 0;
}

// Whether getattr(module, name) finds what the class has, its attributes, and what Module has registered; nothing else.
bool ModuleAttributes::sees_all(PyTypeObject* type) const {
    static PyObject* const objects = _PyType_Lookup(&PyBaseObject_Type, named().getattribute.text);
    return _PyType_Lookup(type, named().getattribute.text) == objects &&
           _PyType_Lookup(type, named().getattr.text) == getattr_.ptr();
}

py::object ModuleAttributes::hooked(PyObject* hooks, py::handle module, py::handle name, py::handle value) {
    auto now = py::reinterpret_borrow<py::object>(value);
    if (PyDict_GET_SIZE(hooks) == 0) return now;
    const py::object all = checked(PyObject_CallMethodNoArgs(hooks, named().values.text));
    const py::object each = checked(PyObject_GetIter(all.ptr()));
    while (auto hook = py::reinterpret_steal<py::object>(PyIter_Next(each.ptr()))) {
        PyObject* const given[] = {module.ptr(), name.ptr(), now.ptr()};
        py::object made = checked(PyObject_Vectorcall(hook.ptr(), given, 3, nullptr));
        if (!made.is_none()) now = std::move(made);
    }
    if (PyErr_Occurred()) throw py::error_already_set();
    return now;
}

bool ModuleAttributes::begin(py::handle module) const {
    PyTypeObject* const type = Py_TYPE(module.ptr());
    if (!ends_in(type, module_.ptr()) || _PyType_Lookup(type, named().call_super_init.text) != Py_False) return false;
    for (const auto& [name, value] : fresh_)
        if (PyObject_GenericSetAttr(module.ptr(), name.ptr(), own(value).ptr()) < 0) throw py::error_already_set();
    return true;
}

bool ModuleAttributes::set_plain(py::handle module, PyObject* attributes, py::handle name, py::handle value) const {
    if (!ends_in(Py_TYPE(module.ptr()), module_.ptr())) return false;
    for (const Name* const kind : {&named().parameters, &named().modules, &named().buffers}) {
        PyObject* const found = found_in(attributes, kind->text);
        if (found && found != Py_None && (!PyDict_CheckExact(found) || contains(found, name))) return false;
    }
    if (PyObject_GenericSetAttr(module.ptr(), name.ptr(), value.ptr()) < 0) throw py::error_already_set();
    return true;
}

bool ModuleAttributes::set_child(py::handle module, PyObject* attributes, py::handle name, py::handle value) const {
    const auto into = py::reinterpret_borrow<py::object>(held(attributes, named().modules));
    PyObject* const hooks = found_in(names_.ptr(), named().module_hooks.text);
    if (!into || !hooks || !PyDict_Check(hooks) || !is_free(attributes, name, {&named().parameters, &named().buffers}))
        return false;
    put(into.ptr(), name, hooked(hooks, module, name, value));
    return true;
}

bool ModuleAttributes::set(py::handle module, py::handle name, py::handle value) const {
    const bool is_value = is_plain(value.ptr()), is_child = !is_value && is_module(value);
    if (!PyUnicode_CheckExact(name.ptr()) || !is_module(module) || !(is_value || is_child || is_parameter(value))) return false;
    const py::object attributes = attributes_of(module);
    if (!attributes) return false;
    if (is_value) return set_plain(module, attributes.ptr(), name, value);
    if (is_child) return set_child(module, attributes.ptr(), name, value);
    const auto& method = named().register_parameter;
    if (_PyType_Lookup(Py_TYPE(module.ptr()), method.text) != register_parameter_.ptr()) return false;
    return !contains(attributes.ptr(), method.text) && parameter(module, name, value);
}

bool ModuleAttributes::registered(py::handle module, py::handle name, py::handle value, const Name& kind, const Name& hooks,
                                  bool are_asked) const {
    PyTypeObject* const type = Py_TYPE(module.ptr());
    if (!is_name(name) || !sees_all(type) || _PyType_Lookup(type, name.ptr())) return false;
    const py::object attributes = attributes_of(module);
    if (!attributes || !is_free(attributes.ptr(), name, {&named().parameters, &named().buffers, &named().modules}))
        return false;
    PyObject* const all = found_in(names_.ptr(), hooks.text);
    if (!all || !PyDict_Check(all)) return false;
    if (!are_asked || PyDict_GET_SIZE(all) == 0) {
        put(held(attributes.ptr(), kind), name, value);
    } else {
        const py::object made = hooked(all, module, name, value);
        const py::object into = kind.of(module);  // a hook may have put another one there
        if (PyObject_SetItem(into.ptr(), name.ptr(), made.ptr()) < 0) throw py::error_already_set();
    }
    return true;
}

bool ModuleAttributes::parameter(py::handle module, py::handle name, py::handle value) const {
    if (!value.is_none() && !(is_parameter(value) && named().grad_fn.of(value).is_none())) return false;
    return registered(module, name, value, named().parameters, named().parameter_hooks, !value.is_none());
}

bool ModuleAttributes::buffer(py::handle module, py::handle name, py::handle value) const {
    if (!value.is_none() && !is_exactly(value, tensor_)) return false;
    if (!registered(module, name, value, named().buffers, named().buffer_hooks, true)) return false;
    const py::object transient = named().transient.of(module);
    if (PySet_Check(transient.ptr()) && PySet_Discard(transient.ptr(), name.ptr()) < 0) throw py::error_already_set();
    return true;
}

bool ModuleAttributes::child(py::handle module, py::handle name, py::handle value) const {
    if (!value.is_none() && !is_module(value)) return false;
    return registered(module, name, value, named().modules, named().module_hooks, true);
}

}  // namespace wi
