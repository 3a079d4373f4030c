#include "short_calls.h"

#include <algorithm>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>

#include "calls.h"

namespace wi {
namespace {

bool says_yes(const py::object& question) {
    const py::object answer = checked(PyObject_CallNoArgs(question.ptr()));
    return answer.ptr() != Py_None && truth(PyObject_IsTrue(answer.ptr()));
}

}  // namespace

ShortCalls::ShortCalls(py::object plain_tensors, py::object seed_cell, py::object lowest, const py::tuple& tracers,
                       py::object transforms, py::object overridden, py::object grad_enabled, py::object forward)
    : keep_(std::move(plain_tensors)), plain_(keep_.cast<const PlainTensors&>()), seed_cell_(std::move(seed_cell)),
      range_(py::make_tuple(std::move(lowest), py::none())), transforms_(std::move(transforms)),
      overridden_(std::move(overridden)), grad_enabled_(std::move(grad_enabled)), forward_(std::move(forward)) {
    for (const auto tracer : tracers) tracers_.push_back(py::reinterpret_borrow<py::object>(tracer));
}

bool ShortCalls::is_traced() const { return std::any_of(tracers_.begin(), tracers_.end(), says_yes); }

uint64_t ShortCalls::draw() const {
    static const Name both("both");
    const py::object cell = both.of(seed_cell_);
    if (!PyTuple_CheckExact(cell.ptr()) || PyTuple_GET_SIZE(cell.ptr()) != 2) throw py::type_error("a seed cell has two parts");
    const auto* const seed = static_cast<const uint64_t*>(PyLong_AsVoidPtr(PyTuple_GET_ITEM(cell.ptr(), 1)));
    if (!seed) throw std::invalid_argument("the seed must have memory");
    checked(PyObject_Call(PyTuple_GET_ITEM(cell.ptr(), 0), range_.ptr(), nullptr));
    return *seed;  // at once: what runs Python below may run a signal handler
}

template <class Ask>
bool ShortCalls::fill(py::handle tensor, const Plain& plain, bool is_random, const Meant& meant, const Ask& ask) {
    const py::object form = forms_.of(meant, [&](const Meant& unknown) {
        py::object made;
        if (const py::object distribution = ask(unknown)) plain_.transform(distribution, plain, made);
        return made;
    });
    if (!form || form.is_none()) return false;
    const auto& transform = form.cast<const Transform&>();
    const Draw drawn = {is_random ? draw() : 0, 0};
    plain_.about_to_write(tensor);
    plain_.write(plain, transform, drawn);
    return true;
}

bool ShortCalls::drawn(PyObject* const* given, Py_ssize_t n) {
    if (n != 3 || !PyTuple_CheckExact(given[2]) || PyTuple_GET_SIZE(given[2]) == 0)
        throw py::type_error("drawn takes a tensor, a scheme and its arguments");
    const py::handle tensor = given[0], scheme = given[1], args = given[2];
    PyObject* const* const values = PySequence_Fast_ITEMS(args.ptr());
    Plain plain;
    if (!plain_.read(tensor, plain) || !plain.is_cpu || values[0] != plain_.dtype(plain).ptr() || is_traced()) return false;
    const Py_ssize_t all = PyTuple_GET_SIZE(args.ptr()), own = all > 1 && PyTuple_Check(values[1]) ? 2 : 1;
    const Meant meant = {scheme, values[0], own == 2 ? values[1] : Py_None, values + own, all - own};
    return fill(tensor, plain, true, meant, [&](const Meant&) {
        auto made = py::reinterpret_steal<py::object>(PyObject_CallObject(scheme.ptr(), args.ptr()));
        if (!made) forgive(PyExc_Exception);  // the caller asks again
        return made;
    });
}

// A function of torch.nn.init, or a method, on a tensor.
struct ShortCalls::Call {
    py::handle row, tensor;
    PyObject* const* own;
    Py_ssize_t n;
    bool seen_by_autograd;
};

bool ShortCalls::call(const Call& call) {
    static const Name random("random"), by_shape("by_shape"), shape("shape"), requires_grad("requires_grad"),
        is_nested("is_nested");
    Plain plain;
    if (!plain_.read(call.tensor, plain) || !plain.is_cpu || is_traced() || says_yes(transforms_)) return false;
    const bool is_random = random.of(call.row).ptr() == Py_True;
    if (!is_random && plain.count > kSmall) return false;  // torch is as fast
    if (!plain.has_shape && is_nested.of(call.tensor).ptr() != Py_False) return false;
    if (checked(PyObject_CallOneArg(overridden_.ptr(), call.tensor.ptr())).ptr() != Py_False) return false;
    if (call.seen_by_autograd && requires_grad.of(call.tensor).ptr() != Py_False && says_yes(grad_enabled_)) return false;
    if (call.seen_by_autograd && says_yes(forward_)) return false;
    const py::object known_by = by_shape.of(call.row).ptr() == Py_True ? shape.of(call.tensor) : py::object(py::none());
    return fill(call.tensor, plain, is_random, {call.row, plain_.dtype(plain), known_by, call.own, call.n},
                [&](const Meant& unknown) {
                    const py::object whole = shape.of(call.tensor);
                    return distribution_of({unknown.function, unknown.dtype, whole, unknown.own, unknown.n});
                });
}

bool ShortCalls::called(PyObject* const* given, Py_ssize_t n) {
    const Py_ssize_t all = n == 3 && PyTuple_CheckExact(given[1]) ? PyTuple_GET_SIZE(given[1]) : 0;
    const Py_ssize_t own = all ? PyLong_AsSsize_t(given[2]) : 0;
    if (own == -1 && PyErr_Occurred()) throw py::error_already_set();
    if (own < 1 || own > all) throw py::type_error("a call has a row, its arguments, and a number of them");
    PyObject* const* const args = PySequence_Fast_ITEMS(given[1]);
    if (own < all && args[own] != Py_None) return false;
    return this->call({given[0], args[0], args + 1, own - 1, false});
}

bool ShortCalls::method(PyObject* const* given, Py_ssize_t n) {
    constexpr Py_ssize_t kOwn = 2;
    if (n != 5 || !PyTuple_CheckExact(given[1]) || PyTuple_GET_SIZE(given[1]) != kOwn || !PyTuple_CheckExact(given[3]) ||
        !PyDict_CheckExact(given[4]))
        throw py::type_error("a call of a method has a row, names of two arguments, a tensor, and its arguments");
    const Py_ssize_t first = PyTuple_GET_SIZE(given[3]);
    if (first > kOwn) return false;
    PyObject* own[kOwn] = {zero_.ptr(), one_.ptr()};
    std::copy_n(PySequence_Fast_ITEMS(given[3]), first, own);
    Py_ssize_t at = 0;
    PyObject *key, *value;
    while (PyDict_Next(given[4], &at, &key, &value)) {
        Py_ssize_t i = first;
        while (i < kOwn && !equal(PyTuple_GET_ITEM(given[1], i), key)) ++i;
        if (i == kOwn) return false;
        own[i] = value;
    }
    return this->call({given[0], given[2], own, kOwn, true});
}

namespace {

template <bool (ShortCalls::*kCall)(PyObject* const*, Py_ssize_t)>
PyObject* answer(PyObject* self, PyObject* const* given, Py_ssize_t n) {
    try {
        auto* const calls = static_cast<ShortCalls*>(PyCapsule_GetPointer(self, nullptr));
        return PyBool_FromLong((calls->*kCall)(given, n));
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const py::builtin_exception& error) {
        error.set_error();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    }
    return nullptr;
}

template <bool (ShortCalls::*kCall)(PyObject* const*, Py_ssize_t)>
py::object function(const char* name, const py::capsule& calls) {
    static PyMethodDef definition = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(answer<kCall>)), METH_FASTCALL,
                                     nullptr};
    return checked(PyCFunction_New(&definition, calls.ptr()));
}

}  // namespace

py::tuple short_calls(ShortCalls calls) {
    const py::capsule kept(new ShortCalls(std::move(calls)), [](void* it) { delete static_cast<ShortCalls*>(it); });
    return py::make_tuple(function<&ShortCalls::drawn>("drawn", kept), function<&ShortCalls::called>("called", kept),
                          function<&ShortCalls::method>("method", kept));
}

}  // namespace wi
