"""Memory that tensors share, in the block: copies of tensors that share it, and operators that read what they write."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from recorded import made
from torch import Tensor, nn

import weightinit_cuda as wi


class Views(nn.Module):
    """Tensors of one storage, as buffers, in a list, expanded and as other bits."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.register_buffer("row", table[1])
        self.register_buffer("turned", table.t())
        self.register_buffer("bits", table.view(torch.int32))
        self.kept = [table.detach(), {"rows": table[1:3]}]

    def tensors(self) -> list[Tensor]:
        return [self.table, self.row, self.turned, self.bits, self.kept[0], self.kept[1]["rows"]]  # type: ignore[list-item]


def geometry(tensors: list[Tensor]) -> list[object]:
    storages = [tensor.untyped_storage().data_ptr() for tensor in tensors]
    return [(t.stride(), t.storage_offset(), storages.index(at)) for t, at in zip(tensors, storages, strict=True)]


@pytest.mark.parametrize("draw", [torch.ones, torch.randn, lambda *size: torch.arange(12.0).view(size)])
def test_copies_share_memory_as_their_originals_do(draw: Callable[..., Tensor]) -> None:
    def build() -> nn.Module:
        model = nn.Module()
        model.first = Views(draw(4, 3))
        model.second = copy.deepcopy(model.first)
        assert isinstance(model.second.row, Tensor)
        model.second.row.fill_(7.0)
        return model

    eager = build()
    with wi.deferred() as recording:
        model = build()
    recording.materialize_(model, seed=0)
    assert geometry(model.second.tensors()) == geometry(eager.second.tensors())
    assert bool((model.second.turned[:, 1] == 7).all())
    rest = [0, 2, 3]
    assert torch.equal(model.first.table[rest], model.second.kept[0][rest])
    assert not bool((model.first.row == 7).any())


def test_copies_of_part_of_a_memory_have_all_of_it() -> None:
    def make() -> dict[str, Tensor]:
        part = torch.randn(5, 3)[2:4]
        copied = copy.deepcopy([part, part[0]])
        return {"part": part, "copied": copied[0], "its_row": copied[1]}

    held = made(make)
    assert torch.equal(held.part, held.copied)
    assert held.its_row.data_ptr() == held.copied.data_ptr()
    assert held.copied.storage_offset() == 6
    assert held.copied.untyped_storage().nbytes() == 60


def test_copies_of_expanded_tensors_are_expanded() -> None:
    held = made(lambda: copy.deepcopy(torch.full((3,), 2.0).expand(4, 3)))
    assert held.w.stride() == (0, 1)
    assert held.w.tolist() == [[2.0] * 3] * 4


def test_attributes_of_a_tensor_are_copied() -> None:
    with wi.deferred() as recording:
        first = torch.ones(2)
        first.note = ["first"]  # type: ignore[attr-defined]
        holder = nn.Module()
        holder.register_buffer("w", copy.deepcopy(first))
    recording.materialize_(holder)
    assert vars(holder.w) == {"note": ["first"]}
    assert vars(holder.w)["note"] is not first.note  # type: ignore[attr-defined]


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "expanded, mul_": lambda w: w[0].expand(3, 4).mul_(2),
    "expanded, copy_": lambda w: w[0].expand(3, 4).copy_(torch.ones(3, 4)),
    "expanded, exponential_": lambda w: w[0].expand(3, 4).exponential_(),
    "expanded, trunc_normal_": lambda w: nn.init.trunc_normal_(w[0].expand(3, 4)),
    "expanded, orthogonal_": lambda w: nn.init.orthogonal_(w[0].expand(3, 4)),
    "expanded, out=": lambda w: torch.add(torch.ones(3, 4), 1, out=w[0].expand(3, 4)),
    "its own transpose": lambda w: w.add_(w.t()),
    "rows moved by one": lambda w: w[1:].copy_(w[:-1]),
    "by its first row": lambda w: w.mul_(w[0]),
    "index_copy_": lambda w: w.index_copy_(0, torch.tensor([0]), w[1:2]),
}
TAKEN: dict[str, Callable[[Tensor], Any]] = {
    "expanded, fill_": lambda w: w[0].expand(3, 4).fill_(2),
    "expanded, constant_": lambda w: nn.init.constant_(w[0].expand(3, 4), 2),
    "another row": lambda w: w[0].copy_(w[1]),
    "another column": lambda w: w[:, 0].copy_(w[:, 1]),
    "one of its elements": lambda w: w.__setitem__(0, w[0, 1]),
    "an element by itself": lambda w: w[:, :1].__setitem__(0, w.flatten()[0]),
    "itself": lambda w: w.add_(w),
    "its halves": lambda w: w[:2].add_(w[2:]),
}


@pytest.mark.parametrize("operate", REFUSED.values(), ids=REFUSED)
def test_what_the_cpu_refuses_is_refused_in_the_block(operate: Callable[[Tensor], Any]) -> None:
    with pytest.raises(RuntimeError, match="a single memory location"):
        operate(torch.arange(16.0).view(4, 4))
    state = torch.get_rng_state()
    with wi.deferred() as recording:
        holder = nn.Module()
        holder.register_buffer("w", torch.arange(16.0).view(4, 4))
        with pytest.raises(RuntimeError, match="a single memory location"):
            operate(holder.w)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
    recording.materialize_(holder, seed=0)
    assert torch.equal(holder.w, torch.arange(16.0).view(4, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("operate", TAKEN.values(), ids=TAKEN)
def test_what_the_cpu_takes_is_recorded(operate: Callable[[Tensor], Any]) -> None:
    def make() -> Tensor:
        w = torch.arange(16.0).view(4, 4)
        operate(w)
        return w

    assert torch.equal(made(make).w, make())


def test_an_error_at_materialize_names_the_line() -> None:
    with wi.deferred() as recording:
        holder = nn.Module()
        holder.register_buffer("w", torch.arange(4.0))
        holder.w[torch.arange(5)] = 3.0  # type: ignore[index,operator]
    with pytest.raises(IndexError) as caught:
        recording.materialize_(holder)
    assert sys.version_info < (3, 11) or "test_shared_memory.py" in caught.value.__notes__[0]
    assert holder.w.is_meta  # type: ignore[union-attr]


OVERLAPPING: dict[str, Callable[[Tensor], Any]] = {
    "add_": lambda w: w.add_(1),
    "neg_": lambda w: w.neg_(),
    "copy_": lambda w: w.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]])),
    "mul_ and add_": lambda w: w.mul_(3).add_(2),
    "fill_": lambda w: w.fill_(3),
}


@pytest.mark.parametrize("operate", OVERLAPPING.values(), ids=OVERLAPPING)
@pytest.mark.parametrize("base", [torch.zeros, torch.ones])
def test_elements_that_are_changed_twice(operate: Callable[[Tensor], Any], base: Callable[[int], Tensor]) -> None:
    def make() -> Tensor:
        w = base(4)
        operate(w.as_strided((2, 2), (1, 1)))
        return w

    w = made(make).w
    assert w.tolist() == make().tolist()
    assert w.signbit().tolist() == make().signbit().tolist()


ZEROS: dict[str, Callable[[], Tensor]] = {
    "part": lambda: torch.zeros(4).index_fill_(0, torch.tensor([1]), -0.0),
    "rows": lambda: torch.stack([torch.zeros(2), -torch.zeros(2)]),
    "neg_": lambda: torch.cat([torch.zeros(2).neg_(), torch.zeros(2)]),
    "fill_": lambda: torch.cat([torch.full((2,), -0.0), torch.zeros(2)]),
}


@pytest.mark.parametrize("make", ZEROS.values(), ids=ZEROS)
def test_zeros_keep_their_signs(make: Callable[[], Tensor]) -> None:
    assert made(make).w.signbit().tolist() == make().signbit().tolist()


class Crossing(nn.Module):
    """Memory that parts share: a row, a transpose, a tie by ``.data``, all of what another part has a row of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("row", self.first.weight.detach()[1])
        self.register_buffer("turned", self.first.weight.detach().t())
        self.register_buffer("tie", self.first.bias.data)
        whole = torch.randn(4, 3) * 2
        self.second.register_buffer("part", whole[1:3])
        self.register_buffer("whole", whole)
        self.kept = [self.second.weight.data[0]]

    def tensors(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers(), *self.kept]


def addresses(model: Crossing) -> list[int]:
    tensors = model.tensors()
    starts = [tensor.untyped_storage().data_ptr() for tensor in tensors]
    return [starts.index(start) for start in starts]


@pytest.mark.parametrize("parts", [[], ["first"], ["second"], ["first", "second"]])
def test_a_whole_after_its_parts_shares_memory_with_them(parts: list[str]) -> None:
    with wi.deferred() as recording:
        model = Crossing()
    for part in parts:
        recording.materialize_(getattr(model, part), seed=1)
    before = [tensor.data_ptr() for part in parts for tensor in getattr(model, part).parameters()]
    recording.materialize_(model, seed=1)
    assert before == [tensor.data_ptr() for part in parts for tensor in getattr(model, part).parameters()]
    with wi.deferred() as recording:
        alike = Crossing()
    recording.materialize_(alike, seed=1)
    assert addresses(model) == addresses(alike) == addresses(Crossing())
    assert geometry(model.tensors()) == geometry(alike.tensors())
    assert all(map(torch.equal, model.tensors(), alike.tensors()))


def test_views_of_what_lies_otherwise_by_now_have_values() -> None:
    with wi.deferred() as recording:
        model = Crossing()
    recording.materialize_(model.first, seed=1)
    model.first.weight = nn.Parameter(model.first.weight.detach().t().contiguous().t())
    model.first.bias = nn.Parameter(model.first.bias.detach().clone())
    recording.materialize_(model, seed=2)
    assert torch.equal(model.row, model.first.weight[1])
    assert torch.equal(model.turned, model.first.weight.t())
    assert torch.equal(model.tie, model.first.bias)


def test_values_of_a_model_in_memory_are_apart_from_it() -> None:
    with wi.deferred() as recording:
        model = Crossing()
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    recording.materialize_(model, seed=1)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for tensor in model.tensors():
            tensor.fill_(5.0)
    value = recording.values(model, seed=1)
    assert sorted(names) == sorted(expected)
    assert all(torch.equal(value(name), expected[name]) for name in names)
    assert all(bool((tensor == 5).all()) for tensor in model.tensors())
