"""What cannot be filled, in torch's words where torch has them: the engine's last look at a job before anything is written.

Arguments were checked above, in the words of the user; what is refused here are tensors and regions that no kernel can write.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..numerics.combine import Mode
from ..numerics.distributions import Constant, Distribution
from ..numerics.lowering import lower
from ..numerics.rounding import REAL_DTYPE
from ..tensors.boxes import Region
from ..tensors.torch_private import FakeTensor, overlaps_itself
from .job import FillJob

__all__ = ["OVERLAPPING", "check", "is_virtual", "lacks_memory", "require", "require_writable", "target"]

OVERLAPPING = (
    "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
    "Please clone() the tensor before performing the operation."
)
INFERENCE = (
    "Inplace update to inference tensor outside InferenceMode is not allowed."
    "You can make a clone to get a normal tensor before doing inplace update."
    "See https://github.com/pytorch/rfcs/pull/17 for more details."
)


def require_writable(tensor: torch.Tensor) -> None:
    """Refuses an inference tensor outside inference mode."""
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(INFERENCE)


COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def is_virtual(tensor: torch.Tensor) -> bool:
    """Whether the tensor has no memory by design, so that a fill neither writes nor draws: on meta, or fake."""
    return tensor.is_meta or isinstance(tensor, FakeTensor)


def lacks_memory(tensor: torch.Tensor) -> bool:
    """Whether elements of a strided tensor lie outside its storage: one that was freed or made smaller, as FSDP does."""
    if tensor.numel() == 0:
        return False
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (tensor.storage_offset() + last + 1) * tensor.itemsize > tensor.untyped_storage().nbytes()


def target(function: str, tensor: torch.Tensor, distribution: Distribution) -> torch.Tensor:
    """The strided tensor that a fill of ``tensor`` writes: the stored values of a compressed sparse or a nested tensor, as in
    ``torch.nn.init.normal_``, else the tensor itself.

    Raises:
        NotImplementedError: another layout than strided, whose elements are not stored one by one.
        RuntimeError: the elements overlap, they have no memory (freed, wrapped), or it is an inference tensor outside its mode.
    """
    if (tensor.layout in COMPRESSED or tensor.is_nested) and distribution.elementwise:
        tensor = tensor.values()
    require_strided(function, tensor)
    require_memory(function, tensor)
    return tensor


def require_strided(function: str, tensor: torch.Tensor, where: str = "") -> None:
    """Refuses layouts whose elements are not stored one by one."""
    if tensor.layout is not torch.strided:
        raise NotImplementedError(
            f"{function}: the tensor must be strided, got layout {tensor.layout}{where}."
            " Fill the dense tensor, then convert it."
        )


def require_memory(function: str, tensor: torch.Tensor, where: str = "") -> None:
    """Refuses a strided tensor whose elements cannot be written, each by itself: frozen by inference mode, without memory that
    it should have, or several on one place."""
    require_writable(tensor)
    if is_virtual(tensor) or tensor.numel() == 0:
        return
    if overlaps_itself(tensor):
        raise RuntimeError(OVERLAPPING)
    if tensor.data_ptr() == 0:
        kind = type(tensor).__name__
        way = "If its storage was freed (FSDP), gather it first; inside a torch.func transform, fill before the transform."
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            way = f"A {kind} may keep its elements in other tensors: fill the plain tensor, then make a {kind} of it."
        raise RuntimeError(
            f"{function}: the tensor must have memory, got a {kind} of shape {tuple(tensor.shape)} without{where}. {way}"
        )


def check(job: FillJob) -> None:
    """Refuses what cannot be filled, in torch's words where torch has them."""
    tensor, where = job.tensor, f" ({job.name})" if job.name else ""
    require_strided("fill", tensor, where)
    try:
        require(job.distribution, tensor.dtype, job.region.global_shape if job.region else tuple(tensor.shape))
    except (ValueError, RuntimeError) as error:
        raise type(error)(f"{error}{where}") from None
    if tensor.dtype not in REAL_DTYPE and job.combine.mode is not Mode.STORE:
        raise NotImplementedError(f"fill: a floating-point or complex tensor is required, got {tensor.dtype}{where}.")
    if tensor.is_meta:
        return
    require_memory("fill", tensor, where)
    if job.region is not None:
        _check_region(job.region, tensor, where)
    if job.combine.mode is not Mode.STORE:
        _check_combine(job, where)


def require(distribution: Distribution, dtype: torch.dtype, shape: Sequence[int]) -> None:
    """Refuses a distribution that no tensor of that dtype and (global) shape can be filled with.

    Raises:
        ValueError: its numbers do not fit the shape or the dtype, or it is not made by a fill at all.
        NotImplementedError: integers and bools can be set to constants only.
        RuntimeError: to a constant that they cannot be, in torch's words.
    """
    if not distribution.is_fill:
        raise ValueError(f"fill: a distribution that can be filled is required, got {distribution}")
    distribution.form(("fits", *shape), lambda: distribution.require(shape))
    distribution.form(("fits", dtype, 0 in shape), lambda: _require_dtype(distribution, dtype, 0 in shape))


def _require_dtype(distribution: Distribution, dtype: torch.dtype, empty: bool) -> None:
    if dtype not in REAL_DTYPE:
        if not isinstance(distribution, Constant):
            raise NotImplementedError(f"fill: a floating-point or complex tensor is required, got {dtype}")
        torch.empty(1, dtype=dtype, device="cpu").fill_(distribution.value)  # refuses what overflows, as torch does
        return
    if not (dtype.is_complex and distribution.may_be_complex):
        for name, value in distribution.numbers().items():
            if isinstance(value, complex):
                raise ValueError(f"fill: {name} must be real for {distribution.kind} in {dtype}, got {value}")
    if not distribution.linear_algebra and not empty:
        for part in (distribution.complex_parts() if dtype.is_complex else None) or (distribution,):
            lower(part, REAL_DTYPE[dtype])  # refuses bounds that hold no value of the dtype


def _check_region(region: Region, tensor: torch.Tensor, where: str) -> None:
    shape, offset = region
    if not len(shape) == len(offset) == tensor.dim():
        raise ValueError(
            f"fill: global_shape and offset must have as many dimensions as the tensor, "
            f"got {tuple(shape)} and {tuple(offset)} for a tensor of shape {tuple(tensor.shape)}{where}."
        )
    if math.prod(shape) * (2 if tensor.is_complex() else 1) > 2**64:
        raise ValueError(f"fill: global_shape must have at most 2**64 numbers, got {tuple(shape)}{where}.")
    if any(at < 0 or at + n > whole for at, n, whole in zip(offset, tensor.shape, shape, strict=True)):
        raise ValueError(
            f"fill: the tensor must lie inside global_shape, got global_shape {tuple(shape)}, offset {tuple(offset)} "
            f"and a tensor of shape {tuple(tensor.shape)}{where}."
        )


def _check_combine(job: FillJob, where: str) -> None:
    if not math.isfinite(job.combine.weight):
        raise ValueError(f"fill: a weight must be finite, got {job.combine.weight}{where}.")
    if not job.distribution.one_pass:
        raise NotImplementedError(
            f"fill: combined with what is there can be what one pass makes, got {job.distribution}{where}. Fill another tensor."
        )
