"""Rules and rule sets: what matches, who decides, what is refused and in which words, and what each set of ours gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda.init.catalog import distribution_of
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, Orthogonal, TruncNormal, Uniform
from weightinit_cuda.rules import RULE_SETS, Rules, RuleSet, buffer, gpt2, llama, mup
from weightinit_cuda.rules.layouts import matrix, vector_weight
from weightinit_cuda.tensors.boxes import Box
from weightinit_cuda.tensors.named import Named

Rule, plan = wi.Rule, wi.plan
NAMED_SETS = sorted(RULE_SETS)


def numbers(distribution: Distribution) -> tuple[Any, ...]:
    return tuple(distribution.numbers().values())


def given(model: nn.Module, rules: Rules, name: str) -> Distribution:
    """The distribution of a tensor with one line."""
    (line,) = plan(model, rules)[name]
    return line.distribution


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


# ---- what matches ------------------------------------------------------------------------------------------------------


def test_the_first_that_matches_decides() -> None:
    rules: Rules = [
        Rule("0.weight", "normal_", std=2.0),
        Rule((nn.Linear, "*.weight"), "normal_", std=3.0),
        Rule(lambda t: t.attribute == "bias", Constant(7.0)),
        "torch",
    ]
    made = plan(small(), rules)
    assert [line.distribution for line in made] == [Normal(0, 2), Constant(7), Normal(0, 3), Constant(7)]


def test_globs_match_whole_names_and_any_of_tied_ones() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    model["b"].weight = model["a"].weight
    assert given(model, [Rule("b.weight", "ones_")], "a.weight") == Constant(1.0)
    with pytest.raises(ValueError, match="no rule covers"), pytest.warns(UserWarning, match="'weight'"):
        plan(model, [Rule("weight", "ones_")])  # part of a name


def test_types_match_subclasses() -> None:
    class Mine(nn.Linear):
        pass

    assert given(Mine(2, 2, bias=False), [Rule(nn.Linear, "ones_")], "weight") == Constant(1.0)


def test_a_rule_speaks_of_buffers_only_where_it_says_so() -> None:
    """A causal mask called ``bias`` (GPT-2, nanoGPT) is not zeroed by a rule for biases."""
    model = nn.Linear(2, 2)
    model.register_buffer("mask_bias", torch.ones(2, 2))
    assert "mask_bias" not in plan(model, [Rule("*bias", "zeros_"), "torch"])
    assert given(model, [Rule((buffer, "*bias"), "ones_"), "torch"], "mask_bias") == Constant(1.0)


def test_functions_may_answer_not_mine_or_several_boxes() -> None:
    row = Box((0, 0), (1, 2))

    def give(named: Named) -> Any:
        return None if named.attribute == "bias" else [(Normal(0, 1), None, ""), (Constant(0.0), row, "first row")]

    lines = list(plan(nn.Linear(2, 2), [give, Rule("bias", "ones_")]))
    assert [(line.distribution, line.box) for line in lines] == [
        (Normal(0, 1), None),
        (Constant(0.0), row),
        (Constant(1.0), None),
    ]
    assert [line.source for line in lines] == ["custom: Rule('*', give)", "custom: first row", "custom: Rule('bias', ones_)"]


def test_lists_nest_and_sets_compose() -> None:
    made = plan(small(), [[Rule("0.*", "zeros_")], [["kaiming"]]])
    assert [line.source.split(":")[0] for line in made] == ["custom", "custom", "kaiming", "kaiming"]


def test_sets_of_your_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wi.RULE_SETS, "mine", [Rule("*.bias", "ones_"), "kaiming"])
    monkeypatch.setitem(wi.RULE_SETS, "function", lambda t: Constant(float(t.tensor.dim())))
    monkeypatch.setitem(wi.RULE_SETS, "deep", wi.RuleSet("deep", lambda model: Rule("*", "normal_", std=len(model))))
    made = plan(small(), "mine")
    assert made.rules == "mine"
    assert [line.source.split(":")[0] for line in made] == ["kaiming", "mine", "kaiming", "mine"]
    assert [line.distribution for line in plan(small(), "function")] == [Constant(2.0), Constant(1.0)] * 2
    assert given(small(), ["deep"], "0.bias") == Normal(0, 3)


def test_sources_are_readable() -> None:
    """Names of functions, types and predicates, the line of a lambda, short numbers: no address, no ``<lambda>``."""
    rules = [
        Rule((matrix, nn.Linear, "0.*"), "normal_", std=1 / 3),
        Rule((vector_weight, lambda t: True), "zeros_"),
        Rule(lambda t: True, Normal(0, 0.5)),
    ]
    assert repr(rules[0]) == "Rule((matrix, Linear, '0.*'), normal_, std=0.333333)"
    assert "lambda at test_rules.py:" in repr(rules[1])
    assert repr(rules[2]).endswith(", normal(mean=0, std=0.5))")
    model = nn.Sequential(nn.Embedding(3, 2, padding_idx=0), nn.Linear(2, 2), nn.BatchNorm1d(2), nn.PReLU())
    for name in NAMED_SETS:
        for line in plan(model, name):
            assert line.source.startswith(f"{name}: ")
            assert "<" not in line.source
            assert "0x" not in line.source


@pytest.mark.parametrize(
    "given",
    [
        wi.init.trunc_normal_,
        nn.init.trunc_normal_,
        partial(wi.init.trunc_normal_),
        partial(nn.init.trunc_normal_, std=0.02),
        partial(partial(nn.init.trunc_normal_, std=0.5), std=0.02),
    ],
)
def test_functions_mean_what_their_names_mean(given: Any) -> None:
    std = getattr(given, "keywords", {}).get("std", 1.0)
    named = wi.Rule("*", "trunc_normal_", std=std, a=-1.0)
    rule = wi.Rule("*", given, a=-1.0)
    assert (rule.init, {"std": 1.0} | rule.params) == (named.init, named.params)
    with wi.patched():
        assert wi.Rule("*", nn.init.trunc_normal_).init == "trunc_normal_"
    model = nn.Linear(3, 2)
    assert [e.distribution for e in plan(model, rule)] == [e.distribution for e in plan(model, named)]


# ---- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "params", "error", "message"),
    [
        (("*", "kaiming"), {}, ValueError, "init must be a function of weightinit_cuda.init, got 'kaiming'"),
        (("*", "calculate_gain"), {}, ValueError, "init must be a function"),
        (("*", "normal_"), {"sigma": 1}, TypeError, r"must be those of normal_, got \{'sigma': 1\}"),
        (("*", "constant_"), {}, TypeError, "must be those of constant_.*val"),
        (("*", "normal_"), {"seed": 1}, TypeError, "seeds, streams and shards are the plan's, got seed"),
        (("*", Normal(0, 1)), {"std": 1}, TypeError, "parameters belong to a function of init"),
        (("*", 3), {}, TypeError, "got 3"),
        (("*", (0.0, 1.0)), {}, TypeError, "a distribution or a function"),
        (("*", wi.init.calculate_gain), {}, TypeError, "got calculate_gain of weightinit_cuda.init"),
        (("*", torch.relu), {}, TypeError, "got relu of"),
        (("*", nn.Linear), {}, TypeError, "got Linear of torch"),
        (("*", print), {}, TypeError, "got print of builtins"),
        (("*", lambda: None), {}, TypeError, "a function of a Named tensor, got lambda"),
        (("*", partial(wi.init.normal_, 0.0)), {}, TypeError, "a partial of normal_ must bind by keyword"),
        (("*", partial(wi.init.normal_, sigma=1)), {}, TypeError, "must be those of normal_"),
        (("*", wi.init.normal_), {"seed": 1}, TypeError, "seeds, streams and shards are the plan's, got seed"),
        (("", "ones_"), {}, ValueError, "glob"),
        (("*.[ab", "ones_"), {}, ValueError, r"every \[ closed, got '\*\.\[ab'"),
        ((3, "ones_"), {}, TypeError, "match must be a glob"),
        ((("*", nn.Parameter), "ones_"), {}, TypeError, "a type of module"),
    ],
)
def test_a_rule_is_refused(arguments: tuple[Any, ...], params: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Rule(*arguments, **params)


def test_all_that_is_not_covered_is_named() -> None:
    model = small()
    model.scale = nn.Parameter(torch.ones(3, 1, 2))
    with pytest.raises(ValueError, match="got 2 without") as error:
        plan(model, [Rule("*.weight", "ones_"), Rule("2.bias", "ones_")])
    assert "\n  scale (3, 1, 2) of Sequential: no rule covers it." in str(error.value)
    assert "\n  0.bias (4,) of Linear: no rule covers it." in str(error.value)
    with pytest.raises(ValueError, match="got 5 without"):
        plan(model, [])


def test_wrong_numbers_name_parameter_and_rule() -> None:
    rules: Rules = [Rule("*.weight", "normal_", std=-1.0), Rule("*", "xavier_uniform_")]
    with pytest.raises(ValueError, match="got 4 without") as error:
        plan(small(), rules)
    text = str(error.value)
    assert "0.weight (4, 3) of Linear: normal expects std >= 0.0, but found std -1" in text
    assert "(custom: Rule('*.weight', normal_, std=-1))" in text
    assert "2.bias (2,) of Linear: Fan in and fan out can not be computed for tensor with fewer than 2 dimensions" in text
    assert "(custom: Rule('*', xavier_uniform_))" in text


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("*", Normal(0.0, -1.0)), "std >= 0"),
        (Rule("*", Uniform(1.0, 0.0)), "from=1 > to=0"),
        (Rule("*", lambda t: TruncNormal(0.0, 1.0, 2.0, 1.0)), "from=2 > to=1"),
        (Rule("*", lambda t: 0.5), "must return a distribution, a list of fills or None, got 0.5"),
        (Rule("*", "eye_"), r"eye_ needs 2 dimensions, got shape \(4,\)"),
        (Rule("*", "sparse_", sparsity=0.5), "sparse_ needs 2"),
        (Rule("*", "dirac_"), "dirac_ needs 3 or 4 or 5"),
        (Rule("*", "orthogonal_"), "orthogonal_ needs 2 or"),
        (Rule("*", "kaiming_normal_", mode="fan_avg"), "fan_avg not supported"),
        (Rule("*", "kaiming_normal_", nonlinearity="no"), "Unsupported nonlinearity no"),
        (Rule("*", "trunc_normal_", a=-1.0, b=1.0, bounds="no"), "'no'"),
    ],
)
def test_what_cannot_be_filled_is_named(rule: Rule, message: str) -> None:
    with pytest.raises(ValueError, match=rf"0\.bias \(4,\) of Linear: .*{message}|0\.weight.*{message}"):
        plan(nn.Sequential(nn.Linear(3, 4)), rule)


def test_globs_that_match_nothing_are_reported() -> None:
    with pytest.warns(UserWarning, match=r"Rule\('\*\.wieght', ones_\) matches nothing: .* like '\*\.wieght'"):
        plan(small(), [Rule("*.wieght", "ones_"), "torch"])


@pytest.mark.filterwarnings("error")
def test_globs_of_named_sets_may_match_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They serve many models. Nor is a type or a predicate that meets nothing a typing error."""
    monkeypatch.setitem(wi.RULE_SETS, "mine", [Rule("*.absent", "ones_"), "torch"])
    plan(small(), ["mine", Rule(nn.Conv1d, "ones_"), Rule(lambda t: False, "ones_")])
    plan(small(), "gpt2")


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ("kaming", ValueError, "rules must be one of .*'kaiming'.* got 'kaming'"),
        (["torch", "no"], ValueError, "got 'no'"),
        (3, TypeError, "got 3 \\(int\\)"),
        ([None], TypeError, "got None"),
    ],
)
def test_rules_that_are_none(rules: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan(small(), rules)


def test_a_set_that_contains_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wi.RULE_SETS, "a", ["b"])
    monkeypatch.setitem(wi.RULE_SETS, "b", ["a"])
    with pytest.raises(ValueError, match="must not contain itself, got a -> b -> a"):
        plan(small(), "a")


def test_lazy_modules_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(2), nn.LazyBatchNorm1d())
    with pytest.raises(ValueError, match=r"1\.weight, 1\.bias, 2\.weight, 2\.bias, 2\.running_mean, 2\.running_var"):
        plan(model)
    model(torch.zeros(2, 2))
    assert len(plan(model)) == 9


# ---- from a name and numbers to a distribution -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.complex64], ids=str)
def test_any_dtype(dtype: torch.dtype) -> None:
    model = nn.Linear(4, 2, dtype=dtype, device="meta")
    assert numbers(given(model, "xavier", "weight")) == pytest.approx((-1, 1))
    std = 0.5 * (math.sqrt(0.5) if dtype.is_complex else 1)  # variance is that of the two parts together
    assert given(model, Rule("*", "normal_", std=0.5), "weight") == Normal(0.0, std)


def test_nothing_to_fill() -> None:
    with pytest.warns(UserWarning, match="zero-element"):
        model = nn.Sequential(nn.Linear(0, 3), nn.Linear(3, 0), nn.Conv1d(0, 2, 1))
    for name in NAMED_SETS:
        assert wi.initialize_(model, rules=name)[0].bias.tolist() == [0.0, 0.0, 0.0]


def test_by_shape_without_elements() -> None:
    for function in ("kaiming_normal_", "lecun_normal_", "xavier_normal_", "variance_scaling_", "eye_"):
        assert distribution_of(function, torch.float32, (0, 4), {}) == Constant(0.0)


def test_orthogonal() -> None:
    assert given(nn.Linear(2, 2, bias=False), Rule("*", "orthogonal_", gain=2), "weight") == Orthogonal(2.0)


# ---- schemes -----------------------------------------------------------------------------------------------------------


class Stored(nn.Module):
    """A weight as (in, out), under the name of transformers' class."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(12, 4))


Stored.__name__ = "Conv1D"

FANS = [
    (nn.Linear(4, 12), "weight", 4, 12),
    (nn.Conv2d(4, 6, 3), "weight", 36, 54),
    (nn.Conv2d(4, 6, 3, groups=2), "weight", 18, 27),
    (nn.ConvTranspose1d(4, 6, 5), "weight", 20, 30),
    (nn.ConvTranspose1d(4, 6, 5, groups=2), "weight", 10, 15),
    (nn.Bilinear(3, 4, 5), "weight", 12, 5),
    (nn.MultiheadAttention(8, 2), "in_proj_weight", 8, 8),
    (nn.MultiheadAttention(8, 2, kdim=3), "k_proj_weight", 3, 8),
    (nn.LSTM(3, 5), "weight_ih_l0", 3, 5),
    (nn.LSTM(3, 5, proj_size=2), "weight_hr_l0", 5, 2),
    (nn.GRU(3, 5), "weight_hh_l0", 5, 5),
    (nn.RNN(3, 5), "weight_ih_l0", 3, 5),
    (nn.LSTMCell(3, 5), "weight_ih", 3, 5),
    (nn.GRUCell(3, 5), "weight_ih", 3, 5),
    (Stored(), "weight", 12, 4),
]


@pytest.mark.parametrize(("module", "name", "fan_in", "fan_out"), FANS, ids=lambda case: type(case).__name__)
def test_fans_of_what_is_multiplied(module: nn.Module, name: str, fan_in: int, fan_out: int) -> None:
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert numbers(given(module, "xavier", name))[1] == pytest.approx(bound)
    assert numbers(given(module, "kaiming", name))[1] == pytest.approx(math.sqrt(2 / fan_in))
    assert numbers(given(module, "lecun", name))[1] == pytest.approx(math.sqrt(1 / fan_in) / 0.8796256610342398)
    assert plan(module, "xavier")[name][0].source == f"xavier: xavier_uniform_, fan_in {fan_in}, fan_out {fan_out}"


@pytest.mark.parametrize("name", ["xavier", "kaiming", "lecun"])
def test_schemes_beside_weights(name: str) -> None:
    model = nn.Sequential(nn.Embedding(9, 4, padding_idx=1), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.PReLU(init=0.1))
    made = plan(model, name)
    assert [line.distribution for line in made["0.weight"]] == [Normal(0, 1), Constant(0.0)]
    assert [made[key][0].distribution for key in ("1.bias", "2.weight", "2.bias", "3.weight", "2.running_var")] == [
        Constant(0.0),
        Constant(1.0),
        Constant(0.0),
        Constant(0.1),
        Constant(1.0),
    ]


@pytest.mark.parametrize("name", ["xavier", "kaiming", "lecun", "auto"])
@pytest.mark.filterwarnings("ignore:auto")
def test_schemes_do_not_guess(name: str) -> None:
    """Stacked experts, somebody's vectors or state space, the norms of a weight_norm."""
    model = nn.Module()
    for key, shape in {"cls_token": (1, 1, 4), "experts": (2, 4, 4), "weight": (4,), "A_log": (4, 2), "gamma": (4,)}.items():
        setattr(model, key, nn.Parameter(torch.empty(shape)))
    model.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4, bias=False))
    with pytest.raises(ValueError, match="got 5 without"):
        plan(model, name)


# ---- families ----------------------------------------------------------------------------------------------------------


def tree(paths: dict[str, nn.Module]) -> nn.Module:
    """Modules under dotted names."""
    root = nn.Module()
    for path, module in paths.items():
        *parents, last = path.split(".")
        at = root
        for name in parents:
            if name not in at._modules:
                at.add_module(name, nn.Module())
            at = at._modules[name]  # type: ignore[assignment]
        at.add_module(last, module)
    return root


def linears(*names: str) -> dict[str, nn.Module]:
    return {name: nn.Linear(4, 4) for name in names}


def gpt(layers: int) -> nn.Module:
    """nanoGPT's names."""
    blocks = {f"h.{n}.{name}": nn.Linear(4, 4) for n in range(layers) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_proj")}
    return tree({"wte": nn.Embedding(9, 4, padding_idx=0), **blocks, "ln_f": nn.LayerNorm(4)})


def test_gpt2_counts_residual_branches() -> None:
    made = plan(gpt(3), "gpt2")
    assert made["h.2.mlp.c_proj.weight"][0].distribution == Normal(0.0, 0.02 / math.sqrt(6))
    assert made["h.2.attn.c_attn.weight"][0].distribution == Normal(0.0, 0.02)
    assert [line.distribution for line in made["wte.weight"]] == [Normal(0.0, 0.02), Constant(0.0)]
    assert {made[name][0].distribution for name in ("ln_f.bias", "h.0.attn.c_proj.bias")} == {Constant(0.0)}
    assert made["ln_f.weight"][0].distribution == Constant(1.0)
    assert given(gpt(3), gpt2(std=0.01, layers=8), "h.0.mlp.c_proj.weight") == Normal(0.0, 0.0025)


def test_gpt2_believes_the_config() -> None:
    model = gpt(2)
    model.config = type("Config", (), {"n_layer": 50})()
    assert given(model, "gpt2", "h.0.mlp.c_proj.weight") == Normal(0.0, 0.002)


def test_gpt2_is_what_transformers_does() -> None:
    """Names, distributions, streams and the untouched mask: against the model's own code, recorded."""
    transformers = pytest.importorskip("transformers", "5")
    sizes = {"n_layer": 3, "n_embd": 8, "n_head": 2, "vocab_size": 16, "n_positions": 4}
    with wi.deferred() as recorded:
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    assert recorded.plan(model, seed=0).diff(plan(model, "gpt2", seed=0)) == []


TITAN = ("attention.wq", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
HUGGING = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj")


@pytest.mark.parametrize(
    ("inner", "prefix", "table", "output"),
    [(TITAN, "", "tok_embeddings", "output"), (HUGGING, "model.", "model.embed_tokens", "lm_head")],
)
def test_llama_by_depth(inner: Sequence[str], prefix: str, table: str, output: str) -> None:
    names = [f"{prefix}layers.{n}.{name}" for n in (0, 1, 7) for name in inner]
    model = tree({table: nn.Embedding(9, 4), **linears(*names), output: nn.Linear(4, 9, bias=False)})
    made = plan(model, "llama")
    for n in (0, 1, 7):
        wide = {made[f"{prefix}layers.{n}.{inner[k]}.weight"][0].distribution for k in (0, 2)}
        narrow = {made[f"{prefix}layers.{n}.{inner[k]}.weight"][0].distribution for k in (1, 3, 4)}
        assert wide == {TruncNormal(0.0, 0.02, -2.0, 2.0)}
        assert narrow == {TruncNormal(0.0, 0.02 / math.sqrt(2 * (n + 1)), -2.0, 2.0)}
    assert made[f"{table}.weight"][0].distribution == Normal(0.0, 1.0)
    assert made[f"{output}.weight"][0].distribution == TruncNormal(0.0, 0.5, -1.5, 1.5)
    even = plan(model, llama(by_depth=False))
    assert {even[f"{prefix}layers.{n}.{inner[1]}.weight"][0].distribution for n in (0, 1, 7)} == {
        TruncNormal(0.0, 0.02 / math.sqrt(6), -2.0, 2.0)
    }


def test_llama_tied_to_its_embedding() -> None:
    """The output decides: torchtitan fills it last."""
    model = tree({"tok_embeddings": nn.Embedding(9, 4), "output": nn.Linear(4, 9, bias=False)})
    model.output.weight = model.tok_embeddings.weight  # type: ignore[union-attr]
    assert given(model, "llama", "tok_embeddings.weight") == TruncNormal(0.0, 0.5, -1.5, 1.5)


def test_vit() -> None:
    model = tree({"patch_embed.proj": nn.Conv2d(3, 4, 2), **linears("blocks.0.fc"), "norm": nn.LayerNorm(4)})
    model.cls_token, model.pos_embed = (nn.Parameter(torch.empty(1, n, 4)) for n in (1, 5))
    made = plan(model, "vit")
    assert made["blocks.0.fc.weight"][0].distribution == TruncNormal(0.0, 0.02, -2.0, 2.0)
    assert made["pos_embed"][0].distribution == TruncNormal(0.0, 0.02, -2.0, 2.0)
    assert made["cls_token"][0].distribution == Normal(0.0, 1e-6)
    assert made["blocks.0.fc.bias"][0].distribution == Constant(0.0)
    for name in ("patch_embed.proj.weight", "patch_embed.proj.bias"):
        assert made[name][0].distribution == plan(model.patch_embed.proj)[name.rpartition(".")[2]][0].distribution  # type: ignore


# ---- mup ---------------------------------------------------------------------------------------------------------------


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Embedding(10, width, padding_idx=0), nn.Linear(width, 4 * width), nn.Linear(4 * width, 10))


def test_mup_is_the_table_of_the_paper() -> None:
    """Standard deviations against width: hidden 1/sqrt(n), output 1/n, input and vectors as they are."""
    base, wide = mlp(8), mlp(128)
    for rules in ("torch", "kaiming", "lecun"):
        was, made = plan(base, rules), plan(wide, mup(base, rules))
        assert " (base: " in made["1.weight"][0].source
        for name, factor in (("0.weight", 1), ("1.weight", 1 / 4), ("1.bias", 1), ("2.weight", 1 / 16), ("2.bias", 1)):
            for before, after in zip(was[name], made[name], strict=True):
                assert type(after.distribution) is type(before.distribution)
                assert numbers(after.distribution) == pytest.approx(
                    [factor * number for number in numbers(before.distribution)]
                )
        assert made["0.weight"][1].box == Box((0, 0), (1, 128))
        assert made["2.weight"][0].source.startswith("mup: output, std x 0.0625, Adam's lr x 0.0625")
        assert made.rules == "mup"


def test_mup_of_the_base_is_the_base() -> None:
    assert plan(mlp(8), "kaiming", seed=0).diff(plan(mlp(8), mup(mlp(8), "kaiming"), seed=0)) == []


def test_mup_asks_the_rules_of_the_base_for_each_plan() -> None:
    std = [1.0]
    rules = mup(mlp(8), RuleSet("changing", lambda model: [Rule("*", "normal_", std=std[0])]))
    before = plan(mlp(8), rules, seed=0)
    std[0] = 2.0
    assert before["0.weight"][0].distribution.numbers()["std"] == 1.0
    assert plan(mlp(8), rules, seed=0)["0.weight"][0].distribution.numbers()["std"] == 2.0


def test_mup_leaves_what_has_no_width() -> None:
    base, wide = nn.Linear(4, 4, bias=False), nn.Linear(64, 64, bias=False)
    for function in ("orthogonal_", "eye_", "zeros_"):
        rule = Rule("*", function)
        assert given(wide, mup(base, rule), "weight") == given(wide, rule, "weight")
    sparse = given(wide, mup(base, Rule("*", "sparse_", sparsity=0.5)), "weight")
    assert numbers(sparse) == pytest.approx((64, 32, 0.01 / 4))


@pytest.mark.parametrize(("name", "function"), [("0", 1.0), ("1", 0.25), ("2", 0.0625)])
def test_mup_scales_orthogonal_matrices(name: str, function: float) -> None:
    """By what the table says of their standard deviation, measured."""

    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, 8))

    base, wide = net(16), net(256)
    rules = [Rule("*.weight", "orthogonal_", gain=2.0), "torch"]
    was = wi.initialize_(base, rules, seed=0).get_parameter(f"{name}.weight").std()
    made = wi.initialize_(wide, mup(net(16), rules), seed=0).get_parameter(f"{name}.weight").std()
    assert float((made / was).detach()) == pytest.approx(function, rel=0.1)


def test_mup_refuses() -> None:
    def experts(width: int) -> nn.Module:
        model = nn.Module()
        model.experts = nn.Parameter(torch.empty(2, width, width))
        return model

    normal = Rule("*", "normal_")
    with pytest.raises(ValueError, match=r"experts .*inputs and outputs must be known where two axes grow, got \(2, 4, 4\)"):
        plan(experts(8), mup(experts(4), normal))
    assert given(experts(8), [normal, mup(experts(4), normal)], "experts") == Normal(0, 1)
    with pytest.raises(ValueError, match=r"experts .*base model must have every parameter"):
        plan(experts(8), mup(nn.Linear(2, 2), normal))
    with pytest.raises(ValueError, match="as many dimensions"):
        plan(nn.Linear(2, 2), mup(nn.Conv1d(2, 2, 1)))


def test_one_distribution_in_several_dtypes() -> None:
    """What a rule gave one tensor is looked at again for another dtype, and shown with each rule that gave it."""
    narrow = TruncNormal(0.0, 1.0, 1.001, 1.002)  # holds no value of bfloat16
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).bfloat16())
    with pytest.raises(ValueError, match=r"1\.weight.*bfloat16") as refused:
        wi.plan(model, [wi.Rule("*.weight", narrow), "torch"])
    assert "0.weight" not in str(refused.value)
    given = Constant(2.0)
    plan = wi.plan(model[0], [wi.Rule("weight", given), wi.Rule("bias", lambda named: given)])
    assert "Rule('weight'" in plan["weight"][0].source
    assert "Rule('bias'" in plan["bias"][0].source


def test_arguments_that_can_change_are_read_anew() -> None:
    std = torch.tensor(0.5)
    rule = wi.Rule("*", "normal_", std=std)
    model = nn.Linear(2, 2)
    assert wi.plan(model, rule)["weight"][0].distribution == Normal(0.0, 0.5)
    std.fill_(0.25)
    assert wi.plan(model, rule)["weight"][0].distribution == Normal(0.0, 0.25)
