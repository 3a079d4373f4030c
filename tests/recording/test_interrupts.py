"""Ctrl-C at any point of a block: the names of torch are torch's afterwards, and nobody is recorded."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.nn.parameter import UninitializedTensorMixin

import weightinit_cuda as wi
from weightinit_cuda.recording.interrupts import Interrupts
from weightinit_cuda.tensors.torch_private import dispatch_modes

OURS = str(Path(wi.__file__).parent)


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def everything() -> list[Any]:
    """All that a block exchanges, and the handler of Ctrl-C."""
    tables = (torch, torch.random, Tensor, torch.UntypedStorage)
    functions = [*(f for f in vars(nn.init).values() if hasattr(f, "__code__")), nn.Module.__setattr__, nn.Module.__setstate__]
    return [
        *({name: value for name, value in vars(table).items() if callable(value)} for table in tables),
        [function.__code__ for function in functions],  # type: ignore[union-attr]
        UninitializedTensorMixin.materialize,
        len(module_hooks._global_parameter_registration_hooks),
        dispatch_modes(),
        signal.getsignal(signal.SIGINT),
        torch.ones(1).is_meta,
    ]


class Interrupting:
    """Sends Ctrl-C at the nth call that this library makes, of Python's functions or others, or when such a call returns."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, frame: FrameType | None, event: str, argument: object) -> None:
        if event not in ("call", "c_return") or sys._getframe(1) is None:
            return
        while frame is not None and not frame.f_code.co_filename.startswith(OURS):
            frame = frame.f_back
        if frame is not None:
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)


def block() -> None:
    with wi.deferred():
        nn.Linear(2, 2)


def test_an_interrupt_at_any_point_leaves_nothing() -> None:
    block()
    before = everything()
    nth, ended, interrupted = 0, False, 0
    while not ended:
        nth += 1
        interrupting = Interrupting(nth)
        try:
            sys.setprofile(interrupting)
            block()
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.setprofile(None)
        ended = interrupting.left > 0
        assert everything() == before, nth
    assert interrupted == nth - 1 > 100


def test_it_comes_when_all_is_done() -> None:
    interrupts, seen = Interrupts(), list[int]()
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    handler = signal.getsignal(signal.SIGINT)
    interrupts.hold()
    signal.raise_signal(signal.SIGINT)
    assert not seen
    interrupts.let()
    assert seen == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is handler
    interrupts.let()  # once
    assert len(seen) == 1


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_handlers_that_are_none_of_pythons_stay(handler: Any) -> None:
    signal.signal(signal.SIGINT, handler)
    with wi.deferred():
        assert signal.getsignal(signal.SIGINT) is handler
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_that_the_block_sets_stays() -> None:
    def theirs(number: int, frame: FrameType | None) -> None: ...

    with wi.deferred():
        signal.signal(signal.SIGINT, theirs)
    assert signal.getsignal(signal.SIGINT) is theirs


def test_other_threads_have_no_handlers() -> None:
    made = list[nn.Module]()

    def record() -> None:
        with wi.deferred() as recording:
            layer = nn.Linear(2, 2)
        made.append(recording.materialize_(layer, seed=0))

    thread = threading.Thread(target=record)
    thread.start()
    thread.join()
    assert len(made) == 1
