"""Measures cases: enters the contestants, checks what they write, lets them take turns. A row of the result is row.py's."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from . import memory
from .case import Case
from .contestants import OURS, OURS_HUGE, Contestant, contestants
from .correctness import check_distribution, check_ours
from .row import Row, row_of
from .timing import Policy, Stopwatch, looped, measure

__all__ = ["Runner"]

MEMORY_SHARE = 0.25  # of the available memory that a case's tensor may take


class Runner:
    """Measures cases one after the other and remembers what was slow.

    Args:
        policy: how much time a row gets.
        clock: cycles a second, if that is known.
    """

    def __init__(self, policy: Policy, clock: Callable[[], float] | None = None) -> None:
        self.policy = policy
        self.clock = clock
        self.seconds_per_value: dict[tuple[object, ...], float] = {}

    def run(self, case: Case) -> Row:
        """Measures one case. Cases of one distribution come in order of size, so that slow contestants are known.

        Raises:
            WrongValuesError: a contestant does not write what it should.
        """
        if case.bytes > MEMORY_SHARE * memory.available_bytes():
            reason = f"needs {case.bytes >> 20} MiB, more than {MEMORY_SHARE:.0%} of the memory available"
            return Row(case, {}, {}, {}, None, {who.name: reason for who in contestants(case)})
        torch.set_num_threads(case.threads)
        tensor = memory.warm(case) if case.group != "fresh" else None
        skipped: dict[str, str] = {}
        watches: dict[str, Stopwatch] = {}
        first: dict[str, float] = {}
        for contestant in contestants(case):
            entered = self._enter(contestant, case, tensor)
            if isinstance(entered, str):
                skipped[contestant.name] = entered
                continue
            watches[contestant.name], first[contestant.name] = entered
        samples, readings = measure(watches, first, self.policy, self.clock)
        for name, sample in samples.items():
            self.seconds_per_value[self._key(name, case)] = min(sample.seconds) / case.values
        return row_of(case, samples, readings, skipped)

    def _enter(self, contestant: Contestant, case: Case, shared: Tensor | None) -> tuple[Stopwatch, float] | str:
        """Checks the contestant in this case; its stopwatch and the seconds of its first call, or why it is left out."""
        predicted = self.seconds_per_value.get(self._key(contestant.name, case), 0.0) * case.values
        if predicted > self.policy.call_seconds and contestant.name not in (OURS, OURS_HUGE):
            return f"one call would take about {predicted:.0f} s"
        tensor = memory.fresh(case, contestant.huge_pages) if shared is None else shared
        call = contestant.enter(case, tensor)
        if isinstance(call, str):
            return call
        if contestant.name in (OURS, OURS_HUGE):
            check_ours(case, tensor, call)
        tensor.detach().zero_()
        start = perf_counter()
        result = call()
        seconds = perf_counter() - start
        if contestant.draws:
            check_distribution(case, _written(result, tensor), contestant.name)
        return (_in_fresh_memory(contestant, case) if shared is None else looped(call)), seconds

    @staticmethod
    def _key(contestant: str, case: Case) -> tuple[object, ...]:
        return contestant, case.group, case.label, case.dtype, case.threads


def _written(result: object, tensor: Tensor) -> Tensor:
    """What the call wrote: the tensor, unless it returned an array of its own."""
    return tensor if isinstance(result, Tensor) or not hasattr(result, "__dlpack__") else from_dlpack(result)


def _in_fresh_memory(contestant: Contestant, case: Case) -> Stopwatch:
    """A stopwatch whose every call gets pages that were never touched. Mapping and unmapping them is not timed."""

    def run(loops: int) -> float:
        total = 0.0
        for _ in range(loops):
            call = contestant.enter(case, memory.fresh(case, contestant.huge_pages))
            assert not isinstance(call, str)  # it has entered this case before
            start = perf_counter()
            call()
            total += perf_counter() - start
        return total / loops

    return run
