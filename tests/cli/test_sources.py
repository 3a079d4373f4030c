"""What the command line takes instead of a model: functions, configurations of several libraries; and what these may not do."""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from bitwise import differing
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda.__main__ import main
from weightinit_cuda.cli.blueprint import open_blueprint
from weightinit_cuda.plans.plan import Plan

safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
transformers = pytest.importorskip("transformers", "5", reason="transformers 5 is not installed")

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 30,
}


def config_of(kind: str, folder: Path, **sizes: Any) -> Path:
    made = getattr(transformers, kind)(**sizes)
    made.save_pretrained(folder)
    return folder


def edited(folder: Path, **changes: Any) -> Path:
    """A configuration with other fields; None takes one out."""
    data = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return folder


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return edited(config_of("LlamaConfig", tmp_path / "llama", **SIZES), architectures=["LlamaForCausalLM"])


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        pytest.fail("a name was looked up in the network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)


# ---- functions ------------------------------------------------------------------------------------------------------

MODELS = """
import sys
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 2, bias=False)

def make():
    return Net()

class Inside:
    make = Net

def fails():
    raise KeyError("x")

def ends():
    sys.exit(1)

def number():
    return 3

value = 3
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module ``made_here`` in the current folder."""
    (tmp_path / "made_here.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield tmp_path / "made_here.py"
    sys.modules.pop("made_here", None)


@pytest.mark.parametrize("name", ["made_here:make", "made_here.py:make", "made_here:Net", "made_here:Inside.make", "{}:make"])
def test_functions(name: str, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The values are those of ``deferred()`` and ``materialize_``."""
    name = name.format(models)
    assert main(["init", name, "--seed", "5", "--out", "out"]) == 0
    assert main(["verify", name, "out", "--seed", "5"]) == 0
    assert main(["verify", "out/init.json", "out"]) == 0
    assert main(["doctor", name]) == 0
    namespace: dict[str, Any] = {}
    exec(MODELS, namespace)
    with wi.deferred() as recorded:
        net = namespace["Net"]()
    expected = recorded.materialize_(net, device="cpu", seed=5).state_dict()
    written = safetensors.load_file("out/model-00001-of-00001.safetensors")
    assert written.keys() == expected.keys()
    assert all(differing(written[name], expected[name]) == 0 for name in expected)
    assert main(["plan", name, "--rules", "xavier"]) == 0
    assert "xavier" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("made_here:fails", "made_here:fails fails: KeyError: 'x', made_here.py line 18."),
        ("made_here:ends", "made_here:ends fails: SystemExit: 1, made_here.py line 21."),
        ("made_here:number", "got one that makes a thing of type int"),
        ("made_here:value", "got a thing of type int"),
        ("made_here:none", "made_here has no none"),
        ("not_here:make", "No module named 'not_here'"),
        ("not_here.py:make", "not_here.py does not exist"),
        ("made_here", "which does not exist"),
        ("made_here.py", "a function of the file is required, got made_here.py. Name it: made_here.py:function."),
    ],
)
@pytest.mark.parametrize("command", ["plan", "doctor"])
def test_functions_that_make_no_model(
    name: str, message: str, command: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, name]) == 2
    assert message in capsys.readouterr().err


def test_probe_of_a_function(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = (
        "\n    example_input_array = __import__('torch').ones(16, 3)\n    def forward(self, x): return self.b(self.a(x))\n"
    )
    models.write_text(MODELS.replace("class Net(nn.Module):", "class Net(nn.Module):" + example))
    assert main(["doctor", "made_here.py:make", "--probe"]) in (0, 1)
    assert "Net, 2 places" in capsys.readouterr().out
    assert main(["doctor", "--probe"]) == 2
    assert "a config.json or module:function is required, got nothing" in capsys.readouterr().err


# ---- names of files -------------------------------------------------------------------------------------------------

MOE = {**SIZES, "num_hidden_layers": 2}
RENAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2MoeForCausalLM": (
        "Qwen2MoeConfig",
        {**MOE, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "num_experts": 4},
    ),
    "JambaForCausalLM": ("JambaConfig", {**MOE, "num_experts": 4, "mamba_d_state": 4, "tie_word_embeddings": True}),
    "Dinov2Model": ("Dinov2Config", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}),
}


@pytest.mark.parametrize("kind", RENAMED)
def test_names_are_those_of_save_pretrained(kind: str, tmp_path: Path) -> None:
    """Fused experts are saved apart, and some tensors have other names in files."""
    config, sizes = RENAMED[kind]
    source = edited(config_of(config, tmp_path / "config", **sizes), architectures=[kind])
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    assert main(["init", str(source), "--seed", "7", "--out", str(out)]) == 0
    with wi.deferred() as recorded:
        net = getattr(transformers, kind)(transformers.AutoConfig.from_pretrained(source))
    recorded.materialize_(net, device="cpu", seed=7).save_pretrained(theirs)
    expected = safetensors.load_file(theirs / "model.safetensors")
    index = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert index.keys() == expected.keys()
    assert not index.keys() <= net.state_dict().keys()
    for name, file in index.items():
        assert differing(safetensors.load_file(out / file)[name], expected[name]) == 0, name

    loaded = getattr(transformers, kind).from_pretrained(out).state_dict()
    assert all(differing(loaded[name], tensor) == 0 for name, tensor in net.state_dict().items())
    for given in (str(source), str(out / "init.json")):  # whatever is compared: their files, ours, and the model's own names
        assert main(["verify", given, str(out), "--seed", "7"]) == 0
        assert main(["verify", given, str(theirs), "--seed", "7"]) == 0
        assert main(["verify", given, str(out), "--seed", "8"]) == 1
    torch.save(net.state_dict(), tmp_path / "own.pt")
    assert main(["verify", str(source), str(tmp_path / "own.pt"), "--seed", "7"]) == 0
    assert Plan.load(out / "init.json").apply_(net) is net, "the plan is of the model"


# ---- what a configuration may not do --------------------------------------------------------------------------------


def test_unknown_classes_are_refused(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited(llama, architectures=["MyLlamaWithAHead"])
    out = tmp_path / "out"
    assert main(["init", str(llama), "--out", str(out)]) == 2
    assert "the class MyLlamaWithAHead is no class of transformers. --bare takes" in capsys.readouterr().err
    assert not out.exists()
    assert main(["init", str(llama), "--out", str(out), "--bare"]) == 0
    assert json.loads((out / "config.json").read_text())["architectures"] == ["LlamaModel"]


@pytest.mark.parametrize("named", ["LlamaForCausalLM", {"a": 1}, [3], ["pipeline"], ["AutoModel"], ["LlamaConfig"], ["utils"]])
def test_what_is_no_class_of_a_model(named: Any, llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(edited(llama, architectures=named))]) == 2
    assert capsys.readouterr().err.count("\n") == 1


CODE = """
from pathlib import Path
Path({marker!r}).touch()
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
class Config(PretrainedConfig):
    model_type = "of_its_own"
class Model(PreTrainedModel):
    config_class = Config
    def __init__(self, config):
        super().__init__(config)
        self.layer = nn.Linear(3, 3)
        self.post_init()
"""


@pytest.mark.parametrize("model_type", ["of_its_own", "llama"])
def test_remote_code_is_never_run_unasked(
    model_type: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dynamic = importlib.import_module("transformers.dynamic_module_utils")
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    marker = tmp_path / "was run"
    (llama / "code.py").write_text(CODE.format(marker=str(marker)))
    parts = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    edited(llama, model_type=model_type, auto_map=parts, architectures=["Model"])
    for command in (
        ["plan"],
        ["doctor"],
        ["doctor", "--probe"],
        ["init", "--out", str(tmp_path / "out")],
        ["plan", "--online"],
    ):
        assert main([command[0], str(llama), *command[1:]]) == 2
        assert "--trust-remote-code" in capsys.readouterr().err
        assert not marker.exists()
    assert main(["plan", str(llama), "--trust-remote-code"]) == 0
    assert "layer.weight" in capsys.readouterr().out
    assert marker.exists(), "power: it would have been run"


@pytest.mark.usefixtures("no_network")
def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    sizes = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    data = transformers.DetrConfig(d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes).to_dict()
    data |= {"backbone": "microsoft/no-such-backbone", "use_pretrained_backbone": True, "backbone_config": None}
    data |= {"use_timm_backbone": False, "architectures": ["DetrForObjectDetection"]}
    (tmp_path / "config.json").write_text(json.dumps(data))
    for command in ("plan", "doctor"):
        assert main([command, str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "needs files that are not on this machine. Nothing is downloaded without --online" in said
    assert "HF_HUB_OFFLINE" not in os.environ, "the environment is what it was"


@pytest.mark.usefixtures("no_network")
def test_kernels_are_not_fetched(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(edited(llama, _attn_implementation="kernels-community/flash-attn"))]) in (0, 2)
    assert capsys.readouterr().err.count("\n") <= 1


def test_online_is_asked_for(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = importlib.import_module("huggingface_hub.constants")
    seen = []

    def observed(*args: Any, **kwargs: Any) -> Any:
        seen.append(constants.is_offline_mode())
        return original(*args, **kwargs)

    original = transformers.AutoConfig.from_pretrained
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", observed)
    assert main(["plan", str(llama)]) == 0
    assert main(["plan", str(llama), "--online"]) == 0
    assert seen == [True, False]
    assert constants.HF_HUB_OFFLINE is False


# ---- other libraries ------------------------------------------------------------------------------------------------


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch, **members: Any) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


class Unet(nn.Module):
    """As a model of diffusers: made of a configuration, which it can write."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.layer = width, nn.Linear(width, width)

    @classmethod
    def from_config(cls, data: dict[str, Any]) -> Unet:
        return cls(data["width"])

    def save_config(self, folder: str) -> None:
        Path(folder, "config.json").write_text(json.dumps({"_class_name": "Unet", "width": self.width}))


Unet.__module__ = "diffusers.models"


def test_configurations_of_diffusers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in("diffusers", monkeypatch, Unet=Unet, utils=json)
    (tmp_path / "config.json").write_text('{"_class_name": "Unet", "width": 4}')
    out = tmp_path / "out"
    assert main(["init", str(tmp_path), "--out", str(out)]) == 0
    names = {"diffusion_pytorch_model.safetensors", "init.json", "config.json"}
    assert {path.name for path in out.iterdir()} == names
    assert main(["verify", str(tmp_path), str(out)]) == 0
    assert main(["init", str(tmp_path), "--out", str(out)]) == 2, "no checkpoint is replaced unasked"
    (tmp_path / "config.json").write_text('{"_class_name": "utils"}')
    assert main(["plan", str(tmp_path)]) == 2
    assert "_class_name must be a model of diffusers, got 'utils'" in capsys.readouterr().err


def test_configurations_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def create_model(name: str, pretrained: bool, num_classes: int, width: int) -> nn.Module:
        assert (name, pretrained) == ("net", False)
        return TimmNet(width, num_classes)

    class TimmNet(nn.Linear):
        __module__ = "timm.models"

    stand_in("timm", monkeypatch, create_model=create_model, is_model=lambda name: name == "net")
    data = {"architecture": "net.variant", "model_args": {"width": 6}, "pretrained_cfg": {"num_classes": 3}}
    (tmp_path / "config.json").write_text(json.dumps(data))
    out = tmp_path / "out"
    assert main(["init", str(tmp_path), "--out", str(out)]) == 0
    assert safetensors.load_file(out / "model.safetensors")["weight"].shape == (3, 6)
    assert json.loads((out / "config.json").read_text()) == data
    (tmp_path / "config.json").write_text('{"architecture": "no_such_net"}')
    assert main(["plan", str(tmp_path)]) == 2
    assert "architecture must be a model of timm, got 'no_such_net'" in capsys.readouterr().err


def test_libraries_that_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    assert main(["plan", str(tmp_path)]) == 2
    assert "needs timm, which cannot be imported" in capsys.readouterr().err


def test_diffusers_itself(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    net = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    net.save_config(tmp_path)
    assert main(["init", str(tmp_path), "--out", str(tmp_path / "out"), "--seed", "3"]) == 0
    loaded = diffusers.UNet2DModel.from_pretrained(tmp_path / "out").state_dict()
    expected = open_blueprint(tmp_path, seed=3).plan.apply_(net).state_dict()
    assert all(differing(loaded[name], tensor) == 0 for name, tensor in expected.items())


def test_timm_itself(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed, or not for this torch", exc_type=Exception)
    data = {"architecture": "vit_tiny_patch16_224", "num_classes": 10, "model_args": {"depth": 1, "img_size": 32}}
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert main(["init", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    net = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert wi.verify(open_blueprint(tmp_path).plan, net).ok
