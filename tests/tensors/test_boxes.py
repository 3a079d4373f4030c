"""Boxes against sets of indices."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightinit_cuda.tensors import boxes as module
from weightinit_cuda.tensors.boxes import Box, are_apart, intersection, remainder, visible


def indices(box: Box | None) -> set[tuple[int, ...]]:
    return set() if box is None else set(itertools.product(*(range(a, b) for a, b in zip(box.offset, box.end, strict=True))))


def boxes(dims: int) -> st.SearchStrategy[Box]:
    numbers = st.tuples(*[st.integers(0, 4)] * dims)
    return st.builds(Box, numbers, numbers)


@given(st.integers(0, 3).flatmap(lambda dims: st.lists(boxes(dims), max_size=4)))
def test_boxes_that_have_nothing_in_common(some: list[Box]) -> None:
    assert are_apart(some) == all(not indices(a) & indices(b) for a, b in itertools.combinations(some, 2))


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


# ---- many boxes ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 3).flatmap(lambda dims: st.lists(boxes(dims), min_size=1, max_size=7)))
def test_visible(given: list[Box]) -> None:
    shown = visible(given)
    for number, box in enumerate(given):
        assert set().union(*map(indices, shown[number])) == indices(box).difference(*map(indices, given[number + 1 :]))
        assert shown[number] == sorted(shown[number])
    every = [index for left in shown for box in left for index in indices(box)]
    assert len(every) == len(set(every)), "nothing twice"


N = 1000
MANY: dict[str, list[Box]] = {
    "rows": [Box.whole((2 * N, 8)), *(Box((2 * i, 0), (1, 8)) for i in range(N))],
    "squares": [Box.whole((96, 96)), *(Box((3 * i, 3 * j), (2, 2)) for i in range(32) for j in range(32))],
    "diagonal": [Box.whole((N, N)), *(Box((i, i), (1, 1)) for i in range(N))],
    "inside each other": [Box((i, i), (2 * N - 2 * i, 2 * N - 2 * i)) for i in range(N)],
    "over each other": [Box((i, i), (2 * N - 2 * i, 2 * N - 2 * i)) for i in reversed(range(N))],
    "stairs": [Box((0, 0), (i + 1, N - i)) for i in range(N)],
    "all the same": [Box.whole((5, 5))] * N,
}


@pytest.mark.parametrize("case", MANY)
def test_many_boxes_take_few_steps(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: of n boxes 50 n log n are looked at, where each against each would be n**2 / 2."""
    looked_at = 0
    seen = module._seen

    def counted(begin: Any, end: Any, spans: Any) -> Any:
        nonlocal looked_at
        looked_at += len(spans)
        return seen(begin, end, spans)

    monkeypatch.setattr(module, "_seen", counted)
    shown = visible(MANY[case])
    assert shown[-1] == [MANY[case][-1]]
    assert sum(map(len, shown)) <= 5 * len(MANY[case]), "and few boxes are left of each"
    assert looked_at < 50 * N * math.log2(N) < N**2 / 2, looked_at


def test_boxes_that_cut_each_other_to_pieces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CELLS", 1 << 12)
    stripes = [Box((2 * i, 0), (1, N)) for i in range(N // 2)] + [Box((0, 2 * i), (N, 1)) for i in range(N // 2)]
    assert sum(map(len, visible(stripes[::20]))) > 10 * len(stripes[::20])
    with pytest.raises(ValueError, match=r"at most 4,096 parts, got more from 1,000 boxes\."):
        visible(stripes)
