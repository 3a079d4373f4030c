"""Rules meet models that people have: norms, tokens and experts of other libraries, and what is said where no rule fits."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SIZES, "vocab_size": 32, "bos_token_id": 1, "eos_token_id": 2}
IMAGE = {**SIZES, "image_size": 8, "patch_size": 4}
WHISPER = {
    **{
        f"{part}_{what}": 1 if what == "layers" else 2
        for part in ("encoder", "decoder")
        for what in ("layers", "attention_heads")
    },
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "d_model": 16,
    "num_mel_bins": 8,
    "vocab_size": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("ForCausalLM", {**TEXT, "num_key_value_heads": 1}),
    "Gemma": ("ForCausalLM", {**TEXT, "num_key_value_heads": 1, "head_dim": 8}),
    "Bert": ("ForMaskedLM", TEXT),
    "GPT2": ("LMHeadModel", {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 32, "bos_token_id": 0, "eos_token_id": 0}),
    "ViT": ("ForImageClassification", IMAGE),
    "T5": (
        "ForConditionalGeneration",
        {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    ),
    "Mixtral": ("ForCausalLM", {**TEXT, "num_key_value_heads": 1, "num_local_experts": 3}),
    "Whisper": ("ForConditionalGeneration", WHISPER),
    "CLIP": ("Model", {"text_config": {**TEXT, "max_position_embeddings": 8}, "vision_config": IMAGE, "projection_dim": 8}),
}


def built(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers", "5")
    head, sizes = MODELS[kind]
    model: nn.Module = getattr(transformers, f"{kind}{head}")(getattr(transformers, f"{kind}Config")(**sizes))
    return model


def given(model: nn.Module, rules: Any, name: str) -> Distribution:
    (entry,) = wi.plan(model, rules, seed=0)[name]
    return entry.distribution


# ---- transformers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.filterwarnings("ignore:auto:UserWarning", "ignore:transformers:UserWarning")
def test_every_set_gives_a_plan(kind: str) -> None:
    with torch.device("meta"):
        model = built(kind)
    for rules in wi.RULE_SETS:
        plan = wi.plan(model, rules, seed=0)
        assert {entry.name for entry in plan} >= {name for name, _ in model.named_parameters()}
        assert all(entry.source.startswith(f"{rules}: ") for entry in plan)


# Computed by _init_weights, in more numbers than a plan has boxes for: the set says so. Zeros made by padding zeros are a
# computation, too.
NOT_FILLED = {"Whisper": {"model.encoder.embed_positions.weight"}}


@pytest.mark.parametrize("kind", MODELS)
def test_the_set_transformers_is_what_transformers_does(kind: str) -> None:
    """For every parameter, against the model's own code, recorded."""
    with wi.deferred() as recorded:
        model = built(kind)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        own, ours = recorded.plan(model, seed=0), wi.plan(model, "transformers", seed=0)
    said = "".join(str(each.message) for each in seen if str(each.message).startswith("transformers: "))
    assert set(re.findall(r"\n  (\S+): ", said)) == NOT_FILLED.get(kind, set())
    for name in {name for name, _ in model.named_parameters()} - {"cls.predictions.bias"} - NOT_FILLED.get(kind, set()):
        assert [(e.distribution, e.box) for e in own[name]] == [(e.distribution, e.box) for e in ours[name]], name


def test_a_std_of_ones_own_names_models_with_ways_of_their_own() -> None:
    with torch.device("meta"):
        model = built("GPT2")
    with pytest.warns(UserWarning, match=r"got a model with its own \(GPT2PreTrainedModel\)"):
        wi.plan(model, wi.rules.by_config(std=0.1))


@pytest.mark.filterwarnings("error")
def test_the_set_transformers_reads_configs() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Embedding(3, 4, padding_idx=1), nn.LSTM(4, 4), nn.LayerNorm(4))
    model.config = type("Config", (), {"initializer_range": 0.5})()
    plan = wi.plan(model, "transformers")
    assert [entry.distribution for entry in plan["1.weight"]] == [Normal(0.0, 0.5), Constant(0.0)]
    assert plan["0.weight"][0].source == "transformers: Linear, std 0.5 of the config"
    assert plan["2.weight_ih_l0"][0].source == "transformers: Rule(LSTM, xavier_uniform_)"
    assert {plan[name][0].distribution for name in ("0.bias", "2.bias_hh_l0", "3.bias")} == {Constant(0.0)}
    del model.config
    assert given(model, "transformers", "0.weight") == Normal(0.0, 0.02)
    assert given(model, wi.rules.by_config(std=0.1), "0.weight") == Normal(0.0, 0.1)


def test_stacked_experts_are_matrices_each() -> None:
    with torch.device("meta"):
        model = built("Mixtral")
    for name, fan_in, fan_out in (("gate_up_proj", 16, 48), ("down_proj", 24, 16)):
        assert f"fan_in {fan_in}, fan_out {fan_out}" in wi.plan(model, "xavier")[f"model.layers.0.mlp.experts.{name}"][0].source
    assert wi.plan(model, "torch")["model.layers.1.mlp.experts.down_proj"][0].source == (
        "torch: MixtralExperts as Linear, fan_in 24"
    )


# ---- norms -------------------------------------------------------------------------------------------------------------


class Norm(nn.Module):
    """Everybody's RMSNorm, in its variants."""

    def __init__(self, size: int = 6, offset: float = 0.0, shift: bool = False, center: bool = False, axis: int = -1) -> None:
        super().__init__()
        self.offset, self.center, self.axis = offset, center, axis
        self.gain = nn.Parameter(torch.empty(size))
        self.move = nn.Parameter(torch.empty(size)) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(self.axis, -1)
        x = x - x.mean(-1, keepdim=True) if self.center else x
        x = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * (self.offset + self.gain)
        return (x if self.move is None else x + self.move).movedim(-1, self.axis)


@pytest.mark.parametrize("rules", ["torch", "xavier", "kaiming", "lecun", "auto", "gpt2", "llama", "vit", "transformers"])
@pytest.mark.filterwarnings("ignore:auto:UserWarning")
@pytest.mark.parametrize(
    ("make", "gain"),
    [
        (Norm, 1.0),
        (lambda: Norm(offset=1.0), 0.0),  # Gemma's
        (lambda: Norm(1), 1.0),
        (lambda: Norm(shift=True, center=True), 1.0),
        (lambda: Norm(axis=1), 1.0),
    ],
)
def test_norms_are_known_by_what_they_do(make: Callable[[], Norm], gain: float, rules: str) -> None:
    model = nn.Sequential(make().to("meta"))
    plan = wi.plan(model, rules, seed=0)
    assert plan["0.gain"][0].distribution == Constant(gain)
    assert "norm by structure: Norm gives RMS 1 with gain" in plan["0.gain"][0].source
    assert all(entry.distribution == Constant(0.0) for entry in plan if entry.name == "0.move")


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Resets(Norm):
    value = 1.0

    def reset_parameters(self) -> None:
        nn.init.constant_(self.gain, self.value)


class ResetsToZero(Resets):
    value = 0.0


class Draws(Norm):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.gain)


class Raises(Norm):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("only on a device")


class Ignores(Norm):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, (6,))


@pytest.mark.parametrize("kind", [LayerScale, ResetsToZero, Draws, Raises, Ignores])
def test_what_is_no_norm_is_refused(kind: Callable[[], nn.Module]) -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="no rule covers it"):
        wi.plan(nn.Sequential(kind()), "xavier", seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_norm_keeps_its_own_reset_and_its_values() -> None:
    model = nn.Sequential(Resets())
    nn.init.constant_(model[0].gain, 5.0)
    assert given(model, "torch", "0.gain") == Constant(1.0)
    assert model[0].gain.tolist() == [5.0] * 6


# ---- tokens ------------------------------------------------------------------------------------------------------------


def beside(width: int = 4, **shapes: tuple[int, ...]) -> nn.Module:
    model = nn.Module()
    model.fc = nn.Linear(width, width, bias=False)
    for name, shape in shapes.items():
        setattr(model, name, nn.Parameter(torch.empty(shape)))
    return model


@pytest.mark.parametrize(
    ("name", "shape"),
    [("cls_token", (1, 1, 4)), ("pos_embed", (1, 9, 4)), ("position_embeddings", (9, 4)), ("class_embedding", (4,))],
)
def test_tokens_and_positions(name: str, shape: tuple[int, ...]) -> None:
    for rules in ("torch", "xavier", "transformers"):
        (entry,) = wi.plan(beside(**{name: shape}), rules, seed=0)[name]
        assert entry.distribution == Normal(0.0, 0.02)
        assert "token or position by name and shape" in entry.source


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("time_mix_key", (1, 1, 4)),  # RWKV: a ramp
        ("scale_shift_table", (6, 4)),  # diffusers: N(0, 1/d)
        ("relative_position_bias_table", (9, 4)),
        ("gamma", (1, 1, 4)),
        ("cls_token", (1, 1, 5)),  # as wide as nothing beside it
        ("pos_embed", (2, 9, 4)),
        ("embedding", (4,)),
    ],
)
def test_what_may_be_anything_is_refused(name: str, shape: tuple[int, ...]) -> None:
    for rules in ("torch", "xavier", "transformers"):
        with pytest.raises(ValueError, match=f"{name} .*no rule covers it"):
            wi.plan(beside(**{name: shape}), rules, seed=0)


# ---- advice ------------------------------------------------------------------------------------------------------------


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(3))
        self.table = nn.Parameter(torch.empty(3, 2))


def copied(error: pytest.ExceptionInfo[ValueError]) -> list[Any]:
    return [eval(line, {"wi": wi}) for line in re.findall(r"^ +(wi\.Rule\(.*\)),$", str(error.value), re.MULTILINE)]


def test_lines_to_add_can_be_copied() -> None:
    model = nn.ModuleDict({"blocks": nn.ModuleList([Named(), Named()]), "a[1]": Named()})
    with pytest.raises(ValueError, match=r'wi\.Rule\("blocks\.\*\.scale", "ones_"\),') as error:
        wi.plan(model, "torch")
    rules = copied(error)
    assert len(rules) == 4
    assert len(wi.plan(model, [*rules, "torch"])) == 6


def test_lines_to_add_do_not_reach_further() -> None:
    """``0.*.scale`` would match what a rule covers."""
    model = nn.ModuleList([nn.ModuleList([Named(), Named()])])
    model[0].register_module("mid", nn.Sequential(Named()))
    mine = wi.Rule("0.mid.*", "zeros_")
    with pytest.raises(ValueError, match="got 4 without") as error:
        wi.plan(model, [mine, "torch"])
    assert {rule.globs()[0] for rule in copied(error)} == {f"0.{n}.{name}" for n in (0, 1) for name in ("scale", "table")}


def test_another_set_is_advised_only_where_it_helps() -> None:
    with pytest.raises(ValueError, match="such as 'torch'"):
        wi.plan(nn.Linear(2, 2), [wi.Rule("weight", "ones_")])
    for rules in ("torch", "xavier", [wi.Rule("*.table", "ones_")]):
        with pytest.raises(ValueError, match=r"without\. Add a Rule for them, or use deferred\(\), which .*\.\n"):
            wi.plan(nn.Sequential(Named()), rules)
