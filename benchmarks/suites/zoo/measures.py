"""What is asked of one configuration: whether all ways build the same model, and how long each takes. Plain data comes back."""

from __future__ import annotations

import gc
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

__all__ = ["WAYS", "times", "values"]

SEED = 3
SHOWN = 5  # differences of one model that are kept
ROUNDS, LEAST_ROUNDS, SECONDS = 15, 3, 0.5


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


def _patched_values(build: Build, eager: Eager) -> dict[str, Any]:
    _seed(SEED)
    with wi.patched(report=True) as report:
        model = build()
    covered = report.of(model)
    tensors = held(model)
    lines = differences(eager, tensors)
    drawn = Counter[str]()
    for name, function in covered.drawn.items():
        drawn[function] += _size(tensors[name].tensor)
    random_names = set(eager.random)
    seen = {*covered.filled, *covered.drawn}
    return {
        "differences": lines[:SHOWN],
        "count": len(lines),
        "filled_values": sum(_size(tensors[name].tensor) for name in covered.filled if name in random_names),
        "drawn_values": dict(drawn),
        "unseen": [name for name in covered.untouched if name in random_names and name not in seen],
    }


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

    Whoever begins a round is the next one in each round. Models are freed between two, which is not timed.
    """
    for way in WAYS.values():  # imports, caches, pages
        way(build)
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    order, begun = list(WAYS), time.perf_counter()
    gc.collect()
    gc.freeze()  # or each collection would go through all that the library has imported
    gc.disable()
    try:
        while len(taken["eager"]) < ROUNDS:
            if len(taken["eager"]) >= LEAST_ROUNDS and time.perf_counter() - begun > SECONDS:
                break
            for name in order:
                taken[name].append(_seconds(WAYS[name], build))
            order.append(order.pop(0))
    finally:
        gc.enable()
        gc.unfreeze()
    ratios = {
        name: round(statistics.median(ours / eager for ours, eager in zip(taken[name], taken["eager"], strict=True)), 4)
        for name in WAYS
        if name != "eager"
    }
    seconds = {name: {"median": statistics.median(each), "min": min(each)} for name, each in taken.items()}
    return {"rounds": len(taken["eager"]), "seconds": seconds, "ratios": ratios}


def _seconds(way: Callable[[Build], nn.Module], build: Build) -> float:
    before = time.perf_counter()
    model = way(build)
    taken = time.perf_counter() - before
    del model
    gc.collect()
    return taken
