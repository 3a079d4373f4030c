"""Random (semi-)orthogonal matrices: the one initialisation that ends in linear algebra, so its bits depend on the device.

The Gaussian matrix it starts from is format 1, bit-identical everywhere; the QR decomposition that follows is LAPACK's or
cuSOLVER's (`docs/reproducibility.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..tensors.torch_private import assert_async

__all__ = ["computing_dtype", "orthogonal_matrix"]


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to decompose in: float64 and complex128 keep theirs, everything narrower uses float32 or complex64."""
    if dtype in (torch.float64, torch.complex128):
        return dtype
    return torch.complex64 if dtype.is_complex else torch.float32


def orthogonal_matrix(gaussian: Tensor) -> Tensor:
    r"""A matrix with orthonormal rows or columns, whichever are fewer, distributed uniformly (Haar).

    With A standard normal and A = QR, R with a positive diagonal, Q is uniform on the Stiefel manifold.

    Args:
        gaussian: A, or its transpose where there are fewer rows than columns; of a dtype that :func:`computing_dtype` returns.

    Source: Mezzadri (2007), arXiv:math-ph/0609050; ``torch.nn.init.orthogonal_``.
    """
    if gaussian.shape[0] < gaussian.shape[1]:
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
        with _full_precision():
            gram = tall.mH @ tall
        factor, info = torch.linalg.cholesky_ex(gram)
        if tall.is_cuda:  # nobody waits for the device, which would end a capture; what is beyond all odds is an error
            assert_async(info == 0)
        elif info.item() != 0:
            return tall, False
        tall = torch.linalg.solve_triangular(factor.mH, tall, upper=True, left=False)
    return tall, True


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of float32 in float32, whatever the user has allowed: TF32's 10 bits would cost two digits of orthogonality.

    torch 2.9 has a setting for each library; the older one must not be read once one of these was used.
    """
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        allowed = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(allowed)
        return
    settings = [(library, "fp32_precision", "ieee") for library in (backends.cuda.matmul, backends.mkldnn.matmul)]
    before = [getattr(library, name) for library, name, _ in settings]
    try:
        for library, name, value in settings:
            setattr(library, name, value)
        yield
    finally:
        for (library, name, _), value in zip(settings, before, strict=True):
            setattr(library, name, value)
