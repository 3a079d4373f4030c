#include "plan_columns.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "calls.h"
#include "named.h"

namespace wi {
namespace {

enum Fill { kDistribution, kBox, kSource, kFillFields };  // of rules.rule.Fill
enum Entry { kEntryName, kShape, kDtype, kOf, kStream, kEntrySource, kEntryBox, kEntryAliases, kEntryBuffer, kEntryFields };

constexpr size_t kRecent = 16;  // distributions of which it is known what they can fill

struct Covered {
    py::tuple named;
    py::list fills;
};

py::tuple tuple_of(py::handle object, Py_ssize_t size) {
    if (!PyTuple_Check(object.ptr()) || PyTuple_GET_SIZE(object.ptr()) != size)
        throw py::type_error("a tuple of another size is needed");
    return py::reinterpret_borrow<py::tuple>(object);
}

Covered covered_by(py::handle pair) {
    const py::tuple both = tuple_of(pair, 2);
    if (!PyList_Check(PyTuple_GET_ITEM(both.ptr(), 1))) throw py::type_error("fills must be a list");
    return {named_of(both[0]), py::reinterpret_borrow<py::list>(PyTuple_GET_ITEM(both.ptr(), 1))};
}

bool is_stream(PyObject* number) {
    if (!PyLong_CheckExact(number)) return false;
    if (PyLong_AsUnsignedLongLong(number) != ~0ULL || !PyErr_Occurred()) return true;
    PyErr_Clear();
    return false;
}

bool is_shape(PyObject* shape) {
    if (!PyTuple_CheckExact(shape)) return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(shape); ++i) {
        PyObject* const size = PyTuple_GET_ITEM(shape, i);
        int overflow = 0;
        if (!PyLong_CheckExact(size) || (PyLong_AsLongLongAndOverflow(size, &overflow) < 0 || overflow < 0)) return false;
    }
    return true;
}

bool is_plain_text(PyObject* text) { return PyUnicode_CheckExact(text) && PyUnicode_IS_ASCII(text); }

bool has_plain_fields(py::handle entry) {
    const auto field = [entry](Entry which) { return PyTuple_GET_ITEM(entry.ptr(), which); };
    return is_plain_text(field(kEntryName)) && is_shape(field(kShape)) && is_stream(field(kStream)) &&
           PyUnicode_CheckExact(field(kEntrySource)) && field(kEntryBox) == Py_None &&
           PyTuple_CheckExact(field(kEntryAliases)) && !PyTuple_GET_SIZE(field(kEntryAliases)) &&
           PyBool_Check(field(kEntryBuffer));
}

struct Kind {  // of an entry that lives as long as the plan
    PyObject *distribution, *dtype, *shape;

    bool operator==(const Kind& other) const {
        return distribution == other.distribution && dtype == other.dtype && equal(shape, other.shape);
    }
};

}  // namespace

py::object whole_columns(const py::list& covered, const py::tuple& types) {
    static const Name is_meta("is_meta");
    py::list tensors, distributions, names, kinds;
    std::unordered_set<PyObject*> seen;
    for (size_t i = 0; i < covered.size(); ++i) {
        const auto [named, fills] = covered_by(covered[i]);
        const py::object tensor = kept_field(named, Named::kTensor);
        if (fills.size() != 1 || !is_one_of(types, tensor) || is_meta.of(tensor).ptr() != Py_False) return py::none();
        const py::tuple fill = tuple_of(fills[0], kFillFields);
        if (!py::object(fill[kBox]).is_none()) return py::none();
        const py::object distribution = fill[kDistribution];
        if (seen.insert(fills.ptr()).second) kinds.append(py::make_tuple(tensor, distribution));
        tensors.append(tensor);
        distributions.append(distribution);
        names.append(kept_field(named, Named::kName));
    }
    return py::make_tuple(tensors, distributions, names, kinds);
}

py::tuple entries_of(const py::list& covered, const py::list& streams, py::handle entry) {
    static const Name shape_name("shape"), dtype_name("dtype");
    auto* const type = reinterpret_cast<PyTypeObject*>(entry.ptr());
    if (!PyType_Check(entry.ptr()) || !PyType_IsSubtype(type, &PyTuple_Type))
        throw py::type_error("entry must be a type of tuples");
    if (covered.size() != streams.size()) throw std::invalid_argument("columns must have one length");
    py::list entries;
    std::unordered_map<PyObject*, std::pair<py::object, py::object>> known;  // shape and dtype by the list of fills
    for (size_t i = 0; i < covered.size(); ++i) {
        const auto [named, fills] = covered_by(covered[i]);
        auto& [shape, dtype] = known[fills.ptr()];
        if (!shape) {
            const py::object tensor = kept_field(named, Named::kTensor);
            shape = checked(PySequence_Tuple(shape_name.of(tensor).ptr()));
            dtype = dtype_name.of(tensor);
        }
        for (size_t k = 0; k < fills.size(); ++k) {
            const py::tuple fill = tuple_of(fills[k], kFillFields);
            const py::object fields[kEntryFields] = {kept_field(named, Named::kName),
                                                     shape,
                                                     dtype,
                                                     fill[kDistribution],
                                                     streams[i],
                                                     fill[kSource],
                                                     fill[kBox],
                                                     kept_field(named, Named::kAliases),
                                                     kept_field(named, Named::kBuffer)};
            entries.append(tuple_of_type(type, fields));
        }
    }
    return py::tuple(entries);
}

bool plainly_sound(const py::tuple& entries, py::handle entry, py::handle can_fill) {
    Kind recent[kRecent];
    size_t kinds = 0;
    const auto names = py::reinterpret_steal<py::set>(checked(PySet_New(nullptr)).release());
    for (size_t i = 0; i < entries.size(); ++i) {
        const py::object one = entries[i];
        if (reinterpret_cast<PyObject*>(Py_TYPE(one.ptr())) != entry.ptr() || PyTuple_GET_SIZE(one.ptr()) != kEntryFields)
            return false;
        if (!has_plain_fields(one)) return false;
        const auto field = [&one](Entry which) { return PyTuple_GET_ITEM(one.ptr(), which); };
        if (PySet_Add(names.ptr(), field(kEntryName)) < 0) throw py::error_already_set();
        const Kind now = {field(kOf), field(kDtype), field(kShape)};
        if (std::find(recent, recent + std::min(kinds, kRecent), now) != recent + std::min(kinds, kRecent)) continue;
        PyObject* arguments[] = {now.distribution, now.dtype, now.shape};
        if (!truth(PyObject_IsTrue(checked(PyObject_Vectorcall(can_fill.ptr(), arguments, 3, nullptr)).ptr()))) return false;
        recent[kinds++ % kRecent] = now;
    }
    return entries.size() && size_t(PySet_GET_SIZE(names.ptr())) == entries.size();
}

}  // namespace wi
