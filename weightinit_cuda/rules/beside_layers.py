"""Parameters beside layers, of modules that are nobody's layer: tokens, positions, and what the module's config says.

What a bare parameter is for, its shape alone does not tell: ``(1, 1, d)`` is a class token in one model and the mix of two
steps in another. So its name must say it, too, and what stands beside it must be as wide. All else is left to the user.
"""

from __future__ import annotations

import re

from torch import nn

from ..init.catalog import distribution_of
from ..numerics.distributions import Constant
from ..tensors.named import Named
from .rule import Fill

__all__ = ["config_value", "in_torch", "token"]

STD = 0.02  # transformers' and timm's, for nearly all of them
_LEARNED = {
    *("token", "tokens", "cls", "register", "registers"),
    *("pos", "position", "positions", "positional"),
    *("embed", "embeds", "embedding", "embeddings", "emb"),
    *("query", "queries", "latent", "latents", "prompt", "prompts"),
}
_OTHERWISE = {"scale", "bias", "table", "proj", "projection", "weight", "gate", "gamma", "beta", "mix", "log", "freq", "freqs"}
_OF_ONE = {"token", "cls", "class"}  # a vector alone must say more
_CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def in_torch(module: nn.Module | None) -> bool:
    """The module is a layer of torch.nn, or its subclass."""
    bases = type(module).__mro__
    return any(base not in _CONTAINERS and base.__module__.startswith("torch.nn.") for base in bases)


def token(named: Named) -> list[Fill] | None:
    """N(0, 0.02²) for tokens and positions: by name and shape, beside layers as wide; None for all else.

    >>> model = nn.ModuleDict({"fc": nn.Linear(4, 4)})
    >>> model.cls_token = nn.Parameter(nn.Linear(4, 1).weight.data[None])
    >>> token(Named("cls_token", model.cls_token, module=model, attribute="cls_token"))
    [(Normal(mean=0.0, std=0.02), None, 'token or position by name and shape, beside layers of width 4: normal_(std=0.02)')]
    """
    module, shape = named.module, tuple(named.tensor.shape)
    if module is None or named.buffer or in_torch(module) or not _called_so(named.attribute, len(shape)):
        return None
    if (len(shape) > 2 and shape[0] != 1) or not 1 <= len(shape) <= 4 or not _beside(named, module, shape[-1]):
        return None
    made = distribution_of("normal_", named.tensor.dtype, (), {"std": STD})
    return [(made, None, f"token or position by name and shape, beside layers of width {shape[-1]}: normal_(std={STD:g})")]


def _called_so(attribute: str, dims: int) -> bool:
    words = set(re.split(r"[\W\d_]+", attribute.lower()))
    return bool(words & _LEARNED) and not words & _OTHERWISE and (dims > 1 or bool(words & _OF_ONE))


def _beside(named: Named, module: nn.Module, width: int) -> bool:
    """Whether a layer of the module inside which the parameter is has inputs or outputs of this width."""
    return any(
        width in parameter.shape
        for child in module.children()
        for parameter in child.parameters()
        if parameter.dim() > 1 and parameter is not named.tensor
    )


def config_value(named: Named) -> list[Fill] | None:
    """A scalar whose initial value the module's ``config`` gives, as ``<name>_init_value`` (CLIP's logit_scale)."""
    key = f"{named.attribute}_init_value"
    value = getattr(getattr(named.module, "config", None), key, None)
    if named.buffer or named.tensor.numel() != 1 or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return [(Constant(float(value)), None, f"config.{key} = {value:g}")]
