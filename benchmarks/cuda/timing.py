"""How time is taken on a GPU: CUDA events around a slice of calls, contestants in turns, a cold cache for large tensors.

Before each slice of a large tensor a buffer larger than the cache is written, so that the tensor is not in the cache. Then the
device sleeps while the host queues the call, so that the events see the device and not Python; whoever was late nevertheless is
counted. A small tensor's slice is many calls in a row in a warm cache; its time is that of the slower of host and device.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch

from ..contestants import Call
from ..measuring.timing import Samples

__all__ = ["HEAD_START", "Flush", "GpuPolicy", "measure", "seconds_of"]

Flush = Callable[[str], object]  # what comes before a slice of the contestant of that name, on the device
HEAD_START = 1_000_000  # cycles that the device sleeps: half a millisecond at 2 GHz; queueing a call takes 5 to 100 us


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


def seconds_of(call: Call, loops: int, before: Callable[[], object] | None = None) -> tuple[float, bool]:
    """Seconds of one of ``loops`` calls by the device's clock; the device is idle before and after.

    Args:
        before: queued before the clock starts.

    Returns:
        The seconds, and whether the host was late: the clock had started before all calls were queued.
    """
    event: Any = torch.cuda.Event  # untyped in some releases of torch
    begin, end = event(enable_timing=True), event(enable_timing=True)
    if before is not None:
        before()
    begin.record()
    for _ in range(loops):
        call()
    end.record()
    late = bool(begin.query())
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3 / loops, late


def measure(calls: Mapping[str, Call], policy: GpuPolicy, flush: Flush | None) -> dict[str, Samples]:
    """Rounds of one slice a contestant, each round beginning with the next one.

    Args:
        calls: the contestants, warmed up.
        flush: comes before each slice; None for small tensors, whose slices are many calls.
    """
    samples = {name: Samples(1 if flush else _loops(call, policy)) for name, call in calls.items()}
    order, rounds, done = list(calls), policy.rounds[1], 0
    gc.disable()
    try:
        start = perf_counter()
        while done < rounds:
            for name in order:
                seconds, late = seconds_of(calls[name], samples[name].loops, partial(flush, name) if flush else None)
                samples[name].seconds.append(seconds)
                samples[name].late += late and flush is not None
            order.append(order.pop(0))
            done += 1
            affordable = int(policy.row_seconds * done / (perf_counter() - start))
            rounds = min(max(policy.rounds[0], affordable), policy.rounds[1])
    finally:
        gc.enable()
    return samples


def _loops(call: Call, policy: GpuPolicy) -> int:
    seconds_of(call, 3)
    return max(1, min(1000, round(policy.slice_seconds / max(seconds_of(call, 10)[0], 1e-7))))
