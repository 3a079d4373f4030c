// tensor[index] by functions of Python, put under a class and taken away again: weightinit_cuda/recording/subscripts.py says what for.
// Assigned as an attribute, __getitem__ is looked up again for every class below, which takes time; and it makes each of them a
// sequence to Python's C API, as which tensors of no dimensions must not be read.
#pragma once
#include <pybind11/pybind11.h>

namespace wi {

namespace py = pybind11;

class Subscripts {
  public:
    // kind: a class made by Python. base: the class that it has its subscripts from, in C. like: one whose subscripts are Python's.
    Subscripts(py::object kind, py::object base, py::object like);

    // Puts functions under these names of the class, __getitem__ and __setitem__ among them. It has neither of them itself.
    void put(const py::dict& methods) const;
    // Takes them away. Classes that were made meanwhile, too, have the subscripts of the base again.
    void remove(const py::dict& methods) const;

  private:
    struct Slots {
        binaryfunc get = nullptr;
        objobjargproc set = nullptr;
    };
    static Slots slots_of(PyTypeObject* type);
    void put_below(PyTypeObject* type) const;
    void restore_below(PyTypeObject* type) const;
    py::list below(PyTypeObject* type) const;

    py::object kind_, base_, get_, set_, subclasses_;  // get_ and set_: of the base, as attributes
    Slots in_c_, in_python_;
};

}  // namespace wi
