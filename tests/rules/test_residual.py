"""What ends a residual branch, by structure; and what the sets that scale by depth make of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Normal, TruncNormal
from weightinit_cuda.rules.residual import stacks_of


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out, self.qkv = nn.Linear(8, 8), nn.Linear(8, 24)  # not in the order of their use

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(torch.softmax(q @ k.transpose(-1, -2), -1) @ v)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.mix, self.fc, self.down = Attention(), nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.n1(x))
        return x + self.down(torch.relu(self.fc(self.n2(x))))


class Untraceable(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x


class Plain(Block):
    """Adds nothing to its input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.fc(self.mix(x))))


class Net(nn.Module):
    def __init__(self, kind: type[nn.Module], blocks: int = 3) -> None:
        super().__init__()
        self.words, self.blocks = nn.Embedding(9, 8), nn.ModuleList(kind() for _ in range(blocks))
        self.head = nn.Linear(8, 9, bias=False)


def ends(model: nn.Module) -> list[tuple[str, int]]:
    return [(end.name, end.block) for stack in stacks_of(model) for end in stack.ends]


def test_by_sums() -> None:
    expected = [(f"blocks.{n}.{name}.weight", n) for n in range(3) for name in ("mix.out", "down")]
    assert ends(Net(Block)) == expected
    [stack] = stacks_of(Net(Block))
    assert (stack.name, stack.blocks, stack.ends[0].seen) == ("blocks", 3, "its product is added to the block's input")


def test_by_parts() -> None:
    """Without a graph: the last weight of a part by registration, if it is as wide as the block."""
    model = Net(Untraceable)
    for block in model.blocks:
        block.mix = nn.Sequential(nn.Linear(8, 24), nn.Linear(24, 8))
    assert ends(model) == [(f"blocks.{n}.{name}.weight", n) for n in range(3) for name in ("mix.1", "down")]


def test_nothing_is_added() -> None:
    assert ends(Net(Plain)) == []
    assert stacks_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))) == []


def test_layers_of_torch() -> None:
    model = nn.Transformer(8, 2, 2, 2, 16, batch_first=True)
    assert [name for name, _ in ends(model)] == [
        *(f"encoder.layers.{n}.{name}.weight" for n in (0, 1) for name in ("self_attn.out_proj", "linear2")),
        *(
            f"decoder.layers.{n}.{name}.weight"
            for n in (0, 1)
            for name in ("self_attn.out_proj", "multihead_attn.out_proj", "linear2")
        ),
    ]


@pytest.mark.parametrize(
    ("kind", "config", "found"),
    [
        ("BertModel", "BertConfig", {"attention.output.dense", "output.dense"}),
        ("LlamaModel", "LlamaConfig", {"self_attn.o_proj", "mlp.down_proj"}),
        ("GPTNeoXModel", "GPTNeoXConfig", {"attention.dense", "mlp.dense_4h_to_h"}),
        ("OPTModel", "OPTConfig", {"self_attn.out_proj", "fc2"}),
    ],
)
def test_models_of_transformers(kind: str, config: str, found: set[str]) -> None:
    transformers = pytest.importorskip("transformers", "5")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 16}
    with torch.device("meta"):
        model = getattr(transformers, kind)(getattr(transformers, config)(**sizes, ffn_dim=16, word_embed_proj_dim=8))
    inside = {name.split(f".{block}.")[1].removesuffix(".weight") for name, block in ends(model)}
    assert inside == found
    assert len(ends(model)) == 4


WHISPER = {
    f"{part}_{what}": number
    for part in ("encoder", "decoder")
    for what, number in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 16))
}


@pytest.mark.parametrize(
    ("kind", "sizes", "found"),
    [
        ("T5", {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}, {"o", "wo"}),
        ("Whisper", {"d_model": 8, "pad_token_id": 0, "decoder_start_token_id": 1, **WHISPER}, {"out_proj", "fc2"}),
        (
            "Mixtral",
            {
                "hidden_size": 8,
                "num_hidden_layers": 10,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "num_local_experts": 4,
            },
            {"o_proj", "experts"},
        ),
        ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [3, 3], "layer_type": "basic"}, {"convolution"}),
    ],
)
def test_stacks_in_stacks_and_experts(kind: str, sizes: dict[str, object], found: set[str]) -> None:
    """An encoder and a decoder of one class, two attentions in a block, a router, stages of blocks."""
    transformers = pytest.importorskip("transformers", "5")
    words = {} if kind == "ResNet" else {"vocab_size": 16}
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes, **words))
    names = [name for name, _ in ends(model)]
    assert {name.split(".")[-2] for name in names} == found
    assert len(names) == {"ResNet": 5, "Mixtral": 20}.get(kind, 10)


@pytest.mark.filterwarnings("error")
def test_gpt2_finds_branches_under_other_names() -> None:
    made = wi.plan(Net(Block), "gpt2")
    narrow = Normal(0.0, 0.02 / math.sqrt(6))
    for name in ("mix.out", "down"):
        entry = made[f"blocks.1.{name}.weight"][0]
        assert entry.distribution == narrow
        assert entry.source == "gpt2: residual, std 0.02 / sqrt(6); its product is added to the block's input"
    assert made["blocks.1.mix.qkv.weight"][0].distribution == Normal(0.0, 0.02)
    assert wi.plan(Net(Block), wi.rules.gpt2(layers=50))["blocks.0.down.weight"][0].distribution == Normal(0.0, 0.002)


@pytest.mark.filterwarnings("error")
def test_llama_finds_branches_and_the_output_under_other_names() -> None:
    made = wi.plan(Net(Block), "llama")
    for n in range(3):
        assert made[f"blocks.{n}.down.weight"][0].distribution == TruncNormal(0.0, 0.02 / math.sqrt(2 * (n + 1)), -2.0, 2.0)
    assert made["blocks.2.fc.weight"][0].distribution == TruncNormal(0.0, 0.02, -2.0, 2.0)
    std = 8**-0.5
    assert made["head.weight"][0].distribution == TruncNormal(0.0, std, -3 * std, 3 * std)


@pytest.mark.parametrize("rules", ["gpt2", "llama"])
def test_what_was_not_found_is_said(rules: str) -> None:
    with pytest.warns(UserWarning, match=rf"^{rules}: no weight is called .* in the 3 blocks of blocks, .* narrower by depth"):
        wi.plan(Net(Plain), rules)


def test_half_of_the_names() -> None:
    """A block with one weight of the name that the set knows is looked at, too."""
    model = Net(Block)
    for block in model.blocks:
        block.c_proj = block.down  # a second name of one of the two
    made = wi.plan(model, "gpt2")
    assert {made[f"blocks.0.{name}.weight"][0].distribution for name in ("mix.out", "down")} == {
        Normal(0.0, 0.02 / math.sqrt(6))
    }
