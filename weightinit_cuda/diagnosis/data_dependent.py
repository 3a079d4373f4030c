r"""``wi.data_dependent_``: weights scaled by what a batch makes of them, layer by layer, and recorded as a plan.

Beside the probe, which only looks: a function mode meets each product of a forward pass, and corrects its weights before the
result goes on. What comes out is a plan with scaled distributions, so ``verify`` and ``regenerate`` work on it as on any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..numerics.distributions import Constant, Distribution
from ..plans.by_rules import plan
from ..plans.entry import Entry
from ..plans.plan import Plan
from ..rules import Rules
from ..tensors.boxes import Box
from ..tensors.kinds import FLAG, MODULE, must_be
from ..tensors.named import named_tensors
from .passing import as_before, unwrapped
from .products import Product, Weights

__all__ = ["data_dependent_"]

LEAST = 1e-6  # of an output's root mean square: a spread below it is rounding, and dividing by it would be, too


def data_dependent_(
    model: nn.Module,
    *inputs: Any,
    rules: Rules = "lecun",
    seed: SupportsIndex | None = None,
    per_unit: bool = True,
    **kwargs: Any,
) -> Plan:
    r"""Fills the model by rules, then scales each layer by its outputs on a batch, in the order in which they are computed.

    .. math:: w_j \leftarrow w_j / s_j, \quad b_j \leftarrow -m_j / s_j \qquad \text{with the mean } m_j \text{ and the standard
              deviation } s_j \text{ of unit } j \text{'s output without bias}

    Every unit then has mean 0 and standard deviation 1 over the batch. With ``per_unit=False`` it is LSUV: one factor for
    a layer, biases as the rules have them. That is enough for ReLU and tanh. Behind sigmoids, whose outputs are all near 1/2,
    the signal still shrinks 38-fold over five layers, and ten do not train: `docs/probe.md`.

    Args:
        model: any module; what is scaled are the weights of linear layers and convolutions that are parameters.
        inputs, kwargs: of ``model``: a batch of data, 64 samples or more.
        rules: where the weights come from. Of layers with other distributions than normal, uniform, truncated normal (or, with
            ``per_unit=False``, orthogonal) the values stay; so do those of embeddings, recurrent layers and attention's.
        seed: 64 bits; drawn from torch's default generator if not given. The same seed, rules and batch give the same plan.
        per_unit: each unit by itself, and centred.

    Returns:
        The plan, which the model has been filled with: ``plan.apply_`` gives the same bits without the data.

    Raises:
        ValueError: as :func:`plan`, and if a spread is not finite.

    Source: Mishkin and Matas (2016), "All you need is a good init", arXiv:1511.06422.

    >>> import weightinit_cuda as wi
    >>> net = nn.Sequential(nn.Linear(16, 32), nn.Sigmoid(), nn.Linear(32, 8))
    >>> x = wi.init.uniform_(torch.empty(64, 16), seed=1)
    >>> made = wi.data_dependent_(net, x)
    >>> y = net(x)
    >>> bool(y.mean(0).abs().max() < 1e-5), bool((y.std(0) - 1).abs().max() < 1e-5)
    (True, True)
    >>> wi.verify(made, net).ok
    True
    """
    must_be(MODULE, "data_dependent_", model=model)
    must_be(FLAG, "data_dependent_", per_unit=per_unit)
    model = unwrapped(model)
    made = plan(model, rules, seed)
    made.apply_(model)
    scaling = _Scaling(model, made, per_unit)
    with as_before(model, made.seed), torch.no_grad(), scaling:
        model(*inputs, **kwargs)
    return scaling.plan()


class _Scaling(TorchFunctionMode):
    """Corrects the weights of each product, once, before its result is used."""

    def __init__(self, model: nn.Module, made: Plan, per_unit: bool) -> None:
        super().__init__()
        self._weights, self._made, self._per_unit = Weights(model), made, per_unit
        self._tensors = {named.name: named.tensor for named in named_tensors(model)}
        self._entries: dict[str, list[Entry]] = {}  # of what was corrected

    def plan(self) -> Plan:
        """The plan that gives the values which the model now has."""
        entries = [entry for name in self._made.names() for entry in self._entries.get(name, self._made[name])]
        return replace(self._made, entries=tuple(entries), rules=f"{self._made.rules}, by data")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if "dropout" in name:
            return args[0] if args else kwargs["input"]
        out = func(*args, **kwargs)
        product = self._weights.product(name, args, kwargs)
        if product is not None and product.kind == "weight" and self._correct(product, _bias(name, args, kwargs), out):
            out = func(*args, **kwargs)
        return out

    def _correct(self, product: Product, bias: Tensor | None, out: Tensor) -> bool:
        """Fills the weight, and the bias, anew; False where they stay as they are."""
        name = None if product.weight is None else self._weights.names.get(product.weight)
        if name is None or name in self._entries or self._tensors.get(name) is not product.weight or product.units is None:
            return False
        [entry, *others] = self._made[name]
        if others or entry.box is not None or not _scalable(entry.distribution, self._per_unit):
            return False
        units = out.movedim(1, -1) if product.image else out
        units = units.detach().flatten(0, -2).double()
        if not self._per_unit:
            self._write(name, [_scaled(entry, _common_factor(units, bias, name), None)])
            return True
        means, factors = units.mean(0), _factors(units, name)
        axis = product.units % len(entry.shape)
        self._write(name, [_scaled(entry, factor, _slice(entry.shape, axis, j)) for j, factor in enumerate(factors)])
        shift = None if bias is None else self._weights.names.get(bias)
        if bias is not None and shift in self._tensors and shift is not None and len(self._made[shift]) == 1:
            [centred] = self._made[shift]
            centre = (means - bias.detach().double()).tolist()
            values = [-mean * factor for mean, factor in zip(centre, factors, strict=True)]
            self._write(shift, [_constant(centred, value, j) for j, value in enumerate(values)])
        return True

    def _write(self, name: str, entries: list[Entry]) -> None:
        self._entries[name] = entries
        replace(self._made, entries=tuple(entries)).fill_({name: self._tensors[name]})


def _factors(units: Tensor, name: str) -> list[float]:
    """1 / standard deviation of each column; 1 where a column does not vary."""
    spread = units.std(0) if len(units) > 1 else units.new_full(units.shape[1:], math.nan)
    if not bool(spread.isfinite().all()):
        raise ValueError(
            f"data_dependent_: finite outputs of two samples or more are required, got others ({name}). Give a batch."
        )
    varies = spread > LEAST * units.square().mean(0).sqrt()
    return torch.where(varies, 1 / spread, 1.0).tolist()


def _common_factor(units: Tensor, bias: Tensor | None, name: str) -> float:
    """The factor t of the weights after which all outputs together have variance 1; the bias, which differs by unit, stays.

    With z the outputs without it: t^2 var(z) + 2 t cov(z, b) + var(b) = 1. Where the bias alone has more, var(z) becomes 1.
    """
    [factor] = _factors(units.flatten()[:, None], name)
    if bias is None or not bool(bias.any()):
        return factor
    shift = bias.detach().double().expand_as(units).flatten()
    square, mixed, rest = torch.cov(torch.stack([units.flatten() - shift, shift])).flatten()[[0, 1, 3]].tolist()
    inside = mixed * mixed + square * (1 - rest)
    return (math.sqrt(inside) - mixed) / square if rest < 1 and square > 0 else factor


def _scalable(distribution: Distribution, per_unit: bool) -> bool:
    """Whether a multiple of it is a distribution again: of an orthogonal matrix as a whole only."""
    if not distribution.is_random or distribution.scaled(1.0) is None:
        return False
    return distribution.elementwise or (distribution.linear_algebra and not per_unit)


def _scaled(entry: Entry, factor: float, box: Box | None) -> Entry:
    scaled = entry.distribution.scaled(factor)
    assert scaled is not None  # it is scalable
    return entry._replace(distribution=scaled, box=box, source=f"{entry.source}; scaled by data")


def _constant(entry: Entry, value: float, unit: int) -> Entry:
    return entry._replace(distribution=Constant(value), box=Box((unit,), (1,)), source=f"{entry.source}; centred by data")


def _slice(shape: tuple[int, ...], axis: int, unit: int) -> Box:
    """The box of one unit's weights."""
    offset, size = [0] * len(shape), list(shape)
    offset[axis], size[axis] = unit, 1
    return Box(tuple(offset), tuple(size))


def _bias(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What a product adds to each unit."""
    if name == "addmm":
        found = kwargs.get("input", args[0] if args else None)
    else:
        found = kwargs.get("bias", args[2] if len(args) > 2 else None)
    return found if isinstance(found, Tensor) and found.dim() == 1 else None
