r"""``delta_orthogonal_``: a convolution that is an orthogonal matrix at its centre and zero elsewhere.

Beside ``orthogonal_`` of ``init``, which makes the flattened kernel orthogonal: a convolution with that one keeps no norm, and
nets of such layers cannot be deep. It is made of one and of zeros, so it is no distribution and has no row in the catalog.
"""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch import Generator, Tensor

from ..numerics.streams import UNNAMED
from ..tensors.kinds import TENSOR, must_be
from ..tensors.shards import is_dtensor
from .arguments import Stream
from .matrices import orthogonal_

__all__ = ["delta_orthogonal_"]


def delta_orthogonal_(
    tensor: Tensor,
    gain: float = 1,
    generator: Generator | None = None,
    *,
    seed: SupportsIndex | None = None,
    stream: Stream = UNNAMED,
) -> Tensor:
    r"""Fills a convolution's kernel so that the convolution keeps the norm of its input, times gain.

    .. math:: W_{o, i, x} = \text{gain} \cdot Q_{o, i} \text{ at the centre } x = \lfloor (k - 1) / 2 \rfloor, \quad 0
              \text{ elsewhere}, \quad Q^T Q = 1

    Nets of 10,000 layers of such convolutions and tanh train without norms or residual connections.

    Args:
        tensor: (out, in, k), (out, in, k, k) or (out, in, k, k, k), at least as many out as in: the kernel of a Conv1d, Conv2d
            or Conv3d of one group. Its norm is kept with stride 1 and padding "same".
        gain: factor on the matrix.
        generator, seed, stream: as for ``orthogonal_``; the matrix is what that one gives an (out, in) tensor.

    Raises:
        TypeError: it is no tensor.
        ValueError: the tensor has not 3 to 5 dimensions, or more inputs than outputs; nothing is written.
        NotImplementedError: it is a DTensor.

    Source: Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington (2018), arXiv:1806.05393, algorithm 1.

    >>> conv = torch.nn.Conv2d(3, 8, 3, padding="same", bias=False)
    >>> _ = delta_orthogonal_(conv.weight, seed=0)
    >>> x = torch.ones(1, 3, 5, 5)
    >>> round((conv(x).norm() / x.norm()).item(), 5)
    1.0
    """
    must_be(TENSOR, "delta_orthogonal_", tensor=tensor)
    shape = tuple(tensor.shape)
    if is_dtensor(tensor):
        raise NotImplementedError(
            "delta_orthogonal_: a plain tensor is required, got a DTensor. Fill it before it is distributed."
        )
    if not 3 <= len(shape) <= 5:
        raise ValueError(
            f"delta_orthogonal_: 3, 4 or 5 dimensions are required, got shape {shape}. Use orthogonal_ for a matrix."
        )
    if shape[0] < shape[1]:
        raise ValueError(
            f"delta_orthogonal_: at least as many output as input channels are required, got {shape[0]} and {shape[1]}. No"
            " convolution with fewer keeps every norm."
        )
    with torch.no_grad():
        matrix = orthogonal_(tensor.new_empty(shape[:2]), gain, generator, seed=seed, stream=stream)
        tensor.zero_()
        kernel = tensor
        if all(shape):
            for axis in range(len(shape) - 1, 1, -1):
                kernel = kernel.select(axis, (shape[axis] - 1) // 2)
            kernel.copy_(matrix)
    return tensor
