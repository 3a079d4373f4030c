"""Tensors that modules hold in containers: found wherever they are, once, also where a container holds itself."""

from __future__ import annotations

import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi


class Pair(NamedTuple):
    one: Tensor
    other: Tensor


class OwnDict(dict[str, Any]):
    pass


CONTAINERS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "list": (lambda t: [0, "a", t], lambda held: held[2]),
    "tuple in dict": (lambda t: {"a": (None, t)}, lambda held: held["a"][1]),
    "named tuple": (lambda t: Pair(torch.ones(1), t), lambda held: held.other),
    "ordered": (lambda t: OrderedDict(a=[t]), lambda held: held["a"][0]),
    "default": (lambda t: defaultdict(list, {3: [t]}), lambda held: held[3][0]),
    "own": (lambda t: OwnDict(a=t), lambda held: held["a"]),
    "deque": (lambda t: [deque([t])], lambda held: held[0][0]),
    "deep": (lambda t: [[[[[[t]]]]]], lambda held: held[0][0][0][0][0][0]),
}


@pytest.mark.parametrize(("put", "get"), CONTAINERS.values(), ids=CONTAINERS)
def test_tensors_in_containers(put: Callable[[Tensor], Any], get: Callable[[Any], Tensor]) -> None:
    with wi.deferred() as recording:
        model = nn.Linear(2, 2)
        model.held = put(torch.arange(3.0))
    recording.materialize_(model, seed=0)
    assert get(model.held).tolist() == [0.0, 1.0, 2.0]


def test_a_module_that_holds_its_own_dict() -> None:
    with wi.deferred() as recording:
        model = nn.Linear(2, 2)
        model.itself = model.__dict__
        model.table = torch.arange(3.0)
    assert recording.plan(model, seed=0).names() == ["weight", "bias"]
    recording.materialize_(model, seed=0)
    assert model.table.tolist() == [0.0, 1.0, 2.0]
    with wi.deferred() as recording:
        alone = nn.Linear(2, 2)
    assert torch.equal(recording.materialize_(alone, seed=0).weight, model.weight)


def test_a_list_in_itself() -> None:
    with wi.deferred() as recording:
        model = nn.Module()
        model.held = [torch.ones(2), {"tensor": torch.zeros(3)}]
        model.held.append(model.held)
        model.held[1]["list"] = model.held
    recording.materialize_(model, seed=0)
    assert model.held[2][0].tolist() == [1.0, 1.0]
    assert model.held[1]["list"][1]["tensor"].tolist() == [0.0, 0.0, 0.0]


def test_containers_in_many_places_are_looked_into_once() -> None:
    with wi.deferred() as recording:
        model = nn.Module()
        inner = [torch.ones(2)]
        for _ in range(100):
            inner = [inner, inner]  # type: ignore[list-item]
        model.held = inner
    recording.materialize_(model, seed=0)
    while not isinstance(inner[0], Tensor):
        inner = inner[1]
    assert inner[0].tolist() == [1.0, 1.0]


def values(model: nn.Module) -> list[list[float]]:
    return [tensor.tolist() for tensor in (model.table, model.held[0], model.held[1]["row"], model.rows)]


def test_another_seed_is_for_plain_attributes_too() -> None:
    def build() -> tuple[wi.Recording, nn.Module]:
        with wi.deferred() as recording:
            model = nn.Linear(2, 3)
            model.table = torch.randn(3)
            model.held = [torch.randn(2) * 2 + model.table[:2], {"row": model.table[1:]}]
            model.rows = model.weight.detach()[1:]
        return recording, model

    recording, model = build()
    first = values(recording.materialize_(model, seed=0))
    recording.materialize_(model, seed=1)
    again, other = build()
    assert values(model) == values(again.materialize_(other, seed=1))
    assert all(one != two for one, two in zip(values(model), first, strict=True))
    assert model.rows.data_ptr() == model.weight[1:].data_ptr()
    model.table = torch.zeros(3)  # nobody's of the tape
    recording.materialize_(model, seed=0)
    assert model.table.tolist() == [0.0, 0.0, 0.0]


def test_memory_of_plain_attributes_is_not_kept_alive() -> None:
    with wi.deferred() as recording:
        model = nn.Module()
        model.table = torch.ones(3)
    gone = weakref.ref(recording.materialize_(model).table)
    del model.table
    assert gone() is None
