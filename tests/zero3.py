"""Parameters as DeepSpeed's ZeRO-3 leaves them, without DeepSpeed: empty, their elements in flat parts on the ranks."""

from __future__ import annotations

import enum
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

Status = enum.Enum("Status", "AVAILABLE NOT_AVAILABLE INFLIGHT")


def partition(model: nn.Module, group: Any = None) -> nn.Module:
    """Each parameter of the model as it is after deepspeed.zero.Init on this rank of the group."""
    group = group or dist.group.WORLD
    for number, parameter in enumerate(model.parameters()):
        _partition(parameter, number, group)
    return model


def _partition(parameter: Any, number: int, group: Any) -> None:
    size = -(-parameter.numel() // dist.get_world_size(group))
    flat = torch.full((size,), float("nan"), dtype=parameter.dtype)  # its end is padding, and stays
    mine = parameter.detach().reshape(-1)[dist.get_rank(group) * size :][:size]
    flat[: mine.numel()] = mine
    parameter.ds_id, parameter.ds_shape, parameter.ds_numel = number, parameter.shape, parameter.numel()
    parameter.ds_status, parameter.ds_process_group = Status.NOT_AVAILABLE, group
    parameter.ds_tensor, parameter.ds_secondary_tensor = flat, None
    flat.ds_numel, flat.status = size, Status.AVAILABLE  # type: ignore[attr-defined]
    parameter.data = torch.empty(0, dtype=parameter.dtype)


def gather(model: nn.Module) -> nn.Module:
    """Every parameter whole again on every rank, as in deepspeed.zero.GatheredParameters; the parts stay."""
    for parameter in model.parameters():
        whole = gathered(parameter)
        parameter.data, parameter.ds_status = whole, Status.AVAILABLE  # type: ignore[attr-defined]
    return model


def gathered(parameter: Any) -> Tensor:
    """The whole tensor, from the parts of all ranks."""
    parts = [torch.empty_like(parameter.ds_tensor) for _ in range(dist.get_world_size(parameter.ds_process_group))]
    dist.all_gather(parts, parameter.ds_tensor, group=parameter.ds_process_group)
    return torch.cat(parts)[: parameter.ds_numel].view(parameter.ds_shape)
