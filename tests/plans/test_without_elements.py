"""Parameters and buffers without elements need no entry of a plan: nothing of them could be filled, compared or moved. Plans
have one all the same, for files that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitwise import same_bits
from torch import nn

import weightinit_cuda as wi


class Net(nn.Module):
    """Some that no rule knows, some that rules know, and one that is a part of a draw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.none = nn.Parameter(torch.zeros(0, 3))
        self.cut = nn.Parameter(torch.randn(4, 3)[:0])
        self.narrow = nn.Linear(2, 0)
        self.register_buffer("kept", torch.empty(2, 0))


EMPTY = {"none": (0, 3), "cut": (0, 3), "narrow.weight": (0, 2), "narrow.bias": (0,), "kept": (2, 0)}
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")


def net() -> Any:
    return Net()


def recorded() -> tuple[wi.Recording, Any]:
    with wi.deferred() as recording:
        model = net()
    return recording, model


def plans() -> dict[str, wi.Plan]:
    recording, model = recorded()
    return {"recorded": recording.plan(model, seed=1), "rules": wi.plan(net(), seed=1)}


@pytest.mark.parametrize("which", plans())
def test_a_plan_fits_with_and_without_them(which: str, tmp_path: Path) -> None:
    plan = plans()[which]
    named = [name for name, _ in (*net().named_parameters(), *net().named_buffers())]
    assert plan.names() == [name for name in named if which == "recorded" or name != "kept"]  # which no rule knows
    assert {name: plan[name][0].shape for name in EMPTY if name in plan} == {n: s for n, s in EMPTY.items() if n in plan}
    model = plan.apply_(net())
    again = net()
    plan.bind(again)()
    assert wi.fingerprint(model) == wi.fingerprint(again) == wi.fingerprint(wi.restore_(net(), plan))
    assert wi.verify(plan, model).ok
    assert wi.verify(plan, model.state_dict()).ok
    torch.save(model.state_dict(), tmp_path / "all.pt")
    assert wi.verify(plan, tmp_path / "all.pt").ok
    wi.export(plan, tmp_path / "planned.safetensors")
    loaded = pytest.importorskip("safetensors.torch").load_file(tmp_path / "planned.safetensors")
    again = net()
    again.load_state_dict(loaded, strict=which == "recorded")
    assert list(loaded.keys() ^ net().state_dict().keys()) == ([] if which == "recorded" else ["kept"])
    assert wi.fingerprint(model) == wi.fingerprint(again)
    for other in plans().values():
        assert wi.verify(other, tmp_path / "planned.safetensors").ok
        assert not plan.diff(other)
    wi.add_noise_(model, 0.5, seed=3)
    assert not wi.verify(plan, model).ok
    assert wi.verify(plan, wi.lerp_to_init_(model, plan, 1.0)).ok


@pytest.mark.parametrize("which", plans())
def test_plans_without_them_fit_as_well(which: str) -> None:
    plan = plans()[which]
    bare = wi.Plan(tuple(entry for entry in plan if entry.name not in EMPTY), plan.seed)
    assert len(bare) == 2
    assert not plan.diff(bare)
    assert wi.verify(plan, bare.apply_(net())).ok
    for tensors in ({k: v for k, v in net().state_dict().items() if k not in EMPTY}, net().state_dict()):
        assert wi.verify(bare, plan.apply_(tensors)).ok  # a state_dict lacks buffers that are not persistent
        plan.bind(tensors)(2)
        assert wi.verify(bare.with_seed(2), tensors).ok
        assert wi.verify(bare, wi.restore_(tensors, plan)).ok
    assert wi.verify(bare, plan.apply_(net())).ok


def test_files_of_a_recording_have_them(tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    recording, model = recorded()
    plan = recording.plan(model, seed=1)
    wi.export(plan, tmp_path / "shards", values=recording.values(model, seed=1), shard_bytes=16)
    shards = [load_file(file) for file in (tmp_path / "shards").glob("*.safetensors")]
    loaded = {name: tensor for shard in shards for name, tensor in shard.items()}
    net().load_state_dict(loaded)
    assert {name: tuple(loaded[name].shape) for name in EMPTY} == EMPTY
    assert wi.verify(plan, tmp_path / "shards").ok


def test_the_recording_gives_them() -> None:
    recording, model = recorded()
    values, half = recording.values(model, seed=1), recording.values(model, seed=1, dtype=torch.float16, keep="cut")
    for name, shape in EMPTY.items():
        assert values(name).shape == shape
        assert values(name).dtype == torch.float32
        assert half(name).dtype == (torch.float32 if name == "cut" else torch.float16)
    with pytest.raises(KeyError, match="a name of the plan is required, got 'other'"):
        values("other")
    recording.materialize_(model, seed=1, dtype=torch.float16, keep="cut")
    for name, tensor in model.state_dict().items():
        assert not tensor.is_meta
        assert tensor.dtype == (torch.float32 if name == "cut" else torch.float16), name


def test_rules_need_not_know_them() -> None:
    only = nn.ParameterDict({"none": nn.Parameter(torch.zeros(0, 3))})
    assert [(entry.name, entry.shape, entry.source) for entry in wi.plan(only, seed=0)] == [("none", (0, 3), "no elements")]
    wi.initialize_(only, seed=0)
    strange = nn.ParameterDict({"none": nn.Parameter(torch.zeros(0, dtype=torch.uint16), requires_grad=False)})
    assert len(wi.plan(strange, seed=0).apply_(strange)) == 1
    refused = nn.ParameterDict({"none": nn.Parameter(torch.zeros(0, 3)), "w": nn.Parameter(torch.zeros(2, 3))})
    plan = wi.plan(refused, wi.Rule("*", "kaiming_normal_"), seed=0)
    assert same_bits(plan.apply_(refused)["w"].detach(), wi.regenerate(plan, "w"))
    with pytest.raises(ValueError, match="got 1 without"):
        wi.plan(refused, seed=0)


def test_what_has_elements_is_missed_as_before() -> None:
    plan, model = plans()["rules"], net()
    model.more = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="more: a parameter that the plan does not have"):
        plan.apply_(model)
    assert [f.status for f in wi.verify(plan, {"extra": torch.zeros(1)}).findings if f.name == "extra"] == ["extra"]
    grown = net()
    grown.narrow = nn.Linear(2, 1)
    assert plan.diff(wi.plan(grown, seed=1))
