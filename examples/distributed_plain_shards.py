"""Plain shards, without DTensor: Megatron's column, row and vocabulary parallel layers, and flat partitions (ZeRO-3, FSDP1).

torchrun --nproc-per-node 4 examples/distributed_plain_shards.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

import weightinit_cuda as wi


def bounds(whole: int, rank: int, size: int) -> tuple[int, int]:
    """Where a rank's share begins and ends; shares differ by one at most."""
    return whole * rank // size, whole * (rank + 1) // size


class ColumnParallel(nn.Module):
    """Rows [begin, end) of a Linear's weight, and of its bias: a rank computes some of the outputs."""

    def __init__(self, name: str, inputs: int, outputs: int, rank: int, size: int, seed: int = 0) -> None:
        super().__init__()
        begin, end = bounds(outputs, rank, size)
        self.weight = nn.Parameter(torch.empty(end - begin, inputs))
        self.bias = nn.Parameter(torch.empty(end - begin))
        place = {"global_shape": (outputs, inputs), "offset": (begin, 0)}
        wi.init.kaiming_uniform_(self.weight, a=5**0.5, seed=seed, stream=f"{name}.weight", **place)
        bound = inputs**-0.5
        place = {"global_shape": (outputs,), "offset": (begin,)}
        wi.init.uniform_(self.bias, -bound, bound, seed=seed, stream=f"{name}.bias", **place)


class RowParallel(nn.Module):
    """Columns [begin, end) of a Linear's weight: a rank sees some of the inputs. Fans come from the whole weight."""

    def __init__(self, name: str, inputs: int, outputs: int, rank: int, size: int, seed: int = 0) -> None:
        super().__init__()
        begin, end = bounds(inputs, rank, size)
        self.weight = nn.Parameter(torch.empty(outputs, end - begin))
        place = {"global_shape": (outputs, inputs), "offset": (0, begin)}
        wi.init.xavier_normal_(self.weight, seed=seed, stream=f"{name}.weight", **place)


class ExpertParallel(nn.Module):
    """Experts [begin, end) of stacked ones, (experts, outputs, inputs): their fans are those of one expert."""

    def __init__(self, name: str, experts: int, inputs: int, outputs: int, rank: int, size: int, seed: int = 0) -> None:
        super().__init__()
        begin, end = bounds(experts, rank, size)
        self.weight = nn.Parameter(torch.empty(end - begin, outputs, inputs))
        place = {"global_shape": (experts, outputs, inputs), "offset": (begin, 0, 0)}
        wi.init.kaiming_normal_(self.weight, batch_axes=0, seed=seed, stream=f"{name}.weight", **place)


def flat_partition(name: str, shape: tuple[int, ...], rank: int, size: int, seed: int = 0) -> Tensor:
    """A rank's share of a parameter that was flattened first."""
    flat_range = bounds(torch.Size(shape).numel(), rank, size)
    shard = torch.empty(flat_range[1] - flat_range[0])
    return wi.init.kaiming_normal_(shard, seed=seed, stream=name, global_shape=shape, flat_range=flat_range)


def main() -> None:
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    layer = ColumnParallel("mlp.up", 6, 16, rank, size)
    shards: list[Tensor | None] = [None] * size
    dist.all_gather_object(shards, layer.weight.detach())
    whole = ColumnParallel("mlp.up", 6, 16, 0, 1)
    same = torch.equal(torch.cat([shard for shard in shards if shard is not None]), whole.weight)
    print(f"rank {rank}: {tuple(layer.weight.shape)} of (16, 6), gathered as in one process: {same}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
