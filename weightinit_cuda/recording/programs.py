"""Replays that give the same: a key of all that the values of a memory follow from, equal for equal steps.

Blocks of a model compute the same tables again and again: relative positions, masks of windows. They are run once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from .replay import is_random
from .tape import DataStep, FillStep, Memory, OperatorStep, Step, View

__all__ = ["program"]

_MOST = 1 << 12  # bytes of given values that are compared


def program(steps: Sequence[Step], memory: Memory) -> Hashable:
    """What the steps that a memory's values depend on do, whatever memories they do it to; None if they draw, or if that cannot
    be said."""
    numbers: dict[Memory, int] = {}
    try:
        return (*(_does(step, numbers) for step in steps), numbers[memory])
    except _Unlike:
        return None


class _Unlike(Exception):
    """Nothing says what this is equal to."""


def _does(step: Step, numbers: dict[Memory, int]) -> Hashable:
    if step.known is not None or is_random(step):
        raise _Unlike
    writes = tuple([_said(view, numbers) for view in step.writes])
    match step:
        case FillStep(distribution=distribution):
            return writes, repr(distribution)
        case DataStep(values=values):
            return writes, _bytes(values)
        case OperatorStep(call=call):
            given = [_said(x, numbers) for x in call.args], [(key, _said(x, numbers)) for key, x in call.kwargs.items()]
            return writes, id(call.operator), tuple(given[0]), tuple(given[1]), step.made, step.dtype
    raise _Unlike


_EXACT = (int, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)


def _said(x: Any, numbers: dict[Memory, int]) -> Hashable:
    if type(x) is View:
        memory = x.memory
        return numbers.setdefault(memory, len(numbers)), memory.nbytes, x.dtype, x.geometry, x.conj, x.neg
    if type(x) in _EXACT:
        return type(x), x
    if type(x) is float:
        return x.hex()  # zeros have signs
    if type(x) in (list, tuple):
        return tuple([_said(each, numbers) for each in x])
    raise _Unlike


def _bytes(values: Tensor) -> Hashable:
    if values.layout is not torch.strided or values.is_quantized or values.nbytes > _MOST:
        raise _Unlike
    return values.dtype, values.shape, bytes(values.contiguous().reshape(-1).view(torch.uint8).tolist())
