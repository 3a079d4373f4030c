"""Tensors put together from draws, and cut out of them: ``cat``, ``stack``, ``chunk``, ``split``, copies into parts.

What a program does to its draws is known from the same program run on numbers that are all different: equal numbers must be
equal values, wherever they are, and others must differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from bitwise import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import Holder, lines, made, recorded
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Computed, Constant, Normal, Uniform
from weightinit_cuda.tensors.boxes import Box


def computed(plan: wi.Plan) -> set[str]:
    """The tensors that a plan alone cannot make."""
    return {name for e in plan if isinstance(e.distribution, Computed) for name in (e.name, *e.aliases)}


def alone(make: Callable[[], Any], seed: int = 3) -> None:
    """The values of the recording are those of its plan, read from a file."""
    recording, holder = recorded(make)
    plan = wi.Plan.from_json(recording.plan(holder, seed=seed).to_json())
    assert not computed(plan), plan
    recording.materialize_(holder, seed=seed)
    for name, tensor in holder.named_buffers():
        assert same_bits(wi.regenerate(plan, name), tensor)


def rows(at: int, count: int, columns: int = 4) -> Box:
    return Box((at, 0), (count, columns))


def randn(*shape: int) -> Tensor:
    return torch.randn(shape)


def out_of_two() -> Tensor:
    w = torch.empty(5, 4)
    torch.cat([randn(3, 4), torch.rand(2, 4)], out=w)
    return w


def fused_qkv(groups: int = 2, size: int = 3, tail: tuple[int, ...] = (4,), per_group: int = 2) -> Tensor:
    """torchtitan's ``_fused_qkv_param_init`` (torchtitan/models/common/config_utils.py), with a spread for each of q, k, v."""
    t = torch.empty(groups * (per_group + 2) * size, *tail)
    q = t.new_empty(groups * per_group * size, *tail)
    k, v = t.new_empty(groups * size, *tail), t.new_empty(groups * size, *tail)
    for std, one in enumerate((q, k, v), 1):
        nn.init.trunc_normal_(one, std=std)
    parts = [one.view(groups, -1, size, *tail) for one in (q, k, v)]
    with torch.no_grad():
        t.copy_(torch.cat(parts, dim=1).view(-1, *tail))
    return t


NORMAL, RAND = Normal(0.0, 1.0), Uniform(0.0, 1.0)
FOLDED: dict[str, tuple[Callable[[], Tensor], list[Any]]] = {
    "cat": (lambda: torch.cat([randn(2, 4), torch.zeros(1, 4)]), [(NORMAL, rows(0, 2)), (Constant(0.0), rows(2, 1))]),
    "cat of columns": (
        lambda: torch.cat([randn(3, 1), torch.rand(3, 2)], dim=-1),
        [(NORMAL, Box((0, 0), (3, 1))), (RAND, Box((0, 1), (3, 2)))],
    ),
    "cat of copies": (lambda: torch.zeros(3, 4).copy_(torch.cat([randn(1, 4), randn(2, 4)])), [(NORMAL, None)]),
    "cat, out=": (out_of_two, [(NORMAL, rows(0, 3)), (RAND, rows(3, 2))]),
    "empty ones": (lambda: torch.cat([torch.zeros(0), randn(2, 4), torch.zeros(0, 4)]), [(NORMAL, None)]),
    "scaled": (
        lambda: torch.cat([randn(2, 4), randn(1, 4) * 3]) * 0.5,
        [(Normal(0.0, 0.5), rows(0, 2)), (Normal(0.0, 1.5), rows(2, 1))],
    ),
    "cast": (lambda: torch.cat([randn(2, 4), torch.zeros(1, 4)]).to(torch.bfloat16)[:2], [(NORMAL, None)]),
    "stack": (lambda: torch.stack([randn(4), torch.ones(4)]), [(NORMAL, rows(0, 1)), (Constant(1.0), rows(1, 1))]),
    "stack, flat": (
        lambda: torch.stack([randn(2, 4), torch.rand(2, 4)]).flatten(0, 1),
        [(NORMAL, rows(0, 2)), (RAND, rows(2, 2))],
    ),
    "stack, last": (
        lambda: torch.stack([randn(3), torch.rand(3)], -1),
        [(NORMAL, Box((0, 0), (3, 1))), (RAND, Box((0, 1), (3, 1)))],
    ),
    "hstack": (lambda: torch.hstack([randn(2), torch.zeros(3)]), [(NORMAL, Box((0,), (2,))), (Constant(0.0), Box((2,), (3,)))]),
    "vstack": (lambda: torch.vstack([randn(4), torch.zeros(4)]), [(NORMAL, rows(0, 1)), (Constant(0.0), rows(1, 1))]),
    "chunk": (lambda: randn(6, 4).chunk(3)[1].clone(), [(NORMAL, None)]),
    "split, sizes": (lambda: torch.zeros(3, 4).copy_(randn(6, 4).split([1, 3, 2])[1]), [(NORMAL, None)]),
    "narrow": (lambda: randn(6, 4).narrow(1, 1, 2).contiguous(), [(NORMAL, None)]),
    "unbind": (lambda: torch.stack(randn(3, 4).unbind(0)[:2]), [(NORMAL, None)]),
    "chunks in another order": (lambda: torch.cat(randn(6, 4).chunk(3)[::-1]), [(NORMAL, None)]),
    "chunks and others": (
        lambda: torch.cat([*randn(4, 4).chunk(2), torch.rand(1, 4)]),
        [(NORMAL, rows(0, 2)), (NORMAL, rows(2, 2)), (RAND, rows(4, 1))],
    ),
    "transposed": (lambda: torch.cat([randn(4, 2).t(), torch.rand(1, 4)]), [(NORMAL, rows(0, 2)), (RAND, rows(2, 1))]),
    "overwritten": (
        lambda: overwritten(),
        [(NORMAL, rows(0, 2)), (NORMAL, rows(2, 2)), (Constant(0.0), rows(1, 1))],
    ),
    "beside a draw": (lambda: beside(), [(Constant(0.0), None)]),
    "every second row": (
        lambda: every_second(),
        [(Constant(0.0), None), *((NORMAL, rows(at, 1)) for at in (0, 2, 4))],
    ),
}


def overwritten() -> Tensor:
    w = torch.cat([randn(2, 4), randn(2, 4)])
    w[1].zero_()
    return w


def beside() -> Tensor:
    """One element, and its neighbour is drawn."""
    w = torch.zeros(2)
    w[:1].normal_()
    return w[1].clone()


def every_second() -> Tensor:
    w = torch.zeros(6, 4)
    w[::2] = randn(3, 4)
    return w


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_joined_folds_into_boxes(name: str) -> None:
    make, expected = FOLDED[name]
    found = lines(make)
    assert found == expected
    alone(make)


REPLAYED: dict[str, Callable[[], Tensor]] = {
    "twice the same": lambda: torch.cat([q := randn(2, 4), q]),
    "overlapping": lambda: torch.cat([(q := randn(4, 4))[:3], q[1:]]),
    "beside its double": lambda: torch.stack([q := randn(4), q * 2]),
    "a matrix in two": lambda: torch.cat(nn.init.orthogonal_(torch.empty(4, 4)).chunk(2)[::-1]),
    "expanded": lambda: torch.cat([randn(1, 4).expand(3, 4), torch.zeros(1, 4)]),
    "another kind": lambda: torch.cat([torch.rand(2, 4), torch.ones(1, 4, dtype=torch.int64)]),
    "beside what is computed": lambda: torch.cat([randn(2, 4), randn(2, 4).exp()]),
    "single elements": lambda: torch.stack([randn(9), torch.rand(9)], 1).flatten(),
    "many": lambda: torch.cat([randn(1, 4), torch.rand(1, 4)] * 200),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_what_no_boxes_say_is_replayed(name: str) -> None:
    assert any(isinstance(distribution, Computed) for distribution, _ in lines(REPLAYED[name]))
    made(REPLAYED[name])


@pytest.mark.parametrize("tail", [(), (4,)])
def test_a_fused_qkv_of_torchtitan(tail: tuple[int, ...]) -> None:
    make = lambda: fused_qkv(tail=tail)  # noqa: E731
    alone(make)
    found = lines(make)
    assert [(distribution.std, box.offset[0], box.shape[0]) for distribution, box in found] == [
        (std, at + 12 * group, size) for std, at, size in ((1.0, 0, 6), (2.0, 6, 3), (3.0, 9, 3)) for group in (0, 1)
    ]


def test_a_fused_qkv_that_is_filled_alike_is_one_line() -> None:
    def make() -> Tensor:
        q, k = nn.init.trunc_normal_(torch.empty(8, 4), std=0.02), nn.init.trunc_normal_(torch.empty(4, 4), std=0.02)
        return torch.cat([q.view(2, 4, 4), k.view(2, 2, 4)], dim=1).view(-1, 4)

    alone(make)
    [(distribution, box)] = lines(make)
    assert distribution.std == 0.02
    assert box is None


def test_other_models_that_hold_copies_of_what_was_put_together() -> None:
    with wi.deferred() as recording:
        student = Holder(fused_qkv)
        teacher = copy.deepcopy(student)
    recording.materialize_(student)
    recording.materialize_(teacher)
    assert same_bits(student.w, teacher.w)
    assert not computed(recording.plan(teacher))


def test_what_is_computed_from_parts_has_their_values() -> None:
    def make() -> dict[str, Tensor]:
        q = randn(4, 4)
        return {"exp": q.exp(), "low": q[2:].clone(), "turned": q[:1].t().clone()}

    holder = made(make)
    assert same_bits(holder.exp[2:], holder.low.exp())
    assert same_bits(holder.exp[:1], holder.turned.t().exp())
    assert len(holder.exp.unique()) == 16


# ---- any program -------------------------------------------------------------------------------------------------------

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


class Numbers:
    """Draws whose elements are all different: 1, 2, 3, ..."""

    def __init__(self) -> None:
        self.draw_of = [0]  # by number

    def into(self, tensor: Tensor) -> Tensor:
        count = len(self.draw_of)
        self.draw_of += [self.draw_of[-1] + 1] * tensor.numel()
        return tensor.copy_(torch.arange(count, len(self.draw_of), dtype=tensor.dtype).view(tensor.shape))


class Draws:
    """Normal values around 10 for the first draw, 20 for the second, ..."""

    def __init__(self) -> None:
        self.count = 0

    def into(self, tensor: Tensor) -> Tensor:
        self.count += 1
        return tensor.normal_(10.0 * self.count, 0.5)


class Program:
    """Draws, then moves and other draws, chosen by hypothesis; run as often as wanted on whatever is drawn."""

    def __init__(self, data: st.DataObject) -> None:
        self.shapes: Sequence[tuple[int, ...]] = data.draw(st.lists(SHAPES, min_size=1, max_size=3))
        steps = st.tuples(st.sampled_from(["redrawn", *sorted(MOVES)]), st.randoms(use_true_random=False))
        self.moves = data.draw(st.lists(steps, max_size=6))
        self.states = [random.getstate() for _, random in self.moves]
        self.kept = data.draw(st.sets(st.integers(0, 5), min_size=1, max_size=4))

    def __call__(self, draw: Numbers | Draws) -> dict[str, Tensor]:
        tensors = [draw.into(torch.empty(shape, dtype=torch.float64)) for shape in self.shapes]
        for (name, random), state in zip(self.moves, self.states, strict=True):
            random.setstate(state)
            if name == "redrawn":
                draw.into(part(random, random.choice(tensors)))
            else:
                tensors += MOVES[name](random, tensors)
        return {f"w{number}": tensors[-1 - number] for number in self.kept if number < len(tensors)}


def part(random: Any, one: Tensor) -> Tensor:
    """A view of it: some indices of a dimension, or all."""
    dim = random.randrange(one.dim())
    begin = random.randrange(one.shape[dim])
    return one if random.random() < 0.3 else one.narrow(dim, begin, random.randint(1, one.shape[dim] - begin))


def joined(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    """Some that fit, in any order, perhaps one of them twice."""
    first = random.choice(tensors)
    fitting = [t for t in tensors if t.dim() == first.dim() and t.shape[1:] == first.shape[1:]]
    return [torch.cat(random.choices(fitting, k=random.randint(1, 3)))]


def joined_along(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    first = random.choice(tensors)
    return [torch.cat([first, torch.zeros_like(first)], random.randrange(first.dim()))]


def stacked(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    first = random.choice(tensors)
    fitting = [t for t in tensors if t.shape == first.shape]
    return [torch.stack(random.choices(fitting, k=2), random.randint(0, first.dim()))]


def cut(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    one = random.choice(tensors)
    pieces = list(one.chunk(2, random.randrange(one.dim())))
    random.shuffle(pieces)
    return pieces


def windows(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    """Two views that overlap, or nearly."""
    one = random.choice(tensors)
    dim = random.randrange(one.dim())
    size = one.shape[dim]
    begin = random.randrange(size)
    return [one.narrow(dim, 0, random.randint(max(begin, 1), size)), one.narrow(dim, begin, size - begin)]


def cast(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    return [random.choice(tensors).to(random.choice([torch.float32, torch.float64]))]


def turned(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    one = random.choice(tensors)
    return [one.permute(random.sample(range(one.dim()), one.dim()))]


def flat(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    one = random.choice(tensors)
    return [one.flatten(random.randrange(one.dim()))]


def cloned(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    return [random.choice(tensors).contiguous().clone()]


def put_into(random: Any, tensors: list[Tensor]) -> list[Tensor]:
    """A tensor in a larger one; a row of that may be put elsewhere or be cleared."""
    one = random.choice(tensors)
    around = torch.zeros([size + 1 for size in one.shape], dtype=one.dtype)
    at = [random.randint(0, 1) for _ in one.shape]
    around[tuple(slice(begin, begin + size) for begin, size in zip(at, one.shape, strict=True))] = one
    if random.random() < 0.5:
        around[0] = around[-1] if random.random() < 0.5 else 0
    return [around]


MOVES: dict[str, Callable[[Any, list[Tensor]], list[Tensor]]] = {
    move.__name__: move for move in (joined, joined_along, stacked, cut, windows, cast, turned, flat, cloned, put_into)
}


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_program(data: st.DataObject) -> None:
    program, numbers = Program(data), Numbers()
    if not (kept := program(numbers)):
        return
    with wi.deferred() as recording:
        models: list[Any] = [Holder(lambda: program(Draws()))]
        models.append(copy.deepcopy(models[0]))
    values: dict[int, float] = {}  # by number, in float32
    long: dict[int, float] = {}
    for model in models:
        plan = wi.Plan.from_json(recording.plan(model).to_json())
        value = recording.values(model)
        recording.materialize_(model)
        for name, tensor in model.named_buffers():
            assert same_bits(value(name), tensor)
            if name not in computed(plan):
                assert same_bits(wi.regenerate(plan, name), tensor)
            for number, held in zip(kept[name].flatten().long().tolist(), tensor.flatten(), strict=True):
                if number == 0:
                    assert held == 0
                    continue
                assert values.setdefault(number, held.float().item()) == held.float()
                assert abs(held - 10 * numbers.draw_of[number]) < 5
                if held.dtype == torch.float64:
                    long[number] = held.item()
    words = {round((held - 10 * numbers.draw_of[number]) / 0.5, 10) for number, held in long.items()}
    assert len(words) == len(long)  # no two elements have the same, in two draws neither
