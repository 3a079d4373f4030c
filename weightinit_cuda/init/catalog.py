"""The functions of ``init``, one row each: all that the rest of the library knows of them by name.

Rules bind their arguments here, ``torch_ops`` makes an operator of each row, ``patching`` finds in it what to put under torch.
To add a function: a row here, its scheme, and the function itself with signature and docstring (a test compares rows with
signatures).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch

from ..numerics.distributions import Constant, Distribution
from . import schemes
from .arguments import Draw

__all__ = ["CATALOG", "DRAWN", "Function", "distribution_of", "function_of"]

AXES = ("in_axes", "out_axes", "batch_axes")
DRAWN = Draw._fields
"""What every random function takes beside its own arguments: where its numbers come from."""


class Function(NamedTuple):
    """A function of ``init``.

    Args:
        name: with its underscore.
        scheme: from dtype, shape (if ``by_shape``) and its own arguments to a distribution.
        own: its own arguments with their defaults; a type where there is none.
        by_shape: whether what it means depends on the shape.
        axes: whether it takes :data:`AXES`.
        dimensions: of the tensor; empty if any will do.
        random: whether it takes :data:`DRAWN`.
        is_operator: whether ``torch.ops.weightinit_cuda`` has it.
        recorded: whether ``deferred()`` records a call of torch's function as one fill, since torch's operators would not show
            one: a loop that looks at values, a QR decomposition, an operator for each column.
        deprecated: torch's old name.
        private: torch's private name of the same thing, which libraries import.
    """

    name: str
    scheme: Callable[..., Distribution]
    own: Mapping[str, Any] = {}
    by_shape: bool = False
    axes: bool = False
    dimensions: tuple[int, ...] = ()
    random: bool = True
    is_operator: bool = True
    recorded: bool = False
    deprecated: str = ""
    private: str = ""

    def bind(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """Its own arguments in order, with defaults.

        Raises:
            TypeError: it has no such argument, or one is missing.
        """
        known = dict(self.own) | dict.fromkeys(AXES if self.axes else ())
        values = {**known, **given}
        if unknown := sorted(given.keys() - known.keys()):
            raise TypeError(f"{self.name} has no argument {', '.join(unknown)}")
        if missing := [key for key, value in values.items() if isinstance(value, type)]:
            raise TypeError(f"{self.name} needs {', '.join(missing)}")
        return tuple(values.values())

    def distribution(self, dtype: torch.dtype, shape: tuple[int, ...], *values: Any) -> Distribution:
        """What it fills a tensor with, given its own arguments in order."""
        if self.dimensions and len(shape) not in self.dimensions:
            wanted = " or ".join(map(str, self.dimensions[:3]))
            raise ValueError(f"{self.name} needs {wanted} dimensions, got shape {shape}")
        if self.by_shape and 0 in shape:
            return Constant(0.0)  # of nothing
        return self.scheme(dtype, shape, *values) if self.by_shape else self.scheme(dtype, *values)


_BY_FANS: dict[str, Any] = {"by_shape": True, "axes": True}
_KAIMING = {"a": 0.0, "mode": "fan_in", "nonlinearity": "leaky_relu"}
_SCALING = {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"}
_TRUNC = {"mean": 0.0, "std": 1.0, "a": -2.0, "b": 2.0, "bounds": "absolute", "compensate": False}
_CONSTANT: dict[str, Any] = {"random": False, "is_operator": False}
_PLACED: dict[str, Any] = {"by_shape": True, "random": False, "recorded": True}
_LECUN: dict[str, Any] = {**_BY_FANS, "is_operator": False}  # they are variance_scaling_'s


def _rows() -> Iterable[Function]:
    s = schemes
    yield Function("uniform_", s.uniform_, {"a": 0.0, "b": 1.0}, deprecated="uniform", private="_no_grad_uniform_")
    yield Function("normal_", s.normal_, {"mean": 0.0, "std": 1.0}, deprecated="normal", private="_no_grad_normal_")
    yield Function("trunc_normal_", s.trunc_normal_, _TRUNC, recorded=True, private="_no_grad_trunc_normal_")
    yield Function("constant_", s.constant_, {"val": float}, deprecated="constant", **_CONSTANT)
    yield Function("ones_", s.ones_, **_CONSTANT)
    yield Function("zeros_", s.zeros_, **_CONSTANT)
    yield Function("xavier_uniform_", s.xavier_uniform_, {"gain": 1.0}, deprecated="xavier_uniform", **_BY_FANS)
    yield Function("xavier_normal_", s.xavier_normal_, {"gain": 1.0}, deprecated="xavier_normal", **_BY_FANS)
    yield Function("kaiming_uniform_", s.kaiming_uniform_, _KAIMING, deprecated="kaiming_uniform", **_BY_FANS)
    yield Function("kaiming_normal_", s.kaiming_normal_, _KAIMING, deprecated="kaiming_normal", **_BY_FANS)
    yield Function("lecun_uniform_", s.lecun_uniform_, **_LECUN)
    yield Function("lecun_normal_", s.lecun_normal_, **_LECUN)
    yield Function("variance_scaling_", s.variance_scaling_, _SCALING, **_BY_FANS)
    yield Function("eye_", s.eye_, deprecated="eye", dimensions=(2,), **_PLACED)
    yield Function("dirac_", s.dirac_, {"groups": 1}, deprecated="dirac", dimensions=(3, 4, 5), **_PLACED)
    yield Function(
        "orthogonal_",
        s.orthogonal_,
        {"gain": 1.0},
        deprecated="orthogonal",
        by_shape=True,
        dimensions=tuple(range(2, 65)),
        recorded=True,
    )
    yield Function(
        "sparse_",
        s.sparse_,
        {"sparsity": float, "std": 0.01},
        deprecated="sparse",
        by_shape=True,
        dimensions=(2,),
        recorded=True,
    )


CATALOG = {row.name: row for row in _rows()}


def function_of(name: str) -> Function:
    """The row of a function.

    Raises:
        ValueError: ``init`` has no such function.
    """
    if name not in CATALOG:
        raise ValueError(f"init must be a function of weightinit_cuda.init, got {name!r}.")
    return CATALOG[name]


def distribution_of(function: str, dtype: torch.dtype, shape: tuple[int, ...], params: Mapping[str, Any]) -> Distribution:
    """The distribution that a function of ``init`` would fill a tensor with.

    Args:
        function: its name.
        dtype, shape: of the tensor.
        params: its own arguments by name.

    >>> distribution_of("kaiming_uniform_", torch.float32, (8, 6), {"nonlinearity": "relu"})
    Uniform(a=-1.0, b=1.0)
    """
    row, values = CATALOG[function], schemes.plain(tuple(params.values()))
    if not row.random and not row.by_shape:  # a constant is not remembered by value: 0.0 and -0.0 are one key
        return row.distribution(dtype, shape, *row.bind(dict(zip(params, values, strict=True))))
    return _made(function, dtype, shape, tuple(params), *values)


@functools.lru_cache(maxsize=4096, typed=True)  # typed: 1 and True are one key
def _made(function: str, dtype: torch.dtype, shape: tuple[int, ...], names: tuple[str, ...], *values: Any) -> Distribution:
    row = CATALOG[function]
    return row.distribution(dtype, shape, *row.bind(dict(zip(names, values, strict=True))))
