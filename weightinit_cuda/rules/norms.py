"""Norms that torch.nn does not have: whether a module is one, and which values of its vectors make its output's RMS 1.

Every library writes its own RMSNorm, under names of its own. What has the structure of a norm (one or two vectors of its own,
and nothing else that is learned) is run on a few numbers: a norm gives RMS 1 whatever the scale of its input, with the scale
at 1 in most, at 0 in those that compute ``x * (1 + weight)`` (Gemma's). What does anything else is none: a layer scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ..numerics.distributions import Constant
from ..tensors.named import Named
from .rule import Fill

__all__ = ["is_outside_torch", "norm_by_structure"]

Values = dict[str, float]

CLOSE = 0.02  # of 1: eps up to 1e-2 under inputs of RMS 1 is within it
_WITHIN = frozenset(vars(nn.Module()))  # attributes that every module has
_remembered: dict[object, dict[str, list[Fill]]] = {}
LONGEST = 256


def norm_by_structure(named: Named) -> list[Fill] | None:
    """1 or 0 for the vectors of a norm of somebody's own; None for all else, and where running it does not tell.

    >>> class RMSNorm(nn.Module):
    ...     def __init__(self, size, offset):
    ...         super().__init__()
    ...         self.offset, self.scale = offset, nn.Parameter(torch.empty(size))
    ...     def forward(self, x):
    ...         return x * x.square().mean(-1, keepdim=True).rsqrt() * (self.offset + self.scale)
    >>> for norm in (RMSNorm(4, offset=0.0), RMSNorm(4, offset=1.0)):
    ...     print(norm_by_structure(Named("scale", norm.scale, module=norm, attribute="scale")))
    [(Constant(value=1.0), None, 'norm by structure: RMSNorm gives RMS 1 with scale 1')]
    [(Constant(value=0.0), None, 'norm by structure: RMSNorm gives RMS 1 with scale 0')]
    """
    module = named.module
    if module is None or named.buffer or named.tensor.dim() != 1 or not _like_a_norm(module):
        return None
    return _fills(module).get(named.attribute)


def _like_a_norm(module: nn.Module) -> bool:
    """One vector, or two of one length, and nothing else: no matrix, no buffer, no child with tensors, no base in torch.nn."""
    kind: Any = type(module)  # mypy takes no type for hashable
    if not is_outside_torch(kind):
        return False
    own = _own(module)
    if not 1 <= len(own) <= 2 or any(tensor is not None for tensor in module._buffers.values()):
        return False
    if len({tuple(tensor.shape) for tensor in own.values()}) > 1 or next(iter(own.values())).dim() != 1:
        return False
    return not any(True for child in module.children() for _ in (*child.parameters(), *child.buffers()))


@lru_cache(maxsize=4096)
def is_outside_torch(kind: type[nn.Module]) -> bool:
    """Whether a class is none of torch.nn's, and derives from none."""
    return not any(base is not nn.Module and base.__module__.startswith("torch.nn.") for base in kind.__mro__)


def _own(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module._parameters.items() if tensor is not None}


def _fills(module: nn.Module) -> dict[str, list[Fill]]:
    """What each vector gets; empty: it is no norm, or nobody can tell."""
    state = {name: value for name, value in vars(module).items() if name not in _WITHIN}
    if not all(isinstance(value, bool | int | float | str | tuple | None) for value in state.values()):
        return _found_out(module)  # what it does may depend on more than can be compared
    own = ((name, None if tensor is None else tensor.shape) for name, tensor in module._parameters.items())
    key = (type(module), type(module).forward, *own, *state.items(), *map(type, state.values()))
    try:
        if key not in _remembered:
            if len(_remembered) >= LONGEST:
                _remembered.clear()
            _remembered[key] = _found_out(module)
        return _remembered[key]
    except TypeError:  # a tuple of what has no hash
        return _found_out(module)


def _found_out(module: nn.Module) -> dict[str, list[Fill]]:
    values = _measured(module)
    seen = ", ".join(f"{name} {value:g}" for name, value in values.items())
    source = f"norm by structure: {type(module).__name__} gives RMS 1 with {seen}"
    return {name: [(Constant(value), None, source)] for name, value in values.items()}


def _measured(module: nn.Module) -> Values:
    names = list(_own(module))
    length = int(_own(module)[names[0]].shape[0])
    reset = _of_reset(module, names, length)
    for x in _inputs(length):
        for scale in names:
            shift = next((name for name in names if name != scale), None)
            for value in (1.0, 0.0):
                found = {scale: value} if shift is None else {scale: value, shift: 0.0}
                if _is_norm_with(module, found, scale, shift, x) and reset in (None, found):
                    return {name: found[name] for name in names}
    return {}


def _of_reset(module: nn.Module, names: list[str], length: int) -> Values | None:
    """The constants that ``reset_parameters`` writes, where there is one; NaN where it writes none."""
    reset = getattr(type(module), "reset_parameters", None)
    if reset is None:
        return None
    copy = _copy(module, {name: torch.full((length,), torch.nan, device="cpu") for name in names})
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            reset(copy)
    except Exception:  # somebody's code, on a copy: then it does not tell
        return {}
    written = {name: copy._parameters[name] for name in names}
    return {
        name: float(tensor[0]) if tensor is not None and bool((tensor == tensor[0]).all()) else torch.nan
        for name, tensor in written.items()
    }


def _inputs(length: int) -> Iterator[Tensor]:
    """Samples of very different size; features along the last axis, then along the second."""
    numbers = (torch.arange(3 * 7 * length * 5, device="cpu") * 7919 % 1013).float() / 1013 - 0.4
    for shape in ((3, 35, length), (3, length, 7, 5)):
        yield numbers.view(shape) * torch.tensor([16.0, 256.0, 4096.0], device="cpu").view(3, *[1] * (len(shape) - 1))


def _is_norm_with(module: nn.Module, values: Values, scale: str, shift: str | None, x: Tensor) -> bool:
    """Whether the output's RMS is 1 for each sample then, changes with the scale, and is moved by the shift."""
    made = _output(module, values, x)
    if made is None or not _near(made.flatten(1).square().mean(1).sqrt(), 1.0):
        return False
    wider = _output(module, {**values, scale: values[scale] + 1}, x)
    if wider is None or not _near(wider, 2 * made):
        return False
    if shift is None:
        return True
    moved = _output(module, {**values, shift: 1.0}, x)
    return moved is not None and _near(moved - made, 1.0)


def _near(found: Tensor, wanted: Tensor | float) -> bool:
    return bool((found - wanted).abs().max() < CLOSE)


def _output(module: nn.Module, values: Values, x: Tensor) -> Tensor | None:
    """What its forward gives on a copy of it with these values; None if it cannot."""
    copy = _copy(module, {name: torch.full(tensor.shape, values[name], device="cpu") for name, tensor in _own(module).items()})
    forward: Any = copy.forward
    try:
        with torch.no_grad(), torch.device("cpu"):
            made = forward(x.clone())
        return made.float() if isinstance(made, Tensor) and made.shape == x.shape and bool(made.isfinite().all()) else None
    except Exception:  # somebody's code, on input that it may not take: then it does not tell
        return None


def _copy(module: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The module without its hooks, with tensors of its own."""
    copy = type(module).__new__(type(module))
    vars(copy).update(vars(module), _parameters=tensors)
    return copy
