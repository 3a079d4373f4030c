"""Widths from fans: xavier, kaiming, LeCun and variance scaling, part of ``init``.

They differ in one number, the standard deviation that ``schemes`` computes from the shape. Common arguments: see ``init``.
"""

from __future__ import annotations

import warnings
from typing import SupportsIndex

import torch
from torch.overrides import has_torch_function_variadic

from ..numerics.streams import UNNAMED
from ..tensors.kinds import TENSOR, must_be
from . import schemes
from .arguments import whole_shape
from .call import Generator, Shape, Stream, fill
from .fans import Axes
from .torch_function import redirect

__all__ = [
    "kaiming_normal_",
    "kaiming_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "variance_scaling_",
    "xavier_normal_",
    "xavier_uniform_",
]


def xavier_uniform_(
    tensor: torch.Tensor,
    gain: float = 1.0,
    generator: Generator | None = None,
    *,
    in_axes: Axes = None,
    out_axes: Axes = None,
    batch_axes: Axes = None,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> torch.Tensor:
    r"""Fills the tensor from :math:`\mathcal{U}[-a, a)`.

    .. math:: a = \text{gain} \, \sqrt{6 / (\text{fan\_in} + \text{fan\_out})}

    Args:
        tensor: ``(out, in, *kernel)``, or as the axes say.
        gain: factor on the standard deviation, :func:`calculate_gain`.
        generator: gives the seed where ``seed`` does not.

    Raises:
        ValueError: the fans need two dimensions.

    Source: Glorot and Bengio (2010); ``torch.nn.init.xavier_uniform_``.

    >>> bool(xavier_uniform_(torch.empty(2, 4), seed=0).abs().max() <= 1)
    True
    """
    if has_torch_function_variadic(tensor):
        return redirect(xavier_uniform_, locals())
    shape = tensor.shape if global_shape is None else whole_shape("xavier_uniform_", global_shape)
    args = (tensor.dtype, shape, gain, in_axes, out_axes, batch_axes)
    return fill(tensor, schemes.xavier_uniform_, args, generator, seed, stream, global_shape, offset, flat_range)


def xavier_normal_(
    tensor: torch.Tensor,
    gain: float = 1.0,
    generator: Generator | None = None,
    *,
    in_axes: Axes = None,
    out_axes: Axes = None,
    batch_axes: Axes = None,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> torch.Tensor:
    r"""Fills the tensor from :math:`\mathcal{N}(0, \sigma^2)`.

    .. math:: \sigma = \text{gain} \, \sqrt{2 / (\text{fan\_in} + \text{fan\_out})}

    Args, Raises and Source: as :func:`xavier_uniform_`.

    >>> xavier_normal_(torch.empty(2, 4), seed=0).shape
    torch.Size([2, 4])
    """
    if has_torch_function_variadic(tensor):
        return redirect(xavier_normal_, locals())
    shape = tensor.shape if global_shape is None else whole_shape("xavier_normal_", global_shape)
    args = (tensor.dtype, shape, gain, in_axes, out_axes, batch_axes)
    return fill(tensor, schemes.xavier_normal_, args, generator, seed, stream, global_shape, offset, flat_range)


def kaiming_uniform_(
    tensor: torch.Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
    *,
    in_axes: Axes = None,
    out_axes: Axes = None,
    batch_axes: Axes = None,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> torch.Tensor:
    r"""Fills the tensor from :math:`\mathcal{U}[-b, b)`, :math:`b = \text{gain} \, \sqrt{3 / \text{fan}}`.

    Args:
        tensor: ``(out, in, *kernel)``, or as the axes say.
        a: negative slope, for ``leaky_relu`` only.
        mode: ``"fan_in"`` keeps the variance of the activations, ``"fan_out"`` that of the gradients.
        nonlinearity: what follows the layer, :func:`calculate_gain`.
        generator: gives the seed where ``seed`` does not.

    Raises:
        ValueError: the mode or the nonlinearity is unknown, or the fans need two dimensions.

    Source: He et al. (2015); ``torch.nn.init.kaiming_uniform_``.

    >>> bool(kaiming_uniform_(torch.empty(2, 6), nonlinearity="relu", seed=0).abs().max() <= 1)
    True
    """
    if has_torch_function_variadic(tensor):
        return redirect(kaiming_uniform_, locals())
    shape = tensor.shape if global_shape is None else whole_shape("kaiming_uniform_", global_shape)
    if 0 in shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    args = (tensor.dtype, shape, a, mode, nonlinearity, in_axes, out_axes, batch_axes)
    return fill(tensor, schemes.kaiming_uniform_, args, generator, seed, stream, global_shape, offset, flat_range)


def kaiming_normal_(
    tensor: torch.Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
    *,
    in_axes: Axes = None,
    out_axes: Axes = None,
    batch_axes: Axes = None,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> torch.Tensor:
    r"""Fills the tensor from :math:`\mathcal{N}(0, \sigma^2)`, :math:`\sigma = \text{gain} / \sqrt{\text{fan}}`.

    Args, Raises and Source: as :func:`kaiming_uniform_`.

    >>> kaiming_normal_(torch.empty(8, 64, 256), batch_axes=0, seed=0).shape
    torch.Size([8, 64, 256])
    """
    if has_torch_function_variadic(tensor):
        return redirect(kaiming_normal_, locals())
    shape = tensor.shape if global_shape is None else whole_shape("kaiming_normal_", global_shape)
    if 0 in shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    args = (tensor.dtype, shape, a, mode, nonlinearity, in_axes, out_axes, batch_axes)
    return fill(tensor, schemes.kaiming_normal_, args, generator, seed, stream, global_shape, offset, flat_range)


def variance_scaling_(
    tensor: torch.Tensor,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    in_axes: Axes = None,
    out_axes: Axes = None,
    batch_axes: Axes = None,
    generator: Generator | None = None,
    *,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> torch.Tensor:
    r"""Fills the tensor with mean 0 and variance :math:`\text{scale} / \text{fan}`, whatever the distribution.

    Args:
        tensor: ``(out, in, *kernel)``, or as the axes say.
        scale: not negative. Kaiming for relu is 2, LeCun 1.
        mode: ``"fan_in"``, ``"fan_out"``, ``"fan_avg"`` or ``"fan_geo_avg"`` (:func:`weightinit_cuda.init.fans.fan`).
        distribution: ``"truncated_normal"`` (cut at 2 sigma, then as wide as asked), ``"untruncated_normal"`` or ``"uniform"``.
        in_axes, out_axes, batch_axes: :func:`weightinit_cuda.init.fans.fans`; torch's layout by default.
        generator: gives the seed where ``seed`` does not.

    Raises:
        ValueError: scale is negative, mode or distribution is unknown, or the fans need two dimensions.

    Source: ``jax.nn.initializers.variance_scaling``.

    >>> variance_scaling_(torch.empty(3, 3, 16, 32), 2.0, "fan_avg", in_axes=-2, out_axes=-1, seed=0).shape
    torch.Size([3, 3, 16, 32])
    """
    if has_torch_function_variadic(tensor):
        return redirect(variance_scaling_, locals())
    shape = _shape("variance_scaling_", tensor, global_shape)
    args = (tensor.dtype, shape, scale, mode, distribution, in_axes, out_axes, batch_axes)
    return fill(tensor, schemes.variance_scaling_, args, generator, seed, stream, global_shape, offset, flat_range)


def lecun_uniform_(
    tensor: torch.Tensor,
    generator: Generator | None = None,
    *,
    in_axes: Axes = None,
    out_axes: Axes = None,
    batch_axes: Axes = None,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> torch.Tensor:
    r"""Fills the tensor from :math:`\mathcal{U}[-a, a)` with :math:`a = \sqrt{3 / \text{fan\_in}}`.

    Args and Raises: as :func:`variance_scaling_` with scale 1, ``"fan_in"`` and ``"uniform"``.
    Source: LeCun et al. (1998), "Efficient BackProp"; ``jax.nn.initializers.lecun_uniform``.

    >>> lecun_uniform_(torch.empty(4, 3), seed=0).shape
    torch.Size([4, 3])
    """
    if has_torch_function_variadic(tensor):
        return redirect(lecun_uniform_, locals())
    shape = _shape("lecun_uniform_", tensor, global_shape)
    args = (tensor.dtype, shape, 1.0, "fan_in", "uniform", in_axes, out_axes, batch_axes)
    return fill(tensor, schemes.variance_scaling_, args, generator, seed, stream, global_shape, offset, flat_range)


def lecun_normal_(
    tensor: torch.Tensor,
    generator: Generator | None = None,
    *,
    in_axes: Axes = None,
    out_axes: Axes = None,
    batch_axes: Axes = None,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> torch.Tensor:
    r"""Fills the tensor from a normal cut at 2 sigma, of mean 0 and, after cutting, variance :math:`1 / \text{fan\_in}`.

    Args and Raises: as :func:`variance_scaling_` with scale 1, ``"fan_in"`` and ``"truncated_normal"``.
    Source: LeCun et al. (1998), "Efficient BackProp"; ``jax.nn.initializers.lecun_normal``.

    >>> lecun_normal_(torch.empty(4, 3), seed=0).shape
    torch.Size([4, 3])
    """
    if has_torch_function_variadic(tensor):
        return redirect(lecun_normal_, locals())
    shape = _shape("lecun_normal_", tensor, global_shape)
    args = (tensor.dtype, shape, 1.0, "fan_in", "truncated_normal", in_axes, out_axes, batch_axes)
    return fill(tensor, schemes.variance_scaling_, args, generator, seed, stream, global_shape, offset, flat_range)


def _shape(function: str, tensor: object, global_shape: Shape | None) -> Shape:
    """What fans are computed from; torch, which has none of these functions, has no words for what is no tensor."""
    must_be(TENSOR, function, tensor=tensor)
    return tensor.shape if global_shape is None else whole_shape(function, global_shape)  # type: ignore[attr-defined]
