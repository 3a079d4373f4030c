"""``wi.probe.watch``: the figures of a probe from a training loop's own passes, every so often."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import nn

from .observing import Observer
from .row import Row, Seen
from .verdict import Finding, judge

__all__ = ["Watch", "Writer"]

FIGURES = ("signal", "gradient", "saturated", "dead", "rank", "relative_gradient")


class Writer(Protocol):
    """What TensorBoard's SummaryWriter, and those that follow it, can do."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None, /) -> Any:
        """Writes one number."""


class Watch(AbstractContextManager["Watch"]):
    """See :meth:`.Probe.watch`. Nothing of the training changes: dropout stays, gradients are the loop's own.

    A measurement begins with a forward pass and ends when the next one begins, or with ``close()``: in between the loop runs
    its backward pass, whose gradients are seen before they are added to others.
    """

    def __init__(self, model: nn.Module, every: int, writer: Writer | None) -> None:
        if every < 1:
            raise ValueError(f"watch: a positive number of passes is required, got every={every}.")
        self.rows: list[Row] = []
        self.findings: list[Finding] = []
        self.step = 0
        self._model, self._every, self._writer = model, every, writer
        self._passes = 0
        self._observer: Any = None
        self._handles = [
            model.register_forward_pre_hook(self._before, prepend=True),
            model.register_forward_hook(self._after, always_call=True),
        ]

    def close(self) -> None:
        """Ends a measurement that is under way, and takes the hooks away."""
        self._end()
        for handle in self._handles:
            handle.remove()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _before(self, module: nn.Module, args: Any) -> None:
        self._end()
        if not module.training or not torch.is_grad_enabled():
            return
        self._passes += 1
        if (self._passes - 1) % self._every == 0:
            self.step = self._passes
            self._observer = Observer(module, still=False)
            self._observer.__enter__()

    def _after(self, module: nn.Module, args: Any, out: Any) -> None:
        if self._observer is not None and self._observer.watching:
            self._observer.watching = False
            self._observer.__exit__(None, None, None)

    def _end(self) -> None:
        """The backward pass is over: gradients are there."""
        observer, self._observer = self._observer, None
        if observer is None:
            return
        observer.close()
        self.rows = observer.rows
        self.findings = judge(Seen(self.rows, asleep=observer.asleep))
        if self._writer is not None:
            for row in self.rows:
                for figure in FIGURES:
                    if not math.isnan(value := getattr(row, figure)):
                        self._writer.add_scalar(f"probe/{figure}/{row.name or 'model'}.{row.kind}", value, self.step)
