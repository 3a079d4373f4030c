"""Boxes against sets of indices."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from weightinit_cuda.tensors.boxes import Box, intersection, remainder


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


def test_slices_from_an_origin() -> None:
    assert Box((3, 4), (2, 1)).slices((3, 1)) == (slice(0, 2), slice(3, 4))
    assert Box.whole((2, 3)).slices() == (slice(0, 2), slice(0, 3))
    assert Box((), ()).slices() == ()
