"""The rule set ``auto``: each weight by the nonlinearity that follows it, by the depth, and by what else it is used for."""

from __future__ import annotations

import math
import warnings
from typing import Any, SupportsFloat

from torch import nn

from ..numerics.mean_field import gain_for_depth
from ..tensors.named import Named, named_tensors
from .by_fans import AS_TORCH, drawn, with_fans
from .layouts import bias, lookup, matrix
from .measured import measured
from .parametrised import as_layers
from .residual import stacks_of
from .rule import RULE_SETS, Fill, Rule, Rules, RuleSet
from .tracing import RECURRENT, Follows, look

__all__ = ["auto"]

_Call = tuple[str, dict[str, Any]]
_XAVIER: _Call = ("xavier_uniform_", {})
_AUTO: dict[str, _Call] = {
    "relu": ("kaiming_normal_", {"nonlinearity": "relu"}),
    "gelu": ("kaiming_normal_", {"nonlinearity": "gelu"}),
    "silu": ("kaiming_normal_", {"nonlinearity": "silu"}),
    "mish": ("kaiming_normal_", {"nonlinearity": "mish"}),
    "selu": ("kaiming_normal_", {"nonlinearity": "linear"}),  # self-normalising networks want variance 1 / fan_in
}
SIGMOID = (4.0, 8.0)  # of the gains, what is measured beside the one that was asked for: chi = 0.40 and 0.79
TANH = 5 / 3  # torch's gain, found by experiment on a few layers: the gradient's variance grows by chi = 1.21 in each
NATS = 3.0  # that it may change by over all layers: half of the six depth scales to which nets train. 15 layers of 5/3


def auto(*example: Any, sigmoid_gain: SupportsFloat = 1.0, measure: bool = False) -> RuleSet:
    r"""Xavier before sigmoid, tanh and where no nonlinearity follows, Kaiming before relu and its relatives.

    What follows each layer is seen by tracing (``tracing``); the source of an entry says what was seen. Where nothing could be
    seen, as in code that fx cannot trace, the weight gets Xavier, its source says so, and a warning counts them, with the
    error that the model raised. Beyond that:

    * before tanh the gain is 5/3 in up to 15 layers, and narrower in more, so that the gradient's variance grows by no more
      than a factor of e^3 over all of them (5/3 over 50 layers: 13,000);
    * an embedding that is the output's weight, too, gets N(0, 1/d) instead of N(0, 1), and so do the other embeddings of d
      numbers a row: logits then have variance 1, and the first loss is near ln(classes). The residual stream begins as
      narrow, so what ends one of n branches (``residual``) is narrower, too, by 1/sqrt(n).

    The rest is as in :func:`scheme`.

    Args:
        example: positional inputs of the model, any device, for models that fx cannot trace.
        sigmoid_gain: of weights before a sigmoid, but the last layer's and recurrences'. torch's table says 1, and so does the
            default: then the gradient's variance falls by :math:`\chi` = 0.056 a layer, and five do not train. A sigmoid's
            slope is 1/4 at 0, hence 4: :math:`\chi` = 0.40. Ten makes :math:`\chi` = 1 and saturates.
        measure: probe the model on the example (a batch of data) under this set, under it with a sigmoid_gain of 4 and 8, and
            under kaiming, lecun, xavier, gpt2 and torch, up to the first that is ok; else take the first with the fewest FAILs
            and WARNs. The model's memory is filled for that, and put back. The sources of the entries say what was measured.

    Raises:
        ValueError: sigmoid_gain is not positive and finite; or, when a plan is made, there is nothing to measure: no example,
            parameters on meta, or as :class:`weightinit_cuda.diagnosis.probe.Probe` raises.

    >>> import weightinit_cuda as wi
    >>> net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False))
    >>> for entry in wi.plan(net, rules="auto"):
    ...     print(entry.source)
    auto: kaiming_normal_(nonlinearity='relu'), fan_in 4, fan_out 4; relu follows (0 -> 1 ReLU)
    auto: xavier_uniform_, fan_in 4, fan_out 1; no nonlinearity follows (2 -> the output of the model)
    """
    gain = float(sigmoid_gain)
    if not 0 < gain < math.inf:
        raise ValueError(f"auto: sigmoid_gain must be positive and finite, got {sigmoid_gain}.")

    if measure:
        return measured("auto", example, _candidates(example, gain))

    def rules(model: nn.Module) -> Rules:
        seen = look(model, example)
        tensors = as_layers(model, named_tensors(model, buffers=False))
        _warn_of_blind_spots([named.name for named in tensors if matrix(named) and _holder(named) not in seen.found], seen.why)
        tied = _tied(tensors)
        ends = {end.name for stack in stacks_of(model) for end in stack.ends} if tied else set()
        calls = _calls(tensors, seen.found, gain) | dict.fromkeys(ends, _branch_end(len(ends)))

        def by_what_follows(named: Named) -> list[Fill]:
            after = seen.found.get(_holder(named), Follows("", None, "could not see what follows"))
            function, params = calls.get(named.name, _XAVIER)
            made, source = with_fans(named, function, **params)
            return [
                (made, None, f"{source}; ends one of {len(ends)} branches" if named.name in ends else f"{source}; {after.seen}")
            ]

        return [
            Rule(bias, "zeros_"),
            *tied,
            Rule(lookup, drawn("normal_", std=1.0)),
            Rule(matrix, by_what_follows),
            *AS_TORCH,
        ]

    return RuleSet("auto", rules)


def _candidates(example: tuple[Any, ...], gain: float) -> list[tuple[str, Rules]]:
    """What is measured, what is preferred first."""
    gains = dict.fromkeys((gain, *SIGMOID))
    by_sight: list[tuple[str, Rules]] = [(f"sigmoid_gain {one:g}", auto(*example, sigmoid_gain=one)) for one in gains]
    return [*by_sight, *((name, RULE_SETS[name]) for name in ("kaiming", "lecun", "xavier", "gpt2", "torch"))]


def _holder(named: Named) -> str:
    return named.name.rpartition(".")[0]


def _warn_of_blind_spots(blind: list[str], why: str) -> None:
    if blind:
        warnings.warn(
            f"auto: could not see what follows {len(blind)} weights ({', '.join(blind[:3])}{', ...' * (len(blind) > 3)});"
            " they get xavier_uniform_. Give auto() an example input, or these weights a Rule."
            + (f" The model: {why}" if why else ""),
            stacklevel=7,
        )


def _calls(tensors: list[Named], after: dict[str, Follows], sigmoid_gain: float) -> dict[str, _Call]:
    """The function of init that each weight gets, with its arguments; xavier_uniform_ if it is none of them."""
    found: dict[str, _Call] = {}
    weights = [named for named in tensors if matrix(named) and _holder(named) in after]
    deep = sum(after[_holder(named)].nonlinearity == "tanh" for named in weights)
    last = next(reversed(after), None)
    for named in weights:
        nonlinearity, slope, _ = after[_holder(named)]
        if nonlinearity == "leaky_relu":
            found[named.name] = "kaiming_normal_", {"a": 0.01 if slope is None else slope}
        elif nonlinearity == "tanh":
            found[named.name] = "xavier_uniform_", {"gain": _tanh_gain(deep)}
        elif nonlinearity == "sigmoid" and sigmoid_gain != 1 and _holder(named) != last:
            found[named.name] = _XAVIER if isinstance(named.module, RECURRENT) else ("xavier_uniform_", {"gain": sigmoid_gain})
        else:
            found[named.name] = _AUTO.get(nonlinearity, _XAVIER)
    return found


def _branch_end(branches: int) -> _Call:
    return "xavier_uniform_", {"gain": 1 / math.sqrt(max(branches, 1))}


def _tanh_gain(layers: int) -> float:
    """Rounded, so that it is the same number wherever it is computed."""
    gain = gain_for_depth("tanh", layers, TANH, NATS)
    return gain if gain == TANH else round(gain, 3)


def _tied(tensors: list[Named]) -> list[Rule]:
    """For embeddings that are multiplied by, too, at the output; and for those that are added to them."""
    tied = {named.tensor.shape[1] for named in tensors if lookup(named) and named.aliases}

    def beside_the_output(named: Named) -> bool:
        return lookup(named) and named.tensor.shape[1] in tied

    return [Rule(beside_the_output, _narrow_table)] if tied else []


def _narrow_table(named: Named) -> list[Fill]:
    width = named.tensor.shape[1]
    why = "tied to the output" if named.aliases else "as wide as one that is tied to the output"
    return [(made, box, f"{source}, {width} ** -0.5: {why}") for made, box, source in drawn("normal_", std=width**-0.5)(named)]
