"""Parameters whose elements live elsewhere: DeepSpeed's ZeRO-3 leaves an empty one, and a part of the flattened whole per rank.

Such a parameter has shape (0,); its attributes say what it stands for (``ds_shape``) and where this rank's part is
(``ds_tensor``). :class:`Partitioned` shows the whole: shape and dtype, and no elements. Nothing of DeepSpeed is imported.
Source: Rajbhandari et al. (2020), ZeRO: memory optimizations toward training trillion parameter models, arXiv:1910.02054.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .torch_private import make_wrapper

__all__ = ["Partitioned", "parameter_of", "shown_whole"]


class Partitioned(Tensor):
    """The whole tensor that a partitioned parameter stands for. It has no elements: every operator on it is refused.

    Attributes:
        parameter: the parameter in the model.
        begin: index in the flattened tensor of the first element of this rank.
        group: the ranks that have the parts.
    """

    parameter: Any
    begin: int
    group: Any

    @staticmethod
    def __new__(cls, parameter: Any) -> Partitioned:
        whole: Partitioned = make_wrapper(cls, tuple(parameter.ds_shape), parameter.dtype, parameter.device)
        whole.parameter, whole.group = parameter, parameter.ds_process_group
        rank, size, numel = torch.distributed.get_rank(whole.group), parameter.ds_tensor.ds_numel, math.prod(parameter.ds_shape)
        whole.begin = min(rank * size, numel)
        return whole

    @property
    def local(self) -> Tensor:
        """The elements of this rank, flat, where they are now; without the padding at the end.

        Raises:
            NotImplementedError: they cannot be read and written in place any more.
        """
        if trouble := _trouble(self.parameter):
            raise NotImplementedError(trouble)
        part: Tensor = self.parameter.ds_tensor.detach()
        return part[: min(part.numel(), self.numel() - self.begin)]

    @property
    def gathered(self) -> Tensor | None:
        """The whole tensor, while the parameter holds all of it on every rank; else None."""
        return self.parameter.detach() if self.parameter.ds_status.name == "AVAILABLE" else None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise NotImplementedError(
            f"{func}: the elements of a parameter that ZeRO-3 partitions are on other ranks."
            " Use it inside deepspeed.zero.GatheredParameters."
        )


def shown_whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or what it stands for if its elements are partitioned.

    Raises:
        NotImplementedError: the part of this rank cannot be read and written in place.
    """
    parameter: Any = tensor
    if getattr(parameter, "ds_id", None) is None:
        return tensor
    if trouble := _trouble(parameter):
        raise NotImplementedError(trouble)
    return Partitioned(parameter)


def parameter_of(tensor: Tensor) -> Tensor:
    """The parameter in the model, which optimisers hold, of a tensor that is shown whole."""
    parameter: Tensor = tensor.parameter if isinstance(tensor, Partitioned) else tensor
    return parameter


def _trouble(parameter: Any) -> str:
    """Why the part of this rank cannot be read and written; empty if it can."""
    local = parameter.ds_tensor
    if parameter.ds_status.name == "INFLIGHT":
        return "one that is being gathered"
    if hasattr(parameter, "comm"):
        return "shards of a subgroup (MiCS)"
    if getattr(parameter, "ds_secondary_tensor", None) is not None:
        return "a second partition (hierarchical partitioning)"
    if local is None or local.status.name != "AVAILABLE":
        return "a part that is on NVMe"
    if hasattr(local, "ds_quant_scale") or local.dtype != parameter.dtype:
        return f"quantised values ({local.dtype})"
    if local.ds_numel * torch.distributed.get_world_size(parameter.ds_process_group) < math.prod(parameter.ds_shape):
        return f"{local.ds_numel} elements of {tuple(parameter.ds_shape)} in each part"
    return ""
