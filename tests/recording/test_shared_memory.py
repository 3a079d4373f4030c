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
