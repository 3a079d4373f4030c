"""Matrices as a whole: identities, orthogonal and sparse ones; part of ``init``, which has the common arguments."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch.overrides import has_torch_function_variadic

from ..numerics.streams import UNNAMED
from . import schemes
from .arguments import whole_shape
from .call import Generator, Shape, Stream, fill, place
from .torch_function import redirect

__all__ = ["dirac_", "eye_", "orthogonal_", "sparse_"]


def eye_(tensor: torch.Tensor) -> torch.Tensor:
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


def dirac_(tensor: torch.Tensor, groups: int = 1) -> torch.Tensor:
    """Fills the weight of a convolution so that it passes its input channels on: 1 at the centre of the kernel, 0 elsewhere.

    Args:
        tensor: ``(out, in / groups, *kernel)`` with one, two or three kernel dimensions.
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


def orthogonal_(
    tensor: torch.Tensor,
    gain: float = 1,
    generator: Generator | None = None,
    *,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> torch.Tensor:
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
    shape = tuple(tensor.shape if global_shape is None else whole_shape("orthogonal_", global_shape))
    if len(shape) < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    args = (tensor.dtype, shape, gain)
    return fill(tensor, schemes.orthogonal_, args, generator, seed, stream, global_shape, offset, flat_range)


def sparse_(
    tensor: torch.Tensor,
    sparsity: float,
    std: float = 0.01,
    generator: Generator | None = None,
    *,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
    global_shape: Shape | None = None,
    offset: Shape | None = None,
    flat_range: Shape | None = None,
) -> torch.Tensor:
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
    shape = tensor.shape if global_shape is None else whole_shape("sparse_", global_shape)
    if len(shape) != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    args = (tensor.dtype, shape, sparsity, std)
    return fill(tensor, schemes.sparse_, args, generator, seed, stream, global_shape, offset, flat_range)
