"""Seeds that the code sets itself in the block: what is drawn under one is drawn at once, as torch draws it.

A generator that is passed is a seed of the code's own. So is torch's default generator from ``torch.manual_seed`` or
``torch.set_rng_state`` on, until a state is put back that it had before, as ``torch.random.fork_rng`` does at its end. Fixed
projections and the like rely on these numbers, and twice the same seed gives twice the same. All else is the plan's to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..tensors.torch_private import without_modes

__all__ = ["FUNCTIONS", "Seeding"]

_default_seed = torch.default_generator.initial_seed


class Seeding:
    """Whether the code of a thread has seeded torch's default generator."""

    def __init__(self) -> None:
        self._is_set = False
        self._before = _default_seed()
        self._unset: set[bytes] = set()  # states that the code saw before

    @property
    def is_set(self) -> bool:
        """The generator's own methods are no functions that could be watched: they are known by the seed that it has."""
        return self._is_set or _default_seed() != self._before

    def rules(self, generator: torch.Generator | None) -> bool:
        """Whether a draw, from this generator if one is passed, is under a seed of the code's own."""
        return generator is not None or self.is_set

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """What is drawn inside for others takes nothing from the code's own seed."""
        if not self.is_set:
            yield
            return
        with without_modes():
            state = torch.default_generator.get_state()
        try:
            yield
        finally:
            with without_modes():
                torch.default_generator.set_state(state)

    def manual_seed(self, torchs: Callable[..., Any], seed: Any) -> Any:
        generator = torchs(seed)
        self._is_set = True
        return generator

    def get_rng_state(self, torchs: Callable[..., Any]) -> Tensor:
        state: Tensor = torchs()
        if not self.is_set:
            self._unset.add(_bytes(state))
        return state

    def set_rng_state(self, torchs: Callable[..., Any], new_state: Tensor) -> None:
        torchs(new_state)
        self._is_set = _bytes(new_state) not in self._unset


def _bytes(state: Tensor) -> bytes:
    with without_modes():
        return state.numpy().tobytes()


FUNCTIONS = ("manual_seed", "get_rng_state", "set_rng_state")
"""Of ``torch`` and ``torch.random``; each is a method above, which is given torch's own."""
