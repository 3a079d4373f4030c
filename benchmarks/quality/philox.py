"""Philox4x32 of any number of rounds, for arrays: a plain copy of the specification, for controls and many streams."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["philox"]


def philox(block: Any, stream: Any, seed: Any, rounds: int = 10) -> NDArray[np.uint32]:
    """Four words of each block.

    Args:
        block, stream, seed: 64-bit numbers, or arrays of them that are broadcast.
        rounds: the library takes 10.

    Returns:
        Words of shape (..., 4).
    """
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    block, stream, seed = np.broadcast_arrays(*(np.asarray(x, np.uint64) for x in (block, stream, seed)))
    x0, x1, x2, x3 = block & low, block >> half, stream & low, stream >> half
    for i in range(rounds):
        k0 = (seed + np.uint64(i * 0x9E3779B9 & 0xFFFFFFFF)) & low
        k1 = ((seed >> half) + np.uint64(i * 0xBB67AE85 & 0xFFFFFFFF)) & low
        p0, p1 = x0 * np.uint64(0xD2511F53), x2 * np.uint64(0xCD9E8D57)
        x0, x1, x2, x3 = (p1 >> half) ^ x1 ^ k0, p1 & low, (p0 >> half) ^ x3 ^ k1, p0 & low
    return np.stack([x0, x1, x2, x3], -1).astype(np.uint32)
