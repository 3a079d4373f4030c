"""How time is taken: contestants take turns in short slices, so that whatever disturbs the machine disturbs all alike.

A slice is a loop of calls long enough for the clock. Each round gives one sample of every contestant; comparisons are made
within rounds. Nothing here knows what is being timed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter

__all__ = ["Policy", "Samples", "Stopwatch", "looped", "measure", "spread"]

SHORT = 25  # slices that a first call may take and be made again
Stopwatch = Callable[[int], float]  # makes that many calls, returns the seconds that one took
Clock = Callable[[], float]  # cycles a second, now


@dataclass(frozen=True)
class Policy:
    """How much time a row gets.

    Args:
        row_seconds: aim for one row, all contestants together.
        slice_seconds: aim for one slice: long against the clock and the switch between contestants, short against a second.
        rounds: least and most.
        call_seconds: a contestant whose one call would take longer is left out of the row.
    """

    row_seconds: float = 0.3
    slice_seconds: float = 0.004
    rounds: tuple[int, int] = (3, 25)
    call_seconds: float = 3.0


@dataclass
class Samples:
    """Seconds per call, one number a round, the number of calls in each slice, and the rounds in which the host was late.

    Late is for devices only: the calls were not all queued when the device's clock started.
    """

    loops: int
    seconds: list[float] = field(default_factory=list)
    late: int = 0


def looped(call: Callable[[], object]) -> Stopwatch:
    """A stopwatch that makes the call again and again in the same memory."""

    def run(loops: int) -> float:
        start = perf_counter()
        for _ in range(loops):
            call()
        return (perf_counter() - start) / loops

    return run


def measure(
    watches: Mapping[str, Stopwatch], first: Mapping[str, float], policy: Policy, clock: Clock | None = None
) -> tuple[dict[str, Samples], list[float]]:
    """Rounds of one slice a contestant, each round beginning with the next one.

    Args:
        watches: the contestants, warmed up.
        first: seconds that a call of each took when it was warmed up.
        clock: read once a round.

    Returns:
        The samples of each contestant, and the clock's readings.
    """
    samples = {name: Samples(_loops(watch, first[name], policy)) for name, watch in watches.items()}
    order, readings, rounds = list(watches), [], policy.rounds[1]
    gc.disable()
    try:
        start, done = perf_counter(), 0
        while done < rounds:
            for name in order:
                samples[name].seconds.append(watches[name](samples[name].loops))
            if clock:
                readings.append(clock())
            order.append(order.pop(0))
            done += 1
            affordable = int(policy.row_seconds * done / (perf_counter() - start))
            rounds = min(max(policy.rounds[0], affordable), policy.rounds[1])
    finally:
        gc.enable()
    return samples, readings


def _loops(watch: Stopwatch, seconds: float, policy: Policy) -> int:
    """Calls that fill a slice. The first call is no measure of a short one, which touched memory and code for the first time:
    it is taken again, then in longer loops."""
    loops = 1
    if seconds < SHORT * policy.slice_seconds:
        seconds = watch(1)
    while loops * seconds < policy.slice_seconds / 4:
        loops = max(loops * 4, 4)
        seconds = watch(loops)
    return max(1, round(policy.slice_seconds / seconds)) if loops > 1 or seconds < policy.slice_seconds else 1


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and least of the samples, to five digits.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'p25': 1.5, 'p75': 2.5, 'min': 1.0}
    """
    quarters = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    numbers = {"median": median(values), "p25": quarters[0], "p75": quarters[2], "min": min(values)}
    return {name: float(f"{number:.5g}") for name, number in numbers.items()}
