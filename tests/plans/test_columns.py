"""What rules cover, by columns: the kernels' functions against those in Python, and what keeps a plan from being plain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Constant, Normal
from weightinit_cuda.plans import checks, columns
from weightinit_cuda.plans.entry import Entry
from weightinit_cuda.rules import resolve
from weightinit_cuda.tensors.boxes import Box
from weightinit_cuda.tensors.named import PLAIN_TYPES, Named, named_tensors

WHOLE = list(dict.fromkeys([columns.whole_columns, columns._whole_columns]))
ENTRIES = list(dict.fromkeys([columns.made_entries, columns._entries_of]))
SOUND = list(dict.fromkeys([checks.plainly_sound, checks._fastest]))


def covered(model: nn.Module, rules: wi.rules.Rules = "torch") -> list[columns.Covered]:
    return resolve(model, named_tensors(model), rules)


@pytest.mark.parametrize("of", WHOLE, ids=lambda of: type(of).__name__)
def test_columns_of_what_is_plain(of: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    pairs = covered(model)
    tensors, distributions, names, kinds = of(pairs, tuple(PLAIN_TYPES))
    assert list(map(id, tensors)) == [id(named.tensor) for named, _ in pairs]
    assert distributions == [fills[0][0] for _, fills in pairs]
    assert names == [named.name for named, _ in pairs]
    assert len(kinds) == len({id(fills) for _, fills in pairs}) < len(pairs)
    seen = {(tuple(tensor.shape), tensor.dtype, made) for tensor, made in kinds}
    assert seen == {(tuple(named.tensor.shape), named.tensor.dtype, fills[0][0]) for named, fills in pairs}


@pytest.mark.parametrize("of", WHOLE, ids=lambda of: type(of).__name__)
def test_what_is_not_plain_has_no_columns(of: Any) -> None:
    class Own(torch.Tensor):
        pass

    fill = Constant(1.0), None, "here"
    plain = Named("w", torch.ones(2)), [fill]
    assert of([plain], tuple(PLAIN_TYPES)) is not None
    for other in (
        (Named("v", torch.ones(2, device="meta")), [fill]),
        (Named("v", torch.ones(2).as_subclass(Own)), [fill]),  # type: ignore[arg-type]
        (Named("v", torch.ones(2)), [fill, fill]),
        (Named("v", torch.ones(2)), [(Constant(1.0), Box((0,), (1,)), "here")]),
    ):
        assert of([plain, other], tuple(PLAIN_TYPES)) is None


@pytest.mark.parametrize("of", ENTRIES, ids=lambda of: type(of).__name__)
def test_entries_are_those_of_the_plan(of: Any) -> None:
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=2), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model.append(model[1])
    pairs = covered(model)
    entries = of(pairs, list(range(len(pairs))), Entry)
    assert type(entries) is tuple
    assert {type(entry) for entry in entries} == {Entry}
    assert {type(entry.shape) for entry in entries} == {tuple}
    expected = [
        Entry(n.name, tuple(n.tensor.shape), n.tensor.dtype, made, i, source, box, n.aliases, n.buffer)
        for i, (n, fills) in enumerate(pairs)
        for made, box, source in fills
    ]
    assert list(entries) == expected
    assert list(map(hash, entries)) == list(map(hash, expected))  # which Python 3.14 keeps in a tuple
    assert wi.plan(model, "torch", 0).entries == tuple(
        entry._replace(stream=of_plan.stream) for entry, of_plan in zip(entries, wi.plan(model, "torch", 0), strict=True)
    )
    assert any(entry.box for entry in entries)
    assert any(entry.aliases for entry in entries)


GOOD = Entry("w", (2, 3), torch.float32, Normal(0.0, 1.0), 5, "here")


class Text(str):
    """Of another type than text."""


@pytest.mark.parametrize("is_sound", SOUND, ids=lambda of: type(of).__name__)
def test_sound_entries_are_seen_as_such(is_sound: Any) -> None:
    entries = (GOOD, GOOD._replace(name="v", shape=(0, 4), stream=2**64 - 1), GOOD._replace(name="u", shape=(), buffer=True))
    assert is_sound(entries, Entry, checks.can_fill)
    assert not is_sound((*entries, GOOD), Entry, checks.can_fill)  # a name twice


@pytest.mark.parametrize("is_sound", SOUND, ids=lambda of: type(of).__name__)
@pytest.mark.parametrize(
    "change",
    [
        {"name": Text("v")},
        {"name": "größe"},
        {"name": 3},
        {"shape": [2, 3]},
        {"shape": (2, -3)},
        {"shape": (2, 3.0)},
        {"shape": (True, 3)},
        {"shape": (-(2**70),)},
        {"shape": (2**70,)},
        {"dtype": "float32"},
        {"dtype": torch.int32},
        {"distribution": "normal"},
        {"distribution": Normal(0.0, -1.0)},
        {"stream": -1},
        {"stream": 2**64},
        {"stream": True},
        {"source": None},
        {"box": Box((0, 0), (1, 1))},
        {"aliases": ("u",)},
        {"aliases": []},
        {"buffer": 0},
    ],
    ids=str,
)
def test_others_are_gone_through_one_by_one(is_sound: Any, change: dict[str, Any]) -> None:
    other = GOOD._replace(name="v")._replace(**change)
    assert not is_sound((GOOD, other), Entry, checks.can_fill)
    assert not is_sound((other, GOOD), Entry, checks.can_fill)


@pytest.mark.parametrize("is_sound", SOUND, ids=lambda of: type(of).__name__)
def test_what_is_no_entry_is_not_sound(is_sound: Any) -> None:
    assert not is_sound((GOOD, tuple(GOOD._replace(name="v"))), Entry, checks.can_fill)
    assert not is_sound((3,), Entry, checks.can_fill)


def test_columns_of_different_lengths_are_refused() -> None:
    pairs = covered(nn.Linear(2, 2))
    for of in ENTRIES:
        with pytest.raises(ValueError, match=r"length|shorter|argument"):
            of(pairs, [1], Entry)


def test_the_kernels_functions_refuse_what_is_of_another_form() -> None:
    if columns._whole_columns is columns.whole_columns:
        pytest.skip("no native module")
    named, fills = covered(nn.Linear(2, 2))[0]
    for pair in (3, (named,), (named, fills, 1), (named, tuple(fills)), ((1, 2), fills), (named, [(1, 2)])):
        with pytest.raises(TypeError):
            columns._whole_columns([pair], tuple(PLAIN_TYPES))
        with pytest.raises(TypeError):
            columns._entries_of([pair], [1], Entry)
    with pytest.raises(TypeError):
        columns._entries_of([(named, fills)], [1], int)
