// What tensors of a model get from rules, as weightinit_cuda/rules/matching.py asks: in C++, since every plan asks for each tensor.
#pragma once
#include <pybind11/pybind11.h>

#include <utility>

namespace wi {

// What decides what a tensor gets, in one model: dtype and shape; in layers of the given kinds also the kind, the name of the tensor
// in the module, and the shape of the layer's weight.
class ShapeKey {
  public:
    // kinds: a set of types of layers; None: of all modules alike. plain: types of tensors whose shapes are what they seem.
    ShapeKey(pybind11::object kinds, pybind11::tuple plain) : kinds_(std::move(kinds)), plain_(std::move(plain)) {}

    // None: there is no key.
    pybind11::object of(pybind11::handle named) const;

  private:
    pybind11::object kinds_;
    pybind11::tuple plain_;
};

// For each tensor the fills of the first rule that has any, an empty list if none has; or, where a rule refuses, that rule's row and
// the exception.
// rules: rows of (origin, rule, conditions, key, what is known by key), first those of parameters, then those of buffers.
// ask: from row, tensor and key to fills, which it makes known. refusals: types of exceptions; others are thrown.
pybind11::list first_fills(const pybind11::list& tensors, const pybind11::tuple& rules, pybind11::handle ask,
                           pybind11::handle refusals);

}  // namespace wi
