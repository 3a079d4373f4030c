// The tensors of a module with their names, as weightinit_cuda/tensors/named.py goes through them: in C++, since every plan does.
#pragma once
#include <pybind11/pybind11.h>

namespace wi {

// Adds the parameters and the buffers of a module and of all inside it to two lists, each as a tuple of type `named`. Returns whether
// that is all: no tensor is there twice, and none is partitioned by ZeRO-3.
bool collect(pybind11::handle module, pybind11::handle named, pybind11::list own, pybind11::list kept);

// The same two lists, all modules, each once, with their names, and the plain attributes that are tensors or may hold some: names,
// values and modules.
// every: the names of what every module has, in order. leafless: types of which no value is a tensor or holds one.
pybind11::tuple look_through(pybind11::handle module, pybind11::handle named, pybind11::dict every, pybind11::tuple leafless,
                             pybind11::object tensor);

// The tensors of a model, if they are those of a plan in its order: names, shapes, dtypes and aliases are columns of it.
// None if they are not, or some are on meta. Buffers whose names the plan does not know are left out.
pybind11::object tensors_alike(const pybind11::list& named, const pybind11::dict& known, const pybind11::tuple& names,
                               const pybind11::tuple& shapes, const pybind11::tuple& dtypes, const pybind11::tuple& aliases);

}  // namespace wi
