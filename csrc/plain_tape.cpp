#include "plain_tape.h"

#include <structmember.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "calls.h"

namespace wi {
namespace {

constexpr size_t kCodes = 1024, kPlaces = 256;  // what is remembered; a model has fewer

py::object called_with(py::handle function) { return checked(PyObject_CallNoArgs(function.ptr())); }

py::object called_with(py::handle function, py::handle argument) {
    return checked(PyObject_CallOneArg(function.ptr(), argument.ptr()));
}

int64_t number(py::handle whole) {
    const long long value = PyLong_AsLongLong(whole.ptr());
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return value;
}

}  // namespace

// ---- objects with slots -------------------------------------------------------------------------------------------------

Slotted::Slotted(py::object like) : like_(std::move(like)), type_(py::type::of(like_)) {
    auto* const type = reinterpret_cast<PyTypeObject*>(type_.ptr());
    if (type->tp_itemsize || !type->tp_mro) throw std::invalid_argument("a class with slots is needed");
    for (const auto base : py::reinterpret_borrow<py::tuple>(type->tp_mro)) {
        if (!py::hasattr(base, "__slots__") || !attribute(base, "__dict__").contains("__slots__")) continue;
        for (const auto name : py::tuple(base.attr("__slots__"))) {
            const py::object found = base.attr(name);
            const auto* const member = reinterpret_cast<PyMemberDescrObject*>(found.ptr());
            if (Py_TYPE(found.ptr()) != &PyMemberDescr_Type || member->d_member->type != T_OBJECT_EX)
                throw std::invalid_argument("a slot is of another kind");
            const Py_ssize_t at = member->d_member->offset;
            if (at < Py_ssize_t(sizeof(PyObject)) || at + Py_ssize_t(sizeof(PyObject*)) > type->tp_basicsize)
                throw std::invalid_argument("a slot lies outside of its object");
            slots_.emplace_back(name.cast<std::string>(), at);
        }
    }
}

Py_ssize_t Slotted::slot(const char* name) const {
    for (const auto& [known, at] : slots_)
        if (known == name) return at;
    throw std::invalid_argument(std::string("there is no slot ") + name);
}

namespace {

PyObject*& at(py::handle object, Py_ssize_t slot) {
    return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object.ptr()) + slot);
}

}  // namespace

py::object Slotted::get(py::handle object, Py_ssize_t slot) {
    PyObject* const found = at(object, slot);
    if (!found) throw py::attribute_error("a slot is empty");
    return py::reinterpret_borrow<py::object>(found);
}

void Slotted::set(py::handle object, Py_ssize_t slot, py::object value) {
    PyObject* const before = std::exchange(at(object, slot), value.release().ptr());
    Py_XDECREF(before);
}

py::object Slotted::copy() const {
    auto* const type = reinterpret_cast<PyTypeObject*>(type_.ptr());
    py::object made = checked(type->tp_alloc(type, 0));
    for (const auto& one : slots_) set(made, one.second, get(like_, one.second));
    PyObject_GC_UnTrack(made.ptr());
    return made;
}

// ---- which line is running ----------------------------------------------------------------------------------------------

namespace {

int instruction_of(PyFrameObject* frame) {
#if PY_VERSION_HEX >= 0x030B0000
    return PyFrame_GetLasti(frame);
#else
    return int(number(attribute(reinterpret_cast<PyObject*>(frame), "f_lasti")));
#endif
}

}  // namespace

Places::Places(py::object is_own) : is_own_(std::move(is_own)), judged_(kCodes), known_(kPlaces) {}

bool Places::is_own(const py::object& code) {
    Judged& known = judged_[mixed(code.ptr()) % kCodes];
    if (known.code.ptr() == code.ptr()) return known.own;
    const bool own = truth(PyObject_IsTrue(called_with(is_own_, code).ptr()));
    Judged& now = judged_[mixed(code.ptr()) % kCodes];
    now.own = own;
    now.code = code;
    return own;
}

py::object Places::place(const py::object& code, int instruction) {
    Known& known = known_[(mixed(code.ptr()) ^ size_t(instruction)) % kPlaces];
    if (known.code.ptr() != code.ptr() || known.instruction != instruction) {
        known.place = py::make_tuple(code, instruction);
        known.code = code;
        known.instruction = instruction;
    }
    return known.place;
}

py::object Places::here() {
    auto frame = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(PyThreadState_GetFrame(PyThreadState_Get())));
    while (frame) {
        auto* const at = reinterpret_cast<PyFrameObject*>(frame.ptr());
        const py::object code = checked(reinterpret_cast<PyObject*>(PyFrame_GetCode(at)));
        if (is_own(code)) return place(code, instruction_of(at));
        frame = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(PyFrame_GetBack(at)));
    }
    return py::none();
}

// ---- the tape -------------------------------------------------------------------------------------------------------------

TapeParts::TapeParts(py::tuple types, py::object memory, py::object fill_step, py::object empty, py::object without_dispatch,
                     py::object dispatch_modes, py::object function_modes, py::object grad_enabled, py::object data,
                     py::object cpu, py::object meta, py::object is_own)
    : memory(std::move(memory)), fill_step(std::move(fill_step)), empty(std::move(empty)),
      without_dispatch(std::move(without_dispatch)), dispatch_modes(std::move(dispatch_modes)),
      function_modes(std::move(function_modes)), grad_enabled(std::move(grad_enabled)), cpu(std::move(cpu)),
      meta(std::move(meta)), data(std::move(data)), places(std::move(is_own)) {
    for (const auto type : types) this->types.push_back(py::reinterpret_borrow<py::object>(type));
    if (this->types.empty()) throw std::invalid_argument("at least one type is plain");
    storage = this->memory.slot("storage");
    device = this->memory.slot("device");
    dtype = this->memory.slot("dtype");
    shape = this->memory.slot("shape");
    plain = this->memory.slot("plain");
    steps = this->memory.slot("steps");
    place = this->fill_step.slot("place");
    filled = this->fill_step.slot("filled");
    distribution = this->fill_step.slot("distribution");
    const py::object& tensor = this->types.front();
    untyped_storage = tensor.attr("untyped_storage");
    is_contiguous = tensor.attr("is_contiguous");
    is_conj = tensor.attr("is_conj");
    is_neg = tensor.attr("is_neg");
    is_inference = tensor.attr("is_inference");
}

PlainTape::PlainTape(py::object parts, py::list steps, py::dict memories, py::object seeding)
    : keep_(std::move(parts)), parts_(keep_.cast<TapeParts&>()), steps_(std::move(steps)), memories_(std::move(memories)),
      seeding_(std::move(seeding)) {}

bool PlainTape::sees_first() const {
    return number(called_with(parts_.dispatch_modes)) == depth && number(called_with(parts_.function_modes)) == 0;
}

py::object PlainTape::plain_memory(py::handle tensor) const {
    static const Name key("_cdata"), shape("shape"), dtype("dtype");
    const auto is_type = [&](const py::object& type) {
        return type.ptr() == reinterpret_cast<PyObject*>(Py_TYPE(tensor.ptr()));
    };
    if (std::none_of(parts_.types.begin(), parts_.types.end(), is_type)) return py::none();
    const auto storage = py::reinterpret_steal<py::object>(PyObject_CallOneArg(parts_.untyped_storage.ptr(), tensor.ptr()));
    if (!storage) {
        forgive(PyExc_RuntimeError);  // a layout, or a wrapper, that has none
        return py::none();
    }
    PyObject* const found = PyDict_GetItemWithError(memories_.ptr(), key.of(storage).ptr());
    if (!found) {
        if (PyErr_Occurred()) throw py::error_already_set();
        return py::none();
    }
    const auto memory = py::reinterpret_borrow<py::object>(found);
    const auto no = [&](const py::object& question) { return called_with(question, tensor).ptr() == Py_False; };
    const bool is_plain = parts_.memory.is(memory) && Slotted::get(memory, parts_.plain).ptr() == Py_True &&
                          equal(shape.of(tensor), Slotted::get(memory, parts_.shape)) &&
                          dtype.of(tensor).is(Slotted::get(memory, parts_.dtype)) && !no(parts_.is_contiguous) &&
                          no(parts_.is_neg) && no(parts_.is_conj);
    return is_plain ? memory : py::object(py::none());
}

void PlainTape::fill_plain(const py::object& memory, py::handle distribution) const {
    const py::object place = parts_.places.here(), step = parts_.fill_step.copy();
    Slotted::set(step, parts_.place, place);
    Slotted::set(step, parts_.filled, memory);
    Slotted::set(step, parts_.distribution, py::reinterpret_borrow<py::object>(distribution));
    const py::object written = Slotted::get(memory, parts_.steps),
                     at = checked(PyLong_FromSsize_t(PyList_GET_SIZE(steps_.ptr())));
    if (!PyList_Check(written.ptr())) throw py::type_error("the steps of a memory must be a list");
    if (PyList_Append(written.ptr(), at.ptr()) < 0 || PyList_Append(steps_.ptr(), step.ptr()) < 0)
        throw py::error_already_set();
}

namespace {

// Sizes that torch.empty takes as they are, none of which is 0; null for any other.
py::object plain_size(const py::tuple& args) {
    if (args.size() == 0) return {};
    PyObject* const first = PyTuple_GET_ITEM(args.ptr(), 0);
    const bool is_list = args.size() == 1 && (PyTuple_Check(first) || PyList_CheckExact(first));
    const py::object sizes = is_list ? checked(PySequence_Tuple(first)) : py::object(args);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(sizes.ptr()); ++i) {
        PyObject* const size = PyTuple_GET_ITEM(sizes.ptr(), i);
        if (!PyLong_CheckExact(size)) return {};
        int overflow = 0;
        if (PyLong_AsLongLongAndOverflow(size, &overflow) <= 0) return {};
    }
    return sizes;
}

struct Asked {
    py::object dtype = py::none(), device = py::none();
};

// False if more is asked for than a dtype and a device.
bool read(const py::dict& named, Asked& asked) {
    Py_ssize_t at = 0;
    PyObject *key = nullptr, *value = nullptr;
    while (PyDict_Next(named.ptr(), &at, &key, &value)) {
        if (PyUnicode_CompareWithASCIIString(key, "dtype") == 0) {
            asked.dtype = py::reinterpret_borrow<py::object>(value);
        } else if (PyUnicode_CompareWithASCIIString(key, "device") == 0) {
            asked.device = py::reinterpret_borrow<py::object>(value);
        } else {
            return false;
        }
    }
    return true;
}

}  // namespace

// A function of torch that does not look at the modes meanwhile, of which the recorder is one; null where it raises.
py::object PlainTape::unseen(py::handle function, const py::tuple& args, const py::dict& named) const {
    const py::tuple no_types(0);
    PyObject* given[] = {function.ptr(), no_types.ptr(), args.ptr(), named.ptr()};
    return py::reinterpret_steal<py::object>(PyObject_Vectorcall(parts_.without_dispatch.ptr(), given, 4, nullptr));
}

py::object PlainTape::made_on_meta(const py::object& size, const py::object& dtype) const {
    static const Name size_name("size"), dtype_name("dtype"), device_name("device");
    const py::dict named;
    if (PyDict_SetItem(named.ptr(), size_name.text, size.ptr()) < 0 ||
        PyDict_SetItem(named.ptr(), device_name.text, parts_.meta.ptr()) < 0 ||
        (!dtype.is_none() && PyDict_SetItem(named.ptr(), dtype_name.text, dtype.ptr()) < 0))
        throw py::error_already_set();
    py::object made = unseen(parts_.empty, py::tuple(0), named);
    if (!made) forgive(PyExc_RuntimeError);
    return made;
}

py::object PlainTape::make(const py::tuple& args, const py::dict& named, py::handle distribution) const {
    static const Name key("_cdata"), shape("shape"), dtype("dtype");
    if (!sees_first()) return py::none();
    Asked asked;
    if (!read(named, asked)) return py::none();
    if (asked.device.is_none()) {
        asked.device = parts_.cpu;
    } else {
        asked.device = called_with(reinterpret_cast<PyObject*>(Py_TYPE(parts_.cpu.ptr())), asked.device);
        if (equal(asked.device, parts_.meta)) return py::none();
    }
    const py::object size = plain_size(args);
    const py::object made = size ? made_on_meta(size, asked.dtype) : py::object();
    if (!made) return py::none();
    const py::object storage = called_with(parts_.untyped_storage, made), memory = parts_.memory.copy();
    Slotted::set(memory, parts_.storage, storage);
    Slotted::set(memory, parts_.device, asked.device);
    Slotted::set(memory, parts_.dtype, dtype.of(made));
    Slotted::set(memory, parts_.shape, shape.of(made));
    Slotted::set(memory, parts_.plain, py::bool_(true));
    py::list steps;
    PyObject_GC_UnTrack(steps.ptr());  // of numbers
    Slotted::set(memory, parts_.steps, std::move(steps));
    if (PyDict_SetItem(memories_.ptr(), key.of(storage).ptr(), memory.ptr()) < 0) throw py::error_already_set();
    if (!distribution.is_none()) fill_plain(memory, distribution);
    return made;
}

bool PlainTape::may_write(py::handle tensor) const {
    static const Name requires_grad("requires_grad");
    if (requires_grad.of(tensor).ptr() != Py_False && called_with(parts_.grad_enabled).ptr() != Py_False) return false;
    return called_with(parts_.is_inference, tensor).ptr() == Py_False;
}

bool PlainTape::fill(py::handle tensor, py::handle distribution) const {
    if (!sees_first() || !may_write(tensor)) return false;
    const py::object memory = plain_memory(tensor);
    if (memory.is_none()) return false;
    fill_plain(memory, distribution);
    return true;
}

bool PlainTape::called(py::handle function, const py::tuple& args, Py_ssize_t own) const {
    static const Name is_random("is_random"), is_set("is_set");
    const auto n = Py_ssize_t(args.size());
    if (own < 1 || n < own) throw std::invalid_argument("a call must have its arguments");
    if (n > own && PyTuple_GET_ITEM(args.ptr(), own) != Py_None) return false;  // a generator
    if (!sees_first()) return false;
    const py::object memory = plain_memory(PyTuple_GET_ITEM(args.ptr(), 0));
    if (memory.is_none()) return false;
    const py::object dtype = Slotted::get(memory, parts_.dtype), shape = Slotted::get(memory, parts_.shape);
    const Meant meant = {function, dtype, shape, PySequence_Fast_ITEMS(args.ptr()) + 1, own - 1};
    const py::object meaning = parts_.meanings.of(meant, distribution_of);
    if (!meaning) return false;
    if (is_random.of(meaning).ptr() != Py_False && is_set.of(seeding_).ptr() != Py_False) return false;
    fill_plain(memory, meaning);
    return true;
}

py::object PlainTape::data(py::handle tensor) const {
    if (!sees_first() || plain_memory(tensor).is_none()) return py::none();
    py::object seen = unseen(parts_.data, py::make_tuple(tensor), py::dict());
    if (!seen) throw py::error_already_set();
    return seen;
}

py::tuple PlainTape::held_by(const py::list& modules) const {
    static const Name parameters("_parameters"), buffers("_buffers");
    py::list all, others;
    for (const auto module : modules) {
        py::dict held;
        for (const Name* const kind : {&parameters, &buffers}) {
            const py::object tensors = kind->of(module);
            if (!PyDict_Check(tensors.ptr())) throw py::type_error("a module must keep its tensors in a dict");
            Py_ssize_t at = 0;
            PyObject *key = nullptr, *tensor = nullptr;
            while (PyDict_Next(tensors.ptr(), &at, &key, &tensor)) {
                if (tensor == Py_None) continue;
                const auto name = py::reinterpret_borrow<py::object>(key), one = py::reinterpret_borrow<py::object>(tensor);
                const py::object memory = plain_memory(one);
                if (memory.is_none())
                    others.append(py::make_tuple(held, module, name, one));
                else if (PyDict_SetItem(held.ptr(), key, memory.ptr()) < 0)
                    throw py::error_already_set();
            }
        }
        all.append(held);
    }
    return py::make_tuple(all, others);
}

}  // namespace wi
