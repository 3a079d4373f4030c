"""Boxes against sets of indices."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from weightinit_cuda.boxes import Box, intersection, remainder, side_by_side


def indices(box: Box | None) -> set[tuple[int, ...]]:
    return set() if box is None else set(itertools.product(*(range(a, b) for a, b in zip(box.offset, box.end, strict=True))))


def boxes(dims: int) -> st.SearchStrategy[Box]:
    numbers = st.tuples(*[st.integers(0, 4)] * dims)
    return st.builds(Box, numbers, numbers)


@given(st.integers(0, 3).flatmap(lambda dims: st.tuples(boxes(dims), st.lists(boxes(dims), max_size=4))))
def test_remainder(case: tuple[Box, list[Box]]) -> None:
    box, taken = case
    left = remainder(box, taken)
    assert indices(box).difference(*map(indices, taken)) == set().union(*map(indices, left))
    assert box.numel == 0 or sum(part.numel for part in left) == len(set().union(*map(indices, left)))  # nothing twice
    assert left == sorted(left)


@given(st.integers(0, 3).flatmap(lambda dims: st.tuples(boxes(dims), boxes(dims))))
def test_intersection(case: tuple[Box, Box]) -> None:
    assert indices(intersection(*case)) == indices(case[0]) & indices(case[1])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=4), st.integers(0, 1))
def test_slabs_side_by_side_do_not_overlap(spans: list[tuple[int, int]], axis: int) -> None:
    slabs = [Box((start, 1) if axis == 0 else (1, start), (size, 2) if axis == 0 else (2, size)) for start, size in spans]
    if side_by_side(slabs):
        held = [indices(slab) for slab in slabs]
        assert sum(map(len, held)) == len(set().union(*held))
        assert all(remainder(slab, slabs[:i] + slabs[i + 1 :]) == [slab] for i, slab in enumerate(slabs))
    elif len(set(slabs)) == len(slabs):
        assert any(indices(intersection(a, b)) or not a.numel for a, b in itertools.permutations(slabs, 2))


@given(st.integers(1, 3).flatmap(lambda dims: st.lists(boxes(dims), min_size=2, max_size=3)))
def test_boxes_that_overlap_are_not_side_by_side(some: list[Box]) -> None:
    if any(intersection(a, b) for a, b in itertools.combinations(some, 2)):
        assert not side_by_side(some)


def test_slices_from_an_origin() -> None:
    assert Box((3, 4), (2, 1)).slices((3, 1)) == (slice(0, 2), slice(3, 4))
    assert Box.whole((2, 3)).slices() == (slice(0, 2), slice(0, 3))
    assert Box((), ()).slices() == ()
