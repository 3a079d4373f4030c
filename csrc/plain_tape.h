// What recorded code does most, written on its tape without a line of Python: memory that is made, and filled as a whole by
// torch.nn.init or a method. weightinit_cuda/recording/plain_tape.py says what each method does, and is the same in Python. What
// is not that plain is declined: nothing is recorded, and the caller takes the general way.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "meanings.h"

namespace wi {

namespace py = pybind11;

// Objects of a dataclass with slots, made as copies of one that Python has made: its __init__ is not run again. Nothing that these
// refer to refers back, so Python's collector of cycles, which goes through all it tracks again and again, is not told of them.
class Slotted {
  public:
    explicit Slotted(py::object like);
    Py_ssize_t slot(const char* name) const;
    bool is(py::handle object) const { return reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == type_.ptr(); }
    py::object copy() const;

    static py::object get(py::handle object, Py_ssize_t slot);
    static void set(py::handle object, Py_ssize_t slot, py::object value);

  private:
    py::object like_, type_;
    std::vector<std::pair<std::string, Py_ssize_t>> slots_;
};

// The innermost instruction of somebody's own code: source_line.here().
class Places {
  public:
    explicit Places(py::object is_own);
    py::object here();

  private:
    struct Judged {
        py::object code;
        bool own = false;
    };
    struct Known {
        py::object code, place;
        int instruction = 0;
    };
    bool is_own(const py::object& code);
    py::object place(const py::object& code, int instruction);

    py::object is_own_;
    std::vector<Judged> judged_;  // by the address of the code, which they keep alive
    std::vector<Known> known_;
};

// What all tapes have in common.
struct TapeParts {
    // types: of tensors whose objects are the memory that they show; the first is torch.Tensor.
    // memory, fill_step: of tape.py, with their defaults; they are copied.
    // empty: torch.empty. without_dispatch: calls a function for which there are no modes.
    // dispatch_modes, function_modes: how many there are. grad_enabled: whether autograd looks.
    // data: that of a tensor, as torch has it. cpu, meta: devices. is_own: whether a code object is somebody's own.
    TapeParts(py::tuple types, py::object memory, py::object fill_step, py::object empty, py::object without_dispatch,
              py::object dispatch_modes, py::object function_modes, py::object grad_enabled, py::object data, py::object cpu,
              py::object meta, py::object is_own);

    std::vector<py::object> types;
    Slotted memory, fill_step;
    Py_ssize_t storage, device, dtype, shape, plain, steps;  // slots of a memory
    Py_ssize_t place, filled, distribution;                  // of a step
    py::object empty, without_dispatch, dispatch_modes, function_modes, grad_enabled, cpu, meta, data;
    py::object untyped_storage, is_contiguous, is_conj, is_neg, is_inference;  // of tensors
    Places places;
    Meanings meanings;
};

// The plain calls of one recorder. It refers to nothing that refers to it, so Python's collector of cycles need not know it.
class PlainTape {
  public:
    PlainTape(py::object parts, py::list steps, py::dict memories, py::object seeding);

    int64_t depth = 0;  // of the stack of modes that the recorder is on top of

    py::object plain_memory(py::handle tensor) const;
    py::object make(const py::tuple& args, const py::dict& named, py::handle distribution) const;
    bool fill(py::handle tensor, py::handle distribution) const;
    bool called(py::handle function, const py::tuple& args, Py_ssize_t own) const;
    py::object data(py::handle tensor) const;
    py::tuple held_by(const py::list& modules) const;

  private:
    bool sees_first() const;
    bool may_write(py::handle tensor) const;
    void fill_plain(const py::object& memory, py::handle distribution) const;
    py::object unseen(py::handle function, const py::tuple& args, const py::dict& named) const;
    py::object made_on_meta(const py::object& size, const py::object& dtype) const;

    py::object keep_;
    TapeParts& parts_;
    py::list steps_;
    py::dict memories_;
    py::object seeding_;
};

}  // namespace wi
