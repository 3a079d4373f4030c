"""Views as integers, against the element numbers that torch itself gives them."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor

from weightinit_cuda.recording.views import Geometry, box_of, carried, common, cut, fills_storage, same_order
from weightinit_cuda.tensors.boxes import Box

MEMORY = torch.arange(60)


def geometry(view: Tensor) -> Geometry:
    return Geometry(view.storage_offset(), tuple(view.shape), tuple(view.stride()))


def elements(view: Geometry) -> list[int]:
    return MEMORY.as_strided(view.shape, view.strides, view.offset).reshape(-1).tolist()


def views(seed: int) -> list[Geometry]:
    """Ways to look at 60 numbers: shapes, transposes, slices with and without steps, flattened slices, overlapping windows."""
    choose = random.Random(seed)
    found = [geometry(MEMORY)]
    for shape in ((3, 4, 5), (6, 10), (60,), (1, 12, 5), (5, 1, 12)):
        view = MEMORY.view(shape)
        for _ in range(6):
            part = view.permute(choose.sample(range(view.dim()), view.dim()))
            for dim in range(part.dim()):
                begin, end = sorted(choose.sample(range(part.shape[dim] + 1), k=2))
                part = part[(slice(None),) * dim + (slice(begin, end, choose.choice((1, 1, 2))),)]
            found += [geometry(part), *([geometry(part.view(-1))] if part.is_contiguous() else [])]
    return [*found, Geometry(0, (10, 6), (5, 1)), Geometry(2, (4, 4), (0, 1)), Geometry(0, (5, 4), (3, 2))]


PAIRS = [pair for seed in range(4) for pair in itertools.product(views(seed), repeat=2)]


def test_a_box_holds_the_elements_of_the_part() -> None:
    found = 0
    for whole, part in PAIRS:
        box = box_of(whole, part)
        if box is not None:
            assert sorted(elements(cut(whole, box))) == sorted(elements(part))
            found += 1
    assert found > 400


def test_boxes_are_found() -> None:
    """Whatever is cut from a view without overlap is a box of it."""
    choose = random.Random(0)
    for whole in views(0)[:-3]:
        box = Box(tuple(choose.randrange(n) for n in whole.shape), (1,) * len(whole.shape))
        grown = tuple(choose.randint(1, n - at) for n, at in zip(whole.shape, box.offset, strict=True))
        part = cut(whole, Box(box.offset, grown))
        assert box_of(whole, part) == Box(box.offset, grown)


def test_what_two_views_share() -> None:
    frame = geometry(MEMORY.view(3, 4, 5))
    for one, other in PAIRS:
        shared = common(one, other, frame)
        if shared is not None:
            assert sorted(elements(shared)) == sorted(set(elements(one)) & set(elements(other)))


def test_where_elements_come_from() -> None:
    """A piece is a copy of another view of its shape, and a part of it is seen."""
    found = 0
    for piece, seen in PAIRS:
        if len(set(elements(piece))) < piece.numel:  # nobody writes to such a view
            continue
        origin = geometry(MEMORY[: piece.numel].view(piece.shape[::-1]).permute(*range(len(piece.shape))[::-1]))
        came_from = dict(zip(elements(piece), elements(origin), strict=True))
        there = carried(piece, origin, seen)
        if there is not None:
            assert elements(there) == [came_from[element] for element in elements(seen)]
            found += 1
    assert found > 300


def test_order_and_extent() -> None:
    for one, other in PAIRS:
        if same_order(one, other):
            assert elements(one) == elements(other)
        assert one.end == max(elements(one)) + 1
        assert fills_storage(one, 60) == (sorted(elements(one)) == list(range(60)))


@pytest.mark.parametrize("view", [Geometry(0, (0, 3), (3, 1)), Geometry(4, (), ())])
def test_small_views(view: Geometry) -> None:
    assert box_of(view, view) == Box.whole(view.shape)
    assert not fills_storage(view, 60)


def test_overlapping_views_fill_nothing() -> None:
    """As many elements and as long as the storage, but some twice."""
    assert not fills_storage(Geometry(0, (2, 2, 2), (1, 1, 5)), 8)
