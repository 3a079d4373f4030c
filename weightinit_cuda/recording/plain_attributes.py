"""Numbers, text and the like are stored in modules at once while threads are recorded, by the native module.

torch asks of each attribute of a module whether it is a parameter, a module or a buffer, which takes most of the time in which
layers without memory are made. What is none of these for sure is stored as torch stores it; all else is left to torch. The code
of torch's method is exchanged, and not the method, as in ``wholes``.
"""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn

from ..engine.backend import kernels

__all__ = ["put", "remove"]


class _Like:
    """Has the code that stands there meanwhile. It runs among torch's names, and closes over a class as torch's own does."""

    def __setattr__(self, name: str, value: Any) -> None:
        __class__  # type: ignore[name-defined]  # noqa: B018
        ours = torch.sys.modules["weightinit_cuda.recording.plain_attributes"]  # type: ignore[attr-defined]
        if torch.compiler.is_dynamo_compiling() or not ours._stored(self, name, value):
            ours._torchs(self, name, value)


_method: Any = nn.Module.__setattr__
_code: CodeType = _Like.__setattr__.__code__
_known = isinstance(_method, FunctionType) and _method.__code__.co_freevars == _code.co_freevars and kernels is not None
if _known:
    _code = _code.replace(co_filename=_method.__code__.co_filename, co_firstlineno=_method.__code__.co_firstlineno)
    _torchs = FunctionType(_method.__code__, _method.__globals__, _method.__name__, _method.__defaults__, _method.__closure__)
    _stored = kernels.PlainAttributes(nn.Module).set


def put() -> None:
    """Exchanges the code, if it is torch's."""
    if _known and _method.__code__ is _torchs.__code__:
        _method.__code__ = _code


def remove() -> None:
    """Puts it back."""
    if _known and _method.__code__ is _code:
        _method.__code__ = _torchs.__code__
