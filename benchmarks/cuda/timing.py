"""How time is taken on a GPU: CUDA events around a slice of calls, contestants in turns, a cold cache for large tensors.

Before each slice of a large tensor a buffer larger than the cache is written: the tensor is not in the cache then, and while
the buffer is written the host has time to queue the calls, so that the events see the device and not Python. A small tensor's
slice is many calls in a row in a warm cache; its time is that of the slower of host and device.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from ..contestants import Call
from ..measuring.timing import Samples

__all__ = ["Flush", "GpuPolicy", "measure", "seconds_of"]

Flush = Callable[[], object]


@dataclass(frozen=True)
class GpuPolicy:
    """How much time a row gets.

    Args:
        row_seconds: aim for one row, all contestants together.
        slice_seconds: aim for a slice of small tensors.
        rounds: least and most.
        call_seconds: a contestant whose one call takes longer is left out of the row.
        large_bytes: tensors from here on are measured one call at a time in a cold cache.
    """

    row_seconds: float = 0.4
    slice_seconds: float = 0.001
    rounds: tuple[int, int] = (5, 50)
    call_seconds: float = 3.0
    large_bytes: int = 1 << 26


def seconds_of(call: Call, loops: int, flush: Flush | None) -> float:
    """Seconds of one of ``loops`` calls by the device's clock; the device is idle before and after."""
    event: Any = torch.cuda.Event  # untyped in some releases of torch
    begin, end = event(enable_timing=True), event(enable_timing=True)
    if flush is not None:
        flush()
    begin.record()
    for _ in range(loops):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3 / loops


def measure(calls: Mapping[str, Call], policy: GpuPolicy, flush: Flush | None) -> dict[str, Samples]:
    """Rounds of one slice a contestant, each round beginning with the next one.

    Args:
        calls: the contestants, warmed up.
        flush: empties the cache; None for small tensors, whose slices are many calls.
    """
    samples = {name: Samples(1 if flush else _loops(call, policy)) for name, call in calls.items()}
    order, rounds, done = list(calls), policy.rounds[1], 0
    gc.disable()
    try:
        start = perf_counter()
        while done < rounds:
            for name in order:
                samples[name].seconds.append(seconds_of(calls[name], samples[name].loops, flush))
            order.append(order.pop(0))
            done += 1
            affordable = int(policy.row_seconds * done / (perf_counter() - start))
            rounds = min(max(policy.rounds[0], affordable), policy.rounds[1])
    finally:
        gc.enable()
    return samples


def _loops(call: Call, policy: GpuPolicy) -> int:
    seconds_of(call, 3, None)
    return max(1, min(1000, round(policy.slice_seconds / max(seconds_of(call, 10, None), 1e-7))))
