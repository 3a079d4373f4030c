"""Weights that torch.nn.utils computes from others: which of their parts is what the layer itself would hold.

A part counts as the layer's own weight, under the layer's own name, where torch makes it so: what ``register_parametrization``
keeps if nothing has a right inverse, spectral_norm's, and the direction of weight_norm. The norms that weight_norm takes apart
follow from the direction's values, which no distribution says; orthogonal's parts from a decomposition. These are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from ..tensors.named import Named

__all__ = ["Parts", "as_layers", "is_part", "parts_of", "weight_behind"]

_IDENTITIES = ("_SpectralNorm",)  # whose right inverse returns its argument
_OLD = {"_g": "_v", "_v": "_g"}  # torch.nn.utils.weight_norm


class Parts(NamedTuple):
    """The parts of parametrised weights, by the id of the tensor.

    Args:
        layers: those that are the layer's own weight, as the layer would hold them.
        reasons: of all others, why no distribution is theirs.
    """

    layers: dict[int, Named]
    reasons: dict[int, str]


def is_part(named: Named) -> bool:
    """The tensor is part of a weight that the old weight_norm took apart."""
    other = _OLD.get(named.attribute[-2:])
    if other is None or named.module is None:
        return False
    held, stem = named.module._parameters, named.attribute[:-2]
    return stem not in held and f"{stem}{other}" in held


def weight_behind(module: nn.Module) -> Tensor | None:
    """The weight of a layer, or the part of the same shape that it is computed from."""
    held: Any = module._parameters
    for name in ("weight", "weight_v", "weight_orig"):
        if (weight := held.get(name)) is not None:
            return weight  # type: ignore[no-any-return]
    lists = module._modules.get("parametrizations")
    made = getattr(lists, "weight", None)
    return _layers_own(made)[1] if isinstance(made, ParametrizationList) else None


def parts_of(model: nn.Module, tensors: Iterable[Named]) -> Parts:
    """What the parameters of a model's parametrised layers are.

    >>> from weightinit_cuda.tensors.named import named_tensors
    >>> net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2)))
    >>> [named.name for named in parts_of(net, named_tensors(net)).layers.values()]
    ['0.weight']
    """
    tensors, found = list(tensors), Parts({}, {})
    has_lists = any(type(named.module) is ParametrizationList for named in tensors)
    for prefix, module in model.named_modules() if has_lists else ():
        begin = f"{prefix}." if prefix else ""
        for name, made in getattr(module._modules.get("parametrizations"), "_modules", {}).items():
            if isinstance(made, ParametrizationList):
                _sort(found, made, Named(begin + name, torch.empty(0), (), module, name))
    for named in tensors:
        if is_part(named):
            _sort_old(found, named)
        elif named.attribute.endswith("_orig") and f"{named.attribute[:-5]}_u" in getattr(named.module, "_buffers", {}):
            found.layers[id(named.tensor)] = _as_layer(named, named.attribute[:-5])  # torch.nn.utils.spectral_norm
    return found


def as_layers(model: nn.Module, tensors: Iterable[Named]) -> list[Named]:
    """The tensors of a model, parts of parametrised weights as what the layers would hold."""
    tensors = list(tensors)
    layers = parts_of(model, tensors).layers
    return [layers.get(id(named.tensor), named) for named in tensors]


def _sort(found: Parts, made: ParametrizationList, layer: Named) -> None:
    why, own = _layers_own(made)
    for part in made.parameters(recurse=False):
        if part is own:
            found.layers[id(part)] = layer._replace(tensor=part)
        else:
            found.reasons[id(part)] = why


def _layers_own(made: ParametrizationList) -> tuple[str, Tensor | None]:
    """The part that is the layer's weight, and why the others, or all if there is none, are not."""
    kinds = [type(each).__name__ for each in made]
    held = made._parameters
    if kinds == ["_WeightNorm"]:
        return "the norms of weight_norm follow from the values of the direction", held.get("original1")
    if "original" in held and all(
        kind in _IDENTITIES or not hasattr(each, "right_inverse") for kind, each in zip(kinds, made, strict=True)
    ):
        return "", held["original"]
    return f"{', '.join(kinds)} computes it from the layer's weight", None


def _sort_old(found: Parts, named: Named) -> None:
    if named.attribute.endswith("_v"):
        found.layers[id(named.tensor)] = _as_layer(named, named.attribute[:-2])
    else:
        found.reasons[id(named.tensor)] = "the norms of weight_norm follow from the values of the direction"


def _as_layer(named: Named, attribute: str) -> Named:
    begin = named.name.removesuffix(named.attribute)
    return named._replace(name=begin + attribute, attribute=attribute, aliases=())
