"""Replay: runs a part of the tape with real tensors on the CPU.

It serves what is no fill (weight norms, products of matrices, large tables), and what Python asks for while it records.
Only the steps that the wanted memories depend on are run, in the order in which they were recorded. Random numbers come from
whoever asks: :class:`Source` gives every random step its seed and stream, so that a replay has the bits of the plan.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import engine
from ..engine.job import FillJob
from ..numerics.distributions import Constant, Distribution
from ..numerics.rounding import REAL_DTYPE
from ..tensors.boxes import Box, Region
from ..tensors.torch_private import TensorBase, as_seen, storage_key, without_modes
from .operators import Call, leaves
from .tape import CPU, DataStep, FillStep, Memory, OperatorStep, Step, View
from .views import Geometry

__all__ = [
    "Place",
    "Source",
    "all_bytes",
    "evaluate",
    "has_long_words",
    "is_random",
    "lies_as",
    "needed",
    "place_of",
    "replay",
    "run_alone",
    "seen",
]


_empty, _set = torch.empty, TensorBase.set_  # in the block others stand under these names


class Place(NamedTuple):
    """Elements of a draw that a tensor of a plan holds: they have its words, at their indices there.

    Args:
        stream: of the tensor.
        shape: of the tensor.
        box: of its indices.
        geometry: the same elements in the draw's own memory, in the order of the box. None: all of the draw, in its order.
        dtype: of the tensor.
        shown: the boxes of the box that have these words, the rest of it has none; None: all of it.
    """

    stream: int
    shape: tuple[int, ...]
    box: Box
    geometry: Geometry | None
    dtype: torch.dtype
    shown: tuple[Box, ...] | None = None


class Source(NamedTuple):
    """Where a random step takes its numbers.

    Args:
        stream: of those elements that have no place.
        places: what tensors of the plan hold of the step; no two of them share an element.
    """

    seed: int
    stream: int
    places: tuple[Place, ...] = ()

    def drawn_as(self, dtypes: Mapping[int, torch.dtype]) -> Source:
        """The same for a plan that draws these streams in other dtypes than the tape has."""
        return self._replace(places=tuple(p._replace(dtype=dtypes.get(p.stream, p.dtype)) for p in self.places))


def has_long_words(dtype: torch.dtype) -> bool:
    """Whether an element is drawn from 64 bits: then it is another number than the same one of a shorter dtype."""
    return dtype in (torch.float64, torch.complex128)


def is_random(step: Step) -> bool:
    """Whether the step draws: a fill from a distribution, or an operator of torch's that does; and is not known already.

    An operator of ours with a seed of its own draws nothing that the plan's seed could change.
    """
    if step.known is not None:
        return False
    if isinstance(step, FillStep):
        return step.distribution is not None and step.distribution.is_random
    return isinstance(step, OperatorStep) and step.call.nature.random and step.call.given.get("seed") is None


def _reads(step: Step) -> set[Memory]:
    """Memories whose values the step needs, those it only partly overwrites among them."""
    if step.known is not None:
        return _partly(step)
    if not isinstance(step, OperatorStep):
        return _partly(step)
    if step.reads is None:
        read = [step.call.given["src"]] if step.call.nature.name == "copy" else step.call.tensors(View)
        step.reads = _partly(step) | {view.memory for view in read}
    return step.reads


def needed(steps: Sequence[Step], memories: Iterable[Memory]) -> list[Step]:
    """What the present values of the memories depend on, in order. Overwritten steps are not among it."""
    found: set[int] = set()
    open_ends = [memory.steps[-1] for memory in memories if memory.steps]
    while open_ends:
        at = open_ends.pop()
        if at in found:
            continue
        found.add(at)
        step = steps[at]
        for memory in _reads(step):
            before = bisect_left(memory.steps, at)
            open_ends += memory.steps[before - 1 : before] if before else []
    return [steps[at] for at in sorted(found)]


def _partly(step: Step) -> set[Memory]:
    """Memories that the step does not overwrite wholly."""
    return {view.memory for view in step.writes if not view.is_whole}


# ---- running ---------------------------------------------------------------------------------------------------------


def place_of(view: View, memory: Tensor) -> Tensor:
    """The view as a tensor on the real bytes of its memory."""
    geometry = view.geometry
    place = _empty(0, dtype=view.dtype, device=memory.device)
    _set(place, memory.untyped_storage(), geometry.offset, geometry.shape, geometry.strides)
    return as_seen(place, view.conj, view.neg)


def replay(
    steps: Sequence[Step], memories: Iterable[Memory], source: Callable[[Step], Source], remember: bool = False
) -> dict[Memory, Tensor]:
    """Runs the steps.

    Args:
        steps: as :func:`needed` gives them.
        memories: whose values are kept; those of others are freed as soon as no step needs them.
        source: of a random step.
        remember: whether what is drawn is from now on the step's value.

    Returns:
        The real bytes of each memory.
    """
    real: dict[Memory, Tensor] = {}
    last = {memory: at for at, step in enumerate(steps) for memory in (*_reads(step), *(v.memory for v in step.writes))}
    kept = set(memories)
    done: dict[int, list[Memory]] = defaultdict(list)
    for memory, at in last.items():
        if memory not in kept:
            done[at].append(memory)
    with without_modes():
        for at, step in enumerate(steps):
            try:
                _run(step, real, source)
            except Exception as error:
                if hasattr(error, "add_note"):  # Python 3.11
                    error.add_note(f"deferred: this is what the code does at {step.source}.")
                raise
            if remember and is_random(step):
                step.known = _known(step, real)
            for memory in done[at]:
                del real[memory]
    return real


def _known(step: Step, real: dict[Memory, Tensor]) -> Tensor:
    """What a random step has written, all its views one after the other, as bytes."""
    return torch.cat([_bytes(place_of(view, real[view.memory])) for view in step.writes])


def all_bytes(memory: Tensor) -> Tensor:
    """The bytes that a tensor lies in."""
    storage = memory.untyped_storage()
    return _set(_empty(0, dtype=torch.uint8, device=CPU), storage, 0, (storage.nbytes(),), (1,))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def _run(step: Step, real: dict[Memory, Tensor], source: Callable[[Step], Source]) -> None:
    makes = step.made if isinstance(step, OperatorStep) and step.known is None else ()
    for number, view in enumerate(step.writes):
        if number not in makes:
            _allocate(view, real, step)
    if step.known is not None:
        _put_back(step, step.known, real)
        return
    match step:
        case FillStep(distribution=None):
            pass
        case FillStep(distribution=distribution):
            assert distribution is not None
            _fill(step.writes[0], distribution, real, source(step) if is_random(step) else Source(0, 0))
        case DataStep(values=values):
            place_of(step.writes[0], real[step.writes[0].memory]).copy_(values)
        case OperatorStep():
            _operate(step, real, source)


def _allocate(view: View, real: dict[Memory, Tensor], step: Step) -> None:
    """Memory for what a step writes: zeros where it leaves some of it, so that this is the same at every replay."""
    if view.memory not in real:
        fills = view.is_whole and not (isinstance(step, FillStep) and step.distribution is None)
        fresh = _empty if fills else torch.zeros
        real[view.memory] = fresh(view.memory.nbytes, dtype=torch.uint8, device=CPU)


def _put_back(step: Step, known: Tensor, real: dict[Memory, Tensor]) -> None:
    at = 0
    for view in step.writes:
        size = view.geometry.numel * view.dtype.itemsize
        place_of(view, real[view.memory]).copy_(known[at : at + size].view(view.dtype).reshape(view.shape))
        at += size


def _fill(view: View, distribution: Distribution, real: dict[Memory, Tensor], source: Source) -> None:
    memory = real[view.memory]
    if sum(place.box.numel for place in source.places if place.shown is None) < view.geometry.numel:
        _put(place_of(view, memory), distribution, source.seed, source.stream)
    for place in source.places:
        held = place_of(view if place.geometry is None else view._replace(geometry=place.geometry), memory)
        dtype = view.dtype
        if has_long_words(dtype) != has_long_words(place.dtype):
            long, short = (torch.complex128, torch.complex64) if dtype.is_complex else (torch.float64, torch.float32)
            dtype = long if has_long_words(place.dtype) else short
        region = Region(place.shape, place.box.offset) if distribution.elementwise else None  # else never a part of a tensor
        shown = place.shown if distribution.elementwise else None
        there = place.geometry is not None and shown is None and dtype == view.dtype
        made = held if there else torch.empty(place.box.shape, dtype=dtype, device=CPU)
        _put(made, distribution, source.seed, place.stream, region)
        if shown is not None:
            made = _over(held.reshape(made.shape), made, [box.slices(place.box.offset) for box in shown])
        if made is not held:
            held.copy_(made.reshape(held.shape))


def _over(held: Tensor, made: Tensor, parts: Sequence[tuple[slice, ...]]) -> Tensor:
    """What is held, with parts of what is made."""
    both = held.to(made.dtype, copy=True)
    for part in parts:
        both[part] = made[part]
    return both


def _put(tensor: Tensor, distribution: Distribution, seed: int, stream: int, region: Region | None = None) -> None:
    """Fills a real tensor of any dtype."""
    if tensor.dtype not in REAL_DTYPE and distribution.kind != Constant.kind:
        made = torch.empty(tensor.shape, dtype=torch.float32, device=CPU)
        _put(made, distribution, seed, stream, region)
        tensor.copy_(made)
    else:
        engine.fill([FillJob(tensor, distribution, seed, stream, region)])


def _operate(step: OperatorStep, real: dict[Memory, Tensor], source: Callable[[Step], Source]) -> None:
    """Runs the operator. What it made is kept if it lies as the tape has it, else moved to where it is there."""
    call = step.call.map(View, lambda view: seen(view, real[view.memory]))
    if call.nature.name == "copy" and call.args[1].numel() == 1:  # w[0] = w[0, 0], which torch makes a fill on the CPU
        call = call._replace(args=(call.args[0], call.args[1].clone(), *call.args[2:]))
    before = torch.get_default_dtype()
    if before is not step.dtype:
        torch.set_default_dtype(step.dtype)
    try:
        result = _drawing(call, source(step)) if is_random(step) else call()
    finally:
        if before is not step.dtype:
            torch.set_default_dtype(before)
    for number, made in zip(step.made, leaves(result), strict=True):
        if number is None:
            continue
        view = step.writes[number]
        if lies_as(view, made) and not _is_part(made, call.tensors()):
            real[view.memory] = made
        else:
            _allocate(view, real, step)
            place_of(view, real[view.memory]).copy_(made)


def seen(view: View, memory: Tensor) -> Tensor:
    """As :func:`place_of`; where the memory is held as the view already, that one."""
    return memory if lies_as(view, memory) else place_of(view, memory)


def lies_as(view: View, made: Tensor) -> bool:
    """Whether the bytes of a tensor are those of the memory of a view."""
    offset, shape, strides = view.geometry
    return (
        made.dtype is view.dtype
        and made.storage_offset() == offset
        and made.shape == shape
        and made.stride() == strides
        and made.untyped_storage().nbytes() == view.memory.nbytes
        and view.is_resolved
        and not (made.is_conj() or made.is_neg())
    )


def _is_part(made: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Whether a tensor has memory of others."""
    key = storage_key(made.untyped_storage())
    return any(storage_key(t.untyped_storage()) == key for t in tensors)


def _drawing(call: Call, source: Source) -> Any:
    """A random operator of torch's, its generator seeded with 63 bits of the stream."""
    low, high = engine.bits(source.seed, source.stream, 2).tolist()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((high << 32 | low) >> 1)
        return call()


def run_alone(step: Step) -> dict[Memory, Tensor]:
    """What a step writes that needs nothing and draws nothing: the real bytes of each memory."""
    real: dict[Memory, Tensor] = {}
    _run(step, real, lambda step: Source(0, 0))
    return real


def evaluate(steps: Sequence[Step], view: View, copied: bool = True) -> Tensor:
    """The values of a view that Python wants now. What is drawn for it comes from torch's default generator, and stays.

    Args:
        copied: False: views of one memory share one again, which nobody may write to.
    """
    memory = view.memory
    values = memory.values
    if values is None:
        if memory.shown is None or memory.shown[0] != len(memory.steps):
            memory.shown = len(memory.steps), _evaluated(steps, memory)
        values = memory.shown[1]
    with without_modes():
        place = place_of(view, values)
        return place.clone() if copied else place


def _evaluated(steps: Sequence[Step], memory: Memory) -> Tensor:
    run = needed(steps, [memory])
    seeds: Callable[[Step], Source] = lambda step: Source(engine.draw_seed(torch.empty(0, device=CPU)), 0)  # noqa: E731
    values = replay(run, [memory], seeds, remember=True)[memory]
    if _is_all_written(run, memory):
        memory.known = len(memory.steps), values
    return values


def _is_all_written(steps: Sequence[Step], memory: Memory) -> bool:
    """Whether each memory that the steps use, this one among them, is written as a whole before it is used in any other way:
    elsewhere there may be elements that nobody has written."""
    met = set[Memory]()
    for step in steps:
        taken = {view.memory for view in step.call.tensors(View)} if isinstance(step, OperatorStep) else set[Memory]()
        makes = {view.memory for view in step.writes if view.is_whole}
        if isinstance(step, FillStep) and step.distribution is None:
            makes = set()
        if not (taken | {view.memory for view in step.writes}) <= met | (makes - taken):
            return False
        met |= makes
    return memory in met
