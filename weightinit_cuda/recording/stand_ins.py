"""What stands under some names of torch while a thread is recorded: functions that make tensors, and methods that fill them.

They record the commonest calls as ``short_ways`` does, without the dispatcher, which would take most of the time. And they keep
data that code wants where a recorded tensor is: ``torch.tensor(data, device=w.device)`` would lose it on meta. Whoever has
bound torch's own function before meets the recorder in the dispatcher, which makes the same of it. Other threads get torch's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..numerics.distributions import Distribution
from ..tensors.torch_private import (
    TensorBase,
    default_device,
    device_constructors,
    dispatch_modes,
    forget_what_dynamo_knows,
    function_modes,
    known_to_dynamo,
    register_builtin,
)
from .memory import put_under
from .operators import is_meta
from .plain_tape import torchs_data
from .python_values import known
from .recorded_threads import RecordedThread, while_recorded
from .short_ways import ONE, ZERO, constant
from .tape import CPU, META

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["standing_in"]

_dynamo_traces = torch.compiler.is_dynamo_compiling


_thread = RecordedThread()


def _recorder() -> Recorder | None:
    """The recorder of this thread, if it would be the first to see an operator."""
    if _dynamo_traces():
        return None
    recorder = _thread.recorder
    return recorder if recorder is not None and dispatch_modes() == _thread.depth and not function_modes() else None


# ---- functions that make tensors --------------------------------------------------------------------------------------


def _making(name: str, distribution: Distribution | None) -> Callable[..., Any]:
    torchs = getattr(torch, name)

    @functools.wraps(torchs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not _dynamo_traces() and (plain := _thread.plain) is not None:
            made = plain.make(args, kwargs, distribution)
            if made is not None:
                return made
        return torchs(*args, **kwargs)

    return function


def _keeping(name: str) -> Callable[..., Any]:
    torchs = getattr(torch, name)

    @functools.wraps(torchs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not _dynamo_traces() and _thread.recorder is not None:
            device = kwargs.get("device")
            if device is None and function_modes():
                device = _default_device()
            if device is not None and torch.device(device) == META and not _asks_for_the_device(args):
                kwargs["device"] = CPU
            return _with_known(torchs, args, kwargs)
        return torchs(*args, **kwargs)

    return function


def _asks_for_the_device(args: Any) -> bool:
    """Whether code makes a tensor of nothing to see where others would be: there is no data to be kept. So does transformers,
    which leaves out a first pass of its scheme in ``from_pretrained``, where it builds on meta."""
    return len(args) == 1 and isinstance(args[0], (list, tuple)) and not args[0]


def _with_known(torchs: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Data may be lists of recorded tensors, whose values torch asks for where no mode is asked."""
    try:
        return torchs(*args, **kwargs)
    except RuntimeError:
        recorder = _recorder()
        if recorder is None or not args or not isinstance(args[0], (list, tuple)):
            raise
        values = known(recorder, args[0])
    return torchs(values, *args[1:], **kwargs)


def _default_device() -> torch.device:
    """That of a mode; torch asks ``torch.tensor`` for it."""
    recorder, _thread.recorder = _thread.recorder, None
    try:
        return default_device()
    finally:
        _thread.recorder = recorder


def _one_number(keeping: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.tensor`` of one number of a given dtype."""

    @functools.wraps(keeping)
    def tensor(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and type(args[0]) in (int, float) and kwargs.get("dtype") in _EXACT and kwargs.keys() <= _ASKED:
            plain, value = None if _dynamo_traces() else _thread.plain, constant(args[0])
            if plain is not None and value is not None and kwargs.get("device") is None:
                made = plain.make(_NO_SIZES, kwargs, value)
                if made is not None:
                    return made
        return keeping(*args, **kwargs)

    return tensor


_NO_SIZES = ((),)
_ASKED = {"dtype", "device"}
_EXACT = {torch.int64, torch.float64}  # hold every number that a constant can be, as it is


# ---- methods ----------------------------------------------------------------------------------------------------------


def _zero_(self: Tensor) -> Tensor:
    if not _dynamo_traces() and (plain := _thread.plain) is not None and plain.fill(self, ZERO):
        return self
    return TensorBase.zero_(self)


def _fill_(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not _dynamo_traces() and (plain := _thread.plain) is not None and len(args) == 1 and not kwargs:
        value = constant(args[0])
        if value is not None and plain.fill(self, value):
            return self
    return TensorBase.fill_(self, *args, **kwargs)


def _new_tensor(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not _dynamo_traces() and _thread.recorder is not None and self.is_meta and "device" not in kwargs:
        return torch.tensor(*args, **{"dtype": self.dtype, **kwargs, "device": CPU})
    return TensorBase.new_tensor(self, *args, **kwargs)


def _data(self: Tensor) -> Tensor:
    if not _dynamo_traces() and (plain := _thread.plain) is not None and (seen := plain.data(self)) is not None:
        return seen
    return torchs_data(self)


def _set_data(self: Tensor, data: Tensor) -> None:
    """A parameter that is still empty, and so a real one, gets recorded memory: it goes to meta first."""
    recorded = not _dynamo_traces() and _thread.recorder is not None and isinstance(data, Tensor) and is_meta(data)
    if recorded and not self.numel() and not is_meta(self) and not is_lazy(self):
        put_under(self, torch.empty(0, dtype=self.dtype, device=META))
    TensorBase.data.__set__(self, data)  # type: ignore[attr-defined]


# ---- while a thread is recorded ---------------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "empty": _making("empty", None),
    "zeros": _making("zeros", ZERO),
    "ones": _making("ones", ONE),
    "tensor": _one_number(_keeping("tensor")),
    "as_tensor": _keeping("as_tensor"),
    "asarray": _keeping("asarray"),
}
_TORCHS = {name: getattr(torch, name) for name in _FUNCTIONS}
_METHODS: dict[str, Any] = {
    "zero_": _zero_,
    "fill_": _fill_,
    "new_tensor": _new_tensor,
    "data": property(_data, _set_data, TensorBase.data.__delete__),  # type: ignore[attr-defined]
}
for _name, _function in _FUNCTIONS.items():
    register_builtin(_function, f"aten::{_name}")  # what torch.jit.script compiles meanwhile is torch's own
_dynamo_knew = False  # whether torch.compile had its table of functions before the first of them


def _put(first: bool) -> None:
    global _dynamo_knew
    if first:
        device_constructors()  # remembers functions by their identity, for as long as the process lives
        _dynamo_knew = known_to_dynamo()
    _exchange(_TORCHS, _FUNCTIONS)


def _remove() -> None:
    _exchange(_FUNCTIONS, _TORCHS)
    if not _dynamo_knew and known_to_dynamo():
        forget_what_dynamo_knows()


def _exchange(old: dict[str, Callable[..., Any]], new: dict[str, Callable[..., Any]]) -> None:
    """What others have put there meanwhile is theirs and stays."""
    for name, function in new.items():
        if getattr(torch, name) is old[name]:
            setattr(torch, name, function)


standing_in = while_recorded(_thread, _METHODS, _put, _remove)
