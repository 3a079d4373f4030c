"""What is asked of one configuration: whether all ways build the same model, how long each takes, and how long the first time.
Plain data comes back.
"""

from __future__ import annotations

import gc
import math
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

import weightinit_cuda as wi

from .comparing import Eager, differences, eager_of, held
from .libraries import Build

__all__ = ["WAYS", "first", "times", "values"]

SEED = 3
SHOWN = 5  # differences of one model that are kept
LEAST_ROUNDS, SECONDS = 3, 0.6  # of long ones; SECONDS end what is not settled
ROUNDS, SETTLED = 25, 0.02  # the most; and the error of a ratio from which on more of them are not worth their time


def values(build: Build) -> dict[str, Any]:
    """Compares what ``patched()`` and ``deferred()`` build with eager models."""

    def seeded(seed: int) -> nn.Module:
        _seed(seed)
        return build()

    eager = eager_of(seeded)
    found: dict[str, Any] = {
        "parameters": sum(_size(each.tensor) for each in eager.first.values() if each.kind == "parameter"),
        "tensors": len(eager.first),
        "random": len(eager.random),
        "unwritten": list(eager.unwritten),
    }
    for way, compare in (("patched", _patched_values), ("deferred", _deferred_values)):
        try:
            found[way] = compare(build, eager)
        except Exception as error:
            found[way] = {"failed": one_line(error)}
    return found


def _patched_values(build: Build, eager: Eager, draws: str = "torch") -> dict[str, Any]:
    """Differences, and where values come from. With draws of torch's a second time, with these under ``draws="ours"``."""
    _seed(SEED)
    with wi.patched(report=True, draws=draws) as report:
        model = build()
    covered = report.of(model)
    tensors = held(model)
    lines = differences(eager, tensors)
    drawn = Counter[str]()
    for name, function in covered.drawn.items():
        drawn[function] += _size(tensors[name].tensor)
    random_names = set(eager.random)
    seen = {*covered.filled, *covered.drawn}
    found = {
        "differences": lines[:SHOWN],
        "count": len(lines),
        "filled_values": sum(_size(tensors[name].tensor) for name in covered.filled if name in random_names),
        "drawn_values": dict(drawn),
        "unseen": [name for name in covered.untouched if name in random_names and name not in seen],
    }
    return found | ({"draws": _patched_values(build, eager, "ours")} if drawn and draws == "torch" else {})


def _deferred_values(build: Build, eager: Eager) -> dict[str, Any]:
    _seed(SEED)
    with wi.deferred() as recorded:
        model = build()
    made = recorded.materialize_(model, device="cpu", seed=SEED)
    lines = differences(eager, held(made))
    return {"differences": lines[:SHOWN], "count": len(lines)}


def _size(tensor: torch.Tensor) -> int:
    return 0 if is_lazy(tensor) else tensor.numel()


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


def one_line(error: BaseException) -> str:
    """The error's type and the start of what it says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:240]


# ---- time ------------------------------------------------------------------------------------------------------------


def _patched(build: Build) -> nn.Module:
    with wi.patched():
        return build()


def _deferred(build: Build) -> nn.Module:
    with wi.deferred() as recorded:
        model = build()
    return recorded.materialize_(model, device="cpu", seed=SEED)


WAYS: dict[str, Callable[[Build], nn.Module]] = {"eager": lambda build: build(), "patched": _patched, "deferred": _deferred}


def times(build: Build) -> dict[str, Any]:
    """Seconds of each way, in turns, and ratios to eager: taken within each round, then their median.

    Whoever begins a round is the next one in each round. Models are freed between two, which is not timed. The garbage
    collector runs as it does for everybody, but not through what the libraries have imported, which happens too seldom for
    so few rounds.
    """
    for way in WAYS.values():  # imports, caches, pages
        way(build)
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    order, begun = list(WAYS), time.perf_counter()
    gc.collect()
    gc.freeze()
    try:
        while len(taken["eager"]) < ROUNDS and not _settled(taken):
            if len(taken["eager"]) >= LEAST_ROUNDS and time.perf_counter() - begun > SECONDS:
                break
            for name in order:
                taken[name].append(_seconds(WAYS[name], build))
            order.append(order.pop(0))
    finally:
        gc.unfreeze()
    ratios = {name: round(statistics.median(each), 4) for name, each in _ratios(taken).items()}
    seconds = {name: {"median": statistics.median(each), "min": min(each)} for name, each in taken.items()}
    return {"rounds": len(taken["eager"]), "seconds": seconds, "ratios": ratios}


def _ratios(taken: dict[str, list[float]]) -> dict[str, list[float]]:
    """To eager, round by round."""
    eager = taken["eager"]
    return {name: [a / b for a, b in zip(taken[name], eager, strict=True)] for name in WAYS if name != "eager"}


def _settled(taken: dict[str, list[float]]) -> bool:
    """Whether the medians are known well enough: their standard error, by the quartiles, as of normal values."""
    rounds = len(taken["eager"])
    if rounds <= LEAST_ROUNDS:
        return False
    for each in _ratios(taken).values():
        low, middle, high = statistics.quantiles(each, n=4)
        if 1.2533 * (high - low) / 1.349 / math.sqrt(rounds) > SETTLED * middle:
            return False
    return True


def _seconds(way: Callable[[Build], nn.Module], build: Build) -> float:
    before = time.perf_counter()
    model = way(build)
    taken = time.perf_counter() - before
    del model
    gc.collect()
    return taken


def first(build: Build) -> dict[str, Any]:
    """Seconds of the first build in a process: each way in a process of its own, forked when the libraries are imported, and of
    this one what ``import weightinit_cuda`` imports."""
    return {"seconds": {name: _forked(lambda way=way: _seconds(way, build)) for name, way in WAYS.items()}}  # type: ignore[misc]


def _forked(task: Callable[[], float]) -> float:
    """A number, from a fork of this process.

    Raises:
        RuntimeError: the fork failed.
    """
    there, here = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(here, repr(task()).encode())
        finally:
            os._exit(0)
    os.close(here)
    with os.fdopen(there) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    if not said:
        raise RuntimeError("the first build in a process must end, got none")
    return float(said)
