"""Small tables that follow from the code alone: their values are computed while it runs, as eager code does.

Positions, rotary frequencies and slopes are some operators each on some hundred numbers. Computed at once they take what they
take in eager code; a replay takes ten times as long, and the tape has to be folded before. The steps are on the tape as all
others, for plans and for other dtypes; what they give is :attr:`.Memory.known`. Nothing is computed here that draws, that takes
values which are not known, or that follows from constants alone where ``folding`` may say which constant it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..init.schemes import ZERO
from ..numerics.distributions import Constant
from ..tensors.torch_private import TensorBase, dispatch_modes, function_modes, without_modes
from .changes import MOVES
from .operators import Call
from .replay import all_bytes, lies_as, place_of, run_alone, seen
from .source_line import here
from .tape import CPU, META, DataStep, FillStep, Memory, OperatorStep, Step, View
from .views import Geometry

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["KNOWN_WAYS", "MUCH", "follow"]

LITTLE = 1 << 16  # bytes of a memory
MUCH = 1 << 24  # bytes of all of them: they are kept as long as the tape
# In the block others stand under some of these names.
_torchs_empty, _torchs_zeros, _torchs_strided, _arange, _clone, _to, _copy_ = (
    torch.empty,
    torch.zeros,
    torch.empty_strided,
    torch.arange,
    torch.clone,
    TensorBase.to,
    TensorBase.copy_,
)
_default_dtype = torch.get_default_dtype


# ---- any simple operator, once it is on the tape -----------------------------------------------------------------------


def follow(steps: Sequence[Step], step: OperatorStep) -> int:
    """Runs the last step of a tape at once, if that takes little, draws nothing, and all that it needs is known: what it writes
    is known then, too.

    Returns:
        How many bytes have become known.
    """
    call, out = step.call, step.writes[0]
    nature, memory = call.nature, out.memory
    size = memory.nbytes
    if not (nature.simple and 0 < size <= LITTLE):
        return 0
    in_place = bool(nature.written)
    copies = in_place and nature.name == "copy"
    was_known = memory.known is not None
    try:
        with without_modes():
            taken = _Taken(steps)
            first = [_own_copy(steps, out, copies)] if in_place else []
            args = [*first, *(taken.value(x) for x in call.args[len(first) :])]
            if taken.only_constants and _folds(call) and (copies or not in_place):
                return 0
            made = (_copy_ if copies else call.operator)(*args, **call.kwargs)
            if in_place:
                made = all_bytes(args[0])
            elif not lies_as(out, made):
                return 0
    except Exception:
        return 0  # not known, or an error: whoever asks for the values is told
    memory.known = len(memory.steps), made
    return 0 if was_known else size


def _folds(call: Call) -> bool:
    """Whether what an operator makes of constants may be a constant to ``folding``."""
    return call.nature.name in _FOLDED or torch.Tag.pointwise in call.operator.tags


_FOLDED = {*MOVES, "cat", "stack"}


class _Unknown(Exception):
    """Values are not known."""


class _Taken:
    """The real values of what an operator takes."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps, self._tensors, self._others = steps, 0, 0

    @property
    def only_constants(self) -> bool:
        """Whether there are tensors among it, and each has one value."""
        return self._tensors > 0 and not self._others

    def value(self, x: Any) -> Any:
        if type(x) is View:
            self._tensors += 1
            values = _known_values(self._steps, x.memory, len(x.memory.steps))
            self._others += values is not None
            if values is None:
                values = _constant(self._steps, x.memory)
            return seen(x, values)
        return type(x)(map(self.value, x)) if type(x) in (list, tuple) else x


def _own_copy(steps: Sequence[Step], out: View, copies: bool) -> Tensor:
    """What an operator changes in place, as it was before, in memory of its own; anything where a copy covers all of it."""
    if copies and out.is_whole:
        return place_of(out, _torchs_empty(out.memory.nbytes, dtype=torch.uint8, device=CPU))
    values = _known_values(steps, out.memory, len(out.memory.steps) - 1)
    if values is None:
        raise _Unknown
    return place_of(out, all_bytes(values).clone())


def _known_values(steps: Sequence[Step], memory: Memory, after: int) -> Tensor | None:
    """The bytes of a memory after that many of its steps, if they are known, or are a few values that the code gave."""
    if memory.known is not None:
        return memory.values_after(after)
    if after != 1 or memory.nbytes > LITTLE:
        return None
    step = steps[memory.steps[0]]
    if not isinstance(step, DataStep) or step.known is not None or step.values.numel() < 2 or not step.filled.is_whole:
        return None
    memory.known = 1, run_alone(step)[memory]
    return memory.known[1]


def _constant(steps: Sequence[Step], memory: Memory) -> Tensor:
    """The bytes of a small memory that holds one number."""
    step = steps[memory.steps[-1]] if memory.steps and memory.nbytes <= LITTLE else None
    is_constant = (isinstance(step, FillStep) and isinstance(step.distribution, Constant)) or isinstance(step, DataStep)
    if step is None or not is_constant or step.known is not None or not step.writes[0].is_whole:
        raise _Unknown
    if isinstance(step, FillStep) and step.distribution is ZERO:
        return _torchs_zeros(memory.nbytes, dtype=torch.uint8, device=CPU)
    return run_alone(step)[memory]


# ---- the commonest ones, recorded and computed in one go ----------------------------------------------------------------

_aten = torch.ops.aten
_DIRECT: dict[Any, Callable[..., Tensor]] = {
    _aten.add.Tensor: torch.add,
    _aten.sub.Tensor: torch.sub,
    _aten.mul.Tensor: torch.mul,
    _aten.div.Tensor: torch.div,
    _aten.pow.Scalar: torch.pow,
    _aten.pow.Tensor_Scalar: torch.pow,
    _aten.reciprocal.default: torch.reciprocal,
    _aten.neg.default: torch.neg,
    _aten.exp.default: torch.exp,
    _aten.log.default: torch.log,
    _aten.sin.default: torch.sin,
    _aten.cos.default: torch.cos,
    _aten.clone.default: torch.clone,
}
"""Functions that call these operators, in a third of the time that it takes through the operator's own object."""
_COUNTING = (_aten.arange.default, _aten.arange.start, _aten.arange.start_step)
_NUMBERS = (int, float)
_STRIDED = (None, torch.strided)
_MOST = LITTLE // 8  # elements


def _may_compute(recorder: Recorder) -> bool:
    """Whether there is room for more values, and no mode would see how they are computed."""
    return recorder.known_bytes <= MUCH and not dispatch_modes() and not function_modes()


def _known_way(
    operator: torch._ops.OpOverload, direct: Callable[..., Tensor]
) -> Callable[[Recorder, tuple[Any, ...], dict[str, Any]], Tensor | None]:
    """As the functions of ``short_ways``."""

    def known_way(recorder: Recorder, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
        device = named.get("device")
        if device == META or not _may_compute(recorder) or named.get("layout") not in _STRIDED:
            return None
        views, values, elements = list[Any](), list[Any](), 1
        for x in args:
            if isinstance(x, Tensor):
                view = recorder.known_view(x)
                if view is None or view.memory.known is None or not view.is_resolved:
                    return None
                device = device or view.memory.device
                elements *= view.geometry.numel
                views.append(view)
                values.append(seen(view, view.memory.known[1]))
            else:
                views.append(x)
                values.append(x)
        if elements > _MOST or all(x is y for x, y in zip(args, values, strict=True)):  # functorch asks with numbers alone
            return None
        call = Call(operator, tuple(views), named).with_device(CPU)
        return _entered(recorder, call, direct(*values, **call.kwargs), device or CPU)

    return known_way


def _counting(operator: torch._ops.OpOverload) -> Callable[[Recorder, tuple[Any, ...], dict[str, Any]], Tensor | None]:
    """``torch.arange``."""

    def known_way(recorder: Recorder, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
        device = named.get("device")
        if device is None or device == META or not _may_compute(recorder) or not all(type(x) in _NUMBERS for x in args):
            return None
        first, last, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
        if step == 0 or not 0 < (last - first) / step < _MOST:
            return None
        call = Call(operator, args, named).with_device(CPU)
        return _entered(recorder, call, _arange(*args, **call.kwargs), device)

    return known_way


def _entered(recorder: Recorder, call: Call, made: Tensor, device: torch.device) -> Tensor:
    """A tensor on meta for one that an operator has made, and the operator on the tape."""
    twin = _torchs_strided(made.shape, made.stride(), dtype=made.dtype, device=META)
    memory = recorder.enter(twin, device)
    memory.plain, memory.geometry = False, Geometry(0, tuple(made.shape), made.stride())
    memory.steps.append(len(recorder.steps))
    memory.known = 1, made
    recorder.known_bytes += memory.nbytes
    recorder.steps.append(OperatorStep(here(), (memory.whole,), call, (0,), _default_dtype()))
    return twin


def _copied(tensor: Tensor, *, layout: Any = None, **named: Any) -> Tensor:
    return _to(tensor, copy=True, **named)


def _copy_over(recorder: Recorder, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """``copy_`` of known values over a tensor that is all of a memory, and of their shape and dtype."""
    tensor: Tensor = args[0]
    source = recorder.known_view(args[1]) if isinstance(args[1], Tensor) and _may_compute(recorder) else None
    if (
        source is None
        or source.memory.known is None
        or source.memory.nbytes > LITTLE
        or tensor.shape != source.shape
        or tensor.dtype is not source.dtype
    ):
        return None
    out = recorder.view_of(tensor)
    if out is None or out.memory is source.memory or not out.is_whole or out.memory.nbytes != source.memory.nbytes:
        return None
    values = source.memory.known[1]
    if out.geometry != source.geometry or not lies_as(out, values):
        return None
    out = recorder.taken(tensor)
    source.memory.taken = True
    memory = out.memory
    memory.steps.append(len(recorder.steps))
    recorder.known_bytes += 0 if memory.known else memory.nbytes
    memory.known = len(memory.steps), _clone(values)
    call = Call(_aten.copy_.default, (out, source, *args[2:]), named)
    recorder.steps.append(OperatorStep(here(), (out,), call, (None,), _default_dtype()))
    return tensor


KNOWN_WAYS = {
    id(_aten.copy_.default): _copy_over,
    **{id(operator): _known_way(operator, direct) for operator, direct in _DIRECT.items()},
    id(_aten._to_copy.default): _known_way(_aten._to_copy.default, _copied),
    **{id(operator): _counting(operator) for operator in _COUNTING},
}
"""By the identity of the operator, as ``SHORT_WAYS``."""
