"""What the tests of ``deferred()`` share: a piece of code recorded as the buffers of a module, its plan, its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.numerics.streams import stream_of


class Holder(nn.Module):
    """A module of what a function makes: one tensor, or several by name."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        made = make()
        for name, tensor in (made if isinstance(made, dict) else {"w": made}).items():
            self.register_buffer(name, tensor)


def recorded(make: Callable[[], Any]) -> tuple[wi.Recording, Any]:
    with wi.deferred() as recording:
        holder = Holder(make)
    return recording, holder


def lines(make: Callable[[], Any], name: str = "w") -> list[Any]:
    recording, holder = recorded(make)
    return [(line.distribution, line.box) for line in recording.plan(holder)[name]]


def made(make: Callable[[], Any], seed: int = 0, **rest: Any) -> Any:
    recording, holder = recorded(make)
    recording.materialize_(holder, seed=seed, **rest)
    assert not any(b.is_meta for b in holder.buffers())
    return holder


def drawn(distribution: Any, shape: Any, name: str = "w", dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """What the plan's line alone gives."""
    tensor = torch.empty(shape, dtype=dtype)
    engine.fill([wi.FillJob(tensor, distribution, seed, stream_of(name))])
    return tensor
