"""The rule sets that come with the library: schemes for any model (xavier, kaiming, lecun), and those of families of models.

The schemes speak of what they know: weights with inputs and outputs, lookup tables, biases, and the modules of torch.nn. What a
``gamma``, a ``cls_token`` or stacked experts should be they do not guess: the plan then names them, and you add a Rule. Each
family's set says whose code it follows. ``docs/plans.md`` has them in a table.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from ..init.catalog import distribution_of
from ..numerics.distributions import Distribution
from ..tensors.named import Named, named_tensors
from .layouts import Layout, bias, layout_of, lookup, matrix, vector_weight
from .mup import mup
from .rule import RULE_SETS, Fill, Rule, Rules, RuleSet, buffer
from .torch_reset import TORCH, padded, torch_reset
from .tracing import Follows, following

__all__ = ["RULE_SETS", "auto", "gpt2", "llama", "mup", "scheme", "vit"]

# What no scheme speaks of: norms with their running statistics, PReLU, the extra rows of attention.
_AS_TORCH = (Rule("*", torch_reset), Rule((buffer, "*"), torch_reset))


def _drawn(function: str, **params: Any) -> Callable[[Named], list[Fill]]:
    """A function of ``init`` as a rule for tables, too: a padding row is zero."""

    def give(named: Named) -> list[Fill]:
        made = distribution_of(function, named.tensor.dtype, tuple(named.tensor.shape), params)
        return [(made, box, ", ".join(filter(None, (what, note)))) for made, box, note in padded(named, made)]

    what = give.__name__ = _call(function, params)
    return give


def _call(function: str, params: Mapping[str, Any]) -> str:
    """As people would write it."""
    numbers = (f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value!r}" for key, value in params.items())
    return f"{function}({', '.join(numbers)})" if params else function


# ---- schemes of fans -------------------------------------------------------------------------------------------------


def with_fans(named: Named, function: str, **params: Any) -> tuple[Distribution, str]:
    """The distribution by the fans of what is multiplied, and a sentence about it."""
    layout, whole = layout_of(named) or Layout(), tuple(named.tensor.shape)
    axes = {"in_axes": layout.in_axes, "out_axes": layout.out_axes}
    made = distribution_of(function, named.tensor.dtype, layout.shape(whole), {**params, **axes})
    return made, "{}, fan_in {}, fan_out {}".format(_call(function, params), *layout.fans(whole))


def scheme(function: str, **params: Any) -> list[Rules]:
    """Rules that fill every weight by its fans: ``function`` is one of xavier, kaiming, lecun and variance_scaling.

    Biases get 0. Lookup tables get N(0, 1) and a zero padding row: a row is looked up, not summed over, and the schemes assume
    that what enters a layer has variance 1. Fans are those of the matrix that is multiplied (``layouts``), of one projection
    of a fused one, one gate, one group. The rest (norms, PReLU) is as torch has it.
    """

    def by_fans(named: Named) -> list[Fill]:
        made, source = with_fans(named, function, **params)
        return [(made, None, source)]

    return [
        Rule(bias, "zeros_"),
        Rule(lookup, _drawn("normal_", std=1.0)),
        Rule(matrix, by_fans),
        *_AS_TORCH,
    ]


_Call = tuple[str, dict[str, Any]]
_XAVIER: _Call = ("xavier_uniform_", {})
_AUTO: dict[str, _Call] = {
    "relu": ("kaiming_normal_", {"nonlinearity": "relu"}),
    "gelu": ("kaiming_normal_", {"nonlinearity": "gelu"}),
    "silu": ("kaiming_normal_", {"nonlinearity": "silu"}),
    "mish": ("kaiming_normal_", {"nonlinearity": "mish"}),
    "selu": ("kaiming_normal_", {"nonlinearity": "linear"}),  # self-normalising networks want variance 1 / fan_in
    "tanh": ("xavier_uniform_", {"gain": 5 / 3}),
}


def auto(*example: Any) -> RuleSet:
    """Xavier before sigmoid, tanh and where no nonlinearity follows, Kaiming before relu and its relatives.

    What follows each layer is seen by tracing (``tracing``); the source of an entry says what was seen. Where nothing could be
    seen, as in code that fx cannot trace, the weight gets Xavier, its source says so, and a warning counts them. The rest is
    as in :func:`scheme`.

    Args:
        example: positional inputs of the model, any device, for models that fx cannot trace.

    >>> import weightinit_cuda as wi
    >>> net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False))
    >>> for entry in wi.plan(net, rules="auto"):
    ...     print(entry.source)
    auto: kaiming_normal_(nonlinearity='relu'), fan_in 4, fan_out 4; relu follows (0 -> 1 ReLU)
    auto: xavier_uniform_, fan_in 4, fan_out 1; no nonlinearity follows (2 -> the output of the model)
    """

    def rules(model: nn.Module) -> Rules:
        after = following(model, example)
        if blind := [named.name for named in named_tensors(model) if matrix(named) and _holder(named) not in after]:
            warnings.warn(
                f"auto: could not see what follows {len(blind)} weights ({', '.join(blind[:3])}{', ...' * (len(blind) > 3)});"
                " they get xavier_uniform_. Give auto() an example input, or these weights a Rule.",
                stacklevel=6,
            )

        def by_what_follows(named: Named) -> list[Fill]:
            seen = after.get(_holder(named), Follows("", None, "could not see what follows"))
            function, params = _AUTO.get(seen.nonlinearity, _XAVIER)
            if seen.nonlinearity == "leaky_relu":
                function, params = "kaiming_normal_", {"a": 0.01 if seen.slope is None else seen.slope}
            made, source = with_fans(named, function, **params)
            return [(made, None, f"{source}; {seen.seen}")]

        return [Rule(bias, "zeros_"), Rule(lookup, _drawn("normal_", std=1.0)), Rule(matrix, by_what_follows), *_AS_TORCH]

    return RuleSet("auto", rules)


def _holder(named: Named) -> str:
    return named.name.rpartition(".")[0]


# ---- families --------------------------------------------------------------------------------------------------------


def _layers(model: nn.Module, *keys: str) -> int | None:
    """The number of layers that a config of the model gives."""
    for module in model.modules():
        config = getattr(module, "config", None) or getattr(module, "model_args", None)
        for key in keys:
            if isinstance(number := getattr(config, key, None), int):
                return number
    return None


def _matching(model: nn.Module, rules: list[Rule]) -> Iterator[str]:
    return (named.name for named in named_tensors(model) if any(rule.matches(named) for rule in rules))


def gpt2(std: float = 0.02, layers: int | None = None) -> RuleSet:
    r"""GPT-2: weights and embeddings N(0, std²), the projections that end a residual branch narrower, biases 0, scales 1.

    .. math:: \sigma_{\text{c\_proj}} = \sigma / \sqrt{2 n}

    Args:
        std: of all weights but ``*c_proj.weight``.
        layers: n; default the config's ``n_layer``, else half the number of ``c_proj`` in the model.

    Source: Radford et al. (2019), 2.3; transformers' GPT2PreTrainedModel; nanoGPT's ``GPT.__init__``.

    >>> block = nn.ModuleDict({"c_fc": nn.Linear(2, 8), "c_proj": nn.Linear(8, 2)})
    >>> [rule for rule in gpt2(layers=8).rules(block) if "c_proj" in str(rule)]
    [Rule('*c_proj.weight', normal_, std=0.005)]
    """

    def rules(model: nn.Module) -> Rules:
        ends = [Rule("*c_proj.weight", "normal_")]
        number = layers or _layers(model, "n_layer", "num_hidden_layers")
        branches = 2 * number if number else sum(1 for _ in _matching(model, ends)) or 1
        return [
            Rule("*c_proj.weight", "normal_", std=std / math.sqrt(branches)),
            Rule(bias, "zeros_"),
            Rule(vector_weight, "ones_"),
            Rule(lookup, _drawn("normal_", std=std)),
            Rule(matrix, "normal_", std=std),
            *_AS_TORCH,
        ]

    return RuleSet("gpt2", rules)


_LLAMA_OUTPUT = ("output.weight", "*.output.weight", "lm_head.weight", "*.lm_head.weight")
_LLAMA_RESIDUAL = tuple(f"*.{name}.weight" for name in ("wo", "w2", "w3", "o_proj", "down_proj", "up_proj"))


def llama(std: float = 0.02, by_depth: bool = True) -> RuleSet:
    r"""Llama as torchtitan trains it: residual branches narrower with depth, the output by its width, embeddings N(0, 1).

    .. math:: \sigma_l = \sigma / \sqrt{2 (l + 1)} \text{ of wo, w2, w3 (o\_proj, down\_proj, up\_proj) in layer } l, \quad
              \sigma_{\text{output}} = d^{-1/2} \text{, cut at } \pm 3 \sigma

    Everything else with inputs and outputs is trunc_normal_(std), cut at +-2 as in torch: nowhere, at 0.02. Where the output
    is tied to the embedding it decides, as it does in torchtitan. Biases are 0, scales of norms 1.

    Args:
        std: of the weights.
        by_depth: else all layers have the last layer's width.

    Source: torchtitan's ``models/llama3``, ``depth_init``. Hugging Face's own initialisation of Llama is N(0, 0.02²): record
    it with ``deferred``.
    """

    def rules(model: nn.Module) -> Rules:
        residual = [Rule(name, _by_depth(std, None)) for name in _LLAMA_RESIDUAL]
        depths = {_depth(name) for name in _matching(model, residual)}
        number = None if by_depth else _layers(model, "num_hidden_layers", "n_layers", "n_layer") or max(len(depths), 1)
        return [
            *(Rule(name, _output) for name in _LLAMA_OUTPUT),
            *(Rule(name, _by_depth(std, number)) for name in _LLAMA_RESIDUAL),
            Rule(bias, "zeros_"),
            Rule(vector_weight, "ones_"),
            Rule(lookup, _drawn("normal_", std=1.0)),
            Rule(matrix, "trunc_normal_", std=std),
            *_AS_TORCH,
        ]

    return RuleSet("llama", rules)


def _depth(name: str) -> int:
    """The layer's number: the first number in the name; 0 without."""
    found = re.search(r"(?:^|\.)(\d+)\.", name)
    return int(found[1]) if found else 0


def _by_depth(std: float, layers: int | None) -> Callable[[Named], list[Fill]]:
    def by_depth(named: Named) -> list[Fill]:
        layer = _depth(named.name) + 1 if layers is None else layers
        made = distribution_of("trunc_normal_", named.tensor.dtype, (), {"std": std / math.sqrt(2 * layer)})
        return [(made, None, f"residual, std {std:g} / sqrt(2 * {layer})")]

    return by_depth


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
        Rule(lookup, _drawn("trunc_normal_", std=std)),
        Rule(matrix, "trunc_normal_", std=std),
        *_AS_TORCH,
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
)
