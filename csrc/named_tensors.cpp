#include "named_tensors.h"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <unordered_set>
#include <utility>
#include <vector>

#include "calls.h"
#include "named.h"

namespace wi {
namespace py = pybind11;
namespace {

// What a look through a model finds beside its parameters and buffers.
struct Further {
    py::list modules, held;
    py::dict every;      // names of what every module has
    py::list first;      // the same in their order, as most modules begin with them
    py::tuple leafless;  // types of which no value is a tensor or holds one
    py::object tensor;   // the class
    std::unordered_set<PyObject*> seen = {};
    py::str dict = "__dict__";

    bool has_no_leaves(PyObject* value) const { return is_one_of(leafless, value); }

    bool may_have_leaves(PyObject* value) const {
        if (PyList_Check(value) || PyTuple_Check(value)) {
            PyObject** const items = PySequence_Fast_ITEMS(value);
            const auto none = [&](PyObject* item) { return has_no_leaves(item); };
            return !std::all_of(items, items + PySequence_Fast_GET_SIZE(value), none);
        }
        if (PyDict_Check(value)) {
            Py_ssize_t at = 0;
            PyObject *name, *item;
            while (PyDict_Next(value, &at, &name, &item))
                if (!has_no_leaves(item)) return true;
            return false;
        }
        return truth(PyObject_IsInstance(value, tensor.ptr()));
    }

    void look(const py::object& module, const py::str& name, const py::str& prefix) {
        if (!seen.insert(module.ptr()).second) return;
        modules.append(py::make_tuple(name, module));
        const py::object attributes = checked(PyObject_GetAttr(module.ptr(), dict.ptr()));
        if (!PyDict_Check(attributes.ptr())) return;
        for (const auto& [key, value] : of_other_types(attributes)) {
            if (!may_have_leaves(value.ptr()) || every.contains(key)) continue;
            held.append(py::make_tuple(checked(PyUnicode_Concat(prefix.ptr(), key.ptr())), value, module));
        }
    }

    // The attributes whose types are not known to have no leaves: collected first, since questions about values may run Python, which
    // may change the dict.
    std::vector<std::pair<py::object, py::object>> of_other_types(const py::object& attributes) const {
        std::vector<std::pair<py::object, py::object>> found;
        Py_ssize_t at = 0, number = 0;
        PyObject *key, *value;
        for (; PyDict_Next(attributes.ptr(), &at, &key, &value); ++number) {
            if (number < PyList_GET_SIZE(first.ptr()) && key == PyList_GET_ITEM(first.ptr(), number)) continue;
            if (!has_no_leaves(value))
                found.emplace_back(py::reinterpret_borrow<py::object>(key), py::reinterpret_borrow<py::object>(value));
        }
        return found;
    }
};

struct Collector {
    PyTypeObject* named;
    py::list own, kept;
    std::optional<Further> further = {};
    std::vector<PyObject*> seen = {};
    bool partitioned = false;
    py::str parameters = "_parameters", buffers = "_buffers", modules = "_modules", dot = ".", top = "", ds_id = "ds_id";
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
            seen.push_back(tensor.ptr());
            partitioned |= bool(attribute_if_any(tensor, ds_id.ptr()));
            const py::object fields[kNamedFields] = {
                checked(PyUnicode_Concat(prefix.ptr(), name.ptr())), tensor, no_aliases, module, name, py::bool_(are_buffers)};
            list.append(tuple_of_type(named, fields));
        });
    }

    // Whether no tensor is there twice, and none is partitioned.
    bool is_all() {
        std::sort(seen.begin(), seen.end());
        return !partitioned && std::adjacent_find(seen.begin(), seen.end()) == seen.end();
    }

    void collect(const py::object& module, const py::str& called, const py::str& prefix) {
        if (further) further->look(module, called, prefix);
        tensors(module, parameters, prefix, false);
        tensors(module, buffers, prefix, true);
        each(checked(PyObject_GetAttr(module.ptr(), modules.ptr())), [&](const py::object& name, const py::object& child) {
            const auto inside = py::reinterpret_steal<py::str>(checked(PyUnicode_Concat(prefix.ptr(), name.ptr())).release());
            if (Py_EnterRecursiveCall(" in the modules of a model")) throw py::error_already_set();
            struct Left {
                ~Left() { Py_LeaveRecursiveCall(); }
            } left;
            collect(child, inside,
                    py::reinterpret_steal<py::str>(checked(PyUnicode_Concat(inside.ptr(), dot.ptr())).release()));
        });
    }
};

Collector collector_of(py::handle named, py::list own, py::list kept) {
    if (!PyType_Check(named.ptr()) || !PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(named.ptr()), &PyTuple_Type))
        throw py::type_error("named must be a type of tuples");
    return {reinterpret_cast<PyTypeObject*>(named.ptr()), std::move(own), std::move(kept)};
}

}  // namespace

bool collect(py::handle module, py::handle named, py::list own, py::list kept) {
    Collector collector = collector_of(named, std::move(own), std::move(kept));
    collector.collect(py::reinterpret_borrow<py::object>(module), collector.top, collector.top);
    return collector.is_all();
}

py::tuple look_through(py::handle module, py::handle named, py::dict every, py::tuple leafless, py::object tensor) {
    Collector collector = collector_of(named, py::list(), py::list());
    const py::list first(every);
    collector.further = Further{py::list(), py::list(), std::move(every), first, std::move(leafless), std::move(tensor)};
    collector.collect(py::reinterpret_borrow<py::object>(module), collector.top, collector.top);
    return py::make_tuple(collector.own, collector.kept, collector.further->modules, collector.further->held);
}

py::object tensors_alike(const py::list& named, const py::dict& known, const py::tuple& names, const py::tuple& shapes,
                         const py::tuple& dtypes, const py::tuple& aliases) {
    static const Name shape("shape"), dtype("dtype"), is_meta("is_meta");
    const size_t planned = names.size();
    if (shapes.size() != planned || dtypes.size() != planned || aliases.size() != planned)
        throw std::invalid_argument("columns must have one length");
    py::list found;
    size_t at = 0;
    for (size_t i = 0; i < named.size(); ++i) {
        const py::tuple one = named_of(named[i]);
        const py::object name = kept_field(one, Named::kName), tensor = kept_field(one, Named::kTensor);
        if (is_meta.of(tensor).ptr() != Py_False) return py::none();
        if (field(one, Named::kBuffer) == Py_True && !known.contains(name)) continue;
        if (at == planned || !equal(name, names[at]) || !equal(field(one, Named::kAliases), aliases[at]) ||
            !equal(shape.of(tensor), shapes[at]) || !equal(dtype.of(tensor), dtypes[at]))
            return py::none();
        found.append(tensor);
        ++at;
    }
    return at == planned && at ? py::object(found) : py::object(py::none());
}

}  // namespace wi
