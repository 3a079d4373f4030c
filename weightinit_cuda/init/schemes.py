"""Which distribution a call of ``init`` means: from dtype, shape and the function's own arguments to a Distribution.

Each function has the name of the function in ``init`` it serves. It refuses what torch refuses, in torch's words, by letting
torch's own in-place method look at the arguments on a scratch tensor. Results are cached: the second call with the same
arguments costs one look-up. This file knows shapes and dtypes, but neither the tensor to fill nor seeds.
"""

from __future__ import annotations

import functools
import math
import numbers
import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..engine.orthogonal import computing_dtype
from ..numerics.distributions import (
    Constant,
    Distribution,
    Normal,
    OneHot,
    Orthogonal,
    SparseNormal,
    TruncNormal,
    Uniform,
)
from ..numerics.lowering import lower
from ..numerics.probability import compensated_std, truncated_std
from ..tensors.torch_private import functorch_transform, outside_transforms, without_modes
from . import fans as widths
from .fans import Axes

__all__: list[str] = []  # used as schemes.<function of init>

Shape = Sequence[int]
Scheme = TypeVar("Scheme", bound=Callable[..., Distribution])

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)

_torch_uniform_ = torch.Tensor.uniform_  # bound here, so that they stay torch's own while patched() is active
_torch_normal_ = torch.Tensor.normal_


def _cached(function: Scheme) -> Scheme:
    """Remembers results by arguments. Refuses a 0-dim tensor, whose value can change: see :func:`plain`."""

    @functools.lru_cache(maxsize=4096, typed=True)
    @functools.wraps(function)
    def cached(*args: Any) -> Distribution:
        if any(isinstance(arg, Tensor) and arg.dim() == 0 for arg in args):
            raise TypeError(f"{function.__name__}: a tensor cannot be remembered by value")
        with without_modes(), _outside_transforms():  # our scratch tensors are nobody's business
            return function(*args)

    return cached  # type: ignore[return-value]


def _outside_transforms() -> AbstractContextManager[Any]:
    """vmap and its like, which would refuse to draw, see nothing of what is done inside."""
    if functorch_transform() is None:
        return nullcontext()
    return outside_transforms()


def plain(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments as values that can be remembered: 0-dim tensors as numbers, lists as tuples."""
    return tuple(
        [
            arg.item() if isinstance(arg, Tensor) and arg.dim() == 0 else tuple(arg) if isinstance(arg, list) else arg
            for arg in args
        ]  # a list: faster than a generator
    )


def _scratch(dtype: torch.dtype, size: int) -> Tensor:
    return torch.empty(size, dtype=dtype.to_real(), device="cpu")


def _require_drawable(dtype: torch.dtype) -> None:
    """Refuses integers and exotic floats as torch's normal_ does; float8 is ours alone."""
    if dtype not in FLOAT8:
        _torch_normal_(_scratch(dtype, 1), generator=torch.Generator())


@_cached
def uniform_(dtype: torch.dtype, a: float, b: float) -> Uniform:
    if dtype in FLOAT8:
        _torch_uniform_(_scratch(torch.float32, 0), a, b)
        _require_in_range(dtype, a, b)
    else:
        _torch_uniform_(_scratch(dtype, 0), a, b)
    return Uniform(float(a) + 0.0, float(b) + 0.0)  # -0.0 and 0.0 are one key, so they must be one value


def _require_in_range(dtype: torch.dtype, a: float, b: float) -> None:
    limit = torch.finfo(dtype).max
    for name, bound in (("from", a), ("to", b)):
        if abs(bound) > limit:
            raise RuntimeError(f"{name} is out of bounds for {dtype}")


@_cached
def normal_(dtype: torch.dtype, mean: float, std: float) -> Normal:
    """For complex dtypes the distribution of each part: the variance is that of the two together, as in torch."""
    _torch_normal_(_scratch(torch.float32, 0), mean, std)
    _require_drawable(dtype)
    return Normal(float(mean) + 0.0, (float(std) + 0.0) * (math.sqrt(0.5) if dtype.is_complex else 1.0))


def constant_(dtype: torch.dtype, val: float) -> Constant:
    return Constant(val)  # not remembered: 0.0 and -0.0 are one key


ZERO, ONE = Constant(0.0), Constant(1.0)  # which keep the kernels' form of them


def ones_(dtype: torch.dtype) -> Constant:
    return ONE


def zeros_(dtype: torch.dtype) -> Constant:
    return ZERO


@_cached
def trunc_normal_(
    dtype: torch.dtype, mean: float, std: float, a: float, b: float, bounds: str = "absolute", compensate: bool = False
) -> TruncNormal:
    mean < a - 2 * std or mean > b + 2 * std  # as in torch: what cannot be compared is refused here
    normal_(dtype, mean, std)  # and what is no number, a negative std or an integer dtype here
    if dtype.is_complex:
        raise NotImplementedError(
            f"trunc_normal_: the tensor must be real, got {dtype}: complex numbers have no order to cut by."
            " Fill torch.view_as_real(tensor) instead."
        )
    if bounds not in ("absolute", "sigma"):
        raise ValueError(f"trunc_normal_: bounds must be 'absolute' or 'sigma', got {bounds!r}")
    largest = torch.finfo(dtype if dtype == torch.float64 else torch.float32).max
    if not (abs(mean) <= largest and std <= largest):
        raise ValueError(f"trunc_normal_: mean and std must be finite, at most {largest:.3g}, got {mean=} and {std=}")
    if not a <= b:
        _torch_uniform_(_scratch(torch.float32, 0), a, b)
    mean, std, low, high = float(mean) + 0.0, float(std) + 0.0, float(a) + 0.0, float(b) + 0.0
    if bounds == "sigma":
        std = std / truncated_std(low, high) if compensate and low < high else std
        low, high = (mean + bound * std if std else mean for bound in (low, high))
    elif compensate and std:
        std = compensated_std(std, low - mean, high - mean)
    if std == 0 and not low <= mean <= high:
        raise ValueError(f"trunc_normal_: with std=0 the mean must lie in [a, b], got {mean=} and [{low}, {high}]")
    distribution = TruncNormal(mean, std, low, high)
    lower(distribution, dtype)  # refuses bounds that hold no value of the dtype
    return distribution


def correct_fan(shape: Shape, mode: str, *axes: Axes) -> int:
    mode = mode.lower()
    valid_modes = ["fan_in", "fan_out"]
    if mode not in valid_modes:
        raise ValueError(f"Mode {mode} not supported, please use one of {valid_modes}")
    return widths.fans(shape, *axes)[valid_modes.index(mode)]


def _xavier_std(shape: Shape, gain: float, *axes: Axes) -> float:
    fan_in, fan_out = widths.fans(shape, *axes)
    return gain * math.sqrt(2.0 / float(fan_in + fan_out or 1))


@_cached
def xavier_uniform_(dtype: torch.dtype, shape: Shape, gain: float, *axes: Axes) -> Uniform:
    a = math.sqrt(3.0) * _xavier_std(shape, gain, *axes)
    return uniform_(dtype, -a, a)


@_cached
def xavier_normal_(dtype: torch.dtype, shape: Shape, gain: float, *axes: Axes) -> Normal:
    return normal_(dtype, 0.0, _xavier_std(shape, gain, *axes))


def _kaiming_std(shape: Shape, a: float, mode: str, nonlinearity: str, *axes: Axes) -> float:
    fan = correct_fan(shape, mode, *axes)
    return widths.gain(nonlinearity, a) / math.sqrt(fan)


@_cached
def kaiming_uniform_(dtype: torch.dtype, shape: Shape, a: float, mode: str, nonlinearity: str, *axes: Axes) -> Uniform:
    bound = math.sqrt(3.0) * _kaiming_std(shape, a, mode, nonlinearity, *axes)
    return uniform_(dtype, -bound, bound)


@_cached
def kaiming_normal_(dtype: torch.dtype, shape: Shape, a: float, mode: str, nonlinearity: str, *axes: Axes) -> Normal:
    return normal_(dtype, 0, _kaiming_std(shape, a, mode, nonlinearity, *axes))


@_cached
def variance_scaling_(
    dtype: torch.dtype, shape: Shape, scale: float, mode: str, distribution: str, *axes: Axes
) -> Distribution:
    if not isinstance(scale, numbers.Real):
        raise TypeError(f"variance_scaling_: scale must be a number, got {scale!r:.60}")
    if not 0 <= scale < math.inf:
        raise ValueError(f"variance_scaling_: scale must be finite and not negative, got {scale}")
    std = math.sqrt(scale / (widths.fan(mode, *widths.fans(shape, *axes)) or 1))
    if distribution == "truncated_normal":
        return trunc_normal_(dtype, 0.0, std, -2.0, 2.0, "sigma", True)
    if distribution == "untruncated_normal":
        return normal_(dtype, 0.0, std)
    if distribution == "uniform":
        bound = math.sqrt(3.0) * std
        return uniform_(dtype, -bound, bound)
    raise ValueError(
        f"variance_scaling_: distribution must be 'truncated_normal', 'untruncated_normal' or 'uniform', got {distribution!r}"
    )


@_cached
def lecun_uniform_(dtype: torch.dtype, shape: Shape, *axes: Axes) -> Distribution:
    return variance_scaling_(dtype, shape, 1.0, "fan_in", "uniform", *axes)


@_cached
def lecun_normal_(dtype: torch.dtype, shape: Shape, *axes: Axes) -> Distribution:
    return variance_scaling_(dtype, shape, 1.0, "fan_in", "truncated_normal", *axes)


@_cached
def orthogonal_(dtype: torch.dtype, shape: Shape, gain: float) -> Orthogonal:
    _require_drawable(dtype)
    torch.empty(0, dtype=computing_dtype(dtype)).mul_(gain)  # refuses what torch refuses
    return Orthogonal(gain if isinstance(gain, complex) else float(gain))


@_cached
def sparse_(dtype: torch.dtype, shape: Shape, sparsity: float, std: float) -> SparseNormal:
    rows, _ = shape
    zeros = math.ceil(sparsity * rows)
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparse_: sparsity must be in [0, 1], got {sparsity}")
    return SparseNormal(rows, zeros, normal_(dtype, 0, std).std)


@_cached
def eye_(dtype: torch.dtype, shape: Shape) -> OneHot:
    rows, cols = shape
    parts = 2 if dtype.is_complex else 1  # a complex number is two real ones: the 1 goes into the first
    return OneHot(value=1.0, row=cols * parts, period=rows, limit=min(rows, cols), offset=0, step=parts)


@_cached
def dirac_(dtype: torch.dtype, shape: Shape, groups: int) -> OneHot:
    if shape[0] % groups != 0:
        raise ValueError("dim 0 must be divisible by groups")
    if operator.index(groups) < 0:
        raise ValueError(f"dirac_: groups must be positive, got {groups}")
    out_channels, in_channels, *field = shape
    center = 0
    for size in field:
        center = center * size + size // 2
    parts = 2 if dtype.is_complex else 1
    period, step = out_channels // groups, math.prod(field) * parts
    limit, row = min(period, in_channels), in_channels * step
    return OneHot(value=1.0, row=row, period=period, limit=limit, offset=center * parts, step=step)
