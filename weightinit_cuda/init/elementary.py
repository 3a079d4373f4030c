"""One law for all elements, given by its own numbers: part of ``init``, which has the common arguments."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch import Tensor
from torch.overrides import has_torch_function_variadic

from ..engine.checks import require_writable
from ..numerics.streams import UNNAMED
from ..tensors.shards import is_dtensor, require_parts
from ..tensors.torch_private import set_grad_enabled
from . import schemes
from .call import Generator, Shape, Stream, fill
from .torch_function import redirect

__all__ = ["constant_", "normal_", "ones_", "trunc_normal_", "uniform_", "zeros_"]


def _no_grad_fill_(tensor: Tensor, val: float) -> Tensor:
    _check_before_torch("constant_", tensor)
    enabled = torch.is_grad_enabled()
    set_grad_enabled(False)  # torch.no_grad() would cost half of a small fill
    try:
        return tensor.fill_(val)
    finally:
        set_grad_enabled(enabled)


def _no_grad_zero_(tensor: Tensor) -> Tensor:
    _check_before_torch("zeros_", tensor)
    enabled = torch.is_grad_enabled()
    set_grad_enabled(False)
    try:
        return tensor.zero_()
    finally:
        set_grad_enabled(enabled)


def _check_before_torch(function: str, tensor: Tensor) -> None:
    """torch refuses an inference tensor only after it has written it, and a constant on each rank of a sum not at all."""
    if torch.compiler.is_compiling():  # Dynamo cannot trace is_inference
        return
    if tensor.is_inference():
        require_writable(tensor)
    if is_dtensor(tensor):
        require_parts(tensor, function)


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
