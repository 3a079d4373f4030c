r"""The rule set ``mup``: widths found on a small model keep their meaning on a wide one.

Maximal update parametrisation, for initial values: what a set of rules gives the small model (the base) is scaled by how each
parameter grew. Which of its axes grew says what it is; the base's shapes are all that is compared.

| parameter | what grew | standard deviation | learning rate of Adam |
|---|---|---|---|
| input: embeddings, biases, norms | fan_out, or the one axis | the base's | the base's |
| hidden | fan_in by r, and fan_out | the base's / sqrt(r) | the base's / r |
| output | fan_in by r | the base's / r | the base's / r |

Source: Yang et al., Tensor Programs V (2022), arXiv:2203.03466, table 3. Learning rates are your optimiser's business: the
sources of the plan's entries say them, ``mup_groups`` makes groups of them, ``wi.coordinate_check`` shows whether they are
right. So is the scale of attention, 1/d instead of 1/sqrt(d).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..numerics.distributions import Distribution, Orthogonal
from ..tensors.named import Named, named_tensors
from ..tensors.partitioned import parameter_of
from .layouts import layout_of, lookup
from .matching import Matching
from .resolve import flattened
from .rule import Fill, Rule, Rules, RuleSet, buffer

__all__ = ["mup", "mup_groups"]


class _Growth(NamedTuple):
    factor: float  # of the standard deviation
    what: str
    rate: float = 1.0  # factor of Adam's learning rate


def mup(base: nn.Module, rules: Rules = "torch") -> RuleSet:
    """What ``rules`` gives ``base``, scaled to the width of the model by the table above.

    Constants stay what ``rules`` gives the model: they have no width to scale. The standard deviation of an orthogonal matrix
    is gain / sqrt(its longer side), so its gain is scaled by what the table leaves of that: by 1 where it is hidden.

    Args:
        base: the same model, narrower; on meta is enough.
        rules: the scheme that was tuned on the base.

    Returns:
        A rule set. A parameter that the base lacks, or whose number of dimensions differs, is an error when it is used; one
        with two grown axes that nobody can tell apart (stacked experts) wants a Rule of its own before this set.

    >>> import weightinit_cuda as wi
    >>> for entry in wi.plan(nn.Linear(256, 256), rules=mup(base=nn.Linear(64, 64), rules="xavier")):
    ...     print(entry.name, list(entry.distribution.numbers().values())[-1], entry.source)
    weight 0.10825317547305482 mup: hidden, std x 0.5, Adam's lr x 0.25 (base: xavier: xavier_uniform_, fan_in 64, fan_out 64)
    bias 0.0 mup: input (base: xavier: Rule(bias, zeros_))
    """
    before = {name: named for named in named_tensors(base) for name in (named.name, *named.aliases)}

    def of(model: nn.Module) -> Rules:
        first, first_of_base = (Matching(flattened(each, rules)).first for each in (model, base))

        def scaled(named: Named) -> list[Fill]:
            wide = first(named)
            if not wide:
                return []
            if named.name not in before:
                raise ValueError("the base model must have every parameter, got none of that name")
            narrow = first_of_base(before[named.name])
            growth = _growth(named, before[named.name])
            return [
                (_scaled(mine, theirs, growth.factor, named, before[named.name]), box, f"{growth.what} (base: {source})")
                for (mine, box, _), (theirs, _, source) in zip(wide, narrow, strict=True)
            ]

        return [Rule("*", scaled), Rule((buffer, "*"), scaled)]

    return RuleSet("mup", of)


def _growth(named: Named, base: Named) -> _Growth:
    wide, narrow = tuple(named.tensor.shape), tuple(base.tensor.shape)
    if len(wide) != len(narrow):
        raise ValueError(f"mup: the base must have as many dimensions, got shape {narrow}")
    grown = sum(a != b for a, b in zip(wide, narrow, strict=True))
    if grown == 0:
        return _Growth(1.0, "as wide as the base")
    layout = layout_of(named)
    if (grown == 1 and layout is None) or lookup(named):
        return _Growth(1.0, "input")
    if layout is None:
        raise ValueError(f"mup: inputs and outputs must be known where two axes grow, got {narrow} in the base")
    (fan_in, fan_out), (base_in, base_out) = layout.fans(wide), layout.fans(narrow)
    ratio = fan_in / base_in
    if ratio == 1:
        return _Growth(1.0, "input")
    hidden = fan_out != base_out
    factor = ratio**-0.5 if hidden else 1 / ratio
    what = f"{'hidden' if hidden else 'output'}, std x {factor:.6g}, Adam's lr x {1 / ratio:.6g}"
    return _Growth(factor, what, 1 / ratio)


def mup_groups(model: nn.Module, base: nn.Module, lr: float, **options: Any) -> list[dict[str, Any]]:
    """Parameter groups for Adam and its kin, with the learning rates of the table above.

    Args:
        model: what is trained; its parameters may be DTensors, of which the global shapes count.
        base: the same model, narrower, for which ``lr`` was tuned; on meta is enough.
        lr: of the base.
        options: of every group, such as ``betas``. AdamW multiplies ``weight_decay`` by the learning rate: divide it likewise.

    Returns:
        A group for each learning rate, those that require a gradient; ``torch.optim.AdamW(mup_groups(model, base, 1e-3))``.

    Raises:
        ValueError: the base lacks a parameter, or it has other axes.

    >>> for group in mup_groups(nn.Linear(256, 256), nn.Linear(64, 64), lr=0.1):
    ...     print(group["lr"], [tuple(parameter.shape) for parameter in group["params"]])
    0.025 [(256, 256)]
    0.1 [(256,)]
    """
    before = {name: named for named in named_tensors(base, buffers=False) for name in (named.name, *named.aliases)}
    groups: dict[float, list[Tensor]] = {}
    for named in named_tensors(model, buffers=False):
        if named.name not in before:
            raise ValueError(f"mup_groups: the base model must have every parameter, got none of that name ({named.name}).")
        parameter = parameter_of(named.tensor)
        if parameter.requires_grad:
            groups.setdefault(lr * _growth(named, before[named.name]).rate, []).append(parameter)
    return [{"params": parameters, "lr": rate, **options} for rate, parameters in groups.items()]


def _scaled(mine: Distribution, theirs: Distribution, factor: float, named: Named, base: Named) -> Distribution:
    """The base's distribution times the factor."""
    if isinstance(mine, Orthogonal) and isinstance(theirs, Orthogonal):
        side = math.sqrt(_longer_side(named.tensor) / _longer_side(base.tensor))
        return Orthogonal(theirs.gain * round(factor * side, 12))  # 1 exactly where it is hidden
    return mine.as_wide_as(theirs, factor)


def _longer_side(tensor: Tensor) -> int:
    """Of the matrix that ``orthogonal_`` reads: the first dimension by all others."""
    rows = tensor.shape[0]
    return max(rows, tensor.numel() // rows)
