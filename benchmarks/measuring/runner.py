"""Measures cases: enters the contestants, checks what they write, lets them take turns. A row of the result is row.py's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from weightinit_cuda.cli.memory import available_bytes, peak_of

from ..case import Case
from ..contestants import BASELINE, EAGER, OURS, OURS_HUGE, Call, Contestant, contestants
from . import memory, models, neighbours
from .correctness import WrongValuesError, check_distribution, check_ours
from .row import Row, row_of
from .timing import Policy, Stopwatch, looped, measure

__all__ = ["Runner"]

MEMORY_SHARE = 0.4  # of the available memory that a case's tensors may take
# With neighbours: a slice holds ten of the scheduler's, and a row many slices, since what happens now and then is what counts.
NEIGHBOUR_ROW, NEIGHBOUR_SLICE = 10, 0.04


@dataclass
class Entered:
    """Who takes part: stopwatches, seconds of the first calls and their peaks of memory; and why the others do not."""

    watches: dict[str, Stopwatch] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    values: int = 0  # if the case does not know


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
            WrongValuesError: ours does not write what it should. Others that do not are left out.
        """
        available = available_bytes()
        if available is not None and case.bytes > MEMORY_SHARE * available:
            reason = f"needs {case.bytes >> 20} MiB, more than {MEMORY_SHARE:.0%} of the memory available"
            return Row(case, {}, {}, {}, None, {OURS: reason})
        torch.set_num_threads(case.threads)
        if case.group == "neighbour":
            with neighbours.beside(case.label, case.threads):
                return self._row(case, _enter_neighbour, NEIGHBOUR_ROW * self.policy.row_seconds, NEIGHBOUR_SLICE)
        enter = {"model": _enter_model, "construct": _enter_construction}.get(case.group, self._enter_fill)
        return self._row(case, enter, self.policy.row_seconds, self.policy.slice_seconds)

    def _row(self, case: Case, enter: Callable[[Case], Entered], row_seconds: float, slice_seconds: float) -> Row:
        entered = enter(case)
        case = replace(case, shape=(entered.values,)) if entered.values else case
        if not entered.watches:
            return Row(case, {}, {}, {}, None, entered.skipped)
        policy = replace(self.policy, row_seconds=row_seconds, slice_seconds=slice_seconds)
        samples, readings = measure(entered.watches, entered.first, policy, self.clock)
        for name, sample in samples.items():
            self.seconds_per_value[self._key(name, case)] = min(sample.seconds) / case.values
        if OURS not in samples:
            readings = []  # cycles are those of ours
        return row_of(case, samples, readings, entered.skipped, entered.peaks)

    def _enter_fill(self, case: Case) -> Entered:
        """One tensor."""
        tensor = memory.warm(case) if case.group != "fresh" else None
        entered = Entered()
        for contestant in contestants(case):
            found = self._enter(contestant, case, tensor)
            if isinstance(found, str):
                entered.skipped[contestant.name] = found
                continue
            entered.watches[contestant.name], entered.first[contestant.name] = found
        return entered

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
            try:
                check_distribution(case, _written(result, tensor), contestant.name)
            except WrongValuesError as error:  # a peer's defect stops nobody else
                if contestant.name in (OURS, OURS_HUGE):
                    raise
                return f"left out for its values: {error}"
        return (_in_fresh_memory(contestant, case) if shared is None else looped(call)), seconds

    @staticmethod
    def _key(contestant: str, case: Case) -> tuple[object, ...]:
        return contestant, case.group, case.label, case.dtype, case.threads


def _enter_model(case: Case) -> Entered:
    """Parameters that exist; all contestants fill the same ones."""
    table, entered = models.table_of(case), Entered()
    model = models.module_of(table)
    for name, enter in models.MODEL:
        call = enter(table, model)
        if isinstance(call, str):
            continue  # a GPU's
        torch._foreach_zero_(models.tensors_of(model))
        _first_call(entered, name, call)
        entered.watches[name] = looped(call)
        if name in models.SAME_VALUES:
            models.check_model(case, table, model, name)
        if name in (OURS, BASELINE):
            models.check_moments(case, table, model, name)
    return entered


def _enter_construction(case: Case) -> Entered:
    """Models built from nothing, the last one given back before the next is built."""
    entered, build = Entered(), models.builder(case)
    if not isinstance(build, str):
        entered.values = _values_of(build)
    for name, enter in models.CONSTRUCT:
        call = build if isinstance(build, str) else enter(build)
        if isinstance(call, str):
            entered.skipped[name] = call
            continue
        _first_call(entered, name, call)
        entered.watches[name] = partial(_and_given_back, call)
    return entered


def _enter_neighbour(case: Case) -> Entered:
    """The same call with all threads and with one, and the usual way."""
    calls = neighbours.calls(case)
    if isinstance(calls, str):
        return Entered(skipped={OURS: calls})
    entered = Entered()
    for name, (call, threads) in calls.items():
        entered.watches[name] = watch = partial(_with_threads, threads, partial(_and_given_back, call))
        entered.first[name] = min(watch(1) for _ in range(5))  # one that is not disturbed
    if case.call == "construct":
        entered.values = _values_of(calls[EAGER][0])
    return entered


def _values_of(build: Call) -> int:
    with torch.device("meta"):  # imports what is imported on first use, too
        model: Any = build()
    return sum(parameter.numel() for parameter in model.parameters())


def _with_threads(threads: int, watch: Stopwatch, loops: int) -> float:
    torch.set_num_threads(threads)
    return watch(loops)


def _first_call(entered: Entered, name: str, call: Call) -> None:
    # The call alone: what peak_of does before it takes 80 ms, as long as no slice, and every loop was one call then.
    entered.first[name], peak = peak_of(partial(_seconds, call))
    if peak is not None:
        entered.peaks[name] = peak


def _seconds(call: Call) -> float:
    start = perf_counter()
    made = call()
    seconds = perf_counter() - start
    del made  # as in the rounds, freeing it is not counted
    return seconds


def _and_given_back(call: Call, loops: int) -> float:
    """A stopwatch that does not count the time in which the result is freed."""
    total = 0.0
    for _ in range(loops):
        start = perf_counter()
        result = call()
        total += perf_counter() - start
        del result
    return total / loops


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
