"""What a tape is made of: memories, views of them, and the steps that write to them, in order. Plain data.

A :class:`Step` makes or writes values: a fill where it is one, given data, or an operator to be run later. Views need no step,
they share the memory.

Most memory of a model is made, filled as a whole, and never read: it stays *plain* (:attr:`Memory.plain`), and only the last of
its fills counts, with arithmetic after it that leaves a known distribution. Its fills name the memory alone, so that nothing of
its geometry is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics.distributions import Distribution
from .operators import Call
from .source_line import Place, described
from .views import Geometry, contiguous, fills_storage

__all__ = ["CPU", "META", "ChangedFill", "DataStep", "FillStep", "Memory", "OperatorStep", "Step", "View"]

META, CPU = torch.device("meta"), torch.device("cpu")


@dataclass(eq=False, slots=True)
class Memory:
    """One storage that the code made, or met on meta."""

    storage: torch.UntypedStorage  # kept, so that no other storage gets its address
    device: torch.device  # that the code asked for
    dtype: torch.dtype  # of the tensor it was made as
    shape: tuple[int, ...]
    geometry: Geometry | None = None  # None: contiguous
    plain: bool = False  # whether it has been filled as a whole only, and never read
    steps: list[int] = field(default_factory=list)  # which of the tape write to it
    known: tuple[int, Tensor] | None = None  # its real bytes after that many steps, if all are written
    shown: tuple[int, Tensor] | None = None  # what somebody has asked for: zeros where nobody has written
    taken: bool = False  # whether an operator on the tape takes some of it, or changes it

    @property
    def nbytes(self) -> int:
        return self.storage.nbytes()

    @property
    def values(self) -> Tensor | None:
        """Its real bytes at the end of the tape, if they are known."""
        return self.values_after(len(self.steps))

    def values_after(self, steps: int) -> Tensor | None:
        """Its real bytes after that many of its steps, if they are known: all have been written, and none was added since."""
        if self.known is None or self.known[0] != steps:
            return None
        return self.known[1] if self.known[1].untyped_storage().nbytes() == self.nbytes else None

    @property
    def frame(self) -> Geometry:
        """The view it was made as."""
        if self.geometry is None:
            self.geometry = contiguous(self.shape)
        return self.geometry

    @property
    def whole(self) -> View:
        """The tensor it was made as."""
        return View(self, self.dtype, self.frame)


class View(NamedTuple):
    """A tensor of the code: some elements of one memory, or their conjugates, or negated."""

    memory: Memory
    dtype: torch.dtype
    geometry: Geometry
    conj: bool = False
    neg: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.geometry.shape

    @property
    def is_resolved(self) -> bool:
        """Whether its values are those in the memory, as they are."""
        return not (self.conj or self.neg)

    @property
    def is_whole(self) -> bool:
        """Whether it holds every element of its memory."""
        size = self.dtype.itemsize
        return self.memory.nbytes % size == 0 and fills_storage(self.geometry, self.memory.nbytes // size)


@dataclass(eq=False, slots=True)
class Step:
    """Something that writes."""

    place: Place | str  # of the model's own code; or words
    known: Tensor | None = field(default=None, kw_only=True)  # random values that Python has seen: they stay these

    @property
    def source(self) -> str:
        """``"file.py:12 function"``."""
        return self.place if isinstance(self.place, str) else described(self.place)

    @property
    def writes(self) -> tuple[View, ...]:
        """The views that it makes or changes."""
        raise NotImplementedError


@dataclass(eq=False, slots=True)
class FillStep(Step):
    """A view, or a memory as it was made, gets values of a distribution; with None it is fresh memory that nobody has
    written."""

    filled: View | Memory
    distribution: Distribution | None

    @property
    def writes(self) -> tuple[View, ...]:
        return (self.filled.whole if isinstance(self.filled, Memory) else self.filled,)


@dataclass(eq=False, slots=True)
class DataStep(Step):
    """A view gets these values."""

    filled: View
    values: Tensor

    @property
    def writes(self) -> tuple[View, ...]:
        return (self.filled,)


@dataclass(eq=False, slots=True)
class OperatorStep(Step):
    """An operator to be run. The tensors of its call are :class:`View`."""

    changed: tuple[View, ...]
    call: Call
    made: tuple[int | None, ...]  # for each tensor that it returns: which of ``writes`` it is; None if a view or changed
    dtype: torch.dtype  # the default dtype then
    reads: set[Memory] | None = field(default=None, kw_only=True)  # memories whose values it needs, once somebody has looked

    @property
    def writes(self) -> tuple[View, ...]:
        return self.changed


@dataclass(eq=False, slots=True)
class ChangedFill(OperatorStep):
    """Arithmetic with numbers, in place, on all of a plain memory, which then still holds a fill."""

    fill: FillStep  # the last one
    distribution: Distribution  # that it has become
