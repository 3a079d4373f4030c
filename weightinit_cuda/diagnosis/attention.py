"""How sharp attention is: the share of queries that give nearly all their weight to one key.

Of ``scaled_dot_product_attention``, which keeps its weights to itself, they are computed again from q and k for a few samples
and queries; of a softmax that a model calls itself they are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .measures import local

__all__ = ["sharp_of_scores", "sharp_of_sdpa"]

ONE = 0.99  # a weight above this leaves the other keys nothing to learn from: the softmax's slope is below 4 % of its steepest
MASKED = -9e3  # scores at or below are masks: -inf, the least number of a dtype, or -1e4 as older models have it
SAMPLES, QUERIES, HEADS = 4, 64, 64  # that are computed again
NAN = math.nan


def sharp_of_scores(scores: Tensor, weights: Tensor) -> float:
    """Of a softmax over the last dimension; ``scores`` went in, ``weights`` came out.

    >>> scores = torch.tensor([[[0.0, 9.0, 0.0], [0.0, 1.0, 0.0], [5.0, -math.inf, -math.inf]]])
    >>> sharp_of_scores(scores, scores.softmax(-1))  # the third query sees one key only, so it is not counted
    0.5
    """
    scores, weights = (_few(local(t)) for t in (scores, weights))
    return _share(weights, scores > MASKED)


def sharp_of_sdpa(args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """Of a call of ``scaled_dot_product_attention``."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key = (local(given[name]) for name in ("query", "key"))
    length = query.shape[-2]
    chosen = torch.linspace(0, length - 1, min(length, QUERIES), device=query.device).long()
    few, keys = _few(query[..., chosen, :]).float(), _few(_repeated(key, query)).float()
    scale = given.get("scale") or query.shape[-1] ** -0.5
    scores = few @ keys.mT * scale
    if given.get("is_causal"):
        scores = scores.masked_fill(torch.arange(keys.shape[-2], device=query.device) > chosen[:, None], -math.inf)
    if isinstance(mask := given.get("attn_mask"), Tensor):
        scores = _masked(scores, local(mask), chosen, length)
    return _share(scores.softmax(-1), scores > MASKED)


def _repeated(key: Tensor, query: Tensor) -> Tensor:
    """Grouped keys, once for each of their queries' heads."""
    if key.dim() < 4 or key.shape[-3] == query.shape[-3]:
        return key
    return key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)


def _masked(scores: Tensor, mask: Tensor, chosen: Tensor, length: int) -> Tensor:
    mask = mask[..., chosen, :] if mask.dim() > 1 and mask.shape[-2] == length else mask
    mask = _few(mask) if mask.dim() == scores.dim() else mask
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def _few(x: Tensor) -> Tensor:
    """A few samples and heads."""
    return x[:SAMPLES, :HEADS] if x.dim() > 3 else x[: SAMPLES * HEADS]


def _share(weights: Tensor, visible: Tensor) -> float:
    """Among the queries that see two keys or more."""
    choice = visible.sum(-1) > 1
    return float((weights.amax(-1) > ONE)[choice].double().mean()) if bool(choice.any()) else NAN
