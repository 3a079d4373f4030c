"""All of ``torch.nn.init``, with values that are the same on every device, and what torch leaves out.

Signatures, defaults, return values, exceptions and warnings are torch's; `tests/init/test_bad_input.py` lists the few
deliberate differences. Every random function takes more, keyword-only:

* ``seed=``: 64 bits, an integer in [-2^63, 2^64). Left out, 64 bits are drawn from ``generator``, else from the default
  generator of the tensor's device: one draw for any size, dtype and layout, none for meta tensors and tensors without elements.
* ``stream=``: an integer, or a name such as ``"layers.0.weight"``. Default 0, the stream of unnamed draws.
* ``global_shape=``, ``offset=``: the tensor is the part of a tensor of that shape that starts at that position, and gets that
  part's values. Fans come from ``global_shape``.
* ``global_shape=``, ``flat_range=(begin, end)``: the tensor is 1-D and holds these elements of the flattened tensor.

A DTensor needs none of these: each rank fills its own shard, and together they hold the values of the whole tensor. Its seed is
drawn from the default CPU generator, so ranks stay in step if they called ``torch.manual_seed`` alike (`docs/sharding.md`).

Functions with fans also take ``in_axes=``, ``out_axes=`` and ``batch_axes=`` (:func:`weightinit_cuda.init.fans.fans`).
All of them write in place, outside autograd, and return the tensor they were given; arguments are checked before anything is
drawn or written. Without a Raises of its own a function refuses what torch refuses, in torch's words: values out of the dtype's
range, a negative or nan ``std`` (RuntimeError), a dtype that is no float (NotImplementedError), a wrong type (TypeError).

This file is the face: the functions are in ``elementary``, ``by_fans`` and ``matrices``, what a call means in ``schemes``, the
checks in ``arguments``, the filling in ``engine``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import Tensor

from . import fans, schemes
from .by_fans import (
    kaiming_normal_,
    kaiming_uniform_,
    lecun_normal_,
    lecun_uniform_,
    variance_scaling_,
    xavier_normal_,
    xavier_uniform_,
)
from .call import Generator
from .delta_orthogonal import delta_orthogonal_
from .elementary import (
    _no_grad_fill_,  # noqa: F401 libraries import torch's private names
    _no_grad_zero_,  # noqa: F401
    constant_,
    normal_,
    ones_,
    trunc_normal_,
    uniform_,
    zeros_,
)
from .matrices import dirac_, eye_, orthogonal_, sparse_

__all__ = [
    "calculate_gain",
    "constant",
    "constant_",
    "delta_orthogonal_",
    "dirac",
    "dirac_",
    "eye",
    "eye_",
    "kaiming_normal",
    "kaiming_normal_",
    "kaiming_uniform",
    "kaiming_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "normal",
    "normal_",
    "ones_",
    "orthogonal",
    "orthogonal_",
    "sparse",
    "sparse_",
    "trunc_normal_",
    "uniform",
    "uniform_",
    "variance_scaling_",
    "xavier_normal",
    "xavier_normal_",
    "xavier_uniform",
    "xavier_uniform_",
    "zeros_",
]


_R = TypeVar("_R")
_P = ParamSpec("_P")


def calculate_gain(nonlinearity: str, param: int | float | None = None) -> float:
    """The recommended gain of a nonlinearity: torch's table, and gelu, silu, swish and mish. See :func:`fans.gain`.

    >>> calculate_gain("relu"), calculate_gain("leaky_relu", 0.2)
    (1.4142135623730951, 1.3867504905630728)
    """
    return fans.gain(nonlinearity, param)


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    return fans.fans(tensor.size())


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    return schemes.correct_fan(tensor.size(), mode)


def _no_grad_uniform_(tensor: Tensor, a: float, b: float, generator: Generator | None = None) -> Tensor:
    return uniform_(tensor, a, b, generator)


def _no_grad_normal_(tensor: Tensor, mean: float, std: float, generator: Generator | None = None) -> Tensor:
    return normal_(tensor, mean, std, generator)


def _no_grad_trunc_normal_(
    tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Generator | None = None
) -> Tensor:
    return trunc_normal_(tensor, mean, std, a, b, generator)


def _make_deprecate(meth: Callable[_P, _R]) -> Callable[_P, _R]:
    """torch's old names without an underscore, with torch's warning."""
    new_name = meth.__name__
    old_name = new_name[:-1]

    def deprecated_init(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        warnings.warn(f"`nn.init.{old_name}` is now deprecated in favor of `nn.init.{new_name}`.", FutureWarning, stacklevel=2)
        return meth(*args, **kwargs)

    deprecated_init.__doc__ = f"Deprecated name of :func:`{new_name}`."
    deprecated_init.__name__ = deprecated_init.__qualname__ = old_name
    return deprecated_init


uniform = _make_deprecate(uniform_)
normal = _make_deprecate(normal_)
constant = _make_deprecate(constant_)
eye = _make_deprecate(eye_)
dirac = _make_deprecate(dirac_)
xavier_uniform = _make_deprecate(xavier_uniform_)
xavier_normal = _make_deprecate(xavier_normal_)
kaiming_uniform = _make_deprecate(kaiming_uniform_)
kaiming_normal = _make_deprecate(kaiming_normal_)
orthogonal = _make_deprecate(orthogonal_)
sparse = _make_deprecate(sparse_)
