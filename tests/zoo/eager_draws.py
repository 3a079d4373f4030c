"""Eager construction with its draws logged, and ``deferred()`` made to draw the same: the rest must be equal bit for bit.

``Log`` notes, in order, what every random operator of an eager construction gives. ``drawing`` hands these values to the
recorder, one for each random step that it writes. What the code computes of them, in whatever way, what Python sees of them and
which branches it takes must then be what eager code has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from weightinit_cuda.recording import recorder
from weightinit_cuda.recording.operators import Call, leaves
from weightinit_cuda.recording.plain_tape import PlainTape
from weightinit_cuda.recording.recorder import Recorder
from weightinit_cuda.recording.replay import is_random
from weightinit_cuda.tensors.torch_private import without_modes


class Draw(NamedTuple):
    """What a random operator gave, and torch's state before."""

    what: str
    values: list[Tensor]
    state: Tensor


class Log(TorchDispatchMode):
    """The draws of eager code that passes no generators."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []
        self.inside = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = Call(func, args, kwargs or {})
        if not call.nature.random or self.inside or call.given.get("generator") is not None:
            return call()
        state = torch.get_rng_state()
        before = {t.untyped_storage().data_ptr() for t in call.tensors()}
        result = call()
        if "attention" in call.nature.name and torch.equal(state, torch.get_rng_state()):  # no dropout
            return result
        made = [r for r in leaves(result) if r.untyped_storage().data_ptr() not in before]
        self.note(call.nature.name, [*call.written(), *made], state)
        return result

    def note(self, what: str, values: list[Tensor], state: Tensor) -> None:
        if any(value.numel() for value in values):
            self.draws.append(Draw(what, [value.detach().clone() for value in values], state))

    def whole(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A function of ``torch.nn.init`` that the recorder takes for one fill."""

        @functools.wraps(function)
        def logged(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            state = torch.get_rng_state()
            self.inside += 1
            function(tensor, *args, **kwargs)
            self.inside -= 1
            if not self.inside and kwargs.get("generator") is None:
                self.note(function.__name__, [tensor], state)
            return tensor

        return logged


@contextmanager
def logged() -> Iterator[Log]:
    log = Log()
    with pytest.MonkeyPatch.context() as patch, log:
        for name in ("_no_grad_trunc_normal_", "orthogonal_", "sparse_"):
            patch.setattr(nn.init, name, log.whole(getattr(nn.init, name)))
        yield log


@contextmanager
def drawing(log: Log) -> Iterator[None]:
    """Recorders draw what eager code has drawn."""
    rest = iter(log.draws)
    append, fill_plain, run = Recorder._append, PlainTape.fill_plain, Recorder._run

    def take(what: str) -> Draw:
        draw = next(rest, None)
        assert draw is not None, f"{what}: eager code draws only {len(log.draws)} times"
        return draw

    def give(step: Any) -> None:
        if not is_random(step) or not any(view.geometry.numel for view in step.writes):
            return
        draw = take(step.source)
        shapes = [tuple(value.shape) for value in draw.values]
        assert [view.shape for view in step.writes] == shapes, f"{step.source}, where eager code draws {draw.what} {shapes}"
        with without_modes():
            values = [v.to(view.dtype).contiguous() for v, view in zip(draw.values, step.writes, strict=True)]
            step.known = torch.cat([value.reshape(-1).view(torch.uint8) for value in values])

    def appended(self: Recorder, step: Any) -> None:
        append(self, step)
        give(step)

    def filled(self: PlainTape, memory: Any, distribution: Any, place: Any) -> None:
        fill_plain(self, memory, distribution, place)
        if distribution.is_random:
            memory.plain = False
            give(self.steps[-1])

    def runs(self: Recorder, call: Call, *rest: Any) -> Any:
        if not call.nature.random or self._draws_itself(call):
            return run(self, call, *rest)
        with without_modes(), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(take(call.nature.name).state)
            return run(self, call, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "_append", appended)
        patch.setattr(recorder, "fastest", lambda tape: tape)  # what is to be watched must be Python
        patch.setattr(PlainTape, "fill_plain", filled)
        patch.setattr(Recorder, "_run", runs)
        yield
    left = [draw.what for draw in rest]
    assert not left, f"eager code draws {left} besides"
