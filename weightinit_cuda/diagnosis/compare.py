"""The same model under several rules: each fills the model's own memory and is probed there; then the values are put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..plans.plan import initialize_
from .comparison import Candidate, Comparison
from .depth import totals
from .passing import Question, look
from .verdict import judge

__all__ = ["compare"]


def compare(model: nn.Module, question: Question, rules: Sequence[Any], seeds: Sequence[int]) -> Comparison:
    """Probes the model under each of the rules; see :meth:`ProbeReport.compare`."""
    if isinstance(rules, str) or not isinstance(rules, Sequence) or not rules:
        raise ValueError(f"compare: a list of rules is required, got {rules!r}.")
    if not seeds:
        raise ValueError("compare: one seed or more is required, got none.")
    with _values_kept(model):
        found = [max((_measured(model, question, one, seed) for seed in seeds), key=lambda c: c.cost) for one in rules]
    return Comparison(tuple(sorted(found, key=lambda candidate: candidate.cost)))


def _measured(model: nn.Module, question: Question, rules: Any, seed: int) -> Candidate:
    name = rules if isinstance(rules, str) else str(getattr(rules, "name", rules))
    try:
        initialize_(model, rules, seed)
    except ValueError as error:
        return Candidate(name, error=str(error))
    seen = look(model, question)
    return Candidate(name, tuple(judge(seen)), tuple(seen.rows), *totals(seen.rows), seen.loss)


@contextmanager
def _values_kept(model: nn.Module) -> Iterator[None]:
    """Parameters and buffers have their values again afterwards: one copy of the model is held meanwhile."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    values = {key: t.detach().clone() for key, t in tensors.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(values[key])
