"""What ``patched()`` asks of whoever records a thread: ``deferred()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from .catalog import Function

__all__ = ["Records"]


class Records(Protocol):
    """Who records a thread."""

    def value(self, tensor: Tensor) -> Tensor:
        """The real values of a tensor on meta."""

    @property
    def called(self) -> Callable[[Function, tuple[Any, ...], int], bool]:
        """Records a call of a function, of whose arguments that many are the tensor and its own, and one may be a generator;
        False, and nothing is recorded, where it is to be run."""

    def seeded(self, generator: torch.Generator | None) -> bool:
        """Whether a draw is under a seed that the code has set: torch's function then runs."""
