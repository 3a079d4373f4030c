"""How the reference cuts a box of a tensor: into boxes of bounded scratch memory, those into runs of consecutive indices."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["Dims", "box_runs", "boxes", "scratch_values"]

Dims = tuple[int, ...]


def scratch_values(device: torch.device) -> int:
    """Values to make at a time: below 64 MiB of temporaries, on the CPU no more than a cache's worth for every thread; on a
    GPU, where the few hundred kernels of a chunk take their time whatever its length, below 1 GiB and 1/128 of its memory.

    3/2 of a power of two, since halving stops below it: 2^18, or 2^16 a thread, for most tensors.
    """
    if device.type == "cpu":
        return min(torch.get_num_threads() * 3 << 15, 3 << 17)
    if device.type != "cuda":
        return 3 << 17
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(3 << 17, min(memory >> 15, 3 << 21))  # 170 bytes a value


def _run_dims(global_shape: Dims, shape: Dims) -> int:
    """How many leading dimensions of a box enumerate its runs of consecutive indices.

    Trailing dimensions that the box takes whole, and the first one that it does not, make one run.
    """
    leading = len(shape)
    while leading > 0:
        leading -= 1
        if shape[leading] != global_shape[leading]:
            break
    return leading


def boxes(global_shape: Dims, offset: Dims, shape: Dims, limit: int) -> Iterator[tuple[Dims, Dims]]:
    """Cuts a box into boxes that take at most limit values to make, halving the first dimension longer than one."""
    if 0 in shape:
        return
    leading = _run_dims(global_shape, shape)
    made = math.prod(shape[:leading]) * (math.prod(shape[leading:]) + 3)  # a run touches one block more than it fills
    if made <= limit or math.prod(shape) == 1:
        yield offset, shape
        return
    d = next(i for i, n in enumerate(shape) if n > 1)
    half = shape[d] // 2
    for start, n in ((offset[d], half), (offset[d] + half, shape[d] - half)):
        yield from boxes(global_shape, (*offset[:d], start, *offset[d + 1 :]), (*shape[:d], n, *shape[d + 1 :]), limit)


def box_runs(global_shape: Dims, offset: Dims, shape: Dims, device: torch.device) -> tuple[Tensor, int]:
    """A box of the global tensor as runs of consecutive indices: their first indices (R,) and their length."""
    leading = _run_dims(global_shape, shape)
    strides = [math.prod(global_shape[d + 1 :]) for d in range(len(shape))]
    first = sum(o * stride for o, stride in zip(offset, strides, strict=True))
    starts = torch.tensor([(first + (1 << 63)) % (1 << 64) - (1 << 63)], device=device)  # the same bits in an int64
    for n, stride in zip(shape[:leading], strides, strict=False):
        starts = (starts[:, None] + torch.arange(n, device=device) * stride).flatten()
    return starts, math.prod(shape[leading:])
