"""From rules and a model to fills: the first rule that speaks of a tensor decides, and what no rule covers is named."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence

from torch import nn
from torch.nn.parameter import is_lazy

from ..tensors.named import PLAIN_TYPES, Named
from .advice import lines_to_add
from .matching import Matching, covers_all, fills_or_raise, require_sound
from .parametrised import Parts, parts_of
from .rule import RULE_SETS, Fill, Rule, Rules, RuleSet, glob

__all__ = ["first_match", "flattened", "require_sound", "resolve"]
_CUSTOM = "custom"  # the origin of rules that were given, not named


def resolve(model: nn.Module, tensors: Iterable[Named], rules: Rules) -> list[tuple[Named, list[Fill]]]:
    """What each tensor is filled with; buffers that no rule knows are left out, and what has no elements and fits no rule.

    Warns:
        UserWarning: a glob in ``rules`` itself matches no name of the model. Named sets serve many models, and may.

    Raises:
        ValueError: parameters that no rule covers, that a rule cannot fill, or that are lazy, without a shape yet; all of
            them are named. Or there is no rule set of that name.
        TypeError: the rules are something else.
    """
    tensors = list(tensors)
    strange = {type(named.tensor) for named in tensors} - PLAIN_TYPES
    if lazy := [named.name for named in tensors if strange and is_lazy(named.tensor)]:
        raise ValueError(
            f"plan: every tensor must have a shape, got lazy ones that have none yet ({', '.join(lazy)})."
            " Run the model once, on meta if you like."
        )
    flat = list(flattened(model, rules))
    _warn_of_idle_globs([rule for origin, rule in flat if origin == _CUSTOM], tensors)
    matching = Matching(flat)
    firsts = matching.firsts(tensors)
    if covers_all(firsts):
        return list(zip(tensors, firsts, strict=True))
    found, problems = [], []
    bare: list[Named] = []
    parts: Parts | None = None
    for named, matched in zip(tensors, firsts, strict=True):
        try:
            fills = fills_or_raise(matched)
            if not fills and not named.buffer:
                parts = parts_of(model, tensors) if parts is None else parts
                if layer := parts.layers.get(id(named.tensor)):
                    fills = [(made, box, f"{source}, as {layer.name}") for made, box, source in matching.first(layer)]
        except ValueError as error:
            if named.tensor.numel():  # else there is nothing to be filled
                problems.append(f"{_about(named)}: {error}")
            continue
        if fills:
            found.append((named, fills))
        elif not named.buffer and named.tensor.numel():
            why = parts.reasons.get(id(named.tensor)) if parts else None
            problems.append(f"{_about(named)}: no rule covers it{f'; {why}' if why else ''}.")
            bare.append(named)
    if problems:
        title = f"plan: a rule that fits is required for every parameter, got {len(problems)} without."
        ways = _ways(model, flat, bare, len(problems)), *problems, *_lines(bare, tensors)
        raise ValueError("\n  ".join([f"{title} {ways[0]}", *ways[1:]]))
    return found


def _ways(model: nn.Module, flat: list[tuple[str, Rule]], bare: list[Named], problems: int) -> str:
    """What can be done; another set is advised only where it helps."""
    may_help = not any(origin == "torch" for origin, _ in flat) and len(bare) == problems
    if may_help and all(map(Matching(flattened(model, "torch")).first, bare)):
        return "Add a Rule for them, or end the list with a set that covers them, such as 'torch'."
    return "Add a Rule for them, or use deferred(), which gives them what the model's own code does."


def _lines(bare: list[Named], tensors: Sequence[Named]) -> list[str]:
    """For those that no rule covers, as they can be copied."""
    lines = lines_to_add(bare, (name for named in tensors for name in (named.name, *named.aliases)))
    return ["Lines to add before the others, with values of your choice:", *(f"  {line}" for line in lines)] if lines else []


def _about(named: Named) -> str:
    holder = "" if named.module is None else f" of {type(named.module).__name__}"
    return f"{named.name} {tuple(named.tensor.shape)}{holder}"


def flattened(
    model: nn.Module, rules: Rules, origin: str = _CUSTOM, inside: tuple[str, ...] = ()
) -> Iterator[tuple[str, Rule]]:
    """The rules one by one, each with the name of the set it comes from."""
    if isinstance(rules, str):
        if rules not in RULE_SETS:
            raise ValueError(f"plan: rules must be one of {sorted(RULE_SETS)} or a list of Rule, got {rules!r}.")
        if rules in inside:
            raise ValueError(f"plan: a rule set must not contain itself, got {' -> '.join((*inside, rules))}.")
        yield from flattened(model, RULE_SETS[rules], rules, (*inside, rules))
    elif isinstance(rules, Rule):
        yield origin, rules
    elif isinstance(rules, RuleSet):
        yield from flattened(model, rules.rules(model), rules.name, inside)
    elif callable(rules):
        yield origin, Rule("*", rules)
    elif isinstance(rules, Iterable):
        for each in rules:
            if isinstance(each, Rule):
                yield origin, each
            else:
                yield from flattened(model, each, origin, inside)
    else:
        raise TypeError(f"plan: rules must be names of sets, Rules or functions, got {rules!r} ({type(rules).__name__}).")


def _warn_of_idle_globs(rules: Sequence[Rule], tensors: Sequence[Named]) -> None:
    globs = [(rule, pattern) for rule in rules for pattern in rule.globs()]
    names = [name for named in tensors for name in (named.name, *named.aliases)] if globs else []
    for rule, pattern in globs:
        if not any(map(glob(pattern), names)):
            warnings.warn(f"plan: {rule} matches nothing: no name of the model is like {pattern!r}.", stacklevel=4)


def first_match(rules: Iterable[tuple[str, Rule]], named: Named) -> list[Fill]:
    """The fills of the first rule that has any, with their sources in full.

    Args:
        rules: each with the name of the set it comes from.
        named: the tensor.
    """
    return Matching(rules).first(named)
