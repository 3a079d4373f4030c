"""Shards as Megatron cuts them have the values of the whole: any number of ranks, strides, dimensions, and experts."""

from __future__ import annotations

import pytest
import torch
from bitwise import same_bits
from distributed_megatron import RULES, Experts, as_dtensor, fill_, tensors_of
from meshes import rank_of
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import weightinit_cuda as wi


def cut(whole: Tensor, dim: int, stride: int, rank: int, ranks: int) -> Tensor:
    """As Megatron-LM's ``_initialize_affine_weight_cpu`` cuts (megatron/core/tensor_parallel/layers.py)."""
    blocks = torch.split(whole, whole.shape[dim] // ranks // stride, dim=dim)
    return torch.cat(blocks[rank::ranks], dim=dim)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_shard_has_the_values_of_the_whole(ranks: int, dim: int, stride: int) -> None:
    whole = wi.init.kaiming_normal_(torch.empty(24, 48), seed=3, stream="w")
    for rank in range(ranks):
        with rank_of(rank, (ranks,)) as mesh:
            shard = nn.Parameter(torch.full_like(cut(whole, dim, stride, rank, ranks), float("nan")))
            vars(shard).update(tensor_model_parallel=True, partition_dim=dim, partition_stride=stride)
            wi.init.kaiming_normal_(as_dtensor(shard, mesh), seed=3, stream="w")
            assert same_bits(shard.detach(), cut(whole, dim, stride, rank, ranks))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_experts_of_several_ranks(ranks: int) -> None:
    """Four experts, two on each of two expert parallel ranks, each of them cut over the tensor parallel ones."""
    with torch.device("meta"):
        plan = wi.plan(Experts(4, 24, 4, ranks=1), RULES, seed=5)
    whole = plan.apply_(Experts(4, 24, 4, ranks=1)).state_dict()
    for first in (0, 2):
        for rank in range(ranks):
            with rank_of(rank, (ranks,)) as mesh:
                model = Experts(4, 24, 2, ranks, stride=3)
                fill_(model, plan, mesh, first)
                for (name, tensor), parameter in zip(tensors_of(model, mesh, first).items(), model.parameters(), strict=True):
                    expected = whole[name]
                    if isinstance(tensor, DTensor):
                        dim, stride = parameter.partition_dim, parameter.partition_stride  # type: ignore[attr-defined]
                        expected = cut(expected, dim, stride, rank, ranks)
                    assert same_bits(parameter.detach(), expected), name


def test_names_of_grouped_experts_and_of_strangers() -> None:
    with rank_of(0, (1,)) as mesh:
        grouped = nn.ParameterDict({"weight0": torch.zeros(1), "weight1": torch.zeros(1), "norm1": torch.zeros(1)})
        model = nn.ModuleDict({"linear_fc1": grouped})
        names = tensors_of(model, mesh, first_expert=6)
        assert sorted(names) == ["linear_fc1.norm1", "linear_fc1.weight6", "linear_fc1.weight7"]
        with pytest.raises(ValueError, match=r"must have every parameter, got none for linear_fc1\.norm1"):
            fill_(model, wi.plan(nn.Linear(1, 1), seed=0), mesh)


def test_shards_that_are_not_marked_are_refused() -> None:
    """As Megatron leaves them without perform_initialization."""
    with rank_of(0, (2,)) as mesh:
        model = Experts(8, 24, 1, ranks=2)
        plan = wi.plan(Experts(8, 24, 1, ranks=1), RULES, seed=0)
        for parameter in model.parameters():
            vars(parameter).clear()
            parameter.detach().fill_(7.0)
        with pytest.raises(ValueError, match=r"must be those of the plan, got others for .*linear_fc1\.weight.*perform_init"):
            fill_(model, plan, mesh)
        assert all(bool((parameter == 7).all()) for parameter in model.parameters())
