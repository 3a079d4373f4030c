#include "meanings.h"

#include <algorithm>
#include <utility>

#include "calls.h"

namespace wi {
namespace {

constexpr size_t kMeanings = 1024;  // a model has fewer

// Whether a value says all of itself: it is remembered by type and value, 0.0 and -0.0 apart.
bool is_plain_value(PyObject* value) {
    return value == Py_None || PyFloat_CheckExact(value) || PyLong_CheckExact(value) || PyUnicode_CheckExact(value);
}

bool is_same_value(PyObject* a, PyObject* b) {
    if (a == b) return true;
    if (Py_TYPE(a) != Py_TYPE(b)) return false;
    if (PyFloat_CheckExact(a)) {
        const double x = PyFloat_AS_DOUBLE(a), y = PyFloat_AS_DOUBLE(b);
        return std::equal(reinterpret_cast<const char*>(&x), reinterpret_cast<const char*>(&x + 1),
                          reinterpret_cast<const char*>(&y));
    }
    return equal(a, b);
}

// False where it cannot be hashed, or raises instead.
bool add_hash(size_t& hash, size_t factor, PyObject* value) {
    const Py_hash_t own = PyObject_Hash(value);
    if (own == -1) forgive(PyExc_Exception);
    hash = hash * factor + size_t(own);
    return own != -1;
}

py::tuple values_of(const Meant& meant) {
    py::tuple values(static_cast<size_t>(meant.n));
    for (Py_ssize_t i = 0; i < meant.n; ++i) values[size_t(i)] = py::handle(meant.own[i]);
    return values;
}

}  // namespace

py::object distribution_of(const Meant& meant) {
    static const Name distribution("distribution");
    const py::object all = checked(PySequence_Concat(py::make_tuple(meant.dtype, meant.shape).ptr(), values_of(meant).ptr()));
    auto made = py::reinterpret_steal<py::object>(PyObject_CallObject(distribution.of(meant.function).ptr(), all.ptr()));
    if (!made) forgive(PyExc_Exception);
    return made;
}

Meanings::Meanings() : known_(kMeanings) {}

size_t Meanings::place_of(const Meant& meant) const {
    if (!std::all_of(meant.own, meant.own + meant.n, is_plain_value)) return kNowhere;
    size_t hash = mixed(meant.function.ptr()) * 31 + mixed(meant.dtype.ptr());
    if (!add_hash(hash, 31, meant.shape.ptr())) return kNowhere;  // no shape: the function has its words for it
    for (Py_ssize_t i = 0; i < meant.n; ++i)
        if (!add_hash(hash, 1000003, meant.own[i])) return kNowhere;
    return (hash ^ (hash >> 20)) % kMeanings;
}

bool Meanings::is_at(size_t place, const Meant& meant) const {
    const Known& known = known_[place];
    if (!known.function.is(meant.function) || !known.dtype.is(meant.dtype)) return false;
    if (PyTuple_GET_SIZE(known.own.ptr()) != meant.n || !equal(known.shape, meant.shape)) return false;
    Py_ssize_t i = 0;
    while (i < meant.n && is_same_value(PyTuple_GET_ITEM(known.own.ptr(), i), meant.own[i])) ++i;
    return i == meant.n;
}

void Meanings::remember(size_t place, const Meant& meant, const py::object& meaning) {
    const auto kept = [](py::handle one) { return py::reinterpret_borrow<py::object>(one); };
    Known known = {kept(meant.function), kept(meant.dtype), kept(meant.shape), values_of(meant), meaning};
    std::swap(known_[place], known);
}

}  // namespace wi
