"""A Llama, small enough to read: the model that the distributed examples initialise.

Its initialisation is its own, written against torch.nn.init as everybody writes it: truncated normals, narrower with depth for
what is added to the residual stream (as in torchtitan). Nothing here knows of weightinit_cuda, of ranks or of meshes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Config(NamedTuple):
    """Shape of a model; ``dim`` and ``hidden`` are widths, ``vocabulary`` counts tokens."""

    dim: int
    layers: int
    heads: int
    key_value_heads: int
    hidden: int
    vocabulary: int
    length: int = 2048

    @property
    def head(self) -> int:
        return self.dim // self.heads


TINY = Config(dim=64, layers=3, heads=8, key_value_heads=4, hidden=172, vocabulary=509, length=64)  # 509 divides by nothing
LLAMA_1B = Config(dim=2048, layers=16, heads=32, key_value_heads=8, hidden=8192, vocabulary=128256)  # Llama 3.2 1B


def rotations(config: Config, base: float = 500_000.0) -> Tensor:
    """cos and sin of every position and frequency, (length, head / 2, 2)."""
    frequencies = base ** -(torch.arange(0, config.head, 2).float() / config.head)
    angles = torch.outer(torch.arange(config.length).float(), frequencies)
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Pairs of numbers of x, (batch, length, heads, head), turned by their position's angles."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation[: x.shape[1], None].unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head = config.head
        self.wq = nn.Linear(config.dim, config.heads * config.head, bias=False)
        self.wk = nn.Linear(config.dim, config.key_value_heads * config.head, bias=False)
        self.wv = nn.Linear(config.dim, config.key_value_heads * config.head, bias=False)
        self.wo = nn.Linear(config.heads * config.head, config.dim, bias=False)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        q, k, v = (w(x).unflatten(-1, (-1, self.head)) for w in (self.wq, self.wk, self.wv))
        q, k, v = (t.transpose(1, 2) for t in (rotated(q, rotation), rotated(k, rotation), v))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.wo(seen.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden, bias=False)
        self.w2 = nn.Linear(config.hidden, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, config: Config, number: int) -> None:
        super().__init__()
        self.number = number
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = nn.RMSNorm(config.dim)
        self.ffn_norm = nn.RMSNorm(config.dim)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.feed_forward(self.ffn_norm(x))

    def init_weights(self) -> None:
        std = 0.02 / (2 * (self.number + 1)) ** 0.5
        attention, feed_forward = self.attention, self.feed_forward
        for linear in (attention.wq, attention.wk, attention.wv, feed_forward.w1):
            nn.init.trunc_normal_(linear.weight, std=0.02)
        for linear in (attention.wo, feed_forward.w2, feed_forward.w3):
            nn.init.trunc_normal_(linear.weight, std=std)
        self.attention_norm.reset_parameters()
        self.ffn_norm.reset_parameters()


class Llama(nn.Module):
    """Tokens in, logits out. A pipeline stage is a Llama without some of its parts."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings: nn.Embedding | None = nn.Embedding(config.vocabulary, config.dim)
        self.layers = nn.ModuleDict({str(number): Block(config, number) for number in range(config.layers)})
        self.norm: nn.RMSNorm | None = nn.RMSNorm(config.dim)
        self.output: nn.Linear | None = nn.Linear(config.dim, config.vocabulary, bias=False)
        self.register_buffer("rotation", rotations(config), persistent=False)
        self.init_weights()

    def init_weights(self) -> None:
        """The model's own initialisation; also to be called again once a model built on meta has got memory."""
        self.rotation: Tensor
        with torch.device("cpu"):  # cos and sin of a GPU have other bits
            self.rotation.copy_(rotations(self.config))
        if self.tok_embeddings is not None:
            nn.init.normal_(self.tok_embeddings.weight)
        for block in self.layers.values():
            block.init_weights()
        if self.norm is not None:
            self.norm.reset_parameters()
        if self.output is not None:
            std = self.config.dim**-0.5
            nn.init.trunc_normal_(self.output.weight, std=std, a=-3 * std, b=3 * std)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.tok_embeddings is None else self.tok_embeddings(x)
        for block in self.layers.values():
            x = block(x, self.rotation)
        x = x if self.norm is None else self.norm(x)
        return x if self.output is None else self.output(x)
