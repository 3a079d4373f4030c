"""The old ``torch.nn.utils.weight_norm``: a plain attribute ``weight`` that is part of the graph, as eager code leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitwise import same_bits
from torch import nn

import weightinit_cuda as wi

old_weight_norm: Any = nn.utils.weight_norm
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")


def recorded(make: Callable[[], nn.Module]) -> tuple[wi.Recording, Any]:
    with wi.deferred() as recording:
        net = make()
    return recording, net


def nets() -> nn.Module:
    return nn.Sequential(old_weight_norm(nn.Linear(6, 5)), old_weight_norm(nn.Conv1d(5, 4, 3), dim=None))


def test_the_weight_has_the_graph_of_its_parts() -> None:
    recording, net = recorded(nets)
    weights = [layer.weight for layer in net]
    recording.materialize_(net, "cpu", seed=0)
    for layer, weight, eager in zip(net, weights, nets().children(), strict=True):
        assert layer.weight is weight
        assert type(weight) is type(eager.weight)
        assert (weight.requires_grad, weight.is_leaf) == (eager.weight.requires_grad, eager.weight.is_leaf) == (True, False)
        before = weight.detach().clone()
        weight.square().sum().backward()
        for part in (layer.weight_g, layer.weight_v):
            assert part.grad is not None
        layer(torch.zeros(2, *eager.weight.shape[1:]))  # computes it again
        assert layer.weight is not weight
        assert same_bits(layer.weight.detach(), before)


def frozen() -> nn.Module:
    net = old_weight_norm(nn.Linear(3, 3))
    net.weight_g.requires_grad_(False)
    net.weight_v.requires_grad_(False)
    return nn.Sequential(net)


def removed() -> nn.Module:
    return nn.Sequential(nn.utils.remove_weight_norm(old_weight_norm(nn.Linear(3, 3))))  # type: ignore[no-untyped-call]


def test_what_has_no_graph_stays_so() -> None:
    recording, net = recorded(frozen)
    recording.materialize_(net, "cpu", seed=0)
    assert not net[0].weight.requires_grad
    recording, net = recorded(removed)
    recording.materialize_(net, "cpu", seed=0)
    assert isinstance(net[0].weight, nn.Parameter)
    recording, net = recorded(nets)
    recording.materialize_(net, "cpu", torch.bfloat16, seed=0)  # which leaves attributes alone, as `.to()` does
    assert (net[0].weight.dtype, net[0].weight_v.dtype) == (torch.float32, torch.bfloat16)
    assert not net[0].weight.requires_grad


def test_a_part_and_the_rest() -> None:
    recording, net = recorded(nets)
    recording.materialize_(net[0], "cpu", seed=4)
    weight = net[0].weight
    recording.materialize_(net, "cpu", seed=4)
    assert net[0].weight is weight
    assert weight.requires_grad
    assert net[1].weight.requires_grad


def test_another_seed() -> None:
    recording, net = recorded(nets)
    recording.materialize_(net, "cpu", seed=0)
    weights = [layer.weight for layer in net]
    recording.materialize_(net, "cpu", seed=1)
    other, alike = recorded(nets)
    other.materialize_(alike, "cpu", seed=1)
    for layer, weight, expected in zip(net, weights, alike, strict=True):
        assert layer.weight is weight
        assert same_bits(weight.detach(), expected.weight.detach())
        weight.square().sum().backward()
        assert layer.weight_g.grad is not None
        before = weight.detach().clone()
        layer(torch.zeros(2, *weight.shape[1:]))
        assert same_bits(layer.weight.detach(), before)
