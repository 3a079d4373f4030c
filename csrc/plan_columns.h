// Plans by columns, as weightinit_cuda/plans makes and checks them: in C++, since a model has thousands of tensors.
#pragma once
#include <pybind11/pybind11.h>

namespace wi {

// Of what rules cover, pairs of a Named tensor and fills: (tensors, distributions, names), and one pair of tensor and distribution
// for each list of fills. None unless every tensor is of one of the types, has memory, and is filled as a whole, at once.
pybind11::object whole_columns(const pybind11::list& covered, const pybind11::tuple& types);

// The entries of a plan, tuples of the given type. Tensors that share a list of fills have one dtype and one shape.
pybind11::tuple entries_of(const pybind11::list& covered, const pybind11::list& streams, pybind11::handle entry);

// Whether each entry is of that type and sound, which a look at its fields shows: the whole of a tensor that has one name.
// can_fill: asked once for what follows itself in distribution, dtype and shape.
bool plainly_sound(const pybind11::tuple& entries, pybind11::handle entry, pybind11::handle can_fill);

}  // namespace wi
