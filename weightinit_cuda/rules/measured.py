"""Rules chosen by measurement: the question is asked here, and answered by a room that this one does not know.

Rules come before plans, and what probes a model (``diagnosis``) comes after both; so the front of the package, which knows all
rooms, is asked for the probe when one is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from torch import nn

from .rule import Rules, RuleSet

__all__ = ["Choice", "Prober", "measured"]


class Choice(NamedTuple):
    """What a measurement chose.

    Args:
        number: of the candidate.
        verdict: on it: "ok", "WARN" or "FAIL".
        words: all that were measured, with their verdicts.
    """

    number: int
    verdict: str
    words: str


Prober = Callable[[nn.Module, tuple[Any, ...], Sequence[RuleSet]], Choice]
"""Probes a model under several sets of rules, puts its values back, and says which is best; the first of equals."""


def measured(name: str, example: tuple[Any, ...], candidates: Sequence[tuple[str, Rules]]) -> RuleSet:
    """A set that tries candidates on the model that it is asked about, and is the best of them.

    Args:
        name: of the set.
        example: positional inputs of the model: a batch of data, on its device.
        candidates: names and rules, what is preferred first.
    """

    def rules(model: nn.Module) -> Rules:
        if not example:
            raise ValueError(
                f"{name}: an example is required with measure=True, got none. Give a batch: {name}(x, measure=True)."
            )
        if any(parameter.is_meta for parameter in model.parameters()):
            raise ValueError(
                f"{name}: parameters with memory are required with measure=True, got some on meta. Measure a smaller model, and"
                " use the set that its plan names."
            )
        sets = [RuleSet(label, _always(given)) for label, given in candidates]
        prober: Prober = import_module(__name__.partition(".")[0])._prober()
        choice = prober(model, example, sets)
        label, given = candidates[choice.number]
        if choice.verdict == "FAIL":
            warnings.warn(f"{name}: the best of what was measured is a FAIL ({choice.words}). See wi.probe.", stacklevel=8)
        return RuleSet(f"{name}, measured: {label} ({choice.words})", _always(given))

    return RuleSet(name, rules)


def _always(rules: Rules) -> Callable[[nn.Module], Rules]:
    return lambda model: rules.rules(model) if isinstance(rules, RuleSet) else rules
