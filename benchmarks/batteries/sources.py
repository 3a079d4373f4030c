"""Words of every kind of stream that the library makes, and controls: streams with a known defect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

import weightinit_cuda as wi
from weightinit_cuda import engine

from ..quality.philox import philox
from .words import Words

__all__ = ["SOURCES", "Source"]

SEED = 20261129
BY_NAME = 256  # values that a tensor has


class Source(NamedTuple):
    """A stream of words.

    Args:
        name: what it is.
        words: makes so many of them.
        seen_by: of a control, a test that must fail on it; None for ours, on which none may.
    """

    name: str
    words: Callable[[int], Words]
    seen_by: str | None = None


def _words(block: Any, stream: Any, seed: Any, rounds: int = 10) -> Words:
    return philox(block, stream, seed, rounds).reshape(-1)


def _of_one_stream(n: int) -> Words:
    return wi.bits(SEED, stream=3, n=n).numpy().astype(np.uint32)


def _packed(bytes_of: Words) -> Words:
    return bytes_of.astype(np.uint8).view(np.uint32)


def _low_bits(n: int) -> Words:
    return _packed(_of_one_stream(4 * n) & np.uint32(255))


def _high_bits(n: int) -> Words:
    return _packed(_of_one_stream(4 * n) >> np.uint32(24))


def _streams(n: int) -> Words:
    """The first block of one stream after the other."""
    return _words(0, np.arange(n // 4), SEED)


def _seeds(n: int) -> Words:
    return _words(0, 3, np.arange(n // 4))


def _names(n: int) -> Words:
    """Tensors of a model, one after the other."""
    streams = engine.streams_of([f"model.layers.{i}.self_attn.q_proj.weight" for i in range(n // BY_NAME)])
    return _words(np.arange(BY_NAME // 4), np.array(streams, dtype=np.uint64)[:, None], SEED)


def _of_units(unit: NDArray[np.float64]) -> Words:
    """16 bits of each value in [0, 1], two to a word."""
    return np.minimum(unit * 65536, 65535).astype(np.uint16).view(np.uint32)


def _normals(n: int, std: float = 1.0) -> Words:
    x = wi.init.normal_(torch.empty(2 * n), 0.0, std, seed=SEED).double()
    return _of_units(torch.special.ndtr(x).numpy())


def _doubles(n: int) -> Words:
    x = wi.init.normal_(torch.empty(2 * n, dtype=torch.float64), seed=SEED)
    return _of_units(torch.special.ndtr(x).numpy())


def _truncated(n: int, low: float = -2.0, high: float = 2.0, assumed: float = 2.0) -> Words:
    x = wi.init.trunc_normal_(torch.empty(2 * n), 0.0, 1.0, low, high, seed=SEED).double()
    below = stats.norm.cdf(-assumed)
    return _of_units(((torch.special.ndtr(x) - below) / (1 - 2 * below)).clamp(0, 1).numpy())


def _bfloat16(n: int) -> Words:
    """Between the bounds of what rounds to the value, by NumPy's numbers: uniform, if each value is as likely as it must be."""
    x = wi.init.normal_(torch.empty(2 * n, dtype=torch.bfloat16), seed=SEED)
    there = x.view(torch.int16).int()
    magnitude = there & 0x7FFF
    edges = [((magnitude + step) << 16).view(torch.float32).double() for step in (-1, 0, 1)]
    edges[0][magnitude == 0] = 0.0
    low, high = (torch.special.ndtr((a + b) / 2).numpy() for a, b in ((edges[0], edges[1]), (edges[1], edges[2])))
    inside = low + np.random.default_rng(SEED).random(2 * n) * (high - low)
    return _of_units(np.where((there < 0).numpy(), 1 - inside, inside))


def _few_rounds(n: int) -> Words:
    return _words(np.arange(n // 4), 3, SEED, rounds=4)


def _congruential(n: int) -> Words:
    """x -> 1664525 x + 1013904223 mod 2^32, by leaps: the period of a low bit is short."""
    index = np.arange(n, dtype=np.uint32)
    factor, term, x = 1664525, 1013904223, np.full(n, SEED & 0xFFFFFFFF, dtype=np.uint32)
    for bit in range(32):
        leap = (index >> np.uint32(bit) & np.uint32(1)).astype(bool)
        x = np.where(leap, x * np.uint32(factor) + np.uint32(term), x)
        factor, term = factor * factor % 2**32, term * (factor + 1) % 2**32
    return x


def _xorshift(n: int) -> Words:
    """Marsaglia's, of 32 bits: linear over two elements, so 32 words in a row are always independent. 2^11 of each start."""
    x, rows = np.arange(1, n // 2048 + 1, dtype=np.uint32) * np.uint32(2654435761), []
    for _ in range(2048):
        x = x ^ x << np.uint32(13)
        x = x ^ x >> np.uint32(17)
        x = x ^ x << np.uint32(5)
        rows.append(x)
    return np.ascontiguousarray(np.stack(rows, -1)).reshape(-1)


def _overlapping(n: int) -> Words:
    """Streams that begin one block after another."""
    return _words(np.add.outer(np.arange(n // BY_NAME), np.arange(BY_NAME // 4)), 3, SEED)


SOURCES = (
    Source("words of a stream", _of_one_stream),
    Source("low bytes", _low_bits),
    Source("high bytes", _high_bits),
    Source("consecutive streams", _streams),
    Source("consecutive seeds", _seeds),
    Source("names", _names),
    Source("normal float32, mapped back", _normals),
    Source("normal float64, mapped back", _doubles),
    Source("normal bfloat16, mapped back", _bfloat16),
    Source("truncated normal, mapped back", _truncated),
    Source("control: Philox, 4 rounds", _few_rounds, "high pairs"),
    Source("control: congruential", _congruential, "low pairs"),
    Source("control: xorshift", _xorshift, "ranks"),
    Source("control: streams overlap", _overlapping, "birthdays"),
    Source("control: normal, 2 % too wide", lambda n: _normals(n, 1.02), "frequencies"),
    Source("control: cut at 2.02 instead of 2", lambda n: _truncated(n, -2.02, 2.02), "frequencies"),
)
