"""What one fill is: plain data, checked nowhere else.

A :class:`FillJob` names a tensor, what to put into it, which random numbers to use and whether to combine them with what is
there; its region says where a local tensor lies in the global one, for shards. Everything above (``init``, plans, shards) makes
jobs; everything below (``engine`` and the backends) executes them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..numerics.combine import STORE, Combine
from ..numerics.distributions import Distribution
from ..tensors.boxes import Region

__all__ = ["FillJob"]


class FillJob(NamedTuple):
    """One fill of one tensor.

    Args:
        tensor: the tensor to write, any strides, on any device.
        distribution: what to write.
        seed: 64-bit seed, the key of the generator.
        stream: 64-bit stream, the high half of the counter. 0 is the stream of unnamed draws.
        region: where the tensor lies in a global tensor; None means it is the global tensor.
        name: qualified name for error messages; empty if it has none.
        combine: what becomes of the elements that are there; they are overwritten unless it says otherwise.
    """

    tensor: torch.Tensor
    distribution: Distribution
    seed: int
    stream: int = 0
    region: Region | None = None
    name: str = ""
    combine: Combine = STORE
