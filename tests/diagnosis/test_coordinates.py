"""The coordinate check: exponents that are known, muP against one learning rate for all, and its page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import zero3
from meshes import rank_of
from nets import quiet  # noqa: F401 a fixture
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import weightinit_cuda as wi

X, CLASSES = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 4
WIDTHS = (64, 128, 256)
RULES = [wi.Rule("*.bias", "zeros_"), wi.Rule("*", "lecun_normal_")]


def net(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))


BASE = net(64)


def made(rules: Any) -> Any:
    return lambda width: wi.initialize_(net(width), rules, seed=int(torch.randint(1 << 30, ())))


def check(rules: Any, optimizer: Any, **settings: Any) -> wi.CoordinateCheck:
    return wi.coordinate_check(made(rules), WIDTHS, X, target=CLASSES, optimizer=optimizer, **settings)


def test_mup_moves_all_widths_alike_and_one_learning_rate_does_not() -> None:
    standard = check(RULES, lambda model: torch.optim.Adam(model.parameters(), 1e-3))
    mup = check(wi.rules.mup(BASE, RULES), lambda model: torch.optim.Adam(wi.rules.mup_groups(model, BASE, 1e-3)))
    assert list(mup.exponents) == ["0.weight", "2.weight", "4.weight"]
    assert all(abs(exponent) < 0.2 for exponent in mup.exponents.values())
    assert standard.exponents["2.weight"] > 0.5
    assert standard.exponents["4.weight"] > 0.5
    assert standard.worst[1] > 0.5
    for name in mup.changes:  # of the base's width both are the same training
        assert mup.changes[name][0] == pytest.approx(standard.changes[name][0], rel=1e-4)


def test_exponents_are_those_of_a_power_law() -> None:
    law = wi.CoordinateCheck((10, 100, 1000), {"a": (2.0, 4.0, 8.0), "b": (1.0, 1.0, 1.0), "c": (0.0, 1.0, 1.0)}, 1)
    assert law.exponents["a"] == pytest.approx(math.log10(2))
    assert law.exponents["b"] == pytest.approx(0.0)
    assert math.isnan(law.exponents["c"])
    assert wi.CoordinateCheck((10, 100), {"a": (2.0, 4.0), "b": (9.0, 1.0)}, 1).worst == ("b", pytest.approx(-math.log10(9)))


def test_shown(tmp_path: Path) -> None:
    law = wi.CoordinateCheck((10, 100, 1000), {"a": (2.0, 4.0, 8.0), "<b>": (1.0, 1.0, 1.0)}, 3)
    assert "change after 3 steps" in str(law)
    assert "+0.30" in str(law)
    text = law.html(tmp_path / "check.html").read_text()
    assert text.count("<polyline") == 2
    assert "&lt;b&gt;" in text
    assert "<b>" not in text


def test_generators_are_as_before() -> None:
    before = torch.get_rng_state()
    first = check(RULES, lambda model: torch.optim.SGD(model.parameters(), 0.1), seeds=[3], steps=1)
    assert torch.equal(before, torch.get_rng_state())
    assert check(RULES, lambda model: torch.optim.SGD(model.parameters(), 0.1), seeds=[3], steps=1) == first


def test_refused() -> None:
    sgd: Any = lambda model: torch.optim.SGD(model.parameters(), 0.1)  # noqa: E731
    for widths, steps, seeds in (([64], 3, [0]), ([64, 64], 3, [0]), ([64, 128], 0, [0]), ([64, 128], 1, [])):
        with pytest.raises(ValueError, match="two widths, a step and a seed or more"):
            wi.coordinate_check(net, widths, X, target=CLASSES, optimizer=sgd, steps=steps, seeds=seeds)
    with pytest.raises(ValueError, match="a loss is required, got none"):
        wi.coordinate_check(net, [64, 128], X, optimizer=sgd)
    with pytest.raises(ValueError, match="the same layers at every width"):
        wi.coordinate_check(lambda width: net(width)[: 5 if width == 64 else 3], [64, 128], X, target=CLASSES, optimizer=sgd)


def test_learning_rates_by_growth() -> None:
    groups = wi.rules.mup_groups(net(256), BASE, 0.4, betas=(0.5, 0.9))
    rates = {tuple(p.shape): group["lr"] for group in groups for p in group["params"]}
    assert rates == {(256, 16): 0.4, (256,): 0.4, (256, 256): pytest.approx(0.1), (4, 256): pytest.approx(0.1), (4,): 0.4}
    assert all(group["betas"] == (0.5, 0.9) for group in groups)
    frozen = net(256)
    frozen[2].requires_grad_(False)
    assert sum(len(group["params"]) for group in wi.rules.mup_groups(frozen, BASE, 0.4)) == 4
    with pytest.raises(
        ValueError, match=r"mup_groups: the base model must have every parameter, got none of that name \(2.weight\)"
    ):
        wi.rules.mup_groups(net(256), BASE[:2], 0.1)


@pytest.mark.parametrize("how", ["FSDP2", "tensor parallel", "ZeRO-3"])
def test_groups_hold_the_parameters_of_this_rank(how: str) -> None:
    """Whose global shapes count: an optimiser must get what is trained, with the rates of the whole model."""
    plain = {group["lr"]: len(group["params"]) for group in wi.rules.mup_groups(net(256), BASE, 0.4)}
    with rank_of(1, (2,)) as mesh:
        sharded: nn.Module = net(256)
        if how == "FSDP2":
            fully_shard(sharded, mesh=mesh)
        elif how == "tensor parallel":
            parallelize_module(sharded, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
        else:
            zero3.partition(sharded)
        groups = wi.rules.mup_groups(sharded, BASE, 0.4)
        assert {group["lr"]: len(group["params"]) for group in groups} == plain
        trained = {id(parameter) for group in groups for parameter in group["params"]}
        assert trained == {id(parameter) for parameter in sharded.parameters()}
