"""A fill in a signal handler that interrupts another one: no two get the same numbers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from weightinit_cuda import engine, init
from weightinit_cuda.engine import words

CALLS: dict[str, Callable[[], Tensor]] = {
    "the short way": lambda: init.normal_(torch.empty(4)),
    "a stream": lambda: init.normal_(torch.empty(4), stream=1),
    "a transposed tensor": lambda: init.normal_(torch.empty(2, 2).t()),
    "a seed": lambda: torch.tensor([words.draw_seed(torch.empty(0)) >> 1]),
}


@pytest.fixture
def interrupted() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Has a function called by a signal, many times a second."""
    before = signal.getsignal(signal.SIGALRM)

    def start(handle: Callable[[], None]) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            handle()
            signal.setitimer(signal.ITIMER_REAL, 2e-4)  # not before: slow handlers would be interrupted for ever

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 2e-4)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", sorted(CALLS))
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_no_numbers_come_twice(name: str, backend: str, interrupted: Callable[[Callable[[], None]], None]) -> None:
    if backend == "native" and not engine.backend.native:
        pytest.skip("no compiled kernels")
    call, drawn = CALLS[name], list[tuple[float, ...]]()
    by_handler = 0

    def handle() -> None:
        nonlocal by_handler
        by_handler += 1
        drawn.append(tuple(call().flatten().tolist()))

    def run() -> None:
        call()  # what is imported at first use is no handler's business
        interrupted(handle)
        while by_handler < 300:
            drawn.append(tuple(call().flatten().tolist()))
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    if backend == "native":
        run()
    else:
        with engine.reference_only():
            run()
    assert len(set(drawn)) == len(drawn)


class Generator:
    """What stands where a CUDA generator of torch does; whoever asks for its place is interrupted."""

    def __init__(self) -> None:
        self.position = 40

    def get_offset(self) -> int:
        return self.position

    def set_offset(self, position: int) -> None:
        self.position = position


@pytest.fixture(params=[True, False], ids=["native", "Python"])
def taker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes positions: the native module, or Python."""
    if request.param and words.kernels is None:
        pytest.skip("no compiled kernels")
    if not request.param:
        monkeypatch.setattr(words, "kernels", None)


@pytest.mark.usefixtures("taker")
def test_positions_of_a_gpus_generator() -> None:
    generator = Generator()
    assert [words.take_position(generator) for _ in range(3)] == [40, 44, 48]  # type: ignore[arg-type]
    assert generator.position == 52


@pytest.mark.usefixtures("taker")
def test_threads_take_different_positions() -> None:
    """The generator's methods are compiled code, as torch's are, between whose calls Python may change threads."""
    cell = [0]
    generator: Any = SimpleNamespace(get_offset=partial(cell.__getitem__, 0), set_offset=partial(cell.__setitem__, 0))
    threads, calls = 4, 5000
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            taken = [*pool.map(lambda _: [words.take_position(generator) for _ in range(calls)], range(threads))]
    finally:
        sys.setswitchinterval(interval)
    assert sorted(chain.from_iterable(taken)) == list(range(0, 4 * threads * calls, 4))
