"""Who takes part in a row: ours, torch.nn.init, plain stores as a yardstick, and the peers in ``peers``.

A contestant turns a case and its tensor into a call without arguments, or gives the reason why it sits this one out; reasons
end up in the report. A new peer is a function and a row in ``peers``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import weightinit_cuda as wi

from ..case import Case, dtype_name
from .peers import PEERS, Peer, Wanted
from .stores import memset

__all__ = [
    "BASELINE",
    "CAST",
    "EAGER",
    "ONE_TENSOR",
    "OURS",
    "OURS_ALONE",
    "OURS_BOUND",
    "OURS_DEFERRED",
    "OURS_HUGE",
    "OURS_PATCHED",
    "OURS_PATCHED_ALONE",
    "OURS_PLANNED",
    "PREPARED",
    "STORES",
    "Call",
    "Contestant",
    "contestants",
    "on_gpu",
]

Call = Callable[[], object]
OURS, BASELINE, OURS_HUGE = "ours", "nn.init", "ours, huge pages"
PREPARED, ONE_TENSOR = "ours, prepared launch", "ours, one tensor"
OURS_PLANNED, OURS_BOUND = "ours, plan applied", "ours, plan bound"
OURS_DEFERRED, OURS_PATCHED, EAGER = "ours, deferred", "ours, patched", "eager"  # a model built from nothing
OURS_ALONE, OURS_PATCHED_ALONE = "ours, one thread", "ours, patched, one thread"  # beside those with several
CAST = "nn.init, cast"  # float8: what one does without us
STORES = ("fill_", "zero_", "memset")  # the fastest of them is a row's store limit


@dataclass(frozen=True)
class Contestant:
    """A name and how it enters.

    Args:
        name: as tables show it.
        enter: (case, tensor) -> the call to time, or why there is none.
        draws: whether it writes the case's distribution; fill_ and zero_ only store, as a yardstick.
        huge_pages: in the fresh group, whether huge pages are asked for.
    """

    name: str
    enter: Callable[[Case, Tensor], Call | str]
    draws: bool = True
    huge_pages: bool = False


def _ours(case: Case, tensor: Tensor) -> Call | str:
    return partial(getattr(wi.init, case.call), tensor, *case.arguments)


def _torch(case: Case, tensor: Tensor) -> Call | str:
    if case.dtype.itemsize == 1:
        return f"torch.nn.init fills no {dtype_name(case.dtype)}"
    return partial(getattr(torch.nn.init, case.call), tensor, *case.arguments)


def _cast(case: Case, tensor: Tensor) -> Call | str:
    """Drawn in float32, then copied: four times the tensor as scratch."""

    def call() -> None:
        scratch = torch.empty(case.shape, dtype=torch.float32)
        tensor.copy_(getattr(torch.nn.init, case.call)(scratch, *case.arguments))

    return call


def _fill(case: Case, tensor: Tensor) -> Call | str:
    return partial(tensor.detach().fill_, 0.5)


def _zero(case: Case, tensor: Tensor) -> Call | str:
    return tensor.detach().zero_


def _memset(case: Case, tensor: Tensor) -> Call | str:
    return memset(tensor, case.threads)


def _peer(peer: Peer, case: Case, tensor: Tensor) -> Call | str:
    draw = peer.open(Wanted(case.call, case.arguments, case.dtype, case.threads, device=tensor.device.type))
    return draw if isinstance(draw, str) else partial(draw, tensor)


_MAIN = (Contestant(OURS, _ours), Contestant(BASELINE, _torch))
_STORES = tuple(Contestant(name, enter, draws=False) for name, enter in zip(STORES, (_fill, _zero, _memset), strict=True))
_HUGE = (Contestant(OURS_HUGE, _ours, huge_pages=True), Contestant("nn.init, huge pages", _torch, huge_pages=True))


def contestants(case: Case) -> Sequence[Contestant]:
    """Who could take part in the case."""
    match case.group:
        case "neighbour":
            return _MAIN
        case "small":
            return (*_MAIN, _STORES[0])
        case "fresh":
            return (*_MAIN, *_HUGE, *_STORES)
        case "scaling":
            return (*_MAIN, *_STORES)
        case _:
            cast = (Contestant(CAST, _cast),) if case.dtype.itemsize == 1 else ()
            return (*_MAIN, *cast, *_STORES, *_peers(case.call, "cpu"))


def on_gpu(case: Case) -> Sequence[Contestant]:
    """Who could take part in the case on a GPU, with one tensor."""
    peers = _peers(case.call, "cuda") if case.group == "fill" else []
    return (*_MAIN, _STORES[0], *peers)


def _peers(call: str, device: str) -> list[Contestant]:
    return [Contestant(peer.name, partial(_peer, peer)) for peer in PEERS if peer.considers(call, device)]
