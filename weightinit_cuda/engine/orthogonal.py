"""Random (semi-)orthogonal matrices: the one initialisation that ends in linear algebra, so its bits depend on the device.

The Gaussian matrix it starts from is format 1, bit-identical everywhere; the QR decomposition that follows is LAPACK's or
cuSOLVER's (`docs/reproducibility.md`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..numerics.distributions import Normal
from .drop_in import fill_tensor

__all__ = ["computing_dtype", "orthogonal_matrix"]


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to decompose in: float64 and complex128 keep theirs, everything narrower uses float32 or complex64."""
    if dtype in (torch.float64, torch.complex128):
        return dtype
    return torch.complex64 if dtype.is_complex else torch.float32


def orthogonal_matrix(shape: tuple[int, int], dtype: torch.dtype, device: torch.device, seed: int, stream: int) -> Tensor:
    r"""A matrix with orthonormal rows or columns, whichever are fewer, distributed uniformly (Haar).

    With A standard normal and A = QR, R with a positive diagonal, Q is uniform on the Stiefel manifold.

    Args:
        shape: rows and columns. A is drawn in this shape, and transposed where there are fewer rows than columns.
        dtype: one that :func:`computing_dtype` returns.

    Source: Mezzadri (2007), arXiv:math-ph/0609050; ``torch.nn.init.orthogonal_``.
    """
    gaussian = torch.empty(shape, dtype=dtype, device=device)
    fill_tensor(gaussian, Normal(0.0, 1.0), seed, stream)
    if shape[0] < shape[1]:
        return _positive_qr(gaussian.mT).mT
    return _positive_qr(gaussian)


def _positive_qr(tall: Tensor) -> Tensor:
    """Q of the QR decomposition in which R has a positive diagonal; that makes it unique."""
    rows, columns = tall.shape
    if rows >= 2 * columns and tall.numel() >= WORTHWHILE:
        q, converged = _cholesky_qr(tall)
        if converged:
            return q
    q, r = torch.linalg.qr(tall)
    signs = torch.diagonal(r).sgn()
    return torch.mul(q, signs, out=q)


WORTHWHILE = 1 << 15
"""Elements from which on CholeskyQR2 is the faster one on the CPU; below, its eight calls cost more than LAPACK's two."""


def _cholesky_qr(tall: Tensor) -> tuple[Tensor, bool]:
    """CholeskyQR2: the same Q from two matrix products and triangular solves, 2 to 10 times as fast on large tall matrices.

    From twice as many rows as columns on, a Gaussian matrix has a condition number near (sqrt 2 + 1) / (sqrt 2 - 1) = 5.8 or
    less, far from the 1 / sqrt(eps) where the method fails; then Q is orthogonal to rounding, as Householder's is.
    Source: Yamamoto, Nakatsukasa, Yanagisawa, Fukaya (2015), ETNA 44.
    """
    for _ in range(2):
        factor, info = torch.linalg.cholesky_ex(tall.mH @ tall)
        if info.item() != 0:
            return tall, False
        tall = torch.linalg.solve_triangular(factor.mH, tall, upper=True, left=False)
    return tall, True
