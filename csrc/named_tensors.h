// The tensors of a module with their names, as weightinit_cuda/tensors/named.py goes through them: in C++, since every plan does.
#pragma once
#include <pybind11/pybind11.h>

namespace wi {

// Adds the parameters and the buffers of a module and of all inside it to two lists, each as a tuple of type `named`.
void collect(pybind11::handle module, pybind11::handle named, pybind11::list own, pybind11::list kept);

}  // namespace wi
