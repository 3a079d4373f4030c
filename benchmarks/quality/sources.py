"""Who draws: ours, torch.nn.init, the peers, and controls that are wrong on purpose, to show that the statistics see.

A source is opened with a seed; each call then gives its next values. Ours takes the stream that a call's number names.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

import weightinit_cuda as wi

from ..contestants import BASELINE, OURS
from ..contestants.peers import PEERS, Peer, Wanted
from .laws import Law
from .philox import philox

__all__ = ["Next", "Source", "sources"]

Next = Callable[[int], Tensor]  # a number of values -> that many


@dataclass(frozen=True)
class Source:
    """A name, how it is opened, and for a control the statistic that must see it.

    Args:
        open: (law, dtype, seed, device) -> a function that draws, or why there is none.
        control: name of a finding; empty for generators that are meant to be right.
        where: for a control, the law and dtype it is for.
    """

    name: str
    open: Callable[[Law, torch.dtype, int, str], Next | str]
    control: str = ""
    where: tuple[str, torch.dtype] | None = None


def sources(law: Law, dtype: torch.dtype, device: str = "cpu") -> list[Source]:
    """Everyone who draws the law on the device, controls last."""
    peers = [Source(peer.name, partial(_peer, peer)) for peer in PEERS if peer.considers(law.call, device)]
    controls = [control for control in _CONTROLS if control.where == (law.name, dtype)]
    return [Source(OURS, _ours), Source(BASELINE, _torch), *peers, *controls]


def _ours(law: Law, dtype: torch.dtype, seed: int, device: str) -> Next | str:
    function, streams = getattr(wi.init, law.call), itertools.count()
    return lambda n: function(torch.empty(n, dtype=dtype, device=device), seed=seed, stream=next(streams))


def _torch(law: Law, dtype: torch.dtype, seed: int, device: str) -> Next | str:
    function, generator = getattr(torch.nn.init, law.call), torch.Generator(device).manual_seed(seed)
    return lambda n: function(torch.empty(n, dtype=dtype, device=device), generator=generator)


def _peer(peer: Peer, law: Law, dtype: torch.dtype, seed: int, device: str) -> Next | str:
    threads = os.cpu_count() or 1 if peer.name.startswith("jax") else 1
    draw = peer.open(Wanted(law.call, (), dtype, threads, seed, device))
    if isinstance(draw, str):
        return draw

    def values(n: int) -> Tensor:
        tensor = torch.empty(n, dtype=dtype, device=device)
        result = draw(tensor)
        return from_dlpack(result) if hasattr(result, "__dlpack__") else tensor

    return values


# ---- controls -------------------------------------------------------------------------------------------------------


def _wide(law: Law, dtype: torch.dtype, seed: int, device: str) -> Next | str:
    """One percent too wide."""
    right = _ours(law, dtype, seed, device)
    return right if isinstance(right, str) else lambda n: right(n).mul_(1.01)


def _one_seed(law: Law, dtype: torch.dtype, seed: int, device: str) -> Next | str:
    """Seeds of which only the lowest two bits count."""
    return _ours(law, dtype, seed & 3, device)


def _few_rounds(law: Law, dtype: torch.dtype, seed: int, device: str) -> Next | str:
    """Uniform values of Philox4x32 with 5 rounds instead of 10, as ours makes them of words."""
    calls = itertools.count()
    return lambda n: torch.from_numpy(
        (philox(np.arange((n + 3) // 4), next(calls), seed, rounds=5).reshape(-1)[:n] & 0xFFFFFF).astype(np.float32)
        * np.float32(2**-24)
    )


_CONTROLS = (
    Source("control: Philox, 5 rounds", _few_rounds, "pairs", ("uniform", torch.float32)),
    Source("control: 1 % too wide", _wide, "std", ("normal", torch.float32)),
    Source("control: seeds repeat", _one_seed, "seeds", ("normal", torch.float32)),
)
