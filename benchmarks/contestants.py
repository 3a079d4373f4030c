"""Who takes part in a row: ours, torch.nn.init, the stores of fill_ and zero_, NumPy, JAX.

A contestant turns a case and its tensor into a call without arguments, or gives the reason why it sits this one out; reasons
end up in the report. A new peer is one function and one row in ``CONTESTANTS``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import weightinit_cuda as wi

from .case import Case, dtype_name

__all__ = ["BASELINE", "ONE_TENSOR", "OURS", "OURS_HUGE", "PREPARED", "Call", "Contestant", "contestants"]

Call = Callable[[], object]
OURS, BASELINE, OURS_HUGE = "ours", "nn.init", "ours, huge pages"
PREPARED, ONE_TENSOR = "ours, prepared launch", "ours, one tensor"  # on a GPU


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
    return partial(getattr(torch.nn.init, case.call), tensor, *case.arguments)


def _fill(case: Case, tensor: Tensor) -> Call | str:
    return partial(tensor.detach().fill_, 0.5)


def _zero(case: Case, tensor: Tensor) -> Call | str:
    return tensor.detach().zero_


def _numpy(bit_generator: str, case: Case, tensor: Tensor) -> Call | str:
    if importlib.util.find_spec("numpy") is None:
        return "numpy is not installed"
    if case.dtype not in (torch.float32, torch.float64):
        return f"NumPy draws no {dtype_name(case.dtype)}"
    if case.call not in ("uniform_", "normal_"):
        return "NumPy has no such distribution"
    if case.threads != 1:
        return "NumPy fills with one thread: see the row for one"
    random: Any = importlib.import_module("numpy.random")
    generator = random.Generator(getattr(random, bit_generator)(0))
    draw = generator.random if case.call == "uniform_" else generator.standard_normal
    return partial(draw, dtype=dtype_name(case.dtype), out=tensor.detach().numpy())


def _jax(case: Case, tensor: Tensor) -> Call | str:
    if importlib.util.find_spec("jax") is None:
        return "jax is not installed (pip install jax)"
    if case.dtype == torch.float64:
        return "JAX has no float64 by default"
    if case.call not in ("uniform_", "normal_") or case.arguments:
        return "measured for uniform and normal only"
    if case.threads != os.cpu_count():
        return "XLA's threads cannot be limited in this process: see the row for all cores"
    jax: Any = importlib.import_module("jax")
    draw = jax.random.uniform if case.call == "uniform_" else jax.random.normal
    made = jax.jit(lambda key: draw(key, case.shape, dtype_name(case.dtype)))
    key = jax.random.key(0)
    return lambda: made(key).block_until_ready()


_MAIN = (Contestant(OURS, _ours), Contestant(BASELINE, _torch))
_STORES = (Contestant("fill_", _fill, draws=False), Contestant("zero_", _zero, draws=False))
_OTHERS = (
    Contestant("numpy Philox", partial(_numpy, "Philox")),
    Contestant("numpy SFC64", partial(_numpy, "SFC64")),
    Contestant("jax threefry", _jax),
)
_HUGE = (Contestant(OURS_HUGE, _ours, huge_pages=True), Contestant("nn.init, huge pages", _torch, huge_pages=True))

CONTESTANTS: dict[str, Sequence[Contestant]] = {
    "fill": (*_MAIN, *_STORES, *_OTHERS),
    "small": (*_MAIN, _STORES[0]),
    "fresh": (*_MAIN, *_HUGE, *_STORES),
}


def contestants(case: Case) -> Sequence[Contestant]:
    """Who could take part in the case."""
    return CONTESTANTS[case.group]
