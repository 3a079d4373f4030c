"""Verdicts: nets that are known not to train, their cures, and models as they come, which must not FAIL."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import GPT, mlp, quiet  # noqa: F401 a fixture
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.diagnosis import depth as depths
from weightinit_cuda.diagnosis import verdict
from weightinit_cuda.diagnosis.row import Row, Seen

IMAGES, CLASSES = torch.rand(64, 784, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 10
WORDS = torch.randint(256, (4, 16), generator=torch.Generator().manual_seed(0))


def codes(report: wi.ProbeReport) -> dict[str, str]:
    return {finding.code: finding.level for finding in report.findings}


def filled(net: nn.Module, fill: Callable[[Tensor], Any]) -> nn.Module:
    for parameter in net.parameters():
        if parameter.dim() > 1:
            fill(parameter)
        else:
            nn.init.zeros_(parameter)
    return net


def sigmoid_net(depth: int = 5) -> nn.Sequential:
    return mlp(depth, 100, nn.Sigmoid, 784)


def probe_images(net: nn.Module) -> wi.ProbeReport:
    return wi.probe(net, IMAGES, target=CLASSES)


# ---- the six nets, and their cures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [lambda w: nn.init.constant_(w, 0.1), nn.init.ones_, nn.init.zeros_], ids=["0.1", "1", "0"])
def test_equal_weights_are_twins(fill: Callable[[Tensor], Tensor]) -> None:
    assert codes(probe_images(filled(sigmoid_net(), fill)))["twins"] == "FAIL"


def test_a_unit_drawn_twice_is_a_twin_and_a_draw_is_none() -> None:
    net = sigmoid_net(1)
    assert "twins" not in codes(probe_images(net))
    with torch.no_grad():
        net[0].weight[1] = net[0].weight[0]
        net[0].bias[1] = net[0].bias[0]
    assert "twins" not in codes(probe_images(net)), "equal rows whose gradients differ part by themselves"
    with torch.no_grad():
        net[2].weight[:, 1] = net[2].weight[:, 0]
    report = probe_images(net)
    assert codes(report)["twins"] == "WARN"
    assert report.rows[0].twins == 2 / 100


def test_wide_sigmoids_are_saturated() -> None:
    found = codes(probe_images(filled(sigmoid_net(), nn.init.normal_)))
    assert found["saturated"] == "WARN"
    assert "FAIL" not in found.values(), "it still trains"


def test_the_default_of_five_sigmoid_layers_fails() -> None:
    report = probe_images(sigmoid_net())
    assert codes(report)["gradient_vanishes"] == "FAIL"
    shrinks = next(f for f in report.findings if f.code == "gradient_vanishes")
    assert 1500 < math.exp(abs(shrinks.value) / 2) < 4000, "measured on MNIST: 2500"
    assert "gain=4" in shrinks.text
    cured = probe_images(filled(sigmoid_net(), lambda w: nn.init.xavier_uniform_(w, gain=4)))
    assert set(codes(cured)) <= {"first_loss"}


@pytest.mark.parametrize(("depth", "expected"), [(1, "ok"), (2, "ok"), (3, "WARN"), (5, "FAIL")])
def test_how_deep_torchs_default_carries_sigmoids(depth: int, expected: str) -> None:
    assert probe_images(sigmoid_net(depth)).verdict == expected


@pytest.mark.parametrize(("rules", "fails"), [("xavier", True), ("torch", True), ("kaiming", False)])
def test_fifty_relu_layers(rules: str, fails: bool) -> None:
    net = wi.initialize_(mlp(50, 64, nn.ReLU), rules, seed=0)
    report = wi.probe(net, torch.randn(64, 64), target=CLASSES)
    assert (codes(report).get("gradient_vanishes") == "FAIL") is fails
    assert (report.verdict == "FAIL") is fails


def test_tanh_that_is_chaotic_explodes() -> None:
    net = wi.initialize_(mlp(50, 64, nn.Tanh), [wi.Rule("*.weight", "xavier_normal_", gain=2.0), wi.Rule("*", "zeros_")])
    assert "gradient_explodes" in codes(wi.probe(net, torch.randn(64, 64)))


def test_gpt_at_std_1() -> None:
    found = codes(wi.probe(GPT(std=1.0, layers=4, width=128), WORDS, target=WORDS))
    assert found["attention_one_hot"] == "FAIL"
    assert found["first_loss"] == "WARN"


def test_gpt_without_and_with_depth_scaling() -> None:
    """The growth that is predicted for the cure is the one that the cure has: 3.6, and 3.2 measured."""
    report = wi.probe(GPT(), WORDS, target=WORDS)
    assert codes(report) == {"residual_growth": "WARN"}
    grown = report.findings[0].value
    cured = wi.probe(GPT(by_depth=True), WORDS, target=WORDS)
    assert cured.verdict == "ok"
    [(_, factor, blocks, branches)] = depths.growth(cured.rows)
    assert (blocks, branches) == (12, 24)
    predicted = math.sqrt(1 + (grown**2 - 1) / branches)
    assert f"{predicted:.2g}" in report.findings[0].text
    assert abs(factor / predicted - 1) < 0.15


# ---- others ---------------------------------------------------------------------------------------------------------


def test_zero_start_of_a_branch_is_a_warning() -> None:
    """LoRA: what lies behind zeros wakes after one step."""

    class Lora(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(64, 64).requires_grad_(False)
            self.a, self.b = nn.Linear(64, 4, bias=False), nn.Linear(4, 64, bias=False)
            nn.init.zeros_(self.b.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.b(self.a(x))

    report = wi.probe(nn.Sequential(Lora(), nn.ReLU(), Lora()), torch.randn(32, 64))
    assert codes(report) == {"no_gradient": "WARN"}
    assert "1.b.weight" not in report.findings[0].text
    assert ".b.weight" in report.findings[0].text


def test_a_shut_branch_is_a_warning() -> None:
    """The gradient goes past it: a ReLU behind it is off for every sample."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.branch, self.shut, self.last = (nn.Linear(16, 16) for _ in range(4))
            nn.init.constant_(self.shut.bias, -100)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.first(x))
            return self.last(x + torch.relu(self.shut(self.branch(x))))

    report = wi.probe(Net(), torch.randn(64, 16))
    assert codes(report) == {"no_gradient": "WARN", "dead": "WARN"}
    assert "a branch is shut" in report.findings[0].text


def test_dead_units() -> None:
    net = mlp(2, 50, nn.ReLU)
    nn.init.constant_(net[0].bias, -10)
    report = wi.probe(net, torch.randn(64, 64))
    assert codes(report)["dead"] == "WARN"


def test_collapse_to_one_direction() -> None:
    net = mlp(4, 64, nn.Tanh)
    with torch.no_grad():
        net[2].weight.copy_(net[2].weight[:, :1] @ net[2].weight[:1])  # of rank 1
    report = wi.probe(net, torch.randn(64, 64))
    assert "rank_collapse" in codes(report)


def test_a_layer_that_loses_the_input_is_found() -> None:
    net = mlp(3, 32, nn.ReLU)
    nn.init.constant_(net[2].bias, -1e4)
    report = wi.probe(net, torch.randn(64, 64))
    assert report.findings[0].code == "no_signal"
    assert report.findings[0].layer == "4.weight"


@pytest.mark.parametrize("where", ["weight", "bias"])
def test_numbers_that_are_none(where: str) -> None:
    net = mlp(3, 32, nn.ReLU)
    getattr(net[2], where).data[3] = math.nan
    report = wi.probe(net, torch.randn(64, 64))
    assert [(f.code, f.layer) for f in report.findings] == [("not_finite", "2.weight")]
    assert report.rows[2].bad == 64


def test_a_gradient_that_is_not_finite() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    report = wi.probe(net, torch.rand(16, 8), loss=lambda out: (out - out).abs().sqrt().sum())
    assert codes(report)["gradient_not_finite"] == "FAIL"


def test_the_first_loss() -> None:
    net = mlp(1, 32, nn.ReLU)
    assert "first_loss" not in codes(wi.probe(net, torch.randn(64, 64), target=CLASSES))
    with torch.no_grad():
        net[2].weight.mul_(50)
    report = wi.probe(net, torch.randn(64, 64), target=CLASSES)
    assert codes(report)["first_loss"] == "WARN"
    assert report.loss == pytest.approx(report.findings[-1].value)
    unknown = wi.probe(net, torch.randn(64, 64), loss=lambda out: nn.functional.cross_entropy(out, CLASSES))
    assert "first_loss" not in codes(unknown), "of a loss of one's own nobody knows what guessing costs"
    own = wi.probe(net, torch.randn(64, 64), loss=lambda out: nn.functional.cross_entropy(out, CLASSES), classes=10)
    assert codes(own)["first_loss"] == "WARN"


def test_gates_of_an_lstm_that_is_too_wide() -> None:
    x = torch.randn(16, 12, 32)
    fresh = wi.probe(nn.LSTM(32, 32, 2, batch_first=True), x)
    assert fresh.verdict == "ok"
    assert [row.saturated < 0.01 for row in fresh.rows if row.kind == "gates"] == [True, True]
    wide = nn.LSTM(32, 32, 2, batch_first=True)
    for parameter in wide.parameters():
        nn.init.normal_(parameter)
    assert codes(wi.probe(wide, x))["gates_saturated"] == "WARN"


def test_deep_batch_norm_may_grow_its_gradient() -> None:
    """It does, by mean-field theory, and trains: weights before a norm have no scale."""
    layers = [m for _ in range(24) for m in (nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())]
    report = wi.probe(nn.Sequential(*layers, nn.Linear(64, 10)), torch.randn(128, 64))
    assert all(row.normed for row in report.rows if row.kind == "weight" and row.name != "72.weight")
    assert "gradient_explodes" not in codes(report)
    assert 2 * depths.totals(report.rows)[1] > depths.SCALES


def test_worst_comes_first() -> None:
    report = probe_images(filled(sigmoid_net(), nn.init.ones_))
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels)
    assert report.verdict == levels[0] == "FAIL"


def test_a_geometric_law_is_fitted_exactly() -> None:
    rows = [
        Row(f"{i}", "weight", samples=9, units=9, rms=1.0, signal=0.5**i, rank=9.0, gradient=0.25 ** (6 - i)) for i in range(7)
    ]
    forward, backward = depths.totals(rows)  # of the first six: the last layer is the output
    assert (forward, backward) == (pytest.approx(5 * math.log(0.5)), pytest.approx(5 * math.log(0.25)))
    found = verdict.judge(Seen(rows))
    assert {f.code: f.value for f in found} == {"signal_vanishes": 2 * forward, "gradient_vanishes": 2 * backward}


# ---- models as they come ---------------------------------------------------------------------------------------------

TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
SMALL_IMAGES = {"image_size": 32, "num_labels": 10}
BART = {
    "d_model": 64,
    **{f"{part}_{what}": size for part in ("encoder", "decoder") for what, size in (("layers", 2), ("ffn_dim", 128))},
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "vocab_size": 200,
}
STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2LMHeadModel": ("GPT2Config", {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 200}),
    "BertForMaskedLM": ("BertConfig", {**TINY, "vocab_size": 200}),
    "LlamaForCausalLM": ("LlamaConfig", {**TINY, "vocab_size": 200, "num_key_value_heads": 2}),
    "ViTForImageClassification": ("ViTConfig", {**TINY, **SMALL_IMAGES, "patch_size": 8}),
    "ResNetForImageClassification": (
        "ResNetConfig",
        {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2], "num_labels": 10},
    ),
    "T5ForConditionalGeneration": (
        "T5Config",
        {
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 200,
            "decoder_start_token_id": 0,
        },
    ),
    "BartForConditionalGeneration": ("BartConfig", BART),
    "AlbertForMaskedLM": ("AlbertConfig", {**TINY, "vocab_size": 200, "embedding_size": 32}),
}


@pytest.mark.parametrize(
    ("kind", "attention"), [*((kind, "eager") for kind in STOCK), ("GPT2LMHeadModel", "sdpa"), ("LlamaForCausalLM", "sdpa")]
)
def test_stock_models_are_ok(kind: str, attention: str) -> None:
    transformers = pytest.importorskip("transformers", "5")
    config, sizes = STOCK[kind]
    net = getattr(transformers, kind)(getattr(transformers, config)(**sizes, attn_implementation=attention))
    report = wi.probe(net)
    assert report.verdict == "ok", str(report)
    assert "made up" in report.note
    seen = {row.kind for row in report.rows}
    assert ("attention" in seen) is not kind.startswith("ResNet")
    assert report.loss is not None


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_nets_are_ok(kind: Callable[..., nn.Module]) -> None:
    assert wi.probe(kind(24, 48, 2, bidirectional=True), torch.randn(10, 16, 24)).verdict == "ok"


@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_own_transformer_is_ok(norm_first: bool) -> None:
    net = nn.Transformer(64, 4, 2, 2, 128, batch_first=True, norm_first=norm_first)
    report = wi.probe(net, torch.randn(8, 10, 64), torch.randn(8, 12, 64))
    assert report.verdict == "ok", str(report)
    stacks = {name: (blocks, branches) for name, _, blocks, branches in depths.growth(report.rows)}
    assert stacks.keys() == {"encoder.layers", "decoder.layers"}
    if norm_first:
        assert stacks == {"encoder.layers": (2, 4), "decoder.layers": (2, 6)}


# ---- the document ----------------------------------------------------------------------------------------------------


def test_the_document_has_every_code_and_every_limit() -> None:
    page = (Path(__file__).parents[2] / "docs" / "probe.md").read_text()
    source = Path(str(importlib.import_module("weightinit_cuda.diagnosis.verdict").__file__)).read_text()
    named = {"not_finite", "gradient_not_finite", "twins", "no_signal", "no_gradient", "attention_one_hot", "saturated"}
    named |= {"gates_saturated", "dead", "rank_collapse", "residual_growth", "first_loss"}
    named |= {f"{what}_{change}" for what in ("signal", "gradient") for change in ("vanishes", "explodes")}
    for code in named:
        assert f"`{code}`" in page, code
        assert code in source or code.partition("_")[2] in source, code
    for name in ("SCALES", "STUCK", "NORMED", "TWINS", "SHARP", "SATURATED", "DEAD", "RANK", "WIDE", "NATS", "STREAM"):
        limit = getattr(depths, name, None) or getattr(verdict, name)
        assert f"`{name}` {limit:g}" in page, name
