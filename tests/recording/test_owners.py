"""Who owns a draw that several tensors hold, in parts, turned, cast, or after others have been drawn over it.

The elements that are one in eager code must be one value, in the model, its plan and ``values``; no two others may be made of
the same random words.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from bitwise import same_bits
from recorded import Holder, lines, made, recorded
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Computed, Normal

Tensors = dict[str, Tensor]


def checked(make: Callable[[], Tensors], seed: int = 1) -> Any:
    """The model, filled: like ``values``, like its plan as far as that goes."""
    recording, holder = recorded(make)
    plan, value = recording.plan(holder, seed=seed), recording.values(holder, seed=seed)
    apart = {name: value(name) for name in plan.names()}
    recording.materialize_(holder, seed=seed)
    for name, tensor in holder.named_buffers():
        assert same_bits(apart[name], tensor), name
    if not any(isinstance(entry.distribution, Computed) for entry in plan):
        again = Holder(make)
        plan.apply_(again)
        for name, tensor in holder.named_buffers():
            assert same_bits(again.get_buffer(name), tensor), name
    return holder


def nothing_in_common(*tensors: Tensor) -> bool:
    """Whether no value, nor its double or half and so on, is in two of the tensors: normal values from other random words."""
    scaled = [{(abs(x) / std).item() for x in t.flatten() for std in (1.0, 0.5, 2.0)} for t in tensors]
    return all(one.isdisjoint(other) for one, other in combinations(scaled, 2))


# ---- turned ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 4)], ids=str)
@pytest.mark.parametrize("first", ["turned", "copy"])
def test_a_turned_view_beside_a_copy(shape: tuple[int, ...], first: str) -> None:
    def make() -> Tensors:
        w = torch.randn(shape)
        both = {"copy": w.clone(), "turned": w.mT}
        return {name: both[name] for name in (first, *sorted({*both} - {first}))}

    holder = checked(make)
    assert torch.equal(holder.copy, holder.turned.mT)


def test_a_turned_parameter_beside_a_copy() -> None:
    with wi.deferred() as recording:
        model: Any = nn.Module()
        w = torch.randn(3, 3)
        model.register_buffer("c", w.clone())
        model.p = nn.Parameter(w.t())
    recording.materialize_(model, seed=1)
    assert torch.equal(model.c, model.p.t())


def test_other_models_that_hold_a_draw_turned() -> None:
    with wi.deferred() as recording:
        w = torch.randn(3, 3)
        one, other = Holder(w.clone), Holder(w.t)
    for model in (one, other):
        recording.materialize_(model)
    assert torch.equal(one.w, other.w.t())


# ---- drawn over --------------------------------------------------------------------------------------------------------


def rows_drawn_again() -> Tensors:
    w = torch.randn(5, 3)
    before = w.clone()
    w[2:].normal_(std=0.5)
    return {"w": w, "before": before}


def a_part_kept() -> Tensors:
    w = torch.randn(5, 3)
    before = w[:2].clone()
    w[:2].normal_()
    return {"w": w, "before": before}


def columns_drawn_again() -> Tensors:
    w = torch.randn(6, 3)
    twice = torch.cat([w[4:], w[4:]], 1)
    w[4:][:, :2].normal_()
    return {"w": w, "before": twice[:, :2]}


def what_is_computed_before() -> Tensors:
    w = torch.randn(6)
    doubled = w + w
    w[3:].normal_()
    return {"before": doubled, "w": w}


def a_copy_drawn_again() -> Tensors:
    w = torch.randn(5, 3)
    other = w.clone()
    other[2:].normal_()
    return {"w": other, "before": w}


def an_orthogonal_matrix() -> Tensors:
    w = nn.init.orthogonal_(torch.empty(4, 4))
    before = w.clone()
    w[2:].normal_()
    return {"w": w, "before": before}


OVER = [rows_drawn_again, a_part_kept, columns_drawn_again, what_is_computed_before, a_copy_drawn_again, an_orthogonal_matrix]


@pytest.mark.parametrize("make", OVER, ids=lambda make: make.__name__)
def test_what_lives_on_of_a_draw_has_other_words_than_what_is_drawn_over_it(make: Callable[[], Tensors]) -> None:
    holder = checked(make)
    common = {"rows_drawn_again": 2, "a_copy_drawn_again": 2, "an_orthogonal_matrix": 2}.get(make.__name__, 0)
    assert not common or torch.equal(holder.w[:common], holder.before[:common])
    if make is what_is_computed_before:
        assert torch.equal(holder.before[:3], 2 * holder.w[:3])
        assert nothing_in_common(holder.before[3:], holder.w[3:])
    else:
        assert nothing_in_common(holder.before[common:], holder.w)


def test_an_orthogonal_matrix_that_is_drawn_over_lives_on_as_one() -> None:
    before = checked(an_orthogonal_matrix).before
    torch.testing.assert_close(before @ before.T, torch.eye(4))


def test_three_generations() -> None:
    def make() -> Tensors:
        w = torch.randn(6)
        kept = {}
        for age in ("oldest", "older"):
            kept[age] = w.clone()
            w[2:].normal_()
        return {"w": w, **kept}

    holder = checked(make)
    assert torch.equal(holder.oldest[:2], holder.w[:2])
    assert nothing_in_common(holder.oldest, holder.older[2:], holder.w[2:])


def test_an_embedding_that_is_partly_drawn_again_beside_its_copy() -> None:
    with wi.deferred() as recording:
        model: Any = nn.Module()
        model.e = nn.Embedding(5, 3)
        model.register_buffer("ref", model.e.weight.detach().clone())
        model.e.weight.data[2:].normal_(std=0.5)
    recording.materialize_(model, seed=1)
    assert torch.equal(model.ref[:2], model.e.weight[:2])
    assert nothing_in_common(model.ref, model.e.weight[2:].detach())


def test_copies_of_what_has_been_drawn_over_are_as_they_were() -> None:
    def make() -> Tensors:
        w = torch.randn(5, 3)
        w[2:].normal_(std=0.5)
        return {"w": w, "copy": w.clone()}

    assert lines(make) == lines(make, "copy") == [(Normal(0.0, 1.0), None), (Normal(0.0, 0.5), lines(make)[1][1])]
    holder = checked(make)
    assert same_bits(holder.w, holder.copy)
    assert same_bits(holder.w[:2], made(lambda: torch.randn(5, 3), seed=1).w[:2])  # the words of its name


def test_what_has_become_of_a_part_of_a_draw_keeps_its_words() -> None:
    def make() -> Tensors:
        w = torch.randn(6)
        before = w.clone()
        w[2:4].mul_(2)
        return {"w": w, "before": before}

    assert not any(isinstance(distribution, Computed) for distribution, _ in [*lines(make), *lines(make, "before")])
    holder = checked(make)
    assert torch.equal(holder.w[2:4], 2 * holder.before[2:4])


@pytest.mark.parametrize("copied_first", [True, False])
def test_other_models_that_hold_what_has_been_drawn_over(copied_first: bool) -> None:
    with wi.deferred() as recording:
        student = Holder(lambda: torch.randn(5, 3))
        before = copy.deepcopy(student)
        student.w[2:].normal_()
        after = copy.deepcopy(student)
    models = [student, before, after]
    for model in models[::-1] if copied_first else models:
        recording.materialize_(model)
    assert same_bits(student.w, after.w)
    assert torch.equal(student.w[:2], before.w[:2])
    assert nothing_in_common(before.w, student.w[2:])


# ---- cast --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("first", ["w", "cast"])
def test_a_cast_of_float64_beside_it_is_computed(dtype: torch.dtype, first: str) -> None:
    def make() -> Tensors:
        w = torch.randn(4, dtype=torch.float64)
        both = {"w": w, "cast": torch.zeros(4, dtype=dtype).copy_(w)}
        return {name: both[name] for name in (first, *sorted({*both} - {first}))}

    assert isinstance(lines(make, "cast")[0][0], Computed)
    assert lines(make) == [(Normal(0.0, 1.0), None)]
    holder = checked(make)
    assert torch.equal(holder.w.to(dtype), holder.cast)


def test_a_cast_of_float64_alone_is_drawn() -> None:
    make = lambda: torch.randn(4, dtype=torch.float64).float()  # noqa: E731
    assert lines(make) == [(Normal(0.0, 1.0), None)]
    assert same_bits(made(make).w, made(lambda: torch.randn(4)).w)


def test_what_is_computed_of_a_draw_that_is_cast() -> None:
    def make() -> Tensors:
        w = torch.randn(4, dtype=torch.float64)
        return {"cast": w.float(), "short": w.half(), "exp": w.exp()}

    holder = checked(make)
    assert torch.equal(holder.cast, holder.exp.log().float())
    assert torch.equal(holder.exp.log().half(), holder.short)


@pytest.mark.parametrize("cast_first", [True, False])
def test_other_models_that_hold_a_draw_cast(cast_first: bool) -> None:
    with wi.deferred() as recording:
        w = torch.randn(4, dtype=torch.float64)
        models = [Holder(lambda: w.float()), Holder(lambda: w)]
    for model in models if cast_first else models[::-1]:
        recording.materialize_(model)
    assert torch.equal(models[0].w, models[1].w.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("recorded_as", [torch.float32, torch.float64], ids=str)
def test_what_is_computed_has_the_numbers_of_a_draw_in_the_dtype_that_is_asked_for(
    dtype: torch.dtype, recorded_as: torch.dtype
) -> None:
    def make() -> Tensors:
        w = torch.randn(4, dtype=recorded_as)
        return {"w": w, "square": w * w, "cast": w.float()}

    recording, holder = recorded(make)
    value = recording.values(holder, seed=1, dtype=dtype)
    apart = {name: value(name) for name in ("w", "square", "cast")}
    recording.materialize_(holder, seed=1, dtype=dtype)
    for name, tensor in holder.named_buffers():
        assert same_bits(apart[name], tensor)
    assert torch.equal(holder.w.float(), holder.cast.float())
    torch.testing.assert_close(holder.square, holder.w * holder.w)


@pytest.mark.parametrize("keep", ["w", "copy"])
def test_copies_of_which_one_keeps_its_dtype(keep: str) -> None:
    def make() -> Tensors:
        w = torch.randn(4)
        return {"w": w, "copy": w.clone()}

    holder = made(make, dtype=torch.float64, keep=keep)
    assert holder.w.dtype != holder.copy.dtype
    assert torch.equal(holder.w.double(), holder.copy.double())


# ---- overlapping -------------------------------------------------------------------------------------------------------


WINDOWS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "rows": lambda w: (w[:4], w[2:]),
    "rows and columns": lambda w: (w[:4], w[:, 1:]),
    "inner": lambda w: (w[1:5, 1:], w[2:, :2]),
    "turned": lambda w: (w[:4], w[2:].t()),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("again", [False, True], ids=["", "drawn again"])
def test_views_that_overlap(name: str, again: bool) -> None:
    def make() -> Tensors:
        w = torch.randn(6, 3)
        if again:
            w[1:3].normal_()
        one, other = WINDOWS[name](w)
        return {"one": one, "other": other}

    holder = checked(make)
    known: dict[int, float] = {}
    at = torch.cat([t.flatten() for t in WINDOWS[name](torch.arange(18).view(6, 3))])
    values = torch.cat([holder.one.flatten(), holder.other.flatten()])
    for number, value in zip(at.tolist(), values.tolist(), strict=True):
        assert known.setdefault(number, value) == value
    assert len(set(known.values())) == len(known)


def test_views_that_lie_side_by_side_have_their_own_names() -> None:
    def make() -> Tensors:
        w = torch.randn(6, 3)
        return {"one": w[:4], "other": w[4:]}

    assert lines(make, "one") == lines(make, "other") == [(Normal(0.0, 1.0), None)]
    checked(make)


def test_a_view_that_overlaps_a_plain_attribute() -> None:
    with wi.deferred() as recording:
        w = torch.randn(6)
        model: Any = Holder(lambda: w[:4])
        model.attribute = w[2:]
    value = recording.values(model, seed=1)("w")
    recording.materialize_(model, seed=1)
    assert same_bits(value, model.w)
    assert same_bits(model.attribute[:2], model.w[2:])


@pytest.mark.parametrize("apart", [False, True])
def test_rules_for_views_that_overlap_are_refused(apart: bool) -> None:
    with wi.deferred() as recording:
        model: Any = nn.Module()
        w = torch.empty(6)
        model.a, model.b = nn.Parameter(w[:4]), nn.Parameter(w[4 if apart else 2 :])
    rules = wi.Rule("*", "normal_", std=1.0)
    if apart:
        recording.materialize_(model, seed=1, rules=rules)
        return
    with pytest.raises(ValueError, match="tensors that rules= fill must not overlap in memory, got a, b"):
        recording.materialize_(model, seed=1, rules=rules)
    assert model.a.is_meta


# ---- what arithmetic has made of a draw ----------------------------------------------------------------------------------


def _truncated(x: Tensor) -> Tensor:
    """As timm writes it: uniform values become normal ones, which one fill makes in another way."""
    return x.uniform_(-0.9, 0.9).erfinv_().mul_(0.03).add_(0.5).clamp_(min=0.0, max=1.0)


def _sum() -> Tensors:
    weight = _truncated(torch.empty(6, 5))
    return {"weight": weight, "sum": weight.sum(0)}


def _from_before() -> Tensors:
    weight = torch.empty(6, 5).uniform_(-0.9, 0.9)
    before = weight.clone()
    return {"weight": weight.erfinv_(), "before": before}


def _copies() -> Tensors:
    weight = _truncated(torch.empty(6, 5))
    return {"weight": weight, "copy": weight.clone()}


def test_what_is_computed_from_it_has_its_numbers() -> None:
    summed, before, copies = checked(_sum), checked(_from_before), checked(_copies)
    torch.testing.assert_close(summed.get_buffer("sum"), summed.get_buffer("weight").sum(0))
    torch.testing.assert_close(before.get_buffer("weight"), before.get_buffer("before").erfinv())
    assert same_bits(copies.get_buffer("weight"), copies.get_buffer("copy"))
    recording, holder = recorded(_copies)
    assert {entry.distribution.kind for entry in recording.plan(holder, seed=1)} == {"trunc_normal"}
