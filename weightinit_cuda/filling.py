"""One call of a function of ``init``: check everything, draw a seed if none is given, hand one job to the engine.

The functions of ``init`` know what they mean (``schemes``); here is what they share. The common call, a plain tensor without
extras, takes a short path: on a 10-element bias Python is all the time there is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from . import engine, schemes
from .arguments import generator_for, is_virtual, region_of, seed_of, stream_number, target
from .distributions import Distribution
from .engine import draw_and_fill
from .formats import REAL_DTYPE
from .job import FillJob
from .streams import UNNAMED

__all__ = ["Generator", "Shape", "Stream", "fill", "job_of", "place"]

Generator = torch.Generator
Shape = Sequence[int]
Stream = SupportsIndex | str


def fill(
    tensor: Tensor,
    scheme: Callable[..., Distribution],
    args: tuple[Any, ...],
    generator: Generator | None,
    seed: SupportsIndex | None,
    stream: Stream,
    global_shape: Shape | None,
    offset: Shape | None,
) -> Tensor:
    """Checks everything, draws a seed if none is given, fills. The common call is the short path in the middle."""
    try:
        distribution = scheme(*args)
    except (TypeError, AttributeError):
        if not isinstance(tensor, Tensor):
            raise AttributeError(f"'{type(tensor).__name__}' object has no attribute '{scheme.__name__}'") from None
        distribution = inspect.unwrap(scheme)(*schemes.plain(args))
    if (
        seed is None
        and generator is None
        and stream is UNNAMED
        and global_shape is None
        and offset is None
        and draw_and_fill(tensor, distribution)
    ):
        return tensor
    job = job_of(scheme.__name__, tensor, distribution, generator, seed, stream, global_shape, offset)
    if job is not None:
        engine.fill([job])
    return tensor


def job_of(
    function: str,
    tensor: Tensor,
    distribution: Distribution,
    generator: Generator | None,
    seed: SupportsIndex | None,
    stream: Stream,
    global_shape: Shape | None,
    offset: Shape | None,
) -> FillJob | None:
    """The checked fill of one call, its seed drawn if none is given; None where nothing is to be drawn or written.

    A shard without elements still draws: the other shards of its tensor do, and their generators must stay in step.
    """
    region = region_of(function, tensor, global_shape, offset)
    number = stream_number(function, stream)
    generator = generator_for(function, tensor, generator)
    if seed is not None and generator is not None:
        raise ValueError(f"{function}: give seed or generator, not both, got seed={seed} and {generator}")
    key = None if seed is None else seed_of(function, seed)
    destination = target(function, tensor)
    if is_virtual(tensor) or 0 in (destination.shape if region is None else region.global_shape):
        return None
    if key is None:
        key = engine.draw_seed(tensor, generator)
    return FillJob(destination, distribution, key, number, region)


def place(tensor: Tensor, scheme: Callable[..., Distribution], *args: Any) -> Tensor:
    """A fill without randomness, ``scheme(dtype, *args)``. Dtypes that no kernel writes (integers) are copied from float32."""
    dtype = tensor.dtype if tensor.dtype in REAL_DTYPE else torch.float32
    distribution = scheme(dtype, *args)
    destination = target(scheme.__name__, tensor)
    if is_virtual(tensor):
        return tensor
    if dtype == tensor.dtype:
        engine.fill_tensor(destination, distribution, 0)
    else:
        ones = torch.empty(tensor.shape, dtype=dtype, device=tensor.device)
        engine.fill_tensor(ones, distribution, 0)
        with torch.no_grad():
            destination.copy_(ones)
    return tensor
