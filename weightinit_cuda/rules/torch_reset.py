"""The rule set ``torch``: what each module of torch.nn gives its own parameters and buffers when it is made.

One table, checked against torch by tests: every class of torch.nn with parameters is constructed and watched. Subclasses count
as their base as long as they keep its ``reset_parameters``; one with its own is left to rules of yours, or to ``deferred``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from ..init.catalog import distribution_of
from ..numerics.distributions import Constant, Distribution
from ..tensors.boxes import Box
from ..tensors.named import Named, modules_of
from ..tensors.partitioned import shown_whole
from .beside_layers import config_value, in_torch, token
from .keys import decided_by, shape_key
from .layouts import TABLES, bias, layout_of
from .norms import norm_by_structure
from .parametrised import is_part, weight_behind
from .rule import Fill, Given, Rule, RuleSet, buffer

__all__ = ["OF_NO_LAYER", "TORCH", "padded", "torch_reset"]

Give = Callable[[Named, Any], Given]

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def _call(function: str, **params: Any) -> Give:
    @lru_cache(maxsize=1024)
    def made(dtype: torch.dtype, shape: torch.Size) -> Distribution:
        return distribution_of(function, dtype, tuple(shape), params)

    def give(named: Named, module: Any) -> Distribution:
        return made(named.tensor.dtype, named.tensor.shape)

    return give


@lru_cache(maxsize=1024)
def _within(dtype: torch.dtype, bound: float) -> Distribution:
    return distribution_of("uniform_", dtype, (), {"a": -bound, "b": bound})


@lru_cache(maxsize=1024)
def _within_fan_in(dtype: torch.dtype, weight: torch.Size) -> Distribution:
    fan_in = math.prod(weight[1:])
    return _within(dtype, 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0)


def _by_fan_in(named: Named, module: Any) -> Given:
    """U(+-1 / sqrt(fan_in)) of the weight beside it, or behind it; without one it is nobody's."""
    weight = weight_behind(module)
    return None if weight is None else _within_fan_in(named.tensor.dtype, shown_whole(weight).shape)


def _by_inputs(named: Named, module: Any) -> Given:
    weight = weight_behind(module)
    return None if weight is None else _within(named.tensor.dtype, 1 / math.sqrt(shown_whole(weight).shape[1]))


def _by_hidden_size(named: Named, module: Any) -> Given:
    return _within(named.tensor.dtype, 1 / math.sqrt(module.hidden_size) if module.hidden_size > 0 else 0.0)


def padded(named: Named, distribution: Distribution) -> list[Fill]:
    """The distribution, and zeros in the row of an embedding's ``padding_idx``."""
    row, shape = getattr(named.module, "padding_idx", None), tuple(named.tensor.shape)
    fills: list[Fill] = [(distribution, None, "")]
    if row is not None and len(shape) == 2:
        fills.append((Constant(0.0), Box((row % shape[0], 0), (1, shape[1])), f"padding_idx={row}"))
    return fills


def _rows(named: Named, module: Any) -> Given:
    return padded(named, distribution_of("normal_", named.tensor.dtype, (), {}))


def _own_value(named: Named, module: Any) -> Given:
    return Constant(float(module.init))


_KAIMING = _call("kaiming_uniform_", a=math.sqrt(5))
_ZEROS, _ONES = _call("zeros_"), _call("ones_")

# Types of modules, globs of their own names, what they get. The first row that fits.
_TABLE: list[tuple[type[nn.Module] | tuple[type[nn.Module], ...], str, Give]] = [
    ((nn.Linear, _ConvNd), "weight", _KAIMING),
    ((nn.Linear, _ConvNd), "bias", _by_fan_in),
    (nn.Bilinear, "weight", _by_inputs),
    (nn.Bilinear, "bias", _by_inputs),
    (TABLES, "weight", _rows),
    ((nn.RNNBase, nn.RNNCellBase), "*", _by_hidden_size),
    (nn.MultiheadAttention, "*proj_weight", _call("xavier_uniform_")),
    (nn.MultiheadAttention, "in_proj_bias", _ZEROS),
    (nn.MultiheadAttention, "bias_[kv]", _call("xavier_normal_")),
    (NORMS, "weight", _ONES),
    (NORMS, "bias", _ZEROS),
    (_NormBase, "running_mean", _ZEROS),
    (_NormBase, "running_var", _ONES),
    (_NormBase, "num_batches_tracked", _ZEROS),
    (nn.PReLU, "weight", _own_value),
]
_RESETS = ("reset_parameters", "_reset_parameters")


@lru_cache(maxsize=4096)
def _resets(kind: type[nn.Module]) -> Callable[[type[nn.Module]], Any]:
    """Gets the functions by which modules of this type reset themselves, as they are now: classes may be patched."""
    names = [name for name in _RESETS if hasattr(kind, name)]
    return attrgetter(*names) if names else lambda _: ()


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_BY_SHAPES = frozenset((nn.Linear, *_CONVOLUTIONS, *_BATCH_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm))


@decided_by(shape_key(_BY_SHAPES))  # the commonest layers look at no more than that
def torch_reset(named: Named) -> list[Fill] | None:
    """What the module that holds the tensor gives it; None where it is no module of torch.nn, or has its own reset."""
    _, _, _, module, attribute, _ = named
    if module is None or is_part(named):
        return None
    kind: Any = type(module)  # mypy takes no type for hashable
    row = _row(kind, attribute, _resets(kind)(kind))
    if row is None:
        return None
    label, give = row
    given = give(named, module)
    if given is None:
        return None
    if isinstance(given, list):
        return [(made, box, f"{label}, {note}" if note else label) for made, box, note in given]
    return [(given, None, label)]


@lru_cache(maxsize=4096)
def _row(kind: type[nn.Module], attribute: str, resets: Any) -> tuple[str, Give] | None:
    """What people call a module of this type, and what its tensor of this name gets; None if the table does not say, or if a
    reset that runs is not torch's own but one of a subclass."""
    functions = resets if isinstance(resets, tuple) else (resets,)
    if not all(getattr(reset, "__module__", "torch.nn.").startswith("torch.nn.") for reset in functions):
        return None
    for types, glob, give in _TABLE:
        if issubclass(kind, types) and fnmatchcase(attribute, glob):
            return _label(kind), give
    return None


def _label(kind: type[nn.Module]) -> str:
    """The type; of a subclass also the type of torch.nn whose reset it is."""
    base = next(base for base in kind.__mro__ if base.__module__.startswith("torch.nn."))
    return kind.__name__ if base is kind else f"{kind.__name__} as {base.__name__}"


def _torch(model: nn.Module) -> list[Rule]:
    """What modules do to their children comes first: it is done last."""
    modules = modules_of(model)
    has_children = any(issubclass(kind, nn.Transformer | nn.MultiheadAttention) for kind in set(map(type, modules)))
    return [*_of_children(modules), *_OF_EACH] if has_children else [*_OF_EACH]


def _of_children(modules: list[nn.Module]) -> Iterator[Rule]:
    whole, zeroed = set(), set()
    for module in modules:
        if isinstance(module, nn.Transformer):
            whole |= {id(parameter) for parameter in module.parameters() if parameter.dim() > 1}
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_bias is not None:
            zeroed.add(id(module.out_proj.bias))

    def in_transformer(named: Named) -> bool:
        return id(named.tensor) in whole

    def attention_out_bias(named: Named) -> bool:
        return id(named.tensor) in zeroed

    if whole:
        yield Rule(in_transformer, "xavier_uniform_")
    if zeroed:
        yield Rule(attention_out_bias, "zeros_")


def _somebodys(named: Named) -> bool:
    """A weight or bias of a module that torch.nn does not have, and that has no reset of its own."""
    kind = type(named.module)
    if in_torch(named.module) or any(hasattr(kind, name) for name in _RESETS):
        return False
    return bias(named) if named.tensor.dim() == 1 else layout_of(named) is not None


def _as_linear(named: Named) -> Given:
    """What ``Linear`` would give each of its matrices, and the bias beside one; 0 for a bias that is beside none."""
    beside = weight_behind(named.module) if named.module is not None and bias(named) else named.tensor
    matrix = beside is not None and layout_of(
        named if beside is named.tensor else named._replace(tensor=beside, attribute="weight")
    )
    if beside is None or not matrix:
        return [(Constant(0.0), None, f"bias beside no weight of {type(named.module).__name__}")] if bias(named) else None
    fan_in, _ = matrix.fans(tuple(beside.shape))
    label = f"{type(named.module).__name__} as Linear, fan_in {fan_in}"
    return [(_within(named.tensor.dtype, 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0), None, label)]


OF_NO_LAYER = (Rule("*", norm_by_structure), Rule("*", token), Rule("*", config_value))
"""For what belongs to no layer of torch.nn; the last rules of a set."""

_OF_EACH = (Rule("*", torch_reset), Rule((buffer, "*"), torch_reset), *OF_NO_LAYER, Rule(_somebodys, _as_linear))


TORCH = RuleSet("torch", _torch)
"""Each module's own reset, and what ``Transformer`` and ``MultiheadAttention`` do to the modules inside them."""
