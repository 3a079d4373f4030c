"""Rules, and the sets of rules that come with the library: which tensor of a model gets which distribution.

``rule`` has rules and how they are read; ``by_fans``, ``automatic`` and ``sets`` the schemes and families; ``torch_reset`` what
torch.nn does itself; ``layouts`` how a weight multiplies; ``tracing`` what follows a layer; ``residual`` what ends a branch;
``mup`` how a wider model differs.
"""

from __future__ import annotations

from ..numerics.mean_field import MeanField, exact_gain, mean_field
from .layouts import layout_of, lookup
from .measured import Choice
from .mup import mup_groups
from .resolve import first_match, flattened, require_sound, resolve
from .rule import RULE_SETS, Fill, Given, Match, Rule, Rules, RuleSet, buffer
from .sets import auto, by_config, gpt2, llama, mup, scheme, vit

__all__ = [
    "RULE_SETS",
    "Choice",
    "Fill",
    "Given",
    "Match",
    "MeanField",
    "Rule",
    "RuleSet",
    "Rules",
    "auto",
    "buffer",
    "by_config",
    "exact_gain",
    "first_match",
    "flattened",
    "gpt2",
    "layout_of",
    "llama",
    "lookup",
    "mean_field",
    "mup",
    "mup_groups",
    "require_sound",
    "resolve",
    "scheme",
    "vit",
]
