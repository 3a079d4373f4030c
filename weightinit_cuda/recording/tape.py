"""What a tape is made of: memories, views of them, and the steps that write to them, in order. Plain data.

A :class:`Step` makes or writes values: a fill where it is one, given data, or an operator to be run later. Views need no step,
they share the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics.distributions import Distribution
from .operators import Call
from .views import Geometry, fills_storage

__all__ = ["CPU", "META", "DataStep", "FillStep", "Memory", "OperatorStep", "Step", "View"]

META, CPU = torch.device("meta"), torch.device("cpu")


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
class FillStep(Step):
    """``writes[0]`` gets values of a distribution; with None it is fresh memory that nobody has written."""

    distribution: Distribution | None


@dataclass(eq=False)
class DataStep(Step):
    """``writes[0]`` gets these values."""

    values: Tensor


@dataclass(eq=False)
class OperatorStep(Step):
    """An operator to be run. The tensors of its call are :class:`View`."""

    call: Call
    made: tuple[int | None, ...]  # for each tensor that it returns: which of ``writes`` it is; None if a view or changed
    dtype: torch.dtype  # the default dtype then
