"""What to add to a list of rules that does not cover a model: lines that can be copied."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from ..tensors.named import Named
from .rule import glob

__all__ = ["lines_to_add"]

MOST = 8  # lines; the error names every tensor anyway


def lines_to_add(troubled: Sequence[Named], names: Iterable[str]) -> list[str]:
    """A Rule for each of these, with a common choice; one for names that differ in numbers only, where no other name fits.

    >>> from torch import nn
    >>> model = nn.Linear(2, 2)
    >>> tensors = [Named(f"layers.{n}.gamma", model.bias, attribute="gamma") for n in (0, 1)]
    >>> lines_to_add(tensors, ["layers.0.gamma", "layers.1.gamma", "head.weight"])
    ['wi.Rule("layers.*.gamma", "ones_"),']
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for named in troubled:
        groups.setdefault((re.sub(r"(?<![^.])\d+(?![^.])", "*", _escaped(named.name)), _choice(named)), []).append(named.name)
    others, lines = set(names), []
    for (pattern, choice), group in groups.items():
        alone = len(group) > 1 and not any(map(glob(pattern), others.difference(group)))
        lines += [f"wi.Rule({json.dumps(each)}, {choice})," for each in ([pattern] if alone else map(_escaped, group))]
    return lines if len(lines) <= MOST else [*lines[:MOST], f"... and {len(lines) - MOST} more"]


def _escaped(name: str) -> str:
    return re.sub(r"[*?[]", "?", name)


def _choice(named: Named) -> str:
    """What most models give such a tensor."""
    if named.tensor.dim() > 1 and not named.attribute.endswith("_g") and named.attribute != "original0":
        return '"zeros_"' if "bias" in named.attribute else '"normal_", std=0.02'
    return '"zeros_"' if re.search("bias|beta|shift", named.attribute) else '"ones_"'
