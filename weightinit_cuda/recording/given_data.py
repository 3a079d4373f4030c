"""Data that code wants where a recorded tensor is: ``torch.tensor(data, device=w.device)`` would lose it on meta.

While a thread is recorded, the functions that take data from Python stand under their names with another device, the CPU; the
recorder then sees what they make. They are under no mode: one of torch's would be asked at every look at a tensor's attribute.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..tensors.torch_private import device_constructors, function_modes, register_builtin
from .tape import CPU, META

__all__ = ["given_data_kept"]

_FUNCTIONS = ("tensor", "as_tensor", "asarray")
_dynamo_traces = torch.compiler.is_dynamo_compiling


class _Thread(threading.local):
    recorded = False


_thread = _Thread()
_lock = threading.Lock()
_users = 0  # how many threads are recorded


def _keeping(torchs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(torchs)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not _dynamo_traces() and _thread.recorded:
            device = kwargs.get("device")
            if device is None and function_modes():
                device = _default_device()
            if device is not None and torch.device(device) == META:
                kwargs["device"] = CPU
        return torchs(*args, **kwargs)

    return function


def _default_device() -> torch.device:
    """That of a mode; torch asks ``torch.tensor`` for it."""
    _thread.recorded = False
    try:
        return torch.get_default_device()
    finally:
        _thread.recorded = True


def _new_tensor(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not _dynamo_traces() and _thread.recorded and self.is_meta and "device" not in kwargs:
        return torch.tensor(*args, **{"dtype": self.dtype, **kwargs, "device": CPU})
    return _torchs_new_tensor(self, *args, **kwargs)


_torchs_new_tensor = Tensor.new_tensor
_torchs = {name: getattr(torch, name) for name in _FUNCTIONS}
_ours = {name: _keeping(function) for name, function in _torchs.items()}
for _name, _function in _ours.items():
    register_builtin(_function, f"aten::{_name}")  # what torch.jit.script compiles meanwhile is torch's own


@contextmanager
def given_data_kept() -> Iterator[None]:
    """Keeps the data that this thread's code gives to torch."""
    global _users
    device_constructors()  # remembers the functions by their identity, for as long as the process lives
    with _lock:
        _users += 1
        _exchange(_torchs, _ours)
        if "new_tensor" not in vars(Tensor):
            Tensor.new_tensor = _new_tensor  # type: ignore[method-assign,assignment]
    _thread.recorded = True
    try:
        yield
    finally:
        _thread.recorded = False
        with _lock:
            _users -= 1
            if _users == 0:
                _exchange(_ours, _torchs)
                if vars(Tensor).get("new_tensor") is _new_tensor:
                    del Tensor.new_tensor


def _exchange(old: dict[str, Callable[..., Any]], new: dict[str, Callable[..., Any]]) -> None:
    """What others have put there meanwhile is theirs and stays."""
    for name, function in new.items():
        if getattr(torch, name) is old[name]:
            setattr(torch, name, function)
