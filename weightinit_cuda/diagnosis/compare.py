"""The same model under several rules: each fills the model's own memory and is probed there; then the values are put back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..plans.by_rules import initialize_
from ..rules import Choice, RuleSet
from .comparison import Candidate, Comparison
from .depth import totals
from .passing import Question, look
from .verdict import judge

__all__ = ["best_of", "compare"]


def compare(model: nn.Module, question: Question, rules: Sequence[Any], seeds: Sequence[int]) -> Comparison:
    """Probes the model under each of the rules; see :meth:`ProbeReport.compare`."""
    if isinstance(rules, str) or not isinstance(rules, Sequence) or not rules:
        raise ValueError(f"compare: a list of rules is required, got {rules!r}.")
    if not seeds:
        raise ValueError("compare: one seed or more is required, got none.")
    with _values_kept(model):
        found = [max((_measured(model, question, one, seed) for seed in seeds), key=lambda c: c.cost) for one in rules]
    return Comparison(tuple(sorted(found, key=lambda candidate: candidate.cost)))


def best_of(model: nn.Module, example: tuple[Any, ...], candidates: Sequence[RuleSet]) -> Choice:
    """The first candidate that is ok, else the first with the fewest FAILs and WARNs."""
    question, found = Question(example, {}), list[Candidate]()
    with _values_kept(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sets that may not be chosen
        for rules in candidates:
            found.append(_measured(model, question, rules, 0))
            if found[-1].verdict == "ok":
                break
    number = min(range(len(found)), key=lambda n: found[n].cost[:3])
    if (verdict := found[number].verdict) is None:
        raise ValueError(f"{found[number].error}")
    return Choice(number, verdict, ", ".join(f"{one.rules}: {one.verdict or 'does not cover it'}" for one in found))


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
