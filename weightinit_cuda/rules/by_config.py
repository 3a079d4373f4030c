"""The rule set ``transformers``: what ``PreTrainedModel._init_weights`` gives, with the standard deviation that configs say."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from ..init.catalog import distribution_of
from ..numerics.distributions import Constant
from ..tensors.named import Named, named_tensors
from .beside_layers import token
from .by_fans import AS_TORCH, drawn
from .layouts import bias, lookup, matrix
from .norms import is_outside_torch, norm_by_structure
from .own_code import BASE, OwnCode, is_pretrained
from .rule import Fill, Rule, Rules, RuleSet
from .torch_reset import torch_reset

__all__ = ["by_config"]

STD = 0.02  # transformers', where a config says none
_NORMAL = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def by_config(std: float | None = None) -> RuleSet:
    """What transformers gives a model (the set ``transformers``).

    In models of transformers, whatever the ``_init_weights`` of their classes fills their parameters with: it runs on a copy
    without memory and is watched (``own_code``). What it leaves alone is as torch's constructors make it, or as the model's
    does, which then runs on meta.

    Elsewhere, and where that is not known, as in ``PreTrainedModel``'s own: linear layers and convolutions, ``Conv1D``, stacked
    experts, routers, embeddings, tokens and positions get N(0, std²), where std is the ``initializer_range`` of the config of
    the model, or part, in which they are. Biases and padding rows are 0; LSTMs get ``xavier_uniform_``; norms and all else as
    in torch.

    Args:
        std: of all parts, by the second way alone; default what configs say (``initializer_range``, ``init_std``,
            ``initializer_factor``), else 0.02.

    Warns:
        UserWarning: parameters that ``_init_weights`` computes from draws, or into too many numbers, or that only constructors
            outside of torch and transformers write. All are named; ``deferred`` records both. With ``std``: a class with an
            ``_init_weights`` of its own.

    Source: transformers, version 5: ``PreTrainedModel.initialize_weights`` and ``_init_weights``.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False))
    >>> net.config = type("Config", (), {"initializer_range": 0.1})()
    >>> net[0].weight is not None and by_config().rules(net)[2].fills(Named("0.weight", net[0].weight, (), net[0], "weight"))
    [(Normal(mean=0.0, std=0.1), None, 'Linear, std 0.1 of the config')]
    """

    def rules(model: nn.Module) -> Rules:
        stds = {} if std is not None else dict(_stds(model, (STD, "of no config")))

        def of(named: Named) -> tuple[float, str]:
            return (std, "as given") if std is not None else stds.get(id(named.module), (STD, "of no config"))

        by_structure = [Rule(bias, _zeros), Rule("*", _normal(of)), Rule(nn.LSTM, "xavier_uniform_"), *AS_TORCH]
        if std is not None:
            _warn_of_own_ways(model)
            return by_structure
        own = OwnCode(model)
        _warn_of_unknown(model, own)
        return [Rule("*", _given_by(own)), *by_structure]

    return RuleSet("transformers", rules)


def _given_by(own: OwnCode) -> Callable[[Named], list[Fill] | None]:
    def own_code(named: Named) -> list[Fill] | None:
        return own.fills(named) or (torch_reset(named) if own.leaves(named) else None)

    return own_code


def _warn_of_unknown(model: nn.Module, own: OwnCode) -> None:
    """Names the parameters of models of transformers that get values by structure alone."""
    unknown = []
    for named in named_tensors(model, buffers=False):
        if not named.tensor.numel():
            continue
        if why := own.trouble(named) or (
            "only its constructor writes it" if own.leaves(named) and not torch_reset(named) else ""
        ):
            unknown.append(f"{named.name}: {why}")
    if unknown:
        warnings.warn(
            "transformers: what _init_weights fills is followed, got parameters that it computes or leaves to a constructor."
            " They get values by structure; weightinit_cuda.deferred() records what the model does itself.\n  "
            + "\n  ".join(unknown),
            stacklevel=4,
        )


def _zeros(named: Named) -> list[Fill] | None:
    """Of the layers that get values here; in LSTMs; beside nothing. Others, MultiheadAttention's for example, are torch's."""
    if norm_by_structure(named) or isinstance(named.module, nn.GRU | nn.RNN | nn.RNNCellBase):
        return None
    return [(Constant(0.0), None, "bias")]


def _normal(of: Callable[[Named], tuple[float, str]]) -> Callable[[Named], list[Fill] | None]:
    def normal(named: Named) -> list[Fill] | None:
        std, why = of(named)
        label = f"{type(named.module).__name__}, std {std:g} {why}"
        if lookup(named):
            return [(made, box, f"{label}{', padding' if box else ''}") for made, box, _ in drawn("normal_", std=std)(named)]
        if (seen := token(named)) is None and not _gets_normal(named):
            return None
        made = distribution_of("normal_", named.tensor.dtype, (), {"std": std})
        return [(made, None, label if seen is None else f"{seen[0][2].partition(':')[0]}; std {std:g} {why}")]

    return normal


def _gets_normal(named: Named) -> bool:
    if not matrix(named):
        return False
    kind: Any = type(named.module)  # mypy takes no type for hashable
    return isinstance(named.module, _NORMAL) or is_outside_torch(kind)


def _stds(module: nn.Module, outside: tuple[float, str]) -> Iterator[tuple[int, tuple[float, str]]]:
    """For each module the standard deviation by the nearest config around it."""
    config = getattr(module, "config", None) if is_pretrained(module) or outside[1] == "of no config" else None
    inside = _of_config(config) or outside
    yield id(module), inside
    for child in module.children():
        yield from _stds(child, inside)


def _of_config(config: Any) -> tuple[float, str] | None:
    text = config.get_text_config() if hasattr(config, "get_text_config") else None
    for where, key in (
        (config, "initializer_range"),
        (config, "init_std"),
        (config, "initializer_factor"),
        (text, "initializer_range"),
    ):
        value = getattr(where, key, None)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (float(value) or STD), "of the config"
    return None


def _warn_of_own_ways(model: nn.Module) -> None:
    own: dict[str, None] = {}
    for module in model.modules():
        for base in type(module).__mro__ if is_pretrained(module) else ():
            if base.__name__ == BASE:
                break
            if "_init_weights" in vars(base):
                own[base.__name__] = None
    if own:
        warnings.warn(
            f"transformers: this set follows PreTrainedModel._init_weights, got a model with its own ({', '.join(own)}),"
            " which may do more or other things. weightinit_cuda.deferred() records what the model does itself.",
            stacklevel=5,
        )
