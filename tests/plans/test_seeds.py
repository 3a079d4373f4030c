"""Seeds as people expect them: drawn where none is given, kept by plans, agreed on by ranks; and parts with a prefix."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from bitwise import same_bits
from meshes import rank_of, shard_of
from torch import Tensor, nn
from torch.distributed.tensor import Replicate, Shard

import weightinit_cuda as wi


def net() -> Any:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


def by_plan(model: Any, **options: Any) -> Any:
    return wi.plan(model, **options).apply_(model)


WAYS: list[Callable[..., Any]] = [wi.initialize_, by_plan]
ways = pytest.mark.parametrize("way", WAYS, ids=["initialize_", "plan"])


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def all_same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(same_bits(a, b) for a, b in zip(one, other, strict=True))


@ways
def test_torch_governs_what_no_seed_is_given_for(way: Callable[..., Any]) -> None:
    torch.manual_seed(5)
    one, two = weights(way(net())), weights(way(net()))
    assert not any(same_bits(a, b) for a, b in zip(one, two, strict=True))
    torch.manual_seed(5)
    assert all_same(weights(way(net())), one)


@ways
def test_one_number_is_drawn_and_none_where_a_seed_is_given(way: Callable[..., Any]) -> None:
    model = net()
    torch.manual_seed(5)
    way(model, seed=3)
    torch.empty((), dtype=torch.int64).random_(-(2**63), None)
    expected = torch.rand(3)
    torch.manual_seed(5)
    way(model)
    assert torch.equal(torch.rand(3), expected)


def test_nothing_is_drawn_for_what_is_refused() -> None:
    model, on_meta = net(), net().to("meta")
    before = torch.get_rng_state()
    for refused, rules, why in ((model, [], "no rule"), (on_meta, "torch", "on meta"), (model, "none", "one of")):
        with pytest.raises(ValueError, match=why):
            wi.initialize_(refused, rules)
    with pytest.raises(ValueError, match="no rule"):
        wi.plan(model, [])
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_have_64_bits() -> None:
    torch.manual_seed(0)
    seeds = [wi.plan(nn.Linear(1, 1)).seed for _ in range(200)]
    assert len(set(seeds)) == 200
    assert all(any(seed >> bit & 1 for seed in seeds) for bit in range(64))
    assert not any(seed >> 64 for seed in seeds)


def test_a_plan_keeps_its_seed() -> None:
    plan = wi.plan(net())
    again = wi.Plan.from_json(plan.to_json())
    assert again.seed == plan.seed != wi.plan(net()).seed
    expected = weights(plan.apply_(net()))
    assert all_same(weights(again.apply_(net())), expected)
    assert all_same(weights(wi.initialize_(net(), seed=plan.seed)), expected)


def test_values_of_a_seed_are_what_they_were() -> None:
    model = wi.initialize_(net(), rules="xavier", seed=7)
    expected = wi.init.xavier_uniform_(torch.empty(4, 4), seed=7, stream="1.weight")
    assert same_bits(model[1].weight.detach(), expected)


def test_an_ensemble_has_different_members() -> None:
    members = [wi.initialize_(net(), "kaiming") for _ in range(3)]
    assert len({member[0].weight.detach().sum().item() for member in members}) == 3


def test_every_door_takes_none() -> None:
    doors: list[Any] = [wi.initialize_, wi.plan, wi.Recording.plan, wi.Recording.materialize_, wi.Recording.values]
    assert [inspect.signature(door).parameters["seed"].default for door in doors] == [None] * 5


# ---- parts of a whole ------------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("prefix", ["1", "1."])
def test_a_part_alone_has_the_values_of_the_whole(way: Callable[..., Any], prefix: str) -> None:
    whole, part = way(net(), seed=2), way(nn.Linear(4, 4), seed=2, prefix=prefix)
    assert all_same(weights(part), weights(whole[1]))
    assert not same_bits(weights(way(nn.Linear(4, 4), seed=2))[0], weights(whole[1])[0])


def test_a_plan_of_a_part_lists_the_names_of_the_part() -> None:
    plan = wi.plan(nn.Linear(4, 4), seed=2, prefix="1")
    assert plan.names() == ["weight", "bias"]
    whole = wi.plan(net(), seed=2)
    assert [entry.stream for entry in plan] == [entry.stream for name in ("1.weight", "1.bias") for entry in whole[name]]
    saved = wi.Plan.from_json(plan.to_json())
    assert all_same(weights(saved.apply_(nn.Linear(4, 4))), weights(whole.apply_(net())[1]))
    assert same_bits(wi.regenerate(saved, "weight"), wi.regenerate(whole, "1.weight"))


def test_rules_see_the_names_of_the_part() -> None:
    plan = wi.plan(nn.Linear(4, 4), [wi.Rule("weight", "ones_"), "torch"], prefix="1")
    assert plan["weight"][0].distribution.numbers() == {"value": 1.0}


@ways
def test_a_prefix_is_a_name(way: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"(initialize_|plan): prefix must be the name of a module, such as .*, got 3 \(int\)"):
        way(nn.Linear(4, 4), prefix=3)


@ways
@pytest.mark.parametrize("prefix", [".", "..", ".1", "layers..1", "layers.1..", "..layers"])
def test_no_part_of_a_prefix_is_empty(way: Callable[..., Any], prefix: str) -> None:
    model = nn.Linear(4, 4)
    before = weights(model)
    with pytest.raises(ValueError, match=r"(initialize_|plan): prefix must be .*, got '[layers.1]*', of which a part is empty"):
        way(model, prefix=prefix)
    assert all_same(weights(model), before)


# ---- ranks -----------------------------------------------------------------------------------------------------------

Sent = list[tuple[int, int]]  # source and number of ranks


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What is broadcast; with a fake process group every rank is told 41."""
    told: Sent = []

    def broadcast(tensor: Tensor, src: int, group: Any) -> None:
        told.append((src, dist.get_world_size(group)))
        tensor.fill_(41 - 2**63)

    monkeypatch.setattr(dist, "broadcast", broadcast)
    return told


def spread(mesh: Any, placements: Any) -> Any:
    model: Any = nn.Module()
    model.w = nn.Parameter(shard_of(torch.zeros(8, 6), mesh, placements))
    model.v = nn.Parameter(shard_of(torch.zeros(8, 6), mesh, placements))
    return model


NORMAL = wi.Rule("*", "normal_")


@ways
@pytest.mark.parametrize("rank", [0, 3, 4])
def test_ranks_of_a_mesh_take_the_seed_of_the_first(way: Callable[..., Any], rank: int, sent: Sent) -> None:
    whole = wi.init.normal_(torch.empty(8, 6), seed=41, stream="w")
    with rank_of(rank, (2, 3)) as mesh:
        model = way(spread(mesh, [Replicate(), Shard(0)]), rules=NORMAL)
        expected = shard_of(whole, mesh, [Replicate(), Shard(0)]).to_local()
        assert same_bits(model.w.detach().to_local(), expected)
    assert sent == [(rank % 3, 2), (rank // 3 * 3, 3)]  # coordinate 0 of each dimension; one mesh is told once


@ways
def test_every_mesh_is_told(way: Callable[..., Any], sent: Sent) -> None:
    with rank_of(3, (2, 2)) as mesh:
        model = spread(mesh, [Shard(0), Shard(1)])
        column = mesh[mesh.mesh_dim_names[1]]
        model.v = nn.Parameter(shard_of(torch.zeros(8, 6), column, [Shard(0)]))
        way(model, rules=NORMAL)
    assert sorted(sent) == [(1, 2), (2, 2), (2, 2)]


@ways
def test_nothing_is_sent_for_a_seed_that_is_given(way: Callable[..., Any], sent: Sent) -> None:
    with rank_of(1, (2,)) as mesh:
        way(spread(mesh, [Shard(0)]), rules=NORMAL, seed=3)
        way(net())  # and none for plain tensors: torch.manual_seed decides, on each rank
    assert sent == []


def test_a_recording_tells_its_seed(sent: Sent) -> None:
    with wi.deferred() as recorded:
        model: Any = nn.Linear(6, 8, bias=False)
    with rank_of(1, (2,)) as mesh:
        plain = recorded.plan(model)
        assert sent == []
        assert plain.seed != 41
        model.weight = nn.Parameter(shard_of(torch.zeros(8, 6), mesh, [Shard(0)]))
        assert recorded.plan(model).seed == 41
        assert recorded.plan(model, seed=2).seed == 2
    assert sent == [(0, 2)]
