"""Parts of a recorded model have the values of the whole; copies are equal under whatever name; other models differ."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitwise import same_bits
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import weightinit_cuda as wi


class Tied(nn.Module):
    """Ties, a copied layer, a chunk of another tensor, and what only a replay gives."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.first = nn.Linear(4, 4)
        self.copied = copy.deepcopy(self.first)
        self.rest: Any = nn.Module()
        self.rest.turned = nn.Parameter(torch.randn(4, 4).t() @ torch.randn(4, 4))
        self.rest.upper = nn.Parameter(self.first.weight.data[:2])
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight


def net() -> Any:
    return nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))


def recorded(make: Callable[[], Any]) -> tuple[wi.Recording, Any]:
    with wi.deferred() as recording:
        model = make()
    return recording, model


def whole(make: Callable[[], Any], seed: int) -> dict[str, Tensor]:
    recording, model = recorded(make)
    return values(recording.materialize_(model, seed=seed))


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)


# ---- seeds -----------------------------------------------------------------------------------------------------------


def test_torch_governs_recordings() -> None:
    torch.manual_seed(3)
    results = []
    for _ in range(2):
        recording, model = recorded(net)
        results.append(values(recording.materialize_(model)))
    assert not any(same_bits(a, b) for a, b in zip(results[0].values(), results[1].values(), strict=True))
    torch.manual_seed(3)
    recording, model = recorded(net)
    assert same(values(recording.materialize_(model)), results[0])


def test_a_recording_draws_its_seed_once() -> None:
    recording, model = recorded(net)
    plan = recording.plan(model)
    state = torch.get_rng_state()
    assert recording.plan(model) == plan
    assert same_bits(recording.values(model)("1.0.weight"), wi.regenerate(plan, "1.0.weight"))
    assert same_bits(recording.materialize_(model)[0].weight.detach(), wi.regenerate(plan, "0.weight"))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(values(model), whole(net, plan.seed))


# ---- parts -----------------------------------------------------------------------------------------------------------


def leaves(recording: wi.Recording, model: nn.Module) -> None:
    """As FSDP1's ``param_init_fn``, or ``Module.apply``."""
    model.apply(lambda m: recording.materialize_(m, device="cpu") if isinstance(m, nn.Linear) else None)


def test_parts_one_after_the_other_are_the_whole() -> None:
    recording, model = recorded(net)
    leaves(recording, model)
    got = values(model)
    assert same(got, whole(net, recording.plan(model).seed))
    assert len({tensor.sum().item() for tensor in got.values()}) == len(got)


@pytest.mark.parametrize("order", [1, -1])
def test_ties_copies_chunks_and_replays_in_parts(order: int) -> None:
    expected = whole(Tied, 4)
    assert same_bits(expected["first.weight"], expected["copied.weight"])
    recording, model = recorded(Tied)
    for part in list(model.children())[::order]:
        recording.materialize_(part, seed=4)
    assert same(values(model), expected)


def test_plans_and_values_of_a_part() -> None:
    recording, model = recorded(Tied)
    for name, part in model.named_children():
        plan, value = recording.plan(part, seed=4), recording.values(part, seed=4)
        for own in plan.names():
            assert same_bits(value(own), recording.values(model, seed=4)(f"{name}.{own}"))
    part = recording.plan(model.head, seed=4)
    assert part.names() == ["weight"]
    assert same_bits(part.apply_(nn.Linear(4, 6, bias=False)).weight.detach(), whole(Tied, 4)["embed.weight"])


def test_parts_of_parts_and_a_part_that_outlives_its_whole() -> None:
    recording, model = recorded(net)
    inner = model[1]
    plan = recording.plan(inner[0], seed=1)
    del model
    gc.collect()
    assert recording.plan(inner[0], seed=1) == plan
    assert recording.plan(inner, seed=1)["0.weight"][0].stream == plan["weight"][0].stream


def test_a_whole_that_nobody_needed_is_scaffolding() -> None:
    recording, model = recorded(lambda: net()[1])
    gc.collect()
    assert recording.plan(model, seed=1)["0.weight"][0].stream == wi.plan(model, seed=1)["0.weight"][0].stream


def test_what_is_put_together_later_is_a_whole() -> None:
    with wi.deferred() as recording:
        one, two = nn.Linear(3, 3), nn.Linear(3, 3)
    plan = recording.plan(nn.Sequential(one, two), seed=1)
    assert plan.diff(wi.plan(nn.Sequential(one, two), seed=1)) == []


def test_rules_for_a_part_that_the_code_leaves_unwritten() -> None:
    def bare() -> Any:
        model = net()
        model[0].weight = nn.Parameter(torch.empty(3, 3))
        return model

    rule = wi.Rule("*", "normal_")
    recording, model = recorded(bare)
    expected = recording.values(model, seed=2, rules=rule)("0.weight")
    assert same_bits(recording.materialize_(model[0], seed=2, rules=rule).weight.detach(), expected)


@pytest.mark.parametrize("prefix", ["1.0", "1.0."])
def test_a_prefix_stands_for_a_whole_that_is_not_there(prefix: str) -> None:
    expected = whole(net, 9)
    recording, part = recorded(lambda: nn.Linear(3, 3))
    assert recording.plan(part, seed=9, prefix=prefix).names() == ["weight", "bias"]
    assert same_bits(recording.values(part, seed=9, prefix=prefix)("bias"), expected["1.0.bias"])
    recording.plan(part, seed=9, prefix=prefix).apply_(other := nn.Linear(3, 3))
    assert same_bits(other.weight.detach(), expected["1.0.weight"])
    recording.materialize_(part, seed=9, prefix=prefix)
    assert same_bits(part.weight.detach(), expected["1.0.weight"])


def test_no_part_of_a_prefix_is_empty() -> None:
    recording, part = recorded(lambda: nn.Linear(3, 3))
    for function in (recording.plan, recording.values, recording.materialize_):
        with pytest.raises(ValueError, match=r"prefix must be the name of a module, .*, got 'layers\.\.1'"):
            function(part, prefix="layers..1")  # type: ignore[operator]
    assert part.weight.is_meta


def test_parts_with_prefixes_have_one_seed() -> None:
    with wi.deferred() as recording:
        stages = [nn.Linear(3, 3), nn.Linear(3, 3)]
    plans = [recording.plan(stage, prefix=str(number)) for number, stage in enumerate(stages)]
    assert plans[0].seed == plans[1].seed
    assert plans[0]["weight"][0].stream != plans[1]["weight"][0].stream


def test_no_prefix_at_all() -> None:
    recording, model = recorded(net)
    assert recording.plan(model[0], seed=1, prefix="").diff(wi.plan(nn.Linear(3, 3), seed=1)) == []
    with pytest.raises(TypeError, match="materialize_: prefix must be the name of a module"):
        recording.materialize_(model, prefix=1)  # type: ignore[arg-type]
    assert model[0].weight.is_meta


def test_parts_of_a_copy() -> None:
    """A copied module registers nothing, and is a model all the same."""
    before = nn.Module.__setstate__
    code = before.__code__
    with wi.deferred() as recording:
        model = copy.deepcopy(net())
    leaves(recording, model)
    assert same(values(model), whole(net, recording.plan(model).seed))
    assert nn.Module.__setstate__ is before
    assert before.__code__ is code


# ---- several models of a block ---------------------------------------------------------------------------------------


def test_two_models_of_a_block_differ() -> None:
    with wi.deferred() as recording:
        actor, critic = nn.Linear(3, 3), nn.Linear(3, 3)
    recording.materialize_(actor)
    recording.materialize_(critic)
    assert not same_bits(actor.weight.detach(), critic.weight.detach())
    assert recording.plan(critic, seed=5).diff(recording.plan(actor, seed=5)) == []  # one seed and one name: as it was


@pytest.mark.parametrize("seed", [None, 6])
@pytest.mark.parametrize("order", [1, -1])
def test_copies_are_equal_under_another_name(seed: int | None, order: int) -> None:
    with wi.deferred() as recording:
        n = nn.Linear(3, 3)
        e = AveragedModel(n)
    for model in [n, e][::order]:
        recording.materialize_(model, device="cpu", seed=seed)
    assert same_bits(n.weight.detach(), e.module.weight.detach())
    assert same_bits(n.bias.detach(), e.module.bias.detach())


def test_the_first_that_is_asked_for_has_its_own_names() -> None:
    for first in (0, 1):
        with wi.deferred() as recording:
            n = nn.Linear(3, 3)
            models = n, AveragedModel(n)
        name = ("weight", "module.weight")[first]
        plan = recording.plan(models[first], seed=6)
        expected = wi.init.kaiming_uniform_(torch.empty(3, 3), a=5**0.5, seed=6, stream=name)
        assert same_bits(wi.regenerate(plan, name), expected)


def test_a_target_network_with_a_part_of_its_own() -> None:
    """What is drawn apart differs, though it has one name in both and one seed."""
    with wi.deferred() as recording:
        student = net()
        teacher = copy.deepcopy(student)
        student[0] = nn.Linear(3, 3)
    recording.materialize_(student)
    recording.materialize_(teacher)
    assert same(values(student[1]), values(teacher[1]))
    assert not same_bits(student[0].weight.detach(), teacher[0].weight.detach())


def test_a_turned_copy_is_replayed_with_the_numbers_of_the_first() -> None:
    with wi.deferred() as recording:
        n = nn.Linear(3, 4, bias=False)
        turned: Any = nn.Module()
        doubled: Any = nn.Module()
        turned.w = nn.Parameter(n.weight.detach().t().clone())
        doubled.w = nn.Parameter(torch.cat([n.weight.detach(), n.weight.detach()]))
    for model in (n, turned, doubled):
        recording.materialize_(model)
    assert same_bits(turned.w.detach(), n.weight.detach().t())
    assert same_bits(doubled.w.detach(), n.weight.detach().repeat(2, 1))


def test_a_module_that_two_models_share() -> None:
    with wi.deferred() as recording:
        actor = nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, 1)})
        critic = nn.ModuleDict({"base": actor["body"], "head": nn.Linear(3, 1)})
    recording.materialize_(actor)
    body = values(actor["body"])
    recording.materialize_(critic)
    assert same(values(critic["base"]), body)
    assert not same_bits(actor["head"].weight.detach(), critic["head"].weight.detach())


def pair() -> tuple[wi.Recording, Any, Any, Any]:
    with wi.deferred() as recording:
        one, two = nn.Linear(3, 3), nn.Linear(3, 3)
        targets = nn.ModuleList([copy.deepcopy(one), copy.deepcopy(two)])
    return recording, one, two, targets


def test_copies_of_models_that_were_seeded_apart() -> None:
    recording, one, two, targets = pair()
    recording.materialize_(one)
    recording.materialize_(two)
    with pytest.raises(ValueError, match="materialize_: models that hold copies of each other must have one seed, got"):
        recording.materialize_(targets)
    assert targets[0].weight.is_meta
    recording, one, two, targets = pair()
    recording.materialize_(nn.ModuleList([one, two, targets]))  # the way out
    assert same(values(one), values(targets[0]))
    assert same(values(two), values(targets[1]))
    assert not same_bits(one.weight.detach(), two.weight.detach())


def test_copies_asked_for_first_seed_the_others() -> None:
    recording, one, two, targets = pair()
    for model in (targets, one, two):
        recording.materialize_(model)
    assert same(values(one), values(targets[0]))
    assert same(values(two), values(targets[1]))
    assert not same_bits(one.weight.detach(), two.weight.detach())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("seed", [None, 5])
def test_models_of_plain_attributes_only(order: tuple[int, ...], seed: int | None) -> None:
    with wi.deferred() as recording:
        w = torch.randn(4)
        one, two, three, other = (nn.Module() for _ in range(4))
        one.w, two.p, three.held, other.x = w, nn.Parameter(w), [w.clone(), w], torch.randn(4)  # type: ignore[assignment]
    models: list[Any] = [one, two, three, other]
    for number in (*order, 3):
        recording.materialize_(models[number], seed=seed)
    held = [models[0].w, models[1].p.detach(), *models[2].held]
    assert all(same_bits(held[0], each) for each in held)
    assert not same_bits(models[3].x, held[0])


def test_a_part_that_holds_plain_attributes_only() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.randn(3)

    make = lambda: nn.Sequential(nn.Linear(2, 2), Table())  # noqa: E731
    recording, model = recorded(make)
    part = recording.materialize_(model[1], seed=4).table
    other, expected = recorded(make)
    assert same_bits(part, other.materialize_(expected, seed=4)[1].table)
