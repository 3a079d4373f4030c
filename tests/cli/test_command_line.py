"""The command line from a configuration to a checkpoint and back: ``plan``, ``init``, ``verify``, ``doctor``."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bitwise import differing
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.__main__ import main
from weightinit_cuda.cli.blueprint import open_blueprint
from weightinit_cuda.diagnosis.doctor import Symptom, diagnose, examine
from weightinit_cuda.numerics.distributions import Constant, Normal
from weightinit_cuda.plans.entry import Entry
from weightinit_cuda.plans.plan import Plan

pytest.importorskip("rich")
safetensors = pytest.importorskip("safetensors.torch")
transformers = pytest.importorskip("transformers", "5", reason="transformers 5 is not installed")

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 90}
# Tied embeddings; a scheme with depth; parameters that code computes; buffers that are saved, and weight_norm.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "LlamaForCausalLM": ("LlamaConfig", {**TINY, "num_key_value_heads": 1, "tie_word_embeddings": True, "dtype": "bfloat16"}),
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 90, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "MambaForCausalLM": ("MambaConfig", {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 90}),
    "ResNetForImageClassification": ("ResNetConfig", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    "Wav2Vec2ForCTC": ("Wav2Vec2Config", {**TINY, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}),
}


def save_config(kind: str, folder: Path) -> Path:
    config, sizes = CONFIGS[kind]
    made = getattr(transformers, config)(**sizes)
    made.architectures = [kind]
    made.save_pretrained(folder)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return save_config("LlamaForCausalLM", tmp_path / "llama")


def saved(net: nn.Module) -> dict[str, Tensor]:
    """As a checkpoint has them: of tied tensors the first."""
    kept = net.state_dict()
    return {name: tensor for name, tensor in (*net.named_parameters(), *net.named_buffers()) if name in kept}


# ---- init, verify, plan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_becomes_a_checkpoint(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The values are those of ``deferred()`` and ``materialize_``, transformers loads them, and ``verify`` finds them equal."""
    source, out = save_config(kind, tmp_path / "config"), tmp_path / "out"
    assert main(["init", str(source), "--seed", "7", "--out", str(out), "--shard-size", "0.000005"]) == 0
    assert len(list(out.glob("*.safetensors"))) > 1

    settings = transformers.AutoConfig.from_pretrained(source)
    with wi.deferred() as recorded:
        net = getattr(transformers, kind)(settings)
    dtype = getattr(torch, str(settings.dtype or "float32").removeprefix("torch."))
    expected = saved(recorded.materialize_(net, dtype=dtype, seed=7))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == expected.keys()
    for name, file in index["weight_map"].items():
        assert differing(safetensors.load_file(out / file)[name], expected[name]) == 0, name

    loaded = getattr(transformers, kind).from_pretrained(out)
    for name, tensor in saved(loaded).items():
        assert differing(tensor, expected[name]) == 0, name

    assert main(["verify", str(source), str(out), "--seed", "7"]) == 0
    assert main(["verify", str(out / "init.json"), str(out)]) == 0
    assert "unchecked" not in capsys.readouterr().out.partition("init.json")[0] or kind in (
        "MambaForCausalLM",
        "Wav2Vec2ForCTC",
    )
    assert main(["verify", str(source), str(out), "--seed", "8"]) == 1


def test_computed_values_are_checked_with_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = save_config("MambaForCausalLM", tmp_path / "config"), tmp_path / "out.safetensors"
    assert main(["init", str(source / "config.json"), "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["verify", str(source), str(out), "--all"]) == 0
    assert "unchecked" not in capsys.readouterr().out
    tensors = safetensors.load_file(out)
    tensors["backbone.layers.1.mixer.A_log"][3, 2] += 1
    safetensors.save_file(tensors, out)
    assert main(["verify", str(source), str(out)]) == 1
    assert "(3, 2)" in capsys.readouterr().out


def test_rules_instead_of_the_models_code(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["plan", str(config), "--rules", "llama", "--seed", "3", "--dtype", "float16", "--save", str(tmp_path / "p.json")])
        == 0
    )
    shown = capsys.readouterr().out
    assert "llama: output, std 32 ** -0.5" in shown
    assert "seed 3" in shown
    plan = Plan.load(tmp_path / "p.json")
    assert plan.rules == "llama"
    assert {line.dtype for line in plan} == {torch.float16}
    names = open_blueprint(config).plan.names()
    assert sorted(plan.names()) == sorted(names), "what rules do not speak of stays as the code has it"
    assert main(["plan", str(config), "--rules", "xavier,llama"]) == 0
    assert main(["plan", str(save_config("MambaForCausalLM", tmp_path / "mamba")), "--rules", "xavier"]) == 2
    assert "no rule covers it" in capsys.readouterr().err
    out = tmp_path / "out"
    assert main(["init", str(tmp_path / "p.json"), "--out", str(out)]) == 0
    assert main(["verify", str(config), str(out), "--rules", "llama", "--seed", "3", "--dtype", "float16"]) == 0


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, [], "which does not exist"),
        ("{", [], "a JSON file is required"),
        ("[1]", [], "a JSON object is required, got a list"),
        ('{"a": 1}', [], "a plan of this library"),
        ('{"model_type": "no such type"}', [], "no such type"),
        ("config", ["--dtype", "int8"], "a floating-point dtype is required"),
        ("config", ["--rules", "no_such_set"], "rules must be one of"),
        ("plan", ["--rules", "torch"], "rules belong to a model"),
    ],
)
def test_what_is_no_blueprint(
    config: Path, tmp_path: Path, content: str | None, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "given.json"
    if content == "config":
        shutil.copy(config / "config.json", file)
    elif content == "plan":
        wi.plan(nn.Linear(2, 2)).save(file)
    elif content is not None:
        file.write_text(content)
    out = tmp_path / "out"
    assert main(["init", str(file), "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_type_without_architectures(config: Path) -> None:
    data = json.loads((config / "config.json").read_text())
    del data["architectures"]
    (config / "config.json").write_text(json.dumps(data))
    assert type(open_blueprint(config).model).__name__ == "LlamaModel"


# ---- doctor ---------------------------------------------------------------------------------------------------------


def kinds(symptoms: list[Symptom]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for symptom in symptoms:
        found.setdefault(symptom.kind, set()).add(symptom.name)
    return found


class Ill(nn.Module):
    """One of everything that a construction can do wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten = nn.Parameter(torch.empty(3, 3))
        self.partly = nn.Parameter(torch.empty(4, 3))
        self.none = nn.Linear(0, 4)
        self.twice = nn.Linear(8, 8)
        self.zero = nn.Linear(8, 8)
        self.wide = nn.Linear(64, 64)
        self.table = nn.Embedding(9, 8, padding_idx=0)
        self.norm = nn.LayerNorm(8)
        nn.init.normal_(self.partly[1:])
        nn.init.trunc_normal_(self.twice.weight, std=0.2)
        nn.init.zeros_(self.zero.weight)
        nn.init.normal_(self.wide.weight)


def test_construction() -> None:
    with wi.deferred() as recorded:
        net = Ill()
    assert recorded.unwritten(net) == ["forgotten", "partly"]
    assert set(recorded.overwritten(net)) == {"twice.weight", "zero.weight", "wide.weight"}
    plan = recorded.plan(net, rules=[wi.Rule("*", "normal_", std=0.5)])
    found = diagnose(plan, net, recorded)
    assert kinds(found) == {
        "uninitialised": {"forgotten", "partly"},
        "overwritten": {"twice.weight", "zero.weight", "wide.weight"},
        "zero fan": {"none.weight"},
        "truncation": {"twice.weight"},
        "same rows": {"zero.weight"},
        "std": {"wide.weight"},
    }
    assert [s.name for s in found if s.is_error] == ["forgotten", "partly"]
    assert "bounds at -10 and 10 sigma" in next(s.what for s in found if s.kind == "truncation")
    assert "outputs are 8 times the inputs" in next(s.what for s in found if s.kind == "std")


@pytest.mark.parametrize("rules", ["torch", "xavier", "kaiming", "lecun"])
def test_healthy_models(rules: str) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(64, 64), nn.LSTM(8, 8), nn.Embedding(9, 4)
    )
    plan = wi.plan(net, rules, seed=0)
    assert diagnose(plan, net) == []
    assert examine(plan.apply_(net)) == []


def test_streams_that_are_used_twice() -> None:
    lines = [Entry(name, (4, 4), torch.float32, Normal(0.0, 0.5), 7, "test") for name in ("a", "b")]
    constants = [Entry(name, (4,), torch.float32, Constant(0.0), 7, "test") for name in ("c", "d")]
    assert diagnose(Plan((*lines, *constants))) == [
        Symptom("b", "same tensors", "the same stream and distribution as a: the same numbers")
    ]


def test_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {name: torch.randn(40, 30) * 0.2 for name in ("fine", "rows", "mirrored", "twin", "nan", "wide", "thin")}
    tensors |= {"zero": torch.zeros(8, 8), "scalar": torch.zeros(()), "bias": torch.zeros(8), "empty": torch.zeros(0, 4)}
    tensors["rows"][[7, 9]] = tensors["rows"][[3, 11]]
    tensors["mirrored"][5] = -tensors["mirrored"][2]
    tensors["twin"] = tensors["fine"].clone()
    tensors["nan"][1, 1] = torch.nan
    tensors["wide"] *= 10
    tensors["thin"] *= 1e-3
    tensors["ranks"] = tensors["fine"].repeat(2, 1)[:, :7].contiguous()  # as a CPU mesh leaves it
    expected = {
        "same rows": {"rows", "mirrored", "zero", "ranks"},
        "same tensors": {"twin"},
        "not finite": {"nan"},
        "std": {"wide", "thin"},
    }
    found = examine(tensors)
    assert kinds(found) == expected
    what = {symptom.name: symptom.what for symptom in found}
    assert (
        what["rows"] == "rows 3 and 7 are equal; 4 of 40 rows are like another one"
        or "rows 9 and 11 are equal; 4" in what["rows"]
    )
    assert what["mirrored"] == "rows 2 and 5 are negatives of each other; 2 of 40 rows are like another one"
    assert what["ranks"].endswith("80 of 80 rows are like another one")
    assert what["nan"] == "1 of 1200 values are infinite or NaN"
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    assert kinds(examine(tmp_path / "model.safetensors")) == expected


def test_tied_tensors_are_no_symptom() -> None:
    net = nn.ModuleDict({"embed": nn.Embedding(9, 4), "head": nn.Linear(4, 9, bias=False)})
    net["head"].weight = net["embed"].weight
    assert examine(net) == []


def test_doctor(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "parallel_runtime" in shown
    assert "model.layers.*.mlp.up_proj.weight" in shown
    assert "drawn 2 times" in shown
    assert main(["init", str(config), "--out", str(tmp_path / "out")]) == 0
    assert main(["doctor", str(tmp_path / "out")]) == 0
    assert "Nothing suspicious in its values" in capsys.readouterr().out
    torch.save({"w": torch.full((4, 4), torch.inf)}, tmp_path / "bad.pt")
    assert main(["doctor", str(tmp_path / "bad.pt")]) == 1
    assert "16 of 16 values are infinite" in capsys.readouterr().out
    wi.plan(nn.Linear(4, 4), "xavier").save(tmp_path / "plan.json")
    assert main(["doctor", str(tmp_path / "plan.json")]) == 0
    assert main(["doctor", str(tmp_path / "none.json")]) == 2


FORGETS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.forgotten = torch.nn.Parameter(torch.empty(3, 3))
        self.partly = torch.nn.Parameter(torch.empty(4, 3))
        self.register_buffer("unread", torch.empty(2))
        self.zero = torch.nn.Linear(8, 8)
        torch.nn.init.normal_(self.partly[1:])
        torch.nn.init.zeros_(self.zero.weight)
"""


@pytest.mark.filterwarnings("error")
def test_doctor_of_a_model_that_forgets_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are what it is asked for, so they are no error of the command; and the rest is looked at, too."""
    (tmp_path / "model.py").write_text(FORGETS)
    assert main(["doctor", f"{tmp_path / 'model.py'}:Net"]) == 1
    shown = capsys.readouterr().out
    for name in ("forgotten", "partly", "unread"):
        assert re.search(rf"^ {name} +uninitialised ", shown, re.MULTILINE), name
    assert shown.count("uninitialised") == 3
    assert re.search(r"^ zero\.weight +same rows ", shown, re.MULTILINE)
    for command in ("plan", "doctor --probe"):
        assert main([*command.split(), f"{tmp_path / 'model.py'}:Net"]) == 2
        assert "got 3 that it only allocates (forgotten, partly, unread)" in capsys.readouterr().err
