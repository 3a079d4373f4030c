"""From the tape to distributions: what each memory holds at the end, piece by piece.

Every step is looked at once, in order, and leaves a :class:`Written` on each memory that it writes: a known distribution on a
view, values that must be computed, or nothing. Whole overwrites remove what was there: dead fills end here. Copies and
arithmetic with numbers carry distributions on (``arithmetic``). What is not understood here is "computed", which is always
right: it is replayed. Knows no names and no seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ..numerics.distributions import Constant, Distribution
from ..tensors.boxes import Box, visible
from .changes import MOVES, RULES, Change
from .operators import leaves
from .pieces import BoxValue, Drawn, Nothing, Replayed, Value, Written, moved, seen_in_boxes
from .tape import CPU, ChangedFill, DataStep, FillStep, Memory, OperatorStep, Step, View
from .views import box_of, cut, overlaps_itself

__all__ = ["Folded"]


MANY = 300  # pieces of one memory that are kept apart; their number enters squared


class Folded:
    """All memories of a tape at its end, when somebody asks. Of plain ones only the last fill is looked at."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._pieces: dict[Memory, list[Written]] = {}
        self._replayed: set[Memory] = set()  # only a replay gives what these hold, wherever one looks
        self._begun = self._done = False

    def _fold(self) -> None:
        self._begun = True
        for step in self._steps:
            if not _is_on_plain(step):
                self._take(step)
        self._done = True

    def _of(self, memory: Memory) -> list[Written]:
        """What lies in a memory, in the order in which it was written."""
        if not self._begun:
            self._fold()
        known = self._pieces.get(memory)
        if known is None:
            known = self._pieces[memory] = []
            if self._done and memory.steps:  # it was plain
                last = self._steps[memory.steps[-1]]
                if isinstance(last, ChangedFill):
                    self._write_drawn(last.fill, last.distribution)
                else:
                    self._take(last)
        return known

    # ---- reading ----------------------------------------------------------------------------------------------------

    def read(self, view: View) -> list[BoxValue] | None:
        """What a view holds, as boxes of its indices; later ones lie over earlier ones, and none is hidden completely.

        Returns:
            None if the pieces are no boxes of it.
        """
        parts: list[BoxValue] = []
        if not view.geometry.numel:
            return parts
        pieces = self._of(view.memory)
        if len(pieces) > MANY:
            return None
        for piece in pieces:
            if piece.dtype != view.dtype and not isinstance(piece.value, Nothing):
                return None
            seen = seen_in_boxes(piece, view, MANY - len(parts))
            if seen is None:
                return None
            parts += seen
        whole = Box.whole(view.shape)
        if [box for box, _ in parts] == [whole]:
            return parts
        try:
            bare, *left = _visible((whole, *(box for box, _ in parts)))
        except ValueError:  # stripes that cross each other
            return None
        resized = [(box, Nothing("resize_")) for box in bare]
        return [*resized, *(part for part, shown in zip(parts, left, strict=True) if shown)]

    def has_nothing(self, view: View, thorough: bool = True) -> tuple[bool, bool]:
        """Whether some of a view is unwritten, and whether all of it is for sure. Thorough: however long that takes."""
        pieces, parts = self._of(view.memory), self.read(view)
        held = [piece.value for piece in pieces if isinstance(piece.value, Nothing)]
        if parts is None and not (thorough or (held and len(pieces) <= MANY)):
            return False, False
        nothing = self._unwritten(view) if parts is None else [isinstance(value, Nothing) for _, value in parts]
        return any(nothing), all(nothing) and not any(value.mixed for value in held)

    def _unwritten(self, view: View) -> Sequence[bool]:
        """Whether some element of the view was never written, and whether none was, by a map of all elements: for views that
        :meth:`read` refuses."""
        elements = view.memory.nbytes // view.dtype.itemsize
        unwritten = torch.ones(elements, dtype=torch.bool, device=CPU)
        for geometry, dtype, value in self._of(view.memory):
            if dtype.itemsize == view.dtype.itemsize:
                unwritten.as_strided(geometry.shape, geometry.strides, geometry.offset).fill_(isinstance(value, Nothing))
            elif not isinstance(value, Nothing):
                return False, False  # other elements than ours: not followed
        seen = unwritten.as_strided(view.shape, view.geometry.strides, view.geometry.offset)
        return bool(seen.any()), bool(seen.all())

    def constant(self, view: View) -> Constant | None:
        """The one value that all elements of the view have, if that is known."""
        if not view.is_resolved:
            return None
        pieces = self._of(view.memory)
        if len(pieces) == 1 and View(view.memory, *pieces[0][1::-1]).is_whole and pieces[0].dtype == view.dtype:
            return _single(pieces[0].value)
        match self.read(view):
            case [(_, Drawn(distribution=Constant() as constant))]:
                return constant
        return None

    def _is_replayed(self, view: View) -> bool:
        return view.memory in self._replayed

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _write(self, view: View, value: Value) -> None:
        self._write_parts(view, [(Box.whole(view.shape), value)])

    def _write_parts(self, view: View, parts: Sequence[BoxValue]) -> None:
        """Writes boxes that together are all of the view."""
        memory, pieces = view.memory, self._of(view.memory)
        is_whole = view.is_whole
        if is_whole and len(parts) == 1 and type(parts[0][1]) is Replayed:
            self._replayed.add(memory)
        elif is_whole or any(type(value) is not Replayed for _, value in parts):
            self._replayed.discard(memory)
        if is_whole:
            pieces.clear()
        elif len(pieces) <= MANY:
            pieces[:] = [p for p in pieces if p.dtype != view.dtype or box_of(view.geometry, p.geometry) is None]
        whole = Box.whole(view.shape)
        for box, value in parts:
            if box.numel:
                pieces.append(Written(view.geometry if box == whole else cut(view.geometry, box), view.dtype, value))

    def _take(self, step: Step) -> None:
        if step.known is not None:
            self._write_all(step, Replayed(step.source))
            return
        match step:
            case FillStep(distribution=None):
                self._write(step.writes[0], Nothing(step.source))
            case FillStep(distribution=distribution):
                assert distribution is not None
                self._write_drawn(step, distribution)
            case DataStep(values=values):
                view = step.writes[0]
                self._write(view, _given(values, step.source) if view.is_resolved else Replayed(step.source))
            case OperatorStep():
                self._operate(step)

    def _write_drawn(self, step: FillStep, distribution: Distribution) -> None:
        view = step.writes[0]
        if not view.is_resolved:
            self._write(view, Replayed(step.source))
        elif isinstance(distribution, Constant):
            self._write(view, Drawn(distribution, step.source))
        else:
            self._write(view, Drawn(distribution, step.source, step, origin=view.geometry))

    def _write_all(self, step: Step, value: Value) -> None:
        for view in step.writes:
            self._write(view, value)

    def _operate(self, step: OperatorStep) -> None:
        if all(map(self._is_replayed, step.call.tensors(View))):
            self._write_all(step, Replayed(step.source))  # most of what is computed is computed on
            return
        parts = None if step.call.nature.random or len(step.writes) != 1 else self._result(step)
        if parts is None:
            self._write_all(step, self._read_nothing(step) or Replayed(step.source))
            return
        self._write_parts(step.writes[0], parts)

    def _read_nothing(self, step: OperatorStep) -> Nothing | None:
        """If the operator takes values that nobody has written. What it changes itself it may be writing just now."""
        if step.call.nature.name.endswith("_like"):
            return None
        written = {view.memory for view in step.writes}
        views = step.call.tensors(View)
        read = [v for v in views if v.memory not in written and not self._is_replayed(v)]
        found = [self.has_nothing(view, thorough=False) for view in read]
        if not any(some for some, _ in found):
            return None
        alone = len(read) == len(views) and all(every for _, every in found)
        return Nothing(step.source, mixed=not (alone and torch.Tag.pointwise in step.call.operator.tags))

    def _result(self, step: OperatorStep) -> list[BoxValue] | None:
        """What the operator writes, as boxes of its result; None if that is no distribution known."""
        name, given, out = step.call.nature.name, step.call.given, step.writes[0]
        if not (out.is_resolved and all(view.is_resolved for view in step.call.tensors(View))):
            return None
        if overlaps_itself(out.geometry):  # some elements are changed twice
            return None
        if name in ("cat", "stack"):
            return _worth_telling(self._joined(given["tensors"], given.get("dim", 0), out, stacked=name == "stack"))
        if any(name != "self" for _, name in step.call.nature.written):  # out=, which is no operand
            return None
        if name == "copy" or (name == "fill" and isinstance(given.get("value"), View)):
            given = {"self": given["src" if name == "copy" else "value"]}
        views = leaves(list(given.values()), View)
        if any(self._is_replayed(view) for view in views):
            return None
        constants = {view: constant for view in views if (constant := self.constant(view)) is not None}
        if views and len(constants) == len(views):
            single = _pointwise(step, constants)
            return None if single is None else [(Box.whole(out.shape), Drawn(single, step.source))]
        numbers = {key: _number(x, constants) for key, x in given.items()}
        operand = next((x for x in given.values() if isinstance(x, View) and x not in constants), None)
        if operand is None or len({*views} - constants.keys()) > 1:
            return None
        if operand.shape != out.shape or not _same_kind(operand.dtype, out.dtype):
            return None
        rule = RULES.get(name)
        change = rule and rule(numbers, operand is given.get("self"))
        if change is None:
            return None
        return _worth_telling(
            self._changed(operand, out, change, lambda constant: _pointwise(step, {**constants, operand: constant}))
        )

    def _joined(self, operands: Sequence[View], dim: int, out: View, stacked: bool) -> list[BoxValue] | None:
        """Tensors side by side along a dimension of the result, or each at one index of a new one."""
        dim, at = dim % len(out.shape), 0
        made: list[BoxValue] = []
        for operand in operands:
            if operand.memory is out.memory or not _same_kind(operand.dtype, out.dtype):
                return None
            if not operand.geometry.numel:  # of whatever shape
                continue
            parts = self._changed(operand, out, _same, partial(_cast, operand.dtype, out.dtype))
            if parts is None or len(made) + len(parts) > MANY:
                return None
            made += [moved(part, dim, at, stacked) for part in parts]
            at += 1 if stacked else operand.shape[dim]
        return made

    def _changed(
        self, operand: View, out: View, change: Change, on_constant: Callable[[Constant], Constant | None]
    ) -> list[BoxValue] | None:
        """The parts of the operand as the operator leaves them; what nobody has written stays so."""
        parts = self.read(operand)
        if parts is None:
            return None
        made: list[BoxValue] = []
        for box, value in parts:
            if not isinstance(value, Drawn):
                made.append((box, value))
                continue
            known = value.distribution
            distribution: Distribution | None = None
            if isinstance(known, Constant):
                distribution = on_constant(known)
            elif _rounds(operand.dtype, out.dtype):
                distribution = change(known)
            if distribution is None:
                made.append((box, Replayed(value.source)))
                continue
            here = operand.memory is out.memory and operand.geometry == out.geometry
            if isinstance(distribution, Constant):
                value = value._replace(step=None, origin=None)
            made.append((box, value._replace(distribution=distribution, copied=value.copied or not here)))
        return made


def _worth_telling(parts: list[BoxValue] | None) -> list[BoxValue] | None:
    """The parts, unless some are replayed: then all are, but for those that rules may fill."""
    kinds = {type(value) for _, value in parts or ()}
    return None if Replayed in kinds and Nothing not in kinds else parts


def _is_on_plain(step: Step) -> bool:
    """Whether the step writes to a memory that is plain at the end."""
    if type(step) is FillStep:
        return type(step.filled) is Memory and step.filled.plain
    return type(step) is ChangedFill and step.changed[0].memory.plain


def _given(values: Tensor, source: str) -> Value:
    if values.numel() == 1 and not values.is_quantized:
        number = values.item()
        if isinstance(number, (bool, float)) or (isinstance(number, int) and abs(number) < 2**53):
            return Drawn(Constant(float(number)), source)
    return Replayed(source)


_visible = lru_cache(maxsize=256)(visible)  # blocks of a model are written in the same boxes


def _same(x: Distribution) -> Distribution:
    return x


def _pointwise(step: OperatorStep, constants: dict[View, Constant]) -> Constant | None:
    """The result of an operator whose tensors are all constant: computed on one element of each."""
    name, out = step.call.nature.name, step.writes[0]
    if name in MOVES:
        operand, constant = list(constants.items())[-1]
        return _cast(operand.dtype, out.dtype, constant)
    if torch.Tag.pointwise not in step.call.operator.tags:
        return None

    def one(view: View) -> Tensor:
        return torch.full((1,) * len(view.shape), constants[view].value, dtype=view.dtype, device=CPU)

    call = step.call.map(View, one)
    before = torch.get_default_dtype()
    torch.set_default_dtype(step.dtype)
    try:
        made = call()
    finally:
        torch.set_default_dtype(before)
    return _single(_given(made, step.source)) if isinstance(made, Tensor) else None


def _as(constant: Constant | None, dtype: torch.dtype) -> Constant | None:
    return constant and _single(_given(torch.tensor(constant.value, dtype=torch.float64, device=CPU).to(dtype), ""))


def _cast(before: torch.dtype, after: torch.dtype, constant: Constant) -> Constant | None:
    return _as(_as(constant, before), after)


def _single(value: Value) -> Constant | None:
    return value.distribution if isinstance(value, Drawn) and isinstance(value.distribution, Constant) else None


def _same_kind(one: torch.dtype, other: torch.dtype) -> bool:
    """Whether values stay what they are but for rounding."""
    return one == other or (one.is_floating_point and other.is_floating_point)


def _rounds(one: torch.dtype, other: torch.dtype) -> bool:
    """Whether values of a dtype, drawn in the other one, are theirs rounded: not where that has digits which they have not."""
    return one == other or other.itemsize < one.itemsize


def _number(x: Any, constants: dict[View, Constant]) -> float | None:
    """An argument as a number; nan for a tensor of several values, from which no rule makes a distribution."""
    if isinstance(x, View):
        x = constants[x].value if x in constants else math.nan
    return float(x) if isinstance(x, (bool, int, float)) else None
