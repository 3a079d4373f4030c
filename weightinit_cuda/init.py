"""All of ``torch.nn.init``, with values that are the same on every device, and what torch leaves out.

Signatures, defaults, return values, exceptions and warnings are torch's (`tests/test_bad_input.py` lists the few deliberate
differences). Every random function takes more, keyword-only:

* ``seed=``: 64 bits, an integer in [-2^63, 2^64). Left out, 64 bits are drawn from ``generator``, else from the default
  generator of the tensor's device: one draw for any size, dtype and layout, none for meta tensors and tensors without elements.
* ``stream=``: an integer, or a name such as ``"layers.0.weight"``. Default 0, the stream of unnamed draws.
* ``global_shape=``, ``offset=``: the tensor is the part of a tensor of that shape that starts at that position, and gets that
  part's values. Fans come from ``global_shape``.
* ``global_shape=``, ``flat_range=(begin, end)``: the tensor is 1-D and holds these elements of the flattened tensor.

A DTensor needs none of these: each rank fills its own shard, and together they hold the values of the whole tensor. Its seed is
drawn from the default CPU generator, so ranks stay in step if they called ``torch.manual_seed`` alike (`docs/sharding.md`).

Functions with fans also take ``in_axes=``, ``out_axes=`` and ``batch_axes=`` (:func:`weightinit_cuda.scaling.fans`).
All of them write in place, outside autograd, and return the tensor they were given; arguments are checked before anything is
drawn or written. Without a Raises of its own a function refuses what torch refuses, in torch's words: values out of the dtype's
range, a negative or nan ``std`` (RuntimeError), a dtype that is no float (NotImplementedError), a wrong type (TypeError).

This file is the face: what a call means is in ``schemes``, the checks are in ``arguments``, the filling is in ``engine``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import ParamSpec, SupportsIndex, TypeVar

import torch
from torch import Tensor
from torch._C import _set_grad_enabled
from torch.overrides import has_torch_function_variadic

from . import scaling, schemes
from .checking import require_writable
from .filling import Generator, Shape, Stream, as_operator, fill, jobs_of, place, traced
from .orthogonal import computing_dtype, orthogonal_matrix
from .overriding import redirect
from .sharding import is_dtensor, mark_written, require_parts
from .streams import UNNAMED
from .variance import (
    kaiming_normal_,
    kaiming_uniform_,
    lecun_normal_,
    lecun_uniform_,
    variance_scaling_,
    xavier_normal_,
    xavier_uniform_,
)

__all__ = [
    "calculate_gain",
    "constant",
    "constant_",
    "delta_orthogonal_",
    "dirac",
    "dirac_",
    "eye",
    "eye_",
    "kaiming_normal",
    "kaiming_normal_",
    "kaiming_uniform",
    "kaiming_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "normal",
    "normal_",
    "ones_",
    "orthogonal",
    "orthogonal_",
    "sparse",
    "sparse_",
    "trunc_normal_",
    "uniform",
    "uniform_",
    "variance_scaling_",
    "xavier_normal",
    "xavier_normal_",
    "xavier_uniform",
    "xavier_uniform_",
    "zeros_",
]

_R = TypeVar("_R")
_P = ParamSpec("_P")


def _no_grad_fill_(tensor: Tensor, val: float) -> Tensor:
    _check_before_torch("constant_", tensor)
    enabled = torch.is_grad_enabled()
    _set_grad_enabled(False)  # torch.no_grad() would cost half of a small fill
    try:
        return tensor.fill_(val)
    finally:
        _set_grad_enabled(enabled)


def _no_grad_zero_(tensor: Tensor) -> Tensor:
    _check_before_torch("zeros_", tensor)
    enabled = torch.is_grad_enabled()
    _set_grad_enabled(False)
    try:
        return tensor.zero_()
    finally:
        _set_grad_enabled(enabled)


def _check_before_torch(function: str, tensor: Tensor) -> None:
    """torch refuses an inference tensor only after it has written it, and a constant on each rank of a sum not at all."""
    if torch.compiler.is_compiling():  # Dynamo cannot trace is_inference
        return
    if tensor.is_inference():
        require_writable(tensor)
    if is_dtensor(tensor):
        require_parts(tensor, function)


def calculate_gain(nonlinearity: str, param: int | float | None = None) -> float:
    """The recommended gain of a nonlinearity: torch's table, and gelu, silu, swish and mish. See :func:`scaling.gain`.

    >>> calculate_gain("relu"), calculate_gain("leaky_relu", 0.2)
    (1.4142135623730951, 1.3867504905630728)
    """
    return scaling.gain(nonlinearity, param)


def uniform_(
    tensor: Tensor,
    a: float = 0.0,
    b: float = 1.0,
    generator: Generator | None = None,
    *,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> Tensor:
    r"""Fills the tensor from :math:`\mathcal{U}[a, b)`.

    Args:
        tensor: any float or complex tensor; real and imaginary parts are drawn alike.
        a, b: the bounds, a <= b. With a == b the tensor is filled with a.
        generator: gives the seed where ``seed`` does not.

    Numerics: b is never returned and nothing is piled up on a, in any dtype. float32: steps of (b - a) 2^-24, float64: 2^-53.
    Source: ``torch.nn.init.uniform_``.

    >>> uniform_(torch.empty(3), -1.0, 1.0, seed=0).dtype
    torch.float32
    """
    if has_torch_function_variadic(tensor):
        return redirect(uniform_, locals())
    return fill(tensor, schemes.uniform_, (tensor.dtype, a, b), generator, seed, stream, global_shape, offset, flat_range)


def normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    generator: Generator | None = None,
    *,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> Tensor:
    r"""Fills the tensor from :math:`\mathcal{N}(\text{mean}, \text{std}^2)`.

    Args:
        tensor: any float or complex tensor; real and imaginary parts of a complex one have std / sqrt(2) each.
        mean: the mean.
        std: the standard deviation, not negative. 0 fills with the mean.
        generator: gives the seed where ``seed`` does not.

    Numerics: Box-Muller with a 31-bit radius, tails to 6.66 sigma (float64: 8.49). float16 overflows to infinity.
    Source: ``torch.nn.init.normal_``.

    >>> normal_(torch.empty(2, 2), std=0.02, seed=0, stream="tok.weight").shape
    torch.Size([2, 2])
    """
    if has_torch_function_variadic(tensor):
        return redirect(normal_, locals())
    return fill(tensor, schemes.normal_, (tensor.dtype, mean, std), generator, seed, stream, global_shape, offset, flat_range)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
    *,
    bounds: str = "absolute",
    compensate: bool = False,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> Tensor:
    r"""Fills the tensor from :math:`\mathcal{N}(\text{mean}, \text{std}^2)`, cut to [a, b].

    .. math:: x = \text{mean} + \text{std} \, \Phi^{-1}(\Phi(\alpha) + u (\Phi(\beta) - \Phi(\alpha))), \quad 0 < u < 1

    Args:
        tensor: any real float tensor.
        mean, std: of the normal that is cut. ``std=0`` fills with the mean.
        a, b: the bounds, infinite ones too, anywhere: far in the tail the values are as right as in the middle.
        generator: gives the seed where ``seed`` does not.
        bounds: ``"absolute"``: a and b are values; ``"sigma"``: distances from the mean, in units of the std that is cut.
        compensate: widen the normal first, so that ``std`` is the standard deviation after cutting: by 1 / 0.8796256610342398
            at 2 sigma.

    Raises:
        ValueError: mean or std is not finite; with ``std=0`` the mean is outside [a, b]; no value of the dtype lies in [a, b].
        NotImplementedError: the tensor is complex.

    Numerics: inverse distribution function, one word an element, no rejection. No value is outside [a, b] in any dtype.
    Source: ``torch.nn.init.trunc_normal_``.

    >>> bool(trunc_normal_(torch.empty(1000), std=0.02, a=-2, b=2, bounds="sigma", seed=0).abs().max() <= 0.04)
    True
    """
    if has_torch_function_variadic(tensor):
        return redirect(trunc_normal_, locals())
    args = (tensor.dtype, mean, std, a, b, bounds, compensate)
    return fill(tensor, schemes.trunc_normal_, args, generator, seed, stream, global_shape, offset, flat_range)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fills the tensor with ``val``: torch's own ``fill_`` outside autograd, which no kernel of ours would improve.

    >>> constant_(torch.empty(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    if has_torch_function_variadic(tensor):
        return redirect(constant_, locals())
    return _no_grad_fill_(tensor, val)


def ones_(tensor: Tensor) -> Tensor:
    """Fills the tensor with 1.

    >>> ones_(torch.empty(2))
    tensor([1., 1.])
    """
    if has_torch_function_variadic(tensor):
        return redirect(ones_, locals())
    return _no_grad_fill_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fills the tensor with 0.

    >>> zeros_(torch.empty(2))
    tensor([0., 0.])
    """
    if has_torch_function_variadic(tensor):
        return redirect(zeros_, locals())
    return _no_grad_zero_(tensor)


def eye_(tensor: Tensor) -> Tensor:
    """Fills a matrix with 1 on the diagonal and 0 elsewhere.

    Raises:
        ValueError: the tensor has not 2 dimensions.

    >>> eye_(torch.empty(2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    if has_torch_function_variadic(tensor):
        return redirect(eye_, locals())
    if tensor.ndimension() != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    return place(tensor, schemes.eye_, tensor.shape)


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fills the weight of a convolution so that it passes its input channels on: 1 at the centre of the kernel, 0 elsewhere.

    Args:
        tensor: (out, in / groups, *kernel) with one, two or three kernel dimensions.
        groups: each group of out / groups channels is an identity of its own.

    Raises:
        ValueError: the tensor has not 3, 4 or 5 dimensions, dim 0 is not divisible by groups, or groups is negative.

    >>> dirac_(torch.empty(2, 2, 3))[:, :, 1]
    tensor([[1., 0.],
            [0., 1.]])
    """
    if has_torch_function_variadic(tensor):
        return redirect(dirac_, locals())
    if tensor.ndimension() not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    return place(tensor, schemes.dirac_, tensor.shape, groups)


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    return scaling.fans(tensor.size())


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    return schemes.correct_fan(tensor.size(), mode)


def orthogonal_(
    tensor: Tensor,
    gain: float = 1,
    generator: Generator | None = None,
    *,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> Tensor:
    r"""Fills the tensor, as a matrix of dim 0 by all others, with orthonormal rows or columns, whichever are fewer, times gain.

    Args:
        tensor: any float or complex tensor of two or more dimensions.
        gain: factor on the matrix.
        generator: gives the seed where ``seed`` does not.
        global_shape: of a shard the whole matrix is computed and its part kept.

    Raises:
        ValueError: the tensor has fewer than 2 dimensions.

    Numerics: computed in float32, complex64 or wider, then rounded once. The QR decomposition is the device's, so bits may
    differ between devices (`docs/reproducibility.md`).
    Source: Saxe et al. (2013); ``torch.nn.init.orthogonal_``.

    >>> w = orthogonal_(torch.empty(8, 3), seed=0)
    >>> torch.allclose(w.T @ w, torch.eye(3), atol=1e-5)
    True
    """
    if has_torch_function_variadic(tensor):
        return redirect(orthogonal_, locals())
    shape = tuple(tensor.shape if global_shape is None else global_shape)
    if len(shape) < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if traced() and not is_dtensor(tensor):
        return as_operator("orthogonal_", tensor, (gain,), generator, seed, stream, global_shape, offset, flat_range)
    dtype = computing_dtype(tensor.dtype)
    gaussian = schemes.normal_(tensor.dtype, 0, 1)
    torch.empty(0, dtype=dtype).mul_(gain)  # refuses what torch refuses, before anything is drawn
    jobs = jobs_of("orthogonal_", tensor, gaussian, generator, seed, stream, global_shape, offset, flat_range)
    mark_written(tensor)
    if not any(job.tensor.numel() for job in jobs):
        return tensor
    matrix = shape[0], math.prod(shape[1:])
    q = orthogonal_matrix(matrix, dtype, tensor.device, jobs[0].seed, jobs[0].stream).mul_(gain).reshape(shape)
    with torch.no_grad():
        for job in jobs:
            job.tensor.copy_(q if job.region is None else q[job.region.slices(job.tensor.shape)])
    return tensor


def sparse_(
    tensor: Tensor,
    sparsity: float,
    std: float = 0.01,
    generator: Generator | None = None,
    *,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> Tensor:
    r"""Fills a matrix from :math:`\mathcal{N}(0, \text{std}^2)` and puts ceil(sparsity * rows) zeros into each column.

    Args:
        tensor: 2-dimensional.
        sparsity: share of zeros in each column, in [0, 1].
        std: standard deviation of the others.
        generator: gives the seed where ``seed`` does not; it governs the places of the zeros too.

    Raises:
        ValueError: the tensor has not 2 dimensions, or sparsity is outside [0, 1].

    Source: Martens (2010), "Deep learning via Hessian-free optimization"; ``torch.nn.init.sparse_``.

    >>> (sparse_(torch.empty(10, 4), 0.25, seed=0) == 0).sum(dim=0)
    tensor([3, 3, 3, 3])
    """
    if has_torch_function_variadic(tensor):
        return redirect(sparse_, locals())
    shape = tensor.shape if global_shape is None else global_shape
    if len(shape) != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    args = (tensor.dtype, shape, sparsity, std)
    return fill(tensor, schemes.sparse_, args, generator, seed, stream, global_shape, offset, flat_range)


def _no_grad_uniform_(tensor: Tensor, a: float, b: float, generator: Generator | None = None) -> Tensor:
    return uniform_(tensor, a, b, generator)


def _no_grad_normal_(tensor: Tensor, mean: float, std: float, generator: Generator | None = None) -> Tensor:
    return normal_(tensor, mean, std, generator)


def _no_grad_trunc_normal_(
    tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Generator | None = None
) -> Tensor:
    return trunc_normal_(tensor, mean, std, a, b, generator)


def _make_deprecate(meth: Callable[_P, _R]) -> Callable[_P, _R]:
    """torch's old names without an underscore, with torch's warning."""
    new_name = meth.__name__
    old_name = new_name[:-1]

    def deprecated_init(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        warnings.warn(f"`nn.init.{old_name}` is now deprecated in favor of `nn.init.{new_name}`.", FutureWarning, stacklevel=2)
        return meth(*args, **kwargs)

    deprecated_init.__doc__ = f"Deprecated name of :func:`{new_name}`."
    deprecated_init.__name__ = deprecated_init.__qualname__ = old_name
    return deprecated_init


uniform = _make_deprecate(uniform_)
normal = _make_deprecate(normal_)
constant = _make_deprecate(constant_)
eye = _make_deprecate(eye_)
dirac = _make_deprecate(dirac_)
xavier_uniform = _make_deprecate(xavier_uniform_)
xavier_normal = _make_deprecate(xavier_normal_)
kaiming_uniform = _make_deprecate(kaiming_uniform_)
kaiming_normal = _make_deprecate(kaiming_normal_)
orthogonal = _make_deprecate(orthogonal_)
sparse = _make_deprecate(sparse_)


from .delta_orthogonal import delta_orthogonal_  # noqa: E402 it stands on orthogonal_
