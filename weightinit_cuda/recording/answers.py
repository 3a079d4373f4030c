"""What recorded tensors answer while their thread is recorded: on meta, they say that they are where the code put them.

Code branches on such answers (``if w.device.type != "meta"``, ``w.to(x.device)``, ``a.data_ptr() == b.data_ptr()``), and must
take the branch that it would take without the recording. Values that Python hands to torch without an operator that the
recorder could see are in ``python_values``. This library, and torch where it handles tensors of any kind, are told the
truth; so is everybody about tensors that the code itself asked for on meta.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from ..init.torch_draws import put_methods, remove_methods
from ..tensors.torch_private import TensorBase, copying_code, dispatch_modes, storage_key
from . import handed_out, subscripts
from .memory import put_under
from .operators import is_meta
from .python_values import METHODS as _ON_VALUES
from .python_values import SUBSCRIPTS
from .recorded_threads import RecordedThread, while_recorded
from .seeding import FUNCTIONS, Seeding
from .tape import META

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["answering"]

_dynamo_traces = torch.compiler.is_dynamo_compiling


_thread = RecordedThread()  # in an operator that the recorder handles there are fewer modes
_OURS = __name__.partition(".")[0]
_COPYING = copying_code()
_told: dict[str, bool] = {}  # by the name of the module that asks: whether it gets the truth


def _recorder() -> Recorder | None:
    if _dynamo_traces():
        return None
    recorder = _thread.recorder
    return recorder if recorder is not None and dispatch_modes() >= _thread.depth else None


def _wants_truth(name: str) -> bool:
    """Whether a module handles tensors of any kind, and so must know."""
    first, _, rest = name.partition(".")
    inside = rest.partition(".")[0]
    told = first == _OURS or (
        first == "torch" and (inside == "distributed" or (inside[:1] == "_" and inside not in ("_tensor", "_tensor_str")))
    )
    _told[name] = told
    return told


def _claimed(tensor: Tensor) -> torch.device | None:
    """Where a recorded tensor says that it is; None for all others, and for those who are told the truth."""
    recorder = _recorder()
    if recorder is None or not is_meta(tensor):
        return None
    asking = sys._getframe(2)
    name = asking.f_globals.get("__name__", "")
    told = _told.get(name)
    if (_wants_truth(name) if told is None else told) or asking.f_code in _COPYING:
        return None
    return _place(recorder, tensor)


def _place(recorder: Recorder, tensor: Tensor) -> torch.device | None:
    return _at(recorder.device_of(tensor))


def _at(device: torch.device | None) -> torch.device | None:
    if device is None or device == META:
        return None
    if device.type == "cpu" or device.index is not None:
        return device
    present = torch.accelerator.is_available() and torch.accelerator.current_accelerator() == torch.device(device.type)
    return torch.device(device.type, torch.accelerator.current_device_index() if present else 0)


# ---- questions --------------------------------------------------------------------------------------------------------


def _device(self: Tensor) -> torch.device:
    claimed = _claimed(self)
    return torchs_device(self) if claimed is None else claimed


torchs_device: Callable[[Tensor], torch.device] = TensorBase.device.__get__


def _is_on(kind: str) -> property:
    torchs = getattr(TensorBase, f"is_{kind}").__get__

    def is_on(self: Tensor) -> bool:
        claimed = _claimed(self)
        return bool(torchs(self) if claimed is None else claimed.type == kind)

    return property(is_on)


def _get_device(self: Tensor) -> int:
    claimed = _claimed(self)
    if claimed is None:
        return TensorBase.get_device(self)
    return -1 if claimed.type == "cpu" else claimed.index


def _type(self: Tensor, *args: Any, **kwargs: Any) -> Any:
    answer = TensorBase.type(self, *args, **kwargs)
    if not isinstance(answer, str):
        return answer
    claimed = _claimed(self)
    return answer if claimed is None else answer.replace(".meta.", "." if claimed.type == "cpu" else f".{claimed.type}.")


_NOWHERE = 1 << 62  # no process has memory there: code that reads it ends as it would at the address 0 that torch says


def _data_ptr(self: Tensor) -> int:
    """An address that tells memories apart."""
    if _claimed(self) is None:
        return TensorBase.data_ptr(self)
    return _address(self.untyped_storage()) + int(self.storage_offset()) * self.element_size()


def _address(storage: torch.UntypedStorage) -> int:
    return _NOWHERE + storage_key(storage) * 4096 % _NOWHERE


def _claimed_by_storage(storage: torch.UntypedStorage) -> torch.device | None:
    """As :func:`_claimed`, of a storage."""
    recorder = _recorder()
    if recorder is None:
        return None
    name = sys._getframe(2).f_globals.get("__name__", "")
    told = _told.get(name)
    return None if (_wants_truth(name) if told is None else told) else _at(recorder.device_of_storage(storage))


def _storage_device(self: torch.UntypedStorage) -> torch.device:
    claimed = _claimed_by_storage(self)
    return _torchs_storage_device(self) if claimed is None else claimed


def _storage_data_ptr(self: torch.UntypedStorage) -> int:
    return _torchs_storage_data_ptr(self) if _claimed_by_storage(self) is None else _address(self)


_torchs_storage_device: Callable[[torch.UntypedStorage], torch.device] = torch.UntypedStorage.device.__get__
_torchs_storage_data_ptr = torch.UntypedStorage.data_ptr
_OF_STORAGES = {"device": property(_storage_device), "data_ptr": _storage_data_ptr}


# ---- moves ------------------------------------------------------------------------------------------------------------


def _to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """To where the tensor says that it is: it is there."""
    recorder = _recorder()
    if recorder is not None:
        first = args[0] if args else None
        key = "other" if "other" in kwargs else "device"
        target = kwargs.get(key) if first is None else first
        if isinstance(target, Tensor) and is_meta(target) and (place := _place(recorder, target)) is not None:
            moved = {key: x for key, x in kwargs.items() if key != "other"}
            return _to(self, place, target.dtype, *args[1:], **moved)
        if isinstance(target, (str, int, torch.device)) and not isinstance(target, bool):
            device = torch.device(target)
            if is_meta(self) and device != META and _same(device, _place(recorder, self)):
                if first is not None:
                    args = (None, *args[1:])
                else:
                    kwargs = {**kwargs, "device": None}
                if args == (None,) and not kwargs:
                    return TensorBase.to(self, self.dtype)
    return TensorBase.to(self, *args, **kwargs)


def _same(asked: torch.device, place: torch.device | None) -> bool:
    return place is not None and asked.type == place.type and (asked.index is None or place.index in (None, asked.index))


def _cpu(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    recorder = _recorder()
    if recorder is not None and not args and not kwargs and is_meta(self) and _same(_CPU, _place(recorder, self)):
        return self
    return TensorBase.cpu(self, *args, **kwargs)


_CPU = torch.device("cpu")


# ---- what leaves torch ------------------------------------------------------------------------------------------------


def _leaving(name: str, ours: Callable[..., Any]) -> Callable[..., Any]:
    """A method of ``torch.Tensor`` itself, of a tensor that says it is where it has values."""
    torchs = vars(Tensor)[name]

    @functools.wraps(torchs)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        recorder = _recorder()
        if recorder is None or not is_meta(self) or _place(recorder, self) is None:
            return torchs(self, *args, **kwargs)
        return ours(recorder, torchs, self, *args, **kwargs)

    return method


_LEAVING = {name: _leaving(name, ours) for name, ours in handed_out.METHODS.items()}


def _set_(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """An empty tensor, which is a real one, gets recorded memory: it goes to meta first."""
    source = args[0] if args else kwargs.get("source")
    if _recorder() is not None and isinstance(source, Tensor | torch.UntypedStorage | torch.TypedStorage) and not self.numel():
        storage: Any = getattr(source, "_untyped_storage", source)
        if not is_meta(self) and (is_meta(source) if isinstance(source, Tensor) else _torchs_storage_device(storage) == META):
            put_under(self, torch.empty(0, dtype=self.dtype, device=META))
    return TensorBase.set_(self, *args, **kwargs)


# ---- lazy modules that are run ----------------------------------------------------------------------------------------

_torchs_materialize = UninitializedTensorMixin.materialize


@functools.wraps(_torchs_materialize)
def _materialize(
    self: Any, shape: Any, device: torch.device | str | int | None = None, dtype: torch.dtype | None = None
) -> None:
    """The parameter of a lazy module, which is a real one, becomes a recorded one: torch exchanges its data, of one device."""
    if _recorder() is None or is_meta(self.data):
        _torchs_materialize(self, shape, device, dtype)
        return
    made = torch.empty(shape, device=self.data.device if device is None else device, dtype=dtype or self.data.dtype)
    put_under(self, made)
    self.__class__ = self.cls_to_become


# ---- seeds ------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _seeding(torchs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(torchs)
    def function(*args: Any, **kwargs: Any) -> Any:
        recorder = _recorder()
        return torchs(*args, **kwargs) if recorder is None else ours(recorder.seeding, torchs, *args, **kwargs)

    return function


_exchanged: list[tuple[Any, str, Any, Any]] = []  # where, and by what


def _put_seeding() -> None:
    """Of the functions as they are now: torch.compile exchanges ``torch.manual_seed`` when it is first used."""
    for module in (torch, torch.random):
        for name in FUNCTIONS:
            _exchange(module, name, _seeding(getattr(module, name), getattr(Seeding, name)))


def _exchange(owner: Any, name: str, function: Any) -> None:
    _exchanged.append((owner, name, getattr(owner, name), function))
    setattr(owner, name, function)


def _put_back() -> None:
    while _exchanged:
        owner, name, torchs, function = _exchanged.pop()
        if getattr(owner, name) is function:  # else somebody's own
            setattr(owner, name, torchs)


# ---- while a thread is recorded ---------------------------------------------------------------------------------------


def _on_values(name: str, ours: Callable[..., Any]) -> Callable[..., Any]:
    torchs = getattr(TensorBase, name)

    @functools.wraps(torchs)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        recorder = _recorder()
        if recorder is None or not is_meta(self):
            return torchs(self, *args, **kwargs)
        return ours(recorder, torchs, self, *args, **kwargs)

    return method


_KINDS = ("cpu", "cuda", "meta", "mps", "xpu")
_ANSWERS: dict[str, Any] = {
    "device": property(_device),
    **{f"is_{kind}": _is_on(kind) for kind in _KINDS},
    "get_device": _get_device,
    "type": _type,
    "data_ptr": _data_ptr,
    "to": _to,
    "cpu": _cpu,
    "set_": _set_,
    **{name: _on_values(name, ours) for name, ours in _ON_VALUES.items()},
}
_SUBSCRIPTS = {name: _on_values(name, ours) for name, ours in SUBSCRIPTS.items()}


def _put(first: bool) -> None:
    if first:
        subscripts.put(_SUBSCRIPTS)
        _put_seeding()
        _exchange(UninitializedTensorMixin, "materialize", _materialize)
        for name, method in _LEAVING.items():
            _exchange(Tensor, name, method)
        put_methods(_OF_STORAGES, torch.UntypedStorage)


def _remove() -> None:
    subscripts.remove(_SUBSCRIPTS)
    _put_back()
    remove_methods(_OF_STORAGES, torch.UntypedStorage)


answering = while_recorded(_thread, _ANSWERS, _put, _remove)
