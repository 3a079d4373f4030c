"""The tape: what code does to tensors while ``deferred()`` is active, in order, without doing it.

Tensors that the code creates have no memory (they are on meta). :class:`Recorder` sees every operator of the thread and appends
a :class:`Step` for each that makes or writes values: a fill where it is one, given data, or the operator itself, to be run
later. Views need no step, they share the storage. What Python wants to know at once (``item()``, data-dependent shapes) is
computed at once, by ``replaying``. What the steps mean for a parameter is ``folding``'s business; no seeds and no names here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_flatten, tree_map

from . import schemes
from .callers import caller
from .distributions import Constant, Initial
from .geometry import Geometry, fills_storage

__all__ = ["Data", "Fill", "Memory", "Operation", "Recorder", "Step", "View"]

META, CPU = torch.device("meta"), torch.device("cpu")
NOT_RECORDED = "deferred: a tensor on meta that was not made in the block"


@dataclass(eq=False)
class Memory:
    """One storage that the code made, or met on meta."""

    storage: torch.UntypedStorage  # kept, so that no other storage gets its address
    device: torch.device  # that the code asked for
    frame: Geometry  # the view it was made as
    steps: list[int] = field(default_factory=list)  # which of the tape write to it
    known: tuple[int, Tensor] | None = None  # its real bytes after that many steps, if Python has asked for them

    @property
    def nbytes(self) -> int:
        return self.storage.nbytes()


class View(NamedTuple):
    """A tensor of the code: some elements of one memory."""

    memory: Memory
    dtype: torch.dtype
    geometry: Geometry
    conj: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.geometry.shape

    @property
    def is_whole(self) -> bool:
        """Whether it holds every element of its memory."""
        size = self.dtype.itemsize
        return self.memory.nbytes % size == 0 and fills_storage(self.geometry, self.memory.nbytes // size)


@dataclass(eq=False)
class Step:
    """Something that writes. ``writes`` are the views it makes or changes."""

    writes: tuple[View, ...]
    source: str  # "file.py:12 function" of the model's own code
    known: Tensor | None = field(default=None, kw_only=True)  # random values that Python has seen: they stay these


@dataclass(eq=False)
class Fill(Step):
    """``writes[0]`` gets values of a distribution; with None it is fresh memory that nobody has written."""

    distribution: Initial | None


@dataclass(eq=False)
class Data(Step):
    """``writes[0]`` gets these values."""

    values: Tensor


@dataclass(eq=False)
class Operation(Step):
    """An operator to be run. Tensors among its arguments are :class:`View`; the device is the replay's."""

    operator: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: tuple[int | None, ...]  # for each result of the operator: which of ``writes`` it is; None if a view or changed
    dtype: torch.dtype  # the default dtype then
    random: bool


class Nature(NamedTuple):
    """What an operator's schema says."""

    name: str  # without overload and underscore
    parameters: tuple[str, ...]
    written: frozenset[str]  # arguments that it changes
    takes_device: bool
    random: bool
    only_views: bool  # it changes what a tensor refers to, not values


@cache
def nature(operator: torch._ops.OpOverload) -> Nature:
    schema = operator._schema
    names = tuple(argument.name for argument in schema.arguments)
    written = frozenset(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    name = schema.name.removeprefix("aten::")
    return Nature(
        name[:-1] if name.endswith("_") and not name.endswith("__") else name,
        names,
        written,
        "device" in names,
        torch.Tag.nondeterministic_seeded in operator.tags,
        torch.Tag.inplace_view in operator.tags,
    )


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records one thread. ``steps`` is the tape."""

    def __init__(self, evaluate: Callable[[Recorder, View], Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._memories: dict[int, Memory] = {}
        self._evaluate = evaluate

    # ---- tensors and memory ----------------------------------------------------------------------------------------

    def view_of(self, tensor: Tensor) -> View | None:
        """The tensor as the tape has it; None if it is none of the tape's."""
        if not _recordable(tensor):
            return None
        memory = self._memories.get(tensor.untyped_storage()._cdata)
        return None if memory is None else _view(memory, tensor)

    def _known_view(self, tensor: Tensor, device: torch.device = CPU) -> View:
        """As :meth:`view_of`; memory that is met for the first time is entered."""
        storage = tensor.untyped_storage()
        memory = self._memories.get(storage._cdata)
        if memory is None:
            memory = self._memories[storage._cdata] = Memory(storage, device, _geometry(tensor))
        return _view(memory, tensor)

    def _append(self, step: Step) -> None:
        for view in step.writes:
            if not view.memory.steps or view.memory.steps[-1] != len(self.steps):
                view.memory.steps.append(len(self.steps))
        self.steps.append(step)

    def _outside(self, tensor: Tensor) -> View:
        """An argument: on meta as it is; memory that was there before the block began has no values yet."""
        before = len(self._memories)
        view = self._known_view(tensor)
        if len(self._memories) > before:
            self._append(Fill((_whole(view.memory, view.dtype),), NOT_RECORDED, None))
        return view

    def give(self, real: Tensor) -> Tensor:
        """A tensor on meta that stands for a copy of a real one."""
        twin = torch.empty_strided(real.size(), real.stride(), dtype=real.dtype, device=META)
        self._append(Data((self._known_view(twin, real.device),), caller(), real.detach().clone()))
        return twin

    def value(self, tensor: Tensor) -> Tensor:
        """The real values of a tensor, now, on the CPU."""
        return self._evaluate(self, self._outside(tensor)) if tensor.is_meta else tensor

    # ---- operators -------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        about = nature(func)
        if any(issubclass(kind, Tensor) and hasattr(kind, "__tensor_flatten__") for kind in types):
            return _on_shards(func, about, args, kwargs)
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        virtual = any(t.is_meta for t in tensors)
        if func in _ASKS or (tensors and not virtual and not about.random and about.name != "lift_fresh"):
            return func(*self._real(args), **self._real(kwargs))
        given = dict(zip(about.parameters, args, strict=False)) | kwargs
        if _is_empty(tensors, given):
            return func(*args, **kwargs)
        if any(not t.is_meta for name in about.written for t in _tensors(given.get(name))):
            return func(*self._real(args), **self._real(kwargs))
        return self._record(func, about, args, kwargs, given, tensors)

    def _record(
        self,
        func: torch._ops.OpOverload,
        about: Nature,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: dict[str, Any],
        tensors: list[Tensor],
    ) -> Any:
        twins = {id(t): t if t.is_meta else self._twin(t) for t in tensors}
        args, kwargs = _mapped(twins, args), _mapped(twins, kwargs)
        if about.name == "lift_fresh":
            return args[0]
        views = {id(t): self._outside(t) for t in twins.values()}
        device = given.get("device") or next((v.memory.device for v in views.values()), CPU)
        on_meta = kwargs | ({"device": META} if about.takes_device else {})
        on_meta |= {"pin_memory": False} if kwargs.get("pin_memory") else {}
        try:
            result = func(*args, **on_meta)
        except Exception:  # the shape depends on values, nobody has written it for meta, or an error that eager words better
            return self._run(func, args, kwargs, about)
        writes = [views[id(t)] for name in about.written for t in _tensors(_mapped(twins, given.get(name)))]
        made: list[int | None] = []
        for r in _tensors(result):
            is_new = r.untyped_storage()._cdata not in self._memories
            view = self._known_view(r, device)
            made.append(len(writes) if is_new else None)
            writes += [view] if is_new else []
        if writes and not about.only_views:
            self._append(self._step(func, about, _mapped(views, args), _mapped(views, kwargs), tuple(writes), tuple(made)))
        return result

    def _step(
        self,
        func: torch._ops.OpOverload,
        about: Nature,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        writes: tuple[View, ...],
        made: tuple[int | None, ...],
    ) -> Step:
        given = dict(zip(about.parameters, args, strict=False)) | kwargs
        meaning = _meaning(about.name, given, writes[0].dtype)
        if meaning is not None:
            return Fill(writes[:1], caller(), meaning[0])
        kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory", "generator")}
        return Operation(writes, caller(), func, args, kwargs, made, torch.get_default_dtype(), about.random)

    def _twin(self, real: Tensor) -> Tensor:
        return self.give(real) if real.numel() else torch.empty_like(real, device=META)

    def _real(self, arguments: Any) -> Any:
        return tree_map(lambda x: self.value(x) if isinstance(x, Tensor) else x, arguments)

    def _run(self, func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], about: Nature) -> Any:
        """An operator that must be run at once, on real values. What it writes becomes data."""
        real_args, real_kwargs = self._real(args), self._real(kwargs)
        result = func(*real_args, **real_kwargs)
        before = {id(r): t for r, t in zip(_tensors((real_args, real_kwargs)), _tensors((args, kwargs)), strict=True)}
        given = dict(zip(about.parameters, args, strict=False)) | kwargs
        real = dict(zip(about.parameters, real_args, strict=False)) | real_kwargs
        for name in about.written:
            for t, r in zip(_tensors(given.get(name)), _tensors(real.get(name)), strict=True):
                self._append(Data((self._outside(t),), caller(), r.detach().clone()))
        return tree_map(lambda r: before.get(id(r)) or self._twin(r) if isinstance(r, Tensor) else r, result)

    def fill(self, tensor: Tensor, distribution: Initial) -> bool:
        """Records a fill that a whole function stands for; False if the tensor is none of the tape's."""
        if not _recordable(tensor):
            return False
        self._append(Fill((self._outside(tensor),), caller(), distribution))
        return True


_aten = torch.ops.aten
_ASKS = {_aten._local_scalar_dense.default, _aten.equal.default}  # Python wants the answer


def _on_shards(func: torch._ops.OpOverload, about: Nature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operator on a wrapper (DTensor). What it holds is not followed, so nothing may be written there."""
    given = dict(zip(about.parameters, args, strict=False)) | kwargs
    if any(is_traceable_wrapper_subclass(t) for name in about.written for t in _tensors(given.get(name))):
        raise NotImplementedError(
            f"deferred: plain tensors must be written in the block, got {about.name} on a tensor that is sharded or wrapped"
            f" ({caller()}). Initialise the model before it is sharded, or shard it after the block."
        )
    return func(*args, **kwargs)


def _tensors(arguments: Any) -> list[Tensor]:
    return [x for x in tree_flatten(arguments)[0] if isinstance(x, Tensor)]


def _recordable(tensor: Tensor) -> bool:
    return tensor.is_meta and tensor.layout is torch.strided and not is_traceable_wrapper_subclass(tensor)


def _mapped(table: dict[int, Any], arguments: Any) -> Any:
    return tree_map(lambda x: table.get(id(x), x) if isinstance(x, Tensor) else x, arguments)


def _view(memory: Memory, tensor: Tensor) -> View:
    return View(memory, tensor.dtype, _geometry(tensor), tensor.is_conj())


def _geometry(tensor: Tensor) -> Geometry:
    return Geometry(int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()))


def _whole(memory: Memory, dtype: torch.dtype) -> View:
    return View(memory, dtype, Geometry(0, (memory.nbytes // dtype.itemsize,), (1,)))


def _is_empty(tensors: list[Tensor], given: dict[str, Any]) -> bool:
    """Whether a tensor without elements is to be made from nothing: it has nothing to defer, so it is made as it was asked for.

    Lazy modules keep their parameters so, and transformers asks ``torch.tensor([]).device`` whether it is on meta.
    """
    if tensors:
        return all(t.numel() == 0 and not t.is_meta for t in tensors)
    size = given.get("size")
    return isinstance(size, (list, tuple)) and 0 in size


# ---- operators that fill ---------------------------------------------------------------------------------------------

_UNWRITTEN = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
_ZEROS, _ONES = {"zeros", "zeros_like", "new_zeros", "zero"}, {"ones", "ones_like", "new_ones"}
_VALUES = {"full": "fill_value", "full_like": "fill_value", "new_full": "fill_value", "fill": "value", "scalar_tensor": "s"}


def _meaning(name: str, given: dict[str, Any], dtype: torch.dtype) -> tuple[Initial | None] | None:
    """The fill that an operator is, in a tuple; (None,) is memory that stays unwritten. None: it is no fill."""
    if name in _UNWRITTEN:
        return (None,)
    if name in _ZEROS or name in _ONES:
        return (Constant(float(name in _ONES)),)
    if name in _VALUES:
        value = given.get(_VALUES[name])
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53):
            return (Constant(float(value)),)
        return None
    if not (dtype.is_floating_point or dtype.is_complex):
        return None
    if name in ("rand", "rand_like", "uniform"):
        return (schemes.uniform_(dtype, given.get("from", 0.0), given.get("to", 1.0)),)
    if name in ("randn", "randn_like", "normal"):
        mean, std = given.get("mean", 0.0), given.get("std", 1.0)
        return None if isinstance(mean, View) or isinstance(std, View) else (schemes.normal_(dtype, mean, std),)
    return None
