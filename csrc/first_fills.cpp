#include "first_fills.h"

#include <vector>

#include "calls.h"
#include "named.h"

namespace wi {
namespace {

enum Column { kOrigin, kRule, kConditions, kKey, kKnown, kColumns };  // of a row

struct Row {
    py::tuple all;
    PyObject* conditions;
    py::object key;
    const ShapeKey* shape_key;  // null: key is a function
    PyObject* known;
};

std::vector<Row> rows_of(const py::handle rules) {
    std::vector<Row> rows;
    for (const auto each : rules) {
        const auto row = py::reinterpret_borrow<py::tuple>(each);
        if (!PyTuple_Check(row.ptr()) || row.size() != kColumns) throw py::type_error("a row must be a tuple of five");
        const py::object key = row[kKey];
        const auto* const shape_key = py::isinstance<ShapeKey>(key) ? key.cast<const ShapeKey*>() : nullptr;
        Row made = {row, PyTuple_GET_ITEM(row.ptr(), kConditions), key, shape_key, PyTuple_GET_ITEM(row.ptr(), kKnown)};
        if (!PyTuple_Check(made.conditions) || !PyDict_Check(made.known)) throw py::type_error("a row is of other types");
        rows.push_back(std::move(made));
    }
    return rows;
}

bool speaks_of(const Row& row, py::handle named) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(row.conditions); ++i) {
        const py::object answer = checked(PyObject_CallOneArg(PyTuple_GET_ITEM(row.conditions, i), named.ptr()));
        if (!truth(PyObject_IsTrue(answer.ptr()))) return false;
    }
    return true;
}

py::object fills_of(const Row& row, py::handle named, py::handle ask) {
    const py::object key = row.shape_key ? row.shape_key->of(named) : checked(PyObject_CallOneArg(row.key.ptr(), named.ptr()));
    if (!key.is_none()) {
        if (PyObject* const known = found_in(row.known, key)) return py::reinterpret_borrow<py::object>(known);
    }
    PyObject* arguments[] = {row.all.ptr(), named.ptr(), key.ptr()};
    return checked(PyObject_Vectorcall(ask.ptr(), arguments, 3, nullptr));
}

py::object first_of(const std::vector<Row>& rows, py::handle named, py::handle ask, py::handle refusals) {
    for (const Row& row : rows) {
        try {
            if (!speaks_of(row, named)) continue;
            py::object fills = fills_of(row, named, ask);
            if (truth(PyObject_IsTrue(fills.ptr()))) return fills;
        } catch (const py::error_already_set& error) {
            if (!error.matches(refusals)) throw;
            // Before Python 3.12 the two are apart.
            if (error.trace()) PyException_SetTraceback(error.value().ptr(), error.trace().ptr());
            return py::make_tuple(row.all, error.value());
        }
    }
    return py::list();
}

}  // namespace

py::object ShapeKey::of(py::handle given) const {
    static const Name dtype("dtype"), shape("shape"), parameters("_parameters"), weight("weight");
    const py::tuple named = named_of(given);
    const py::handle tensor = field(named, Named::kTensor), module = field(named, Named::kModule);
    PyObject* const kind = reinterpret_cast<PyObject*>(Py_TYPE(module.ptr()));
    if (kinds_.is_none()) return checked(PyTuple_Pack(2, dtype.of(tensor).ptr(), shape.of(tensor).ptr()));
    if (!truth(PySet_Contains(kinds_.ptr(), kind))) return py::none();
    const py::object held = parameters.of(module);
    PyObject* const beside = PyDict_Check(held.ptr()) ? found_in(held, weight.text) : nullptr;
    if (!beside) return py::none();
    if (beside != tensor.ptr() && !is_one_of(plain_, beside)) return py::none();
    const py::object sizes = shape.of(beside);
    const bool own = beside == tensor.ptr();
    if (!own && truth(PySequence_Contains(sizes.ptr(), py::int_(0).ptr()))) return py::none();  // as if it were partitioned
    const py::object own_sizes = own ? sizes : shape.of(tensor);
    return checked(
        PyTuple_Pack(5, kind, field(named, Named::kAttribute), dtype.of(tensor).ptr(), own_sizes.ptr(), sizes.ptr()));
}

py::list first_fills(const py::list& tensors, const py::tuple& rules, py::handle ask, py::handle refusals) {
    if (rules.size() != 2) throw py::type_error("rules must be those of parameters and those of buffers");
    const std::vector<Row> of_parameters = rows_of(rules[0]), of_buffers = rows_of(rules[1]);
    py::list found;
    for (size_t i = 0; i < tensors.size(); ++i) {
        const py::tuple named = named_of(tensors[i]);
        found.append(first_of(field(named, Named::kBuffer) == Py_True ? of_buffers : of_parameters, named, ask, refusals));
    }
    return found;
}

}  // namespace wi
