"""One call of a function of ``init``: check everything, draw a seed if none is given, hand its jobs to the engine.

The functions of ``init`` know what they mean (``schemes``); here is what they share. The common call, a plain tensor without
extras, takes a short path: on a 10-element bias Python is all the time there is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from .. import engine
from ..engine import backend
from ..engine.checks import is_virtual, target
from ..engine.drop_in import draw_and_fill, drawn
from ..engine.job import FillJob
from ..numerics.distributions import Distribution
from ..numerics.rounding import REAL_DTYPE
from ..numerics.streams import UNNAMED
from ..tensors.shards import Part, is_dtensor, mark_written, parts
from ..tensors.torch_private import dispatch_modes, functorch_transform, jit_trace
from . import schemes
from .arguments import Draw, Shape, Stream, generator_for, parts_of, seed_of, stream_number
from .catalog import AXES, CATALOG

__all__ = [
    "Generator",
    "Shape",
    "Stream",
    "fill",
    "place",
    "traced",
]

_dynamo_traces = torch.compiler.is_dynamo_compiling

Generator = torch.Generator


def traced() -> bool:
    """Whether operators are traced, faked or batched here, so that a fill must be one."""
    return bool(_dynamo_traces() or dispatch_modes() or jit_trace() or functorch_transform() is not None)


def fill(
    tensor: Tensor,
    scheme: Callable[..., Distribution],
    args: tuple[Any, ...],
    generator: Generator | None,
    seed: SupportsIndex | None,
    stream: Stream,
    global_shape: Shape | None,
    offset: Shape | None,
    flat_range: Shape | None,
) -> Tensor:
    """Checks everything, draws a seed if none is given, fills. The common call is the short path at the beginning."""
    is_plain = (
        seed is None
        and generator is None
        and stream is UNNAMED
        and global_shape is None
        and offset is None
        and flat_range is None
    )
    if is_plain and backend.native and drawn(tensor, scheme, args):
        return tensor
    if (dispatch_modes() or jit_trace()) and not is_dtensor(tensor):  # whose shards are filled one by one
        return _fill_operator(tensor, scheme, args, generator, seed, stream, global_shape, offset, flat_range)
    try:
        distribution = scheme(*args)
    except (TypeError, AttributeError):
        if not isinstance(tensor, Tensor):
            raise AttributeError(f"'{type(tensor).__name__}' object has no attribute '{scheme.__name__}'") from None
        distribution = inspect.unwrap(scheme)(*schemes.plain(args))
    if is_plain and draw_and_fill(tensor, distribution):
        return tensor
    if functorch_transform() is not None:
        return _fill_operator(tensor, scheme, args, generator, seed, stream, global_shape, offset, flat_range)
    draw = Draw(generator, seed, stream, global_shape, offset, flat_range)
    jobs = _jobs(scheme.__name__, tensor, distribution, draw)
    if len(jobs) == 1 and jobs[0].region is None:
        engine.fill_tensor(jobs[0].tensor, distribution, jobs[0].seed, jobs[0].stream)
    elif jobs:
        engine.fill(jobs)
    mark_written(tensor)  # where this rank holds nothing, too: an error of autograd should meet all ranks
    return tensor


def _fill_operator(tensor: Tensor, scheme: Callable[..., Distribution], args: tuple[Any, ...], *drawn: Any) -> Tensor:
    """As :func:`fill`, by an operator."""
    function = _name(scheme)
    own = args[2:] if CATALOG[function].by_shape else args[1:]  # without dtype and shape
    return _as_operator(function, tensor, own, Draw(*drawn))


def _name(scheme: Any) -> str:
    """In torch 2.6 torch.compile knows no name of a function that remembers its results, but what it wraps."""
    return str(scheme.__wrapped__.__name__)


# torch.compile traces this one instead, so that ordinary calls need not ask whether it does: a tenth of a fill of ten elements.
fill._torchdynamo_inline = _fill_operator  # type: ignore[attr-defined]


def _as_operator(function: str, tensor: Tensor, own: Sequence[Any], draw: Draw) -> Tensor:
    """Calls ``torch.ops.weightinit_cuda``'s operator of that name (``torch_ops``), with what differs from its defaults."""
    drawn: dict[str, Any] = {}
    if draw.generator is not None:
        if jit_trace():
            raise RuntimeError(
                f"{function}: a fill in torch.jit.trace must draw from the default generator or from a seed, got generator=,"
                " which a trace cannot keep. Give seed=, or fill outside of the trace."
            )
        drawn["generator"] = draw.generator
    if draw.seed is not None:
        drawn["seed"] = _signed(seed_of(function, draw.seed))
    if isinstance(draw.stream, str):
        drawn["name"] = draw.stream
    elif draw.stream is not UNNAMED:
        drawn["stream"] = _signed(stream_number(function, draw.stream))
    for key, value in (("global_shape", draw.global_shape), ("offset", draw.offset), ("flat_range", draw.flat_range)):
        if value is not None:
            drawn[key] = list(value)
    with torch.no_grad():
        getattr(torch.ops.weightinit_cuda, function)(tensor, *_operands(function, own), **drawn)
    return tensor


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _operands(function: str, own: Sequence[Any]) -> list[Any]:
    """As an operator takes them: axes, which come last, are lists."""
    axes = len(own) - len(AXES) if CATALOG[function].axes else len(own)
    lists = [[value] if isinstance(value, int) else value and list(value) for value in own[axes:]]
    return [*own[:axes], *lists]


def _jobs(function: str, tensor: Tensor, distribution: Distribution, draw: Draw) -> list[FillJob]:
    """The checked fills of one call, their seed drawn if none is given; none where nothing is to be drawn or written.

    A shard without elements still draws: the other shards of its tensor do, and their generators must stay in step.
    """
    local = parts_of(function, tensor, draw)
    number = stream_number(function, draw.stream)
    generator = generator_for(function, tensor, draw.generator)
    if draw.seed is not None and generator is not None:
        raise ValueError(f"{function}: give seed or generator, not both, got seed={draw.seed} and {generator}")
    key = None if draw.seed is None else seed_of(function, draw.seed)
    targets = [(target(function, part, distribution), region) for part, region in local]
    if _has_nothing(tensor, targets, draw.global_shape):
        return []
    if key is None:
        if generator is None and is_dtensor(tensor):  # ranks seed this one alike; DTensor's own random state stays as it is
            generator = torch.default_generator
        key = engine.draw_seed(tensor, generator)
    return [FillJob(part, distribution, key, number, region) for part, region in targets]


def _has_nothing(tensor: Tensor, targets: Sequence[Part], global_shape: Shape | None) -> bool:
    """Whether there is no memory by design, or the global tensor has no elements."""
    if is_virtual(tensor) or any(is_virtual(part) for part, _ in targets):
        return True
    whole = [part.shape for part, region in targets if region is None] or [tensor.shape]
    return 0 in (whole[0] if global_shape is None else global_shape)


def place(tensor: Tensor, scheme: Callable[..., Distribution], *args: Any) -> Tensor:
    """A fill without randomness, ``scheme(dtype, shape, *args)``. Dtypes that no kernel writes (integers) are copied from
    float32."""
    if traced() and not is_dtensor(tensor):
        return _as_operator(_name(scheme), tensor, args[1:], Draw())
    dtype = tensor.dtype if tensor.dtype in REAL_DTYPE else torch.float32
    distribution = scheme(dtype, *args)
    targets = [(target(scheme.__name__, part, distribution), region) for part, region in parts(tensor, scheme.__name__)]
    if _has_nothing(tensor, targets, None):
        return tensor
    for destination, region in targets:
        made = destination if dtype == tensor.dtype else torch.empty(destination.shape, dtype=dtype, device=destination.device)
        if region is None:
            engine.fill_tensor(made, distribution, 0)
        else:
            engine.fill([FillJob(made, distribution, 0, 0, region)])
        if made is not destination:
            with torch.no_grad():
                destination.copy_(made)
    mark_written(tensor)
    return tensor
