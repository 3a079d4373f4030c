"""The rule sets that come with the library by name, and those of families of models: gpt2, llama, vit.

No set guesses: what a lone ``gamma`` or a layer scale should be the plan asks you, and you add a Rule. Each
family's set says whose code it follows. ``docs/plans.md`` has them in a table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator

from torch import nn

from ..init.catalog import distribution_of
from ..tensors.named import Named, named_tensors
from .automatic import auto
from .by_config import by_config
from .by_fans import AS_TORCH, drawn, scheme
from .layouts import bias, lookup, matrix, vector_weight
from .mup import mup
from .norms import norm_by_structure
from .parametrised import as_layers
from .residual import ends_without_a_name
from .rule import RULE_SETS, Fill, Rule, Rules, RuleSet
from .torch_reset import TORCH, torch_reset

__all__ = ["RULE_SETS", "auto", "by_config", "gpt2", "llama", "mup", "scheme", "vit"]


def _layers(model: nn.Module, *keys: str) -> int | None:
    """The number of layers that a config of the model gives."""
    for module in model.modules():
        config = getattr(module, "config", None) or getattr(module, "model_args", None)
        for key in keys:
            if isinstance(number := getattr(config, key, None), int):
                return number
    return None


def _matching(model: nn.Module, rules: list[Rule]) -> Iterator[str]:
    return (named.name for named in as_layers(model, named_tensors(model)) if any(rule.matches(named) for rule in rules))


def _is_one_of(names: Collection[str]) -> Callable[[Named], bool]:
    def ends_a_branch(named: Named) -> bool:
        return named.name in names

    return ends_a_branch


def gpt2(std: float = 0.02, layers: int | None = None) -> RuleSet:
    r"""GPT-2: weights and embeddings N(0, std²), the projections that end a residual branch narrower, biases 0, scales 1.

    .. math:: \sigma_{\text{c\_proj}} = \sigma / \sqrt{2 n}

    In blocks that have no two weights of that name, what is added to the block's input ends a branch (``residual``).

    Args:
        std: of all weights but those that end a branch.
        layers: n; default the config's ``n_layer``, else half the number of branches in the model.

    Warns:
        UserWarning: blocks in which nothing ends a branch, by name or by structure: nothing is narrower there.

    Source: Radford et al. (2019), 2.3; transformers' GPT2PreTrainedModel; nanoGPT's ``GPT.__init__``.

    >>> block = nn.ModuleDict({"c_fc": nn.Linear(2, 8), "c_proj": nn.Linear(8, 2)})
    >>> [rule for rule in gpt2(layers=8).rules(block) if "c_proj" in str(rule)]
    [Rule('*c_proj.weight', normal_, std=0.005)]
    """

    def rules(model: nn.Module) -> Rules:
        ends = [Rule("*c_proj.weight", "normal_")]
        number = layers or _layers(model, "n_layer", "num_hidden_layers")
        named = set(_matching(model, ends))
        unnamed = ends_without_a_name(model, named, "gpt2: no weight is called *c_proj.weight")
        branches = 2 * number if number else len(named) + len(unnamed) or 1

        def by_structure(named: Named) -> list[Fill]:
            made = distribution_of("normal_", named.tensor.dtype, (), {"std": std / math.sqrt(branches)})
            return [(made, None, f"residual, std {std:g} / sqrt({branches}); {unnamed[named.name].seen}")]

        return [
            Rule("*c_proj.weight", "normal_", std=std / math.sqrt(branches)),
            *([Rule(_is_one_of(unnamed), by_structure)] if unnamed else []),
            Rule(bias, "zeros_"),
            Rule("*", norm_by_structure),
            Rule(vector_weight, "ones_"),
            Rule(lookup, drawn("normal_", std=std)),
            Rule(matrix, "normal_", std=std),
            *AS_TORCH,
        ]

    return RuleSet("gpt2", rules)


_LLAMA_OUTPUT = ("output.weight", "*.output.weight", "lm_head.weight", "*.lm_head.weight")
_LLAMA_RESIDUAL = tuple(f"*.{name}.weight" for name in ("wo", "w2", "w3", "o_proj", "down_proj", "up_proj"))


def llama(std: float = 0.02, by_depth: bool = True) -> RuleSet:
    r"""Llama as torchtitan trains it: residual branches narrower with depth, the output by its width, embeddings N(0, 1).

    .. math:: \sigma_l = \sigma / \sqrt{2 (l + 1)} \text{ of wo, w2, w3 (o\_proj, down\_proj, up\_proj) in layer } l, \quad
              \sigma_{\text{output}} = d^{-1/2} \text{, cut at } \pm 3 \sigma

    Everything else with inputs and outputs is trunc_normal_(std), cut at +-2 as in torch: nowhere, at 0.02. Where the output
    is tied to the embedding it decides, as it does in torchtitan. Biases are 0, scales of norms 1. In blocks with other names,
    what is added to the block's input ends a branch (``residual``); else the output is the weight of the embedding's shape.

    Args:
        std: of the weights.
        by_depth: else all layers have the last layer's width.

    Warns:
        UserWarning: as :func:`gpt2`.

    Source: torchtitan's ``models/llama3``, ``depth_init``. Hugging Face's own initialisation of Llama is N(0, 0.02²): record
    it with ``deferred``.
    """

    def rules(model: nn.Module) -> Rules:
        residual = [Rule(name, _by_depth(std, None)) for name in _LLAMA_RESIDUAL]
        named = set(_matching(model, residual))
        unnamed = ends_without_a_name(model, named, "llama: no weight is called wo, w2, o_proj or down_proj")
        depths = {_depth(name) for name in named} | {end.block for end in unnamed.values()}
        number = None if by_depth else _layers(model, "num_hidden_layers", "n_layers", "n_layer") or max(len(depths), 1)

        def by_structure(named: Named) -> list[Fill]:
            end = unnamed[named.name]
            [(made, box, source)] = _narrow(std, number or end.block + 1, named)
            return [(made, box, f"{source}; {end.seen}")]

        return [
            *(Rule(name, _output) for name in _LLAMA_OUTPUT),
            *(Rule(name, _by_depth(std, number)) for name in _LLAMA_RESIDUAL),
            *([Rule(_is_one_of(unnamed), by_structure)] if unnamed else []),
            *([Rule(_is_one_of(outputs), _output)] if (outputs := _unnamed_outputs(model)) else []),
            Rule(bias, "zeros_"),
            Rule("*", norm_by_structure),
            Rule(vector_weight, "ones_"),
            Rule(lookup, drawn("normal_", std=1.0)),
            Rule(matrix, "trunc_normal_", std=std),
            *AS_TORCH,
        ]

    return RuleSet("llama", rules)


def _depth(name: str) -> int:
    """The layer's number: the first number in the name; 0 without."""
    found = re.search(r"(?:^|\.)(\d+)\.", name)
    return int(found[1]) if found else 0


def _by_depth(std: float, layers: int | None) -> Callable[[Named], list[Fill]]:
    def by_depth(named: Named) -> list[Fill]:
        return _narrow(std, _depth(named.name) + 1 if layers is None else layers, named)

    return by_depth


def _narrow(std: float, layer: int, named: Named) -> list[Fill]:
    made = distribution_of("trunc_normal_", named.tensor.dtype, (), {"std": std / math.sqrt(2 * layer)})
    return [(made, None, f"residual, std {std:g} / sqrt(2 * {layer})")]


def _unnamed_outputs(model: nn.Module) -> set[str]:
    """Weights of the embedding's shape, in a model where none has the name of an output."""
    if any(_matching(model, [Rule(name, _output) for name in _LLAMA_OUTPUT])):
        return set()
    tensors = named_tensors(model, buffers=False)
    tables = {tuple(named.tensor.shape) for named in tensors if lookup(named)}
    return {named.name for named in tensors if matrix(named) and tuple(named.tensor.shape) in tables}


def _output(named: Named) -> list[Fill]:
    std = named.tensor.shape[-1] ** -0.5
    made = distribution_of("trunc_normal_", named.tensor.dtype, (), {"std": std, "a": -3 * std, "b": 3 * std})
    return [(made, None, f"output, std {named.tensor.shape[-1]} ** -0.5, cut at 3 sigma")]


_TOKENS = {"normal_": ("cls_token", "reg_token", "class_token"), "zeros_": ("mask_token",)}
_POSITIONS = ("pos_embed", "pos_embedding", "position_embeddings", "dist_token")


def vit(std: float = 0.02) -> RuleSet:
    """Vision transformers as timm makes them: trunc_normal_(std) cut at +-2, biases 0, class tokens N(0, 1e-6²).

    Positions get trunc_normal_(std); convolutions (the patch embedding) stay as torch has them; mask tokens are 0. Names are
    those of timm, transformers and torchvision. Not JAX's scheme, which is ``xavier_uniform_`` with a zero head.

    Source: timm's ``init_weights_vit_timm`` and ``VisionTransformer.init_weights``.
    """
    tokens = [
        Rule(f"*{name}", function, **({"std": 1e-6} if function == "normal_" else {}))
        for function, names in _TOKENS.items()
        for name in names
    ]
    rules: list[Rules] = [
        *tokens,
        *(Rule(f"*{name}", "trunc_normal_", std=std) for name in _POSITIONS),
        *(Rule(kind, torch_reset) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
        Rule(bias, "zeros_"),
        Rule(lookup, drawn("trunc_normal_", std=std)),
        Rule(matrix, "trunc_normal_", std=std),
        *AS_TORCH,
    ]
    return RuleSet("vit", lambda model: rules)


RULE_SETS.update(
    torch=TORCH,
    xavier=scheme("xavier_uniform_"),
    kaiming=scheme("kaiming_normal_", nonlinearity="relu"),
    lecun=scheme("lecun_normal_"),
    gpt2=gpt2(),
    llama=llama(),
    vit=vit(),
    auto=auto(),
    transformers=by_config(),
)
