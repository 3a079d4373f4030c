"""How ``torch.nn.Module`` keeps its attributes, by the native module, while models are built.

Most of the time in which a small layer is made goes into what torch asks of each attribute: whether it is a parameter, a buffer
or a module, and whether its name is free. In the commonest case, a new name in a class that leaves all of this to ``Module``,
the native module does the same at once (csrc/module_attributes.cpp); all else is left to torch. The code of torch's methods is
exchanged, and not the methods, as in ``patching``.
"""

from __future__ import annotations

from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.backend import kernels
from .calling_code import Fork, exchange, exchange_back

__all__ = ["put", "remove"]


class _Like:
    """Has the code that stands there meanwhile. It runs among torch's names, and closes over a class where torch's own does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        __class__  # type: ignore[name-defined]  # noqa: B018
        ours = torch.sys.modules["weightinit_cuda.init.module_attributes"]  # type: ignore[attr-defined]
        if torch.compiler.is_dynamo_compiling() or args or kwargs or not ours._native.begin(self):
            ours._torchs["__init__"](self, *args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        __class__  # type: ignore[name-defined]  # noqa: B018
        ours = torch.sys.modules["weightinit_cuda.init.module_attributes"]  # type: ignore[attr-defined]
        if torch.compiler.is_dynamo_compiling() or not ours._native.set(self, name, value):
            ours._torchs["__setattr__"](self, name, value)

    def register_parameter(self, name: str, param: Any) -> None:
        ours = torch.sys.modules["weightinit_cuda.init.module_attributes"]  # type: ignore[attr-defined]
        if torch.compiler.is_dynamo_compiling() or not ours._native.parameter(self, name, param):
            ours._torchs["register_parameter"](self, name, param)

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        ours = torch.sys.modules["weightinit_cuda.init.module_attributes"]  # type: ignore[attr-defined]
        if torch.compiler.is_dynamo_compiling() or persistent is not True or not ours._native.buffer(self, name, tensor):
            ours._torchs["register_buffer"](self, name, tensor, persistent)

    def add_module(self, name: str, module: Any) -> None:
        ours = torch.sys.modules["weightinit_cuda.init.module_attributes"]  # type: ignore[attr-defined]
        if torch.compiler.is_dynamo_compiling() or not ours._native.child(self, name, module):
            ours._torchs["add_module"](self, name, module)


_MORE = CO_VARARGS | CO_VARKEYWORDS  # flags of code with *args or **kwargs
# All names that torch's methods use, of the versions that ours were written after. One that uses others does more.
_USED = {
    "__init__": "torch _C _log_api_usage_once call_super_init bool TypeError type __name__ next iter len super __setattr__ set"
    " OrderedDict __init__",
    "__setattr__": "__dict__ get isinstance Parameter AttributeError _buffers _modules _non_persistent_buffers_set"
    " register_parameter TypeError torch typename Module _parameters _global_module_registration_hooks values Buffer Tensor"
    " hasattr persistent getattr register_buffer nn inspect signature parameters RuntimeError super __setattr__",
    "register_parameter": "__dict__ AttributeError isinstance str TypeError torch typename KeyError hasattr _parameters"
    " Parameter grad_fn ValueError _global_parameter_registration_hooks values",
    "register_buffer": "isinstance torch jit ScriptModule RuntimeError __dict__ AttributeError str TypeError typename KeyError"
    " hasattr _buffers Tensor _global_buffer_registration_hooks values _non_persistent_buffers_set discard add",
    "add_module": "isinstance Module TypeError torch typename str hasattr _modules KeyError _global_module_registration_hooks"
    " values",
}


def _fork(name: str) -> Fork | None:
    """None where torch's method is not the one that we know."""
    method, ours = vars(nn.Module).get(name), vars(_Like)[name].__code__
    if kernels is None or not isinstance(method, FunctionType):
        return None
    torchs = method.__code__
    if _signature(torchs) != _signature(ours) or not {*torchs.co_names} <= {*_USED[name].split()}:
        return None
    return Fork(method, torchs, ours.replace(co_filename=torchs.co_filename, co_firstlineno=torchs.co_firstlineno))


def _signature(code: CodeType) -> tuple[Any, ...]:
    return code.co_varnames[: code.co_argcount], code.co_kwonlyargcount, code.co_flags & _MORE, code.co_freevars


def _copied(method: FunctionType) -> FunctionType:
    return FunctionType(method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__)


def _begun() -> dict[str, Any]:
    """What ``Module.__init__`` gives a module; nothing, if there is more in it than what each module can be given anew."""
    module = nn.Module.__new__(nn.Module)
    nn.Module.__init__(module)
    given = vars(module)
    return given if all(value is None or value is True or value in ({}, set()) for value in given.values()) else {}


_fresh = _begun()
_forks = [fork for name in _USED if (fork := _fork(name)) is not None and (_fresh or name != "__init__")]
_torchs = {method.__name__: _copied(method) for method, _, _ in _forks}
if _forks:
    _native = kernels.ModuleAttributes(nn.Module, nn.Parameter, Tensor, vars(nn.modules.module), _fresh)


def put() -> None:
    """Exchanges the code."""
    exchange(_forks)


def remove() -> None:
    """Puts it back."""
    exchange_back(_forks)
