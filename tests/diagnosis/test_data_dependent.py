"""data_dependent_: every unit has mean 0 and standard deviation 1 on the batch, and the plan gives the same bits without it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import mlp, quiet  # noqa: F401 a fixture
from torch import Tensor, nn
from torch.nn import functional as F

import weightinit_cuda as wi
from weightinit_cuda.diagnosis.depth import totals

X = torch.rand(128, 64, generator=torch.Generator().manual_seed(0))


def outputs(net: nn.Module, x: Tensor, kinds: tuple[type[nn.Module], ...] = (nn.Linear,)) -> list[Tensor]:
    found: list[Tensor] = []
    handles = [m.register_forward_hook(lambda m, a, y: found.append(y.detach())) for m in net.modules() if isinstance(m, kinds)]
    net(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Tanh, nn.ReLU])
def test_every_unit_is_centred_and_scaled(activation: type[nn.Module]) -> None:
    net = mlp(8, 32, activation)
    wi.data_dependent_(net, X, seed=0)
    for y in outputs(net, X):
        torch.testing.assert_close(y.mean(0), torch.zeros(y.shape[1]), atol=2e-5, rtol=0)
        torch.testing.assert_close(y.std(0), torch.ones(y.shape[1]), atol=2e-5, rtol=0)


def test_ten_sigmoid_layers_which_lsuv_does_not_help() -> None:
    """By layer the standard deviation is 1, too, but of what samples share."""
    verdicts = {}
    for per_unit in (True, False):
        net = mlp(10, 64, nn.Sigmoid)
        wi.data_dependent_(net, X, seed=0, per_unit=per_unit)
        for y in outputs(net, X):
            assert y.std().item() == pytest.approx(1, abs=0.01)
        report = wi.probe(net, X, target=torch.arange(128) % 10)
        verdicts[per_unit] = report.verdict, totals(report.rows)[1]
    assert verdicts[True][0] == "ok"
    assert verdicts[False][0] == "FAIL"
    assert abs(verdicts[True][1]) < 2 < -verdicts[False][1]


@pytest.mark.parametrize("per_unit", [True, False])
@pytest.mark.parametrize("rules", ["lecun", "torch", "xavier"])
def test_the_plan_gives_the_same_bits_without_the_data(rules: str, per_unit: bool, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10))
    x = torch.rand(32, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    made = wi.data_dependent_(net, x, rules=rules, seed=5, per_unit=per_unit)
    assert made.seed == 5
    made.save(tmp_path / "plan.json")
    loaded = wi.Plan.load(tmp_path / "plan.json")
    other = loaded.apply_(nn.Sequential(*(copy.deepcopy(m) for m in net)))
    assert wi.fingerprint(other) == wi.fingerprint(net)
    assert wi.verify(loaded, net).ok
    assert torch.equal(wi.regenerate(loaded, "4.weight", (slice(2, 5), slice(7, 20))), net[4].weight[2:5, 7:20])
    again = copy.deepcopy(net)
    assert wi.data_dependent_(again, x, rules=rules, seed=5, per_unit=per_unit).diff(made) == []
    conv = outputs(net, x, (nn.Conv2d,))[0]
    deviations = conv.std((0, 2, 3)) if per_unit else conv.std()
    torch.testing.assert_close(deviations, torch.ones_like(deviations), atol=1e-4, rtol=0)


def test_orthogonal_weights_are_scaled_as_a_whole_only() -> None:
    rules = [wi.Rule("*.weight", "orthogonal_"), wi.Rule("*", "zeros_")]
    net = mlp(3, 32, nn.Tanh)
    plan = wi.data_dependent_(net, X, rules=rules, seed=0, per_unit=False)
    assert all(y.std().item() == pytest.approx(1, abs=1e-4) for y in outputs(net, X))
    assert wi.verify(plan, net).ok
    square = net[2].weight @ net[2].weight.T
    torch.testing.assert_close(square / square[0, 0], torch.eye(32), atol=1e-5, rtol=0)
    assert wi.data_dependent_(net, X, rules=rules, seed=3).diff(wi.plan(net, rules, seed=3)) == []


def test_what_is_not_scaled_stays() -> None:
    """Weights without bias are not centred; constants, units that do not vary, and tied ones after their first use stay."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(64, 16, bias=False), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = F.dropout(self.first(x), 0.5)
            return self.last(torch.relu(F.linear(y, self.first.weight[:, :16])))

    net = Net()
    wi.data_dependent_(net, X, seed=0)
    torch.testing.assert_close(net.first(X).std(0), torch.ones(16), atol=1e-4, rtol=0)
    constant = nn.Linear(64, 8)
    rules = [wi.Rule("weight", "constant_", val=0.5), wi.Rule("bias", "zeros_")]
    assert wi.data_dependent_(constant, X, rules=rules, seed=3).diff(wi.plan(constant, rules, seed=3)) == []
    still = nn.Linear(64, 8)
    made = wi.data_dependent_(still, torch.ones(16, 64), seed=0)
    [own] = wi.plan(still, "lecun", seed=0)["weight"]
    assert [line.distribution.std for line in made["weight"]] == [pytest.approx(own.distribution.std)] * 8


def test_everything_else_is_as_before() -> None:
    net = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4)).eval()
    net[0].weight.grad = torch.ones(16, 64)
    rng = torch.get_rng_state()
    wi.data_dependent_(net, X, seed=0)
    assert not any(m.training for m in net.modules())
    assert net[1].num_batches_tracked == 0
    assert bool((net[1].running_mean == 0).all())
    assert bool((net[0].weight.grad == 1).all())
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize("batch", [X[:1], X * float("nan")])
def test_refused(batch: Any) -> None:
    with pytest.raises(
        ValueError, match=r"data_dependent_: finite outputs of two samples or more are required, got others \(0.weight\)"
    ):
        wi.data_dependent_(mlp(1, 8, nn.ReLU), batch)
