"""Fills by rules: the plan that rules make of a model, and the model filled at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex, TypeVar

from torch import nn

from .. import engine
from ..numerics.streams import stream_of
from ..rules import Rules, RuleSet, resolve
from ..tensors.kinds import MODULE, must_be
from ..tensors.named import Named, joined, named_tensors
from .buffers import fill_and_recompute, must_recompute
from .columns import Covered, entries_of, plain_columns
from .plan import Plan
from .seeds import prefix_of, seed_or_drawn
from .without_elements import with_those_without_elements

__all__ = ["initialize_", "plan"]

Root = TypeVar("Root", bound=nn.Module)


def plan(model: nn.Module, rules: Rules = "torch", seed: SupportsIndex | None = None, *, prefix: str = "") -> Plan:
    """What ``rules`` would fill the model with. Only names, shapes, dtypes and modules are looked at: a model on meta will do.

    Args:
        model: any module; tied parameters and DTensors included.
        rules: a name (``RULE_SETS`` has them), a Rule, a RuleSet, a function of a :class:`.Named` tensor, or a list of these:
            the first that covers a tensor decides. See `docs/plans.md`.
        seed: 64 bits. None: drawn from torch's default generator, which ``torch.manual_seed`` governs, and kept in the plan.
            Ranks that share DTensors agree on one, so all of them must call this; of plain tensors they do not: seed torch
            alike on all ranks, or give ``seed=``.
        prefix: where the model belongs in a whole that is not at hand: ``"layers.0"``. It gets the values of that part there.
            Only streams are made of the longer names; the plan lists the model's own, and rules see these.

    Returns:
        A plan with every parameter, those without elements too, and with the buffers that the rules know.

    Raises:
        ValueError: no rule covers some parameter, a rule cannot fill it, or it is lazy; all of those are named.

    >>> for entry in plan(nn.Linear(2, 3), rules="kaiming"):
    ...     print(entry.name, entry.distribution)
    weight Normal(mean=0.0, std=1.0)
    bias Constant(value=0.0)
    """
    must_be(MODULE, "plan", model=model)
    tensors, prefix = named_tensors(model), prefix_of("plan", prefix)
    covered = resolve(model, tensors, rules)
    entries = entries_of(covered, _streams(covered, prefix))
    if len(covered) < len(tensors) and (bare := [n for n in tensors if not (n.buffer or n.tensor.numel())]):
        names = (named.name for named in tensors)
        entries = with_those_without_elements(entries, bare, names, lambda name: stream_of(joined(prefix, name)))
    return Plan(entries, seed_or_drawn("plan", seed, (named.tensor for named in tensors)), _name_of(rules))


def _streams(covered: Sequence[Covered], prefix: str) -> list[int]:
    return engine.streams_of([joined(prefix, named.name) if prefix else named.name for named, _ in covered])


def _name_of(rules: Rules) -> str:
    return rules if isinstance(rules, str) else rules.name if isinstance(rules, RuleSet) else "custom"


def initialize_(
    model: Root, rules: Rules = "torch", seed: SupportsIndex | None = None, *, prefix: str = "", buffers: str = "keep"
) -> Root:
    """Fills every parameter of the model by rules, in one pass: ``plan(model, rules, seed, prefix=prefix).apply_(model)``.

    Without ``seed=`` two calls give different values, and ``torch.manual_seed`` repeats them; :func:`plan` has the details.

    Args:
        model, rules, seed, prefix: as for :func:`plan`; the model with memory.
        buffers: what becomes of buffers that the rules do not know. "keep" leaves them as they are: after ``to_empty()`` they
            hold whatever was in that memory. "recompute" writes what the model's own code computes: ``_init_weights`` of
            transformers, ``init_non_persistent_buffers`` of timm, ``reset_parameters``, ``reset_buffers`` or ``rope_init`` of
            the module.

    Raises:
        ValueError: as :func:`plan`; the model is on meta; buffers that cannot be recomputed. Nothing has been written then.

    >>> net = initialize_(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)), rules="kaiming", seed=0)
    >>> net[0].bias.tolist()
    [0.0, 0.0, 0.0, 0.0]
    >>> first = initialize_(nn.Linear(4, 4), rules="kaiming", seed=0, prefix="0")  # the first layer alone
    >>> bool((first.weight == net[0].weight).all())
    True
    """
    must_be(MODULE, "initialize_", model=model)
    recompute = must_recompute("initialize_", buffers)
    tensors, prefix = named_tensors(model), prefix_of("initialize_", prefix)
    covered = resolve(model, tensors, rules)
    streams = _streams(covered, prefix)
    if not recompute or any(named.tensor.is_meta for named in tensors):  # which is refused
        return _fill(model, tensors, covered, streams, seed, rules)
    made = Plan(entries_of(covered, streams), rules=_name_of(rules))
    listed = made.matched("initialize_", tensors)
    fill_and_recompute("initialize_", made, model, tensors, listed, _drawn(seed, tensors))
    return model


def _fill(
    model: Root,
    tensors: Sequence[Named],
    covered: list[Covered],
    streams: list[int],
    seed: SupportsIndex | None,
    rules: Rules,
) -> Root:
    has_memory = len(covered) == len(tensors) or not any(named.tensor.is_meta for named in tensors)
    if has_memory and (plain := plain_columns(covered)):  # then the plan would be gone through once, and forgotten
        key = seed_or_drawn("initialize_", seed, ())
        engine.fill_whole(plain.tensors, plain.distributions, key, streams, plain.names)
        return model
    made = Plan(entries_of(covered, streams), rules=_name_of(rules))
    made.fill_(made.matched("initialize_", tensors), seed=_drawn(seed, tensors))
    return model


def _drawn(seed: SupportsIndex | None, tensors: Sequence[Named]) -> int:
    return seed_or_drawn("initialize_", seed, (named.tensor for named in tensors))
