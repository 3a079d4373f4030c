"""Page 8: the residual stream of a small GPT under several rule sets, which find its blocks by structure, not by names."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from figure import Figure, axes, run
from torch import Tensor, nn
from torch.nn import functional as F
from train import logits_loss

import weightinit_cuda as wi

WORDS, WIDTH, HEADS, LAYERS = 1000, 128, 4, 12


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.attention, self.second_norm = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first_norm(x))
        return x + self.down(F.gelu(self.up(self.second_norm(x))))


class GPT(nn.Module):
    """The output is tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(64, WIDTH)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def same(std: float) -> wi.rules.Rules:
    """N(0, std²) for every weight, whatever it does."""
    return [wi.Rule(lambda named: named.tensor.dim() > 1, "normal_", std=std), wi.Rule("*.bias", "zeros_"), "torch"]


STARTS: dict[str, wi.rules.Rules] = {
    "std 0.02 everywhere": same(0.02),
    "gpt2": "gpt2",
    "xavier": "xavier",
    "auto": wi.rules.auto(torch.zeros(2, 8, dtype=torch.long)),
    "std 1 everywhere": same(1.0),
}


class Start(NamedTuple):
    verdict: str
    codes: list[str]
    stream: list[float]
    sharp: float
    loss: float


def measure(quick: bool = False) -> dict[str, Start]:
    generator = torch.Generator().manual_seed(0)
    ids, target = torch.randint(0, WORDS, (2, 4 if quick else 16, 32), generator=generator)
    found, net = {}, GPT()
    for name, rules in STARTS.items():
        report = wi.probe(wi.initialize_(net, rules, seed=0), ids, target=target, loss=logits_loss, classes=WORDS)
        blocks = [row for row in report.rows if row.kind == "block"]
        sharp = [row.saturated for row in report.rows if row.kind == "attention"]
        stream = [blocks[0].entering, *(row.rms for row in blocks)]
        found[name] = Start(report.verdict, [f.code for f in report.findings], stream, max(sharp), report.loss or math.nan)
    return found


def show(found: dict[str, Start]) -> None:
    for name, one in found.items():
        first, last = one.stream[0], one.stream[-1]
        print(
            f"{name:20} {one.verdict:4} stream {first:.3g} -> {last:.3g} (x {last / first:.1f})"
            f", one-hot {one.sharp:.2f}, first loss {one.loss:.2f}  {', '.join(one.codes)}"
        )


def draw(found: dict[str, Start]) -> Figure:
    figure, [left, right] = axes(2)
    for number, (name, one) in enumerate(found.items()):
        left.semilogy([value / one.stream[0] for value in one.stream], "o-", label=name, color=f"C{number}")
        right.barh([number], [one.loss], color=f"C{number}", height=0.6)
        right.text(one.loss * 1.05, number, f"{one.loss:.1f}", va="center", fontsize=8)
    left.set(xlabel="block", title="residual stream over its beginning, rms")
    left.axhline(3 * math.sqrt(2 * LAYERS), color="#808a94", linestyle=":")
    right.set(xscale="log", xlim=(1, 300), yticks=range(len(found)), yticklabels=list(found))
    right.axvline(math.log(WORDS), color="#808a94", linestyle="--")
    right.set_title("first loss; dashed: ln 1000")
    right.invert_yaxis()
    return figure


if __name__ == "__main__":
    run("08_transformers", measure, draw, show)
