"""The recorder: writes on the tape what code does to tensors while ``deferred()`` is active, without doing it.

Tensors that the code creates have no memory (they are on meta). :class:`Recorder` sees every operator of the thread and appends
a :class:`Step` for each that makes or writes values: a fill where it is one, given data, or the operator itself, to be run
later. Views need no step, they share the storage. What Python wants to know at once (``item()``, data-dependent shapes) is
computed at once, by ``replay``. The commonest calls are recorded in a shorter way (``short_ways``). What the steps mean for a
parameter is ``folding``'s business; no seeds and no names here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..engine import draw_seed
from ..engine.checks import OVERLAPPING
from ..init import schemes
from ..init.catalog import distribution_of
from ..init.torch_ops import by_name
from ..numerics.distributions import Constant, Distribution
from ..tensors.named import PLAIN_TYPES
from ..tensors.torch_private import (
    TorchDispatchMode,
    dispatch_modes,
    is_traceable_wrapper_subclass,
    overlaps_itself,
    schema_of,
    storage_key,
    tree_map,
    unseen_by_compile,
)
from .known import KNOWN_WAYS, MUCH, follow
from .on_meta import IMPOSSIBLE, on_meta
from .operators import Call, is_meta, leaves
from .plain_tape import PlainTape, fastest
from .replay import evaluate
from .seeding import Seeding
from .short_ways import ONE, SHORT_WAYS, ZERO, constant
from .source_line import Place, described, here
from .tape import CPU, META, ChangedFill, DataStep, FillStep, Memory, OperatorStep, Step, View
from .views import Geometry

__all__ = ["Recorder"]

NOT_RECORDED = "deferred: a tensor on meta that was not made in the block"


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records one thread. ``steps`` is the tape."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch.compile is told by :func:`unseen_by_compile`; telling it torch's way would import it, which takes a second."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self._memories: dict[int, Memory] = {}
        self.known_bytes = 0  # of what is computed while the code runs
        self.seeding = Seeding()
        self._tape = PlainTape(self.steps, self._memories, self.seeding)
        self.plain = plain = fastest(self._tape)
        self.plain_memory, self.called = plain.plain_memory, plain.called  # looked up once
        self.enter, self.fill_plain = self._tape.enter, self._tape.fill_plain

    def __enter__(self) -> Recorder:
        self.plain.depth = dispatch_modes() + 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    # ---- tensors and memory ----------------------------------------------------------------------------------------

    def view_of(self, tensor: Tensor) -> View | None:
        """The tensor as the tape has it; None if it is none of the tape's."""
        if not _recordable(tensor):
            return None
        memory = self._memories.get(storage_key(tensor.untyped_storage()))
        return None if memory is None else _view(memory, tensor)

    def device_of(self, tensor: Tensor) -> torch.device | None:
        """The device that the code asked for; None if the tensor is none of the tape's."""
        try:
            return self.device_of_storage(tensor.untyped_storage())
        except RuntimeError:  # a layout, or a wrapper, that has none
            return None

    def device_of_storage(self, storage: torch.UntypedStorage) -> torch.device | None:
        """As :meth:`device_of`."""
        memory = self._memories.get(storage_key(storage))
        return None if memory is None else memory.device

    def held(self, memory: Memory) -> Distribution | None:
        """What a plain memory is filled with; None if nobody has written it."""
        if not memory.steps:
            return None
        last = self.steps[memory.steps[-1]]
        assert isinstance(last, FillStep | ChangedFill)
        return last.distribution

    def change_plain(self, memory: Memory, call: Call, distribution: Distribution, place: Place) -> None:
        """Records arithmetic in place on all of a plain memory that is filled, and the distribution that it leaves."""
        last = self.steps[memory.steps[-1]]
        fill = last.fill if isinstance(last, ChangedFill) else last
        assert isinstance(fill, FillStep)
        memory.steps.append(len(self.steps))
        default = torch.get_default_dtype()
        self.steps.append(ChangedFill(place, (call.args[0],), call, (None,), default, fill, distribution))

    def _entered_view(self, tensor: Tensor, device: torch.device = CPU) -> View:
        """As :meth:`view_of`; memory that is met for the first time is entered, and plain memory is plain no more."""
        storage = tensor.untyped_storage()
        memory = self._memories.get(storage_key(storage))
        if memory is None:
            frame = _geometry(tensor)
            memory = self._memories[storage_key(storage)] = Memory(storage, device, tensor.dtype, frame.shape, frame)
            return View(memory, tensor.dtype, frame, tensor.is_conj(), tensor.is_neg())
        elif memory.plain:
            memory.plain = False
            if not memory.steps:
                self._append(FillStep(here(), memory, None))
        frame = Geometry(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())
        return View(memory, tensor.dtype, frame, tensor.is_conj(), tensor.is_neg())

    def known_view(self, tensor: Tensor) -> View | None:
        """The tensor as the tape has it, if its values are known; None for any other."""
        if type(tensor) not in PLAIN_TYPES or not is_meta(tensor):
            return None
        memory = self._memories.get(storage_key(tensor.untyped_storage()))
        if memory is None or memory.plain or memory.values is None:
            return None
        return _view(memory, tensor)

    def look_into(self, tensor: Tensor) -> bool:
        """Notes that a view of a tensor is made; False if it is none of the tape's."""
        if type(tensor) not in PLAIN_TYPES or not _recordable(tensor):
            return False
        memory = self._memories.get(storage_key(tensor.untyped_storage()))
        if memory is not None and memory.plain:
            self._entered_view(tensor)
        return memory is not None

    def _append(self, step: Step) -> None:
        for view in step.writes:
            if not view.memory.steps or view.memory.steps[-1] != len(self.steps):
                view.memory.steps.append(len(self.steps))
        self.steps.append(step)

    def _outside(self, tensor: Tensor) -> View:
        """An argument: on meta as it is; memory that was there before the block began has no values yet."""
        before = len(self._memories)
        view = self._entered_view(tensor)
        if len(self._memories) > before:
            self._append(FillStep(NOT_RECORDED, _whole(view.memory, view.dtype), None))
        return view

    def taken(self, tensor: Tensor) -> View:
        """An argument of an operator that is recorded."""
        view = self._outside(tensor)
        view.memory.taken = True
        return view

    def give(self, real: Tensor) -> Tensor:
        """A tensor on meta that stands for a copy of a real one."""
        twin = torch.empty_strided(real.size(), real.stride(), dtype=real.dtype, device=META)
        self._append(DataStep(here(), self._entered_view(twin, real.device), real.detach().clone()))
        return twin

    def value(self, tensor: Tensor, copied: bool = True) -> Tensor:
        """The real values of a tensor, now, on the CPU. Not copied: to be read only, but views of one memory share one."""
        if not is_meta(tensor):
            return tensor
        with self.seeding.untouched():
            return evaluate(self.steps, self._outside(tensor), copied)

    def seeded(self, generator: torch.Generator | None) -> bool:
        """Whether a draw is under a seed of the code's own, and to be left to torch."""
        return self.seeding.rules(generator)

    # ---- operators -------------------------------------------------------------------------------------------------

    @unseen_by_compile
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        short_way = SHORT_WAYS.get(id(func)) or KNOWN_WAYS.get(id(func))
        if short_way is not None and (result := short_way(self, args, kwargs or {})) is not None:
            return result
        call = Call(func, args, kwargs or {})
        if not PLAIN_TYPES.issuperset(types) and any(hasattr(kind, "__tensor_flatten__") for kind in types):
            return _on_shards(call)
        tensors, nature = call.tensors(), call.nature
        on_meta = list(map(is_meta, tensors))
        is_own = not tensors or any(on_meta) or nature.random or nature.name == "lift_fresh" or call.device == META
        if not is_own or id(func) in _ASKS or (not all(on_meta) and any(not is_meta(t) for t in call.written())):
            return call.map(Tensor, self.value)()
        if _is_empty(call, tensors):
            return call()
        if not all(on_meta):
            twins = {id(t): t if is_meta(t) else self._twin(t) for t in tensors}
            call = call.map(Tensor, lambda t: twins[id(t)])
        return call.args[0] if nature.name == "lift_fresh" else self._record(call)

    def _record(self, call: Call) -> Any:
        """An operator on tensors on meta."""
        nature = call.nature
        if call.operator.namespace == OURS:
            call = self._with_seed(call)
            if self._own_fill(call):
                return None
        elif nature.random and self._draws_itself(call):
            return self._draw(call)
        if call.operator is _PACKS:  # sizes that torch's recurrent layers read through a pointer
            data, sizes = self._run(call)
            return data, self.value(sizes)
        if id(call.operator) in _REFILLS and (refilled := self._refill(call)) is not None:
            return refilled
        result = on_meta(call)
        if result is IMPOSSIBLE:
            return self._run(call)
        on_tape = call.map(Tensor, self.taken)
        device = call.device or next((view.memory.device for view in on_tape.tensors(View)), CPU)
        writes = on_tape.written(View)
        made: list[int | None] = []
        for r in leaves(result):
            memory = self._memories.get(storage_key(r.untyped_storage()))
            made.append(len(writes) if memory is None else None)
            if memory is None:
                writes.append(self._entered_view(r, device))
            elif memory.plain:
                self._entered_view(r)
        if writes and not nature.only_views:
            step = _step(on_tape, tuple(writes), tuple(made))
            self._append(step)
            if type(step) is OperatorStep and self.known_bytes <= MUCH:
                self.known_bytes += follow(self.steps, step)
        return result

    def _draws_itself(self, call: Call) -> bool:
        """Whether a draw is under a seed of the code's own: a generator that is passed, or that of the CPU."""
        if call.kwargs.get("generator") is not None:
            return True
        if not self.seeding.is_set:
            return False
        device = call.device or next((self.device_of(t) for t in call.tensors() if t.is_meta), CPU)
        return device in (None, CPU, META)

    def _with_seed(self, call: Call) -> Call:
        """A random fill of ours under a seed of the code's own takes its seed from there, as it does elsewhere."""
        generator = call.kwargs.get("generator")
        is_random = "seed" in call.nature.parameters and call.given.get("seed") is None
        if not is_random or not self.seeding.rules(generator):
            return call
        seed = draw_seed(torch.empty(0, device=CPU), generator)
        return call._replace(kwargs={**call.kwargs, "generator": None, "seed": seed - 2**64 if seed >= 2**63 else seed})

    def _draw(self, call: Call) -> Any:
        """Draws at once. What is only written is not looked at: to know it might take draws of its own."""
        generator = call.kwargs.get("generator")
        device = CPU if generator is None else generator.device
        only_written = {id(t) for t in call.written()} if call.nature.name != "rrelu_with_noise" else set()

        def real(t: Tensor) -> Tensor:
            if id(t) in only_written:
                return torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device=device)
            return self.value(t).to(device)

        if call.device is not None:
            call = call._replace(kwargs={**call.kwargs, "device": device})
        return self._run(call, real)

    def _own_fill(self, call: Call) -> bool:
        """An operator of ours (``torch_ops``) as a fill; False: it has a seed of its own, so its values are not the plan's."""
        given = dict(call.given)
        tensor: Tensor = given.pop("tensor")
        if given.get("seed") is not None:
            return False
        if any(given.get(key) is not None for key in ("global_shape", "offset", "flat_range")):
            raise NotImplementedError(f"deferred: a part of a tensor needs a seed= of its own, got none ({described(here())}).")
        function = str(schema_of(call.operator).name).rpartition(":")[2]
        own = {key: value for key, value in given.items() if key not in _DRAWN}
        return self.fill(tensor, distribution_of(function, tensor.dtype, tuple(tensor.shape), by_name(own)))

    def _refill(self, call: Call) -> Tensor | None:
        """One of the commonest fills, in place: not run on meta, where Python would look at it for 0.1 ms."""
        tensor: Tensor = call.args[0]
        meaning = _meaning(call.nature.name, call.given, tensor.dtype)
        if overlaps_itself(tensor) and call.nature.random:
            raise RuntimeError(OVERLAPPING)
        if meaning is None or meaning[0] is None:
            return self._run(call) if call.nature.random else None  # torch refuses it
        self.fill(tensor, meaning[0])
        return tensor

    def _twin(self, real: Tensor) -> Tensor:
        if real.layout is not torch.strided or real.is_quantized:
            return real
        return self.give(real) if real.numel() else torch.empty_like(real, device=META)

    def _run(self, call: Call, real_one: Callable[[Tensor], Tensor] | None = None) -> Any:
        """Runs an operator at once, on real values. What it writes becomes data."""
        real = call.map(Tensor, real_one or self.value)
        result = (real._replace(kwargs=real.kwargs | {"device": CPU}) if real.device == META else real)()
        stands_for = {id(r): t for r, t in zip(real.tensors(), call.tensors(), strict=True)}
        for t, r in zip(call.written(), real.written(), strict=True):
            self._append(DataStep(here(), self._outside(t), r.detach().to(CPU, copy=True)))

        def twin(r: Any) -> Any:
            if not isinstance(r, Tensor):
                return r
            return stands_for[id(r)] if id(r) in stands_for else self._twin(r)

        return tree_map(twin, result)

    def fill(self, tensor: Tensor, distribution: Distribution) -> bool:
        """Records a fill that a whole function stands for; False if the tensor is none of the tape's."""
        if (memory := self.plain_memory(tensor)) is not None:
            self.fill_plain(memory, distribution, here())
            return True
        if not _recordable(tensor):
            return False
        if overlaps_itself(tensor):
            if not isinstance(distribution, Constant):
                raise RuntimeError(OVERLAPPING)
            tensor = _each_once(tensor)
        self._append(FillStep(here(), self._outside(tensor), distribution))
        return True


OURS = "weightinit_cuda"  # namespace of our operators
_DRAWN = ("generator", "seed", "stream", "name")
_aten = torch.ops.aten
_ASKS = {id(_aten._local_scalar_dense.default), id(_aten.equal.default)}  # Python wants the answer
_PACKS = _aten._pack_padded_sequence.default
_REFILLS = set(map(id, (_aten.normal_.default, _aten.uniform_.default, _aten.zero_.default, _aten.fill_.Scalar)))


def _step(call: Call, writes: tuple[View, ...], made: tuple[int | None, ...]) -> Step:
    if call.nature.name in _FILLS and call.operator.namespace != OURS:
        meaning = _meaning(call.nature.name, call.given, writes[0].dtype)
        if meaning is not None:
            return FillStep(here(), writes[0], meaning[0])
    return OperatorStep(here(), writes, call.with_device(CPU), made, torch.get_default_dtype())


def _on_shards(call: Call) -> Any:
    """An operator on a wrapper (DTensor). What it holds is not followed, so nothing may be written there."""
    if any(is_traceable_wrapper_subclass(t) for t in call.written()):
        raise NotImplementedError(
            f"deferred: plain tensors must be written in the block, got {call.nature.name} on a tensor that is sharded or"
            f" wrapped ({described(here())}). Initialise the model before it is sharded, or shard it after the block."
        )
    return call()


def _recordable(tensor: Tensor) -> bool:
    if not is_meta(tensor) or tensor.layout is not torch.strided:
        return False
    return type(tensor) in PLAIN_TYPES or not is_traceable_wrapper_subclass(tensor)


def _view(memory: Memory, tensor: Tensor) -> View:
    return View(memory, tensor.dtype, _geometry(tensor), tensor.is_conj(), tensor.is_neg())


def _geometry(tensor: Tensor) -> Geometry:
    return Geometry(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())


def _each_once(tensor: Tensor) -> Tensor:
    """An expanded tensor before it was expanded."""
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[dim] > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _whole(memory: Memory, dtype: torch.dtype) -> View:
    return View(memory, dtype, Geometry(0, (memory.nbytes // dtype.itemsize,), (1,)))


def _is_empty(call: Call, tensors: list[Tensor]) -> bool:
    """Whether a tensor without elements is to be made from nothing: it has nothing to defer, so it is made as it was asked for.

    Lazy modules keep their parameters so, and transformers asks ``torch.tensor([]).device`` whether it is on meta.
    """
    if tensors:
        return all(t.numel() == 0 and not t.is_meta for t in tensors)
    size = call.given.get("size")
    return isinstance(size, (list, tuple)) and 0 in size


# ---- operators that fill ---------------------------------------------------------------------------------------------

_UNWRITTEN = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
_ZEROS, _ONES = {"zeros", "zeros_like", "new_zeros", "zero"}, {"ones", "ones_like", "new_ones"}
_VALUES = {"full": "fill_value", "full_like": "fill_value", "new_full": "fill_value", "fill": "value", "scalar_tensor": "s"}
_UNIFORM, _NORMAL = ("rand", "rand_like", "uniform"), ("randn", "randn_like", "normal")
_FILLS = {*_UNWRITTEN, *_ZEROS, *_ONES, *_VALUES, *_UNIFORM, *_NORMAL}


def _meaning(name: str, given: dict[str, Any], dtype: torch.dtype) -> tuple[Distribution | None] | None:
    """The fill that an operator is, in a tuple; (None,) is memory that stays unwritten. None: it is no fill."""
    if name in _UNWRITTEN:
        return (None,)
    if name in _ZEROS or name in _ONES:
        return (ONE if name in _ONES else ZERO,)
    if name in _VALUES:
        value = given.get(_VALUES[name])
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53):
            return (constant(float(value)),)
        return None
    if not (dtype.is_floating_point or dtype.is_complex):
        return None
    if name in _UNIFORM:
        return (schemes.uniform_(dtype, given.get("from", 0.0), given.get("to", 1.0)),)
    if name in _NORMAL:
        mean, std = given.get("mean", 0.0), given.get("std", 1.0)
        return None if isinstance(mean, View) or isinstance(std, View) else (schemes.normal_(dtype, mean, std),)
    return None
