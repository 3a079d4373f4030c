"""Megatron's layers: what their parameters say of themselves is a placement, so that a plan of the whole model fills them.

Nothing of Megatron is imported: its layers mark each parameter that is a shard by ``tensor_model_parallel``, ``partition_dim``
and ``partition_stride``.

torchrun --nproc-per-node 4 examples/distributed_megatron.py
"""

from __future__ import annotations

import re

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.placement_types import _StridedShard

import weightinit_cuda as wi

EXPERT = re.compile(r"(\blocal_experts\.|\.weight|\.bias)(\d+)")  # of SequentialMLP, and of TEGroupedMLP


def as_dtensor(parameter: Tensor, ranks: DeviceMesh) -> Tensor:
    """A shard of Megatron's as the DTensor that it is, in the same memory; other parameters as they are.

    Of n ranks and stride s, dimension ``partition_dim`` of the whole is cut into s n blocks, and rank r has the blocks r,
    r + n, ..., r + (s - 1) n. That is a strided shard with split factor s.

    Args:
        ranks: the tensor parallel ones; of experts' parameters the expert tensor parallel ones.
    """
    if not getattr(parameter, "tensor_model_parallel", False):
        return parameter
    dim, stride = int(parameter.partition_dim), int(parameter.partition_stride)  # type: ignore[attr-defined]
    dim %= parameter.dim()
    shape = torch.Size([*parameter.shape[:dim], parameter.shape[dim] * ranks.size(), *parameter.shape[dim + 1 :]])
    placement = Shard(dim) if stride == 1 else _StridedShard(dim, split_factor=stride)
    strides = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(parameter.detach(), ranks, [placement], run_check=False, shape=shape, stride=strides)


def tensors_of(model: nn.Module, ranks: DeviceMesh, first_expert: int = 0) -> dict[str, Tensor]:
    """The parameters by their names in the whole model, where experts are numbered over all ranks.

    Args:
        first_expert: number of this rank's first expert: expert parallel rank times local experts.
    """

    def whole(name: str) -> str:
        return EXPERT.sub(lambda found: f"{found[1]}{int(found[2]) + first_expert}", name)

    return {whole(name): as_dtensor(parameter, ranks) for name, parameter in model.named_parameters()}


class ParallelLinear(nn.Module):
    """As Megatron's ColumnParallelLinear (dim 0) and RowParallelLinear (dim 1) leave their weights."""

    def __init__(self, inputs: int, outputs: int, dim: int, ranks: int, stride: int = 1) -> None:
        super().__init__()
        shape = [outputs, inputs]
        shape[dim] //= ranks
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0]))
        for parameter in (self.weight, self.bias)[: 2 - dim]:  # the bias of a row parallel layer is whole on every rank
            vars(parameter).update(tensor_model_parallel=True, partition_dim=dim, partition_stride=stride)


class MLP(nn.Module):
    """An up and a down projection; the stride of the first is 2 where two halves (gate and value) lie one after the other."""

    def __init__(self, width: int, hidden: int, ranks: int, stride: int = 1) -> None:
        super().__init__()
        self.linear_fc1 = ParallelLinear(width, hidden, 0, ranks, stride)
        self.linear_fc2 = ParallelLinear(hidden, width, 1, ranks)


class Experts(nn.Module):
    def __init__(self, width: int, hidden: int, experts: int, ranks: int, stride: int = 1) -> None:
        super().__init__()
        self.local_experts = nn.ModuleList(MLP(width, hidden, ranks, stride) for _ in range(experts))


RULES = [wi.Rule("*.weight", "normal_", std=0.02), wi.Rule("*.bias", "zeros_")]


def fill_(model: nn.Module, whole: wi.Plan, ranks: DeviceMesh, first_expert: int = 0) -> None:
    """Fills what this rank holds. Names that only other ranks have are left to them.

    Raises:
        ValueError: the plan lacks a name, or has it with another shape.
    """
    tensors = tensors_of(model, ranks, first_expert)
    if unknown := tensors.keys() - set(whole.names()):
        raise ValueError(f"the plan must have every parameter, got none for {', '.join(sorted(unknown))}")
    if other := [name for name, tensor in tensors.items() if tuple(tensor.shape) != whole[name][0].shape]:
        raise ValueError(
            f"shapes must be those of the plan, got others for {', '.join(other)}. Megatron marks the weights that are shards"
            " where it initialises them: leave perform_initialization on."
        )
    whole.fill_(tensors)


def main() -> None:
    dist.init_process_group("gloo")
    ranks = init_device_mesh("cpu", (dist.get_world_size(),))
    with torch.device("meta"):
        plan = wi.plan(Experts(8, 48, 2, ranks=1), RULES, seed=0)  # one process's model; or a file that it has saved
    model = Experts(8, 48, 2, ranks.size(), stride=2)
    fill_(model, plan, ranks)
    fingerprint = wi.fingerprint(tensors_of(model, ranks))  # the same for any number of ranks
    print(
        f"rank {ranks.get_rank()}: {sum(p.numel() for p in model.parameters())} values, fingerprint {fingerprint}", flush=True
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
