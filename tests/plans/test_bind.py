"""Plans bound to a model's memory: the same bits as applying them, any seed, whatever moved in between."""

from __future__ import annotations

import threading

import pytest
import torch
from bitwise import differing
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda import engine


class Net(nn.Module):
    """Plain, boxed, strided, tied, complex, integer and orthogonal tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.tok = nn.Embedding(30, 8, padding_idx=3)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(5))
        self.layers[1].weight = self.layers[0].weight
        self.turned = nn.Parameter(torch.empty(6, 4).T)
        self.wave = nn.Parameter(torch.empty(5, dtype=torch.complex64))
        self.norm = nn.BatchNorm1d(8)
        self.narrow = nn.Parameter(torch.empty(70_000, dtype=torch.bfloat16))


RULES = [
    wi.Rule("layers.4.weight", "orthogonal_"),
    wi.Rule("turned", "normal_"),
    wi.Rule("wave", "normal_"),
    wi.Rule("narrow", "uniform_"),
    wi.Rule((wi.rules.buffer, "norm.num_batches_tracked"), "zeros_"),
    "torch",
]


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert differing(a, b) == 0 if a.is_floating_point() else torch.equal(a, b), name


@pytest.fixture
def plan() -> wi.Plan:
    return wi.plan(Net(), RULES, seed=5)


def test_bits_and_seeds(plan: wi.Plan, backend: str) -> None:
    bound, applied = Net(), Net()
    fill = plan.bind(bound)
    for seed in (None, 0, 2**64 - 1, -7):
        bound.norm.num_batches_tracked += 3
        fill(seed=seed)
        plan.apply_(applied, seed=seed)
        assert_same(bound, applied)
    with pytest.raises(TypeError, match="seed must be an integer"):
        fill(seed=0.5)


def test_memory_that_moves(plan: wi.Plan) -> None:
    bound, applied = Net(), plan.apply_(Net(), seed=1)
    fill = plan.bind(bound)
    fill(seed=0)
    left_behind = bound.narrow.data, bound.narrow.data.clone()
    bound.narrow.data = torch.empty_like(bound.narrow)
    bound.tok.weight.data = torch.empty_like(bound.tok.weight)
    fill(seed=1)
    assert_same(bound, applied)
    assert torch.equal(*left_behind)
    bound.narrow.data = bound.narrow.data[:10]
    with pytest.raises(ValueError, match=r"bind: .*\n.*narrow: shape \(10,\)"):
        fill(seed=2)
    assert torch.equal(bound.tok.weight, applied.tok.weight)


def test_versions_move(plan: wi.Plan) -> None:
    net = Net()
    fill = plan.bind(net)
    before = [p._version for p in net.parameters()]
    fill()
    assert all(p._version > v for p, v in zip(net.parameters(), before, strict=True))


def test_the_model_must_fit(plan: wi.Plan) -> None:
    with pytest.raises(ValueError, match=r"bind: the model must fit the plan"):
        plan.bind(nn.Linear(3, 3))


def test_seeds_at_once() -> None:
    """Two threads with one table: each fill is whole, under one of the seeds."""
    net = nn.Linear(300, 300)
    plan = wi.plan(net, [wi.Rule("*", "uniform_")])
    fill = plan.bind(net)
    allowed = [plan.apply_(nn.Linear(300, 300), seed=seed).bias.clone() for seed in range(2)]

    def work(seed: int) -> None:
        for _ in range(50):
            fill(seed=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(torch.equal(net.bias, values) for values in allowed)


def test_plain_tensors_are_one_table() -> None:
    """What makes it fast: no walk over the tensors in Python."""
    net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])
    prepared = engine.Prepared(wi.plan(net).jobs(dict(net.named_parameters())))
    assert [len(batch.jobs) for batch, _, _ in prepared._batches] == [6]
    assert [len(launches) for _, _, launches in prepared._batches] == [int(engine.backend.native)]
