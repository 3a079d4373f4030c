"""``patched(draws="ours")``: what stands under ``torch.randn`` and its like, which make tensors and draw them.

torch's functions are written in C++ and have no code to exchange, so names are exchanged: ``torch.randn`` is a fork while any
thread asks for ours. Whoever has bound torch's function before (``from torch import randn``) keeps it. A fork that somebody
binds meanwhile gives torch's values afterwards. A draw of ours is what torch's is: ``torch.empty`` of the same arguments, then
``normal_`` or ``uniform_``; where ours does not fill such a tensor, torch's function is called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .. import init
from ..tensors.named import PLAIN_TYPES
from ..tensors.shards import is_dtensor
from ..tensors.torch_private import (
    device_constructors,
    forget_what_dynamo_knows,
    forward_ad_runs,
    known_to_dynamo,
    register_builtin,
)
from .torch_function import InitFunction

__all__ = ["INIT_ONLY", "Options", "Seen", "SeenByModes", "TorchDraws", "fillable", "put_methods", "remove_methods"]

_dynamo_traces = torch.compiler.is_dynamo_compiling
_empty, _empty_like = torch.empty, torch.empty_like  # deferred() puts others under these names


class Options(NamedTuple):
    """Which draws are ours beside those of ``torch.nn.init``: "torch" or "ours"."""

    generators: str = "torch"
    draws: str = "torch"

    @classmethod
    def checked(cls, function: str, generators: str, draws: str) -> Options:
        """As somebody gave them to that function."""
        if generators == draws == "torch":
            return INIT_ONLY
        for name, given in (("generators", generators), ("draws", draws)):
            if given not in ("torch", "ours"):
                raise ValueError(f'{function}: {name} must be "torch" or "ours", got {given!r}.')
        return cls(generators, draws)


INIT_ONLY = Options()


class Seen(NamedTuple):
    """What torch.compile looks at instead of a list of what was entered, for every length of which it would compile anew."""

    ours: bool = False
    generators: bool = False

    @staticmethod
    def of(innermost: Options | None) -> Seen:
        """Where these options decide; None: where nothing was entered."""
        return _OURS[innermost.generators] if innermost else _NOT_OURS


_NOT_OURS, _OURS = Seen(), {"torch": Seen(ours=True), "ours": Seen(ours=True, generators=True)}


def put_methods(methods: Mapping[str, Any], kind: type = Tensor) -> None:
    """Puts methods, or properties, under ``Tensor``, or another class that inherits them."""
    there = vars(kind)
    for name, method in methods.items():
        if name not in there:  # else somebody's own
            setattr(kind, name, method)


def remove_methods(methods: Mapping[str, Any], kind: type = Tensor) -> None:
    """Takes them away, where they are still these."""
    there = vars(kind)
    for name, method in methods.items():
        if there.get(name) is method:
            delattr(kind, name)


class SeenByModes(InitFunction):
    """A function of ours under the hash and equality of torch's, for a ``TorchFunctionMode``."""

    def __init__(self, function: Callable[..., Any], torchs: Callable[..., Any]) -> None:
        super().__init__(function)
        self._identity = torchs
        del self.__module__  # it is no function of torch.nn.init: an empty-init does not skip it


def fillable(tensor: object) -> bool:
    """Whether ours does for this tensor what torch's method would do, as far as autograd has no objection."""
    return (
        (type(tensor) in PLAIN_TYPES or is_dtensor(tensor))
        and isinstance(tensor, Tensor)
        and (tensor.is_floating_point() or tensor.is_complex())
        and tensor.layout is torch.strided
        and not (tensor.is_meta or tensor.is_nested)
        and not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())
        and not forward_ad_runs()
    )


_TAKEN = {"dtype", "layout", "device", "requires_grad", "pin_memory"}  # with out= a call is torch's
_BY_SIZE, _LIKE = _TAKEN | {"size"}, _TAKEN - {"pin_memory"} | {"memory_format"}
_NUMBERS = (int, float)


def _by_size(*args: Any, **kwargs: Any) -> tuple[Tensor | None, tuple[Any, ...]]:
    """What ``torch.randn`` and ``torch.rand`` would fill, and with which numbers."""
    return (_empty(*args, **kwargs), ()) if kwargs.keys() <= _BY_SIZE else (None, ())


def _like(*args: Any, **kwargs: Any) -> tuple[Tensor | None, tuple[Any, ...]]:
    return (_empty_like(*args, **kwargs), ()) if kwargs.keys() - {"input"} <= _LIKE else (None, ())


def _of_mean_and_std(*args: Any, **kwargs: Any) -> tuple[Tensor | None, tuple[Any, ...]]:
    """Numbers only: where they are tensors, torch computes with what it draws."""
    by_name = [kwargs.pop(name, None) for name in ("mean", "std", "size")[len(args) :]]
    if len(args) > 3 or not kwargs.keys() <= _TAKEN:
        return None, ()
    mean, std, size = *args, *by_name
    if type(mean) not in _NUMBERS or type(std) not in _NUMBERS or not isinstance(size, tuple | list):
        return None, ()
    return _empty(size, **kwargs), (mean, std)


_Maker = Callable[..., tuple[Tensor | None, tuple[Any, ...]]]
_DRAWS: dict[str, tuple[_Maker, Callable[..., Tensor]]] = {
    "randn": (_by_size, init.normal_),
    "rand": (_by_size, init.uniform_),
    "randn_like": (_like, init.normal_),
    "rand_like": (_like, init.uniform_),
    "normal": (_of_mean_and_std, init.normal_),
}


class TorchDraws:
    """The forks of torch's functions that draw.

    Args:
        ours: says whether a draw with that ``generator=`` is ours in this thread.
    """

    def __init__(self, ours: Callable[[torch.Generator | None], bool]) -> None:
        self._ours = ours
        self._torchs = {name: getattr(torch, name) for name in _DRAWS}
        self._forks = {name: self._fork(name) for name in _DRAWS}
        self._dynamo_knew = False  # whether torch.compile had its table of functions before the first of these
        for name, fork in self._forks.items():
            register_builtin(fork, f"aten::{name}")  # what torch.jit.script compiles meanwhile is torch's own

    def put(self) -> None:
        """Exchanges the names. What others have put there is theirs and stays."""
        device_constructors()  # remembers functions by their identity, for as long as the process lives
        self._dynamo_knew = known_to_dynamo()
        _exchange(self._torchs, self._forks)

    def remove(self) -> None:
        """torch's are under their names again, where they still are these."""
        _exchange(self._forks, self._torchs)
        if not self._dynamo_knew and known_to_dynamo():
            forget_what_dynamo_knows()

    def _fork(self, name: str) -> Callable[..., Any]:
        torchs, ours, (maker, fill) = self._torchs[name], self._ours, _DRAWS[name]

        @functools.wraps(torchs)
        def fork(*args: Any, **kwargs: Any) -> Any:
            if _dynamo_traces() or not ours(kwargs.get("generator")) or _is_theirs(args[0] if args else kwargs.get("input")):
                return torchs(*args, **kwargs)
            if has_torch_function_unary(None):  # a mode
                return handle_torch_function(seen, (), *args, **kwargs)
            made = _drawn(maker, fill, args, **kwargs)
            return torchs(*args, **kwargs) if made is None else made

        seen = SeenByModes(fork, torchs)
        return fork


def _is_theirs(first: object) -> bool:
    """Whether somebody else decides what a call with this argument does: a subclass, a proxy of torch.fx."""
    return hasattr(type(first), "__torch_function__") and type(first) not in PLAIN_TYPES and not is_dtensor(first)


def _drawn(
    maker: _Maker, fill: Callable[..., Tensor], args: tuple[Any, ...], generator: torch.Generator | None = None, **kwargs: Any
) -> Tensor | None:
    """A draw of ours; None where it must be torch's, or where torch's is to raise its own error."""
    try:
        made, numbers = maker(*args, **kwargs)
    except (TypeError, ValueError, RuntimeError):
        return None
    return fill(made, *numbers, generator=generator) if made is not None and fillable(made) else None


def _exchange(old: dict[str, Callable[..., Any]], new: dict[str, Callable[..., Any]]) -> None:
    for name, function in new.items():
        if getattr(torch, name) is old[name]:
            setattr(torch, name, function)
